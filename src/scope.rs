//! A scope: the session that applies to a piece of work, with everything inherited merged in.
//!
//! A scope is a snapshot, made once. If fields of a span may still be recorded, it also has a live part: the [`Opener`]
//! of that span, or a link to an outer scope with one. `scope/context.rs` explains how a `Context` carries a scope.
//!
//! Locks: lock one scope at a time, and hold no lock while a scope is dropped.

pub(crate) mod bridge;
pub(crate) mod context;
pub(crate) mod opener;
pub(crate) mod polled;
pub(crate) mod thread;
pub(crate) mod tracking;

use crate::base::sync::atomic::{AtomicU64, Ordering};
use crate::base::sync::{Mutex, MutexGuard};
use crate::scope::opener::Opener;
use crate::session::keys::{Part, Parts};
use crate::session::{Id, IdKind, Session};
use std::fmt;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, PoisonError};

/// True after the first scope with a value or a field. [`Scope::make`] sets it, and the layer reads it.
static ANY_EXISTS: AtomicBool = AtomicBool::new(false);

pub(crate) struct Scope {
    /// Every value that applied when the scope was made.
    snapshot: Session,
    /// The scope is inside a turn of this session, whose trace has started already.
    in_turn: bool,
    /// An exact session is set here or in an outer scope.
    is_exact: bool,
    live: Option<Live>,
}

/// The part of a scope whose values may still change.
struct Live {
    /// The span that opened the scope. `None`: only outer scopes have fields that may be recorded.
    opener: Option<Arc<Opener>>,
    /// The values that may change, here or in an outer scope.
    parts: Parts,
    /// `None` in most live scopes, such as that of a session span in no other session.
    state: Mutex<Option<Box<State>>>,
    /// Counts the records of all openers that this scope inherits from, including its own opener. `None`: there is only
    /// its own opener, which has a counter itself. A shared counter, because openers that refer to each other would
    /// form a chain.
    family: Option<Arc<AtomicU64>>,
    /// The count at which the snapshot was made.
    version: u64,
}

/// The values that a live scope inherits, or sets without fields.
#[derive(Default)]
struct State {
    /// The values that can't change any more.
    fixed: Session,
    /// The outer scope. Its values apply if `fixed` lacks them.
    outer: Option<Arc<Scope>>,
    /// A cache: the last count that was requested, and the values at this count.
    latest: Option<(u64, Session)>,
}

impl Scope {
    /// The scope of `session` inside `outer`.
    pub(crate) fn nested(outer: Option<Arc<Scope>>, session: &Session) -> Arc<Self> {
        Self::make(outer, session, None, false)
    }

    /// The scope in which a turn of `session` starts.
    pub(crate) fn of_turn(outer: Option<Arc<Scope>>, session: &Session) -> Arc<Self> {
        Self::make(outer, session, None, true)
    }

    /// The scope of an opener inside `outer`.
    pub(crate) fn opened(
        outer: Option<Arc<Scope>>,
        opener: &Arc<Opener>,
        is_turn: bool,
    ) -> Arc<Self> {
        Self::make(outer, &opener.set, Some(opener), is_turn)
    }

    /// The scope of the same opener inside another scope: `set_parent` replaced the parent `Context`, or a future adopts the span.
    pub(crate) fn moved_into(self: &Arc<Self>, outer: Option<Arc<Scope>>) -> Arc<Self> {
        match self.opener() {
            Some(opener) => Self::opened(outer, opener, self.in_turn),
            None => self.clone(),
        }
    }

    /// The scope in which no value applies, not even the default session.
    pub(crate) fn empty() -> Arc<Self> {
        Self::nested(None, &Session::default())
    }

    /// Whether the process has ever set a session or user, or has had a span with a field for one.
    pub(crate) fn any_exists() -> bool {
        ANY_EXISTS.load(Ordering::Relaxed)
    }

    fn make(
        outer: Option<Arc<Scope>>,
        set: &Session,
        opener: Option<&Arc<Opener>>,
        is_turn: bool,
    ) -> Arc<Self> {
        if opener.is_some() || !set.is_empty() {
            ANY_EXISTS.store(true, Ordering::Relaxed);
        }
        let around = outer.as_deref();
        let in_turn = is_turn || around.is_some_and(|it| it.in_turn && it.keeps_session(set));
        let is_exact = set.is_exact || around.is_some_and(|it| it.is_exact);
        let outer = outer.filter(|_| !set.is_exact);
        let around = outer.as_deref();
        let inherited = around.map_or(Parts::default(), Scope::open_parts);
        let inherited = inherited.without(set.shadows());
        let declared = opener.map_or(Parts::default(), |it| it.fields.declared);
        let parts = declared.and(inherited);
        let (fixed, outer) = match outer {
            // Its own values are fixed. Inherited values may still be recorded in `outer`.
            Some(outer) if !parts.is_empty() && opener.is_none() => {
                (Some(set.clone()), Some(outer))
            }
            Some(outer) if !inherited.is_empty() => (None, Some(outer)),
            Some(outer) => (Some(outer.to_session()), None),
            None => (None, None),
        };
        let live = (!parts.is_empty()).then(|| Live::new(opener, parts, fixed.clone(), outer));
        let snapshot = match &live {
            Some(live) if live.family.is_some() || live.version != 0 => live.resolve(),
            // Nothing was recorded yet, and no inherited value can be recorded later.
            _ => match fixed {
                Some(fixed) => set.inside(&fixed).uncleared(),
                None => set.clone().uncleared(),
            },
        };
        Arc::new(Self {
            snapshot,
            in_turn,
            is_exact,
            live,
        })
    }

    /// Whether `set` leaves the session id as it is.
    fn keeps_session(&self, set: &Session) -> bool {
        match &set.id {
            Some(id) => self.with_values(|values| values.id.as_ref() == Some(id)),
            None => !set.shadows().have(Part::Session),
        }
    }

    pub(crate) fn opener(&self) -> Option<&Arc<Opener>> {
        self.live.as_ref()?.opener.as_ref()
    }

    /// Whether the opener of this scope set another session than it inherits. The default session is there to be replaced.
    pub(crate) fn replaces_session(&self) -> bool {
        let inherited = |it: &State| (it.fixed.id.clone(), it.outer.clone());
        let live = self.live.as_ref();
        let found = live.and_then(|live| live.state().as_deref().map(inherited));
        let id = found.and_then(|(fixed, outer)| fixed.or_else(|| outer?.id()));
        let is_other =
            |id: Id| !context::is_of_default(&id, IdKind::Session) && Some(id) != self.id();
        id.is_some_and(is_other)
    }

    /// The values that may still change.
    pub(crate) fn open_parts(&self) -> Parts {
        let Some(live) = &self.live else {
            return Parts::default();
        };
        live.skip_closed();
        match live.is_closed() && live.outer().is_none() {
            true => Parts::default(),
            false => live.parts,
        }
    }

    /// The span that opened the scope has closed, so its fields can't be recorded any more.
    pub(crate) fn close(&self) {
        if let Some(live) = &self.live {
            live.opener.iter().for_each(|it| it.close());
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
        // Call `f` in one place, so that it is inlined.
        f(values)
    }

    /// Every value that applies now.
    pub(crate) fn to_session(&self) -> Session {
        self.with_values(Session::clone)
    }

    pub(crate) fn is_exact(&self) -> bool {
        self.is_exact
    }

    /// Whether a session applied when the scope was made.
    pub(crate) fn began_with_id(&self) -> bool {
        self.snapshot.id.is_some()
    }

    #[inline]
    pub(crate) fn id(&self) -> Option<Id> {
        self.with_values(|values| values.id.clone())
    }

    /// Whether the values include an attribute of `Session::with_attribute` with this key.
    pub(crate) fn has_attribute(&self, key: &str) -> bool {
        let mut attributes = self.snapshot.details.iter().flat_map(|it| &it.attributes);
        attributes.any(|it| it.key.as_str() == key)
    }

    /// Whether the values include attributes of `Session::with_attribute`. No field can record one.
    #[inline]
    pub(crate) fn has_attributes(&self) -> bool {
        let details = self.snapshot.details.as_ref();
        details.is_some_and(|details| !details.attributes.is_empty())
    }
}

impl Live {
    fn new(
        opener: Option<&Arc<Opener>>,
        parts: Parts,
        fixed: Option<Session>,
        outer: Option<Arc<Scope>>,
    ) -> Self {
        let around = outer.as_ref().and_then(|outer| outer.live.as_ref());
        let family = around.map(Live::family_inside);
        if let (Some(opener), Some(family)) = (opener, &family) {
            opener.join(family);
        }
        let has_state = fixed.is_some() || outer.is_some();
        let state = State {
            fixed: fixed.unwrap_or_default(),
            outer,
            latest: None,
        };
        let mut live = Self {
            opener: opener.cloned(),
            parts,
            state: Mutex::new(has_state.then(|| Box::new(state))),
            family,
            version: 0,
        };
        live.skip_closed();
        // Read the count before the snapshot is made, so that a concurrent record makes the snapshot outdated.
        live.version = live.current_version();
        live
    }

    fn state(&self) -> MutexGuard<'_, Option<Box<State>>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn outer(&self) -> Option<Arc<Scope>> {
        self.state().as_ref()?.outer.clone()
    }

    /// Whether no field is recorded here any more. Outer scopes may still be open.
    fn is_closed(&self) -> bool {
        self.opener.as_ref().is_none_or(|it| it.is_closed())
    }

    /// The count for scopes inside this one.
    fn family_inside(&self) -> Arc<AtomicU64> {
        match (&self.family, &self.opener) {
            (Some(family), _) if self.outer().is_some() => family.clone(),
            (_, Some(opener)) => opener.family(),
            (family, None) => family.clone().unwrap_or_default(),
        }
    }

    /// Copies the values of closed outer scopes, and drops the links to them. Otherwise jobs that spawn each other
    /// would form an endless chain.
    fn skip_closed(&self) {
        if self.family.is_none() {
            return;
        }
        while let Some(outer) = self.outer() {
            let Some(around) = outer.live.as_ref().filter(|live| live.is_closed()) else {
                return;
            };
            let (own, further) = around.own_values();
            let mut state = self.state();
            // Another thread may have replaced `outer` already.
            let is_same = |it: &Arc<Scope>| Arc::ptr_eq(it, &outer);
            let same = state
                .as_mut()
                .filter(|it| it.outer.as_ref().is_some_and(is_same));
            if let Some(state) = same {
                state.fixed = state.fixed.inside(&own);
                state.outer = further;
            }
            // Release the lock before `outer` is dropped, which may drop a chain of scopes.
            drop(state);
        }
    }

    /// The values that are set here, and the outer scope. Read both under one lock, because `skip_closed` in another
    /// thread moves values between them.
    fn own_values(&self) -> (Session, Option<Arc<Scope>>) {
        let state = self.state();
        let (fixed, outer) = match &*state {
            Some(state) => (state.fixed.clone(), state.outer.clone()),
            None => Default::default(),
        };
        drop(state);
        match &self.opener {
            Some(opener) => (opener.with_values(|set| set.inside(&fixed)), outer),
            None => (fixed, outer),
        }
    }

    #[inline(always)]
    fn current_version(&self) -> u64 {
        match (&self.family, &self.opener) {
            (Some(family), _) => family.load(Ordering::Acquire),
            (None, opener) => opener.as_ref().map_or(0, |it| it.version()),
        }
    }

    /// Every value that applies now. The snapshot is outdated.
    #[cold]
    fn latest(&self) -> Session {
        let version = self.current_version();
        if let Some(latest) = self.latest_at(version) {
            return latest;
        }
        let latest = self.resolve();
        let mut state = self.state();
        state.get_or_insert_default().latest = Some((version, latest.clone()));
        latest
    }

    fn latest_at(&self, version: u64) -> Option<Session> {
        let state = self.state();
        let (at, latest) = state.as_ref()?.latest.as_ref()?;
        (*at == version).then(|| latest.clone())
    }

    /// Works out every value that applies now.
    fn resolve(&self) -> Session {
        let (mut values, mut next) = self.own_values();
        // A loop and no recursion, because spans can nest deeper than the stack.
        while let Some(scope) = next {
            let Some(live) = &scope.live else { break };
            let version = live.current_version();
            let known = match version == live.version {
                true => Some(scope.snapshot.clone()),
                false => live.latest_at(version),
            };
            let (outer, further) = match known {
                Some(known) => (known, None),
                None => live.own_values(),
            };
            values = values.inside(&outer);
            next = further;
        }
        values.uncleared()
    }
}

/// A loop and no recursion, because a chain can be longer than the stack.
impl Drop for Live {
    fn drop(&mut self) {
        let take_outer = |live: &mut Live| live.state().as_mut()?.outer.take();
        let mut next = take_outer(self);
        while let Some(mut scope) = next.and_then(Arc::into_inner) {
            next = scope.live.as_mut().and_then(take_outer);
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
