//! Encodes a session's values as attributes: OpenInference's on spans, and other backends' keys at the exporter.

pub(crate) mod dialect;
pub(crate) mod exporter;
pub(crate) mod fields;
pub(crate) mod privacy;
pub(crate) mod redaction;
pub(crate) mod translator;

use crate::format::redaction::Redaction;
use crate::session::keys::USER_HASH;
use crate::session::{Id, IdKind, Session};
use opentelemetry::KeyValue;
use std::borrow::Cow;
use std::sync::Arc;

/// Writes a session's values as OpenInference's attributes, redacted.
#[inline(always)]
pub(crate) fn encode(
    values: &Session,
    redaction: Option<&Arc<Redaction>>,
    write: &mut impl FnMut(KeyValue),
) {
    encode_ids(values, redaction, write);
    if let Some(details) = &values.details {
        let encoded = match redaction {
            None => Cow::Borrowed(details.encoded()),
            Some(redaction) => redaction.encoded(details),
        };
        // A session extracted from headers can have an attribute `user.hash`.
        let is_hashed = redaction.is_some() && values.user_id.is_some();
        for attribute in encoded.iter() {
            if !(is_hashed && attribute.key.as_str() == USER_HASH) {
                write(attribute.clone());
            }
        }
    }
}

/// Writes a session's ids as OpenInference's attributes, redacted.
#[inline(always)]
pub(crate) fn encode_ids(
    values: &Session,
    redaction: Option<&Arc<Redaction>>,
    write: &mut impl FnMut(KeyValue),
) {
    for kind in IdKind::BOTH {
        let Some(id) = kind.id(values) else { continue };
        if let Some(attribute) = encode_id(kind, id, redaction) {
            write(attribute);
        }
    }
}

/// An id as an attribute. `None`: it is not exported.
#[inline(always)]
pub(crate) fn encode_id(
    kind: IdKind,
    id: &Id,
    redaction: Option<&Arc<Redaction>>,
) -> Option<KeyValue> {
    match redaction {
        None => Some(KeyValue::new(kind.key(), id.shared())),
        Some(redaction) => redaction.encode_id(kind, id),
    }
}
