//! How a scope becomes attributes: under which keys, and with which values redacted.

pub(crate) mod dialect;
pub(crate) mod exporter;
pub(crate) mod privacy;
pub(crate) mod redaction;
pub(crate) mod translator;

use crate::format::redaction::Redaction;
use crate::scope::Scope;
use crate::session::keys::{self as attributes, USER_HASH, ours};
use crate::session::{IdKind, Session};
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
    let ids = [
        (IdKind::Session, ours::SESSION_ID, &values.id),
        (IdKind::User, ours::USER_ID, &values.user_id),
    ];
    for (role, key, id) in ids {
        let Some(id) = id else { continue };
        let attribute = match redaction {
            None => Some(attributes::attribute(key, id)),
            Some(redaction) => redaction.attribute(role, id),
        };
        if let Some(attribute) = attribute {
            write(attribute);
        }
    }
}
