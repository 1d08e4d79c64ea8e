//! Encodes a session's values as attributes: OpenInference's on spans, and other backends' keys at the exporter.

pub(crate) mod dialect;
pub(crate) mod exporter;
pub(crate) mod privacy;
pub(crate) mod redaction;

pub use self::dialect::Dialect;
pub use self::exporter::SessionExporter;
pub use self::privacy::{IdPolicy, Privacy};

use crate::export::redaction::Redaction;
use crate::session::details::Parts;
use crate::session::keys::{METADATA_FIELD, TAGS_FIELD, USER_HASH};
use crate::session::{Id, IdKind, Session};
use opentelemetry::KeyValue;
use std::borrow::Cow;
use std::sync::Arc;
use tracing::Metadata;

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

/// The fields of one opener.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct OpenerFields {
    /// The values that they may set.
    pub(crate) declared: Parts,
    pub(crate) ids: IdFields,
    /// Fields for metadata or tags are among them.
    pub(crate) has_details: bool,
    pub(crate) metadata: Option<&'static Metadata<'static>>,
}

/// The fields that hold an id and have no meaning of their own.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct IdFields {
    /// `session.id` and `user.id`.
    pub(crate) with_own_key: Parts,
    /// `id`, of this kind.
    pub(crate) id: Option<IdKind>,
}

impl OpenerFields {
    /// Whether this is a field that holds metadata or tags.
    pub(crate) fn have_detail(&self, field: &str) -> bool {
        let is_field = |span: &Metadata<'_>| span.fields().field(field).is_some();
        self.has_details && is_detail(field) && self.metadata.is_some_and(is_field)
    }
}

/// Whether fields with this name hold metadata or tags, on openers.
pub(crate) fn is_detail(field: &str) -> bool {
    field == TAGS_FIELD || field.starts_with(METADATA_FIELD)
}
