//! The parts of a session, the keys of the attributes that contain them, and key filters: cheap pre-checks of keys. The
//! private names are the further keys and span names that the application registers.
//!
//! Source: OpenInference's semantic conventions, "Context Attributes", where nothing else is named.

use opentelemetry::{Key, KeyValue};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{PoisonError, RwLock};

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

/// The keys that spans look at where nothing is redacted. There, [`USER_HASH`] is only written as an attribute of a session
/// from headers, and spans with such attributes look at every key.
pub(crate) const OURS: KeyFilter =
    KeyFilter::of(&VALUE_KEYS).and_all(&[PLAIN_SESSION, PLAIN_USER, ID]);

/// Whether this crate wrote the attribute with this key, which has the text of `ours`. Otherwise the span's
/// author did.
///
/// The SDK clones keys, and a clone of a static key has the same address.
pub(crate) fn is_ours(key: &Key, ours: &'static str) -> bool {
    std::ptr::eq(key.as_str().as_ptr(), ours.as_ptr())
}

/// A set of keys, reduced to their lengths and to their last letters by length. It rejects nearly every
/// other key, and each field and attribute of each span passes it, so it compares no text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct KeyFilter {
    lengths: u64,
    ends: u64,
}

impl KeyFilter {
    pub(crate) const fn of(keys: &[&str]) -> Self {
        let (lengths, ends) = (0, 0);
        Self { lengths, ends }.and_all(keys)
    }

    pub(crate) const fn and_all(self, keys: &[&str]) -> Self {
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

    /// Adds a key. False if it certainly wasn't in the set.
    pub(crate) fn insert(&mut self, key: &str) -> bool {
        let may_have = self.may_match(key);
        *self = self.and(key);
        may_have
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

/// A part of a session: [`Session::without`](crate::Session::without) stops its inheritance.
///
/// Each part is inherited separately. Inside another session, metadata and attributes are merged by key, tags are
/// joined, and of all other values the inner one wins. This concerns sessions only. If a span has your own attribute
/// with the same key, such as `metadata`, that attribute replaces the session's on the span.
///
/// ```
/// use tracing_session::{Session, current_session, session::Part};
///
/// let outer = Session::new("chat-42")?.with_user("u-7")?;
/// let inner = Session::default().without(Part::User);
/// let here = outer.in_scope(|| inner.in_scope(current_session)).unwrap();
/// assert_eq!((here.id(), here.user_id()), (Some("chat-42"), None));
/// # Ok::<(), tracing_session::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Part {
    /// The session's id.
    Session,
    /// The user's id.
    User,
    /// All metadata.
    Metadata,
    /// All tags.
    Tags,
    /// The prompt template, its version and its variables.
    PromptTemplate,
    /// All [attributes](crate::Session::with_attribute) of your own.
    Attributes,
}

/// A set of parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Parts(u8);

impl Parts {
    pub(crate) const ALL: Self = Self((1 << (Part::Attributes as u8 + 1)) - 1);

    pub(crate) const IDS: Self = Self(1 << Part::Session as u8 | 1 << Part::User as u8);

    pub(crate) fn have(self, part: Part) -> bool {
        self.0 & 1 << part as u8 != 0
    }

    pub(crate) fn with(self, part: Part) -> Self {
        Self(self.0 | 1 << part as u8)
    }

    pub(crate) fn and(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    pub(crate) fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// Which of the two ids of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum IdKind {
    Session,
    User,
}

impl IdKind {
    pub(crate) const BOTH: [Self; 2] = [Self::Session, Self::User];

    /// The key of the attribute that contains the id.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::Session => ours::SESSION_ID,
            Self::User => ours::USER_ID,
        }
    }
}

/// Where a private name is used.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum NameOf {
    /// The attribute with this key contains an id.
    Key,
    /// The field `id` of spans with this name contains an id.
    Span,
}

/// The names that layers of this process are configured with, and the keys of dialects that are not built in. Layers and
/// dialects write it when they are configured. Every provider that redacts reads it when a key passes the filter.
/// Empty where only the built-in names and dialects are used.
static PRIVATE_NAMES: RwLock<Vec<(NameOf, String, IdKind)>> = RwLock::new(Vec::new());

pub(crate) fn register(of: NameOf, name: &str, kind: IdKind) {
    let mut names = PRIVATE_NAMES
        .write()
        .unwrap_or_else(PoisonError::into_inner);
    let added = (of, name.to_owned(), kind);
    // A program may configure layers again and again: the list grows by new names only. It has no limit, because the ids
    // under a name that is left out would not be redacted.
    if !names.contains(&added) {
        add_to_filter(name);
        names.push(added);
    }
}

/// The kind of id that a registered name is for.
pub(crate) fn registered(of: NameOf, name: &str) -> Option<IdKind> {
    let names = PRIVATE_NAMES.read().unwrap_or_else(PoisonError::into_inner);
    let found = names.iter().find(|it| it.0 == of && it.1 == name);
    found.map(|(_, _, kind)| *kind)
}

/// The kind of id that the field `id` of spans with this name contains.
#[inline]
pub(crate) fn id_field_kind(span: &str) -> Option<IdKind> {
    match span {
        "session" => Some(IdKind::Session),
        "user" => Some(IdKind::User),
        _ if !may_matter(span) => None,
        _ => registered(NameOf::Span, span),
    }
}

/// A key filter: nearly every key is not private, and each attribute of each span of a provider that redacts is
/// checked.
///
/// It has one word per length of a key, with a bit for each first letter. [`add_to_filter`] adds the keys that a
/// provider of the process redacts, the names in [`PRIVATE_NAMES`], and the keys that spans look at anyway.
/// Empty until a provider redacts, or a name is registered.
static FILTER: [AtomicU32; 64] = [const { AtomicU32::new(0) }; 64];

/// The place of a key in [`FILTER`].
#[inline(always)]
fn place(key: &str) -> (usize, u32) {
    let first = key.as_bytes().first().copied().unwrap_or_default();
    (key.len() % 64, 1 << (first % 32))
}

pub(crate) fn add_to_filter(key: &str) {
    let (length, first) = place(key);
    FILTER[length].fetch_or(first, Ordering::Relaxed);
}

/// False if an attribute with this key is certainly neither private, nor one that spans look at.
#[inline(always)]
pub(crate) fn may_matter(key: &str) -> bool {
    let (length, first) = place(key);
    FILTER[length].load(Ordering::Relaxed) & first != 0
}

/// The same for several attributes.
#[inline]
pub(crate) fn any_may_matter(attributes: &[KeyValue]) -> bool {
    attributes.iter().any(|it| may_matter(it.key.as_str()))
}
