//! The values of a session beside its ids: OpenInference's other context attributes.

use crate::format::redaction::Redaction;
use crate::session::keys::{
    PROMPT_TEMPLATE, PROMPT_TEMPLATE_VARIABLES, PROMPT_TEMPLATE_VERSION, ours,
};
use crate::session::metadata::{self, Entries};
use crate::sync::OnceLock;
use opentelemetry::{Array, Key, KeyValue, StringValue, Value};
use serde_json::Value as Json;
use std::borrow::Cow;
use std::sync::Arc;

/// A part of a session: [`Session::without`](crate::Session::without) stops its inheritance.
///
/// Each part is inherited separately. Inside another session, metadata and attributes are merged by key, tags are
/// joined, and of all other values the inner one wins. This concerns sessions only. If a span has your own attribute
/// with the same key, such as `metadata`, that attribute replaces the session's on the span.
///
/// ```
/// use tracing_session::{Part, Session, current_session};
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

/// Those that are not inherited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Parts(u8);

impl Parts {
    const DETAILS: [Part; 4] = [
        Part::Metadata,
        Part::Tags,
        Part::PromptTemplate,
        Part::Attributes,
    ];

    fn have_details(self) -> bool {
        Self::DETAILS.iter().any(|part| self.have(*part))
    }

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

/// In the order in which they were said.
#[derive(Clone, Default, PartialEq)]
pub(crate) struct Details {
    pub(crate) metadata: Entries,
    pub(crate) tags: Vec<StringValue>,
    pub(crate) template: Option<StringValue>,
    pub(crate) template_version: Option<StringValue>,
    pub(crate) template_variables: Option<Json>,
    pub(crate) attributes: Vec<KeyValue>,
    ready: ReadyMade,
}

impl Details {
    pub(crate) fn set_metadata(&mut self, key: &str, value: Json) {
        match self.metadata.iter_mut().find(|(said, _)| said == key) {
            Some((_, said)) => *said = value,
            None => self.metadata.push((key.to_owned(), value)),
        }
    }

    pub(crate) fn add_tags(&mut self, tags: impl IntoIterator<Item = StringValue>) {
        for tag in tags {
            if !self.tags.contains(&tag) {
                self.tags.push(tag);
            }
        }
    }

    pub(crate) fn set_attribute(&mut self, attribute: KeyValue) {
        let said = self.attributes.iter_mut();
        match said.into_iter().find(|said| said.key == attribute.key) {
            Some(said) => said.value = attribute.value,
            None => self.attributes.push(attribute),
        }
    }

    pub(crate) fn forget(&mut self, part: Part) {
        match part {
            Part::Session | Part::User => {}
            Part::Metadata => self.metadata.clear(),
            Part::Tags => self.tags.clear(),
            Part::PromptTemplate => {
                self.template = None;
                self.template_version = None;
                self.template_variables = None;
            }
            Part::Attributes => self.attributes.clear(),
        }
    }

    /// These inside `outer`, of which `cleared` is not inherited: metadata and attributes are merged
    /// by key, tags are joined, and the rest is inherited each on its own.
    pub(crate) fn inside(&self, outer: &Self, cleared: Parts) -> Self {
        let mut all = outer.clone();
        for part in Parts::DETAILS {
            if cleared.have(part) {
                all.forget(part);
            }
        }
        for (key, value) in &self.metadata {
            all.set_metadata(key, value.clone());
        }
        all.add_tags(self.tags.iter().cloned());
        all.template = self.template.clone().or(all.template);
        all.template_version = self.template_version.clone().or(all.template_version);
        all.template_variables = self.template_variables.clone().or(all.template_variables);
        for attribute in &self.attributes {
            all.set_attribute(attribute.clone());
        }
        all
    }

    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// To be called with a change of `self`, that is not yet shared.
    pub(crate) fn change(this: &mut Option<Arc<Self>>, change: impl FnOnce(&mut Self)) {
        let details = Arc::make_mut(this.get_or_insert_default());
        details.ready = ReadyMade::default();
        change(details);
    }

    /// All of it as OpenInference's attributes, redacted or as it is, made once.
    #[inline]
    pub(crate) fn ready(&self, redaction: Option<&Arc<Redaction>>) -> Cow<'_, [Ready]> {
        let Some(redaction) = redaction else {
            return Cow::Borrowed(self.ready.plain.get_or_init(|| self.attributes()));
        };
        let make = || redaction.redact_details(self).attributes();
        let redacted = &self.ready.redacted;
        let first = redacted.get_or_init(|| Box::new((redaction.clone(), make())));
        let (of, ready) = &**first;
        if Arc::ptr_eq(of, redaction) {
            Cow::Borrowed(ready)
        } else {
            Cow::Owned(make().into())
        }
    }

    fn attributes(&self) -> Attributes {
        let mut all = Vec::new();
        if !self.metadata.is_empty() {
            let metadata = metadata::object(&self.metadata);
            all.push(Ready::text(ours::METADATA, metadata));
        }
        if !self.tags.is_empty() {
            let tags = Value::Array(Array::String(self.tags.clone()));
            all.push(Ready::Any(KeyValue::new(ours::TAGS, tags)));
        }
        let text =
            |key, text: &Option<StringValue>| Some(Ready::text(key, text.as_ref()?.as_str()));
        all.extend(text(PROMPT_TEMPLATE, &self.template));
        all.extend(text(PROMPT_TEMPLATE_VERSION, &self.template_version));
        let variables = self.template_variables.iter().map(Json::to_string);
        all.extend(variables.map(|text| Ready::text(PROMPT_TEMPLATE_VARIABLES, text)));
        all.extend(self.attributes.iter().cloned().map(Ready::Any));
        all.into()
    }
}

/// `inner` inside `outer`, of which `cleared` is not inherited.
pub(crate) fn merged(
    outer: Option<&Arc<Details>>,
    inner: Option<&Arc<Details>>,
    cleared: Parts,
) -> Option<Arc<Details>> {
    let merged = match (outer, inner) {
        (None, inner) => return inner.cloned(),
        (Some(outer), None) if !cleared.have_details() => return Some(outer.clone()),
        (Some(outer), None) => Details::default().inside(outer, cleared),
        (Some(outer), Some(inner)) => inner.inside(outer, cleared),
    };
    (!merged.is_empty()).then(|| Arc::new(merged))
}

/// An attribute that is ready to be exported.
#[derive(Clone)]
pub(crate) enum Ready {
    /// As most are: by itself, since it takes the fewest instructions so.
    Text(&'static str, Arc<str>),
    Any(KeyValue),
}

impl Ready {
    pub(crate) fn text(key: &'static str, text: impl Into<Arc<str>>) -> Self {
        Self::Text(key, text.into())
    }

    /// The text is shared.
    #[inline]
    pub(crate) fn attribute(&self) -> KeyValue {
        match self {
            Self::Text(key, text) => KeyValue::new(Key::from_static_str(key), text.clone()),
            Self::Any(attribute) => attribute.clone(),
        }
    }
}

type Attributes = Box<[Ready]>;

/// Ready-made attributes: plain, and as the first provider that redacts exports them.
#[derive(Default)]
struct ReadyMade {
    plain: OnceLock<Attributes>,
    /// The redaction is kept alive, so that no other can get its address.
    redacted: OnceLock<Box<(Arc<Redaction>, Attributes)>>,
}

/// It is not part of the value.
impl Clone for ReadyMade {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl PartialEq for ReadyMade {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
