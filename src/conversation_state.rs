//! What is kept of a conversation between requests.

use crate::conversation::Conversation;
use crate::error::{Error, ErrorKind};
use crate::link;
use crate::session::{Id, Session};
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use std::fmt;
use std::str::FromStr;

/// What a conversation needs to go on: the ids of its session, where its turns stand, and how they are
/// traced. Made by [`Conversation::state`], and taken by [`Conversation::resume`].
///
/// It has no user and no metadata: the next request says them
/// [anew](Conversation::with_session).
///
/// It is a value of `serde`, to be kept in JSON or another format that describes itself. Its
/// `version` is 1.
///
/// A state that comes back from a client is the client's word. Each id in it has to obey the rules, and
/// nothing else is known of it: see that the [session](Self::session_id) belongs to who asks, as you
/// would with one in a header.
///
/// # Errors
///
/// To deserialize it is an error where it is malformed, of another version, or holds an id that
/// [`Session::new`] refuses. The error names the field, and no value.
///
/// ```
/// use tracing_session::ConversationState;
///
/// let state = r#"{ "version": 1, "session_id": "chat-42",
///     "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736", "last_span_id": "00f067aa0ba902b7" }"#;
/// let state: ConversationState = serde_json::from_str(state).unwrap();
/// assert_eq!(state.session_id(), "chat-42");
///
/// let later = r#"{ "version": 2 }"#;
/// let error = serde_json::from_str::<ConversationState>(later).unwrap_err();
/// assert_eq!(error.to_string(), "conversation state is of version 2, and 1 is what this release reads");
/// ```
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Stored", into = "Stored")]
pub struct ConversationState {
    /// Its id alone.
    session: Session,
    previous_id: Option<Id>,
    in_one_trace: bool,
    has_started: bool,
    at: Option<At>,
}

/// Where the turns stand.
#[derive(Clone, PartialEq)]
struct At {
    trace: TraceId,
    last: Option<SpanId>,
    flags: TraceFlags,
    state: TraceState,
}

impl ConversationState {
    pub(crate) fn of(conversation: &Conversation, last: Option<SpanContext>) -> Self {
        let at = |context: &SpanContext, last| At {
            trace: context.trace_id(),
            last,
            flags: context.trace_flags(),
            state: context.trace_state().clone(),
        };
        Self {
            session: Session {
                id: conversation.session.id.clone(),
                ..Session::default()
            },
            previous_id: conversation.previous_id.clone(),
            in_one_trace: conversation.in_one_trace,
            has_started: conversation.has_started,
            at: match (last, &conversation.origin) {
                (Some(last), _) => Some(at(&last, Some(last.span_id()))),
                (None, Some(origin)) => Some(at(origin, None)),
                (None, None) => None,
            },
        }
    }

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

impl From<ConversationState> for Conversation {
    fn from(state: ConversationState) -> Self {
        let mut conversation = Self::new(state.session);
        conversation.previous_id = state.previous_id;
        conversation.in_one_trace = state.in_one_trace;
        if let Some(At {
            trace,
            last,
            flags,
            state,
        }) = state.at
        {
            conversation.resume_at(trace, last, flags, state);
        }
        conversation.has_started = state.has_started;
        conversation
    }
}

const VERSION: u64 = 1;
/// What W3C wants to be passed on at least.
const MAX_TRACE_STATE_BYTES: usize = 512;

/// As it is serialised. What is malformed is told by us: `serde` would show the value.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Stored {
    version: Json,
    session_id: Json,
    #[serde(skip_serializing_if = "Json::is_null")]
    previous_session_id: Json,
    #[serde(skip_serializing_if = "is_false")]
    in_one_trace: Json,
    #[serde(skip_serializing_if = "is_false")]
    started: Json,
    #[serde(skip_serializing_if = "Json::is_null")]
    trace_id: Json,
    #[serde(skip_serializing_if = "Json::is_null")]
    last_span_id: Json,
    #[serde(skip_serializing_if = "Json::is_null")]
    trace_flags: Json,
    #[serde(skip_serializing_if = "Json::is_null")]
    trace_state: Json,
}

fn is_false(value: &Json) -> bool {
    *value == Json::Bool(false)
}

impl From<ConversationState> for Stored {
    fn from(state: ConversationState) -> Self {
        let mut stored = Self {
            version: VERSION.into(),
            session_id: state.session_id().into(),
            previous_session_id: state.previous_id.as_ref().map(Id::as_str).into(),
            in_one_trace: state.in_one_trace.into(),
            started: state.has_started.into(),
            ..Self::default()
        };
        if let Some(at) = state.at {
            stored.trace_id = at.trace.to_string().into();
            stored.last_span_id = at.last.map(|id| id.to_string()).into();
            stored.trace_flags = at.flags.to_u8().into();
            let members = at.state.header();
            stored.trace_state = (!members.is_empty()).then_some(members).into();
        }
        stored
    }
}

impl TryFrom<Stored> for ConversationState {
    type Error = Error;

    fn try_from(stored: Stored) -> Result<Self, Error> {
        match stored.version.as_u64() {
            Some(VERSION) => {}
            Some(other) => return Err(ErrorKind::StateVersion(other).into()),
            None => return Err(malformed("version")),
        }
        let id = |value: &Json, name: &'static str| match text(value, name)? {
            Some(text) => match Id::new(text) {
                Ok(id) => Ok(Some(id)),
                Err(error) => Err(Error::from(error).about(name)),
            },
            None => Ok(None),
        };
        let session_id = id(&stored.session_id, "session_id")?;
        let session_id = session_id.ok_or_else(|| malformed("session_id"))?;
        let flags = match &stored.trace_flags {
            Json::Null => TraceFlags::SAMPLED,
            flags => {
                let flags = flags.as_u64().and_then(|flags| u8::try_from(flags).ok());
                TraceFlags::new(flags.ok_or_else(|| malformed("trace_flags"))?)
            }
        };
        let trace_state = text(&stored.trace_state, "trace_state")?.unwrap_or_default();
        let state = match TraceState::from_str(trace_state) {
            Ok(state) if trace_state.len() <= MAX_TRACE_STATE_BYTES => state,
            _ => return Err(malformed("trace_state")),
        };
        let last = text(&stored.last_span_id, "last_span_id")?;
        let last = last.map(link::span_id).transpose()?;
        let at = match text(&stored.trace_id, "trace_id")? {
            Some(trace) => Some(At {
                trace: link::trace_id(trace)?,
                last,
                flags,
                state,
            }),
            None if last.is_some() => return Err(malformed("trace_id")),
            None => None,
        };
        Ok(Self {
            session: Session {
                id: Some(session_id),
                ..Session::default()
            },
            previous_id: id(&stored.previous_session_id, "previous_session_id")?,
            in_one_trace: flag(&stored.in_one_trace, "in_one_trace")?,
            has_started: flag(&stored.started, "started")?,
            at,
        })
    }
}

fn malformed(name: &'static str) -> Error {
    Error::from(ErrorKind::MalformedState).about(name)
}

fn text<'a>(value: &'a Json, name: &'static str) -> Result<Option<&'a str>, Error> {
    match value {
        Json::Null => Ok(None),
        Json::String(text) => Ok(Some(text)),
        _ => Err(malformed(name)),
    }
}

fn flag(value: &Json, name: &'static str) -> Result<bool, Error> {
    match value {
        Json::Null => Ok(false),
        Json::Bool(flag) => Ok(*flag),
        _ => Err(malformed(name)),
    }
}
