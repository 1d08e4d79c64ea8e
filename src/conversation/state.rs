//! The state of a conversation between requests, and contexts of spans of which only the ids are known.

use crate::base::error::{Error, ErrorKind};
use crate::conversation::Conversation;
use crate::scope::thread;
use crate::session::{Id, Session};
use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use std::fmt;
use std::str::FromStr;

/// The state of a conversation between requests: the session id, the last turn, and whether all turns are in one trace.
///
/// [`Conversation::state`](crate::Conversation::state) returns it, and [`Conversation::resume`](crate::Conversation::resume)
/// continues from it. It contains no user and no metadata: [set them again](crate::Conversation::with_session) in the next
/// request.
///
/// It implements `Serialize` and `Deserialize`, for JSON and other self-describing formats. Its `version` is 1.
///
/// A client can change a state that you send to it. Deserializing checks only the form of each id, so check that the
/// [session](Self::session_id) belongs to the caller, as you do with a header. In [one
/// trace](crate::Conversation::in_one_trace), the state also decides whether the trace is sampled, because a parent-based
/// sampler follows it.
///
/// # Errors
///
/// Deserializing fails if the state is malformed, has another version, or contains an id that [`Session::new`] refuses, or a
/// placeholder such as `undefined`. The error names the field and contains no value. Unknown fields are ignored.
///
/// ```
/// use tracing_session::conversation::ConversationState;
///
/// let state = r#"{ "version": 1, "session_id": "chat-42",
///     "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736", "last_span_id": "00f067aa0ba902b7" }"#;
/// let state: ConversationState = serde_json::from_str(state).unwrap();
/// assert_eq!(state.session_id(), "chat-42");
///
/// let later = r#"{ "version": 2 }"#;
/// let error = serde_json::from_str::<ConversationState>(later).unwrap_err();
/// assert_eq!(error.to_string(), "the conversation state has version 2, but this release reads only version 1: start a new conversation");
/// ```
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Json", into = "Json")]
pub struct ConversationState {
    /// Only the id.
    pub(crate) session: Session,
    pub(crate) previous_id: Option<Id>,
    pub(crate) in_one_trace: bool,
    pub(crate) has_started: bool,
    /// The last finished turn, or with an invalid span id, the trace of the turns.
    pub(crate) at: Option<SpanContext>,
}

impl ConversationState {
    /// The id of the conversation's session.
    ///
    /// ```
    /// use tracing_session::{Conversation, Session};
    ///
    /// let state = Conversation::new(Session::new("chat-42")?).state();
    /// assert_eq!(state.session_id(), "chat-42");
    /// # Ok::<(), tracing_session::Error>(())
    /// ```
    pub fn session_id(&self) -> &str {
        self.session.id().unwrap_or_default()
    }
}

impl fmt::Debug for ConversationState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConversationState")
            .field("session", &self.session)
            .finish_non_exhaustive()
    }
}

const VERSION: u64 = 1;
/// W3C requires every service to propagate a `tracestate` of this length.
const MAX_TRACE_STATE_BYTES: usize = 512;

/// The span context that the next request continues from. It omits a `tracestate` that deserializing would refuse.
pub(crate) fn resumable(context: &SpanContext, span: SpanId) -> SpanContext {
    let state = context.trace_state();
    let state = match state.header().len() <= MAX_TRACE_STATE_BYTES {
        true => state.clone(),
        false => TraceState::NONE,
    };
    SpanContext::new(context.trace_id(), span, context.trace_flags(), true, state)
}

impl From<ConversationState> for Json {
    fn from(state: ConversationState) -> Self {
        let at = state.at.as_ref();
        let previous_id = state.previous_id.as_ref().map(Id::as_str);
        let last = at.filter(|at| at.is_valid());
        let last_span_id = last.map(|last| last.span_id().to_string());
        let trace_state = at.map(|at| at.trace_state().header());
        let trace_state = trace_state.filter(|it| !it.is_empty());
        let fields: [(&str, Json); 9] = [
            ("version", VERSION.into()),
            ("session_id", state.session_id().into()),
            ("previous_id", previous_id.into()),
            ("in_one_trace", state.in_one_trace.then_some(true).into()),
            ("started", state.has_started.then_some(true).into()),
            ("trace_id", at.map(|at| at.trace_id().to_string()).into()),
            ("last_span_id", last_span_id.into()),
            ("trace_flags", at.map(|at| at.trace_flags().to_u8()).into()),
            ("trace_state", trace_state.into()),
        ];
        let present = fields.into_iter().filter(|(_, value)| !value.is_null());
        present.collect()
    }
}

/// Not derived, because `serde`'s errors contain the value. These errors name the field only.
impl TryFrom<Json> for ConversationState {
    type Error = Error;

    fn try_from(stored: Json) -> Result<Self, Error> {
        let stored = Stored(stored);
        match stored.read("version")? {
            Some(VERSION) => {}
            Some(other) => return Err(ErrorKind::StateVersion(other).into()),
            None => return Err(malformed("version")),
        }
        let session_id = stored.parse("session_id", Id::received)?;
        let session_id = session_id.ok_or_else(|| malformed("session_id"))?;
        let flags = stored.read("trace_flags")?;
        let flags = flags.map_or(TraceFlags::SAMPLED, TraceFlags::new);
        let state = stored.parse("trace_state", |state| {
            let fits = state.len() <= MAX_TRACE_STATE_BYTES;
            let state = fits.then(|| TraceState::from_str(state).ok()).flatten();
            state.ok_or(ErrorKind::MalformedState)
        })?;
        let last = stored.parse("last_span_id", span_id)?;
        let trace = stored.parse("trace_id", trace_id)?;
        if trace.is_none() && last.is_some() {
            return Err(malformed("trace_id"));
        }
        let (span, state) = (last.unwrap_or(SpanId::INVALID), state.unwrap_or_default());
        let at = trace.map(|trace| SpanContext::new(trace, span, flags, true, state));
        Ok(Self {
            session: Session::with_id(session_id),
            previous_id: stored.parse("previous_id", Id::received)?,
            in_one_trace: stored.read("in_one_trace")?.unwrap_or(false),
            has_started: stored.read("started")?.unwrap_or(false),
            at,
        })
    }
}

struct Stored(Json);

impl Stored {
    /// The value of a field, or `None` if the field is missing.
    fn read<'a, T: Deserialize<'a>>(&'a self, field: &'static str) -> Result<Option<T>, Error> {
        Option::deserialize(&self.0[field]).map_err(|_| malformed(field))
    }

    fn parse<T>(
        &self,
        field: &'static str,
        parse: impl FnOnce(&str) -> Result<T, ErrorKind>,
    ) -> Result<Option<T>, Error> {
        let parsed = self.read(field)?.map(parse).transpose();
        parsed.map_err(|error| Error::from(error).about(field))
    }
}

fn malformed(field: &'static str) -> Error {
    Error::from(ErrorKind::MalformedState).about(field)
}

/// Creates the context of a span whose ids you know, so that you can [link] another span to it.
///
/// The trace id has 32 hexadecimal digits and the span id 16, as OpenTelemetry displays them. Tracia's ids are valid too:
/// `tr_` or `sp_` and 16 digits. A trace id of 16 digits is padded with zeros on the left, as in B3. The span counts as
/// sampled.
///
/// A [`Conversation`](crate::Conversation) links its turns itself.
///
/// # Errors
///
/// Returns an error if an id is invalid: [`Error::is_invalid_state`].
///
/// ```
/// use tracing_opentelemetry::OpenTelemetrySpanExt;
/// use tracing_session::conversation::link_context;
///
/// let turn = tracing::info_span!("turn");
/// turn.add_link(link_context("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7")?);
///
/// let error = link_context("4bf92f35", "00f067aa0ba902b7").unwrap_err();
/// assert!(error.is_invalid_state());
/// # Ok::<(), tracing_session::Error>(())
/// ```
///
/// [link]: tracing_opentelemetry::OpenTelemetrySpanExt::add_link
pub fn link_context(trace_id: &str, span_id: &str) -> Result<SpanContext, Error> {
    Ok(sampled(self::trace_id(trace_id)?, self::span_id(span_id)?))
}

/// Creates a `Context` with a span whose ids you know, so that you can make it the [parent] of another span. The `Context`
/// keeps the current session.
///
/// The ids have the same forms as in [`link_context`].
///
/// # Errors
///
/// Returns an error if an id is invalid: [`Error::is_invalid_state`].
///
/// ```
/// use tracing_opentelemetry::OpenTelemetrySpanExt;
/// use tracing_session::conversation::parent_context;
///
/// let turn = tracing::info_span!("turn");
/// let parent = parent_context("tr_a3ce929d0e0e4736", "sp_00f067aa0ba902b7")?;
/// let _ = turn.set_parent(parent); // an error without a subscriber, as here
/// # Ok::<(), tracing_session::Error>(())
/// ```
///
/// [parent]: tracing_opentelemetry::OpenTelemetrySpanExt::set_parent
pub fn parent_context(trace_id: &str, span_id: &str) -> Result<Context, Error> {
    Ok(thread::current().with_remote_span_context(link_context(trace_id, span_id)?))
}

/// A span of another process, in a trace that counts as sampled.
pub(crate) fn sampled(trace: TraceId, span: SpanId) -> SpanContext {
    SpanContext::new(trace, span, TraceFlags::SAMPLED, true, TraceState::NONE)
}

pub(crate) fn trace_id(text: &str) -> Result<TraceId, ErrorKind> {
    let id = digits(text, &[16, 32]).and_then(|it| TraceId::from_hex(it).ok());
    let valid = id.filter(|id| *id != TraceId::INVALID);
    valid.ok_or(ErrorKind::NotATraceId)
}

pub(crate) fn span_id(text: &str) -> Result<SpanId, ErrorKind> {
    let id = digits(text, &[16]).and_then(|it| SpanId::from_hex(it).ok());
    let valid = id.filter(|id| *id != SpanId::INVALID);
    valid.ok_or(ErrorKind::NotASpanId)
}

/// The digits of an id, if there are as many as one of `lengths`. Tracia's ids have a prefix of three letters.
fn digits<'a>(text: &'a str, lengths: &[usize]) -> Option<&'a str> {
    let digits = match text.split_at_checked(3) {
        Some((prefix, digits)) if digits.len() == 16 => {
            let mut tracia = ["tr_", "sp_"].iter();
            tracia.find(|it| prefix.eq_ignore_ascii_case(it))?;
            digits
        }
        _ => text,
    };
    // OpenTelemetry's parser would accept a sign.
    let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    (is_hex && lengths.contains(&digits.len())).then_some(digits)
}

impl From<ConversationState> for Conversation {
    fn from(state: ConversationState) -> Self {
        let mut conversation = Self::new(state.session);
        if let Some(at) = state.at {
            conversation = conversation.resumed_at(at);
        }
        conversation.previous_id = state.previous_id;
        conversation.in_one_trace = state.in_one_trace;
        conversation.has_started = state.has_started;
        conversation
    }
}
