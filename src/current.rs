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

/// The current session, if there is one: its id, user, metadata, tags and the rest.
///
/// The function looks in OpenTelemetry's current `Context`. If that has no session, the
/// [default session](Session::set_global_default) applies.
///
/// The session is a snapshot: it doesn't contain values that are recorded later.
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

/// The id of the current session: [`current_session`] has the rest.
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
pub fn current_session_id() -> Option<String> {
    current_session()?.id().map(str::to_owned)
}

/// Sets the session id of the current span, and of spans that start under it from now on: see
/// [`Session::set_on_current_span`].
///
/// # Errors
///
/// When [`Session::new`] refuses the id, and those of [`Session::set_on_current_span`].
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
pub fn set_session_id(id: impl Display) -> Result<(), Error> {
    Session::new(id)?.set_on_current_span()
}

/// Sets the user of the current span, and of spans that start under it from now on: see
/// [`Session::set_on_current_span`].
///
/// # Errors
///
/// Those of [`set_session_id`].
///
/// ```
/// let error = tracing_session::set_user_id("u-7").unwrap_err();
/// assert!(error.is_no_span());
/// ```
pub fn set_user_id(id: impl Display) -> Result<(), Error> {
    Session::default().with_user(id)?.set_on_current_span()
}

/// Sets a new session on the current span, and returns it: see [`Session::set_on_current_span`].
///
/// The id comes from the environment, or is generated: see [`Session::from_env_or_generate`].
///
/// # Errors
///
/// Those of [`Session::from_env_or_generate`] and [`set_session_id`].
///
/// ```
/// let error = tracing_session::new_session().unwrap_err();
/// assert!(error.to_string().starts_with("no span here"));
/// ```
pub fn new_session() -> Result<Session, Error> {
    let session = Session::from_env_or_generate()?;
    session.set_on_current_span()?;
    Ok(session)
}

/// Exports the current session on the ancestors of the current span too: on each one of this trace in this
/// process that is still open. This trace is the one of OpenTelemetry's current span. Its ancestors are the spans that `tracing`
/// nests it in: if you attach a captured `Context` inside a span of the same trace, that span counts.
///
/// Backends show the first span of a trace. With this function that span carries an id that only a descendant
/// knew. The ancestors are marked, and nothing more: their other descendants don't inherit the session.
///
/// An ancestor gets only values that it lacks. One that already has another session or another user stays
/// unchanged, so no span ever carries the session of one conversation and the user of another. The same holds
/// for a span on which you set `session.id` or `user.id` with OpenTelemetry's API: this crate doesn't know the value.
/// A second call with the same session can add the user that was missing. Any other second call changes nothing.
///
/// The marks contain all values of the session but its [attributes](Session::with_attribute), because the
/// ancestor may have attributes with the same keys. Only ancestors that `tracing` created are found, and the
/// current span, with `tracing` or without.
///
/// Cost: about 0.7 µs for each of these spans, up to the first one that an earlier call has marked with the same session.
///
/// # Errors
///
/// When no session or user applies in the current span, when OpenTelemetry has no current span or one of another trace than
/// `tracing`, and in a sampler or span processor, while a span starts. It is no error where there is no span at all, because
/// a filter such as `RUST_LOG=warn` may have disabled them all.
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
        Some(session) => mark::mark_trace(&session, dispatch),
        // With all spans filtered out, there is no session that their fields set, and nothing to mark.
        None => ensure(!mark::is_in_span(dispatch), ErrorKind::NothingToMark),
    })
}

impl Session {
    /// Makes this the default session of the process: of all work that is in no other session.
    ///
    /// For a command-line agent, where one process is one session. Every root span carries it, also those made
    /// with OpenTelemetry's own API, and so does work whose headers contain no session. A session that you set
    /// elsewhere inherits the values that it doesn't have from this one, unless it is [exact](Self::exact). Nothing is
    /// outside the default session, so it makes no difference whether this session is exact. Default: none.
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
    /// which receive a [`Context`]. [`current_session`] returns the current one.
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

    /// Sets this session on the current span: on the span itself, and on spans that start under it from now on.
    ///
    /// For a handler that learns the conversation while its span is running. It sets the whole session: ids,
    /// metadata, tags and the rest. The span keeps inherited values that this session doesn't have. Ancestors and
    /// siblings of the span stay unchanged; see [`mark_trace`] for ancestors. A span starts when it
    /// is first entered, so a child that you created before and enter afterwards is in the new session. A child whose
    /// own fields set a value is an exception: it inherits the session that applied where it was created.
    ///
    /// A span that started with an id of its own keeps that id, and one warning names the span. Spans that start
    /// under it get the new id. Attributes of [`Session::with_attribute`] are written on spans that start under the current
    /// span, and not on the current span, which may have attributes with the same keys.
    ///
    /// An [exact](Self::exact) session, such as one that you read back, replaces all values of the span: values that it
    /// doesn't have are no longer inherited.
    ///
    /// On a span that was created before the future [`in_session`](crate::InSession::in_session) which enters it, the session
    /// applies in this future. If the span had started outside, it is not exported with it.
    ///
    /// Cost: about 1 µs.
    ///
    /// # Errors
    ///
    /// - When there is no current span.
    /// - When the current span is filtered out and in no session. With
    ///   [`SessionLayer::wrap_filtered`](crate::SessionLayer::wrap_filtered), the span may also set a session itself. Without
    ///   an OpenTelemetry layer there is no such error.
    /// - When a [`Session`], or another OpenTelemetry `Context`, is attached inside the current span, because it would
    ///   shadow the new session.
    /// - In a sampler or span processor, while a span starts, because the OpenTelemetry layer has locked that span.
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
        // `get_otel_context` starts a span that has not started yet, so a later `set_parent` on it fails. There is
        // no other way to its `Context`. `None`: the span is filtered out.
        let state = LayerState::of(dispatch);
        let cx = match state {
            Some(state) => state.otel_context(span),
            None => get_otel_context(span, dispatch),
        };
        let Some(cx) = cx else {
            // It isn't set on the nearest exported span instead: that one may have many descendants, each
            // with a user of its own.
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

    /// Sets the session on the span of `cx`. If no provider of this crate made the span, the error is `refused`.
    fn set_in(&self, cx: &Context, refused: ErrorKind) -> Result<(), Error> {
        // Where telemetry is suppressed, or the provider was shut down, the spans have no id to find their scope by.
        let has_id = cx.span().span_context().is_valid() || !cx.has_active_span();
        ensure(has_id, ErrorKind::FilteredOut)?;
        ensure(
            bridge::send(cx, SpanCommand::SetSession(self.clone())),
            refused,
        )
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
    ensure(!bridge::is_starting(), ErrorKind::Starting)
}
