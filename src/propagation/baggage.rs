//! W3C baggage, as a header: <https://www.w3.org/TR/baggage/>.
//!
//! OpenTelemetry's own `BaggagePropagator` damages ids: it does not encode `%`, trims values, and
//! splits them at `=`.

use opentelemetry::Context;
use opentelemetry::baggage::{Baggage, BaggageExt};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use std::borrow::Cow;

pub(crate) const HEADER: &str = "baggage";

/// Limits of the recommendation, for the whole header.
pub(crate) const MAX_BYTES: usize = 8192;
const MAX_MEMBERS: usize = 64;

/// Everything that some reader is known to take for something else: `+` is a space to Python, and
/// `=` ends a value for others.
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

/// The header that carries `ours` and the other baggage of `cx`, but for what is `hidden`, and whether
/// all of that fits. `None` if there is none.
pub(crate) fn header(
    cx: &Context,
    ours: &[(&str, &str)],
    hidden: impl Fn(&str, &str) -> bool,
) -> Option<(String, bool)> {
    let ours_too = |key: &str| ours.iter().any(|(ours, _)| *ours == key);
    let others = cx.baggage().iter().map(|(key, (value, metadata))| {
        let (key, value) = (key.as_str(), value.as_str());
        (key, value, metadata.as_str())
    });
    let others = others.filter(|(key, value, _)| !ours_too(key) && !hidden(key, value));
    let ours = ours.iter().map(|(key, value)| (*key, *value, ""));
    let mut header = String::new();
    let mut members = 0;
    let mut fits = true;
    for (key, value, metadata) in ours.chain(others) {
        let before = header.len();
        let comma = if before > 0 { "," } else { "" };
        header.extend([comma, key, "="]);
        header.extend(utf8_percent_encode(value, ENCODED));
        header.extend(properties(metadata).flat_map(|property| [";", property]));
        if header.len() <= MAX_BYTES && members < MAX_MEMBERS {
            members += 1;
        } else {
            header.truncate(before);
            fits = false;
        }
    }
    (members > 0).then_some((header, fits))
}

/// What may stand behind a value: properties that break no header.
fn properties(metadata: &str) -> impl Iterator<Item = &str> {
    let is_plain = |property: &&str| {
        let is_octet = |byte: u8| matches!(byte, b'\t' | b' '..=b'~') && byte != b',';
        !property.is_empty() && property.bytes().all(is_octet)
    };
    metadata.split(';').map(str::trim).filter(is_plain)
}

/// A member of a header. The value is `None` if it is not UTF-8.
pub(crate) struct Member<'a> {
    key: &'a str,
    pub(crate) value: Option<Cow<'a, str>>,
    encoded: &'a str,
    metadata: &'a str,
}

impl Member<'_> {
    /// Some readers decode keys, so what is ours may be hidden behind an encoding.
    pub(crate) fn is(&self, key: &str) -> bool {
        percent_decode_str(self.key).eq(key.bytes())
    }

    /// The value if its sender writes a space as `+`, as Python's OpenTelemetry does. Nothing in the
    /// header tells.
    pub(crate) fn with_spaces(&self) -> Option<String> {
        let encoded = self.encoded.replace('+', " ");
        let value = percent_decode_str(&encoded).decode_utf8().ok()?;
        Some(value.into_owned())
    }
}

/// The members of a header, within the limits: what is over them is not looked at.
pub(crate) fn members<'a>(headers: &'a [&'a str]) -> impl Iterator<Item = Member<'a>> {
    let mut bytes = 0;
    let within = move |header: &&&str| {
        bytes += header.len();
        bytes <= MAX_BYTES
    };
    headers
        .iter()
        .take_while(within)
        .flat_map(|header| header.split(','))
        .filter_map(|member| {
            let (pair, metadata) = member.split_once(';').unwrap_or((member, ""));
            let (key, value) = pair.split_once('=')?;
            Some(Member {
                key: key.trim(),
                value: percent_decode_str(value.trim()).decode_utf8().ok(),
                encoded: value.trim(),
                metadata: metadata.trim(),
            })
        })
        .take(MAX_MEMBERS)
}

/// `cx` with the baggage of a header in place of its own.
pub(crate) fn with_baggage<'a>(cx: &Context, members: impl Iterator<Item = Member<'a>>) -> Context {
    let mut baggage = Baggage::new();
    for member in members {
        if let Some(value) = member.value {
            // What has no valid key, or is too much, is not taken.
            let (key, value) = (member.key.to_owned(), value.into_owned());
            baggage.insert_with_metadata(key, value, member.metadata);
        }
    }
    cx.with_baggage(baggage)
}
