//! Openers, the spans whose fields set a session or user. Fields may be recorded until the span closes.

use crate::base::diagnostic;
use crate::base::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::base::sync::{OnceLock, RwLock};
use crate::export::OpenerFields;
use crate::session::keys::Parts;
use crate::session::{IdKind, Session};
use std::sync::{Arc, PoisonError};

pub(crate) struct Opener {
    /// The values that the fields set when the span was created.
    pub(crate) set: Session,
    pub(crate) fields: OpenerFields,
    is_closed: AtomicBool,
    /// Counts the records.
    version: AtomicU64,
    /// `None` until something is recorded.
    recorded: RwLock<Option<Box<Recorded>>>,
    /// The ids that the span started with. Empty until the span starts.
    started_with: OnceLock<Parts>,
    /// The span is exported with an id that a later one replaced for its descendants.
    has_kept_id: AtomicBool,
    /// Counts the records too, for live scopes inside this one. Empty until there is such a scope.
    family: OnceLock<Arc<AtomicU64>>,
}

#[derive(Default)]
struct Recorded {
    values: Session,
    /// The counters of outer openers. There are several if several futures adopt the span, because each one opens
    /// another scope.
    families: Vec<Arc<AtomicU64>>,
}

impl Opener {
    pub(crate) fn new(set: Session, fields: OpenerFields) -> Arc<Self> {
        Arc::new(Self {
            set,
            fields,
            is_closed: AtomicBool::new(false),
            version: AtomicU64::new(0),
            recorded: RwLock::default(),
            started_with: OnceLock::new(),
            has_kept_id: AtomicBool::new(false),
            family: OnceLock::new(),
        })
    }

    /// Calls `f` with the values that the fields have set by now.
    #[inline]
    pub(crate) fn with_values<T>(&self, f: impl FnOnce(&Session) -> T) -> T {
        match self.version() {
            0 => f(&self.set),
            _ => f(&self.latest()),
        }
    }

    #[cold]
    fn latest(&self) -> Session {
        let recorded = self.recorded.read().unwrap_or_else(PoisonError::into_inner);
        match &*recorded {
            Some(recorded) => recorded.values.inside(&self.set),
            None => self.set.clone(),
        }
    }

    /// Sets the recorded values at once: readers see all of them or none.
    pub(crate) fn record(&self, record: Session) {
        if record.is_empty() {
            return;
        }
        let mut recorded = self
            .recorded
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let recorded = recorded.get_or_insert_default();
        recorded.values = record.inside(&recorded.values);
        // Count under the lock and after the values are set, so that a reader that sees the new count also sees the
        // values.
        self.version.fetch_add(1, Ordering::Release);
        for family in self.family.get().into_iter().chain(&recorded.families) {
            family.fetch_add(1, Ordering::Release);
        }
    }

    /// The span starts with these ids.
    pub(crate) fn start_with(&self, ids: Parts) {
        let _first = self.started_with.set(ids);
    }

    /// Emits a diagnostic if `set` changes an id that the span started with, because the span is exported with the
    /// first id.
    pub(crate) fn warn_of_kept_ids(&self, set: &Session) {
        let (Some(ids), Some(span)) = (self.started_with.get(), self.fields.metadata) else {
            return;
        };
        for kind in IdKind::BOTH.into_iter().filter(|it| ids.have(it.part())) {
            let is_same = self.with_values(|values| kind.id(values) == kind.id(set));
            if !is_same && kind.id(set).is_some() {
                self.has_kept_id.store(true, Ordering::Relaxed);
                diagnostic::id_kept(span, kind.key());
            }
        }
    }

    pub(crate) fn has_kept_id(&self) -> bool {
        self.has_kept_id.load(Ordering::Relaxed)
    }

    /// Also counts the records in `family`, the counter of an outer opener.
    pub(crate) fn join(&self, family: &Arc<AtomicU64>) {
        let mut recorded = self
            .recorded
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let families = &mut recorded.get_or_insert_default().families;
        // A counter that only this opener holds has no readers left.
        families.retain(|it| Arc::strong_count(it) > 1 && !Arc::ptr_eq(it, family));
        families.push(family.clone());
    }

    /// The counter for live scopes inside this one.
    pub(crate) fn family(&self) -> Arc<AtomicU64> {
        self.family.get_or_init(Arc::default).clone()
    }

    #[inline(always)]
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// The span closes, so no field can be recorded any more.
    pub(crate) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }
}
