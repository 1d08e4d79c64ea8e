//! The fields of openers: syntax of this crate, exported in another form.

use crate::session::IdKind;
use crate::session::details::Parts;
use crate::session::keys::{METADATA_FIELD, TAGS_FIELD};
use tracing::Metadata;

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
