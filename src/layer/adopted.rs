//! Spans that a future adopts when they are entered, because they were created in no session: see `scope/polled.rs`.

use crate::base::diagnostic;
use crate::layer::spans::{LayerState, SessionExtension};
use crate::layer::tracked;
use crate::scope::bridge::SpanCommand;
use crate::scope::context::CurrentScope;
use crate::scope::polled::PolledScope;
use crate::scope::tracking::{self, Adoption, TrackedGuard};
use crate::scope::{Scope, bridge, polled, thread};
use crate::session::Session;
use opentelemetry::Context as OtelContext;
use opentelemetry::trace::TraceContextExt;
use std::sync::Arc;
use tracing::Subscriber;
use tracing::span::{Attributes, Id};
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// In the extensions of an adopted span.
struct AdoptedSpan {
    _guard: TrackedGuard,
}

/// In the extensions of a span whose parent was given where a session or user applied. No future in a session adopts a span
/// that was created apart from a session, and no future with a user alone one that was created apart from a user.
struct Apart {
    from_session: bool,
}

impl LayerState {
    /// Remembers a new span with a given parent, or with `parent: None`, if a session or user applies where it is created.
    #[cold]
    pub(crate) fn keep_apart<S>(&self, attrs: &Attributes<'_>, id: &Id, ctx: &Context<'_, S>)
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        if attrs.is_contextual() {
            return;
        }
        let here = thread::map_current(|cx| CurrentScope::under(cx).without_default());
        if let (Some(Some(here)), Some(span)) = (here, ctx.span(id)) {
            let from_session = here.id().is_some();
            span.extensions_mut().replace(Apart { from_session });
        }
    }

    /// The future that may adopt a span which is entered now.
    pub(crate) fn adopting_future<S>(&self, id: &Id, ctx: &Context<'_, S>) -> Option<PolledScope>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        let future = polled::is_polling().then(PolledScope::current).flatten()?;
        let has_session = future.scope.id().is_some();
        let is_apart = |apart: &Apart| apart.from_session || !has_session;
        let is_apart = ctx.span(id)?.extensions().get().is_some_and(is_apart);
        (!is_apart).then_some(future)
    }

    /// Adopts a span that the OpenTelemetry layer has just entered.
    pub(crate) fn adopt_entered<S>(&self, id: &Id, ctx: &Context<'_, S>, future: &PolledScope)
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        let cx = thread::current();
        if let Some(inside) = self.adopt(id, ctx, future, Scope::of(&cx).as_ref(), Some(&cx)) {
            let attached = future.attach_inside(inside);
            self.push_entered(id, Some(attached), false);
        }
    }

    /// The scope that applies inside a span whose own scope is `own`, if the future adopts the span. `exported`: the span's
    /// `Context`, if the OpenTelemetry layer knows it.
    pub(crate) fn adopt<S>(
        &self,
        id: &Id,
        ctx: &Context<'_, S>,
        future: &PolledScope,
        own: Option<&Arc<Scope>>,
        exported: Option<&OtelContext>,
    ) -> Option<Arc<Scope>>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        if !future.adopts(own) {
            return None;
        }
        let key = self.key(id);
        let known = tracking::adoption(key).filter(|it| Arc::ptr_eq(&it.future, &future.scope));
        if let Some(known) = known {
            return Some(known.inside);
        }
        let span = ctx.span(id)?;
        let is_opener = |it: &SessionExtension| it.opened.is_some();
        let is_opener = span.extensions().get().is_some_and(is_opener);
        let inside = future.inside(own, is_opener);
        if let Some(cx) = exported {
            bridge::send(cx, SpanCommand::Adopt(inside.clone()));
            let trace = cx.span().span_context().trace_id();
            if future.remote_trace.is_some_and(|remote| remote != trace) {
                diagnostic::span_before_its_trace(span.metadata());
            }
        }
        let adoption = Adoption {
            future: future.scope.clone(),
            inside: inside.clone(),
        };
        let guard = tracking::adopt(key, adoption);
        let mut extensions = span.extensions_mut();
        if extensions.get_mut::<AdoptedSpan>().is_some() {
            guard.forget();
        } else {
            extensions.insert(AdoptedSpan { _guard: guard });
        }
        Some(inside)
    }

    /// Emits a diagnostic if a span that was adopted before is entered in no session: the spans inside are in none.
    #[cold]
    pub(crate) fn warn_of_lost_session<S>(&self, id: &Id, ctx: &Context<'_, S>)
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        let is_in_session = || Scope::current().is_some_and(|scope| scope.id().is_some());
        if tracking::adoption(self.key(id)).is_some() && !is_in_session() {
            if let Some(span) = ctx.span(id) {
                diagnostic::adopted_span_outside(span.metadata());
            }
        }
    }

    /// Sets a session inside the current span, if it is adopted: until the span is exited, and again whenever the same
    /// future enters it. False if it isn't.
    pub(crate) fn set_in_adopted(&self, id: &Id, session: &Session) -> bool {
        let key = self.key(id);
        let known = tracking::adoption(key);
        let (Some(known), Some(current)) = (known, PolledScope::current()) else {
            return false;
        };
        if !Arc::ptr_eq(&known.inside, &current.scope) {
            return false;
        }
        let inside = Scope::nested(Some(known.inside), session);
        let future = known.future;
        let adoption = Adoption {
            future,
            inside: inside.clone(),
        };
        // The span has the guard already.
        tracking::adopt(key, adoption).forget();
        tracked::replace_attached(key, || current.attach_inside(inside));
        true
    }
}
