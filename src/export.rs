//! Encodes a session's values as attributes: OpenInference's on spans, and other backends' keys at the exporter.

pub(crate) mod dialect;
pub(crate) mod exporter;
pub(crate) mod privacy;
pub(crate) mod redaction;

pub use self::dialect::Dialect;
pub use self::exporter::SessionExporter;
pub use self::privacy::{IdPolicy, Privacy};

use crate::export::redaction::Redaction;
use crate::session::details::{Part, Parts};
use crate::session::keys::{ID, METADATA_FIELD, TAGS_FIELD, USER_HASH};
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

/// The fields of an opener that are syntax of this crate: they are exported in another form.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct OpenerFields {
    /// The values that the fields may set, now or later.
    pub(crate) declared: Parts,
    /// The fields `session.id` and `user.id` are among them.
    pub(crate) own_keys: Parts,
    /// The kind of id that a field `id` sets.
    pub(crate) id: Option<IdKind>,
    /// The field `id` sets the session only because of the default name of the span.
    pub(crate) is_implicit: bool,
    /// The span is one of `session!` or `user!`.
    pub(crate) is_of_macro: bool,
    /// The callsite. `None` until a span of it is an opener.
    pub(crate) metadata: Option<&'static Metadata<'static>>,
}

impl OpenerFields {
    /// Adds a field that sets an id.
    #[inline]
    pub(crate) fn add(&mut self, name: &str, kind: IdKind) {
        self.declared = self.declared.with(kind.part());
        if name == kind.key() {
            self.own_keys = self.own_keys.with(kind.part());
        } else if name == ID {
            self.id = Some(kind);
        }
    }

    /// Whether fields for metadata or tags are among them.
    pub(crate) fn have_details(&self) -> bool {
        self.declared.have(Part::Tags)
    }

    /// Whether this is a field for metadata or tags.
    pub(crate) fn have_detail(&self, field: &str) -> bool {
        let is_field = |span: &Metadata<'_>| span.fields().field(field).is_some();
        self.have_details() && is_detail(field) && self.metadata.is_some_and(is_field)
    }
}

/// Whether fields with this name are for metadata or tags, on openers.
pub(crate) fn is_detail(field: &str) -> bool {
    field == TAGS_FIELD || field.starts_with(METADATA_FIELD)
}
