//! Reading the values of a session, and combining those of an inner and an outer session.

use crate::base::error::{Error, ErrorKind};
use crate::session::Session;
use crate::session::details::{self, Details};
use crate::session::id::Id;
use crate::session::keys::IdKind;
use crate::session::keys::{Part, Parts};
use opentelemetry::{KeyValue, StringValue, Value};
use serde_json::Value as Json;

impl Session {
    /// Returns the metadata value with this key.
    ///
    /// ```
    /// # use tracing_session::Session;
    /// let session = Session::default().with_metadata("tenant", "acme")?;
    /// assert_eq!(session.metadata("tenant").unwrap(), "acme");
    /// # Ok::<(), tracing_session::Error>(())
    /// ```
    pub fn metadata(&self, key: &str) -> Option<&Json> {
        let mut metadata = self.all_metadata();
        Some(metadata.find(|(own, _)| *own == key)?.1)
    }

    /// Returns all metadata entries, in the order in which you set them.
    ///
    /// ```
    /// # use tracing_session::Session;
    /// let session = Session::default().with_metadata("tenant", "acme")?;
    /// for (key, value) in session.all_metadata() {
    ///     println!("{key}: {value}");
    /// }
    /// # Ok::<(), tracing_session::Error>(())
    /// ```
    pub fn all_metadata(&self) -> impl Iterator<Item = (&str, &Json)> {
        let metadata = self.details.iter().flat_map(|details| &details.metadata);
        metadata.map(|(key, value)| (key.as_str(), value))
    }

    /// Returns the tags, in the order in which you set them.
    ///
    /// ```
    /// # use tracing_session::Session;
    /// assert_eq!(Session::default().tags().count(), 0);
    /// ```
    pub fn tags(&self) -> impl Iterator<Item = &str> {
        let tags = self.details.iter().flat_map(|details| &details.tags);
        tags.map(StringValue::as_str)
    }

    /// Returns the prompt template.
    ///
    /// ```
    /// # use tracing_session::Session;
    /// let session = Session::default().with_prompt_template("Say {word}");
    /// assert_eq!(session.prompt_template(), Some("Say {word}"));
    /// ```
    pub fn prompt_template(&self) -> Option<&str> {
        Some(self.details.as_ref()?.template.as_ref()?.as_str())
    }

    /// Returns the version of the prompt template.
    ///
    /// ```
    /// # use tracing_session::Session;
    /// assert_eq!(Session::default().prompt_template_version(), None);
    /// ```
    pub fn prompt_template_version(&self) -> Option<&str> {
        Some(self.details.as_ref()?.template_version.as_ref()?.as_str())
    }

    /// Returns the variables of the prompt template: a JSON object.
    ///
    /// ```
    /// # use tracing_session::Session;
    /// assert_eq!(Session::default().prompt_template_variables(), None);
    /// ```
    pub fn prompt_template_variables(&self) -> Option<&Json> {
        self.details.as_ref()?.template_variables.as_ref()
    }

    /// Returns your own attribute with this key, which you set with [`with_attribute`](Self::with_attribute).
    ///
    /// ```
    /// # use tracing_session::Session;
    /// let session = Session::default().with_attribute("deployment.ring", 2)?;
    /// assert_eq!(session.attribute("deployment.ring"), Some(&2.into()));
    /// # Ok::<(), tracing_session::Error>(())
    /// ```
    pub fn attribute(&self, key: &str) -> Option<&Value> {
        let mut attributes = self.details.iter().flat_map(|details| &details.attributes);
        Some(&attributes.find(|it| it.key.as_str() == key)?.value)
    }

    /// Returns all values as OpenInference attributes, for your own spans, logs and requests.
    ///
    /// The values aren't redacted, and the keys aren't mapped to a [`Dialect`](crate::Dialect):
    /// [`Privacy`](crate::Privacy) belongs to a tracer provider, and dialects belong to exporters.
    ///
    /// ```
    /// use tracing_session::{Session, current_session};
    ///
    /// let session = Session::new("chat-42")?.with_metadata("tenant", "acme")?;
    /// session.in_scope(|| {
    ///     let attributes = current_session().unwrap().attributes();
    ///     let keys = attributes.map(|attribute| attribute.key.to_string());
    ///     assert!(keys.eq(["session.id", "metadata"]));
    /// });
    /// # Ok::<(), tracing_session::Error>(())
    /// ```
    pub fn attributes(&self) -> impl Iterator<Item = KeyValue> + use<> {
        let ids = IdKind::BOTH.into_iter().filter_map(|kind| {
            let id = kind.id(self).as_ref()?;
            Some(KeyValue::new(kind.key(), id.shared()))
        });
        let details = self.details.iter().flat_map(|it| it.encoded());
        let attributes: Vec<_> = ids.chain(details.cloned()).collect();
        attributes.into_iter()
    }
}

/// Combining sessions.
impl Session {
    pub(crate) fn with_id(id: Id) -> Self {
        Self {
            id: Some(id),
            ..Self::default()
        }
    }

    /// Sets metadata, tags, the prompt template or attributes.
    pub(crate) fn change(mut self, change: impl FnOnce(&mut Details)) -> Self {
        Details::change(&mut self.details, change);
        self.details.take_if(|details| details.is_empty());
        self
    }

    /// Like [`change`](Self::change), but an error if `change` returns false: the session has no room for the new
    /// values.
    pub(crate) fn change_if_fits(
        self,
        change: impl FnOnce(&mut Details) -> bool,
    ) -> Result<Self, Error> {
        let mut fits = true;
        let changed = self.change(|it| fits = change(it));
        fits.then_some(changed)
            .ok_or_else(|| ErrorKind::TooMany.into())
    }

    /// Fills missing values of this session with those of `other`.
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
            is_exact: self.is_exact,
        }
    }

    /// Drops `cleared` and `is_exact`, which have no use after all outer sessions are merged in.
    pub(crate) fn uncleared(mut self) -> Self {
        self.cleared = Parts::default();
        self.is_exact = false;
        self
    }

    /// The parts of an outer session that don't apply where this session is set.
    pub(crate) fn shadows(&self) -> Parts {
        if self.is_exact {
            return Parts::ALL;
        }
        let set = IdKind::BOTH.into_iter().filter(|it| it.id(self).is_some());
        set.fold(self.cleared, |shadows, kind| shadows.with(kind.part()))
    }

    /// Removes the attributes of [`with_attribute`](Self::with_attribute).
    pub(crate) fn without_attributes(self) -> Self {
        let details = self.details.as_ref();
        match details.is_some_and(|it| !it.attributes.is_empty()) {
            true => self.change(|it| it.attributes.clear()),
            false => self,
        }
    }

    /// Lets implicit ids replace the session id: see [`Id::replaceable`].
    pub(crate) fn replaceable(mut self) -> Self {
        self.id = self.id.map(Id::replaceable);
        self
    }

    /// Whether no value is set.
    pub(crate) fn is_empty(&self) -> bool {
        self.id.is_none() && self.user_id.is_none() && self.details.is_none()
    }
}

impl IdKind {
    pub(crate) fn id(self, session: &Session) -> &Option<Id> {
        match self {
            Self::Session => &session.id,
            Self::User => &session.user_id,
        }
    }

    /// Whether `session` has this id, and `other` has another one or none.
    pub(crate) fn differs(self, session: &Session, other: &Session) -> bool {
        self.id(session).is_some() && self.id(session) != self.id(other)
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
}
