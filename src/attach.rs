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
    /// Puts the session in force on this thread until the guard is dropped.
    ///
    /// Each value of this session stands before that of the session in force around it; a value
    /// that this one does not have is inherited.
    ///
    /// In asynchronous code use [`InSession::in_session`]: a guard that is held across an `.await`
    /// would be in force for other tasks, so it is not `Send`.
    ///
    /// Cost: about 1,500 instructions.
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

    /// Runs `f` with the session in force.
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

/// Keeps a session in force on this thread: see [`Session::attach`] and [`PropagatedContext::attach`].
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

/// Puts a session in force while a future runs, or a stream is polled.
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
    /// Wraps this so that `session` is in force whenever it is polled.
    ///
    /// The session goes where the future goes: into a spawned task, to another thread. A span that
    /// the future was given before, with `.instrument(span)` inside, stays in the session that it
    /// was made in.
    ///
    /// Cost: about 1,500 instructions for each poll.
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
