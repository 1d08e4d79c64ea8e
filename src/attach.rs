//! A scope with no span: a `Session` in force for a block, a closure, or a future.

use crate::error::{Error, ErrorKind};
use crate::here::Attached;
use crate::scope::Scope;
use crate::session::Session;
use futures_core::Stream;
use pin_project_lite::pin_project;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

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
        SessionGuard::new(scope.attach())
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

    /// Makes this the default session of the process: of all work that is in no other session.
    ///
    /// For a command-line agent, where one process is one session. Every root span carries it, also those made
    /// with OpenTelemetry's own API, and so does work whose headers contain no session. Inside another
    /// session, values of the default session don't apply. Default: none.
    ///
    /// Libraries must not call this: the session belongs to the application.
    ///
    /// # Errors
    ///
    /// When the process has a default session already.
    ///
    /// ```
    /// use tracing_session::{Session, current_session_id};
    ///
    /// Session::new("cli-42")?.set_global_default()?;
    /// assert_eq!(current_session_id().as_deref(), Some("cli-42"));
    /// assert!(Session::generate().set_global_default().is_err());
    /// # Ok::<(), tracing_session::Error>(())
    /// ```
    pub fn set_global_default(&self) -> Result<(), Error> {
        match Scope::nested(None, &self.clone().replaceable()).set_global_default() {
            true => Ok(()),
            false => Err(ErrorKind::DefaultIsSet.into()),
        }
    }
}

/// Keeps a session current on this thread: see [`Session::attach`] and [`PropagatedContext::attach`].
///
/// [`PropagatedContext::attach`]: crate::PropagatedContext::attach
///
/// ```compile_fail,E0277
/// fn needs_send<T: Send>(_: T) {}
/// needs_send(tracing_session::Session::generate().attach());
/// ```
#[derive(Debug)]
#[must_use = "the session is in force only until the guard is dropped"]
pub struct SessionGuard {
    _attached: Attached,
}

impl SessionGuard {
    pub(crate) fn new(attached: Attached) -> Self {
        Self {
            _attached: attached,
        }
    }
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
    /// Wraps the future or stream, so that `session` is current whenever it is polled.
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
    fn in_session(self, session: Session) -> WithSession<Self> {
        WithSession {
            inner: self,
            session,
        }
    }
}

impl<T> InSession for T {}

pin_project! {
    /// A future or stream with a session: see [`InSession::in_session`].
    ///
    /// ```
    /// use tracing_session::{InSession, Session, WithSession};
    ///
    /// fn in_chat<F: Future>(answer: F, session: &Session) -> WithSession<F> {
    ///     answer.in_session(session.clone())
    /// }
    /// ```
    #[derive(Clone, Debug)]
    #[must_use = "futures and streams do nothing unless they are polled"]
    pub struct WithSession<T> {
        #[pin]
        inner: T,
        session: Session,
    }
}

impl<T: Future> Future for WithSession<T> {
    type Output = T::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let _attached = this.session.attach();
        this.inner.poll(cx)
    }
}

impl<T: Stream> Stream for WithSession<T> {
    type Item = T::Item;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.project();
        let _attached = this.session.attach();
        this.inner.poll_next(cx)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.inner.size_hint()
    }
}
