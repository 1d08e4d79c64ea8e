//! What a `Session` says besides its ids.

use crate::error::{Error, ErrorKind};
use crate::format;
use crate::session::details::Details;
use crate::session::keys::{METADATA_FIELD, PLAIN_SESSION, PLAIN_USER, WRITTEN};
use crate::session::{Id, Session};
use opentelemetry::{Key, KeyValue, StringValue, Value};
use serde::de::{Deserializer as _, MapAccess, Visitor};
use serde::{Serialize, Serializer as _};
use serde_json::Value as Json;
use std::fmt;
use std::sync::Arc;

impl Session {
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
    /// When the key is blank, longer than 1,024 bytes, or has a control character, and when the
    /// value cannot be serialised.
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
    pub fn with_metadata(mut self, key: &str, value: impl Serialize) -> Result<Self, Error> {
        let key = Id::new(key).map_err(|error| Error::of("metadata key", error))?;
        let value = json(value).map_err(|error| error.about(key.as_str()))?;
        Details::change(&mut self.details, |it| it.set_metadata(key.as_str(), value));
        Ok(self)
    }

    /// The same session with these tags too. A tag is trimmed.
    ///
    /// They are exported as `tag.tags`, a list of strings. Inside another session, the tags of both are joined, without
    /// duplicates. So are tags that you record again in a field of a span. A span with its own attribute `tag.tags` keeps
    /// that one.
    ///
    /// # Errors
    ///
    /// When a tag is blank, longer than 1,024 bytes, or has a control character.
    ///
    /// ```
    /// use tracing_session::Session;
    ///
    /// let session = Session::new("chat-42")?.with_tags(["beta", "web"])?;
    /// assert!(session.tags().eq(["beta", "web"]));
    /// # Ok::<(), tracing_session::Error>(())
    /// ```
    pub fn with_tags<T: AsRef<str>>(
        mut self,
        tags: impl IntoIterator<Item = T>,
    ) -> Result<Self, Error> {
        let tags: Result<Vec<_>, _> = tags.into_iter().map(|it| tag(it.as_ref())).collect();
        let tags = tags.map_err(|error| Error::of("tag", error))?;
        if !tags.is_empty() {
            Details::change(&mut self.details, |details| details.add_tags(tags));
        }
        Ok(self)
    }

    /// The same session with the template that its prompts are made of, with the places for the
    /// variables in it: `llm.prompt_template.template`.
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
    #[must_use = "it is another session"]
    pub fn with_prompt_template(mut self, template: impl AsRef<str>) -> Self {
        let template = shared(template.as_ref());
        Details::change(&mut self.details, |it| it.template = Some(template));
        self
    }

    /// The same session with the version of its prompt template: `llm.prompt_template.version`.
    ///
    /// ```
    /// # use tracing_session::Session;
    /// let session = Session::default().with_prompt_template_version("v2");
    /// assert_eq!(session.prompt_template_version(), Some("v2"));
    /// ```
    #[must_use = "it is another session"]
    pub fn with_prompt_template_version(mut self, version: impl AsRef<str>) -> Self {
        let version = shared(version.as_ref());
        Details::change(&mut self.details, |it| it.template_version = Some(version));
        self
    }

    /// The same session with the variables of its prompt template: `llm.prompt_template.variables`,
    /// the text of a JSON object. They take the place of those that are in force around it.
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
    pub fn with_prompt_template_variables(
        mut self,
        variables: impl Serialize,
    ) -> Result<Self, Error> {
        let variables = json(variables)?;
        if !variables.is_object() {
            return Err(ErrorKind::NotAnObject.into());
        }
        let set = |it: &mut Details| it.template_variables = Some(variables);
        Details::change(&mut self.details, set);
        Ok(self)
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
    /// When the key is blank, longer than 1,024 bytes, or has a control character, and when there is another
    /// method for the key.
    ///
    /// ```
    /// use tracing_session::Session;
    ///
    /// let session = Session::new("chat-42")?.with_attribute("deployment.ring", 2)?;
    /// assert_eq!(session.attribute("deployment.ring"), Some(&2.into()));
    /// # Ok::<(), tracing_session::Error>(())
    /// ```
    pub fn with_attribute(mut self, key: &str, value: impl Into<Value>) -> Result<Self, Error> {
        let key = Id::check(key).map_err(|error| Error::of("attribute key", error))?;
        if WRITTEN.contains(&key)
            || [PLAIN_SESSION, PLAIN_USER].contains(&key)
            || key.starts_with(METADATA_FIELD)
        {
            return Err(Error::from(ErrorKind::ReservedKey).about(key));
        }
        let value = match value.into() {
            // Every span shares the text.
            Value::String(text) => Value::String(shared(text.as_str())),
            other => other,
        };
        let attribute = KeyValue::new(Key::from(Arc::<str>::from(key)), value);
        Details::change(&mut self.details, |it| it.set_attribute(attribute));
        Ok(self)
    }

    /// The metadata with this key.
    ///
    /// ```
    /// # use tracing_session::Session;
    /// let session = Session::default().with_metadata("tenant", "acme")?;
    /// assert_eq!(session.metadata("tenant").unwrap(), "acme");
    /// # Ok::<(), tracing_session::Error>(())
    /// ```
    pub fn metadata(&self, key: &str) -> Option<&Json> {
        let mut metadata = self.all_metadata();
        Some(metadata.find(|(said, _)| *said == key)?.1)
    }

    /// All metadata, in the order in which it was set.
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

    /// The tags, in the order in which they were set.
    ///
    /// ```
    /// # use tracing_session::Session;
    /// assert_eq!(Session::default().tags().count(), 0);
    /// ```
    pub fn tags(&self) -> impl Iterator<Item = &str> {
        let tags = self.details.iter().flat_map(|details| &details.tags);
        tags.map(StringValue::as_str)
    }

    /// The prompt template.
    ///
    /// ```
    /// # use tracing_session::Session;
    /// let session = Session::default().with_prompt_template("Say {word}");
    /// assert_eq!(session.prompt_template(), Some("Say {word}"));
    /// ```
    pub fn prompt_template(&self) -> Option<&str> {
        Some(self.details.as_ref()?.template.as_ref()?.as_str())
    }

    /// The version of the prompt template.
    ///
    /// ```
    /// # use tracing_session::Session;
    /// assert_eq!(Session::default().prompt_template_version(), None);
    /// ```
    pub fn prompt_template_version(&self) -> Option<&str> {
        Some(self.details.as_ref()?.template_version.as_ref()?.as_str())
    }

    /// The variables of the prompt template: a JSON object.
    ///
    /// ```
    /// # use tracing_session::Session;
    /// assert_eq!(Session::default().prompt_template_variables(), None);
    /// ```
    pub fn prompt_template_variables(&self) -> Option<&Json> {
        self.details.as_ref()?.template_variables.as_ref()
    }

    /// The attribute of one's own with this key.
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

    /// All values of the session as OpenInference's attributes, for your own spans, logs and requests. They are
    /// neither redacted nor mapped to a [`Dialect`](crate::Dialect): [`Privacy`](crate::Privacy) belongs to a tracer provider,
    /// and dialects belong to exporters.
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
        let mut attributes = Vec::new();
        format::write_values(self, None, &mut |it| attributes.push(it));
        attributes.into_iter()
    }
}

fn json(value: impl Serialize) -> Result<Json, Error> {
    serde_json::to_value(value).map_err(|_| ErrorKind::Serialize.into())
}

/// Metadata in the order in which it was set.
pub(crate) type Entries = Vec<(String, Json)>;

/// Metadata as the text of one JSON object.
pub(crate) fn object(entries: &Entries) -> String {
    let mut json = Vec::new();
    let entries = entries.iter().map(|(key, value)| (key, value));
    // The values are JSON already, and writing to a vector can't fail.
    let _never_fails = serde_json::Serializer::new(&mut json).collect_map(entries);
    String::from_utf8(json).unwrap_or_default()
}

/// The entries of the text of a JSON object, in their order.
pub(crate) fn entries(object: &str) -> Option<Entries> {
    struct Ordered;

    impl<'de> Visitor<'de> for Ordered {
        type Value = Entries;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
            let mut entries = Entries::new();
            while let Some(entry) = map.next_entry()? {
                entries.push(entry);
            }
            Ok(entries)
        }
    }

    let mut json = serde_json::Deserializer::from_str(object);
    let entries = json.deserialize_map(Ordered).ok()?;
    json.end().ok()?;
    Some(entries)
}

/// A tag obeys the rule of ids.
pub(crate) fn tag(text: &str) -> Result<StringValue, ErrorKind> {
    Ok(shared(Id::check(text)?))
}

fn shared(text: &str) -> StringValue {
    let text: Arc<str> = text.into();
    text.into()
}
