//! `Session`: the ids, and what an id must be.

pub(crate) mod details;
pub(crate) mod keys;
pub(crate) mod metadata;
pub(crate) mod text;

use crate::error::{Error, ErrorKind};
#[cfg(feature = "hash")]
use crate::format::privacy::{self, Mac};
use crate::session::details::{Details, Part, Parts};
use crate::session::keys::{SESSION_ID, USER_ID};
#[cfg(feature = "hash")]
use crate::sync::OnceLock;
use std::env::VarError;
use std::fmt::{self, Display};
use std::sync::Arc;
use uuid::Uuid;

/// The values that the spans of one conversation carry: a session id, a user id, metadata, tags, a prompt
/// template, and attributes of your own. Any of them may be missing.
///
/// A `Session` is a plain value. Create it once per conversation, and clone it freely (three reference counts). It
/// becomes the current session where you [attach](Session::attach) it, wrap a [closure](Session::in_scope) or a
/// [future](crate::InSession::in_session) in it, pass it to [`session!`](crate::session), or
/// [set it on the current span](Session::set_on_current_span). `Debug` shows which ids there are, and never a value.
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
        Self::with_id(Id::unchecked(text))
    }

    pub(crate) fn with_id(id: Id) -> Self {
        Self {
            id: Some(id),
            ..Self::default()
        }
    }

    /// The session that the environment names, or else a new one.
    ///
    /// Reads `TRACING_SESSION_ID`, then TraceCtrl's `TRACECTRL_SESSION_ID`. A variable that is
    /// blank counts as not set. A command-line agent makes this session the
    /// [default of its process](Self::set_global_default).
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
    /// [`Session::default`] has no id, so `Session::default().with_user("u-7")?` sets only a user: inside another
    /// session, that session stays current.
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

    /// The same session without this part, and without inheriting it from an outer session.
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
        self.forget(part);
        self
    }

    fn forget(&mut self, part: Part) {
        match part {
            Part::Session => self.id = None,
            Part::User => self.user_id = None,
            _ if self.details.is_none() => {}
            part => Details::change(&mut self.details, |details| details.forget(part)),
        }
        self.details.take_if(|details| details.is_empty());
    }

    /// Each value of this session, or where it has none, that of `other`.
    pub(crate) fn or(self, other: Session) -> Self {
        let cleared = self.cleared;
        let all = self.uncleared().inside(&other);
        Self { cleared, ..all }
    }

    /// The values that apply where this session is set inside `outer`.
    pub(crate) fn inside(&self, outer: &Session) -> Self {
        let nearest = |own: &Option<Id>, outer: &Option<Id>, part| match own {
            None if !self.cleared.have(part) => outer.clone(),
            own => own.clone(),
        };
        Self {
            id: nearest(&self.id, &outer.id, Part::Session),
            user_id: nearest(&self.user_id, &outer.user_id, Part::User),
            details: details::merged(outer.details.as_ref(), self.details.as_ref(), self.cleared),
            cleared: self.cleared.and(outer.cleared),
        }
    }

    /// The ids alone.
    pub(crate) fn ids(&self) -> Self {
        Self {
            id: self.id.clone(),
            user_id: self.user_id.clone(),
            ..Self::default()
        }
    }

    /// The same values where nothing is around that they could clear.
    pub(crate) fn uncleared(mut self) -> Self {
        self.cleared = Parts::default();
        self
    }

    /// The values of a scope around that don't apply where this session is set.
    pub(crate) fn shadows(&self) -> Parts {
        let set = IdKind::BOTH.into_iter().filter(|it| it.id(self).is_some());
        set.fold(self.cleared, |shadows, role| shadows.with(role.part()))
    }

    /// The same session without attributes of the application's own.
    pub(crate) fn without_attributes(mut self) -> Self {
        let details = self.details.as_ref();
        if details.is_some_and(|it| !it.attributes.is_empty()) {
            self.forget(Part::Attributes);
        }
        self
    }

    /// The same session, whose id gives way to one that is set implicitly.
    pub(crate) fn replaceable(mut self) -> Self {
        self.id = self.id.map(Id::replaceable);
        self
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

/// Which of the ids of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum IdKind {
    Session,
    User,
}

impl IdKind {
    pub(crate) const BOTH: [Self; 2] = [Self::Session, Self::User];

    /// The key under which the id is exported.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::Session => SESSION_ID,
            Self::User => USER_ID,
        }
    }

    pub(crate) fn part(self) -> Part {
        match self {
            Self::Session => Part::Session,
            Self::User => Part::User,
        }
    }

    pub(crate) fn text(self, session: &Session) -> Option<&str> {
        self.id(session).as_ref().map(Id::as_str)
    }

    pub(crate) fn id(self, session: &Session) -> &Option<Id> {
        match self {
            Self::Session => &session.id,
            Self::User => &session.user_id,
        }
    }
}

/// An id that obeys the rule of [`Session::new`]: nothing else in the crate holds one.
#[derive(Clone)]
pub(crate) struct Id {
    text: Arc<str>,
    /// Made when a provider first exports it, and shared by all clones. With the key that it was made with, which is
    /// kept alive, so that no other can get its address.
    #[cfg(feature = "hash")]
    hash: Arc<OnceLock<(Arc<Mac>, Arc<str>)>>,
    /// Code of this process didn't set the id explicitly: it is the default session's, comes from headers, or
    /// from a span that is an opener only by the default name. It travels with the id and is no part of it.
    is_replaceable: bool,
}

impl Id {
    const MAX_BYTES: usize = 1024;

    pub(crate) fn new(text: &str) -> Result<Self, ErrorKind> {
        Self::check(text).map(Self::unchecked)
    }

    fn unchecked(text: &str) -> Self {
        Self {
            text: text.into(),
            #[cfg(feature = "hash")]
            hash: Arc::default(),
            is_replaceable: false,
        }
    }

    /// The same id, which gives way to one that is set implicitly.
    pub(crate) fn replaceable(self) -> Self {
        Self {
            is_replaceable: true,
            ..self
        }
    }

    /// Whether an id that is set implicitly replaces this one.
    pub(crate) fn is_replaceable(&self) -> bool {
        self.is_replaceable
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

    fn display(id: impl Display) -> Result<Self, Error> {
        Ok(Self::new(&id.to_string())?)
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// The text itself, shared: an exported attribute copies no bytes.
    pub(crate) fn shared(&self) -> Arc<str> {
        self.text.clone()
    }
}

#[cfg(feature = "hash")]
impl Id {
    /// The hash with this key. It is made once, unless another provider has asked for one with another key.
    #[inline]
    pub(crate) fn hash(&self, key: &Arc<Mac>) -> Arc<str> {
        let (of, hash) = self
            .hash
            .get_or_init(|| (key.clone(), privacy::hash(key, self.as_str())));
        match Arc::ptr_eq(of, key) {
            true => hash.clone(),
            false => privacy::hash(key, self.as_str()),
        }
    }
}

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
