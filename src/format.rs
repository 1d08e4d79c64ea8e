//! How a scope becomes attributes: under which keys, and with which ids hidden.

pub(crate) mod attributes;
pub(crate) mod dialect;
pub(crate) mod exporter;
pub(crate) mod privacy;
pub(crate) mod translator;

use crate::format::attributes::{METADATA, PREVIOUS_SESSION_ID, USER_HASH, ours};
use crate::format::dialect::Written;
use crate::format::privacy::{IdPolicy, Privacy, Shown};
use crate::scope::Scope;
use crate::session::details::{Details, Ready};
use crate::session::text::{repeats, unquoted};
use crate::session::{Id, Session};
use opentelemetry::KeyValue;
use serde_json::Value as Json;
use std::borrow::Cow;
use std::sync::Arc;

/// Where there is none, it is the default: nearly everywhere.
#[derive(Clone, Debug)]
pub(crate) struct Format {
    pub(crate) privacy: Privacy,
    /// Attributes named `session` and `user`, beside an id.
    pub(crate) renames_plain: bool,
}

impl Default for Format {
    fn default() -> Self {
        Self {
            privacy: Privacy::new(),
            renames_plain: true,
        }
    }
}

impl Format {
    pub(crate) fn change(this: &mut Option<Arc<Self>>, change: impl FnOnce(&mut Self)) {
        change(Arc::make_mut(this.get_or_insert_default()));
    }

    #[cold]
    pub(crate) fn write_ids(
        &self,
        id: Option<Id>,
        user_id: Option<Id>,
        write: &mut impl FnMut(KeyValue),
    ) {
        let ids = [
            (ours::SESSION_ID, id, &self.privacy.session_ids),
            (ours::USER_ID, user_id, &self.privacy.user_ids),
        ];
        for (key, id, policy) in ids {
            let Some(shown) = id.as_ref().and_then(|id| policy.show(id)) else {
                continue;
            };
            let key = match shown {
                Shown::Hash(_) if key == ours::USER_ID => ours::USER_HASH,
                _ => key,
            };
            write(KeyValue::new(key, shown.text()));
        }
    }

    pub(crate) fn write_details(&self, details: &Details, write: &mut impl FnMut(Ready)) {
        self.shown(details).write(write);
    }

    /// Whether an attribute with this key is to be hidden.
    pub(crate) fn minds(&self, key: &str) -> bool {
        self.privacy.hides_ids() && (key == USER_HASH || self.policy_of_key(key).is_some())
            || !self.privacy.metadata.is_empty()
                && (dialect::metadata_of(key).is_some()
                    || dialect::meaning(key) == Some(Written::Metadata))
    }

    /// What becomes of the id under this key, if it is one of any dialect.
    fn policy_of_key(&self, key: &str) -> Option<&IdPolicy> {
        if key == PREVIOUS_SESSION_ID {
            return Some(&self.privacy.session_ids);
        }
        match dialect::meaning(key)? {
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
        if dialect::meaning(key) == Some(Written::Metadata) {
            if let Some(shown) = self.shown_object(&text) {
                attribute.value = shown.into();
            }
            return Some(attribute);
        }
        let private = dialect::metadata_of(key);
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
        if !self.privacy.hides_ids() || attribute.key.as_str() == METADATA {
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

/// The values of a session as attributes, with what is private redacted.
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
    let is_hashed = values.user_id.is_some() && !format.privacy.user_ids.is_plain();
    for ready in details.ready(Some(format)).iter() {
        let attribute = ready.attribute();
        // An attribute of the session: the key is written already.
        if is_hashed && attribute.key.as_str() == USER_HASH {
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

/// The same, of the values that apply in a scope now.
pub(crate) fn write_scope(
    scope: &Scope,
    format: Option<&Arc<Format>>,
    write: &mut impl FnMut(KeyValue),
) {
    scope.with_values(|values| write_values(values, format, write));
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
        write(attributes::attribute(ours::SESSION_ID, id.clone()));
    }
    if let Some(id) = &values.user_id {
        write(attributes::attribute(ours::USER_ID, id.clone()));
    }
}
