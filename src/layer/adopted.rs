//! Spans that a future adopts when they are entered, because they were created in no session: see `scope/polled.rs`.

use crate::base::diagnostic;
use crate::base::error::ErrorKind;
use crate::layer::spans::{LayerState, SessionExtension, SetSpan};
use crate::layer::tracked;
use crate::scope::bridge::SpanCommand;
use crate::scope::context::CurrentScope;
use crate::scope::polled::{PolledScope, SetBy};
use crate::scope::thread::Attached;
use crate::scope::tracking::{self, Adoption, TrackedGuard};
use crate::scope::{Scope, bridge, polled, thread};
use crate::session::Session;
use opentelemetry::Context as OtelContext;
use opentelemetry::trace::TraceContextExt;
use std::sync::Arc;
use tracing::Subscriber;
use tracing::span::{Attributes, Id};
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::{Extensions, LookupSpan};

/// In the extensions of an adopted span.
struct AdoptedSpan {
    _guard: TrackedGuard,
}

/// In the extensions of a span whose parent was given (`parent:`) where a session or user applied. If it was a session, no future
/// adopts the span. If it was a user alone, only a future with a session does.
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
        let future = polled::may_adopt().then(PolledScope::current).flatten()?;
        let is_apart = |apart: &Apart| apart.from_session || future.scope.id().is_none();
        let is_apart = ctx.span(id)?.extensions().get().is_some_and(is_apart);
        (!is_apart).then_some(future)
    }

    /// Adopts a span that the OpenTelemetry layer has just entered. `is_starting`: it started then.
    pub(crate) fn adopt_entered<S>(
        &self,
        id: &Id,
        ctx: &Context<'_, S>,
        future: &PolledScope,
        is_starting: bool,
    ) where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        // Most spans that are entered in a future were created there.
        let is_future = |own: Arc<Scope>| Arc::ptr_eq(&own, &future.scope);
        let is_created_here = |cx: &OtelContext| {
            let is_created_here = Scope::of(cx).is_some_and(is_future);
            if is_created_here {
                polled::entered(id, cx);
            }
            is_created_here
        };
        if !tracking::may_track(self.key(id)) && thread::map_current(is_created_here) == Some(true)
        {
            return;
        }
        let cx = thread::current();
        let last = tracking::adoption(self.key(id)).filter(|last| last.is_exported);
        let inside = self.adopt(id, ctx, future, Scope::of(&cx).as_ref(), is_starting);
        if let (Some(last), Some(inside)) = (last, &inside) {
            if !Arc::ptr_eq(&last.scope, &future.scope) {
                bridge::send(&cx, SpanCommand::EnterIn(inside.to_session()));
            }
        }
        let trace = cx.span().span_context().trace_id();
        if is_starting && future.remote_trace.is_some_and(|remote| remote != trace) {
            if let Some(span) = ctx.span(id).filter(|_| inside.is_some()) {
                diagnostic::span_before_its_trace(span.metadata());
            }
        }
        self.push_adopted(id, inside.map(|inside| future.attach_inside(inside)));
    }

    /// Remembers the enter of an adopted span, also an enter outside the future: each exit ends the last enter.
    pub(crate) fn push_adopted(&self, id: &Id, attached: Option<Attached>) {
        if attached.is_some() || tracking::is_tracked(self.key(id)) {
            self.push_entered(id, attached, false);
        }
    }

    /// Adopts a span whose own scope is `own`, if the future adopts it. Returns the scope that applies inside.
    pub(crate) fn adopt<S>(
        &self,
        id: &Id,
        ctx: &Context<'_, S>,
        future: &PolledScope,
        own: Option<&Arc<Scope>>,
        is_starting: bool,
    ) -> Option<Arc<Scope>>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        let key = self.key(id);
        let last = tracking::adoption(key);
        let is_exported = is_starting || last.as_ref().is_some_and(|it| it.is_exported);
        // The future keeps a span that it has adopted, whatever is recorded or set on the span.
        let last = last.filter(|last| last.future == future.poll.future);
        if let Some(last) = last
            .as_ref()
            .filter(|it| Arc::ptr_eq(&it.scope, &future.scope))
        {
            return Some(last.inside.clone());
        }
        let span = ctx.span(id)?;
        let set_by = set_by(&span.extensions());
        if last.is_none() && !future.adopts(own, set_by) {
            return None;
        }
        let set = last.map(|last| last.set).unwrap_or_default();
        let inside = future.inside(own, set_by);
        let adoption = Adoption {
            future: future.poll.future,
            scope: future.scope.clone(),
            inside: match set == Session::default() {
                true => inside,
                false => Scope::nested(Some(inside), &set),
            },
            set,
            is_exported,
        };
        let inside = adoption.inside.clone();
        let guard = tracking::adopt(key, adoption);
        let mut extensions = span.extensions_mut();
        if extensions.get_mut::<AdoptedSpan>().is_some() {
            guard.forget();
        } else {
            extensions.insert(AdoptedSpan { _guard: guard });
        }
        Some(inside)
    }

    /// Emits a diagnostic if a span that started in a future is entered in no session: the spans inside are in none.
    #[cold]
    pub(crate) fn warn_of_lost_session<S>(&self, id: &Id, ctx: &Context<'_, S>)
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        let key = self.key(id);
        let is_in_session = || Scope::current().is_some_and(|scope| scope.id().is_some());
        let was_adopted = tracking::adoption(key).is_some_and(|it| it.is_exported);
        if was_adopted && !thread::is_entered(key) && !is_in_session() {
            if let Some(span) = ctx.span(id) {
                diagnostic::adopted_span_outside(span.metadata());
            }
        }
    }

    /// Whether a span is the current one, and adopted: its explicit children inherit what contextual ones do.
    pub(crate) fn is_adopted_here(&self, id: &Id) -> bool {
        let key = self.key(id);
        tracking::adoption(key).is_some() && tracked::ensure_innermost(key).is_ok()
    }

    /// Sets a session inside the current span, if it is adopted: until the span is exited, and again whenever the same
    /// future enters it. `Ok(false)` if it isn't. An error if another `Context` is attached inside.
    pub(crate) fn set_in_adopted(&self, id: &Id, session: &Session) -> Result<bool, ErrorKind> {
        let key = self.key(id);
        let is_attached = thread::innermost(key).is_some_and(|(_, is_attached)| is_attached);
        let adoption = tracking::adoption(key).filter(|_| is_attached);
        let Some(adoption) = adoption else {
            return Ok(false);
        };
        tracked::ensure_innermost(key)?;
        let here = PolledScope::current().ok_or(ErrorKind::InsideValue)?;
        let inside = Scope::nested(Some(adoption.inside.clone()), session);
        let set = match session.is_exact {
            true => session.clone(),
            false => Session {
                is_exact: adoption.set.is_exact,
                ..session.inside(&adoption.set)
            },
        };
        let adoption = Adoption {
            inside: inside.clone(),
            set,
            ..adoption
        };
        // The span has the guard already.
        tracking::adopt(key, adoption).forget();
        tracked::replace_attached(key, || here.attach_inside(inside));
        Ok(true)
    }
}

fn set_by(extensions: &Extensions<'_>) -> SetBy {
    let is_opener = |it: &SessionExtension| it.opened.is_some();
    match extensions.get::<SetSpan>() {
        Some(_) => SetBy::Functions,
        None if extensions.get().is_some_and(is_opener) => SetBy::Fields,
        None => SetBy::Outside,
    }
}
