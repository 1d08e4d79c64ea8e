//! How a provider exports a scope: under which keys, and with which values redacted.

pub(crate) mod attributes;
pub(crate) mod dialect;
pub(crate) mod privacy;
pub(crate) mod redaction;

use crate::format::attributes::{SESSION_ID, USER_HASH, USER_ID};
use crate::format::dialect::{Dialect, Rule, Written};
use crate::format::privacy::{IdPolicy, Privacy};
use crate::format::redaction::{Redacted, Redaction};
use crate::scope::{Role, Scope};
use crate::session::details::{Details, Ready};
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
    /// `None`: nothing is redacted.
    pub(crate) redaction: Option<Arc<Redaction>>,
    /// Attributes named `session` and `user`, beside an id.
    pub(crate) renames_plain: bool,
    is_openinference: bool,
    /// For what OpenInference has and the dialect has not.
    missing: OnceLock<Option<Arc<Format>>>,
}

impl Default for Format {
    fn default() -> Self {
        Self {
            dialect: Dialect::OPENINFERENCE,
            redaction: None,
            renames_plain: true,
            is_openinference: true,
            missing: OnceLock::new(),
        }
    }
}

impl Format {
    pub(crate) fn change(this: &mut Option<Arc<Self>>, change: impl FnOnce(&mut Self)) {
        let format = Arc::make_mut(this.get_or_insert_default());
        format.missing = OnceLock::new();
        change(format);
        format.is_openinference = format.dialect == Dialect::OPENINFERENCE;
    }

    pub(crate) fn redact(this: &mut Option<Arc<Self>>, privacy: Privacy) {
        Self::change(this, |format| format.redaction = Redaction::of(privacy));
    }

    /// Whether the keys are those of OpenInference alone.
    pub(crate) fn is_openinference(&self) -> bool {
        self.is_openinference
    }

    /// How a span's own is written where the dialect has no key for it: it would be lost.
    pub(crate) fn missing(&self) -> Option<&Arc<Self>> {
        let missing = || {
            let dialect = self.dialect.missing();
            let missing = Self {
                is_openinference: false,
                dialect,
                redaction: self.redaction.clone(),
                ..Self::default()
            };
            (!missing.dialect.rules().is_empty()).then(|| Arc::new(missing))
        };
        self.missing.get_or_init(missing).as_ref()
    }

    fn policy(&self, role: Role) -> Option<&IdPolicy> {
        let redaction = self.redaction.as_deref()?;
        Some(redaction.policy(role))
    }

    /// Whether ids of this kind are exported as hashes.
    pub(crate) fn hashes(&self, role: Role) -> bool {
        self.policy(role).is_some_and(IdPolicy::hashes)
    }

    #[cold]
    fn write_in_dialect(
        &self,
        id: Option<Id>,
        user_id: Option<Id>,
        write: &mut impl FnMut(KeyValue),
    ) {
        for (role, id) in [(Role::Session, id), (Role::User, user_id)] {
            let written = id.and_then(|id| match &self.redaction {
                None => Some(KeyValue::new(key_of(role, false), id.shared())),
                Some(redaction) => redaction.written(role, &id),
            });
            let Some(written) = written else { continue };
            for rule in self.dialect.rules() {
                if rule.role() == Some(role) {
                    write(match rule.key {
                        USER_ID => written.clone(),
                        key => KeyValue::new(key, written.value.clone()),
                    });
                }
            }
        }
    }

    /// The details to export: redacted, if something is to be.
    pub(crate) fn redacted<'a>(&self, details: &'a Details) -> Cow<'a, Details> {
        match &self.redaction {
            None => Cow::Borrowed(details),
            Some(redaction) => Cow::Owned(redaction.redact_details(details)),
        }
    }

    /// Writes details that are redacted already.
    pub(crate) fn write_details(&self, details: &Details, write: &mut impl FnMut(Ready)) {
        for &Rule { written, key } in self.dialect.rules() {
            match written {
                Written::SessionId | Written::UserId => {}
                Written::Metadata if details.metadata.is_empty() => {}
                Written::Metadata => write(Ready::text(key, details.metadata_json())),
                Written::MetadataEntry => {
                    for (name, value) in &details.metadata {
                        if let Some(attribute) = self.metadata_entry(key, name, value) {
                            write(Ready::Any(attribute));
                        }
                    }
                }
                Written::Tags | Written::JoinedTags if details.tags.is_empty() => {}
                Written::Tags => write(Ready::list(key, details.tags.clone())),
                Written::JoinedTags => {
                    let tags: Vec<_> = details.tags.iter().map(|tag| tag.as_str()).collect();
                    write(Ready::text(key, tags.join(",")));
                }
            }
        }
        details.write_rest(write);
    }

    fn metadata_entry(&self, prefix: &str, name: &str, value: &Json) -> Option<KeyValue> {
        // Every span shares both.
        let key: Arc<str> = format!("{prefix}{name}").into();
        let mut attribute = KeyValue::new(key.clone(), entry(value)?);
        // In some dialects the key of metadata is the key of an id.
        if let Some(redaction) = &self.redaction {
            if redaction.policy_of_id(&key).is_some()
                && redaction.redact(&mut attribute, None, None) == Redacted::Omitted
            {
                return None;
            }
        }
        Some(attribute)
    }

    /// Which id a span's author means by an attribute with this key.
    pub(crate) fn role(&self, key: &str) -> Option<(Role, &'static str)> {
        let rule = self.dialect.rule(key)?;
        Some((rule.role()?, rule.key))
    }

    /// Whether an attribute with this key is written from the scope.
    pub(crate) fn writes(&self, key: &str) -> bool {
        self.dialect.rules().iter().any(|rule| rule.is_of(key))
    }

    /// Whether an id is written under this key.
    fn is_taken(&self, key: &str, scope: &Scope) -> bool {
        let key = match key {
            USER_HASH if self.hashes(Role::User) => USER_ID,
            key => key,
        };
        self.role(key)
            .is_some_and(|(role, _)| scope.get(role).is_some())
    }
}

/// OpenInference's key of an id, or OpenTelemetry's key of a hashed user id.
#[inline(always)]
fn key_of(role: Role, hashed: bool) -> &'static str {
    match role {
        Role::Session => SESSION_ID,
        Role::User if hashed => USER_HASH,
        Role::User => USER_ID,
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

/// A scope as the attributes of `format`.
pub(crate) fn write_scope(
    scope: &Scope,
    format: Option<&Arc<Format>>,
    write: &mut impl FnMut(KeyValue),
) {
    write_ids(scope, format, write);
    scope.details().read(|details| {
        for ready in details.ready(format).iter() {
            // In some dialects an id is metadata with a name of its own.
            if !format.is_some_and(|format| format.is_taken(ready.key(), scope)) {
                write(ready.attribute());
            }
        }
    });
}

/// The same, of values that are no scope's.
#[cfg(feature = "logs")]
pub(crate) fn write_values(
    values: &Session,
    format: Option<&Arc<Format>>,
    write: &mut impl FnMut(KeyValue),
) {
    let scope = Scope::nested(None, values.into());
    write_scope(&scope, format, write);
}

/// The same, of values whose details are redacted already.
pub(crate) fn write_redacted(
    values: &Session,
    format: Option<&Arc<Format>>,
    write: &mut impl FnMut(KeyValue),
) {
    let scope = Scope::nested(None, values.into());
    write_ids(&scope, format, write);
    scope.details().read(|details| {
        let mut write = |ready: Ready| {
            if !format.is_some_and(|format| format.is_taken(ready.key(), &scope)) {
                write(ready.attribute());
            }
        };
        match format {
            None => details.write(&mut write),
            Some(format) => format.write_details(details, &mut write),
        }
    });
}

/// The ids of a scope, as the attributes of `format`.
#[inline(always)]
pub(crate) fn write_ids(
    scope: &Scope,
    format: Option<&Arc<Format>>,
    write: &mut impl FnMut(KeyValue),
) {
    let (id, user_id) = scope.ids();
    match format {
        None => {
            if let Some(id) = id {
                write(attributes::attribute(SESSION_ID, id));
            }
            if let Some(id) = user_id {
                write(attributes::attribute(USER_ID, id));
            }
        }
        Some(format) => match &format.redaction {
            Some(redaction) if format.is_openinference => {
                if let Some(attribute) = id.and_then(|id| redaction.written(Role::Session, &id)) {
                    write(attribute);
                }
                if let Some(attribute) = user_id.and_then(|id| redaction.written(Role::User, &id)) {
                    write(attribute);
                }
            }
            _ => format.write_in_dialect(id, user_id, write),
        },
    }
}
