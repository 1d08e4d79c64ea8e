//! The methods of `Session` that use the current scope, and `InSession` for futures and streams.

use crate::error::{Error, ErrorKind};
use crate::handover::{self, Errand};
use crate::here::{self, Attached};
use crate::layer::opening::Shared;
use crate::layer::tracking;
use crate::scope::{Scope, in_force};
use crate::session::Session;
use futures_core::Stream;
use opentelemetry::Context as OtelContext;
use opentelemetry::trace::TraceContextExt;
use pin_project_lite::pin_project;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use tracing::{Dispatch, Level, dispatcher, event};
use tracing_opentelemetry::get_otel_context;

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
        let scope = Scope::nested(None, &self.clone().replaceable());
        ensure(scope.set_global_default(), ErrorKind::DefaultIsSet)
    }

    /// The session that applies under `cx`, if there is one: for samplers, span processors and log processors,
    /// which receive a [`Context`](OtelContext). [`current_session`](crate::current_session) returns the current one.
    ///
    /// ```
    /// use opentelemetry::Context;
    /// use tracing_session::Session;
    ///
    /// let cx = Session::new("chat-42")?.in_scope(Context::current);
    /// assert_eq!(Session::of(&cx).unwrap().id(), Some("chat-42"));
    /// # Ok::<(), tracing_session::Error>(())
    /// ```
    pub fn of(cx: &OtelContext) -> Option<Self> {
        let session = Scope::of(cx)?.to_session();
        (!session.is_empty()).then_some(session)
    }

    /// Sets this session on the current span: on the span itself, and on spans that start under it from now on.
    ///
    /// For a handler that learns the conversation while its span is running. It sets the whole session: ids,
    /// metadata, tags and the rest. The span keeps inherited values that this session doesn't have. Ancestors and
    /// siblings of the span stay unchanged; see [`mark_trace`](crate::mark_trace) for ancestors. A span starts when it
    /// is first entered, so a child that you created before and enter afterwards is in the new session. A child whose
    /// own fields set a value is an exception: it inherits the session that applied where it was created.
    ///
    /// A span that started with an id of its own keeps that id, and one warning names the span. Spans that start
    /// under it get the new id. Attributes of [`Session::with_attribute`] are written on spans that start under the current
    /// span, and not on the current span, which may have attributes with the same keys.
    ///
    /// Cost: about 1 µs.
    ///
    /// # Errors
    ///
    /// - When there is no current span.
    /// - When the current span is filtered out, unless [`SessionLayer::with_filter`](crate::SessionLayer::with_filter) or a
    ///   subscriber without an OpenTelemetry layer tracks it.
    /// - When a [`Session`] is attached inside the current span, because it would shadow the new one.
    /// - In a sampler or span processor, while a span starts, because the OpenTelemetry layer has locked that span.
    ///
    /// ```
    /// # use opentelemetry::trace::TracerProvider;
    /// # use opentelemetry_sdk::trace::SdkTracerProvider;
    /// # use tracing_session::{SessionLayer, SessionTracerProvider};
    /// # use tracing_subscriber::prelude::*;
    /// # let provider = SessionTracerProvider::new(SdkTracerProvider::default());
    /// # let otel = tracing_opentelemetry::layer().with_tracer(provider.tracer("chat"));
    /// # let _default = tracing_subscriber::registry().with(SessionLayer::new().around(otel)).set_default();
    /// use tracing_session::{Error, Session, current_session_id};
    ///
    /// #[tracing::instrument]
    /// fn handle(conversation: &str) -> Result<(), Error> {
    ///     let session = Session::new(conversation)?.with_user("u-7")?;
    ///     session.with_metadata("plan", "pro")?.set_on_current_span()?;
    ///     assert_eq!(current_session_id().as_deref(), Some(conversation));
    ///     Ok(())
    /// }
    ///
    /// handle("chat-42")?;
    /// # Ok::<(), Error>(())
    /// ```
    pub fn set_on_current_span(&self) -> Result<(), Error> {
        not_while_a_span_starts()?;
        dispatcher::get_default(|dispatch| match dispatch.current_span().id() {
            Some(span) => self.set_on(span, dispatch),
            // The current span was created without `tracing`, or there is none.
            None => {
                let is_shadowed = here::map(in_force::is_inside_span) == Some(true);
                ensure(!is_shadowed, ErrorKind::InsideValue)?;
                self.set_in(&here::get(), ErrorKind::NoSpan)
            }
        })
    }

    fn set_on(&self, span: &tracing::Id, dispatch: &Dispatch) -> Result<(), Error> {
        // `get_otel_context` starts a span that has not started yet, so a later `set_parent` on it fails. There is
        // no other way to its `Context`. `None`: the span is filtered out.
        let Some(cx) = get_otel_context(span, dispatch) else {
            // It isn't set on the nearest exported span instead: that one may have many descendants, each
            // with a user of its own.
            let scope = Scope::nested(Scope::current(), self);
            let shared = dispatch.downcast_ref::<Shared>();
            let is_set = shared.is_some_and(|it| tracking::bind(it, dispatch, span, scope));
            return ensure(is_set, ErrorKind::FilteredOut);
        };
        let own = cx.span().span_context().span_id();
        // A remote span context that is attached inside the span shadows it too.
        let shadows = |here: &OtelContext| {
            let span = here.span().span_context().clone();
            span.is_remote() || span.span_id() == own && in_force::is_inside_span(here)
        };
        ensure(here::map(shadows) != Some(true), ErrorKind::InsideValue)?;
        self.set_in(&cx, ErrorKind::NoProvider)
    }

    /// Sets the session on the span of `cx`. If no provider of this crate made the span, the error is `refused`.
    fn set_in(&self, cx: &OtelContext, refused: ErrorKind) -> Result<(), Error> {
        ensure(handover::ask(cx, Errand::Bind(self.clone())), refused)
    }

    /// Emits the event `session.start` of OpenTelemetry's semantic conventions: this session starts.
    ///
    /// It is an event of `tracing`, with the target `tracing_session` and the level `INFO`. The bridge of
    /// `opentelemetry-appender-tracing` turns it into a log record with this event name, and the OpenTelemetry
    /// layer adds it to the current span. The event has no fields with ids. It is emitted in the session, so
    /// `SessionLogProcessor` (feature `logs`) writes the redacted session on the record.
    ///
    /// A session that continues another one has the attribute `session.previous_id`. A
    /// [`Conversation`](crate::Conversation) sets it after a reset.
    ///
    /// Your filters must enable the event: `my_app=debug` alone disables it.
    ///
    /// ```
    /// use tracing_session::Session;
    ///
    /// let session = Session::new("chat-43")?.with_attribute("session.previous_id", "chat-42")?;
    /// session.emit_start();
    /// # Ok::<(), tracing_session::Error>(())
    /// ```
    pub fn emit_start(&self) {
        self.in_scope(|| {
            event!(name: "session.start", target: "tracing_session", Level::INFO, "session.start");
        });
    }

    /// Emits the event `session.end`: this session has ended. See [`emit_start`].
    ///
    /// ```
    /// use tracing_session::Session;
    ///
    /// Session::new("chat-42")?.emit_end();
    /// # Ok::<(), tracing_session::Error>(())
    /// ```
    ///
    /// [`emit_start`]: Self::emit_start
    pub fn emit_end(&self) {
        self.in_scope(|| {
            event!(name: "session.end", target: "tracing_session", Level::INFO, "session.end");
        });
    }
}

pub(crate) fn ensure(holds: bool, error: ErrorKind) -> Result<(), Error> {
    holds.then_some(()).ok_or_else(|| error.into())
}

/// The OpenTelemetry layer holds the lock of a span while it starts that span, and samplers and span processors
/// run meanwhile: reaching the span from there would deadlock.
pub(crate) fn not_while_a_span_starts() -> Result<(), Error> {
    ensure(!handover::is_starting(), ErrorKind::Starting)
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
#[must_use = "the session is current only until the guard is dropped"]
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
