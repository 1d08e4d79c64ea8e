//! The values in force for a piece of work, and the `Context` that carries them.
//!
//! OpenTelemetry's [`Context`] is the carrier: child spans, samplers, log processors and
//! propagators all read it. [`Scope::of`] is the one answer to "which scope is in force under this
//! `Context`". It knows two places:
//!
//! - an [`Entry`] in the `Context`, put there by [`attach`] and inherited with the `Context`;
//! - [`BOUND`], for a span whose `Context` could not be given an entry: its parent was set from
//!   outside (`set_parent`, `parent:`), or the scope was set on it when it had started already.
//!   What is started with the `Context` of such a span does not have the entry either, so it is
//!   bound too. Inside the first kind, [`attach_to_span`] makes up for the entry: see `tracking.rs`.
//!
//! [`attach`]: Scope::attach
//! [`attach_to_span`]: Scope::attach_to_span

use crate::details::{Details, Part, Parts};
use crate::inherited::{Inherited, Said};
use crate::session::{Id, Session};
use crate::shards::Shards;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceId};
use opentelemetry::{Context, ContextGuard};
use std::fmt;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

/// The values in force for a piece of work. Scopes nest, and each value is inherited on its own.
pub(crate) struct Scope {
    ids: Ids,
    details: Inherited,
    /// What was recorded on the span that opens the scope, when it was there already.
    recorded: OnceLock<Box<Recorded>>,
    /// Asked for a value that is declared here and not known yet. Kept only where there is one, so
    /// that scopes that follow one another form no chain.
    outer: Option<Arc<Scope>>,
}

/// Which of the ids that a scope can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Role {
    Session,
    User,
}

/// What one scope says.
#[derive(Default)]
pub(crate) struct Values {
    pub(crate) ids: Ids,
    pub(crate) details: Said,
}

/// One for each role.
#[derive(Default)]
pub(crate) struct Ids {
    pub(crate) id: Value,
    pub(crate) user_id: Value,
}

#[derive(Default)]
pub(crate) enum Value {
    #[default]
    Unsaid,
    /// There is none, whatever it is around.
    Cleared,
    Fixed(Id),
    /// A field of the span that opens the scope, and what it said from the start: it may be
    /// recorded at any time.
    Late(Option<Id>),
    /// The same, and until then there is none.
    LateCleared,
    /// The value that is `Late` in that scope, declared here as well.
    LateOf(Arc<Scope>),
    /// Whatever the value is in that scope, which declares it.
    In(Arc<Scope>),
}

#[derive(Default)]
struct Recorded {
    id: Latest,
    user_id: Latest,
}

/// What was recorded last.
#[derive(Default)]
struct Latest {
    first: OnceLock<Id>,
    /// Fields are hardly ever recorded twice: until then, reading takes no lock.
    later: OnceLock<RwLock<Id>>,
}

impl Scope {
    /// The scope that says `values` inside `outer`.
    pub(crate) fn nested(outer: Option<Arc<Scope>>, values: Values) -> Arc<Self> {
        let around = outer.as_ref().map(|outer| &outer.details);
        let details = Inherited::nested(around, values.details);
        Self::with_ids(outer, values.ids, details)
    }

    fn with_ids(outer: Option<Arc<Scope>>, ids: Ids, details: Inherited) -> Arc<Self> {
        let mut scope = Self {
            ids,
            details,
            recorded: OnceLock::new(),
            outer: None,
        };
        if let Some(outer) = outer {
            scope.ids.id.inherit(&outer, Role::Session);
            scope.ids.user_id.inherit(&outer, Role::User);
            if scope.awaits(Role::Session) || scope.awaits(Role::User) {
                scope.outer = Some(outer);
            }
        }
        Arc::new(scope)
    }

    /// The scope that says there is nothing: not even a default session.
    pub(crate) fn empty() -> Arc<Self> {
        Self::nested(None, Values::default())
    }

    /// What this scope says itself, inside another one.
    pub(crate) fn moved_into(self: &Arc<Self>, outer: Option<Arc<Scope>>) -> Arc<Self> {
        if outer.is_none() && !self.inherits() {
            return self.clone();
        }
        let said = |role| match self.value(role) {
            Value::Late(_) | Value::LateCleared => Value::LateOf(self.clone()),
            _ => Value::Unsaid,
        };
        let ids = Ids {
            id: said(Role::Session),
            user_id: said(Role::User),
        };
        let around = outer.as_ref().map(|outer| &outer.details);
        let details = self.details.moved_into(around);
        Self::with_ids(outer, ids, details)
    }

    fn inherits(&self) -> bool {
        let is_own = |role| {
            use Value::{Late, LateCleared, Unsaid};
            matches!(self.value(role), Late(_) | LateCleared | Unsaid)
        };
        self.outer.is_some()
            || !is_own(Role::Session)
            || !is_own(Role::User)
            || self.details.inherits()
    }

    /// Tells what was recorded on the span that opens the scope.
    pub(crate) fn record(&self, role: Role, id: Id) {
        if let Value::Late(_) | Value::LateCleared = self.value(role) {
            self.recorded.get_or_init(Box::default).of(role).set(id);
        }
    }

    /// The same, of what is no id.
    pub(crate) fn record_detail(&self, change: impl FnOnce(&mut Details)) {
        self.details.record(change);
    }

    #[inline]
    pub(crate) fn id(&self) -> Option<Id> {
        self.get(Role::Session)
    }

    #[inline]
    pub(crate) fn user_id(&self) -> Option<Id> {
        self.get(Role::User)
    }

    #[inline]
    pub(crate) fn get(&self, role: Role) -> Option<Id> {
        match self.value(role) {
            Value::Unsaid | Value::Cleared => None,
            Value::Fixed(id) => Some(id.clone()),
            Value::Late(Some(id)) if self.recorded.get().is_none() => Some(id.clone()),
            Value::Late(_) | Value::LateCleared | Value::LateOf(_) | Value::In(_) => {
                self.look_up(role)
            }
        }
    }

    fn look_up(&self, role: Role) -> Option<Id> {
        // In a loop: spans that declare values can nest deeper than a stack is for.
        let mut scope = self;
        loop {
            match scope.value(role) {
                Value::Unsaid | Value::Cleared => return None,
                Value::Fixed(id) => return Some(id.clone()),
                Value::In(declaring) => scope = declaring,
                Value::Late(_) | Value::LateCleared | Value::LateOf(_) => match scope.late(role) {
                    Some(id) => return Some(id),
                    None if !scope.awaits(role) => return None,
                    None => scope = scope.outer.as_deref()?,
                },
            }
        }
    }

    /// Whether the value is that of the scope around, until one is recorded here.
    fn awaits(&self, role: Role) -> bool {
        match self.value(role) {
            Value::Late(_) => self.late(role).is_none(),
            Value::LateOf(scope) => scope.awaits(role),
            _ => false,
        }
    }

    /// What a value that is late here, or in the scope that this one was made of, is by now.
    fn late(&self, role: Role) -> Option<Id> {
        match self.value(role) {
            Value::Late(said) => self.recorded(role).or_else(|| said.clone()),
            Value::LateCleared => self.recorded(role),
            Value::LateOf(scope) => scope.late(role),
            _ => None,
        }
    }

    fn recorded(&self, role: Role) -> Option<Id> {
        self.recorded.get()?.of(role).get()
    }

    #[inline]
    fn value(&self, role: Role) -> &Value {
        match role {
            Role::Session => &self.ids.id,
            Role::User => &self.ids.user_id,
        }
    }

    #[inline]
    pub(crate) fn details(&self) -> &Inherited {
        &self.details
    }

    /// What is in force now, as a value.
    pub(crate) fn to_session(&self) -> Session {
        Session {
            id: self.id(),
            user_id: self.user_id(),
            details: self.details.get(),
            cleared: Parts::default(),
        }
    }

    /// The scope in force under `cx`.
    pub(crate) fn of(cx: &Context) -> Option<Arc<Scope>> {
        InForce::under(cx).scope()
    }

    /// The scope in force here.
    pub(crate) fn current() -> Option<Arc<Scope>> {
        Context::map_current(Scope::of)
    }

    /// `cx` with this scope in force.
    pub(crate) fn entered(self: Arc<Self>, cx: &Context) -> Context {
        let under = cx.span().span_context().span_id();
        cx.with_value(Entry { scope: self, under })
    }

    /// Puts this scope in force on this thread as that of the current span, whose own `Context` does
    /// not have it.
    pub(crate) fn attach_to_span(self: Arc<Self>) -> ContextGuard {
        let entry = Entry {
            scope: self,
            under: SpanId::INVALID,
        };
        Context::current_with_value(entry).attach()
    }

    /// Puts this scope in force on this thread, until the guard is dropped.
    pub(crate) fn attach(self: Arc<Self>) -> ContextGuard {
        Context::map_current(|cx| self.entered(cx)).attach()
    }
}

/// The scope in force under a `Context`, by where it was found.
pub(crate) enum InForce {
    Nothing,
    /// It is the entry of the `Context`, and so that of every `Context` made from it.
    Entry(Arc<Scope>),
    /// It is bound to the span of the `Context`.
    Bound(Arc<Scope>),
}

impl InForce {
    #[inline]
    pub(crate) fn under(cx: &Context) -> Self {
        let entry = cx.get::<Entry>();
        let span = cx.span();
        let span = span.span_context();
        if let Some(scope) = bound_to(span) {
            let is_entry =
                |entry: &Entry| entry.under == span.span_id() || Arc::ptr_eq(&entry.scope, &scope);
            if !entry.is_some_and(is_entry) {
                return Self::Bound(scope);
            }
        }
        match entry {
            None => Self::Nothing,
            Some(entry) => Self::Entry(entry.scope.clone()),
        }
    }

    #[inline]
    pub(crate) fn scope(self) -> Option<Arc<Scope>> {
        match self {
            Self::Nothing => None,
            Self::Entry(scope) | Self::Bound(scope) => Some(scope),
        }
    }
}

/// In a loop, as in `get`.
impl Drop for Scope {
    fn drop(&mut self) {
        let mut next = self.outer.take();
        while let Some(mut scope) = next.and_then(Arc::into_inner) {
            next = scope.outer.take();
        }
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_session().fmt(f)
    }
}

impl Value {
    #[inline]
    fn inherit(&mut self, outer: &Arc<Scope>, role: Role) {
        if let Self::Unsaid = self {
            *self = match outer.value(role) {
                Self::Unsaid => Self::Unsaid,
                Self::Fixed(id) => Self::Fixed(id.clone()),
                Self::Cleared => Self::Cleared,
                Self::Late(_) | Self::LateCleared | Self::LateOf(_) => Self::In(outer.clone()),
                Self::In(scope) => Self::In(scope.clone()),
            };
        }
    }
}

impl From<&Session> for Values {
    fn from(session: &Session) -> Self {
        let fixed = |id: &Option<Id>, part| match id {
            Some(id) => Value::Fixed(id.clone()),
            None if session.cleared.have(part) => Value::Cleared,
            None => Value::Unsaid,
        };
        Self {
            ids: Ids {
                id: fixed(&session.id, Part::Session),
                user_id: fixed(&session.user_id, Part::User),
            },
            details: session.into(),
        }
    }
}

impl Recorded {
    fn of(&self, role: Role) -> &Latest {
        match role {
            Role::Session => &self.id,
            Role::User => &self.user_id,
        }
    }
}

impl Latest {
    fn get(&self) -> Option<Id> {
        match self.later.get() {
            None => self.first.get().cloned(),
            Some(later) => Some(later.read().unwrap_or_else(PoisonError::into_inner).clone()),
        }
    }

    fn set(&self, id: Id) {
        if let Err(id) = self.first.set(id) {
            let later = self.later.get_or_init(|| RwLock::new(id.clone()));
            *later.write().unwrap_or_else(PoisonError::into_inner) = id;
        }
    }
}

/// A scope in a `Context`.
struct Entry {
    scope: Arc<Scope>,
    /// The span that was current where the scope was attached, if it was attached inside it. Under
    /// that span the entry is the inner one, whatever is bound to the span; under a span below it,
    /// the entry was inherited, and what is bound to that span is the inner one.
    under: SpanId,
}

/// Whether a scope was attached inside the span of `cx`: it stands before whatever is bound there.
pub(crate) fn is_inside_span(cx: &Context) -> bool {
    let span = cx.span().span_context().span_id();
    span != SpanId::INVALID && cx.get::<Entry>().is_some_and(|entry| entry.under == span)
}

/// The scope that headers brought into `cx`, which was extracted from them on top of `outer`.
pub(crate) fn brought(cx: &Context, outer: &Context) -> Option<Arc<Scope>> {
    let entry = cx.get::<Entry>()?;
    let is_new = Scope::of(outer).is_none_or(|outer| !Arc::ptr_eq(&outer, &entry.scope));
    is_new.then(|| entry.scope.clone())
}

/// `cx`, which was extracted from headers on top of `outer`, with what is in force under `outer`:
/// `otherwise`, where that is nothing.
pub(crate) fn put_back(cx: Context, outer: &Context, otherwise: Option<Arc<Scope>>) -> Context {
    let in_force = |cx| Scope::of(cx).as_ref().map(Arc::as_ptr);
    if in_force(&cx) == in_force(outer) {
        return cx;
    }
    let (scope, under) = match (InForce::under(outer), outer.get::<Entry>()) {
        (InForce::Entry(scope), Some(entry)) => (scope, entry.under),
        // It is that of the span, and so it gives way to what is bound to the span later.
        (InForce::Bound(scope), _) => (scope, SpanId::INVALID),
        _ => (otherwise.unwrap_or_else(Scope::empty), SpanId::INVALID),
    };
    cx.with_value(Entry { scope, under })
}

/// Scopes of spans by span id, each with its trace id to tell a chance meeting of ids.
static BOUND: Shards<(TraceId, Arc<Scope>)> = Shards::new();

fn key(span: SpanId) -> u64 {
    u64::from_ne_bytes(span.to_bytes())
}

/// Binds `scope` to a span, until [`unbind`].
pub(crate) fn bind(span: &SpanContext, scope: Arc<Scope>) {
    BOUND.insert(key(span.span_id()), (span.trace_id(), scope));
}

pub(crate) fn unbind(span: &SpanContext) {
    BOUND.remove(key(span.span_id()));
}

/// A span context that came from outside is not asked for, even if the id is that of a span here:
/// the sender may be anybody, and what may come in with a request is not for us to decide.
#[inline]
fn bound_to(span: &SpanContext) -> Option<Arc<Scope>> {
    BOUND.read(key(span.span_id()), |(trace, scope)| {
        (*trace == span.trace_id() && !span.is_remote()).then(|| scope.clone())
    })
}
