//! Attaching a session: for a block, a closure, a future or a stream.

use crate::current::future::{Place, WithSession};
use crate::scope::Scope;
use crate::scope::polled::Polling;
use crate::scope::thread::Attached;
use crate::scope::tracking::SpanKey;
use crate::session::Session;

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
        WithSession::new(self, Place::in_session(session.into_session()))
    }

    /// Wraps the future or stream, so that it runs in no session and no span, wherever it is polled or dropped.
    ///
    /// For work that outlives the request which starts it: a connection of a pool, a queue worker, a timer, a cache that
    /// loads a value for everybody. Otherwise the session and the trace of the first request apply to all later
    /// ones. Inside,
    ///
    /// - no session applies but the [default session](Session::set_global_default);
    /// - new spans are roots of new traces;
    /// - [`Span::current`](tracing::Span::current) is the disabled span, so tasks that a library spawns with
    ///   `in_current_span()` are in no session either.
    ///
    /// A subscriber that isn't built on [`Registry`](tracing_subscriber::Registry) keeps its current span.
    ///
    /// Use [`detached`](crate::current::detached) for a closure. A library that takes an executor, such as `hyper-util`,
    /// spawns its tasks in the executor's `execute`: write `tokio::spawn(future.detached())` there.
    ///
    /// Cost: about 50 ns for each poll, and 30 ns for each span that is entered where the future is polled.
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

/// Runs `f` in no session and no span: see [`InSession::detached`].
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
