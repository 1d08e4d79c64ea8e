//! Attaching a session: for a block, a closure, a future or a stream.

use crate::scope::Scope;
use crate::scope::context::Attached;
use crate::session::Session;
use futures_core::Stream;
use pin_project_lite::pin_project;
use std::future::Future;
use std::pin::Pin;
use std::task;
use std::task::Poll;

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
    /// The session moves with the future: into a spawned task, to another thread. A span that was created before, as in
    /// `future.instrument(span).in_session(session)`, keeps the session of the place where it was created.
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
            inner: self,
            session: session.into_session(),
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
    note = "the current session is an `Option`: `current_session().unwrap_or_default()`"
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
    /// A future or stream with a session: see [`InSession::in_session`].
    ///
    /// ```
    /// use tracing_session::{InSession, Session, current::WithSession};
    ///
    /// fn in_chat<F: Future>(answer: F, session: &Session) -> WithSession<F> {
    ///     answer.in_session(session)
    /// }
    /// ```
    #[derive(Clone, Debug)]
    #[must_use = "futures and streams do nothing unless you `.await` or poll them"]
    pub struct WithSession<T> {
        #[pin]
        inner: T,
        session: Session,
    }
}

impl<T: Future> Future for WithSession<T> {
    type Output = T::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let _attached = this.session.attach();
        this.inner.poll(cx)
    }
}

impl<T: Stream> Stream for WithSession<T> {
    type Item = T::Item;

    fn poll_next(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.project();
        let _attached = this.session.attach();
        this.inner.poll_next(cx)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.inner.size_hint()
    }
}
