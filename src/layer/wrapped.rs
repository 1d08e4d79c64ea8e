//! The wrapper around the OpenTelemetry layer: it attaches the scope of an opener while that layer creates the span.

use crate::base::{diagnostic, setup};
use crate::layer::spans::{LayerState, SessionExtension};
use crate::layer::{spans, tracked};
use crate::scope::bridge::PendingSpan;
use crate::scope::{Scope, bridge, context};
use opentelemetry::Context as OtelContext;
use opentelemetry::trace::{SpanId, TraceContextExt};
use std::sync::Arc;
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Dispatch, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, Filter};
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
    state: Arc<LayerState>,
    inner: L,
}

impl<L> WrappedLayer<L> {
    pub(crate) fn new(state: Arc<LayerState>, inner: L) -> Self {
        Self { state, inner }
    }

    /// Passes on a new span that may be an opener, or that has an explicit parent.
    ///
    /// The OpenTelemetry layer takes the current `Context` as the parent of a contextual span. So this layer attaches the
    /// parent's `Context` with the new scope, and passes contextual attributes on, also for an explicit parent.
    #[cold]
    fn new_span<S>(&self, attrs: &Attributes<'_>, id: &Id, ctx: &Context<'_, S>)
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
        L: Layer<S>,
    {
        let metadata = attrs.metadata();
        let contextual = Attributes::new(metadata, attrs.values());
        if let Some(fields) = self.state.openers.names.opener_fields(metadata) {
            let (set, called_in) = self.state.openers.read(fields, attrs);
            let parent = self.parent_context(attrs, ctx, called_in);
            let outer = parent.as_ref().and_then(Scope::of);
            if let Some(pending_span) = self.state.openers.open(fields, metadata, set, outer) {
                let attrs = if parent.is_some() { &contextual } else { attrs };
                return self.new_opener(attrs, id, ctx, parent, pending_span);
            }
        }
        // The OpenTelemetry layer makes a root of a child whose explicit parent is filtered out.
        let unknown = attrs.parent().filter(|parent| ctx.span(parent).is_none());
        let scope = unknown.and_then(|parent| self.state.subscriber.scope_of(parent));
        match scope.filter(|_| self.state.setup.wrapped.is_activation_on()) {
            None => self.inner.on_new_span(attrs, id, ctx.clone()),
            Some(scope) => {
                let _attached = context::attach(scope.entered(&OtelContext::new()));
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
        pending_span: PendingSpan,
    ) where
        S: Subscriber + for<'span> LookupSpan<'span>,
        L: Layer<S>,
    {
        let scope = pending_span.scope.clone();
        let offer = bridge::offer_ticket(pending_span);
        let attached = parent.map(|parent| context::attach(scope.clone().entered(&parent)));
        self.inner.on_new_span(attrs, id, ctx.clone());
        drop(attached);
        let pending = offer.taken();
        let Some(span) = ctx.span(id) else { return };
        let is_tracked = pending.is_none() && self.state.setup.wrapped.has_no_inner_layer();
        let extension = SessionExtension {
            opened: Some(scope.clone()),
            _tracked: is_tracked.then(|| spans::track(self.state.key(id), scope.clone())),
            scope,
            pending,
        };
        let _replaced = span.extensions_mut().replace(extension);
        self.state.setup.wrapped.opener_created();
    }

    /// The parent `Context` of a new span. `None`: only the OpenTelemetry layer knows it. It is behind `reload::Layer`,
    /// or its context activation is off.
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
            return Some(called_in.unwrap_or_else(context::current));
        }
        if !self.state.setup.wrapped.is_activation_on() {
            return None;
        }
        match attrs.parent() {
            None => Some(OtelContext::new()),
            // Starts the parent, as the OpenTelemetry layer would.
            Some(parent) if ctx.span(parent).is_some() => {
                self.state.subscriber.otel_context(parent)
            }
            Some(parent) => {
                let parent = self.state.subscriber.scope_of(parent);
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
        let check = &self.state.setup.wrapped;
        if check.has_no_inner_layer() {
            self.state.track_enter(id);
            return self.inner.on_enter(id, ctx.clone());
        }
        self.state.subscriber.flush_diagnostics();
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
            // A tracer of this crate would have taken the ticket.
            Some(false) => self.state.subscriber.otel_context(id).map(|_| false),
            None => self
                .state
                .subscriber
                .otel_context(id)
                .as_ref()
                .map(bridge::is_session_span),
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

/// The span id of the current `Context`. It is invalid where telemetry is suppressed.
fn current_span() -> Option<SpanId> {
    context::map_current(|cx| {
        cx.has_active_span()
            .then(|| cx.span().span_context().span_id())
    })
    .flatten()
}

impl<S, L> Layer<S> for WrappedLayer<L>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    L: Layer<S>,
{
    fn on_register_dispatch(&self, dispatch: &Dispatch) {
        self.inner.on_register_dispatch(dispatch);
        self.state.on_register_dispatch(dispatch);
    }

    fn on_layer(&mut self, subscriber: &mut S) {
        self.inner.on_layer(subscriber);
        self.state.on_layer::<S>();
        if self.inner.max_level_hint() == Some(LevelFilter::OFF) {
            self.state.setup.wrapped.set_no_inner_layer();
        }
    }

    fn on_new_span(&self, attrs: &Attributes<'_>, id: &Id, ctx: Context<'_, S>) {
        let may_be_opener = self.state.openers.names.may_be_opener(attrs.metadata());
        if may_be_opener || attrs.parent().is_some() {
            self.new_span(attrs, id, &ctx);
        } else {
            self.inner.on_new_span(attrs, id, ctx.clone());
        }
        if self.state.setup.wrapped.has_no_inner_layer() {
            self.state.track_new_span(attrs, id, &ctx);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, ctx: Context<'_, S>) {
        // First: the inner layer sets the value as an attribute, which the span compares with the recorded one.
        let is_opener = self.state.record(id, values, &ctx);
        let recording = is_opener.then(bridge::recording);
        self.inner.on_record(id, values, ctx);
        drop(recording);
        self.state.subscriber.flush_diagnostics();
    }

    fn on_enter(&self, id: &Id, ctx: Context<'_, S>) {
        if self.state.setup.wrapped.is_running() {
            self.enter_and_check(id, &ctx);
        } else {
            self.inner.on_enter(id, ctx);
        }
    }

    fn on_exit(&self, id: &Id, ctx: Context<'_, S>) {
        if self.state.setup.wrapped.has_no_inner_layer() && tracked::is_any_entered() {
            self.state.track_exit(id);
        }
        self.inner.on_exit(id, ctx);
    }

    fn on_close(&self, id: Id, ctx: Context<'_, S>) {
        self.inner.on_close(id, ctx);
        self.state.subscriber.flush_diagnostics();
    }

    forward_to_inner!(S);
}

/// See [`SessionLayer::wrap_filtered`](crate::SessionLayer::wrap_filtered).
pub(crate) fn wrap_filtered<S, L, F>(state: Arc<LayerState>, otel: L, filter: F) -> impl Layer<S>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    L: Layer<S>,
    F: Filter<S> + 'static,
{
    state.setup.beside.finish(None);
    let exported = WrappedLayer::new(state.clone(), otel).with_filter(filter);
    let filtered_out = FilteredOutOpeners(state.clone()).with_filter(OpenersOnly(state.clone()));
    // The layer that is joined last is called last: it sees which spans the other one has received.
    exported.and_then(TrackedOnly {
        inner: filtered_out,
        state,
    })
}

/// Enables openers of every level, and no events.
#[derive(Debug)]
struct OpenersOnly(Arc<LayerState>);

impl<S> Filter<S> for OpenersOnly {
    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        metadata.is_span() && self.0.openers.names.opener_fields(metadata).is_some()
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        if metadata.is_span() && self.0.openers.names.opener_fields(metadata).is_some() {
            Interest::always()
        } else {
            Interest::never()
        }
    }
}

/// Tracks the openers that the OpenTelemetry layer doesn't know.
#[derive(Debug)]
struct FilteredOutOpeners(Arc<LayerState>);

impl<S> Layer<S> for FilteredOutOpeners
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    fn on_new_span(&self, attrs: &Attributes<'_>, id: &Id, ctx: Context<'_, S>) {
        // An implicit opener that opens nothing, because the outer session was set explicitly, isn't tracked.
        let _ignored = self.0.track_opener(attrs, id, &ctx);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, ctx: Context<'_, S>) {
        self.0.record(id, values, &ctx);
        self.0.subscriber.flush_diagnostics();
    }

    fn on_enter(&self, id: &Id, _: Context<'_, S>) {
        self.0.enter_if_tracked(id);
    }

    fn on_exit(&self, id: &Id, _: Context<'_, S>) {
        self.0.track_exit(id);
    }

    fn on_close(&self, _: Id, _: Context<'_, S>) {
        self.0.subscriber.flush_diagnostics();
    }
}

/// Skips the callbacks for untracked spans. The filtered layer inside would look each of them up in the registry, to see
/// whether its filter enabled it.
#[derive(Debug)]
struct TrackedOnly<L> {
    inner: L,
    state: Arc<LayerState>,
}

impl<L> TrackedOnly<L> {
    fn may_be_tracked(&self, id: &Id) -> bool {
        spans::may_track(self.state.key(id))
    }
}

impl<S, L> Layer<S> for TrackedOnly<L>
where
    S: Subscriber,
    L: Layer<S>,
{
    fn on_register_dispatch(&self, dispatch: &Dispatch) {
        self.inner.on_register_dispatch(dispatch);
    }

    fn on_layer(&mut self, subscriber: &mut S) {
        self.inner.on_layer(subscriber);
    }

    fn on_new_span(&self, attrs: &Attributes<'_>, id: &Id, ctx: Context<'_, S>) {
        self.inner.on_new_span(attrs, id, ctx);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, ctx: Context<'_, S>) {
        if self.may_be_tracked(id) {
            self.inner.on_record(id, values, ctx);
        }
    }

    fn on_enter(&self, id: &Id, ctx: Context<'_, S>) {
        if self.may_be_tracked(id) {
            self.inner.on_enter(id, ctx);
        }
    }

    fn on_exit(&self, id: &Id, ctx: Context<'_, S>) {
        if tracked::is_any_entered() && self.may_be_tracked(id) {
            self.inner.on_exit(id, ctx);
        }
    }

    fn on_close(&self, id: Id, ctx: Context<'_, S>) {
        if self.may_be_tracked(&id) {
            self.inner.on_close(id, ctx);
        }
    }

    forward_to_inner!(S);
}
