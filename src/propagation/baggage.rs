//! The header of [W3C baggage](https://www.w3.org/TR/baggage/): writing and parsing it.
//!
//! OpenTelemetry's own `BaggagePropagator` damages ids: it doesn't encode `%`, trims values, and splits them at `=`.

use crate::diagnostic::{self, BAGGAGE_TOO_LARGE};
use opentelemetry::Context;
use opentelemetry::baggage::{Baggage, BaggageExt};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use std::borrow::Cow;

pub(crate) const HEADER: &str = "baggage";

/// The limits of the recommendation, for the whole header.
pub(crate) const MAX_BYTES: usize = 8192;
const MAX_MEMBERS: usize = 64;

/// Encodes every character that some reader misreads: Python reads `+` as a space, and for others `=` ends a value.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b':')
    .remove(b'/')
    .remove(b'@')
    .remove(b'!')
    .remove(b'$')
    .remove(b'*');

/// The header with these `own` members, and the other baggage of `cx` except members that `is_redacted`. `None` if it
/// would be empty. Reports members that don't fit.
pub(crate) fn header(
    cx: &Context,
    own: &[(&str, &str)],
    is_redacted: impl Fn(&str, &str) -> bool,
) -> Option<String> {
    let is_own = |key: &str| own.iter().any(|(own, _)| *own == key);
    let others = cx.baggage().iter();
    let others = others.map(|(key, (value, it))| (key.as_str(), value.as_str(), it.as_str()));
    let others = others.filter(|(key, value, _)| !is_own(key) && !is_redacted(key, value));
    let own = own.iter().map(|(key, value)| (*key, *value, ""));
    let mut header = String::new();
    let mut members = 0;
    for (key, value, metadata) in own.chain(others) {
        let before = header.len();
        header.extend([if before > 0 { "," } else { "" }, key, "="]);
        header.extend(utf8_percent_encode(value, ENCODED));
        header.extend(properties(metadata).flat_map(|property| [";", property]));
        if header.len() <= MAX_BYTES && members < MAX_MEMBERS {
            members += 1;
        } else {
            header.truncate(before);
            diagnostic::emit_once(BAGGAGE_TOO_LARGE);
        }
    }
    (members > 0).then_some(header)
}

/// The properties in a member's metadata, without those that would break the header.
fn properties(metadata: &str) -> impl Iterator<Item = &str> {
    let is_octet = |byte: u8| matches!(byte, b'\t' | b' '..=b'~') && byte != b',';
    let properties = metadata.split(';').map(str::trim);
    properties.filter(move |it| !it.is_empty() && it.bytes().all(is_octet))
}

/// A member of a header.
pub(crate) struct Member<'a> {
    key: &'a str,
    encoded: &'a str,
    metadata: &'a str,
}

impl<'a> Member<'a> {
    /// Whether this is the member `key`. Some readers decode keys, so an encoded key counts too.
    pub(crate) fn is(&self, key: &str) -> bool {
        percent_decode_str(self.key).eq(key.bytes())
    }

    /// `None` if the value is not UTF-8.
    pub(crate) fn value(&self) -> Option<Cow<'a, str>> {
        percent_decode_str(self.encoded).decode_utf8().ok()
    }

    /// The value if its sender writes a space as `+`, as Python's OpenTelemetry does. The header doesn't tell.
    pub(crate) fn value_with_spaces(&self) -> Option<String> {
        let encoded = self.encoded.replace('+', " ");
        let value = percent_decode_str(&encoded).decode_utf8().ok()?;
        Some(value.into_owned())
    }
}

/// The members of the headers, up to the limits.
pub(crate) fn members<'a>(headers: &'a [&'a str]) -> impl Iterator<Item = Member<'a>> {
    let mut bytes = 0;
    let fitting = headers.iter().take_while(move |header| {
        bytes += header.len();
        bytes <= MAX_BYTES
    });
    let members = fitting.flat_map(|header| header.split(','));
    let members = members.filter_map(|member| {
        let (pair, metadata) = member.split_once(';').unwrap_or((member, ""));
        let (key, encoded) = pair.split_once('=')?;
        Some(Member {
            key: key.trim(),
            encoded: encoded.trim(),
            metadata: metadata.trim(),
        })
    });
    members.take(MAX_MEMBERS)
}

/// `cx` with these members instead of its own baggage.
pub(crate) fn with_baggage<'a>(cx: &Context, members: impl Iterator<Item = Member<'a>>) -> Context {
    let mut baggage = Baggage::new();
    for member in members {
        if let Some(value) = member.value() {
            // Ignores members with an invalid key, and members over the limits.
            let (key, value) = (member.key.to_owned(), value.into_owned());
            baggage.insert_with_metadata(key, value, member.metadata);
        }
    }
    cx.with_baggage(baggage)
}
