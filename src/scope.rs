//! The values in force for a piece of work, and the `Context` that carries them.
//!
//! OpenTelemetry's [`Context`] is the carrier: child spans, samplers, log processors and
//! propagators all read it. [`Scope::of`] is the one answer to "which scope is in force under this
//! `Context`". It knows two places:
//!
//! - an [`Entry`] in the `Context`, put there by [`attach`] and inherited with the `Context`;
//! - [`BOUND`], for a span whose `Context` could not be given an entry: its parent was set from
//!   outside (`set_parent`, `parent:`), or the scope was set on it when it had started already.
//!   The spans below such a span do not have the entry either, so each of them is bound too.

use crate::session::{Id, Session};
use crate::shards::Shards;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceId};
use opentelemetry::{Context, ContextGuard};
use std::fmt;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

/// The values in force for a piece of work. Scopes nest, and each value is inherited on its own.
pub(crate) struct Scope {
    values: Values,
    /// Asked for a value that is declared here and not known yet. Kept only where there is one, so
    /// that scopes that follow one another form no chain.
    outer: Option<Arc<Scope>>,
}

/// One place per value that a scope can have.
#[derive(Default)]
pub(crate) struct Values {
    pub(crate) id: Value,
    pub(crate) user_id: Value,
}

#[derive(Default)]
pub(crate) enum Value {
    #[default]
    Unsaid,
    Fixed(Id),
    /// A field of the span that opens the scope: it may be recorded at any time.
    Late(Late),
    /// The value that is `Late` in that scope, declared here as well.
    LateOf(Arc<Scope>),
    /// Whatever the value is in that scope, which declares it.
    In(Arc<Scope>),
}

/// A value that may become known, or change, while scopes that inherit it are in use.
pub(crate) struct Late {
    first: OnceLock<Id>,
    /// Fields are hardly ever recorded twice: until then, reading takes no lock.
    latest: OnceLock<Box<RwLock<Id>>>,
}

impl Scope {
    /// The scope that says `values` inside `outer`.
    pub(crate) fn nested(outer: Option<Arc<Scope>>, values: Values) -> Arc<Self> {
        let values = match &outer {
            None => values,
            Some(outer) => Values {
                id: values.id.or_inherited(outer, Scope::id_value),
                user_id: values.user_id.or_inherited(outer, Scope::user_id_value),
            },
        };
        let mut scope = Self {
            values,
            outer: None,
        };
        if scope.awaits(Scope::id_value) || scope.awaits(Scope::user_id_value) {
            scope.outer = outer;
        }
        Arc::new(scope)
    }

    /// What this scope says itself, inside another one.
    pub(crate) fn moved_into(self: &Arc<Self>, outer: Option<Arc<Scope>>) -> Arc<Self> {
        let said = |value: &Value| match value {
            Value::Late(_) => Value::LateOf(self.clone()),
            _ => Value::Unsaid,
        };
        let values = Values {
            id: said(&self.values.id),
            user_id: said(&self.values.user_id),
        };
        Self::nested(outer, values)
    }

    pub(crate) fn id(&self) -> Option<Id> {
        self.get(Scope::id_value)
    }

    pub(crate) fn user_id(&self) -> Option<Id> {
        self.get(Scope::user_id_value)
    }

    pub(crate) fn id_value(&self) -> &Value {
        &self.values.id
    }

    pub(crate) fn user_id_value(&self) -> &Value {
        &self.values.user_id
    }

    #[inline]
    fn get(&self, value: impl Fn(&Scope) -> &Value) -> Option<Id> {
        // In a loop: spans that declare values can nest deeper than a stack is for.
        let mut scope = self;
        loop {
            let late = match value(scope) {
                Value::Unsaid => return None,
                Value::Fixed(id) => return Some(id.clone()),
                Value::In(declaring) => {
                    scope = declaring;
                    continue;
                }
                Value::LateOf(declared) => value(declared),
                late => late,
            };
            match late {
                Value::Late(late) if late.is_known() => return late.get(),
                _ => scope = scope.outer.as_deref()?,
            }
        }
    }

    fn awaits(&self, value: impl Fn(&Scope) -> &Value) -> bool {
        let late = match value(self) {
            Value::LateOf(scope) => value(scope),
            value => value,
        };
        matches!(late, Value::Late(late) if !late.is_known())
    }

    /// What is in force now, as a value.
    pub(crate) fn to_session(&self) -> Session {
        Session {
            id: self.id(),
            user_id: self.user_id(),
        }
    }

    /// The scope in force under `cx`.
    pub(crate) fn of(cx: &Context) -> Option<Arc<Scope>> {
        InForce::under(cx).scope
    }

    /// The scope in force here.
    pub(crate) fn current() -> Option<Arc<Scope>> {
        Context::map_current(Scope::of)
    }

    /// Whether this is the scope that spans inherit with `cx`.
    pub(crate) fn is_entry_of(self: &Arc<Self>, cx: &Context) -> bool {
        let is_this = |entry: &Entry| Arc::ptr_eq(&entry.scope, self);
        cx.get::<Entry>().is_some_and(is_this)
    }

    /// `cx` with this scope in force.
    pub(crate) fn entered(self: Arc<Self>, cx: &Context) -> Context {
        let under = cx.span().span_context().span_id();
        cx.with_value(Entry { scope: self, under })
    }

    /// Puts this scope in force on this thread, until the guard is dropped.
    pub(crate) fn attach(self: Arc<Self>) -> ContextGuard {
        Context::map_current(|cx| self.entered(cx)).attach()
    }
}

/// The scope in force under a `Context`, and where it was found.
pub(crate) struct InForce {
    pub(crate) scope: Option<Arc<Scope>>,
    /// It is the entry of the `Context`, and so that of every `Context` made from it.
    pub(crate) is_entry: bool,
}

impl InForce {
    #[inline]
    pub(crate) fn under(cx: &Context) -> Self {
        let entry = cx.get::<Entry>();
        let span = cx.span();
        let span = span.span_context();
        let is_inner = |entry: &Entry| entry.under == span.span_id();
        match (entry, bound_to(span)) {
            (entry, Some(scope)) if !entry.is_some_and(is_inner) => Self {
                scope: Some(scope),
                is_entry: false,
            },
            (entry, _) => Self {
                scope: entry.map(|entry| entry.scope.clone()),
                is_entry: entry.is_some(),
            },
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
    fn or_inherited(self, outer: &Arc<Scope>, value: impl Fn(&Scope) -> &Value) -> Self {
        match (self, value(outer)) {
            (Self::Unsaid, Self::Fixed(id)) => Self::Fixed(id.clone()),
            (Self::Unsaid, Self::Late(_) | Self::LateOf(_)) => Self::In(outer.clone()),
            (Self::Unsaid, Self::In(scope)) => Self::In(scope.clone()),
            (said, _) => said,
        }
    }
}

impl From<&Session> for Values {
    fn from(session: &Session) -> Self {
        let fixed = |id: &Option<Id>| id.clone().map_or(Value::Unsaid, Value::Fixed);
        Self {
            id: fixed(&session.id),
            user_id: fixed(&session.user_id),
        }
    }
}

impl From<Option<Id>> for Late {
    fn from(id: Option<Id>) -> Self {
        Self {
            first: id.map(OnceLock::from).unwrap_or_default(),
            latest: OnceLock::new(),
        }
    }
}

impl Late {
    fn is_known(&self) -> bool {
        self.first.get().is_some()
    }

    pub(crate) fn get(&self) -> Option<Id> {
        match self.latest.get() {
            None => self.first.get().cloned(),
            Some(latest) => Some(
                latest
                    .read()
                    .unwrap_or_else(PoisonError::into_inner)
                    .clone(),
            ),
        }
    }

    pub(crate) fn set(&self, id: Id) {
        if let Err(id) = self.first.set(id) {
            let latest = self
                .latest
                .get_or_init(|| Box::new(RwLock::new(id.clone())));
            *latest.write().unwrap_or_else(PoisonError::into_inner) = id;
        }
    }
}

/// A scope in a `Context`.
struct Entry {
    scope: Arc<Scope>,
    /// The span that was current where the scope was attached. Under that span the entry is the
    /// inner one, whatever is bound to the span; under a span below it, the entry was inherited,
    /// and what is bound to that span is the inner one.
    under: SpanId,
}

/// Whether a scope was attached inside the span of `cx`: it stands before whatever is bound there.
pub(crate) fn is_inside_span(cx: &Context) -> bool {
    let span = cx.span().span_context().span_id();
    span != SpanId::INVALID && cx.get::<Entry>().is_some_and(|entry| entry.under == span)
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
    let (trace, scope) = BOUND.get(key(span.span_id()))?;
    (trace == span.trace_id() && !span.is_remote()).then_some(scope)
}
