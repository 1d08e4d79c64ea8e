//! The keys of the attributes that contain a session's values, and a cheap pre-check for keys.
//!
//! Source: OpenInference's semantic conventions, "Context Attributes", where nothing else is named.

use opentelemetry::Key;

/// Declares the keys that the crate itself writes, each twice: as a constant, to compare texts with, and in
/// [`ours`], to write.
///
/// The text in [`ours`] has an address of its own, so [`is_ours`] can tell who wrote an attribute. A literal
/// would not do: the compiler and the linker may give equal constants one address, and an author's
/// `"metadata"` is such a constant. Rust also lets a literal share the storage of an immutable static with the
/// same bytes. So the static ends in one more byte that no text contains: linkers merge equal constants and
/// common ends, never a common beginning.
macro_rules! written_keys {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        $($(#[$doc])* pub(crate) const $name: &str = $text;)*

        /// The keys as the crate writes them on spans. Nobody else's keys have these addresses.
        ///
        /// They are statics, because Clippy 1.95 panics where it compares a constant that points to a static.
        pub(crate) mod ours {
            $(pub(crate) static $name: &str = {
                static BYTES: [u8; $text.len() + 1] =
                    *concat!($text, "\u{1}").as_bytes().first_chunk().unwrap();
                match std::str::from_utf8(BYTES.split_at($text.len()).0) {
                    Ok(text) => text,
                    Err(_) => unreachable!(),
                }
            };)*
        }
    };
}

written_keys! {
    /// The conversation that a span belongs to.
    SESSION_ID = "session.id";
    /// The user of the conversation.
    USER_ID = "user.id";
    /// In place of the user's id, where it is hashed. Source: OpenTelemetry's semantic conventions.
    USER_HASH = "user.hash";
    /// One JSON object.
    METADATA = "metadata";
    /// A list of strings.
    TAGS = "tag.tags";
}

/// The session that this one continues. Source: OpenTelemetry's semantic conventions.
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

/// The field that contains the id, on spans named `session` or `user`.
pub(crate) const ID: &str = "id";
/// The field that contains tags, on openers.
pub(crate) const TAGS_FIELD: &str = "tags";
/// The prefix of the fields that contain metadata, on openers.
pub(crate) const METADATA_FIELD: &str = "metadata.";

/// The keys of all values of a session.
pub(crate) const VALUE_KEYS: [&str; 7] = [
    SESSION_ID,
    USER_ID,
    METADATA,
    TAGS,
    PROMPT_TEMPLATE,
    PROMPT_TEMPLATE_VERSION,
    PROMPT_TEMPLATE_VARIABLES,
];

/// Further keys that spans look at: they are renamed, consumed on openers, or stand for the user.
pub(crate) const FURTHER_KEYS: [&str; 4] = [USER_HASH, PLAIN_SESSION, PLAIN_USER, ID];

/// The keys that spans look at.
pub(crate) const OURS: KeyFilter = KeyFilter::of(&VALUE_KEYS).and_all(&FURTHER_KEYS);

/// Whether this crate wrote the attribute with this key, which has the text of `ours`. Otherwise the span's
/// author did.
///
/// The SDK clones keys, and a clone of a static key has the same address.
pub(crate) fn is_ours(key: &Key, ours: &'static str) -> bool {
    std::ptr::eq(key.as_str().as_ptr(), ours.as_ptr())
}

/// A set of keys, reduced to their lengths and to their last letters by length. It rejects nearly every
/// other key, and each field and attribute of each span passes it, so it compares no text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyFilter {
    lengths: u64,
    ends: u64,
}

impl KeyFilter {
    pub(crate) const fn of(keys: &[&str]) -> Self {
        let (lengths, ends) = (0, 0);
        Self { lengths, ends }.and_all(keys)
    }

    const fn and_all(self, keys: &[&str]) -> Self {
        match keys.split_first() {
            Some((first, others)) => self.and(first).and_all(others),
            None => self,
        }
    }

    pub(crate) const fn and(mut self, key: &str) -> Self {
        self.lengths |= Self::length(key);
        self.ends |= Self::end(key);
        self
    }

    /// False if the key is certainly none of the set.
    #[inline(always)]
    pub(crate) fn may_match(self, key: &str) -> bool {
        self.lengths & Self::length(key) != 0 && self.end_may_match(key)
    }

    // A function of its own, so that the compiler reads the text only where the length is right.
    #[cold]
    fn end_may_match(self, key: &str) -> bool {
        self.ends & Self::end(key) != 0
    }

    // Some lengths, and some ends, share a bit.
    const fn length(key: &str) -> u64 {
        1 << (key.len() % 64)
    }

    const fn end(key: &str) -> u64 {
        match key.as_bytes().last() {
            Some(end) => 1 << ((key.len() * 7 + *end as usize) % 64),
            None => 0,
        }
    }
}
