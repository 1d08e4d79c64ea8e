//! The layer around the OpenTelemetry layer.

use crate::base::{diagnostic, setup, thread_context};
use crate::layer::openers::{SessionExtension, Shared};
use crate::layer::{reached, tracked};
use crate::scope::bridge::PendingSpan;
use crate::scope::{Scope, bridge};
use opentelemetry::Context as OtelContext;
use opentelemetry::trace::{SpanId, TraceContextExt};
use std::any::TypeId;
use std::sync::Arc;
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Dispatch, Event, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// An OpenTelemetry layer wrapped in a [`SessionLayer`](crate::SessionLayer): see
/// [`SessionLayer::wrap`](crate::SessionLayer::wrap).
///
/// ```
/// use tracing_session::{SessionLayer, layer::WrappedLayer};
///
/// fn around<L>(otel: L) -> WrappedLayer<L> {
///     SessionLayer::new().with_session_span("conversation").wrap(otel)
/// }
/// ```
#[derive(Debug)]
#[must_use = "a layer does nothing until a subscriber has it: `registry().with(layer)`"]
pub struct WrappedLayer<L> {
    shared: Arc<Shared>,
    inner: L,
}

impl<L> WrappedLayer<L> {
    pub(crate) fn new(shared: Arc<Shared>, inner: L) -> Self {
        Self { shared, inner }
    }

    /// Has the layer inside create a span that may open a scope, or whose parent that layer may not know.
    ///
    /// The OpenTelemetry layer takes the current `Context` as the parent of a contextual span. So an opener is
    /// handed to it as one, whatever its parent is, inside that parent's `Context` with the new scope.
    #[cold]
    fn new_span_in_scope<S>(&self, attrs: &Attributes<'_>, id: &Id, ctx: &Context<'_, S>)
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
        L: Layer<S>,
    {
        let metadata = attrs.metadata();
        let contextual = Attributes::new(metadata, attrs.values());
        let roles = self.shared.names.roles(metadata);
        if roles.open() {
            let (set, called_in) = self.shared.read(roles, attrs);
            let parent = self.parent_context(attrs, ctx, called_in);
            let outer = parent.as_ref().and_then(Scope::of);
            if let Some(opened) = self.shared.open(roles, metadata, set, outer) {
                let attrs = if parent.is_some() { &contextual } else { attrs };
                return self.new_opener(attrs, id, ctx, parent, opened);
            }
        }
        // To the OpenTelemetry layer, a child of a span that is filtered out is a root.
        let unknown = attrs.parent().filter(|parent| ctx.span(parent).is_none());
        let scope = unknown.and_then(|parent| self.shared.scope_of_span(parent));
        match scope.filter(|_| self.shared.check.is_activation_on()) {
            None => self.inner.on_new_span(attrs, id, ctx.clone()),
            Some(scope) => {
                let _attached = thread_context::attach(scope.entered(&OtelContext::new()));
                self.inner.on_new_span(&contextual, id, ctx.clone());
            }
        }
    }

    fn new_opener<S>(
        &self,
        attrs: &Attributes<'_>,
        id: &Id,
        ctx: &Context<'_, S>,
        parent: Option<OtelContext>,
        opened: PendingSpan,
    ) where
        S: Subscriber + for<'span> LookupSpan<'span>,
        L: Layer<S>,
    {
        let scope = opened.scope.clone();
        let offer = bridge::offer_ticket(opened);
        let attached = parent.map(|parent| thread_context::attach(scope.clone().entered(&parent)));
        self.inner.on_new_span(attrs, id, ctx.clone());
        drop(attached);
        let pending = offer.taken();
        let Some(span) = ctx.span(id) else { return };
        let is_tracked = pending.is_none() && self.shared.check.has_no_inner_layer();
        let in_span = SessionExtension {
            opened: Some(scope.clone()),
            _tracked: is_tracked.then(|| tracked::track(self.shared.key(id), scope.clone())),
            scope,
            pending,
        };
        let _replaced = span.extensions_mut().replace(in_span);
        self.shared.check.opener_created();
    }

    /// The parent `Context` of a new span. `None`: only the OpenTelemetry layer knows, behind `reload::Layer` or
    /// where context activation is off.
    fn parent_context<S>(
        &self,
        attrs: &Attributes<'_>,
        ctx: &Context<'_, S>,
        called_in: Option<OtelContext>,
    ) -> Option<OtelContext>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        if attrs.is_contextual() {
            return Some(called_in.unwrap_or_else(thread_context::get));
        }
        if !self.shared.check.is_activation_on() {
            return None;
        }
        match attrs.parent() {
            None => Some(OtelContext::new()),
            // Starts the parent, as the OpenTelemetry layer would.
            Some(parent) if ctx.span(parent).is_some() => self.shared.otel_context(parent),
            Some(parent) => {
                let parent = self.shared.scope_of_span(parent);
                let cx = OtelContext::new();
                Some(parent.map_or(cx.clone(), |scope| scope.entered(&cx)))
            }
        }
    }

    /// Enters a span, and checks the setup with it.
    #[cold]
    fn enter_and_check<S>(&self, id: &Id, ctx: &Context<'_, S>)
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
        L: Layer<S>,
    {
        let check = &self.shared.check;
        if check.has_no_inner_layer() {
            self.shared.track_enter(id);
            return self.inner.on_enter(id, ctx.clone());
        }
        self.shared.flush_diagnostics();
        let before = current_span();
        self.inner.on_enter(id, ctx.clone());
        let after = current_span();
        let is_activated = after.is_some() && (after != before || after == Some(SpanId::INVALID));
        let Some(span) = ctx.span(id) else { return };
        let is_taken = |opener: &SessionExtension| opener.pending.is_some();
        let is_taken = span.extensions().get::<SessionExtension>().map(is_taken);
        if !check.should_check(is_taken.is_some()) {
            return;
        }
        let is_ours = match is_taken {
            Some(true) => Some(true),
            // The tracer of this crate would have taken an opener.
            Some(false) => self.shared.otel_context(id).map(|_| false),
            None => self.shared.otel_context(id).as_ref().map(bridge::is_ours),
        };
        match is_ours {
            None => check.span_is_unknown(),
            Some(false) => {
                check.finish((!setup::has_processor()).then_some(diagnostic::NO_PROVIDER));
            }
            Some(true) if !is_activated => check.finish(Some(diagnostic::NO_ACTIVATION)),
            Some(true) if is_taken.is_some() => check.finish(None),
            Some(true) => check.tracer_is_ours(),
        }
    }
}

/// The span of OpenTelemetry's current `Context`. Where telemetry is suppressed it has no id.
fn current_span() -> Option<SpanId> {
    thread_context::map(|cx| {
        cx.has_active_span()
            .then(|| cx.span().span_context().span_id())
    })
    .flatten()
}

/// Each callback goes to the layer inside, whatever else is done.
impl<S, L> Layer<S> for WrappedLayer<L>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    L: Layer<S>,
{
    fn on_register_dispatch(&self, dispatch: &Dispatch) {
        self.inner.on_register_dispatch(dispatch);
        self.shared.on_register_dispatch(dispatch);
    }

    fn on_layer(&mut self, subscriber: &mut S) {
        self.inner.on_layer(subscriber);
        self.shared.on_layer::<S>();
        if self.inner.max_level_hint() == Some(LevelFilter::OFF) {
            self.shared.check.set_no_inner_layer();
        }
    }

    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        self.inner.register_callsite(metadata)
    }

    fn enabled(&self, metadata: &Metadata<'_>, ctx: Context<'_, S>) -> bool {
        self.inner.enabled(metadata, ctx)
    }

    fn on_new_span(&self, attrs: &Attributes<'_>, id: &Id, ctx: Context<'_, S>) {
        let may_open = self.shared.names.may_open(attrs.metadata());
        if may_open || attrs.parent().is_some() {
            self.new_span_in_scope(attrs, id, &ctx);
        } else {
            self.inner.on_new_span(attrs, id, ctx.clone());
        }
        if self.shared.check.has_no_inner_layer() {
            self.shared.track_new_span(attrs, id, &ctx);
        }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        self.inner.max_level_hint()
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, ctx: Context<'_, S>) {
        // First, so that the span knows the value by the time that it is set as an attribute.
        self.shared.record(id, values, &ctx);
        self.inner.on_record(id, values, ctx);
        self.shared.flush_diagnostics();
    }

    fn on_follows_from(&self, id: &Id, follows: &Id, ctx: Context<'_, S>) {
        self.inner.on_follows_from(id, follows, ctx);
    }

    fn event_enabled(&self, event: &Event<'_>, ctx: Context<'_, S>) -> bool {
        self.inner.event_enabled(event, ctx)
    }

    fn on_event(&self, event: &Event<'_>, ctx: Context<'_, S>) {
        self.inner.on_event(event, ctx);
    }

    fn on_enter(&self, id: &Id, ctx: Context<'_, S>) {
        if self.shared.check.is_running() {
            self.enter_and_check(id, &ctx);
        } else {
            self.inner.on_enter(id, ctx);
        }
    }

    fn on_exit(&self, id: &Id, ctx: Context<'_, S>) {
        if self.shared.check.has_no_inner_layer() && tracked::is_inside() {
            self.shared.track_exit(id);
        }
        self.inner.on_exit(id, ctx);
    }

    fn on_close(&self, id: Id, ctx: Context<'_, S>) {
        self.inner.on_close(id, ctx);
        self.shared.flush_diagnostics();
    }

    fn on_id_change(&self, old: &Id, new: &Id, ctx: Context<'_, S>) {
        self.inner.on_id_change(old, new, ctx);
    }

    // SAFETY: our own pointers are to `self` and to what it owns, and those of the layer inside are
    // valid by its own promise, as long as it lives: that is as long as `self` does.
    #[allow(unsafe_code)]
    unsafe fn downcast_raw(&self, id: TypeId) -> Option<*const ()> {
        reached(id, self, &self.shared).or_else(|| unsafe { self.inner.downcast_raw(id) })
    }
}
