//! Tracked spans. The layer attaches their scope whenever they are entered, because they are filtered out for the
//! OpenTelemetry layer, or because there is no OpenTelemetry layer.

use crate::base::error::ErrorKind;
use crate::base::setup::TracerKind;
use crate::base::{diagnostic, setup};
use crate::layer::spans::{LayerState, SessionExtension};
use crate::scope::Scope;
use crate::scope::bridge::PendingSpan;
use crate::scope::context::CurrentScope;
use crate::scope::polled::PolledScope;
use crate::scope::thread::{self, Attached, EnteredSpan, Place};
use crate::scope::tracking::{self, SpanKey, TrackedGuard, tracked_scope};
use crate::session::Session;
use opentelemetry::Context as OtelContext;
use opentelemetry::baggage::BaggageExt;
use opentelemetry::trace::{SpanContext, TraceContextExt};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tracing::span::{Attributes, Id};
use tracing::{Dispatch, Subscriber};
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// In the extensions of a filtered-out span whose explicit parent may not have started yet. The layer finds its scope
/// when the span is entered.
struct UnresolvedSpan {
    _guard: TrackedGuard,
}

/// The callbacks for tracked spans.
impl LayerState {
    /// Tracks a new span that no OpenTelemetry layer receives.
    pub(crate) fn track_new_span<S>(&self, attrs: &Attributes<'_>, id: &Id, ctx: &Context<'_, S>)
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        let metadata = attrs.metadata();
        if let Some(callsite) = self.openers.names.opener_callsite(metadata) {
            let (set, _) = self.openers.read(&callsite, attrs);
            let outer = self.inherited(attrs, ctx);
            if let Some(PendingSpan { scope, .. }) =
                self.openers.open(callsite.fields, metadata, set, outer)
            {
                return self.track_in(scope, true, id, ctx);
            }
        }
        self.track_inherited(attrs, id, ctx);
    }

    /// Tracks a new span that opens no scope, if necessary.
    pub(crate) fn track_inherited<S>(&self, attrs: &Attributes<'_>, id: &Id, ctx: &Context<'_, S>)
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        if let Some(scope) = Self::needed(self.inherited(attrs, ctx), attrs) {
            self.track_in(scope, false, id, ctx);
        }
    }

    /// Tracks a new span that the OpenTelemetry layer hasn't received, if necessary.
    #[cold]
    pub(crate) fn track_unreceived<S>(&self, attrs: &Attributes<'_>, id: &Id, ctx: &Context<'_, S>)
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        let has_layer = self.setup.tracer.kind() != TracerKind::NoLayer;
        let is_adopted = |parent| thread::adopted_scope(self.key(parent)).is_some();
        let is_unresolved =
            |parent| has_layer && !is_adopted(parent) && self.starts_to_answer(parent);
        if !attrs.parent().is_some_and(is_unresolved) {
            return self.track_inherited(attrs, id, ctx);
        }
        if let Some(span) = ctx.span(id) {
            let guard = tracking::track_unresolved(self.key(id));
            span.extensions_mut()
                .replace(UnresolvedSpan { _guard: guard });
        }
    }

    /// The scope that a new span inherits from its parent.
    fn inherited<S>(&self, attrs: &Attributes<'_>, ctx: &Context<'_, S>) -> Option<Arc<Scope>>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        let outer = match attrs.parent() {
            Some(parent) => thread::adopted_scope(self.key(parent))
                .or_else(|| self.scope_of(parent))
                .or_else(|| self.scope_before_reload(parent, ctx)),
            None if attrs.is_contextual() => Scope::current(),
            None => None,
        };
        outer.or_else(Scope::global_default)
    }

    /// The scope from the layer that this layer replaced. A layer that replaces another one in a reload has no
    /// dispatcher.
    fn scope_before_reload<S>(&self, id: &Id, ctx: &Context<'_, S>) -> Option<Arc<Scope>>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        match self.subscriber.upgrade() {
            Some(_) => None,
            None => scope_in_extensions(id, ctx),
        }
    }

    /// The scope to track a span in, if the span must be tracked.
    pub(crate) fn needed(
        inherited: Option<Arc<Scope>>,
        attrs: &Attributes<'_>,
    ) -> Option<Arc<Scope>> {
        // A span with another parent must not inherit the scope that is current where it is entered.
        let is_apart = !attrs.is_contextual() && Scope::any_exists();
        inherited.or_else(|| is_apart.then(Scope::empty))
    }

    /// Whether the scope of a span can only be found by starting the span: getting its `Context` starts it, and then
    /// `set_parent` fails.
    fn starts_to_answer(&self, id: &Id) -> bool {
        let mut starts = false;
        if let Some(dispatch) = self.subscriber.upgrade().filter(|_| Scope::any_exists()) {
            self.subscriber
                .ancestors(&dispatch, id, &mut |_, extension| {
                    starts = extension.is_none_or(SessionExtension::is_pending);
                    false
                });
        }
        starts
    }

    /// The scope that applies in a span, even if the span is filtered out. This may start a span.
    pub(crate) fn scope_of(&self, id: &Id) -> Option<Arc<Scope>> {
        let dispatch = self.subscriber.upgrade()?;
        let mut spans = Vec::new();
        self.subscriber
            .ancestors(&dispatch, id, &mut |id, extension| {
                spans.push((id.clone(), extension.map(|it| it.scope.clone())));
                tracking::is_unresolved(self.key(id))
            });
        // Hold no lock here: the OpenTelemetry layer locks spans when it starts one.
        let find = |(id, scope): (Id, Option<Arc<Scope>>)| {
            let cx = (self.otel_context(&id)).filter(|_| Scope::any_exists());
            match cx {
                // The `Context` or the map by span id may have a newer scope.
                Some(cx) => Some(Scope::of(&cx)),
                None => scope.map(Some),
            }
        };
        spans.into_iter().find_map(find)?
    }

    /// Tracks an unresolved span in the current scope of its parent.
    pub(crate) fn resolve<S>(&self, id: &Id, ctx: &Context<'_, S>)
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        if tracking::is_unresolved(self.key(id)) {
            let scope = self.scope_of(id).or_else(Scope::global_default);
            self.track_in(scope.unwrap_or_else(Scope::empty), false, id, ctx);
        }
    }

    /// Tracks a span in `scope`, which it has opened or inherits.
    fn track_in<S>(&self, scope: Arc<Scope>, has_opened: bool, id: &Id, ctx: &Context<'_, S>)
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        let Some(span) = ctx.span(id) else { return };
        let mut extensions = span.extensions_mut();
        // Another `SessionLayer` of the subscriber may have added its extension.
        if extensions.get_mut::<SessionExtension>().is_none() {
            let opened = has_opened.then(|| scope.clone());
            extensions.insert(SessionExtension::tracked(self.key(id), scope, opened));
        }
    }

    /// The scope of a span that the OpenTelemetry layer hasn't received.
    pub(crate) fn scope_of_tracked(&self, id: &Id) -> Option<Arc<Scope>> {
        // Until the tracer is known, the layer may track a span that the OpenTelemetry layer has received.
        let is_unknown = |_: &Arc<Scope>| self.otel_context(id).is_none();
        let key = self.key(id);
        match tracking::is_unresolved(key) {
            true => Some(self.scope_of(id).unwrap_or_else(Scope::empty)),
            false => tracked_scope(key).filter(is_unknown),
        }
    }

    /// The `Context` inside a span that the OpenTelemetry layer hasn't received.
    pub(crate) fn context_of_tracked(&self, id: &Id) -> Option<OtelContext> {
        let scope = self.scope_of_tracked(id)?;
        let outside = OtelContext::new();
        Some(match tracking::linked(self.key(id)) {
            None => scope.entered(&outside),
            Some(linked) => inside_unexported(scope, &outside, linked),
        })
    }

    /// Enters a span that may be tracked. `future`: the future that may adopt it.
    pub(crate) fn track_enter<S>(&self, id: &Id, ctx: &Context<'_, S>, future: Option<PolledScope>)
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        self.subscriber.flush_diagnostics();
        let scope = tracked_scope(self.key(id)).or_else(|| self.scope_before_reload(id, ctx));
        let is_checked = scope.is_some()
            && self.setup.beside.is_running()
            && !(setup::has_processor() && self.is_after_opentelemetry_layer(id));
        // Attach the scope even if it is current already: its guard may be dropped before this span is exited.
        let adopts = |it: &PolledScope| self.adopt(id, ctx, it, scope.as_ref(), false);
        let adopted = future.as_ref().and_then(adopts);
        let attached = match (future, adopted.clone()) {
            (Some(future), Some(inside)) if tracking::linked(self.key(id)).is_none() => {
                Some(future.attach_inside(inside))
            }
            (_, Some(inside)) => Some(attach(self.key(id), inside)),
            _ => scope.map(|scope| attach(self.key(id), scope)),
        };
        self.push_entered(id, attached, adopted, is_checked);
    }

    /// Whether a span is an unexported session span that is entered for the first time.
    pub(crate) fn starts_unexported<S>(&self, id: &Id, ctx: &Context<'_, S>) -> bool
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        let is_pending = || {
            let span = ctx.span(id)?;
            let extensions = span.extensions();
            Some(extensions.get::<SessionExtension>()?.is_pending())
        };
        tracking::linked(self.key(id)).is_some() && is_pending() == Some(true)
    }

    /// Moves an unexported session span into the scope of its parent, which `set_parent` may have replaced.
    pub(crate) fn move_unexported<S>(&self, id: &Id, ctx: &Context<'_, S>)
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        let key = self.key(id);
        let own = self.subscriber.otel_context(id).zip(tracked_scope(key));
        let Some(((cx, scope), span)) = own.zip(ctx.span(id)) else {
            return;
        };
        let around = CurrentScope::under(&cx);
        if !around.is_entry(&scope) {
            let moved = scope.moved_into(around.scope());
            if let Some(extension) = span.extensions_mut().get_mut::<SessionExtension>() {
                extension.scope = moved.clone();
                extension.opened = Some(moved.clone());
            }
            tracking::replace_tracked(key, moved);
        }
    }

    pub(crate) fn push_entered(
        &self,
        id: &Id,
        attached: Option<Attached>,
        adopted: Option<Arc<Scope>>,
        is_checked: bool,
    ) {
        thread::push(EnteredSpan {
            span: self.key(id),
            layer: Arc::downgrade(&self.exists),
            attached,
            adopted,
            place: current_place(),
            is_checked,
        });
    }

    pub(crate) fn track_exit(&self, id: &Id) {
        // Drop it after the stack is released: detaching a `Context` may drop a span, which runs foreign code.
        let left = thread::pop(self.key(id));
        if left.is_some_and(|left| left.is_checked) {
            self.look_for_opentelemetry_layer(id);
        }
    }

    /// Whether an OpenTelemetry layer beside this layer has entered the span before this one. With a span processor, the
    /// setup is complete then: the processor reads the attached scope.
    #[cold]
    fn is_after_opentelemetry_layer(&self, id: &Id) -> bool {
        let span_id = |cx: &OtelContext| cx.span().span_context().span_id();
        let own = self.otel_context(id).as_ref().map(span_id);
        let is_after = own.is_some() && own == thread::map_current(span_id);
        if is_after {
            self.setup.beside.finish(None);
        }
        is_after
    }

    /// Looks for an OpenTelemetry layer beside this one. That layer started the span when it was entered, so getting
    /// its `Context` has no side effect.
    #[cold]
    fn look_for_opentelemetry_layer(&self, id: &Id) {
        if self.otel_context(id).is_none() {
            self.setup.beside.span_is_unknown();
        } else if self.setup.is_one_of_two.load(Ordering::Relaxed) {
            self.setup.beside.finish(Some(diagnostic::TWO_LAYERS));
        } else {
            self.setup.beside.finish(Some(diagnostic::BESIDE));
        }
    }
}

/// The scope in the extensions of a span.
pub(crate) fn scope_in_extensions<S>(id: &Id, ctx: &Context<'_, S>) -> Option<Arc<Scope>>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let span = ctx.span(id)?;
    let extensions = span.extensions();
    Some(extensions.get::<SessionExtension>()?.scope.clone())
}

/// An error unless the span is the innermost one of this thread, and no other `Context` is attached inside it.
pub(crate) fn ensure_innermost(span: SpanKey) -> Result<(), ErrorKind> {
    let (place, _) = thread::innermost(span).ok_or(ErrorKind::FilteredOut)?;
    match current_place() == Some(place) {
        true => Ok(()),
        false => Err(ErrorKind::InsideValue),
    }
}

/// The current place on this thread.
fn current_place() -> Option<Place> {
    thread::map_current(|cx| Place {
        scope: Scope::of(cx).map_or(0, |scope| Arc::as_ptr(&scope).addr()),
        span: cx.span().span_context().span_id(),
        baggage: std::ptr::from_ref(cx.baggage()).addr(),
        is_suppressed: cx.is_telemetry_suppressed(),
    })
}

/// Sets a session on the current span, which is tracked or adopted. It applies until the span is exited, and again
/// whenever the span is entered. An error if another tracked or adopted span is the innermost one of this thread, or if
/// another scope is attached inside.
pub(crate) fn set_session(
    state: &LayerState,
    dispatch: &Dispatch,
    span: &Id,
    session: &Session,
) -> Result<(), ErrorKind> {
    let key = state.key(span);
    ensure_innermost(key)?;
    if state.set_in_adopted(span, session)? {
        return Ok(());
    }
    // Inside the span's own scope, because a session that is current only where the span is entered must not stay on
    // the span.
    let own = tracked_scope(key).or_else(Scope::global_default);
    let scope = Scope::nested(own, session);
    state.replace_scope(dispatch, span, &scope);
    state.set_span(dispatch, span);
    replace_attached(key, None, || attach(key, scope));
    Ok(())
}

/// Attaches the scope of a tracked span inside the span.
fn attach(span: SpanKey, scope: Arc<Scope>) -> Attached {
    match tracking::linked(span) {
        None => scope.attach(),
        Some(linked) => thread::attach_changed(|cx| inside_unexported(scope, cx, linked)),
    }
}

/// Attaches another scope inside a span that is entered, until it is exited.
pub(crate) fn replace_attached(
    span: SpanKey,
    adopted: Option<Arc<Scope>>,
    attach: impl FnOnce() -> Attached,
) {
    if let Some(mut entered) = thread::pop(span) {
        // Detach the old scope first, otherwise OpenTelemetry's stack would grow.
        entered.attached = None;
        entered.attached = Some(attach());
        entered.adopted = adopted;
        entered.place = current_place();
        thread::push(entered);
    }
}

/// The `Context` inside an unexported session span: spans directly inside are roots, linked to `linked`. It has no
/// active span, because `Sampler::ParentBased` treats an invalid span as an unsampled parent.
pub(crate) fn inside_unexported(
    scope: Arc<Scope>,
    cx: &OtelContext,
    linked: SpanContext,
) -> OtelContext {
    let starts_trace = Arc::new((AtomicBool::new(true), linked));
    scope.entered_to_start_a_trace(&thread::without_span(cx), starts_trace)
}
