//! A scope: the session that applies to a piece of work, with everything inherited merged in.
//!
//! A scope is a snapshot, made once. Where fields of a span may still be recorded, it has one live part
//! beside the snapshot: the [`Opener`] of that span, or a link to the scope it inherits such values from.
//! How a `Context` carries a scope is in `in_force.rs`.

pub(crate) mod in_force;
pub(crate) mod opener;

use crate::scope::opener::Opener;
use crate::session::details::{Part, Parts};
use crate::session::{Id, Session};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Mutex, MutexGuard, RwLock};
use std::fmt;
use std::sync::{Arc, PoisonError};

pub(crate) struct Scope {
    /// Every value that applied when the scope was made.
    snapshot: Session,
    /// Inside a turn of this session: its trace has begun already.
    in_turn: bool,
    live: Option<Live>,
}

/// The part of a scope whose values may still change.
struct Live {
    /// The span that opened the scope.
    opener: Option<Arc<Opener>>,
    /// The values that may change, here or in a scope around.
    parts: Parts,
    inherited: Mutex<Inherited>,
    /// Counts the records of all openers that this scope inherits from, its own among them. `None`: its own
    /// is the only one, and counts by itself.
    family: Option<Arc<AtomicU64>>,
    /// The count that the snapshot was made at.
    version: u64,
    /// The values of the last count that somebody asked at.
    latest: RwLock<Option<Box<(u64, Session)>>>,
}

/// What a live scope inherits, or sets without fields.
#[derive(Default)]
struct Inherited {
    /// The values that can't change any more.
    fixed: Session,
    /// The scope around, whose values apply where `fixed` has none.
    outer: Option<Arc<Scope>>,
}

impl Scope {
    /// The scope of `session` inside `outer`.
    pub(crate) fn nested(outer: Option<Arc<Scope>>, session: &Session) -> Arc<Self> {
        Self::make(outer, session, None, false)
    }

    /// The scope in which a turn of `session` begins.
    pub(crate) fn of_turn(outer: Option<Arc<Scope>>, session: &Session) -> Arc<Self> {
        Self::make(outer, session, None, true)
    }

    /// The scope that a span opens inside `outer`.
    pub(crate) fn opened(
        outer: Option<Arc<Scope>>,
        opener: Arc<Opener>,
        is_turn: bool,
    ) -> Arc<Self> {
        Self::make(outer, &opener.set, Some(&opener), is_turn)
    }

    /// The scope in which no value applies: not even a default session.
    pub(crate) fn empty() -> Arc<Self> {
        Self::nested(None, &Session::default())
    }

    fn make(
        outer: Option<Arc<Scope>>,
        set: &Session,
        opener: Option<&Arc<Opener>>,
        is_turn: bool,
    ) -> Arc<Self> {
        let around = outer.as_deref();
        let in_turn = is_turn || around.is_some_and(|it| it.in_turn && it.keeps_session(set));
        let inherited = around.map_or(Parts::default(), Scope::open_parts);
        let inherited = inherited.without(set.shadows());
        let declared = opener.map_or(Parts::default(), |it| it.fields.declared);
        let parts = declared.and(inherited);
        if parts.is_empty() {
            let snapshot = match around {
                Some(outer) => outer.with_values(|values| set.inside(values)),
                None => set.clone(),
            };
            return Arc::new(Self {
                snapshot: snapshot.uncleared(),
                in_turn,
                live: None,
            });
        }
        let mut family = None;
        let inherited = match (outer, inherited.is_empty()) {
            (None, _) => Inherited::default(),
            (Some(outer), true) => Inherited {
                fixed: outer.to_session(),
                outer: None,
            },
            (Some(outer), false) => {
                family = outer.live.as_ref().map(|live| live.family_inside());
                Inherited {
                    fixed: Session::default(),
                    outer: Some(outer),
                }
            }
        };
        let mut live = Live {
            opener: opener.cloned(),
            parts,
            inherited: Mutex::new(inherited),
            family,
            version: 0,
            latest: RwLock::new(None),
        };
        match &live.opener {
            Some(opener) => live.family.iter().for_each(|family| opener.join(family)),
            // Inside a live scope: the values are all that it adds.
            None => live.inherited().fixed = set.clone(),
        }
        // A scope that declares nothing has no place of its own in the chain.
        live.skip_closed();
        // Before the values are read: what is recorded meanwhile makes the snapshot an old one.
        live.version = live.current_version();
        let snapshot = match &live.family {
            // Nothing was recorded yet, and nothing around can change.
            None if live.version == 0 => set.inside(&live.inherited().fixed).uncleared(),
            _ => live.resolve(),
        };
        Arc::new(Self {
            snapshot,
            in_turn,
            live: Some(live),
        })
    }

    /// The scope of the same opener inside another scope, where the parent `Context` was replaced.
    pub(crate) fn moved_into(self: &Arc<Self>, outer: Option<Arc<Scope>>) -> Arc<Self> {
        match self.opener() {
            Some(opener) => Self::opened(outer, opener.clone(), self.in_turn),
            None => self.clone(),
        }
    }

    /// Whether `set` names no other session.
    fn keeps_session(&self, set: &Session) -> bool {
        match &set.id {
            Some(id) => self.with_values(|values| values.id.as_ref() == Some(id)),
            None => !set.shadows().have(Part::Session),
        }
    }

    pub(crate) fn opener(&self) -> Option<&Arc<Opener>> {
        self.live.as_ref()?.opener.as_ref()
    }

    /// The values that may still change.
    fn open_parts(&self) -> Parts {
        let Some(live) = &self.live else {
            return Parts::default();
        };
        live.skip_closed();
        match live.is_closed() && live.inherited().outer.is_none() {
            true => Parts::default(),
            false => live.parts,
        }
    }

    /// Nothing is recorded any more on the span that opened the scope.
    pub(crate) fn close(&self) {
        if let Some(live) = &self.live {
            if let Some(opener) = &live.opener {
                opener.close();
            }
            live.skip_closed();
        }
    }

    /// Calls `f` with every value that applies now.
    #[inline(always)]
    pub(crate) fn with_values<T>(&self, f: impl FnOnce(&Session) -> T) -> T {
        let latest;
        let values = match &self.live {
            Some(live) if live.current_version() != live.version => {
                latest = live.latest();
                &latest
            }
            _ => &self.snapshot,
        };
        // In one place, so that it is inlined.
        f(values)
    }

    /// Every value that applies now.
    pub(crate) fn to_session(&self) -> Session {
        self.with_values(Session::clone)
    }

    #[inline]
    pub(crate) fn id(&self) -> Option<Id> {
        self.with_values(|values| values.id.clone())
    }

    /// Whether attributes of the application's own are among the values. No field can record one.
    #[inline]
    pub(crate) fn has_attributes(&self) -> bool {
        let details = self.snapshot.details.as_ref();
        details.is_some_and(|details| !details.attributes.is_empty())
    }
}

impl Live {
    fn inherited(&self) -> MutexGuard<'_, Inherited> {
        self.inherited
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nothing more is recorded here. The scopes around may be open.
    fn is_closed(&self) -> bool {
        let opener = self.opener.as_ref();
        opener.is_none_or(|it| it.is_closed())
    }

    /// The count for scopes inside this one.
    fn family_inside(&self) -> Arc<AtomicU64> {
        match (&self.family, &self.opener) {
            (Some(family), _) if self.inherited().outer.is_some() => family.clone(),
            (_, Some(opener)) => opener.family(),
            (family, None) => family.clone().unwrap_or_default(),
        }
    }

    /// Takes over the values of scopes around in which nothing is recorded any more, and lets go of them.
    /// So jobs that spawn one another form no chain.
    fn skip_closed(&self) {
        if self.family.is_none() {
            return;
        }
        // Never two locks at once: scopes are locked one by one.
        loop {
            let Some(outer) = self.inherited().outer.clone() else {
                return;
            };
            let Some(around) = outer.live.as_ref().filter(|live| live.is_closed()) else {
                return;
            };
            let (own, further) = around.own_values();
            let mut inherited = self.inherited();
            // Another thread may have been faster.
            let is_same = |it: &Arc<Scope>| Arc::ptr_eq(it, &outer);
            if inherited.outer.as_ref().is_some_and(is_same) {
                inherited.fixed = inherited.fixed.inside(&own);
                inherited.outer = further;
            }
            // The lock goes first, then `outer`, whose drop may end a chain.
            drop(inherited);
        }
    }

    /// What is set here, and the scope around. Read under one lock: another thread may be moving values from
    /// the one to the other.
    fn own_values(&self) -> (Session, Option<Arc<Scope>>) {
        let inherited = self.inherited();
        let (fixed, outer) = (inherited.fixed.clone(), inherited.outer.clone());
        drop(inherited);
        match &self.opener {
            Some(opener) => (opener.with_values(|set| set.inside(&fixed)), outer),
            None => (fixed, outer),
        }
    }

    #[inline]
    fn current_version(&self) -> u64 {
        let count = match (&self.family, &self.opener) {
            (Some(family), _) => family,
            (None, Some(opener)) => opener.version(),
            (None, None) => return 0,
        };
        count.load(Ordering::Acquire)
    }

    fn latest_at(&self, version: u64) -> Option<Session> {
        if version == self.version {
            return None;
        }
        let latest = self.latest.read().unwrap_or_else(PoisonError::into_inner);
        let latest = latest.as_ref().filter(|latest| latest.0 == version)?;
        Some(latest.1.clone())
    }

    /// Every value that applies now, where that is no longer the snapshot.
    #[cold]
    fn latest(&self) -> Session {
        let version = self.current_version();
        if let Some(latest) = self.latest_at(version) {
            return latest;
        }
        let latest = self.resolve();
        let mut kept = self.latest.write().unwrap_or_else(PoisonError::into_inner);
        *kept = Some(Box::new((version, latest.clone())));
        latest
    }

    /// Works out every value that applies now.
    fn resolve(&self) -> Session {
        let (mut values, mut next) = self.own_values();
        // In a loop: spans can nest deeper than the stack.
        while let Some(scope) = next {
            let Some(live) = &scope.live else { break };
            let version = live.current_version();
            if version == live.version {
                values = values.inside(&scope.snapshot);
                break;
            }
            if let Some(latest) = live.latest_at(version) {
                values = values.inside(&latest);
                break;
            }
            let (own, outer) = live.own_values();
            values = values.inside(&own);
            next = outer;
        }
        values.uncleared()
    }
}

/// In a loop: a chain can be longer than the stack.
impl Drop for Live {
    fn drop(&mut self) {
        let inherited = self.inherited.get_mut();
        let mut next = inherited
            .unwrap_or_else(PoisonError::into_inner)
            .outer
            .take();
        while let Some(mut scope) = next.and_then(Arc::into_inner) {
            next = scope
                .live
                .as_mut()
                .and_then(|live| live.inherited().outer.take());
        }
    }
}

/// Whether a turn of this session has begun in `scope`.
pub(crate) fn is_in_turn(scope: Option<&Scope>, session: Option<&Id>) -> bool {
    scope.is_some_and(|scope| scope.in_turn && scope.id().as_ref() == session)
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_session().fmt(f)
    }
}
