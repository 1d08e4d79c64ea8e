//! The keys that are written, and a scope as attributes.
//!
//! Source: OpenInference's semantic conventions, "Context Attributes".

use crate::session::Id;
use opentelemetry::{Key, KeyValue};

/// The conversation that a span belongs to.
pub(crate) const SESSION_ID: &str = "session.id";
/// Whom the conversation is with.
pub(crate) const USER_ID: &str = "user.id";
/// In place of the user's id, where it is hidden. Source: OpenTelemetry's semantic conventions.
pub(crate) const USER_HASH: &str = "user.hash";
/// One JSON object.
pub(crate) const METADATA: &str = "metadata";
/// A list of strings.
pub(crate) const TAGS: &str = "tag.tags";

/// A text with an address of its own, so that [`is_ours`] can tell who wrote an attribute.
///
/// A literal would not do: the compiler and the linker may give equal constants one address, and a
/// caller's `"metadata"` is such a constant. A static has its own address, but Rust lets a literal
/// share the storage of an immutable static with the same bytes. So the static has one byte more,
/// which the text leaves off. Linkers merge equal constants and common ends, never a beginning, and
/// no text contains this byte.
macro_rules! with_own_address {
    ($text:expr) => {{
        static BYTES: [u8; $text.len() + 1] = $crate::session::keys::with_last_byte($text);
        $crate::session::keys::without_last_byte(&BYTES)
    }};
}

/// The same keys as this crate writes them on spans, for the session. Everybody else's are not these.
///
/// Statics, because Clippy 1.95 panics where it compares a constant that points to a static.
pub(crate) mod ours {
    pub(crate) static SESSION_ID: &str = with_own_address!(super::SESSION_ID);
    pub(crate) static USER_ID: &str = with_own_address!(super::USER_ID);
    pub(crate) static USER_HASH: &str = with_own_address!(super::USER_HASH);
    pub(crate) static METADATA: &str = with_own_address!(super::METADATA);
    pub(crate) static TAGS: &str = with_own_address!(super::TAGS);
}

/// The session that this one goes on from. Source: OpenTelemetry's semantic conventions.
pub(crate) const PREVIOUS_SESSION_ID: &str = "session.previous_id";

pub(crate) const PROMPT_TEMPLATE: &str = "llm.prompt_template.template";
pub(crate) const PROMPT_TEMPLATE_VERSION: &str = "llm.prompt_template.version";
/// One JSON object.
pub(crate) const PROMPT_TEMPLATE_VARIABLES: &str = "llm.prompt_template.variables";

/// A plain attribute beside the dotted key makes Phoenix lose the session: both are one path in the
/// nested attributes that it stores.
pub(crate) const PLAIN_SESSION: &str = "session";
pub(crate) const PLAIN_SESSION_RENAMED: &str = "session.name";
pub(crate) const PLAIN_USER: &str = "user";
pub(crate) const PLAIN_USER_RENAMED: &str = "user.name";

/// The field that holds the id of a span named `session` or `user`.
pub(crate) const ID: &str = "id";
/// The field of a span that opens a scope that holds tags.
pub(crate) const TAGS_FIELD: &str = "tags";
/// And, with a key behind it, metadata.
pub(crate) const METADATA_FIELD: &str = "metadata.";

/// All that are written from a scope.
pub(crate) const WRITTEN: [&str; 7] = [
    SESSION_ID,
    USER_ID,
    METADATA,
    TAGS,
    PROMPT_TEMPLATE,
    PROMPT_TEMPLATE_VERSION,
    PROMPT_TEMPLATE_VARIABLES,
];

/// These, and those that are renamed, or consumed on openers.
pub(crate) const LOOKED_AT: [&str; 11] = [
    SESSION_ID,
    USER_ID,
    USER_HASH,
    METADATA,
    TAGS,
    PROMPT_TEMPLATE,
    PROMPT_TEMPLATE_VERSION,
    PROMPT_TEMPLATE_VARIABLES,
    PLAIN_SESSION,
    PLAIN_USER,
    ID,
];

pub(crate) const OURS: KeyFilter = KeyFilter::of(&LOOKED_AT);

/// The id as an attribute: it shares the id's text.
#[inline]
pub(crate) fn attribute(key: &'static str, id: &Id) -> KeyValue {
    KeyValue::new(Key::from_static_str(key), id.shared())
}

pub(crate) const fn with_last_byte<const N: usize>(text: &str) -> [u8; N] {
    let mut bytes = [0xff; N];
    let mut at = 0;
    while at < text.len() {
        bytes[at] = text.as_bytes()[at];
        at += 1;
    }
    bytes
}

pub(crate) const fn without_last_byte(bytes: &'static [u8]) -> &'static str {
    match bytes.split_last() {
        Some((_, text)) => match std::str::from_utf8(text) {
            Ok(text) => text,
            Err(_) => panic!("it was text"),
        },
        None => "",
    }
}

/// Whether this crate wrote the attribute with this key, which has the text of `ours`. If not, the
/// span's author did.
///
/// The SDK clones keys, and a clone of a static key has the same address.
pub(crate) fn is_ours(key: &Key, ours: &'static str) -> bool {
    std::ptr::eq(key.as_str().as_ptr(), ours.as_ptr())
}

/// What can be seen of a few names at a key_filter: their lengths, and with these their last letters. It
/// is enough to tell of nearly every other name that it is none of them.
///
/// It is taken at each field and attribute of each span, so it compares no text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyFilter {
    lengths: u64,
    ends: u64,
}

impl KeyFilter {
    pub(crate) const fn of(names: &[&str]) -> Self {
        let mut filter = Self {
            lengths: 0,
            ends: 0,
        };
        let mut at = 0;
        while at < names.len() {
            filter = filter.and(names[at]);
            at += 1;
        }
        filter
    }

    pub(crate) const fn and(self, name: &str) -> Self {
        match name.as_bytes().last() {
            None => self,
            Some(end) => Self {
                lengths: self.lengths | Self::length(name),
                ends: self.ends | Self::end(name, *end),
            },
        }
    }

    #[inline(always)]
    pub(crate) fn may_match(self, name: &str) -> bool {
        self.lengths & Self::length(name) != 0 && self.ends_alike(name)
    }

    // By itself, so that the compiler reads the text only where the length is right.
    #[cold]
    fn ends_alike(self, name: &str) -> bool {
        let end = name.as_bytes().last();
        end.is_some_and(|end| self.ends & Self::end(name, *end) != 0)
    }

    // Some share a bit.
    const fn length(name: &str) -> u64 {
        1 << (name.len() % 64)
    }

    const fn end(name: &str, end: u8) -> u64 {
        1 << ((name.len() * 7 + end as usize) % 64)
    }
}
