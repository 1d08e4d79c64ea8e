//! How details are inherited from scope to scope.
//!
//! What is known when a scope is made is merged there, once. The fields of a span may be recorded at
//! any time: where some declare details, these and those of the scopes inside are merged when they
//! are asked for, and again only after something was recorded.

use crate::session::Session;
use crate::session::details::{Details, Parts, merged};
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{RwLock, shared};
use std::sync::{Arc, PoisonError};

/// The details in force in a scope.
#[derive(Clone)]
pub(crate) enum Inherited {
    Settled(Option<Arc<Details>>),
    Open(Arc<Open>),
}

/// What one scope says.
#[derive(Clone, Default)]
pub(crate) struct Said {
    pub(crate) details: Option<Arc<Details>>,
    pub(crate) cleared: Parts,
    /// Fields of a span declare details.
    pub(crate) declared: bool,
}

/// Details of which some may still be recorded.
pub(crate) struct Open {
    said: Option<Arc<Details>>,
    cleared: Parts,
    /// Of the span that opens the scope. `None`: it is one around that declares some.
    recorded: Option<Arc<Recorded>>,
    around: Inherited,
    /// Attributes of one's own are among the details. They cannot be recorded.
    has_attributes: bool,
    merged: RwLock<Option<Merged>>,
}

shared! {
    /// Goes up whenever something is recorded, anywhere. Until then, what was merged is still right, and
    /// nobody has to look at the scopes around.
    static RECORDED: AtomicU64 = AtomicU64::new(0);
}

#[derive(Default)]
struct Recorded {
    any: AtomicBool,
    details: RwLock<Option<Arc<Details>>>,
}

/// What was merged last, and of what.
struct Merged {
    /// When it was last known to be right, by `RECORDED`.
    at: u64,
    around: Option<Arc<Details>>,
    recorded: Option<Arc<Details>>,
    all: Option<Arc<Details>>,
}

impl Said {
    pub(crate) fn says_anything(&self) -> bool {
        self.details.is_some() || self.cleared != Parts::default()
    }
}

impl From<&Session> for Said {
    fn from(session: &Session) -> Self {
        Self {
            details: session.details.clone(),
            cleared: session.cleared,
            declared: false,
        }
    }
}

impl Default for Inherited {
    fn default() -> Self {
        Self::Settled(None)
    }
}

impl Inherited {
    /// What is in force inside `outer` where `said` is said.
    pub(crate) fn nested(outer: Option<&Inherited>, said: Said) -> Self {
        if !said.declared && !said.says_anything() {
            return outer.cloned().unwrap_or_default();
        }
        let nothing = Self::default();
        let outer = outer.unwrap_or(&nothing);
        let recorded = said.declared.then(Arc::default);
        outer.around(said.details, said.cleared, recorded)
    }

    fn around(
        &self,
        said: Option<Arc<Details>>,
        cleared: Parts,
        recorded: Option<Arc<Recorded>>,
    ) -> Self {
        match (self, recorded) {
            (Self::Settled(outer), None) => {
                Self::Settled(merged(outer.as_ref(), said.as_ref(), cleared))
            }
            (Self::Open(outer), None) if said.is_none() && cleared == Parts::default() => {
                Self::Open(outer.clone())
            }
            // One for both, so that scopes that follow one another form no chain.
            (Self::Open(outer), None) if outer.recorded.is_none() => {
                let said = merged(outer.said.as_ref(), said.as_ref(), cleared);
                outer.around.around(said, cleared.and(outer.cleared), None)
            }
            (outer, recorded) => Self::Open(Arc::new(Open {
                has_attributes: has_attributes(said.as_ref()) || outer.have_attributes(),
                said,
                cleared,
                recorded,
                around: outer.clone(),
                merged: RwLock::default(),
            })),
        }
    }

    /// What this scope says itself, inside another one.
    pub(crate) fn moved_into(&self, outer: Option<&Inherited>) -> Self {
        let nothing = Self::default();
        let outer = outer.unwrap_or(&nothing);
        match self {
            Self::Settled(_) => outer.clone(),
            Self::Open(open) => {
                outer.around(open.said.clone(), open.cleared, open.recorded.clone())
            }
        }
    }

    pub(crate) fn inherits(&self) -> bool {
        match self {
            Self::Settled(details) => details.is_some(),
            Self::Open(open) => !matches!(open.around, Self::Settled(None)),
        }
    }

    pub(crate) fn get(&self) -> Option<Arc<Details>> {
        match self {
            Self::Settled(details) => details.clone(),
            Self::Open(open) => open.get(),
        }
    }

    /// Calls `f` with the details, if there are any.
    #[inline(always)]
    pub(crate) fn read(&self, f: impl FnOnce(&Details)) {
        match self {
            Self::Settled(None) => {}
            Self::Settled(Some(details)) => f(details),
            Self::Open(open) => match open.only_said() {
                Some(said) => f(said),
                None => {
                    if let Some(details) = open.get() {
                        f(&details);
                    }
                }
            },
        }
    }

    /// Tells what was recorded on the span that opens the scope.
    pub(crate) fn record(&self, change: impl FnOnce(&mut Details)) {
        if let Self::Open(open) = self {
            if let Some(recorded) = &open.recorded {
                recorded.change(change);
            }
        }
    }

    #[inline]
    pub(crate) fn are_none(&self) -> bool {
        matches!(self, Self::Settled(None))
    }

    /// Whether attributes of one's own are among the details.
    pub(crate) fn have_attributes(&self) -> bool {
        match self {
            Self::Settled(details) => has_attributes(details.as_ref()),
            Self::Open(open) => open.has_attributes,
        }
    }
}

fn has_attributes(details: Option<&Arc<Details>>) -> bool {
    details.is_some_and(|details| !details.attributes.is_empty())
}

impl Open {
    /// What is said here, where that is all: nearly always.
    #[inline]
    fn only_said(&self) -> Option<&Details> {
        let is_recorded = |recorded: &Arc<Recorded>| recorded.any.load(Ordering::Acquire);
        match self.around {
            Inherited::Settled(None) if !self.recorded.as_ref().is_some_and(is_recorded) => {
                self.said.as_deref()
            }
            _ => None,
        }
    }

    #[cold]
    fn get(&self) -> Option<Arc<Details>> {
        // First, so that what is recorded meanwhile is looked at the next time.
        let now = RECORDED.load(Ordering::Acquire);
        // In a loop: spans that declare details can nest deeper than a stack is for.
        let mut chain = Vec::new();
        let mut open = self;
        let outermost = loop {
            if let Some(all) = open.merged_at(now) {
                break all;
            }
            chain.push(open);
            match &open.around {
                Inherited::Open(around) => open = around,
                Inherited::Settled(details) => break details.clone(),
            }
        };
        let within = |around, open: &&Open| open.within(around, now);
        chain.iter().rev().fold(outermost, within)
    }

    fn merged_at(&self, now: u64) -> Option<Option<Arc<Details>>> {
        let merged = self.merged.read().unwrap_or_else(PoisonError::into_inner);
        let merged = merged.as_ref().filter(|merged| merged.at == now)?;
        Some(merged.all.clone())
    }

    fn within(&self, around: Option<Arc<Details>>, now: u64) -> Option<Arc<Details>> {
        let recorded = self.recorded.as_ref().and_then(|recorded| recorded.get());
        let mut merged_before = self.merged.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(merged) = &mut *merged_before {
            if is_same(&merged.around, &around) && is_same(&merged.recorded, &recorded) {
                merged.at = merged.at.max(now);
                return merged.all.clone();
            }
        }
        let own = merged(self.said.as_ref(), recorded.as_ref(), Parts::default());
        let all = merged(around.as_ref(), own.as_ref(), self.cleared);
        *merged_before = Some(Merged {
            at: now,
            around,
            recorded,
            all: all.clone(),
        });
        all
    }
}

fn is_same(one: &Option<Arc<Details>>, other: &Option<Arc<Details>>) -> bool {
    one.as_ref().map(Arc::as_ptr) == other.as_ref().map(Arc::as_ptr)
}

/// In a loop, as in `get`.
impl Drop for Open {
    fn drop(&mut self) {
        let mut around = std::mem::take(&mut self.around);
        while let Inherited::Open(open) = around {
            around = match Arc::into_inner(open) {
                Some(mut open) => std::mem::take(&mut open.around),
                None => Inherited::default(),
            };
        }
    }
}

impl Recorded {
    fn get(&self) -> Option<Arc<Details>> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        self.details
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn change(&self, change: impl FnOnce(&mut Details)) {
        let mut details = self.details.write().unwrap_or_else(PoisonError::into_inner);
        Details::change(&mut details, change);
        self.any.store(true, Ordering::Release);
        RECORDED.fetch_add(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    #[test]
    fn what_is_recorded_after_a_panic_under_the_lock_is_there() {
        let declared = Said {
            declared: true,
            ..Said::default()
        };
        let details = Inherited::nested(None, declared);
        let panics = || details.record(|_| panic!("under the lock"));
        assert!(catch_unwind(AssertUnwindSafe(panics)).is_err());
        assert!(details.get().is_none());
        details.record(|details| details.set_metadata("plan", true.into()));
        assert_eq!(details.get().unwrap().metadata.len(), 1);
    }
}
