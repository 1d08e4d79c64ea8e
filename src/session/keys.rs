//! The parts of a session, the keys of the attributes that contain them, and key filters: cheap pre-checks of keys.
//! The private names are further keys and span names that the application registers.
//!
//! Source, unless a comment names another one: OpenInference's semantic conventions, "Context Attributes".

use opentelemetry::{Key, KeyValue};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{PoisonError, RwLock};

/// Declares each key that the crate writes twice: as a constant, for comparing texts, and as a static in [`ours`],
/// for writing.
///
/// [`is_ours`] compares addresses to tell whether the crate or the span's author wrote an attribute, so each text in
/// [`ours`] needs a unique address. A literal has none: the compiler and the linker may give equal constants one
/// address, such as an author's `"metadata"`. Rust also lets a literal share the storage of an immutable static with
/// the same bytes. So each static ends with one more byte that no text contains. Linkers merge equal constants and
/// common ends, never a common beginning.
macro_rules! written_keys {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        $($(#[$doc])* pub(crate) const $name: &str = $text;)*

        /// The keys that the crate writes on spans. No other key has these addresses.
        ///
        /// They are statics, because Clippy 1.95 panics when it compares a constant that points to a static.
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
    /// Replaces the user id if a provider hashes it. Source: OpenTelemetry's semantic conventions.
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

/// If a span has a plain attribute `session` beside `session.id`, Phoenix loses the session: it stores nested
/// attributes, and both keys have one path there.
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

/// Further keys that spans check: they rename the attribute, consume it on openers, or identify the user by it.
pub(crate) const FURTHER_KEYS: [&str; 4] = [USER_HASH, PLAIN_SESSION, PLAIN_USER, ID];

/// The keys that spans check if the provider redacts nothing. Then [`USER_HASH`] is only an attribute of a session
/// from headers, and spans with such attributes check every key.
pub(crate) const OURS: KeyFilter =
    KeyFilter::of(&VALUE_KEYS).and_all(&[PLAIN_SESSION, PLAIN_USER, ID]);

/// Whether this crate wrote the attribute with this key, which has the text of `ours`. Otherwise the span's
/// author did.
///
/// The SDK clones keys, and a clone of a static key has the same address.
pub(crate) fn is_ours(key: &Key, ours: &'static str) -> bool {
    std::ptr::eq(key.as_str().as_ptr(), ours.as_ptr())
}

/// A key filter: the lengths of a set of keys, and their last letters by length. It checks each field and attribute
/// of each span, so it rejects nearly every other key without comparing texts.
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

    // A separate function, so that the compiled code reads the text only if the length matches.
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

/// A part of a session, for [`Session::without`](crate::Session::without).
///
/// Each part is inherited separately. Inside another session, metadata and attributes are merged by key, tags are
/// joined, and the inner session wins for all other values. A span's own attribute with the same key, such as
/// `metadata`, replaces the session's value on this span.
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
    /// The session id.
    Session,
    /// The user id.
    User,
    /// All metadata.
    Metadata,
    /// All tags.
    Tags,
    /// The prompt template, its version and its variables.
    PromptTemplate,
    /// All of your own [attributes](crate::Session::with_attribute).
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

/// Selects one of the two ids of a session.
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

/// The names that layers of this process are configured with, and the keys of dialects that are not built in. Layers
/// and dialects write it when they are configured. Providers that redact read it when a key passes the filter. Empty
/// if only the built-in names and dialects are used.
static PRIVATE_NAMES: RwLock<Vec<(NameOf, String, IdKind)>> = RwLock::new(Vec::new());

pub(crate) fn register(of: NameOf, name: &str, kind: IdKind) {
    let mut names = PRIVATE_NAMES
        .write()
        .unwrap_or_else(PoisonError::into_inner);
    let added = (of, name.to_owned(), kind);
    // A program may configure many layers, so the list grows by new names only. It has no limit, because ids under a
    // missing name wouldn't be redacted.
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

/// A key filter for providers that redact: they check each attribute of each span, and nearly no key is private.
///
/// It has one word per length of a key, with a bit for each first letter. [`add_to_filter`] adds the keys that a
/// provider of the process redacts, the names in [`PRIVATE_NAMES`], and the keys that spans check anyway. Empty until
/// a provider redacts, or a name is registered.
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

/// False if a key is certainly neither private nor one that spans check.
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
