//! [`Session`]: a session id, a user id and further values, as one plain value.
// Reading and combining values: `values.rs`. Methods that need a scope: `current.rs`, `current/attach.rs`.

pub(crate) mod details;
pub(crate) mod id;
pub(crate) mod keys;
pub(crate) mod values;

pub use self::keys::Part;

pub(crate) use crate::session::id::Id;
pub(crate) use crate::session::keys::IdKind;

use crate::base::error::{Error, ErrorKind, variable};
use crate::session::details::Details;
use crate::session::keys::{METADATA_FIELD, PLAIN_SESSION, PLAIN_USER, Parts, VALUE_KEYS};
use opentelemetry::{Key, KeyValue, Value};
use serde::Serialize;
use serde_json::Value as Json;
use std::fmt::{self, Display};
use std::sync::Arc;

/// The session id, user id and further values that the spans of a conversation carry.
///
/// The further values are metadata, tags, a prompt template, and your own attributes. Every value is optional.
///
/// A `Session` is a plain value. Create it once per conversation, and clone it freely: a clone copies three reference
/// counts. It becomes the current session when you [attach](Session::attach) it, run a [closure](Session::in_scope) or
/// a [future](crate::InSession::in_session) in it, pass it to [`session!`](crate::session!), or [set it on the current
/// span](Session::set_on_current_span). `Debug` shows whether the ids are set, and no values.
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
#[doc(alias = "conversation", alias = "thread")]
#[derive(Clone, Default)]
pub struct Session {
    pub(crate) id: Option<Id>,
    pub(crate) user_id: Option<Id>,
    pub(crate) details: Option<Arc<Details>>,
    /// The parts that the session doesn't inherit from an outer session.
    pub(crate) cleared: Parts,
    /// The session inherits nothing from an outer session. `==` ignores it: see [`Session::exact`].
    pub(crate) is_exact: bool,
}

impl PartialEq for Session {
    fn eq(&self, other: &Self) -> bool {
        let ids = |it: &Self| (it.id.clone(), it.user_id.clone(), it.cleared);
        ids(self) == ids(other) && self.details == other.details
    }
}

impl Session {
    /// Creates a session with this id.
    ///
    /// The id may have any type that implements `Display`, such as a string, a [`Uuid`](uuid::Uuid) or an integer.
    /// White space, byte-order marks and bidirectional control characters at both ends are removed.
    ///
    /// Cost: about 0.2 µs.
    ///
    /// # Errors
    ///
    /// If the trimmed id is blank, longer than 1,024 bytes, or contains a control character. Byte-order marks and
    /// bidirectional control characters count as control characters, because an id with one looks like another id.
    ///
    /// ```
    /// use tracing_session::Session;
    ///
    /// assert_eq!(Session::new(" chat-42 ")?.id(), Some("chat-42"));
    /// assert_eq!(Session::new(42_u64)?.id(), Some("42"));
    /// assert_eq!(Session::new("\u{feff}chat-42")?.id(), Some("chat-42"));
    /// assert_eq!(Session::new("\t").unwrap_err().to_string(), "id is blank: set a value, or leave it out");
    /// # Ok::<(), tracing_session::Error>(())
    /// ```
    #[doc(alias = "conversation_id", alias = "thread_id")]
    pub fn new(id: impl Display) -> Result<Self, Error> {
        Ok(Self::with_id(Id::display(id)?))
    }

    /// Creates a session with a new id: a UUID of version 7, so that ids sort by creation time.
    ///
    /// Cost: about 0.3 µs.
    ///
    /// ```
    /// use tracing_session::Session;
    ///
    /// assert_ne!(Session::generate(), Session::generate());
    /// ```
    #[must_use = "the session is current only where you set it: `session.in_scope(...)` or `future.in_session(session)`"]
    pub fn generate() -> Self {
        Self::with_id(Id::generate())
    }

    /// Creates a session with the id in the environment, or with a new id.
    ///
    /// Reads `TRACING_SESSION_ID`, then `TRACECTRL_SESSION_ID`, the variable of the TraceCtrl SDK. A blank variable
    /// counts as not set. A command-line agent can make this session the [default of its
    /// process](Self::set_global_default).
    ///
    /// # Errors
    ///
    /// If the variable contains an invalid id (see [`Session::new`]), or a placeholder such as `null`. The error
    /// names the variable.
    ///
    /// ```
    /// use tracing_session::Session;
    ///
    /// assert!(Session::from_env_or_generate()?.id().is_some());
    /// # Ok::<(), tracing_session::Error>(())
    /// ```
    pub fn from_env_or_generate() -> Result<Self, Error> {
        for name in ["TRACING_SESSION_ID", "TRACECTRL_SESSION_ID"] {
            let not_unicode = |_| Error::from(ErrorKind::NotUnicode).of_variable(name);
            if let Some(id) = variable(name).map_err(not_unicode)? {
                let id = Id::received(&id).map_err(|kind| Error::from(kind).of_variable(name));
                return id.map(Self::with_id);
            }
        }
        Ok(Self::generate())
    }

    /// Sets the user id.
    ///
    /// `Session::default().with_user("u-7")?` sets only a user. Inside another session, it inherits the session id.
    ///
    /// # Errors
    ///
    /// If the user id is invalid: it must follow the rules for session ids in [`Session::new`].
    ///
    /// ```
    /// use tracing_session::Session;
    ///
    /// let user = Session::default().with_user("u-7")?;
    /// assert_eq!((user.id(), user.user_id()), (None, Some("u-7")));
    /// # Ok::<(), tracing_session::Error>(())
    /// ```
    #[doc(alias = "using_user")]
    pub fn with_user(mut self, user_id: impl Display) -> Result<Self, Error> {
        self.user_id = Some(Id::display(user_id)?);
        Ok(self)
    }

    /// Returns the session id, or `None` if this `Session` sets only other values.
    ///
    /// ```
    /// # use tracing_session::Session;
    /// assert_eq!(Session::default().id(), None);
    /// ```
    pub fn id(&self) -> Option<&str> {
        self.id.as_ref().map(Id::as_str)
    }

    /// Returns the user id, if there is one.
    ///
    /// ```
    /// # use tracing_session::Session;
    /// assert_eq!(Session::generate().user_id(), None);
    /// ```
    pub fn user_id(&self) -> Option<&str> {
        self.user_id.as_ref().map(Id::as_str)
    }

    /// Removes one [`Part`], such as the user or the metadata. The session no longer inherits it from an outer session.
    ///
    /// ```
    /// use tracing_session::{Session, current_session, session::Part};
    ///
    /// let outer = Session::new("chat-42")?.with_metadata("plan", "pro")?;
    /// let inner = Session::default().without(Part::Metadata).with_metadata("step", 2)?;
    /// let here = outer.in_scope(|| inner.in_scope(current_session)).unwrap();
    /// assert_eq!(here.metadata("plan"), None);
    /// assert_eq!(here.id(), Some("chat-42"));
    /// # Ok::<(), tracing_session::Error>(())
    /// ```
    #[must_use = "it returns the changed session: `let session = ...`"]
    pub fn without(mut self, part: Part) -> Self {
        self.cleared = self.cleared.with(part);
        match part {
            Part::Session => self.id = None,
            Part::User => self.user_id = None,
            part => return self.change(|it| it.clear(Parts::default().with(part))),
        }
        self
    }

    /// Makes the session exact: it inherits nothing, not even from the [default session](Self::set_global_default).
    ///
    /// Use it for a job that runs inside a request of another conversation. Sessions from
    /// [`current_session`](crate::current_session) and [`Session::of`] are exact already: they contain all current
    /// values. Headers don't send whether a session is exact; a received session always is. `==` and `Debug` ignore it.
    ///
    /// ```
    /// use tracing_session::{Session, current_session};
    ///
    /// let request = Session::new("chat-42")?.with_user("u-7")?;
    /// let job = Session::new("chat-43")?.exact();
    /// let here = request.in_scope(|| job.in_scope(current_session)).unwrap();
    /// assert_eq!((here.id(), here.user_id()), (Some("chat-43"), None));
    /// # Ok::<(), tracing_session::Error>(())
    /// ```
    #[must_use = "it returns the changed session: `let session = session.exact()`"]
    pub fn exact(self) -> Self {
        Self {
            is_exact: true,
            ..self
        }
    }

    /// Creates an [exact](Self::exact) session without values: where it is current, no session applies.
    ///
    /// Use it to pass the current session to a thread or a queue, even if there is none:
    ///
    /// ```
    /// use tracing_session::{InSession, Session, current_session};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let session = current_session().unwrap_or_else(Session::nothing);
    /// tokio::spawn(async { /* in the same session, or in none */ }.in_session(session)).await.unwrap();
    /// # }
    /// ```
    #[must_use = "it applies only where you set it: `session.in_scope(...)` or `future.in_session(session)`"]
    pub fn nothing() -> Self {
        Self::default().exact()
    }

    /// Adds a metadata entry. If you set a key twice, the last value wins.
    ///
    /// Spans export all metadata as the attribute `metadata`, which contains one JSON object. The crate serialises it
    /// once per session, not once per span. Inside another session, the metadata of both is merged by key. A span's
    /// own attribute `metadata` replaces the session's, and isn't merged with it.
    ///
    /// Values keep their JSON type. NaN and infinity become `null`. Keys stay in the order in which you set them.
    /// Inside a value, they are sorted, unless a crate enables the feature `preserve_order` of `serde_json`.
    ///
    /// # Errors
    ///
    /// If the key is blank, longer than 1,024 bytes, or contains a control character, if the value can't be
    /// serialised, or if the session already has 128 other metadata keys.
    ///
    /// ```
    /// use tracing_session::Session;
    ///
    /// let session = Session::new("chat-42")?
    ///     .with_metadata("tenant", "acme")?
    ///     .with_metadata("seats", 12)?;
    /// assert_eq!(session.metadata("seats").unwrap(), 12);
    /// # Ok::<(), tracing_session::Error>(())
    /// ```
    #[doc(alias = "using_metadata")]
    pub fn with_metadata(self, key: &str, value: impl Serialize) -> Result<Self, Error> {
        let key = Id::check(key).map_err(|error| Error::of("metadata key", error))?;
        let value = json(value).map_err(|error| error.about(key))?;
        self.change_if_fits(|it| it.set_metadata(key, value))
    }

    /// Adds tags, and trims them.
    ///
    /// Spans export all tags as the attribute `tag.tags`, a list of strings. Inside another session, the tags of both
    /// are joined without duplicates. Tags that you record in a span's field `tags` later are added too. A span's own
    /// attribute `tag.tags` replaces the session's tags.
    ///
    /// A session has at most 128 tags, 128 metadata keys and 128 [attributes](Self::with_attribute), because every span
    /// exports all of them. Further values from fields or nested sessions are dropped, with one warning.
    ///
    /// # Errors
    ///
    /// If a tag is blank, longer than 1,024 bytes, or contains a control character, or if the session would have more
    /// than 128 tags.
    ///
    /// ```
    /// use tracing_session::Session;
    ///
    /// let session = Session::new("chat-42")?.with_tags(["beta", "web"])?;
    /// assert!(session.tags().eq(["beta", "web"]));
    /// # Ok::<(), tracing_session::Error>(())
    /// ```
    #[doc(alias = "using_tags")]
    pub fn with_tags<T: AsRef<str>>(
        self,
        tags: impl IntoIterator<Item = T>,
    ) -> Result<Self, Error> {
        let tags = tags.into_iter().map(|it| details::tag(it.as_ref()));
        let tags: Result<Vec<_>, _> = tags.collect();
        let tags = tags.map_err(|error| Error::of("tag", error))?;
        self.change_if_fits(|it| it.add_tags(tags))
    }

    /// Sets the prompt template, which spans export as `llm.prompt_template.template`.
    ///
    /// ```
    /// use std::collections::BTreeMap;
    /// use tracing_session::Session;
    ///
    /// let session = Session::default()
    ///     .with_prompt_template("What is the weather in {city}?")
    ///     .with_prompt_template_version("v2")
    ///     .with_prompt_template_variables(BTreeMap::from([("city", "Oslo")]))?;
    /// # Ok::<(), tracing_session::Error>(())
    /// ```
    #[doc(alias = "using_prompt_template")]
    #[must_use = "it returns the changed session: `let session = ...`"]
    pub fn with_prompt_template(self, template: impl AsRef<str>) -> Self {
        let template = details::shared(template.as_ref());
        self.change(|it| it.template = Some(template))
    }

    /// Sets the version of the prompt template, which spans export as `llm.prompt_template.version`.
    ///
    /// ```
    /// # use tracing_session::Session;
    /// let session = Session::default().with_prompt_template_version("v2");
    /// assert_eq!(session.prompt_template_version(), Some("v2"));
    /// ```
    #[must_use = "it returns the changed session: `let session = ...`"]
    pub fn with_prompt_template_version(self, version: impl AsRef<str>) -> Self {
        let version = details::shared(version.as_ref());
        self.change(|it| it.template_version = Some(version))
    }

    /// Sets the variables of the prompt template, which spans export as `llm.prompt_template.variables`.
    ///
    /// The attribute contains the text of a JSON object. The variables replace those of an outer session.
    ///
    /// # Errors
    ///
    /// If the variables can't be serialised as a JSON object. Pass a map or a struct.
    ///
    /// ```
    /// use std::collections::BTreeMap;
    /// use tracing_session::Session;
    ///
    /// let variables = BTreeMap::from([("city", "Oslo")]);
    /// let session = Session::default().with_prompt_template_variables(variables)?;
    /// assert_eq!(session.prompt_template_variables().unwrap()["city"], "Oslo");
    /// # Ok::<(), tracing_session::Error>(())
    /// ```
    pub fn with_prompt_template_variables(self, variables: impl Serialize) -> Result<Self, Error> {
        let variables = json(variables)?;
        if !variables.is_object() {
            return Err(ErrorKind::NotAnObject.into());
        }
        Ok(self.change(|it| it.template_variables = Some(variables)))
    }

    /// Adds your own attribute, which every span in the session exports.
    ///
    /// Inside another session, the attributes of both are merged by key. If a span already has an attribute with this
    /// key, the span keeps its own value. [`mark_trace`](crate::mark_trace) and
    /// [`set_on_current_span`](Self::set_on_current_span) don't add these attributes to a span that has started,
    /// because the span may have its own with the same key.
    ///
    /// # Errors
    ///
    /// If the key is blank, longer than 1,024 bytes, or contains a control character, if the crate uses this key
    /// itself, such as `metadata`, or if the session already has 128 other attributes.
    ///
    /// ```
    /// use tracing_session::Session;
    ///
    /// let session = Session::new("chat-42")?.with_attribute("deployment.ring", 2)?;
    /// assert_eq!(session.attribute("deployment.ring"), Some(&2.into()));
    /// # Ok::<(), tracing_session::Error>(())
    /// ```
    #[doc(alias = "using_attributes")]
    pub fn with_attribute(self, key: &str, value: impl Into<Value>) -> Result<Self, Error> {
        let key = Id::check(key).map_err(|error| Error::of("attribute key", error))?;
        let is_plain = [PLAIN_SESSION, PLAIN_USER].contains(&key);
        if VALUE_KEYS.contains(&key) || is_plain || key.starts_with(METADATA_FIELD) {
            return Err(Error::from(ErrorKind::ReservedKey).about(key));
        }
        // An `Arc`, so that spans share the text and copy no bytes.
        let value = match value.into() {
            Value::String(text) => details::shared(text.as_str()).into(),
            other => other,
        };
        let attribute = KeyValue::new(Key::from(Arc::<str>::from(key)), value);
        self.change_if_fits(|it| it.set_attribute(attribute))
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

fn json(value: impl Serialize) -> Result<Json, Error> {
    serde_json::to_value(value).map_err(|_| ErrorKind::Serialize.into())
}
