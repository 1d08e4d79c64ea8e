//! How a scope becomes attributes: under which keys, and with which values redacted.

pub(crate) mod attributes;
pub(crate) mod dialect;
pub(crate) mod exporter;
pub(crate) mod fields;
pub(crate) mod privacy;
pub(crate) mod redaction;
pub(crate) mod translator;

use crate::format::attributes::{USER_HASH, ours};
use crate::format::redaction::Redaction;
use crate::scope::Scope;
use crate::session::{Id, Role, Session};
use opentelemetry::KeyValue;
use std::sync::Arc;

/// The values of a session as OpenInference's attributes.
#[inline(always)]
pub(crate) fn write_values(
    values: &Session,
    redaction: Option<&Arc<Redaction>>,
    write: &mut impl FnMut(KeyValue),
) {
    write_ids(values, redaction, write);
    if let Some(details) = &values.details {
        // An attribute of the session, from headers: the key may be written already.
        let is_hashed = redaction.is_some() && values.user_id.is_some();
        for ready in details.ready(redaction).iter() {
            let attribute = ready.attribute();
            if !(is_hashed && attribute.key.as_str() == USER_HASH) {
                write(attribute);
            }
        }
    }
}

/// The same, of the values that apply in a scope now.
#[inline(always)]
pub(crate) fn write_scope(
    scope: &Scope,
    redaction: Option<&Arc<Redaction>>,
    write: &mut impl FnMut(KeyValue),
) {
    scope.with_values(|values| write_values(values, redaction, write));
}

/// The ids of a session as OpenInference's attributes.
#[inline(always)]
pub(crate) fn write_ids(
    values: &Session,
    redaction: Option<&Arc<Redaction>>,
    write: &mut impl FnMut(KeyValue),
) {
    let ids = [(Role::Session, &values.id), (Role::User, &values.user_id)];
    for (role, id) in ids {
        let Some(id) = id else { continue };
        if let Some(attribute) = id_attribute(role, id, redaction) {
            write(attribute);
        }
    }
}

/// An id as an attribute. `None`: it is not exported.
#[inline(always)]
pub(crate) fn id_attribute(
    role: Role,
    id: &Id,
    redaction: Option<&Arc<Redaction>>,
) -> Option<KeyValue> {
    match (redaction, role) {
        (Some(redaction), role) => redaction.attribute(role, id),
        (None, Role::Session) => Some(attributes::attribute(ours::SESSION_ID, id)),
        (None, Role::User) => Some(attributes::attribute(ours::USER_ID, id)),
    }
}
