//! Futures and streams in a session, and the `Context` that is current while they are polled or dropped.

use crate::scope::Scope;
use crate::scope::context::{self, CurrentScope, Poll};
use crate::scope::polled::Polling;
use crate::scope::thread;
use crate::scope::tracking::{FutureId, SpanKey};
use crate::session::{IdKind, Session};
use futures_core::Stream;
use opentelemetry::Context;
use pin_project_lite::pin_project;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task;

pin_project! {
    /// A future or stream that runs in a session, in a context from headers, or detached.
    ///
    /// See [`InSession::in_session`], [`WithPropagated::with_propagated`] and [`InSession::detached`].
    ///
    /// [`InSession::in_session`]: crate::InSession::in_session
    /// [`InSession::detached`]: crate::InSession::detached
    /// [`WithPropagated::with_propagated`]: crate::propagation::WithPropagated::with_propagated
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

/// Sessions that are set in a clone don't apply in the original future.
impl<T: Clone> Clone for WithSession<T> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            place: self.place.for_clone(),
            last_span: SpanKey::NONE,
        }
    }
}

impl<T> WithSession<T> {
    pub(super) fn new(inner: T, place: Place) -> Self {
        Self {
            inner: Some(inner),
            place,
            last_span: SpanKey::NONE,
        }
    }

    /// Wraps a future in a `Context` that was extracted from headers, on top of the current one.
    pub(crate) fn in_context(inner: T, cx: &Context) -> Self {
        Self::new(
            inner,
            Place::Context(context::to_poll(cx, Scope::current())),
        )
    }

    /// Wraps another future with the same session or context.
    #[cfg(feature = "tower")]
    pub(crate) fn with<U>(self: Pin<&mut Self>, inner: U) -> WithSession<U> {
        WithSession::new(inner, self.project().place.clone())
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
pub(super) enum Place {
    /// In this session, inside the current session at the poll.
    Session {
        session: Session,
        future: FutureId,
        /// The scopes of the last poll, outside and inside. They are reused if the next poll has the same scope
        /// outside.
        polled: Option<(Option<Arc<Scope>>, Arc<Scope>)>,
    },
    /// In this `Context`, wherever the future is polled.
    Context(Context),
    /// In no session and no span.
    Detached,
}

impl Place {
    pub(super) fn in_session(session: Session) -> Self {
        Self::Session {
            session,
            future: FutureId::default(),
            polled: None,
        }
    }

    /// The place for a clone of the future.
    fn for_clone(&self) -> Self {
        match self.clone() {
            Self::Context(cx) => Self::Context(context::for_clone(&cx)),
            Self::Session {
                session, polled, ..
            } => Self::Session {
                session,
                future: FutureId::default(),
                polled,
            },
            Self::Detached => Self::Detached,
        }
    }

    fn attach_to_poll<'a>(&mut self, last_span: &'a mut SpanKey) -> Polling<'a> {
        let (session, future, polled) = match self {
            Self::Context(cx) => return Polling::new(thread::attach(cx.clone()), last_span),
            Self::Detached => return Polling::detached(last_span),
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

    /// Attaches the session of the last poll while the future is dropped, which may happen anywhere. If another session
    /// or user is current there, the future inherits neither its values nor its span. The future adopts spans that were
    /// created in the current scope, as it does in a poll.
    fn attach_to_drop<'a>(&self, last_span: &'a mut SpanKey) -> Polling<'a> {
        let (session, future, polled) = match self {
            Self::Context(cx) => return Polling::new(thread::attach(cx.clone()), last_span),
            Self::Detached => return Polling::detached(last_span),
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
            let outside = thread::outside(cx);
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
        // The contract of futures forbids polling after `Ready`.
        let Some(inner) = this.inner.as_mut().as_pin_mut() else {
            return task::Poll::Pending;
        };
        let _attached = this.place.attach_to_poll(this.last_span);
        let output = inner.poll(cx);
        if output.is_ready() {
            // Drop it here, because its session is attached already.
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
