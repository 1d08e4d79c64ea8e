//! Adopted spans: spans that were created in no session and are entered in a future with one. See `scope/polled.rs`.

use crate::base::diagnostic;
use crate::base::error::ErrorKind;
use crate::layer::spans::{LayerState, SessionExtension, SetSpan};
use crate::layer::tracked;
use crate::scope::bridge::SpanCommand;
use crate::scope::context::{self, CurrentScope};
use crate::scope::polled::PolledScope;
use crate::scope::tracking::{self, Adoption, SetBy, TrackedGuard};
use crate::scope::{Scope, bridge, polled, thread};
use crate::session::{IdKind, Session};
use opentelemetry::Context as OtelContext;
use opentelemetry::trace::TraceContextExt;
use std::sync::Arc;
use tracing::Subscriber;
use tracing::span::{Attributes, Id};
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::{Extensions, LookupSpan};

/// In the extensions of an adopted span.
struct AdoptedSpan {
    guard: TrackedGuard,
}

/// In the extensions of a span that was created with an explicit `parent:` where a session or user applied. If a
/// session applied, no future adopts the span. If only a user applied, only a future with a session does.
struct Apart {
    from_session: bool,
}

impl LayerState {
    /// Adds [`Apart`] to a new span with an explicit parent or `parent: None`, if a session or user applies where it is
    /// created.
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

    /// Whether the span that is being entered may be tracked or adopted.
    #[inline(never)]
    pub(crate) fn may_need_care(&self, id: &Id) -> bool {
        thread::note_enter(id);
        let key = self.key(id);
        tracking::may_track(key) || (polled::may_adopt() && !polled::entered_again(key))
    }

    /// Handles the exit of a span. Not inlined, because that would slow down applications that poll no future in a
    /// session.
    #[inline(never)]
    pub(crate) fn exited(&self, id: &Id) {
        polled::exited(self.key(id));
        thread::note_exit(id);
    }

    /// The future that may adopt the span that is being entered.
    pub(crate) fn adopting_future<S>(&self, id: &Id, ctx: &Context<'_, S>) -> Option<PolledScope>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        let future = polled::may_adopt().then(PolledScope::current).flatten()?;
        let is_apart = |apart: &Apart| apart.from_session || future.scope.id().is_none();
        let is_apart = ctx.span(id)?.extensions().get().is_some_and(is_apart);
        (!is_apart).then_some(future)
    }

    /// Adopts a span that the OpenTelemetry layer has just entered. `is_starting`: this enter started it.
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
            context::poll_of(cx).is_none() && Scope::of(cx).is_some_and(is_future)
        };
        let key = self.key(id);
        if !tracking::is_tracked(key) && thread::map_current(is_created_here) == Some(true) {
            return polled::entered(key);
        }
        let cx = thread::current();
        let is_hidden = || context::poll_of(&cx).is_some() && self.otel_context(id).is_none();
        // Inside a filtered-out span of no session, the current scope is the one outside, not the span's own.
        let own = Scope::of(&cx).filter(|_| !is_hidden());
        let this = &future.poll.future;
        let is_same = |it: Adoption| Arc::ptr_eq(&it.scope, &future.scope);
        let is_known = tracking::adoption(key, this).is_some_and(is_same);
        let inside = self.adopt(id, ctx, future, own.as_ref(), is_starting);
        if is_starting {
            // Other threads may have entered the span before this thread recorded that it has started.
            for other in tracking::other_adoptions(key, this) {
                bridge::send(&cx, SpanCommand::EnterIn(other.inside.to_session()));
            }
        } else if let Some(inside) = inside.as_ref().filter(|_| !is_known) {
            if tracking::is_exported(key) {
                bridge::send(&cx, SpanCommand::EnterIn(inside.to_session()));
            }
        }
        let trace = cx.span().span_context().trace_id();
        if is_starting && future.remote_trace.is_some_and(|remote| remote != trace) {
            if let Some(span) = ctx.span(id).filter(|_| inside.is_some()) {
                diagnostic::span_before_its_trace(span.metadata());
            }
        }
        self.push_adopted(id, inside.map(|inside| (future, inside)));
    }

    /// Pushes the enter of an adopted span, also outside the future, because each exit pops the last enter.
    pub(crate) fn push_adopted(&self, id: &Id, inside: Option<(&PolledScope, Arc<Scope>)>) {
        if inside.is_some() || tracking::is_tracked(self.key(id)) {
            let attached = inside
                .as_ref()
                .map(|(future, inside)| future.attach_inside(inside.clone()));
            self.push_entered(id, attached, inside.map(|it| it.1), false);
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
        // A future keeps the spans that it has adopted, even if values are recorded or set on them.
        let this = &future.poll.future;
        let last = tracking::adoption(key, this);
        if let Some(last) = last
            .as_ref()
            .filter(|it| Arc::ptr_eq(&it.scope, &future.scope))
        {
            return Some(last.inside.clone());
        }
        let span = ctx.span(id)?;
        let mut adoption = match last {
            Some(last) => Adoption {
                inside: future.inside(last.own.as_ref(), last.set_by),
                scope: future.scope.clone(),
                ..last
            },
            None => {
                let set_by = set_by(&span.extensions());
                if !future.adopts(own, set_by) {
                    return None;
                }
                let inside = future.inside(own, set_by);
                let scope = future.scope.clone();
                Adoption::new(this, scope, own.cloned(), set_by, inside)
            }
        };
        if adoption.set != Session::default() {
            adoption.inside = Scope::nested(Some(adoption.inside), &adoption.set);
        }
        let inside = adoption.inside.clone();
        let guard = tracking::adopt(key, this, adoption, is_starting);
        let mut extensions = span.extensions_mut();
        // The guard may be of a layer that was replaced, which has another key.
        match extensions.get_mut::<AdoptedSpan>() {
            Some(it) if it.guard.is_of(key) => guard.forget(),
            _ => {
                let replaced = extensions.replace(AdoptedSpan { guard });
                drop(extensions);
                drop(replaced);
            }
        }
        Some(inside)
    }

    /// The session in which a span is entered now, if the span started in a future.
    pub(crate) fn other_session(&self, id: &Id) -> Option<Session> {
        let here = tracking::is_exported(self.key(id)).then(Scope::current)??;
        here.id_unless_default(IdKind::Session)
            .map(|_| here.to_session())
    }

    /// A span was entered outside the future in which it started, in the session `other`. If there is none, emits a
    /// diagnostic: the spans inside are in no session.
    #[cold]
    pub(crate) fn leave_future<S>(&self, id: &Id, ctx: &Context<'_, S>, other: Option<Session>)
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        let key = self.key(id);
        let is_in_session = || Scope::current().is_some_and(|scope| scope.id().is_some());
        if let Some(other) = other {
            bridge::send(&thread::current(), SpanCommand::EnterIn(other));
        }
        if tracking::is_exported(key) && !thread::is_entered(key) && !is_in_session() {
            if let Some(span) = ctx.span(id) {
                diagnostic::adopted_span_outside(span.metadata());
            }
        }
    }

    /// The `Context` inside the explicit parent of a new span, if the parent is adopted and entered on this thread.
    pub(crate) fn inside_adopted_parent(&self, attrs: &Attributes<'_>) -> Option<OtelContext> {
        let parent = attrs.parent()?;
        let inside = thread::adopted_scope(self.key(parent))?;
        if tracked::ensure_innermost(self.key(parent)).is_ok() {
            return Some(thread::current());
        }
        // A filtered-out parent has no `Context`, and a parent behind `reload::Layer` has one that no downcast reaches.
        let parent = self.otel_context(parent);
        Some(inside.entered(&parent.unwrap_or_else(thread::current)))
    }

    /// Sets a session inside the current span, if the span is adopted. It applies until the span is exited, and again
    /// whenever the same future enters the span. `Ok(false)`: the span isn't adopted. An error if another `Context` is
    /// attached inside.
    pub(crate) fn set_in_adopted(&self, id: &Id, session: &Session) -> Result<bool, ErrorKind> {
        let key = self.key(id);
        let is_attached = thread::innermost(key).is_some_and(|(_, is_attached)| is_attached);
        if !is_attached || thread::adopted_scope(key).is_none() {
            return Ok(false);
        }
        tracked::ensure_innermost(key)?;
        let here = PolledScope::current().ok_or(ErrorKind::InsideValue)?;
        let adoption = tracking::adoption(key, &here.poll.future).ok_or(ErrorKind::InsideValue)?;
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
        // The span's extensions have the guard already.
        tracking::adopt(key, &here.poll.future, adoption, false).forget();
        let attach = || here.attach_inside(inside.clone());
        tracked::replace_attached(key, Some(inside.clone()), attach);
        let here = &here.poll.future;
        let command = match tracking::started_in(key, here) {
            true => SpanCommand::SetInside(session.clone()),
            false => SpanCommand::EnterIn(inside.to_session()),
        };
        if tracking::is_exported(key) {
            bridge::send(&thread::current(), command);
        }
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
