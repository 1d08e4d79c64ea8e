//! Functions that read the current session, or set it on the current span.

pub(crate) mod attach;
pub(crate) mod future;
pub(crate) mod macros;
mod mark;

pub use self::attach::{InSession, IntoSession, SessionGuard, detached};
pub use self::future::WithSession;

use crate::base::error::{Error, ErrorKind};
use crate::layer::spans::LayerState;
use crate::layer::tracked;
use crate::scope::bridge::SpanCommand;
use crate::scope::{Scope, bridge, context, thread};
use crate::session::Session;
use opentelemetry::Context;
use opentelemetry::trace::TraceContextExt;
use std::fmt::Display;
use tracing::{Dispatch, Level, dispatcher, event};
use tracing_opentelemetry::get_otel_context;

/// Returns the current session, if there is one.
///
/// It reads OpenTelemetry's current `Context`. If the `Context` has no session, the [default
/// session](Session::set_global_default) applies. The result is a snapshot, without values that are recorded later.
///
/// Cost: about 0.1 µs.
///
/// ```
/// use tracing_session::{Session, current_session};
///
/// assert_eq!(current_session(), None);
/// let session = Session::new("chat-42")?;
/// assert_eq!(session.in_scope(current_session), Some(session));
/// # Ok::<(), tracing_session::Error>(())
/// ```
pub fn current_session() -> Option<Session> {
    thread::map_current(Session::of).flatten()
}

/// Returns the id of the current session. For its other values, use [`current_session`].
///
/// Cost: about 0.1 µs, because it copies the id.
///
/// ```
/// use tracing_session::{Session, current_session_id};
///
/// let id = Session::new("chat-42")?.in_scope(current_session_id);
/// assert_eq!(id.as_deref(), Some("chat-42"));
/// # Ok::<(), tracing_session::Error>(())
/// ```
#[doc(alias = "conversation_id", alias = "thread_id")]
pub fn current_session_id() -> Option<String> {
    current_session()?.id().map(str::to_owned)
}

/// Sets the session id of the current span, and of spans that start under it from now on.
///
/// It works like [`Session::set_on_current_span`]. Cost: about 1 µs.
///
/// # Errors
///
/// If the id is invalid (see [`Session::new`]), or if [`Session::set_on_current_span`] returns an error.
///
/// ```
/// # use opentelemetry::trace::TracerProvider;
/// # use opentelemetry_sdk::trace::SdkTracerProvider;
/// # use tracing_session::{SessionLayer, SessionTracerProvider};
/// # use tracing_subscriber::prelude::*;
/// # let provider = SessionTracerProvider::new(SdkTracerProvider::default());
/// # let otel = tracing_opentelemetry::layer().with_tracer(provider.tracer("chat"));
/// # let _default = tracing_subscriber::registry().with(SessionLayer::new().wrap(otel)).set_default();
/// use tracing_session::{current_session_id, set_session_id};
///
/// #[tracing::instrument]
/// fn handle(conversation: &str) -> Result<(), tracing_session::Error> {
///     set_session_id(conversation)?;
///     assert_eq!(current_session_id().as_deref(), Some(conversation));
///     Ok(())
/// }
///
/// handle("chat-42")?;
/// assert_eq!(current_session_id(), None);
/// # Ok::<(), tracing_session::Error>(())
/// ```
#[doc(alias = "conversation_id", alias = "thread_id")]
pub fn set_session_id(id: impl Display) -> Result<(), Error> {
    Session::new(id)?.set_on_current_span()
}

/// Sets the user id of the current span, and of spans that start under it from now on.
///
/// It works like [`Session::set_on_current_span`]. Cost: about 1 µs.
///
/// # Errors
///
/// If the id is invalid (see [`Session::new`]), or if [`Session::set_on_current_span`] returns an error.
///
/// ```
/// let error = tracing_session::set_user_id("u-7").unwrap_err();
/// assert!(error.is_no_span());
/// ```
pub fn set_user_id(id: impl Display) -> Result<(), Error> {
    Session::default().with_user(id)?.set_on_current_span()
}

/// Creates a session, sets it on the current span, and returns it.
///
/// The id comes from the environment or is generated: see [`Session::from_env_or_generate`].
///
/// # Errors
///
/// If [`Session::from_env_or_generate`] or [`Session::set_on_current_span`] returns an error.
///
/// ```
/// let error = tracing_session::new_session().unwrap_err();
/// assert!(error.to_string().starts_with("there is no current span"));
/// ```
pub fn new_session() -> Result<Session, Error> {
    let session = Session::from_env_or_generate()?;
    session.set_on_current_span()?;
    Ok(session)
}

/// Adds the current session to the current span and to its open ancestors.
///
/// Backends show the first span of a trace. If only a handler inside knows the session, call this function there: then
/// the first span is exported with the session as well.
///
/// - It marks the current span, and those of its open `tracing` ancestors that are in the same trace. It can't mark
///   ancestors that `tracing` didn't create, or that are in another process.
/// - Siblings of the current span, and other branches under a marked ancestor, don't get the session.
/// - A marked span gets the values that it lacks, except your own [attributes](Session::with_attribute), because the
///   span may have attributes with the same keys.
/// - A span that already has another session or user stays unchanged, so no span mixes two conversations. This includes
///   a span on which you set `session.id` or `user.id` with OpenTelemetry's API.
/// - A second call with the same session can add a missing user. Any other second call changes nothing on a span
///   that is already marked.
///
/// Cost: about 0.7 µs for each marked span. It stops at a span that an earlier call has marked with the same session.
///
/// # Errors
///
/// - If a span is current, but no session or user applies in it.
/// - If the current span of OpenTelemetry belongs to another trace than the current span of `tracing`.
/// - If a sampler or span processor calls it while a span starts.
///
/// Without a current span it does nothing, because a filter such as `RUST_LOG=warn` may have disabled all spans.
///
/// ```
/// # use opentelemetry::trace::TracerProvider;
/// # use opentelemetry_sdk::trace::SdkTracerProvider;
/// # use tracing_session::{SessionLayer, SessionTracerProvider};
/// # use tracing_subscriber::prelude::*;
/// # let provider = SessionTracerProvider::new(SdkTracerProvider::default());
/// # let otel = tracing_opentelemetry::layer().with_tracer(provider.tracer("chat"));
/// # let _default = tracing_subscriber::registry().with(SessionLayer::new().wrap(otel)).set_default();
/// use tracing_session::{mark_trace, set_session_id};
///
/// let _http = tracing::info_span!("HTTP request").entered();
/// let _handler = tracing::info_span!("chat").entered();
/// set_session_id("chat-42")?;
/// mark_trace()?; // and the HTTP request carries it as well
/// # Ok::<(), tracing_session::Error>(())
/// ```
pub fn mark_trace() -> Result<(), Error> {
    not_while_a_span_starts()?;
    let has_id = |it: &Session| it.id().is_some() || it.user_id().is_some();
    dispatcher::get_default(|dispatch| match current_session().filter(has_id) {
        // No error if a filter has disabled all spans: there is nothing to mark.
        _ if !mark::is_in_span(dispatch) => Ok(()),
        Some(session) => mark::mark_trace(&session, dispatch),
        None => Err(ErrorKind::NothingToMark.into()),
    })
}

impl Session {
    /// Makes this the default session of the process, which applies wherever no other session is current.
    ///
    /// Use it in a command-line agent, where one process is one session. Every root span gets the default session,
    /// including spans of OpenTelemetry's own API. Requests whose headers contain no session get it too. Other
    /// sessions inherit missing values from it, unless they are [exact](Self::exact).
    ///
    /// Libraries must not call this method, because the session belongs to the application.
    ///
    /// # Errors
    ///
    /// If the process already has a default session.
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

    /// Returns the session that applies under `cx`, for samplers, span processors and log processors.
    ///
    /// They receive a [`Context`]. Elsewhere, use [`current_session`].
    ///
    /// ```
    /// use opentelemetry::Context;
    /// use tracing_session::Session;
    ///
    /// let cx = Session::new("chat-42")?.in_scope(Context::current);
    /// assert_eq!(Session::of(&cx).unwrap().id(), Some("chat-42"));
    /// # Ok::<(), tracing_session::Error>(())
    /// ```
    pub fn of(cx: &Context) -> Option<Self> {
        let session = Scope::of(cx)?.to_session().exact();
        (!session.is_empty()).then_some(session)
    }

    /// Sets this session on the current span, and on spans that start under it from now on.
    ///
    /// Use it in a handler that learns the conversation while its span is running. It sets all values of this session.
    /// Missing values are still inherited, unless this session is [exact](Self::exact).
    ///
    /// - Ancestors and siblings of the span stay unchanged. For ancestors, use [`mark_trace`].
    /// - Creating a span doesn't start it; entering it does. A child that you created before this call and enter after
    ///   it gets this session, unless the child's own fields set a value. Then it keeps the session that applied where
    ///   you created it.
    /// - If the span started with a session or user id, it is exported with the first id, and a warning names the span.
    ///   Spans that start under it get the new id.
    /// - Your own [attributes](Self::with_attribute) are only added to spans that start under the current span, because
    ///   the current span may have attributes with the same keys.
    /// - If you created the span before you called [`in_session`](crate::InSession::in_session) on the future that
    ///   enters it, this session applies only inside this future. If the span started outside the future, it isn't
    ///   exported with this session.
    ///
    /// Cost: about 1 µs.
    ///
    /// # Errors
    ///
    /// - If there is no current span.
    /// - If the current span is filtered out, and no session applies in it.
    /// - If the tracer of the current span doesn't come from a [`SessionTracerProvider`](crate::SessionTracerProvider).
    /// - If a [`Session`] or another OpenTelemetry `Context` is attached inside the current span, because it would
    ///   shadow this session.
    /// - If a sampler or span processor calls it while a span starts, because the OpenTelemetry layer has locked that
    ///   span.
    ///
    /// ```
    /// # use opentelemetry::trace::TracerProvider;
    /// # use opentelemetry_sdk::trace::SdkTracerProvider;
    /// # use tracing_session::{SessionLayer, SessionTracerProvider};
    /// # use tracing_subscriber::prelude::*;
    /// # let provider = SessionTracerProvider::new(SdkTracerProvider::default());
    /// # let otel = tracing_opentelemetry::layer().with_tracer(provider.tracer("chat"));
    /// # let _default = tracing_subscriber::registry().with(SessionLayer::new().wrap(otel)).set_default();
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
                let is_shadowed = thread::map_current(context::is_inside_span) == Some(true);
                ensure(!is_shadowed, ErrorKind::InsideValue)?;
                self.set_in(&thread::current(), ErrorKind::NoSpan)
            }
        })
    }

    fn set_on(&self, span: &tracing::Id, dispatch: &Dispatch) -> Result<(), Error> {
        // `get_otel_context` starts a span that has not started yet, so a later `set_parent` on it fails. There is no
        // other way to get its `Context`. `None`: the span is filtered out.
        let state = LayerState::of(dispatch);
        let cx = match state {
            Some(state) => state.otel_context(span),
            None => get_otel_context(span, dispatch),
        };
        let Some(cx) = cx else {
            // Don't set it on the nearest exported ancestor instead: the ancestor may have many descendants, each with
            // another user.
            let state = state.ok_or(ErrorKind::FilteredOut)?;
            return Ok(tracked::set_session(state, dispatch, span, self)?);
        };
        // If the `Context` of another span is attached inside this one, or an empty one, it shadows this span.
        let shadows = |here: &Context| {
            here.span().span_context() != cx.span().span_context() || context::is_inside_span(here)
        };
        let is_activated = state.is_none_or(|it| it.setup.wrapped.is_activation_on());
        ensure(
            !is_activated || thread::map_current(shadows) != Some(true),
            ErrorKind::InsideValue,
        )?;
        if let Some(state) = state {
            if state.set_in_adopted(span, self)? {
                return Ok(());
            }
        }
        self.set_in(&cx, ErrorKind::NoProvider)?;
        if let Some(state) = state {
            state.set_span(dispatch, span);
        }
        Ok(())
    }

    /// Sets the session on the span of `cx`. `refused`: the error if the span isn't a span of this crate.
    fn set_in(&self, cx: &Context, refused: ErrorKind) -> Result<(), Error> {
        // If telemetry is suppressed or the provider was shut down, the span has no id, so its scope couldn't be found.
        let has_id = cx.span().span_context().is_valid() || !cx.has_active_span();
        ensure(has_id, ErrorKind::FilteredOut)?;
        ensure(
            bridge::send(cx, SpanCommand::SetSession(self.clone())),
            refused,
        )
    }

    /// Emits the event `session.start` of OpenTelemetry's semantic conventions.
    ///
    /// The event is a `tracing` event with the target `tracing_session` and the level `INFO`.
    /// `opentelemetry-appender-tracing` turns it into a log record, and the OpenTelemetry layer adds it to the current
    /// span. The event has no fields. It is emitted inside the session, so `SessionLogProcessor` (feature `logs`) adds
    /// the session (redacted by its `Privacy`, if you set one) to the log record.
    ///
    /// If the session continues another one, set the attribute `session.previous_id`.
    /// [`Conversation::reset`](crate::Conversation::reset) sets it for you.
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

    /// Emits the event `session.end` of OpenTelemetry's semantic conventions: see [`emit_start`].
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

/// An error in a sampler or span processor that runs while a span starts. The OpenTelemetry layer holds the lock of
/// that span, so a command to it would deadlock.
pub(crate) fn not_while_a_span_starts() -> Result<(), Error> {
    ensure(!bridge::is_starting(), ErrorKind::Starting)
}
