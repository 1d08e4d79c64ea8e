//! Attaching a session for a block, a closure, a future or a stream.

use crate::current::future::{Place, WithSession};
use crate::scope::Scope;
use crate::scope::polled::Polling;
use crate::scope::thread::Attached;
use crate::scope::tracking::SpanKey;
use crate::session::Session;

impl Session {
    /// Makes this the current session of this thread until the guard is dropped.
    ///
    /// The values of this session override those of an outer session. Missing values are inherited.
    ///
    /// In asynchronous code, use [`InSession::in_session`]. The guard isn't `Send`, because a guard that you hold
    /// across an `.await` would apply to other tasks on the thread.
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

    /// Runs a closure in this session.
    ///
    /// ```
    /// use tracing_session::{Session, current_session_id};
    ///
    /// let inside = Session::new("chat-42")?.in_scope(current_session_id);
    /// assert_eq!(inside.as_deref(), Some("chat-42"));
    /// # Ok::<(), tracing_session::Error>(())
    /// ```
    #[doc(alias = "using_session", alias = "propagate_attributes")]
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

/// Runs a future or stream in a session, or outside any session.
///
/// ```
/// use tracing_session::{InSession, Session, current_session_id};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tracing_session::Error> {
/// let answer = async { current_session_id() };
/// assert_eq!(answer.in_session(Session::new("chat-42")?).await.as_deref(), Some("chat-42"));
/// # Ok(()) }
/// ```
#[doc(alias = "using_session", alias = "propagate_attributes")]
pub trait InSession: Sized {
    /// Wraps a future or stream, and makes `session` current whenever it is polled.
    ///
    /// `session` is a [`Session`] or a `&Session`. It moves with the future into spawned tasks and to other threads. It
    /// is also current while the future is dropped, so the destructors of a cancelled future run in the session.
    ///
    /// Cost: about 0.5 µs for each poll.
    ///
    /// # Spans that are older than the session
    ///
    /// `future.instrument(span).in_session(session)` creates the span first. If you created the span in no session, the
    /// session still applies inside it, and new spans inside inherit the session. This works only for the outermost
    /// span that the future enters. If the future spawns a task with `in_current_span()` in this span, the task is in
    /// no session, because it enters the span outside the future.
    ///
    /// - The span itself is exported with the session only if it starts in the future, when it is first entered. It has
    ///   started earlier if you entered it outside, created a child with `parent: &span`, or got its `Context`.
    /// - A span that is entered in two sessions is exported with neither.
    /// - Outside the future, the span is in no session. [`set_user_id`](crate::set_user_id) and similar functions apply
    ///   in this future only. The span's own [`Context`](tracing_opentelemetry::OpenTelemetrySpanExt::context) has no
    ///   session, so inject the current `Context` into headers.
    ///
    /// A span that you created in another session keeps that session, with one exception: if the future is polled
    /// inside that session, the span takes the future's session. It doesn't if its user differs from the future's user,
    /// or if you gave it an explicit `parent:`.
    ///
    /// ```
    /// # use tracing_session::{InSession, Session};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tracing_session::Error> {
    /// let session = Session::new("chat-42")?;
    /// tokio::spawn(async { /* in the session too */ }.in_session(session)).await.unwrap();
    /// # Ok(()) }
    /// ```
    fn in_session(self, session: impl IntoSession) -> WithSession<Self> {
        WithSession::new(self, Place::in_session(session.into_session()))
    }

    /// Wraps a future or stream, and runs it in no session and no span, wherever it is polled or dropped.
    ///
    /// Use it for work that outlives the request that starts it, such as a pooled connection, a queue worker, a timer,
    /// or a shared cache. Otherwise the session and trace of the first request apply to all later requests. Inside,
    ///
    /// - no session applies except the [default session](Session::set_global_default);
    /// - new spans are roots of new traces;
    /// - [`Span::current`](tracing::Span::current) is the disabled span, so tasks that a library spawns with
    ///   `in_current_span()` are in no session either. This needs a subscriber that is built on
    ///   [`Registry`](tracing_subscriber::Registry).
    ///
    /// For a closure, use [`detached`]. If a library spawns tasks with your executor, as `hyper-util` does, write
    /// `tokio::spawn(future.detached())` in the executor's `execute`.
    ///
    /// Cost: about 50 ns for each poll, plus 30 ns for each span that is entered around the poll.
    ///
    /// ```
    /// use tracing_session::{InSession, Session, current_session_id};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tracing_session::Error> {
    /// let request = async {
    ///     // This worker serves later requests too.
    ///     let worker = tokio::spawn(async { current_session_id() }.detached());
    ///     worker.await.unwrap()
    /// };
    /// assert_eq!(request.in_session(Session::new("chat-42")?).await, None);
    /// # Ok(()) }
    /// ```
    fn detached(self) -> WithSession<Self> {
        WithSession::new(self, Place::Detached)
    }
}

impl<T> InSession for T {}

/// Runs a closure in no session and no span: see [`InSession::detached`].
///
/// ```
/// use tracing_session::{Session, current::detached, current_session_id};
///
/// Session::new("chat-42")?.in_scope(|| {
///     detached(|| assert_eq!(current_session_id(), None));
///     assert_eq!(current_session_id().as_deref(), Some("chat-42"));
/// });
/// # Ok::<(), tracing_session::Error>(())
/// ```
pub fn detached<T>(f: impl FnOnce() -> T) -> T {
    let mut last_span = SpanKey::NONE;
    let _detached = Polling::detached(&mut last_span);
    f()
}

/// A [`Session`] or a reference to one, for [`InSession::in_session`].
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
    /// Returns the session, or a clone of it.
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
