//! Attributes of a span that are written from its scope, held back when its author sets them too.
//!
//! The SDK's spans only append, so what is exported is decided once, when the span ends: the
//! author's own value wins on the span, metadata and tags are joined with it, and no key is written
//! twice.

use crate::format::attributes::{
    METADATA, METADATA_FIELD, PLAIN_SESSION, PLAIN_SESSION_RENAMED, PLAIN_USER, PLAIN_USER_RENAMED,
    PROMPT_TEMPLATE, PROMPT_TEMPLATE_VARIABLES, PROMPT_TEMPLATE_VERSION, TAGS,
};
use crate::format::{self, Format};
use crate::scope::Scope;
use crate::session::Session;
use crate::session::details::Details;
use crate::session::text::unquoted;
use opentelemetry::trace::Span;
use opentelemetry::{Array, Key, KeyValue, StringValue, Value};
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::sync::Arc;
use tracing::field::FieldSet;

/// Only for spans that have any of this.
#[derive(Default)]
pub(crate) struct Held {
    /// Those of the span, if metadata or tags are among them.
    pub(crate) fields: Option<&'static FieldSet>,
    /// Set on this span by its author.
    pub(crate) own: Session,
    /// The same, of what is not known to `Session`.
    pub(crate) others: BTreeMap<Key, Value>,
    /// The same, as it was set where no metadata and the like is in force: it may be marked later.
    pub(crate) alone: BTreeMap<Key, Value>,
    /// Set from below, by `mark_trace`.
    pub(crate) marked: Session,
    pub(crate) plain_session: Option<Value>,
    pub(crate) plain_user: Option<Value>,
    /// The scope that the span's fields opened, where another was set inside it.
    pub(crate) opened: Option<Arc<Scope>>,
}

impl Held {
    /// Whether nothing came from anywhere but the scope.
    fn is_of_scope(&self) -> bool {
        self.own.is_empty()
            && self.marked.is_empty()
            && self.others.is_empty()
            && self.alone.is_empty()
            && self.plain_session.is_none()
            && self.plain_user.is_none()
    }

    pub(crate) fn set_detail(&mut self, key: &Key, value: Value) {
        let set = |own: &mut Details| own.set_own(key.as_str(), &value);
        if Details::change_if(&mut self.own.details, set) {
            self.others.remove(key);
        } else {
            self.others.insert(key.clone(), value);
        }
    }

    /// The values that the span would be exported with now.
    pub(crate) fn resolve(&self, scope: Option<&Scope>) -> Session {
        let inherited = scope.map(Scope::to_session).unwrap_or_default();
        self.own.clone().or(inherited).or(self.marked.clone())
    }

    #[cold]
    pub(crate) fn write(
        self,
        scope: Option<&Scope>,
        format: Option<&Arc<Format>>,
        span: &mut impl Span,
    ) {
        if let Some(scope) = scope.filter(|_| self.is_of_scope()) {
            return format::write_scope(scope, format, &mut |it| span.set_attribute(it));
        }
        // The span's own details are redacted already.
        let redacted = |mut session: Session| {
            let redact = |it: Arc<Details>| match format {
                Some(format) => Arc::new(format.redacted(&it).into_owned()),
                None => it,
            };
            session.details = session.details.map(redact);
            session
        };
        let inherited = redacted(scope.map(Scope::to_session).unwrap_or_default());
        let marked = redacted(self.marked.clone());
        let values = self.own.clone().or(inherited).or(marked);
        let beside = values.id.is_some() || values.user_id.is_some();
        let plain = [
            (&self.plain_session, PLAIN_SESSION, PLAIN_SESSION_RENAMED),
            (&self.plain_user, PLAIN_USER, PLAIN_USER_RENAMED),
        ];
        let plain = plain.into_iter().filter_map(|(value, key, renamed)| {
            let key = if beside { renamed } else { key };
            Some(KeyValue::new(key, value.clone()?))
        });
        let others = self.others.iter();
        let others = others.map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
        let own: Vec<_> = others.chain(plain).collect();
        let mut write = |attribute: KeyValue| {
            if own.iter().all(|own| own.key != attribute.key) {
                span.set_attribute(attribute);
            }
        };
        format::write_redacted(&values, format, &mut write);
        if let Some(missing) = format.and_then(|format| format.missing()) {
            let details = self.own.details.as_deref().map(Details::metadata_and_tags);
            let own = Session {
                details: details.map(Arc::new),
                ..self.own.clone()
            };
            format::write_redacted(&own, Some(missing), &mut write);
        }
        let alone = self.alone.into_iter();
        let alone = alone.map(|(key, value)| KeyValue::new(key, value));
        alone.chain(own).for_each(|it| span.set_attribute(it));
    }
}

impl Details {
    fn metadata_and_tags(&self) -> Self {
        Self::of(self.metadata.clone(), self.tags.clone())
    }

    /// What the author of a span set under a key of OpenInference. False if it is not in its form.
    fn set_own(&mut self, key: &str, value: &Value) -> bool {
        let object = || match serde_json::from_str(&value.as_str()) {
            Ok(Json::Object(object)) => Some(object),
            _ => None,
        };
        match (key, value) {
            (METADATA, _) => {
                let Some(object) = object() else { return false };
                for (key, value) in object {
                    self.set_metadata(&key, value);
                }
            }
            (TAGS, Value::Array(Array::String(tags))) => self.tags.clone_from(tags),
            (PROMPT_TEMPLATE, Value::String(text)) => self.template = Some(text.clone()),
            (PROMPT_TEMPLATE_VERSION, Value::String(text)) => {
                self.template_version = Some(text.clone());
            }
            (PROMPT_TEMPLATE_VARIABLES, _) => {
                let Some(object) = object() else { return false };
                self.template_variables = Some(object.into());
            }
            (key, value) => {
                let Some(key) = key.strip_prefix(METADATA_FIELD) else {
                    return false;
                };
                let Some(value) = json(value) else {
                    return false;
                };
                self.set_metadata(key, value);
            }
        }
        true
    }
}

fn json(value: &Value) -> Option<Json> {
    Some(match value {
        Value::Bool(value) => (*value).into(),
        Value::I64(value) => (*value).into(),
        Value::F64(value) => (*value).into(),
        Value::String(value) => match unquoted(value.as_str()) {
            Some(text) => text.into(),
            None => value.as_str().into(),
        },
        Value::Array(Array::Bool(values)) => values.as_slice().into(),
        Value::Array(Array::I64(values)) => values.as_slice().into(),
        Value::Array(Array::F64(values)) => values.as_slice().into(),
        Value::Array(Array::String(values)) => values.iter().map(StringValue::as_str).collect(),
        _ => return None,
    })
}
