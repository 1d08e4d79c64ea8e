//! Scopes in spans that the OpenTelemetry layer does not know: where there is no such layer, and
//! where a filter hides a span from it.
//!
//! Such a span has no OpenTelemetry `Context` to carry its scope. So the scope stands in the span's
//! extensions, and is attached to the thread whenever the span is entered.

use crate::diagnostic;
use crate::handover::Opened;
use crate::opening::{Shared, SpanSession};
use crate::scope::{Scope, Values};
use opentelemetry::ContextGuard;
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tracing::span::{Attributes, Id, Record};
use tracing::{Dispatch, Subscriber};
use tracing_opentelemetry::get_otel_context;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// After so many spans in a scope, there is no OpenTelemetry layer beside us that we could find.
pub(crate) const ENOUGH_LOOKS: u8 = 8;

/// Each of these follows the callback of that name.
impl Shared {
    pub(crate) fn track_new_span<S>(&self, attrs: &Attributes<'_>, id: &Id, ctx: &Context<'_, S>)
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        let Some(span) = ctx.span(id) else { return };
        if span.extensions().get::<SpanSession>().is_some() {
            // The layer around the OpenTelemetry layer has it.
            return;
        }
        let outer = match attrs.parent() {
            Some(parent) => self.scope_of_span(parent),
            None if attrs.is_contextual() => Scope::current(),
            None => None,
        };
        let roles = self.names.roles(attrs.metadata());
        let (scope, opened) = if roles.open() {
            let Opened { scope, .. } = self.open(roles, attrs, outer);
            (scope.clone(), Some(scope))
        } else if let Some(scope) = outer.or_else(|| self.default.clone()) {
            (scope, None)
        } else if attrs.is_contextual() {
            return;
        } else {
            // Below a parent without a scope, or none: what is in force where it is entered, is not
            // in force in it.
            (Scope::nested(None, Values::default()), None)
        };
        let in_span = SpanSession {
            scope,
            opened,
            tracked: true,
            pending: None,
        };
        span.extensions_mut().replace(in_span);
    }

    pub(crate) fn track_record<S>(&self, id: &Id, values: &Record<'_>, ctx: &Context<'_, S>)
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        self.record(id, values, ctx);
        self.say_waiting();
    }

    pub(crate) fn track_enter<S>(&self, id: &Id, ctx: &Context<'_, S>)
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        self.say_waiting();
        let Some(span) = ctx.span(id) else { return };
        let scope = match span.extensions().get::<SpanSession>() {
            Some(in_span) if !in_span.tracked => return,
            Some(in_span) => Some(in_span.scope.clone()),
            None => None,
        };
        let in_scope = scope.is_some();
        let guard = scope.filter(|scope| !is_current(scope)).map(Scope::attach);
        push(Entered {
            layer: self.address(),
            span: id.clone(),
            _guard: guard,
            in_scope,
        });
    }

    pub(crate) fn track_exit(&self, id: &Id) {
        // Dropped after the stack has been let go: the end of a `Context` runs foreign code.
        let left = pop(self.address(), id);
        if left.is_some_and(|left| left.in_scope)
            && self.looks.load(Ordering::Relaxed) < ENOUGH_LOOKS
        {
            self.look_for_opentelemetry_layer(id);
        }
    }

    pub(crate) fn track_close(&self) {
        self.say_waiting();
    }

    /// A span that was entered has been started by the OpenTelemetry layer, if there is one beside
    /// us, so asking for it changes nothing.
    #[cold]
    fn look_for_opentelemetry_layer(&self, id: &Id) {
        self.looks.fetch_add(1, Ordering::Relaxed);
        if let Some(dispatch) = self.upgrade() {
            if get_otel_context(id, &dispatch).is_some() {
                self.looks.store(ENOUGH_LOOKS, Ordering::Relaxed);
                diagnostic::wait(diagnostic::BESIDE);
            }
        }
    }
}

fn is_current(scope: &Arc<Scope>) -> bool {
    Scope::current().is_some_and(|current| Arc::ptr_eq(&current, scope))
}

/// A span that is entered on this thread.
struct Entered {
    /// Subscribers number their spans alike, so the span's id alone does not tell it.
    layer: usize,
    span: Id,
    /// Ends the scope when it is dropped.
    _guard: Option<ContextGuard>,
    in_scope: bool,
}

thread_local! {
    static ENTERED: RefCell<Vec<Entered>> = const { RefCell::new(Vec::new()) };
}

fn push(entered: Entered) {
    // While the thread ends there is no stack any more, and the guard is dropped at once.
    let _ = ENTERED.try_with(|stack| stack.borrow_mut().push(entered));
}

fn pop(layer: usize, span: &Id) -> Option<Entered> {
    let pop = |stack: &RefCell<Vec<Entered>>| {
        let mut stack = stack.borrow_mut();
        let is_it = |entered: &Entered| entered.layer == layer && entered.span == *span;
        stack.iter().rposition(is_it).map(|at| stack.remove(at))
    };
    ENTERED.try_with(pop).ok().flatten()
}

/// Binds `scope` to a tracked span that is entered here: until it is left, and again whenever it is
/// entered. False if the innermost span that is entered here is another.
pub(crate) fn bind(shared: &Shared, dispatch: &Dispatch, span: &Id, scope: Arc<Scope>) -> bool {
    let layer = shared.address();
    let is_innermost = |stack: &RefCell<Vec<Entered>>| {
        let stack = stack.borrow();
        let innermost = stack.iter().rev().find(|entered| entered.layer == layer);
        innermost.is_some_and(|entered| entered.span == *span)
    };
    if !ENTERED.try_with(is_innermost).unwrap_or(false) {
        return false;
    }
    shared.rescope(dispatch, span, &scope);
    if let Some(entered) = pop(layer, span) {
        push(Entered {
            _guard: Some(scope.attach()),
            ..entered
        });
    }
    true
}
