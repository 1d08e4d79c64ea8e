//! `Session`: the ids, and what an id must be.

pub(crate) mod details;
pub(crate) mod metadata;
pub(crate) mod text;

use crate::error::{Error, ErrorKind};
use crate::session::details::{Details, Part, Parts};
#[cfg(feature = "hash")]
use crate::sync::OnceLock;
use std::env::VarError;
use std::fmt::{self, Display};
#[cfg(feature = "hash")]
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;
use uuid::Uuid;

/// The values that one conversation's spans carry: a session id, a user id, metadata, tags, a
/// prompt template, attributes of one's own; any of them, or all.
///
/// A `Session` is a plain value, made once per conversation and cloned freely (three reference
/// counts). It comes into force where it is [attached](Session::attach), wraps a
/// [closure](Session::in_scope) or a [future](crate::InSession::in_session), or is given to
/// [`session!`](crate::session). `Debug` shows which ids are there, and never a value.
///
/// ```
/// use tracing_session::{Session, current_session};
///
/// let session = Session::new("chat-42")?.with_user("u-7")?;
/// session.in_scope(|| {
///     let here = current_session().unwrap();
///     assert_eq!((here.id(), here.user_id()), (Some("chat-42"), Some("u-7")));
/// });
/// # Ok::<(), tracing_session::Error>(())
/// ```
#[derive(Clone, Default, PartialEq)]
pub struct Session {
    pub(crate) id: Option<Id>,
    pub(crate) user_id: Option<Id>,
    pub(crate) details: Option<Arc<Details>>,
    /// What is not to be inherited.
    pub(crate) cleared: Parts,
}

impl Session {
    /// A session with this id.
    ///
    /// The id may be anything that displays: a string, a [`Uuid`], an integer. It is trimmed.
    ///
    /// Cost: some 600 instructions.
    ///
    /// # Errors
    ///
    /// An id is 1 to 1,024 bytes of UTF-8 after trimming, without control characters. It is never
    /// cut to fit.
    ///
    /// ```
    /// use tracing_session::Session;
    ///
    /// assert_eq!(Session::new(" chat-42 ")?.id(), Some("chat-42"));
    /// assert_eq!(Session::new(42_u64)?.id(), Some("42"));
    /// assert_eq!(Session::new("\t").unwrap_err().to_string(), "id is blank");
    /// # Ok::<(), tracing_session::Error>(())
    /// ```
    pub fn new(id: impl Display) -> Result<Self, Error> {
        Ok(Self::with_id(Id::display(id)?))
    }

    /// A session with a new id: a UUID of version 7, so that ids sort by the time they were made.
    ///
    /// Cost: some 800 instructions.
    ///
    /// ```
    /// use tracing_session::Session;
    ///
    /// assert_ne!(Session::generate(), Session::generate());
    /// ```
    pub fn generate() -> Self {
        let mut text = Uuid::encode_buffer();
        let text: &str = Uuid::now_v7().as_hyphenated().encode_lower(&mut text);
        Self::with_id(Id::of(text.into()))
    }

    fn with_id(id: Id) -> Self {
        Self {
            id: Some(id),
            ..Self::default()
        }
    }

    /// The session that the environment names, or else a new one.
    ///
    /// Reads `TRACING_SESSION_ID`, then TraceCtrl's `TRACECTRL_SESSION_ID`. A variable that is
    /// blank counts as not set. It is what a command-line agent gives to
    /// [`SessionLayer::with_default_session`](crate::SessionLayer::with_default_session).
    ///
    /// # Errors
    ///
    /// When the variable that counts holds an id that [`Session::new`] refuses; the error names
    /// the variable.
    ///
    /// ```
    /// use tracing_session::Session;
    ///
    /// assert!(Session::from_env_or_generate()?.id().is_some());
    /// # Ok::<(), tracing_session::Error>(())
    /// ```
    pub fn from_env_or_generate() -> Result<Self, Error> {
        for variable in ["TRACING_SESSION_ID", "TRACECTRL_SESSION_ID"] {
            let session = match std::env::var(variable) {
                Ok(value) if value.trim().is_empty() => continue,
                Ok(value) => Self::new(value),
                Err(VarError::NotPresent) => continue,
                Err(VarError::NotUnicode(_)) => Err(ErrorKind::NotUnicode.into()),
            };
            return session.map_err(|error| error.of_variable(variable));
        }
        Ok(Self::generate())
    }

    /// The same session with this user.
    ///
    /// [`Session::default`] has no id, so `Session::default().with_user("u-7")?` says a user
    /// alone: the session that is in force around it stays.
    ///
    /// # Errors
    ///
    /// The rule for user ids is the one for session ids: see [`Session::new`].
    ///
    /// ```
    /// use tracing_session::Session;
    ///
    /// let user = Session::default().with_user("u-7")?;
    /// assert_eq!((user.id(), user.user_id()), (None, Some("u-7")));
    /// # Ok::<(), tracing_session::Error>(())
    /// ```
    pub fn with_user(self, user_id: impl Display) -> Result<Self, Error> {
        Ok(Self {
            user_id: Some(Id::display(user_id)?),
            ..self
        })
    }

    /// The session's id, or `None` for a user alone.
    ///
    /// ```
    /// # use tracing_session::Session;
    /// assert_eq!(Session::default().id(), None);
    /// ```
    pub fn id(&self) -> Option<&str> {
        self.id.as_ref().map(Id::as_str)
    }

    /// The user's id.
    ///
    /// ```
    /// # use tracing_session::Session;
    /// assert_eq!(Session::generate().user_id(), None);
    /// ```
    pub fn user_id(&self) -> Option<&str> {
        self.user_id.as_ref().map(Id::as_str)
    }

    /// The same session without this, and without inheriting it: inside the scope of this session
    /// there is none, whatever is in force around it.
    ///
    /// ```
    /// use tracing_session::{Part, Session, current_session};
    ///
    /// let outer = Session::new("chat-42")?.with_metadata("plan", "pro")?;
    /// let inner = Session::default().without(Part::Metadata).with_metadata("step", 2)?;
    /// let here = outer.in_scope(|| inner.in_scope(current_session)).unwrap();
    /// assert_eq!(here.metadata("plan"), None);
    /// assert_eq!(here.id(), Some("chat-42"));
    /// # Ok::<(), tracing_session::Error>(())
    /// ```
    #[must_use = "it is another session"]
    pub fn without(mut self, part: Part) -> Self {
        self.cleared = self.cleared.with(part);
        match part {
            Part::Session => self.id = None,
            Part::User => self.user_id = None,
            _ if self.details.is_none() => {}
            part => Details::change(&mut self.details, |details| details.forget(part)),
        }
        self.details = self.details.filter(|details| !details.is_empty());
        self
    }

    /// Each value of this session, or where it has none, that of `other`.
    pub(crate) fn or(self, other: Session) -> Self {
        Self {
            id: self.id.or(other.id),
            user_id: self.user_id.or(other.user_id),
            details: details::merged(
                other.details.as_ref(),
                self.details.as_ref(),
                Parts::default(),
            ),
            cleared: self.cleared,
        }
    }

    /// Whether it says nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.id.is_none() && self.user_id.is_none() && self.details.is_none()
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("id", &self.id)
            .field("user_id", &self.user_id)
            .finish_non_exhaustive()
    }
}

/// An id that obeys the rule of [`Session::new`]: nothing else in the crate holds one.
///
/// All clones of an id share its hash, which is made when a provider first exports it hashed.
#[derive(Clone)]
pub(crate) struct Id(Arc<IdText>);

struct IdText {
    text: Arc<str>,
    #[cfg(feature = "hash")]
    hash: OnceLock<KeptHash>,
}

/// The hash of an id under one key. A provider with another key must not use it.
#[cfg(feature = "hash")]
struct KeptHash {
    /// Kept alive, so that no other key can get its address.
    key: Arc<dyn HashKey>,
    hash: Arc<str>,
}

/// A secret key that ids are hashed with.
#[cfg(feature = "hash")]
pub(crate) trait HashKey: Send + Sync + UnwindSafe + RefUnwindSafe {
    fn hash(&self, text: &str) -> Arc<str>;
}

impl Id {
    const MAX_BYTES: usize = 1024;

    pub(crate) fn new(text: &str) -> Result<Self, ErrorKind> {
        Ok(Self::of(Self::check(text)?.into()))
    }

    /// The trimmed text, if it obeys the rule.
    pub(crate) fn check(text: &str) -> Result<&str, ErrorKind> {
        let text = trimmed(text);
        if text.is_empty() {
            Err(ErrorKind::Blank)
        } else if text.len() > Self::MAX_BYTES {
            Err(ErrorKind::TooLong)
        } else if has_control_character(text) {
            Err(ErrorKind::ControlCharacter)
        } else {
            Ok(text)
        }
    }

    fn of(text: Arc<str>) -> Self {
        Self(Arc::new(IdText {
            text,
            #[cfg(feature = "hash")]
            hash: OnceLock::new(),
        }))
    }

    fn display(id: impl Display) -> Result<Self, Error> {
        Ok(Self::new(&id.to_string())?)
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0.text
    }

    /// The text itself, shared: an exported attribute copies no bytes.
    pub(crate) fn shared(&self) -> Arc<str> {
        self.0.text.clone()
    }
}

#[cfg(feature = "hash")]
impl Id {
    /// An id whose text is a hash under this key already. Its hash is the same text.
    pub(crate) fn of_hash(hash: Arc<str>, key: Arc<dyn HashKey>) -> Self {
        let kept = KeptHash {
            key,
            hash: hash.clone(),
        };
        let id = Self::of(hash);
        // Nobody else has the id yet.
        let _is_first = id.0.hash.set(kept);
        id
    }

    /// The hash under `key`. Only that under the first key is kept.
    #[inline]
    pub(crate) fn hash(&self, key: &Arc<dyn HashKey>) -> Arc<str> {
        match self.0.hash.get() {
            Some(kept) if kept.is_of(key) => kept.hash.clone(),
            _ => self.make_hash(key),
        }
    }

    #[cold]
    fn make_hash(&self, key: &Arc<dyn HashKey>) -> Arc<str> {
        let kept = self.0.hash.get_or_init(|| KeptHash {
            key: key.clone(),
            hash: key.hash(self.as_str()),
        });
        if kept.is_of(key) {
            kept.hash.clone()
        } else {
            key.hash(self.as_str())
        }
    }
}

#[cfg(feature = "hash")]
impl KeptHash {
    #[inline]
    fn is_of(&self, key: &Arc<dyn HashKey>) -> bool {
        // The data pointers are compared, and not the vtables.
        Arc::ptr_eq(&self.key, key)
    }
}

/// By the text alone: the hash says nothing more.
impl PartialEq for Id {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Id {}

/// To look at two bytes costs less than to take the ends apart into characters.
fn trimmed(text: &str) -> &str {
    match text.as_bytes() {
        [b'!'..=b'~'] | [b'!'..=b'~', .., b'!'..=b'~'] => text,
        _ => text.trim(),
    }
}

fn has_control_character(text: &str) -> bool {
    // Nearly every id is ASCII. Without a way out of the loop, it looks at many bytes at once.
    let printable = |all, byte: &u8| all & matches!(byte, b' '..=b'~');
    !text.as_bytes().iter().fold(true, printable) && text.chars().any(char::is_control)
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<hidden>")
    }
}
