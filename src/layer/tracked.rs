//! Tracked spans: the layer attaches their scope whenever they are entered, because the OpenTelemetry layer doesn't know
//! them. Either they are filtered out for that layer, or there is no such layer.

use crate::base::error::ErrorKind;
use crate::base::{diagnostic, setup};
use crate::layer::spans::{LayerState, SessionExtension, SpanKey, tracked_scope};
use crate::scope::bridge::PendingSpan;
use crate::scope::context::Attached;
use crate::scope::{Scope, context};
use crate::session::Session;
use opentelemetry::Context as OtelContext;
use opentelemetry::trace::TraceContextExt;
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tracing::span::{Attributes, Id};
use tracing::{Dispatch, Subscriber};
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// The callbacks for tracked spans.
impl LayerState {
    /// Tracks a new span that no OpenTelemetry layer receives.
    pub(crate) fn track_new_span<S>(&self, attrs: &Attributes<'_>, id: &Id, ctx: &Context<'_, S>)
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        let metadata = attrs.metadata();
        if let Some(fields) = self.openers.names.opener_fields(metadata) {
            let (set, _) = self.openers.read(fields, attrs);
            let outer = self.inherited(attrs);
            if let Some(PendingSpan { scope, .. }) = self.openers.open(fields, metadata, set, outer)
            {
                return self.track_in(scope, true, id, ctx);
            }
        }
        self.track_inherited(attrs, id, ctx);
    }

    /// Tracks a new span that opens no scope, if it needs it.
    pub(crate) fn track_inherited<S>(&self, attrs: &Attributes<'_>, id: &Id, ctx: &Context<'_, S>)
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        if let Some(scope) = Self::needed(self.inherited(attrs), attrs) {
            self.track_in(scope, false, id, ctx);
        }
    }

    /// The scope that a new span inherits from its parent.
    fn inherited(&self, attrs: &Attributes<'_>) -> Option<Arc<Scope>> {
        let outer = match attrs.parent() {
            Some(parent) => self.subscriber.scope_of(parent),
            None if attrs.is_contextual() => Scope::current(),
            None => None,
        };
        outer.or_else(Scope::global_default)
    }

    /// The scope to track a span in, that inherits `inherited`.
    pub(crate) fn needed(
        inherited: Option<Arc<Scope>>,
        attrs: &Attributes<'_>,
    ) -> Option<Arc<Scope>> {
        // A span with another parent must not inherit the scope that is current where it is entered.
        inherited.or_else(|| (!attrs.is_contextual()).then(Scope::empty))
    }

    /// Tracks a span in `scope`, which it has opened or inherits.
    fn track_in<S>(&self, scope: Arc<Scope>, has_opened: bool, id: &Id, ctx: &Context<'_, S>)
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        let Some(span) = ctx.span(id) else { return };
        let mut extensions = span.extensions_mut();
        // Another `SessionLayer` of the subscriber has put its own there.
        if extensions.get_mut::<SessionExtension>().is_none() {
            let opened = has_opened.then(|| scope.clone());
            extensions.insert(SessionExtension::tracked(self.key(id), scope, opened));
        }
    }

    /// The scope of a span that the OpenTelemetry layer hasn't received.
    pub(crate) fn scope_of_tracked(&self, id: &Id) -> Option<Arc<Scope>> {
        // While the tracer isn't known, a span may be tracked that the OpenTelemetry layer has received.
        let is_unknown = |_: &Arc<Scope>| self.subscriber.otel_context(id).is_none();
        tracked_scope(self.key(id)).filter(is_unknown)
    }

    pub(crate) fn track_enter(&self, id: &Id) {
        self.subscriber.flush_diagnostics();
        let scope = tracked_scope(self.key(id));
        let is_checked = scope.is_some()
            && self.setup.beside.is_running()
            && !(setup::has_processor() && self.is_after_opentelemetry_layer(id));
        push(EnteredSpan {
            span: self.key(id),
            _guard: scope.filter(|it| !is_current(it)).map(Scope::attach),
            is_checked,
        });
    }

    pub(crate) fn track_exit(&self, id: &Id) {
        // Dropped after the stack is released: detaching a `Context` may drop a span, which runs foreign code.
        let left = pop(self.key(id));
        if left.is_some_and(|left| left.is_checked) {
            self.look_for_opentelemetry_layer(id);
        }
    }

    /// Enters a span if it is tracked.
    pub(crate) fn enter_if_tracked(&self, id: &Id) {
        if tracked_scope(self.key(id)).is_some() {
            self.track_enter(id);
        }
    }

    /// Whether an OpenTelemetry layer beside this layer has entered the span before this one. With a span processor, the
    /// setup is complete then: the processor reads the attached scope.
    #[cold]
    fn is_after_opentelemetry_layer(&self, id: &Id) -> bool {
        let span_id = |cx: &OtelContext| cx.span().span_context().span_id();
        let own = self.subscriber.otel_context(id).as_ref().map(span_id);
        let is_after = own.is_some() && own == context::map_current(span_id);
        if is_after {
            self.setup.beside.finish(None);
        }
        is_after
    }

    /// An OpenTelemetry layer beside this one has started the span when it was entered, so getting its `Context` starts
    /// nothing.
    #[cold]
    fn look_for_opentelemetry_layer(&self, id: &Id) {
        if self.subscriber.otel_context(id).is_none() {
            self.setup.beside.span_is_unknown();
        } else if self.setup.is_one_of_two.load(Ordering::Relaxed) {
            self.setup.beside.finish(Some(diagnostic::TWO_LAYERS));
        } else {
            self.setup.beside.finish(Some(diagnostic::BESIDE));
        }
    }
}

fn is_current(scope: &Arc<Scope>) -> bool {
    Scope::current().is_some_and(|current| Arc::ptr_eq(&current, scope))
}

/// A tracked span that is entered on this thread.
struct EnteredSpan {
    span: SpanKey,
    /// Detaches the scope when it is dropped.
    _guard: Option<Attached>,
    /// The setup check continues when the span is exited.
    is_checked: bool,
}

thread_local! {
    /// The tracked spans that are entered on this thread, innermost last. The callbacks of enter and exit write and
    /// read it. Empty outside tracked spans.
    static ENTERED_SPANS: RefCell<Vec<EnteredSpan>> = const { RefCell::new(Vec::new()) };
}

fn push(entered: EnteredSpan) {
    // While the thread exits there is no stack, and the guard is dropped at once.
    let _exiting = ENTERED_SPANS.try_with(|stack| stack.borrow_mut().push(entered));
}

fn pop(span: SpanKey) -> Option<EnteredSpan> {
    let pop = |stack: &RefCell<Vec<EnteredSpan>>| {
        let mut stack = stack.borrow_mut();
        let is_it = |entered: &EnteredSpan| entered.span == span;
        stack.iter().rposition(is_it).map(|at| stack.remove(at))
    };
    ENTERED_SPANS.try_with(pop).ok().flatten()
}

/// Sets a session on the current span, if it is tracked and the innermost tracked span of this thread: until it is exited,
/// and again whenever it is entered.
pub(crate) fn set_on(
    state: &LayerState,
    dispatch: &Dispatch,
    span: &Id,
    session: &Session,
) -> Result<(), ErrorKind> {
    let key = state.key(span);
    let is_innermost = |stack: &RefCell<Vec<EnteredSpan>>| {
        let stack = stack.borrow();
        let is_of_layer = |entered: &&EnteredSpan| entered.span.layer == key.layer;
        let innermost = stack.iter().rfind(is_of_layer);
        innermost.is_some_and(|entered| entered.span == key)
    };
    if !ENTERED_SPANS.try_with(is_innermost).unwrap_or(false) {
        return Err(ErrorKind::FilteredOut);
    }
    let outer = tracked_scope(key);
    // A session that is attached inside the span ends before the span does, and would shadow the new one until then.
    if outer.as_ref().is_some_and(|scope| !is_current(scope)) {
        return Err(ErrorKind::InsideValue);
    }
    let scope = Scope::nested(outer.or_else(Scope::current), session);
    state.replace_scope(dispatch, span, &scope);
    if let Some(entered) = pop(key) {
        push(EnteredSpan {
            _guard: Some(scope.attach()),
            ..entered
        });
    }
    Ok(())
}
