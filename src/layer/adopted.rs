//! Spans that a future adopts when they are entered, because they were created in no session: see `scope/polled.rs`.

use crate::base::diagnostic;
use crate::base::shards::Shards;
use crate::layer::spans::{LayerState, SpanKey};
use crate::layer::tracked;
use crate::scope::bridge::SpanCommand;
use crate::scope::polled::PolledScope;
use crate::scope::{Scope, bridge, context, polled};
use crate::session::Session;
use opentelemetry::Context as OtelContext;
use opentelemetry::trace::TraceContextExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tracing::Subscriber;
use tracing::span::{Attributes, Id};
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// The adopted spans. Written when a future adopts a span, and when the span closes. Read when such a span is entered.
/// Empty if every span is created in the session in which it is entered.
static ADOPTED: Shards<SpanKey, Adoption> = Shards::new();

/// Whether [`ADOPTED`] was ever written, so that a process without adopted spans doesn't look into it.
static ANY_ADOPTED: AtomicBool = AtomicBool::new(false);

/// The future that has adopted a span last.
struct Adoption {
    /// The scope of the future.
    future: Arc<Scope>,
    /// The scope that applies inside the span.
    scope: Arc<Scope>,
}

/// In the extensions of an adopted span.
struct AdoptedSpan(SpanKey);

impl Drop for AdoptedSpan {
    fn drop(&mut self) {
        ADOPTED.remove(self.0);
    }
}

/// In the extensions of a span whose parent was given where a session applied. No future adopts it.
struct Declined;

/// Whether a span that is entered may be adopted, or was adopted before.
#[inline(always)]
pub(crate) fn may_matter() -> bool {
    polled::is_polling() || ANY_ADOPTED.load(Ordering::Relaxed)
}

impl LayerState {
    /// Remembers a new span with a given parent, or with `parent: None`, if a session applies where it is created.
    #[cold]
    pub(crate) fn decline<S>(&self, attrs: &Attributes<'_>, id: &Id, ctx: &Context<'_, S>)
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        let is_in_session = || Scope::current().is_some_and(|scope| scope.id().is_some());
        if !attrs.is_contextual() && is_in_session() {
            if let Some(span) = ctx.span(id) {
                span.extensions_mut().replace(Declined);
            }
        }
    }

    /// The future that may adopt a span which is entered now.
    pub(crate) fn adopting_future<S>(&self, id: &Id, ctx: &Context<'_, S>) -> Option<PolledScope>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        let future = polled::is_polling().then(PolledScope::current).flatten()?;
        let is_declined = ctx.span(id)?.extensions().get::<Declined>().is_some();
        (!is_declined).then_some(future)
    }

    /// Adopts a span that the OpenTelemetry layer has just entered.
    pub(crate) fn adopt_entered<S>(&self, id: &Id, ctx: &Context<'_, S>, future: &PolledScope)
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        let cx = context::current();
        let Some(scope) = self.adopt(id, ctx, future, Scope::of(&cx).as_ref(), Some(&cx)) else {
            return;
        };
        tracked::push_attached(self.key(id), future.attach_inside(scope));
    }

    /// The scope that applies inside a span whose own scope is `own`, if the future adopts the span.
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
        let again = ADOPTED.read(key, |known| {
            Arc::ptr_eq(&known.future, &future.scope).then(|| known.scope.clone())
        });
        if again.is_some() {
            return again;
        }
        let span = ctx.span(id)?;
        let scope = future.inside(own);
        if let Some(cx) = exported {
            bridge::send(cx, SpanCommand::Adopt(scope.clone()));
            let trace = cx.span().span_context().trace_id();
            if future.remote_trace.is_some_and(|remote| remote != trace) {
                diagnostic::span_before_its_trace(span.metadata());
            }
        }
        let mut extensions = span.extensions_mut();
        if extensions.get_mut::<AdoptedSpan>().is_none() {
            extensions.insert(AdoptedSpan(key));
        }
        drop(extensions);
        let adoption = Adoption {
            future: future.scope.clone(),
            scope: scope.clone(),
        };
        ADOPTED.insert(key, adoption);
        ANY_ADOPTED.store(true, Ordering::Relaxed);
        Some(scope)
    }

    /// Emits a diagnostic if a span that was adopted before is entered in no session: the spans inside are in none.
    #[cold]
    pub(crate) fn warn_of_lost_session<S>(&self, id: &Id, ctx: &Context<'_, S>)
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        let was_adopted = ADOPTED.read(self.key(id), |_| Some(())).is_some();
        let is_in_session = || Scope::current().is_some_and(|scope| scope.id().is_some());
        if was_adopted && !is_in_session() {
            if let Some(span) = ctx.span(id) {
                diagnostic::adopted_span_outside(span.metadata());
            }
        }
        self.subscriber.flush_diagnostics();
    }

    /// Sets a session inside the current span, if it is adopted: until the span is exited, and again whenever the same
    /// future enters it. False if it isn't.
    pub(crate) fn set_in_adopted(&self, id: &Id, session: &Session) -> bool {
        let key = self.key(id);
        let known = ADOPTED.read(key, |it| Some((it.future.clone(), it.scope.clone())));
        let current = PolledScope::current();
        let (Some((future, scope)), Some(current)) = (known, current) else {
            return false;
        };
        if !Arc::ptr_eq(&scope, &current.scope) {
            return false;
        }
        let scope = Scope::nested(Some(scope), session);
        let adoption = Adoption {
            future,
            scope: scope.clone(),
        };
        ADOPTED.insert(key, adoption);
        tracked::replace_attached(key, || current.attach_inside(scope))
    }
}
