//! Attaching a session: for a block, a closure, a future or a stream.

use crate::scope::Scope;
use crate::scope::context::{self, CurrentScope, Poll};
use crate::scope::polled::Polling;
use crate::scope::thread::{self, Attached};
use crate::scope::tracking::{FutureId, SpanKey};
use crate::session::{IdKind, Session};
use futures_core::Stream;
use opentelemetry::Context;
use pin_project_lite::pin_project;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task;

impl Session {
    /// Makes this the current session on this thread until the guard is dropped.
    ///
    /// Each value of this session overrides the outer session's. Values that this one doesn't have are inherited.
    ///
    /// In asynchronous code use [`InSession::in_session`]: a guard that is held across an `.await` would apply to other
    /// tasks, so it isn't `Send`.
    ///
    /// Cost: about 0.5 µs.
    ///
    /// ```
    /// use tracing_session::{Session, current_session_id};
    ///
    /// let guard = Session::new("chat-42")?.attach();
    /// assert_eq!(current_session_id().as_deref(), Some("chat-42"));
    /// drop(guard);
    /// assert_eq!(current_session_id(), None);
    /// # Ok::<(), tracing_session::Error>(())
    /// ```
    pub fn attach(&self) -> SessionGuard {
        let scope = Scope::nested(Scope::current(), self);
        SessionGuard {
            _attached: scope.attach(),
        }
    }

    /// Runs `f` with this as the current session.
    ///
    /// ```
    /// use tracing_session::{Session, current_session_id};
    ///
    /// let inside = Session::new("chat-42")?.in_scope(current_session_id);
    /// assert_eq!(inside.as_deref(), Some("chat-42"));
    /// # Ok::<(), tracing_session::Error>(())
    /// ```
    pub fn in_scope<T>(&self, f: impl FnOnce() -> T) -> T {
        let _attached = self.attach();
        f()
    }
}

/// Keeps a session current on this thread: see [`Session::attach`] and [`PropagatedContext::attach`].
///
/// [`PropagatedContext::attach`]: crate::propagation::PropagatedContext::attach
///
/// ```compile_fail,E0277
/// fn needs_send<T: Send>(_: T) {}
/// needs_send(tracing_session::Session::generate().attach());
/// ```
#[derive(Debug)]
#[must_use = "the session is current only until the guard is dropped: `let _guard = ...`"]
pub struct SessionGuard {
    pub(crate) _attached: Attached,
}

/// Runs a future or a stream in a session.
///
/// ```
/// use tracing_session::{InSession, Session, current_session_id};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tracing_session::Error> {
/// let answer = async { current_session_id() };
/// assert_eq!(answer.in_session(Session::new("chat-42")?).await.as_deref(), Some("chat-42"));
/// # Ok(()) }
/// ```
pub trait InSession: Sized {
    /// Wraps the future or stream, so that `session` is current whenever it is polled. It takes a [`Session`] or a
    /// `&Session`.
    ///
    /// The session moves with the future: into a spawned task, to another thread. It is current too while the future is
    /// dropped, for the destructors of a future that was cancelled.
    ///
    /// # Spans that were created before
    ///
    /// A span that was created in no session, as in `future.instrument(span).in_session(session)`, is in the session too,
    /// with all spans inside. This applies to spans that are entered directly inside the future, not below another span of it.
    ///
    /// The span keeps nothing: entered outside the future, it is in no session, and its own
    /// [`Context`](tracing_opentelemetry::OpenTelemetrySpanExt::context) contains none, so inject the current `Context` into
    /// headers. What [`set_user_id`](crate::set_user_id) and its like set inside applies in this future only.
    ///
    /// The span is exported with the session in which it starts, when it is first entered. If it is entered in another
    /// session later, it is exported without any. If it had started before, because it was entered outside, or got a child
    /// with `parent: &span`, or was asked for its `Context`, it is exported as it was, and only the spans inside are in
    /// the session.
    ///
    /// A span that was created in another session keeps that one, unless it was created in the very place where the future
    /// is polled: then it moves into the future's session. A span of another user, and a span whose parent was given
    /// (`parent:`) where a session applied, stay as they are.
    ///
    /// Cost: about 0.5 µs for each poll.
    ///
    /// ```
    /// # use tracing_session::{InSession, Session};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tracing_session::Error> {
    /// let session = Session::new("chat-42")?;
    /// tokio::spawn(async { /* in the session too */ }.in_session(session)).await.unwrap();
    /// # Ok(()) }
    /// ```
    fn in_session(self, session: impl IntoSession) -> WithSession<Self> {
        WithSession {
            inner: Some(self),
            place: Place::Session {
                session: session.into_session(),
                future: FutureId::default(),
                polled: None,
            },
            last_span: SpanKey::NONE,
        }
    }
}

impl<T> InSession for T {}

/// What [`InSession::in_session`] takes: a [`Session`] or a reference to one.
///
/// The trait is sealed.
///
/// ```
/// use tracing_session::current::{InSession, IntoSession, WithSession};
///
/// fn in_chat<F: Future>(answer: F, session: impl IntoSession) -> WithSession<F> {
///     answer.in_session(session)
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a session: write `Session::new(id)?`",
    label = "expected a `Session` or `&Session`",
    note = "an id becomes a session with `Session::new(id)?`, and a `Result<Session, Error>` with `?`",
    note = "the current session is an `Option`: `current_session().unwrap_or_else(Session::nothing)`"
)]
pub trait IntoSession: sealed::Sealed {
    /// The session itself, or a clone of it.
    ///
    /// ```
    /// use tracing_session::{Session, current::IntoSession};
    ///
    /// let session = Session::new("chat-42")?;
    /// assert_eq!((&session).into_session(), session);
    /// # Ok::<(), tracing_session::Error>(())
    /// ```
    fn into_session(self) -> Session;
}

impl IntoSession for Session {
    fn into_session(self) -> Session {
        self
    }
}

impl IntoSession for &Session {
    fn into_session(self) -> Session {
        self.clone()
    }
}

mod sealed {
    use crate::session::Session;

    pub trait Sealed {}

    impl Sealed for Session {}
    impl Sealed for &Session {}
}

pin_project! {
    /// A future or stream in a session: see [`InSession::in_session`]. Or in the context in headers: see
    /// [`WithPropagated::with_propagated`](crate::propagation::WithPropagated::with_propagated).
    ///
    /// ```
    /// use tracing_session::{InSession, Session, current::WithSession};
    ///
    /// fn in_chat<F: Future>(answer: F, session: &Session) -> WithSession<F> {
    ///     answer.in_session(session)
    /// }
    /// ```
    #[derive(Debug)]
    #[must_use = "futures and streams do nothing unless you `.await` or poll them"]
    pub struct WithSession<T> {
        // `None` once the future is ready.
        #[pin]
        inner: Option<T>,
        place: Place,
        // The span that was entered last directly inside: see `scope/polled.rs`.
        last_span: SpanKey,
    }

    impl<T> PinnedDrop for WithSession<T> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            if this.inner.is_some() {
                let _attached = this.place.attach_to_drop(this.last_span);
                this.inner.set(None);
            }
        }
    }
}

/// What is set in a clone of a future doesn't apply in the future.
impl<T: Clone> Clone for WithSession<T> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            place: match self.place.clone() {
                Place::Context(cx) => Place::Context(context::for_clone(&cx)),
                Place::Session {
                    session, polled, ..
                } => Place::Session {
                    session,
                    future: FutureId::default(),
                    polled,
                },
            },
            last_span: SpanKey::NONE,
        }
    }
}

impl<T> WithSession<T> {
    /// A future in a `Context` that was extracted from headers, on top of the current one.
    pub(crate) fn in_context(inner: T, cx: &Context) -> Self {
        Self {
            inner: Some(inner),
            place: Place::Context(context::to_poll(cx, Scope::current())),
            last_span: SpanKey::NONE,
        }
    }

    /// Another future in the same place.
    #[cfg(feature = "tower")]
    pub(crate) fn with<U>(self: Pin<&mut Self>, inner: U) -> WithSession<U> {
        WithSession {
            inner: Some(inner),
            place: self.project().place.clone(),
            last_span: SpanKey::NONE,
        }
    }

    #[cfg(feature = "tower")]
    pub(crate) fn inner(&self) -> Option<&T> {
        self.inner.as_ref()
    }

    /// Calls `poll` in the session. `None`: the future was ready before.
    pub(crate) fn poll_with<R>(
        self: Pin<&mut Self>,
        poll: impl FnOnce(Pin<&mut T>) -> R,
    ) -> Option<R> {
        let this = self.project();
        let inner = this.inner.as_pin_mut()?;
        let _attached = this.place.attach_to_poll(this.last_span);
        Some(poll(inner))
    }
}

/// Where a future runs.
#[derive(Clone, Debug)]
enum Place {
    /// In this session, inside the one that is current where the future is polled.
    Session {
        session: Session,
        future: FutureId,
        /// The scope of the last poll, and the scope outside: the next poll is usually in the same one.
        polled: Option<(Option<Arc<Scope>>, Arc<Scope>)>,
    },
    /// In this `Context`, wherever the future is polled.
    Context(Context),
}

impl Place {
    fn attach_to_poll<'a>(&mut self, last_span: &'a mut SpanKey) -> Polling<'a> {
        let (session, future, polled) = match self {
            Self::Context(cx) => return Polling::new(thread::attach(cx.clone()), last_span),
            Self::Session {
                session,
                future,
                polled,
            } => (session, future.clone(), polled),
        };
        let address = |scope: &Option<Arc<Scope>>| scope.as_ref().map(Arc::as_ptr);
        let attached = thread::attach_changed(|cx| {
            let outer = Scope::of(cx);
            let last = polled
                .as_ref()
                .filter(|it| address(&it.0) == address(&outer));
            let scope = match last {
                Some((_, scope)) => scope.clone(),
                None => {
                    let scope = Scope::nested(outer.clone(), session);
                    *polled = Some((outer.clone(), scope.clone()));
                    *last_span = SpanKey::NONE;
                    scope
                }
            };
            let poll = Poll {
                replaced: outer,
                shadows: session.shadows(),
                future,
            };
            scope.entered_to_poll(cx, poll)
        });
        Polling::new(attached, last_span)
    }

    /// Attaches the session of the last poll while the future is dropped, wherever that is. If that place is in another
    /// session, or has another user, nothing of it applies: neither values nor the parent span. A span that was created in
    /// that very place moves into the future's session all the same, as if the future were polled there.
    fn attach_to_drop<'a>(&self, last_span: &'a mut SpanKey) -> Polling<'a> {
        let (session, future, polled) = match self {
            Self::Context(cx) => return Polling::new(thread::attach(cx.clone()), last_span),
            Self::Session {
                session,
                future,
                polled,
            } => (session, future.clone(), polled),
        };
        let polled = polled.as_ref().map(|(_, scope)| scope.clone());
        let own = polled
            .as_ref()
            .map_or(session.clone(), |it| it.to_session());
        let attached = thread::attach_changed(|cx| {
            let here = CurrentScope::under(cx).without_default();
            let is_other = |kind: IdKind| {
                let here = here.as_ref();
                here.is_some_and(|here| here.with_values(|here| kind.differs(here, &own)))
            };
            let is_elsewhere = IdKind::BOTH.into_iter().any(is_other);
            let scope = polled.unwrap_or_else(|| {
                let outer = here.clone().filter(|_| !is_elsewhere);
                Scope::nested(outer.or_else(Scope::global_default), session)
            });
            let outside = match cx.is_telemetry_suppressed() {
                true => Context::new().with_telemetry_suppressed(),
                false => Context::new(),
            };
            let cx = if is_elsewhere { &outside } else { cx };
            let poll = Poll {
                replaced: here,
                shadows: session.shadows(),
                future,
            };
            scope.entered_to_poll(cx, poll)
        });
        Polling::new(attached, last_span)
    }
}

impl<T: Future> Future for WithSession<T> {
    type Output = T::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> task::Poll<Self::Output> {
        let mut this = self.project();
        // Polled after it was ready, which the contract of futures forbids.
        let Some(inner) = this.inner.as_mut().as_pin_mut() else {
            return task::Poll::Pending;
        };
        let _attached = this.place.attach_to_poll(this.last_span);
        let output = inner.poll(cx);
        if output.is_ready() {
            // Dropped in the session, so that no session has to be attached for it later.
            this.inner.set(None);
        }
        output
    }
}

impl<T: Stream> Stream for WithSession<T> {
    type Item = T::Item;

    fn poll_next(
        self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
    ) -> task::Poll<Option<Self::Item>> {
        let next = self.poll_with(|inner| inner.poll_next(cx));
        next.unwrap_or(task::Poll::Ready(None))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.inner.as_ref().map_or((0, Some(0)), T::size_hint)
    }
}
