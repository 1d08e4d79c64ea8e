//! What is in force here, and setting it on the current span.

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

/// What is in force here, if anything is: a session, a user, metadata, tags and the rest.
///
/// The function looks in OpenTelemetry's current `Context`. If that has no session, the
/// [default session](Session::set_global_default) applies.
///
/// Cost: some 300 instructions.
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
    /// What is in force under `cx`, if anything is: for samplers, span processors and log processors,
    /// which are given a [`Context`]. [`current_session`](crate::current_session) is what is in force
    /// here.
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

/// The id of the session in force here: [`current_session`] has the rest.
///
/// Cost: some 500 instructions, as it copies the id.
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
    /// Sets this session on the current span: on itself, and on what is started below it from now on.
    ///
    /// For a handler that learns only inside which conversation it serves. It sets the whole session: ids,
    /// metadata, tags and the rest; values that this one does not have are inherited. Spans above the current
    /// one and beside it stay as they are; see [`mark_trace`] for those above. A span starts when it
    /// is first entered: one that was made before, and is entered afterwards, is in the new session, unless
    /// its fields set a value. Then it is in what applied where it was made.
    ///
    /// A span that has started with an id of its own keeps it; the spans below get the new one. Attributes of
    /// [`Session::with_attribute`] are written on the spans below, and not on the current one: it may have
    /// such an attribute of its own.
    ///
    /// Cost: about 1 µs.
    ///
    /// # Errors
    ///
    /// When there is no current span that is exported (or, where there is no OpenTelemetry layer, no current
    /// span): a value without a span or a guard would have nowhere safe to live. When a [`Session`] is
    /// attached inside the current span: it is nearer than the span, and would shadow the new one. And in a
    /// sampler or span processor, while a span starts: the OpenTelemetry layer has locked it.
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

/// Sets the session id of the current span, and of what is started below it from now on: see
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

/// Sets the user of the current span: of itself, and of what is started below it from now on.
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

/// Makes a session, sets it on the current span as [`set_session_id`] does, and returns it.
///
/// Its id is the one that the environment names, or else a new one: see
/// [`Session::from_env_or_generate`].
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
            .ok_or(ErrorKind::HiddenSpan)?;
        let scope = Scope::nested(Scope::current(), session);
        if tracking::bind(shared, dispatch, &span, scope) {
            Ok(())
        } else {
            Err(ErrorKind::HiddenSpan.into())
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

/// Writes what is in force here on the spans above, too: on each one of this trace in this process
/// that is still open and has no value of its own.
///
/// Backends show the first span of a trace: with this it carries what was learnt below it. The
/// spans above are marked, and nothing more: what is started beside them does not inherit it. They
/// are marked with all but attributes of one's own. Only spans that `tracing` made are found, and the
/// current one, whoever made it.
///
/// Cost: some 2,200 instructions for each of these spans.
///
/// # Errors
///
/// When nothing is in force here, when there is no span, and in a sampler or span processor, while a span
/// starts.
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
