//! `Session`: the values that spans carry, as one plain value.
//!
//! The methods that read or combine values are in `values.rs`, and those that need a scope in `current.rs` and
//! `current/attach.rs`.

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

/// The values that the spans of one conversation carry: a session id, a user id, metadata, tags, a prompt
/// template, and attributes of your own. Any of them may be missing.
///
/// A `Session` is a plain value. Create it once per conversation, and clone it freely (three reference counts). It
/// becomes the current session where you [attach](Session::attach) it, wrap a [closure](Session::in_scope) or a
/// [future](crate::InSession::in_session) in it, pass it to [`session!`](crate::session!), or
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
#[derive(Clone, Default)]
pub struct Session {
    pub(crate) id: Option<Id>,
    pub(crate) user_id: Option<Id>,
    pub(crate) details: Option<Arc<Details>>,
    /// The parts that are not inherited from an outer session.
    pub(crate) cleared: Parts,
    /// Nothing is inherited from an outer session. It is about the place, and no part of the value.
    pub(crate) is_exact: bool,
}

impl PartialEq for Session {
    fn eq(&self, other: &Self) -> bool {
        let ids = |it: &Self| (it.id.clone(), it.user_id.clone(), it.cleared);
        ids(self) == ids(other) && self.details == other.details
    }
}

impl Session {
    /// A session with this id.
    ///
    /// The id may be anything that implements `Display`: a string, a [`Uuid`](uuid::Uuid), an integer. It is
    /// trimmed: white space, byte-order marks and bidirectional control characters at both ends are removed.
    ///
    /// Cost: about 0.2 µs.
    ///
    /// # Errors
    ///
    /// An id is 1 to 1,024 bytes of UTF-8 after trimming, without control characters. Byte-order marks and
    /// bidirectional control characters count as control characters, because an id with one looks like another id.
    /// An id is never cut to fit.
    ///
    /// ```
    /// use tracing_session::Session;
    ///
    /// assert_eq!(Session::new(" chat-42 ")?.id(), Some("chat-42"));
    /// assert_eq!(Session::new(42_u64)?.id(), Some("42"));
    /// assert_eq!(Session::new("\u{feff}chat-42")?.id(), Some("chat-42"));
    /// assert_eq!(Session::new("\t").unwrap_err().to_string(), "id is blank");
    /// # Ok::<(), tracing_session::Error>(())
    /// ```
    pub fn new(id: impl Display) -> Result<Self, Error> {
        Ok(Self::with_id(Id::display(id)?))
    }

    /// A session with a new id: a UUID of version 7, so that ids sort by the time they were made.
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

    /// The session with the id in the environment, or a new one.
    ///
    /// Reads `TRACING_SESSION_ID`, then TraceCtrl's `TRACECTRL_SESSION_ID`. A variable that is
    /// blank counts as not set. A command-line agent makes this session the
    /// [default of its process](Self::set_global_default).
    ///
    /// # Errors
    ///
    /// When [`Session::new`] refuses the id in the variable, or when it is a placeholder such as `null`. The error names
    /// the variable.
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
    pub fn with_user(mut self, user_id: impl Display) -> Result<Self, Error> {
        self.user_id = Some(Id::display(user_id)?);
        Ok(self)
    }

    /// The session's id. `None` for a `Session` that sets only a user, for example.
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

    /// The same session, which inherits nothing: where it is current, no value of an outer session applies, and neither
    /// does the [default session](Self::set_global_default).
    ///
    /// Use it for work that belongs to this session only, such as a job of another conversation. A session that you read
    /// back with [`current_session`](crate::current_session) or [`Session::of`] is exact already, because it contains
    /// everything that applied where you read it. So is a session in headers. Whether a session is exact isn't
    /// a part of its value: `==`, `Debug` and headers ignore it.
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

    /// The [exact](Self::exact) session without any value: where it is current, no session applies.
    ///
    /// Use it to carry the current session to a thread or a queue, also if there is none:
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

    /// The same session with this metadata. If you set a key twice, the last value wins.
    ///
    /// All metadata is exported as `metadata`, one JSON object, which is serialised once per session instead of once per
    /// span. Inside another session, the metadata of both is merged by key. A span with its own attribute `metadata`
    /// keeps that one: the two aren't merged.
    ///
    /// The value keeps its JSON type. A number that JSON doesn't have (NaN, infinity) is null. Keys are in the order in
    /// which you set them, except keys of an object inside a value.
    ///
    /// # Errors
    ///
    /// When the key is blank, longer than 1,024 bytes, or has a control character, when the value cannot be
    /// serialised, and when the session has 128 other metadata keys already.
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
    pub fn with_metadata(self, key: &str, value: impl Serialize) -> Result<Self, Error> {
        let key = Id::check(key).map_err(|error| Error::of("metadata key", error))?;
        let value = json(value).map_err(|error| error.about(key))?;
        self.change_if_fits(|it| it.set_metadata(key, value))
    }

    /// The same session with these tags too. A tag is trimmed.
    ///
    /// They are exported as `tag.tags`, a list of strings. Inside another session, the tags of both are joined, without
    /// duplicates. So are tags that you record again in a field of a span. A span with its own attribute `tag.tags` keeps
    /// that one.
    ///
    /// A session has at most 128 tags, because every span exports all of them, and a long conversation could record new
    /// ones for ever. The same limit applies to metadata keys and to [attributes](Self::with_attribute). Values over it
    /// that fields record, or that nested sessions add, are dropped, and a warning says so once.
    ///
    /// # Errors
    ///
    /// When a tag is blank, longer than 1,024 bytes, or has a control character, and when the session would have more
    /// than 128 tags.
    ///
    /// ```
    /// use tracing_session::Session;
    ///
    /// let session = Session::new("chat-42")?.with_tags(["beta", "web"])?;
    /// assert!(session.tags().eq(["beta", "web"]));
    /// # Ok::<(), tracing_session::Error>(())
    /// ```
    pub fn with_tags<T: AsRef<str>>(
        self,
        tags: impl IntoIterator<Item = T>,
    ) -> Result<Self, Error> {
        let tags = tags.into_iter().map(|it| details::tag(it.as_ref()));
        let tags: Result<Vec<_>, _> = tags.collect();
        let tags = tags.map_err(|error| Error::of("tag", error))?;
        self.change_if_fits(|it| it.add_tags(tags))
    }

    /// The same session with the template of its prompts, which contains placeholders for the variables:
    /// `llm.prompt_template.template`.
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
    #[must_use = "it returns the changed session: `let session = ...`"]
    pub fn with_prompt_template(self, template: impl AsRef<str>) -> Self {
        let template = details::shared(template.as_ref());
        self.change(|it| it.template = Some(template))
    }

    /// The same session with the version of its prompt template: `llm.prompt_template.version`.
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

    /// The same session with the variables of its prompt template: `llm.prompt_template.variables`,
    /// the text of a JSON object. They replace the variables of an outer session.
    ///
    /// # Errors
    ///
    /// When they cannot be serialised as a JSON object. A map and a struct can.
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

    /// The same session with an attribute of your own, which is exported on every span in the session. Inside
    /// another session, the attributes of both are merged by key.
    ///
    /// A span that has its own attribute with this key keeps it. [`mark_trace`](crate::mark_trace) and
    /// [`set_on_current_span`](Self::set_on_current_span) don't write such attributes on spans that have already started,
    /// because these may have attributes with the same keys.
    ///
    /// # Errors
    ///
    /// When the key is blank, longer than 1,024 bytes, or has a control character, when there is another method for
    /// the key, and when the session has 128 other attributes already.
    ///
    /// ```
    /// use tracing_session::Session;
    ///
    /// let session = Session::new("chat-42")?.with_attribute("deployment.ring", 2)?;
    /// assert_eq!(session.attribute("deployment.ring"), Some(&2.into()));
    /// # Ok::<(), tracing_session::Error>(())
    /// ```
    pub fn with_attribute(self, key: &str, value: impl Into<Value>) -> Result<Self, Error> {
        let key = Id::check(key).map_err(|error| Error::of("attribute key", error))?;
        let is_plain = [PLAIN_SESSION, PLAIN_USER].contains(&key);
        if VALUE_KEYS.contains(&key) || is_plain || key.starts_with(METADATA_FIELD) {
            return Err(Error::from(ErrorKind::ReservedKey).about(key));
        }
        // Spans share the texts.
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
