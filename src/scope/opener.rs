//! An opener: a span whose fields set values of a scope, and may be recorded until it closes.

use crate::session::details::Parts;
use crate::session::keys::{METADATA_FIELD, TAGS_FIELD};
use crate::session::{IdKind, Session};
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{OnceLock, RwLock};
use std::sync::{Arc, PoisonError};
use tracing::Metadata;

pub(crate) struct Opener {
    /// What the fields set when the span was made.
    pub(crate) set: Session,
    pub(crate) fields: OpenerFields,
    is_closed: AtomicBool,
    /// How often something was recorded.
    version: AtomicU64,
    recorded: RwLock<Recorded>,
    /// The count of the scopes inside.
    family: OnceLock<Arc<AtomicU64>>,
}

/// The fields of an opener: syntax of ours, that is exported in another form.
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
    /// `session.id`.
    pub(crate) session_id: bool,
    /// `user.id`.
    pub(crate) user_id: bool,
    /// `id`, of this role.
    pub(crate) id: Option<IdKind>,
}

#[derive(Default)]
struct Recorded {
    values: Session,
    /// Further counts: of the openers around this one. An opener has at most two scopes, so at most two.
    families: Vec<Arc<AtomicU64>>,
}

impl OpenerFields {
    /// Whether `session.id` or `user.id` is a field that holds the id.
    pub(crate) fn hold(&self, role: IdKind) -> bool {
        match role {
            IdKind::Session => self.ids.session_id,
            IdKind::User => self.ids.user_id,
        }
    }

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

impl Opener {
    pub(crate) fn new(set: Session, fields: OpenerFields) -> Arc<Self> {
        Arc::new(Self {
            set,
            fields,
            is_closed: AtomicBool::new(false),
            version: AtomicU64::new(0),
            recorded: RwLock::default(),
            family: OnceLock::new(),
        })
    }

    /// Calls `f` with what the fields have set by now.
    #[inline]
    pub(crate) fn with_values<T>(&self, f: impl FnOnce(&Session) -> T) -> T {
        match self.version.load(Ordering::Acquire) {
            0 => f(&self.set),
            _ => f(&self.latest()),
        }
    }

    #[cold]
    fn latest(&self) -> Session {
        let recorded = self.recorded.read().unwrap_or_else(PoisonError::into_inner);
        recorded.values.inside(&self.set)
    }

    /// Sets what was recorded at once: readers see all of it, or nothing.
    pub(crate) fn record(&self, record: Session) {
        if record.is_empty() {
            return;
        }
        let mut recorded = self
            .recorded
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        recorded.values = record.inside(&recorded.values);
        // Under the lock, after the values: a reader that sees the count sees the values.
        self.version.fetch_add(1, Ordering::Release);
        for family in self.family.get().into_iter().chain(&recorded.families) {
            family.fetch_add(1, Ordering::Release);
        }
    }

    /// Counts what is recorded for scopes that are inside others.
    pub(crate) fn join(&self, family: &Arc<AtomicU64>) {
        let mut recorded = self
            .recorded
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        recorded.families.push(family.clone());
    }

    /// The count for the scopes inside.
    pub(crate) fn family(&self) -> Arc<AtomicU64> {
        self.family.get_or_init(Arc::default).clone()
    }

    pub(crate) fn version(&self) -> &AtomicU64 {
        &self.version
    }

    /// Nothing is recorded any more.
    pub(crate) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }
}
