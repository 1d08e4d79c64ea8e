//! The current session, and setting it on the current span.

use crate::error::{Error, ErrorKind};
use crate::handover::{self, Errand};
use crate::here;
use crate::layer::opening::Shared;
use crate::layer::tracking;
use crate::scope::Scope;
use crate::scope::in_force;
use crate::session::Session;
use opentelemetry::Context;
use opentelemetry::trace::TraceContextExt;
use std::fmt::Display;
use tracing::{Dispatch, dispatcher};
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
    here::map(Session::of).flatten()
}

impl Session {
    /// The session that applies under `cx`, if there is one: for samplers, span processors and log processors,
    /// which receive a [`Context`]. [`current_session`](crate::current_session) returns the current one.
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
        let session = Scope::of(cx)?.to_session();
        (!session.is_empty()).then_some(session)
    }
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

impl Session {
    /// Sets this session on the current span: on the span itself, and on spans that start under it from now on.
    ///
    /// For a handler that learns the conversation while its span is running. It sets the whole session: ids,
    /// metadata, tags and the rest. The span keeps inherited values that this session doesn't have. Ancestors and
    /// siblings of the span stay unchanged; see [`mark_trace`] for ancestors. A span starts when it is first
    /// entered, so a child that you created before and enter afterwards is in the new session. A child whose own
    /// fields set a value is an exception: it inherits the session that applied where it was created.
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
        set_on_current_span(self)
    }
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
/// # let _default = tracing_subscriber::registry().with(SessionLayer::new().around(otel)).set_default();
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

fn set_on_current_span(session: &Session) -> Result<(), Error> {
    not_while_a_span_starts()?;
    dispatcher::get_default(|dispatch| {
        let Some(span) = dispatch.current_span().id().cloned() else {
            // A span that was made without `tracing`, or none.
            if here::map(in_force::is_inside_span) == Some(true) {
                return Err(ErrorKind::InsideValue.into());
            }
            let bound = handover::ask(&here::get(), Errand::Bind(session.clone()));
            return if bound {
                Ok(())
            } else {
                Err(ErrorKind::NoSpan.into())
            };
        };
        if let Some(cx) = get_otel_context(&span, dispatch) {
            let own = cx.span().span_context().span_id();
            // What came in from elsewhere, and is attached inside the span, is no span of ours.
            let hides = |here: &Context| {
                let span = here.span().span_context().clone();
                span.is_remote() || span.span_id() == own && in_force::is_inside_span(here)
            };
            if here::map(hides) == Some(true) {
                return Err(ErrorKind::InsideValue.into());
            }
            let bound = handover::ask(&cx, Errand::Bind(session.clone()));
            return if bound {
                Ok(())
            } else {
                Err(ErrorKind::NoProvider.into())
            };
        }
        // The nearest span that is exported is not asked in its place: it may have many below it,
        // each with a user of its own.
        let shared = dispatch
            .downcast_ref::<Shared>()
            .ok_or(ErrorKind::FilteredOut)?;
        let scope = Scope::nested(Scope::current(), session);
        if tracking::bind(shared, dispatch, &span, scope) {
            Ok(())
        } else {
            Err(ErrorKind::FilteredOut.into())
        }
    })
}

/// The OpenTelemetry layer has locked the span that it starts, and would wait for itself.
fn not_while_a_span_starts() -> Result<(), Error> {
    match handover::is_starting() {
        true => Err(ErrorKind::Starting.into()),
        false => Ok(()),
    }
}

/// Exports the current session on the ancestors of the current span too: on each one of this trace in this
/// process that is still open.
///
/// Backends show the first span of a trace. With this function that span carries an id that only a descendant
/// knew. The ancestors are marked, and nothing more: their other descendants don't inherit the session.
///
/// An ancestor gets only values that it lacks. One that already has another session or another user stays
/// unchanged, so no span ever carries the session of one conversation and the user of another. The same holds
/// for a span on which you set `session.id` or `user.id` with OpenTelemetry's API: this crate doesn't know the value.
/// A second call with the same session can add the user that was missing. A second call with another
/// session changes nothing.
///
/// The marks contain all values of the session but its [attributes](Session::with_attribute), because the
/// ancestor may have attributes with the same keys. Only ancestors that `tracing` created are found, and the
/// current span, with `tracing` or without.
///
/// Cost: about 0.7 µs for each of these spans.
///
/// # Errors
///
/// When no session or user applies here, when there is no current span, and in a sampler or span processor, while a
/// span starts.
///
/// ```
/// # use opentelemetry::trace::TracerProvider;
/// # use opentelemetry_sdk::trace::SdkTracerProvider;
/// # use tracing_session::{SessionLayer, SessionTracerProvider};
/// # use tracing_subscriber::prelude::*;
/// # let provider = SessionTracerProvider::new(SdkTracerProvider::default());
/// # let otel = tracing_opentelemetry::layer().with_tracer(provider.tracer("chat"));
/// # let _default = tracing_subscriber::registry().with(SessionLayer::new().around(otel)).set_default();
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
    let session = current_session().ok_or(ErrorKind::NothingToMark)?;
    dispatcher::get_default(|dispatch| {
        let here = here::get();
        let marked = handover::ask(&here, Errand::Mark(session.clone()));
        let Some(span) = dispatch.current_span().id().cloned() else {
            return if marked {
                Ok(())
            } else {
                Err(ErrorKind::NoSpan.into())
            };
        };
        let mut trace = None;
        for cx in contexts_from(&span, dispatch) {
            let id = cx.span().span_context().trace_id();
            if *trace.get_or_insert(id) != id {
                break;
            }
            handover::ask(&cx, Errand::Mark(session.clone()));
        }
        Ok(())
    })
}

/// The `Context`s of a span and of those above it that are exported and still open.
fn contexts_from(span: &tracing::Id, dispatch: &Dispatch) -> Vec<Context> {
    let mut spans = Vec::new();
    if let Some(shared) = dispatch.downcast_ref::<Shared>() {
        shared.ancestors(dispatch, span, &mut |id, _| {
            spans.push(id.clone());
            true
        });
    }
    spans
        .iter()
        .filter_map(|id| get_otel_context(id, dispatch))
        .collect()
}
