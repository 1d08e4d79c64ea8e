//! The wrapper around the OpenTelemetry layer. It attaches the scope of an opener while that layer creates the span,
//! and finds spans to track or adopt.

use crate::base::setup::TracerKind;
use crate::base::{diagnostic, setup};
use crate::layer::spans::{LayerState, SessionExtension, is_none};
use crate::layer::tracked::{inside_unexported, scope_in_extensions};
use crate::scope::bridge::{PendingSpan, ReceivedBy};
use crate::scope::{Scope, bridge, thread, tracking};
use opentelemetry::Context as OtelContext;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt};
use std::sync::Arc;
use tracing::span::{Attributes, Id, Record};
use tracing::{Dispatch, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// An OpenTelemetry layer that [`SessionLayer::wrap`](crate::SessionLayer::wrap) has wrapped.
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
    pub(crate) state: Arc<LayerState>,
    pub(crate) inner: L,
    /// `inner` has the two halves of `wrap_filtered`.
    pub(crate) is_filtered: bool,
}

impl<L> WrappedLayer<L> {
    pub(crate) fn new(state: Arc<LayerState>, inner: L) -> Self {
        Self {
            state,
            inner,
            is_filtered: false,
        }
    }

    /// Passes on a new span that may be an opener, or that has an explicit parent.
    ///
    /// The OpenTelemetry layer takes the current `Context` as the parent of a contextual span. So this layer attaches
    /// the parent's `Context` with the new scope, and passes on contextual attributes, even for an explicit parent.
    #[cold]
    fn new_span<S>(&self, attrs: &Attributes<'_>, id: &Id, ctx: Context<'_, S>)
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
        L: Layer<S>,
    {
        let contextual = Attributes::new(attrs.metadata(), attrs.values());
        let inside_parent = self.state.inside_adopted_parent(attrs);
        let passed = match &inside_parent {
            Some(_) => &contextual,
            None => attrs,
        };
        let _attached = inside_parent.map(thread::attach);
        self.create_span(passed, id, &ctx);
        self.state.keep_apart(attrs, id, &ctx);
    }

    fn create_span<S>(&self, attrs: &Attributes<'_>, id: &Id, ctx: &Context<'_, S>)
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
        L: Layer<S>,
    {
        let metadata = attrs.metadata();
        if let Some(callsite) = self.state.openers.names.opener_callsite(metadata) {
            let (set, called_in) = self.state.openers.read(&callsite, attrs);
            let parent = self.parent_context(attrs, called_in);
            // Without the parent's `Context`, only the scope of the parent's own fields is known.
            let inherited = || scope_in_extensions(attrs.parent()?, ctx);
            let outer = match &parent {
                Some(cx) => Scope::of(cx),
                None => inherited().or_else(Scope::global_default),
            };
            if let Some(pending_span) =
                (self.state.openers).open(callsite.fields, metadata, set, outer)
            {
                return self.new_opener(attrs, id, ctx, parent, pending_span);
            }
        } else if !Scope::any_exists() {
            self.state.openers.names.note_unset(metadata);
        }
        // The OpenTelemetry layer makes a root of a child whose explicit parent is filtered out.
        let parent = attrs
            .parent()
            .and_then(|it| self.state.context_of_tracked(it));
        match parent.filter(|_| self.state.setup.wrapped.is_activation_on()) {
            None => self.new_descendant(attrs, attrs, id, ctx.clone()),
            Some(inside_parent) => {
                let attached = thread::attach(inside_parent);
                let contextual = Attributes::new(metadata, attrs.values());
                self.new_descendant(&contextual, attrs, id, ctx.clone());
                drop(attached);
            }
        }
    }

    /// Passes on a new span that is no opener, with the attributes `passed`.
    #[inline(always)]
    fn new_descendant<S>(
        &self,
        passed: &Attributes<'_>,
        attrs: &Attributes<'_>,
        id: &Id,
        ctx: Context<'_, S>,
    ) where
        S: Subscriber + for<'span> LookupSpan<'span>,
        L: Layer<S>,
    {
        let creating = bridge::creating(attrs.is_root());
        self.inner.on_new_span(passed, id, ctx.clone());
        let received_by = bridge::received_by();
        drop(creating);
        if !self.is_received(received_by) {
            self.state.track_unreceived(attrs, id, &ctx);
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
        let span_of = |cx: &OtelContext| cx.span().span_context().clone();
        let linked = || parent.as_ref().map_or(SpanContext::NONE, span_of);
        let is_foreign = self.state.setup.tracer.kind() == TracerKind::Foreign;
        let linked = (!pending_span.is_exported && !is_foreign).then(linked);
        let offer = bridge::offer_ticket(pending_span);
        if let Some(parent) = &parent {
            let contextual = Attributes::new(attrs.metadata(), attrs.values());
            let attached = thread::attach(match &linked {
                None => scope.clone().entered(parent),
                Some(linked) => inside_unexported(scope.clone(), parent, linked.clone()),
            });
            self.inner.on_new_span(&contextual, id, ctx.clone());
            drop(attached);
        } else {
            self.inner.on_new_span(attrs, id, ctx.clone());
        }
        let received_by = bridge::received_by();
        let pending = offer.taken();
        let is_received = self.is_received(received_by);
        let opens = is_received || self.may_open(received_by);
        let tracked_in = match () {
            () if linked.is_some() => Some(scope.clone()),
            () if is_received => None,
            () if opens => Some(scope.clone()),
            () => {
                let inherited = parent
                    .as_ref()
                    .map_or_else(Scope::global_default, Scope::of);
                LayerState::needed(inherited, attrs)
            }
        };
        // A foreign tracer may have received the span. The setup check finds out when the span is entered.
        let is_unknown = self.state.setup.tracer.kind() == TracerKind::Unknown;
        let opened = (opens || is_unknown).then(|| scope.clone());
        let Some(span) = ctx
            .span(id)
            .filter(|_| opened.is_some() || tracked_in.is_some())
        else {
            return;
        };
        let extension = SessionExtension {
            opened,
            scope: tracked_in.clone().unwrap_or(scope),
            pending,
            _tracked: tracked_in.map(|scope| tracking::track(self.state.key(id), scope, linked)),
        };
        let _replaced = span.extensions_mut().replace(extension);
        self.state.setup.wrapped.opener_created();
    }

    /// Whether the OpenTelemetry layer has received a new span.
    #[inline]
    fn is_received(&self, received_by: ReceivedBy) -> bool {
        let tracer = &self.state.setup.tracer;
        if received_by == ReceivedBy::Tracer {
            tracer.found(TracerKind::Ours);
            return true;
        }
        let is_enabled = received_by == ReceivedBy::Filter;
        match tracer.kind() {
            TracerKind::Ours | TracerKind::NoLayer => false,
            TracerKind::Unknown => is_enabled,
            TracerKind::Foreign => is_enabled || !self.is_filtered,
        }
    }

    /// Whether a span that the OpenTelemetry layer hasn't received may set a session.
    fn may_open(&self, received_by: ReceivedBy) -> bool {
        match received_by {
            ReceivedBy::NoLayer => {
                !self.is_filtered && self.state.setup.tracer.kind() == TracerKind::NoLayer
            }
            _ => true,
        }
    }

    /// Whether a span is tracked. With a foreign tracer, only the filter of `wrap_filtered` proves that a span is
    /// filtered out.
    fn is_tracked(&self, id: &Id) -> bool {
        let is_certain = self.is_filtered || self.state.setup.tracer.kind() != TracerKind::Foreign;
        is_certain && tracking::tracked_scope(self.state.key(id)).is_some()
    }

    /// The parent `Context` of a new span. `None`: only the OpenTelemetry layer knows it, because that layer is behind
    /// `reload::Layer` or its context activation is off. Or an explicit parent is filtered out and in no session.
    fn parent_context(
        &self,
        attrs: &Attributes<'_>,
        called_in: Option<OtelContext>,
    ) -> Option<OtelContext> {
        if attrs.is_contextual() {
            return Some(called_in.unwrap_or_else(thread::current));
        }
        if !self.state.setup.wrapped.is_activation_on() {
            return None;
        }
        let Some(parent) = attrs.parent() else {
            return Some(OtelContext::new());
        };
        // This starts the parent, as the OpenTelemetry layer would.
        let started = self.state.otel_context(parent);
        started.or_else(|| self.state.context_of_tracked(parent))
    }

    /// The slow path of `on_enter`: the setup check is running, a future is polled in a session, or the span is
    /// tracked.
    #[cold]
    fn enter_with_care<S>(&self, id: &Id, ctx: Context<'_, S>)
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
        L: Layer<S>,
    {
        let ctx = &ctx;
        let is_running = self.state.setup.wrapped.is_running();
        if self.state.setup.tracer.kind() == TracerKind::NoLayer {
            self.inner.on_enter(id, ctx.clone());
            let future = self.state.adopting_future(id, ctx);
            return self.state.track_enter(id, ctx, future);
        }
        // In a busy process, other spans make `may_track` true for every span.
        let has_entry = tracking::is_tracked(self.state.key(id));
        if has_entry {
            self.state.resolve(id, ctx);
        }
        let future = self.state.adopting_future(id, ctx);
        let other = (has_entry && future.is_none()).then(|| self.state.other_session(id));
        let entering = future.is_some().then(bridge::entering);
        let is_unexported = has_entry && self.state.starts_unexported(id, ctx);
        match is_running {
            true => self.enter_and_check(id, ctx),
            false => self.inner.on_enter(id, ctx.clone()),
        }
        let is_starting = entering.is_some() && !bridge::is_entering();
        drop(entering);
        if is_unexported {
            self.state.move_unexported(id, ctx);
        }
        match future {
            _ if has_entry && self.is_tracked(id) => self.state.track_enter(id, ctx, future),
            Some(future) => self.state.adopt_entered(id, ctx, &future, is_starting),
            None if has_entry => {
                self.state.leave_future(id, ctx, other.flatten());
                self.state.push_adopted(id, None);
            }
            None => {}
        }
    }

    /// Enters a span, and checks the setup with it.
    fn enter_and_check<S>(&self, id: &Id, ctx: &Context<'_, S>)
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
        L: Layer<S>,
    {
        let check = &self.state.setup.wrapped;
        self.state.subscriber.flush_diagnostics();
        let before = thread::current_span();
        self.inner.on_enter(id, ctx.clone());
        let after = thread::current_span();
        let is_activated = after.is_some() && (after != before || after == Some(SpanId::INVALID));
        let own_span = |id| {
            let cx = self.state.otel_context(id)?;
            Some(cx.span().span_context().span_id())
        };
        let Some(span) = ctx.span(id) else { return };
        let is_taken = |it: &SessionExtension| it.opened.as_ref().map(|_| it.pending.is_some());
        let is_taken = (span.extensions().get::<SessionExtension>()).and_then(is_taken);
        if !check.should_check(is_taken.is_some()) {
            return;
        }
        let is_ours = match is_taken {
            Some(true) => Some(true),
            // A tracer of this crate would have removed the ticket.
            Some(false) => self.state.otel_context(id).map(|_| false),
            None => self
                .state
                .otel_context(id)
                .as_ref()
                .map(bridge::is_session_span),
        };
        match is_ours {
            None => check.span_is_unknown(),
            Some(false) => {
                if self.state.setup.tracer.kind() == TracerKind::Unknown {
                    self.state.setup.tracer.found(TracerKind::Foreign);
                }
                check.finish((!setup::has_processor()).then_some(diagnostic::NO_PROVIDER));
            }
            // The span's own `Context` may have been current before.
            Some(true) if !is_activated && own_span(id) == before => {}
            Some(true) if !is_activated => check.finish(Some(diagnostic::NO_ACTIVATION)),
            Some(true) if is_taken.is_some() => check.finish(None),
            Some(true) => check.tracer_is_ours(),
        }
    }
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
        if !self.is_filtered && is_none(&self.inner) {
            self.state.setup.tracer.found(TracerKind::NoLayer);
        }
        if self.state.setup.tracer.kind() != TracerKind::NoLayer {
            self.state.setup.beside.finish(None);
        }
    }

    fn on_new_span(&self, attrs: &Attributes<'_>, id: &Id, ctx: Context<'_, S>) {
        let may_be_opener = self.state.openers.names.may_be_opener(attrs.metadata());
        if may_be_opener || !attrs.is_contextual() {
            self.new_span(attrs, id, ctx);
        } else {
            self.new_descendant(attrs, attrs, id, ctx);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, ctx: Context<'_, S>) {
        // Record before the inner layer does: it sets the value as an attribute, and the span compares this with the
        // recorded value.
        let is_opener = self.state.record(id, values, &ctx);
        let recording = is_opener.then(bridge::recording);
        self.inner.on_record(id, values, ctx);
        drop(recording);
        self.state.subscriber.flush_diagnostics();
    }

    fn on_enter(&self, id: &Id, ctx: Context<'_, S>) {
        let may_matter = tracking::is_used() && self.state.may_need_care(id);
        if may_matter || self.state.setup.wrapped.is_running() {
            self.enter_with_care(id, ctx);
        } else {
            self.inner.on_enter(id, ctx);
        }
    }

    fn on_exit(&self, id: &Id, ctx: Context<'_, S>) {
        if thread::is_any_entered() {
            self.state.track_exit(id);
        }
        self.inner.on_exit(id, ctx);
        if tracking::is_used() {
            self.state.exited(id);
        }
    }

    fn on_close(&self, id: Id, ctx: Context<'_, S>) {
        self.inner.on_close(id, ctx);
        self.state.subscriber.flush_diagnostics();
    }

    forward_to_inner!(S);
}
