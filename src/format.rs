//! How a provider exports what is in force: under which keys, and with which ids hidden.

pub(crate) mod attributes;
pub(crate) mod dialect;
pub(crate) mod privacy;

use crate::format::attributes::{PREVIOUS_SESSION_ID, SESSION_ID, USER_HASH, USER_ID};
use crate::format::dialect::{Dialect, Rule, Written};
use crate::format::privacy::{IdPolicy, Privacy, Shown};
use crate::scope::Scope;
use crate::session::Role;
use crate::session::details::{Details, Ready};
use crate::session::text::{repeats, unquoted};
use crate::session::{Id, Session};
use crate::sync::OnceLock;
use opentelemetry::{KeyValue, Value};
use serde_json::Value as Json;
use std::borrow::Cow;
use std::sync::Arc;

/// Where there is none, it is the default: nearly everywhere.
#[derive(Clone, Debug)]
pub(crate) struct Format {
    pub(crate) dialect: Dialect,
    pub(crate) privacy: Privacy,
    /// Attributes named `session` and `user`, beside an id.
    pub(crate) renames_plain: bool,
    /// For what OpenInference has and the dialect has not.
    missing: OnceLock<Option<Arc<Format>>>,
}

impl Default for Format {
    fn default() -> Self {
        Self {
            dialect: Dialect::OPENINFERENCE,
            privacy: Privacy::new(),
            renames_plain: true,
            missing: OnceLock::new(),
        }
    }
}

impl Format {
    pub(crate) fn change(this: &mut Option<Arc<Self>>, change: impl FnOnce(&mut Self)) {
        let format = Arc::make_mut(this.get_or_insert_default());
        format.missing = OnceLock::new();
        change(format);
    }

    /// How a span's own is written where the dialect has no key for it: it would be lost.
    pub(crate) fn missing(&self) -> Option<&Arc<Self>> {
        let missing = || {
            let dialect = self.dialect.missing();
            let missing = Self {
                dialect,
                privacy: self.privacy.clone(),
                ..Self::default()
            };
            (!missing.dialect.rules().is_empty()).then(|| Arc::new(missing))
        };
        self.missing.get_or_init(missing).as_ref()
    }

    #[cold]
    pub(crate) fn write_ids(
        &self,
        id: Option<Id>,
        user_id: Option<Id>,
        write: &mut impl FnMut(KeyValue),
    ) {
        self.write_id(Written::SessionId, id.as_ref(), write);
        self.write_id(Written::UserId, user_id.as_ref(), write);
    }

    fn write_id(&self, written: Written, id: Option<&Id>, write: &mut impl FnMut(KeyValue)) {
        let Some(id) = id else { return };
        let policy = match written {
            Written::UserId => &self.privacy.user_ids,
            _ => &self.privacy.session_ids,
        };
        let Some(shown) = policy.show(id) else { return };
        for key in self.keys(written) {
            let key = match (&shown, key) {
                (Shown::Hash(_), USER_ID) => USER_HASH,
                _ => key,
            };
            write(KeyValue::new(key, shown.text()));
        }
    }

    fn keys(&self, written: Written) -> impl Iterator<Item = &'static str> {
        let rules = self.dialect.rules().iter();
        rules
            .filter(move |rule| rule.written == written)
            .map(|rule| rule.key)
    }

    pub(crate) fn write_details(&self, details: &Details, write: &mut impl FnMut(Ready)) {
        let shown = self.shown(details);
        for &Rule { written, key } in self.dialect.rules() {
            match written {
                Written::SessionId | Written::UserId => {}
                Written::Metadata if shown.metadata.is_empty() => {}
                Written::Metadata => write(Ready::text(key, shown.metadata_json())),
                Written::MetadataEntry => {
                    for (name, value) in &shown.metadata {
                        if let Some(value) = entry(value) {
                            // Every span shares both.
                            let key: Arc<str> = format!("{key}{name}").into();
                            write(Ready::Any(KeyValue::new(key, value)));
                        }
                    }
                }
                Written::Tags | Written::JoinedTags if shown.tags.is_empty() => {}
                Written::Tags => write(Ready::list(key, shown.tags.clone())),
                Written::JoinedTags => {
                    let tags: Vec<_> = shown.tags.iter().map(|tag| tag.as_str()).collect();
                    write(Ready::text(key, tags.join(",")));
                }
            }
        }
        shown.write_rest(write);
    }

    /// Which id a span's author means by an attribute with this key.
    pub(crate) fn role(&self, key: &str) -> Option<(Role, &'static str)> {
        let rule = self.dialect.rule(key)?;
        match rule.written {
            Written::SessionId => Some((Role::Session, rule.key)),
            Written::UserId => Some((Role::User, rule.key)),
            _ => None,
        }
    }

    /// Whether an attribute with this key is written from the scope.
    fn writes(&self, key: &str) -> bool {
        self.dialect.rules().iter().any(|rule| rule.is_of(key))
    }

    /// Whether an attribute with this key is ours to write, or to hide.
    pub(crate) fn minds(&self, key: &str) -> bool {
        self.writes(key)
            || self.privacy.hides_ids() && (key == USER_HASH || self.policy_of_key(key).is_some())
            || !self.privacy.metadata.is_empty()
                && (self.dialect.metadata_of(key).is_some()
                    || self.dialect.meaning(key) == Some(Written::Metadata))
    }

    /// Whether an id is written under this key.
    fn is_taken(&self, key: &str, values: &Session) -> bool {
        let key = match key {
            USER_HASH if !self.privacy.user_ids.is_plain() => USER_ID,
            key => key,
        };
        match self.role(key) {
            Some((Role::Session, _)) => values.id.is_some(),
            Some((Role::User, _)) => values.user_id.is_some(),
            None => false,
        }
    }

    /// What becomes of the id under this key, if it is one of this dialect or any other.
    fn policy_of_key(&self, key: &str) -> Option<&IdPolicy> {
        if key == PREVIOUS_SESSION_ID {
            return Some(&self.privacy.session_ids);
        }
        match self.dialect.meaning(key)? {
            Written::SessionId => Some(&self.privacy.session_ids),
            Written::UserId => Some(&self.privacy.user_ids),
            _ => None,
        }
    }

    /// What becomes of a text that is an id to be hidden.
    fn policy_of_text(&self, text: &str, known: &[Session]) -> Option<&IdPolicy> {
        let ids = known.iter().flat_map(|values| {
            [
                (&values.user_id, &self.privacy.user_ids),
                (&values.id, &self.privacy.session_ids),
            ]
        });
        let mut hidden =
            ids.filter(|(id, policy)| !policy.is_plain() && repeats(text, id.as_ref()));
        hidden.next().map(|(_, policy)| policy)
    }

    /// What is exported of an attribute that the span's author set, where all of these ids are `known`.
    pub(crate) fn show(&self, mut attribute: KeyValue, known: &[Session]) -> Option<KeyValue> {
        if !self.privacy.hides() {
            return Some(attribute);
        }
        let key = attribute.key.as_str();
        let text = attribute.value.as_str();
        if self.dialect.meaning(key) == Some(Written::Metadata) {
            if let Some(shown) = self.shown_object(&text) {
                attribute.value = shown.into();
            }
            return Some(attribute);
        }
        let private = self.dialect.metadata_of(key);
        let private = private.and_then(|name| self.privacy.metadata_policy(name));
        if let Some(policy) = private.filter(|policy| !policy.is_plain()) {
            let shown = policy.show_text(&text)?.into_owned();
            return Some(KeyValue::new(attribute.key, shown));
        }
        let policy = match self.policy_of_text(&text, known) {
            Some(policy) => policy,
            None => match self.policy_of_key(attribute.key.as_str()) {
                Some(policy) if !policy.is_plain() => policy,
                _ => return Some(attribute),
            },
        };
        let id = unquoted(&text).unwrap_or_else(|| text.clone().into_owned());
        let shown = policy.show_text(id.trim())?.into_owned();
        Some(KeyValue::new(attribute.key, shown))
    }

    /// The same of what a session says: metadata is hidden already.
    fn show_said(&self, attribute: KeyValue, known: &[Session]) -> Option<KeyValue> {
        let key = attribute.key.as_str();
        let is_metadata = self.dialect.metadata_of(key).is_some()
            || self.dialect.meaning(key) == Some(Written::Metadata);
        // In some dialects the key of metadata is that of an id.
        let is_id = self.policy_of_key(key).is_some_and(|it| !it.is_plain());
        let text = attribute.value.as_str();
        if !self.privacy.hides_ids()
            || is_metadata && !is_id && self.policy_of_text(&text, known).is_none()
        {
            return Some(attribute);
        }
        self.show(attribute, known)
    }

    /// The text of a JSON object with what is to be hidden, hidden.
    fn shown_object(&self, text: &str) -> Option<String> {
        let Ok(Json::Object(object)) = serde_json::from_str(text) else {
            return None;
        };
        let details = Details::of(object.into_iter().collect(), Vec::new());
        Some(self.shown(&details).metadata_json())
    }

    /// The details with what is to be hidden, hidden.
    fn shown<'a>(&self, details: &'a Details) -> Cow<'a, Details> {
        if self.privacy.metadata.is_empty() {
            return Cow::Borrowed(details);
        }
        let mut shown = details.clone();
        shown.metadata.retain_mut(|(key, value)| {
            let Some(policy) = self.privacy.metadata_policy(key) else {
                return true;
            };
            let text = match &*value {
                Json::String(text) => Cow::Borrowed(text.as_str()),
                other => Cow::Owned(other.to_string()),
            };
            match policy.show_text(&text) {
                _ if policy.is_plain() => true,
                None => false,
                Some(hash) => {
                    *value = Json::String(hash.into_owned());
                    true
                }
            }
        });
        Cow::Owned(shown)
    }
}

/// One metadata as an attribute by itself.
fn entry(value: &Json) -> Option<Value> {
    let shared = |text: &str| Value::String(Arc::<str>::from(text).into());
    Some(match value {
        Json::Null => return None,
        Json::Bool(value) => Value::Bool(*value),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(integer), _) => Value::I64(integer),
            (None, Some(float)) if number.is_f64() => Value::F64(float),
            _ => shared(&number.to_string()),
        },
        Json::String(text) => shared(text),
        Json::Array(_) | Json::Object(_) => shared(&value.to_string()),
    })
}

/// The values of a session as the attributes of `format`.
#[inline(always)]
pub(crate) fn write_values(
    values: &Session,
    format: Option<&Arc<Format>>,
    write: &mut impl FnMut(KeyValue),
) {
    match format {
        None => write_as_usual(values, write),
        Some(format) => write_formatted(values, format, write),
    }
}

#[cold]
fn write_formatted(values: &Session, format: &Arc<Format>, write: &mut impl FnMut(KeyValue)) {
    format.write_ids(values.id.clone(), values.user_id.clone(), write);
    let Some(details) = &values.details else {
        return;
    };
    let known = [values.clone()];
    for ready in details.ready(Some(format)).iter() {
        let attribute = ready.attribute();
        // In some dialects an id is metadata with a name of its own.
        if format.is_taken(attribute.key.as_str(), values) {
            continue;
        }
        if let Some(attribute) = format.show_said(attribute, &known) {
            write(attribute);
        }
    }
}

/// The same, as OpenInference's attributes: nearly everywhere.
#[inline(always)]
fn write_as_usual(values: &Session, write: &mut impl FnMut(KeyValue)) {
    write_ids(values, write);
    if let Some(details) = &values.details {
        for ready in details.ready(None).iter() {
            write(ready.attribute());
        }
    }
}

/// The ids of a scope, as the attributes of `format`.
pub(crate) fn write_ids_of(
    scope: &Scope,
    format: Option<&Arc<Format>>,
    write: &mut impl FnMut(KeyValue),
) {
    scope.with_values(|values| match format {
        None => write_ids(values, write),
        Some(format) => format.write_ids(values.id.clone(), values.user_id.clone(), write),
    });
}

/// The same, as OpenInference's attributes.
#[inline(always)]
fn write_ids(values: &Session, write: &mut impl FnMut(KeyValue)) {
    if let Some(id) = &values.id {
        write(attributes::attribute(SESSION_ID, id.clone()));
    }
    if let Some(id) = &values.user_id {
        write(attributes::attribute(USER_ID, id.clone()));
    }
}
