//! What is kept of a conversation between requests.

use crate::conversation::Conversation;
use crate::conversation::link;
use crate::error::{Error, ErrorKind};
use crate::session::{Id, Session};
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceState};
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};
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
/// would with one in a header. In [one trace](Conversation::in_one_trace) it also says whether the trace is
/// sampled, which a parent-based sampler follows.
///
/// # Errors
///
/// To deserialize it is an error where it is malformed, of another version, or holds an id that
/// [`Session::new`] refuses. The error names the field, and no value. Fields that are not known are
/// ignored.
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
#[serde(try_from = "Json", into = "Json")]
pub struct ConversationState {
    /// Its id alone.
    session: Session,
    previous_id: Option<Id>,
    in_one_trace: bool,
    has_started: bool,
    /// Where the turns stand. The id of the span is invalid where only the trace is known.
    at: Option<SpanContext>,
}

impl ConversationState {
    pub(crate) fn of(conversation: &Conversation) -> Self {
        let at = |context: &SpanContext, last| {
            let state = match context.trace_state() {
                state if state.header().len() <= MAX_TRACE_STATE_BYTES => state.clone(),
                // It would be refused when it comes back.
                _ => TraceState::NONE,
            };
            SpanContext::new(context.trace_id(), last, context.trace_flags(), true, state)
        };
        Self {
            session: Session {
                id: conversation.session.id.clone(),
                ..Session::default()
            },
            previous_id: conversation.previous_id.clone(),
            in_one_trace: conversation.in_one_trace,
            has_started: conversation.has_started,
            at: match (conversation.last.get(), &conversation.origin) {
                (Some(last), _) => Some(at(&last, last.span_id())),
                (None, Some(origin)) => Some(at(origin, SpanId::INVALID)),
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
        if let Some(at) = state.at {
            conversation.resume_at(at);
        }
        conversation.has_started = state.has_started;
        conversation
    }
}

const VERSION: u64 = 1;
/// What W3C wants to be passed on at least.
const MAX_TRACE_STATE_BYTES: usize = 512;

impl From<ConversationState> for Json {
    fn from(state: ConversationState) -> Self {
        let at = state.at.as_ref();
        let last = at.filter(|at| at.is_valid());
        let members = at.map(|at| at.trace_state().header());
        let mut stored = json!({
            "version": VERSION,
            "session_id": state.session_id(),
            "previous_id": state.previous_id.as_ref().map(Id::as_str),
            "in_one_trace": state.in_one_trace.then_some(true),
            "started": state.has_started.then_some(true),
            "trace_id": at.map(|at| at.trace_id().to_string()),
            "last_span_id": last.map(|at| at.span_id().to_string()),
            "trace_flags": at.map(|at| at.trace_flags().to_u8()),
            "trace_state": members.filter(|members| !members.is_empty()),
        });
        if let Json::Object(stored) = &mut stored {
            stored.retain(|_, value| !value.is_null());
        }
        stored
    }
}

/// What is malformed is told by us: `serde` would show the value.
impl TryFrom<Json> for ConversationState {
    type Error = Error;

    fn try_from(stored: Json) -> Result<Self, Error> {
        let stored = Stored(stored);
        match stored.read("version", Json::as_u64)? {
            Some(VERSION) => {}
            Some(other) => return Err(ErrorKind::StateVersion(other).into()),
            None => return Err(malformed("version")),
        }
        let session_id = stored.id("session_id")?;
        let session_id = session_id.ok_or_else(|| malformed("session_id"))?;
        let flags = stored.read("trace_flags", |flags| u8::try_from(flags.as_u64()?).ok())?;
        let state = stored.read("trace_state", |state| {
            let state = state.as_str()?;
            let fits = state.len() <= MAX_TRACE_STATE_BYTES;
            fits.then(|| TraceState::from_str(state).ok())?
        })?;
        let last = stored.text("last_span_id")?.map(link::span_id);
        let last = last.transpose().map_err(|it| it.about("last_span_id"))?;
        let at = match stored.text("trace_id")? {
            Some(trace) => Some(SpanContext::new(
                link::trace_id(trace).map_err(|it| it.about("trace_id"))?,
                last.unwrap_or(SpanId::INVALID),
                flags.map_or(TraceFlags::SAMPLED, TraceFlags::new),
                true,
                state.unwrap_or_default(),
            )),
            None if last.is_some() => return Err(malformed("trace_id")),
            None => None,
        };
        Ok(Self {
            session: Session::with_id(session_id),
            previous_id: stored.id("previous_id")?,
            in_one_trace: stored.read("in_one_trace", Json::as_bool)?.unwrap_or(false),
            has_started: stored.read("started", Json::as_bool)?.unwrap_or(false),
            at,
        })
    }
}

struct Stored(Json);

impl Stored {
    /// `None` where there is none, and an error where `read` gives nothing.
    fn read<'a, T>(
        &'a self,
        name: &'static str,
        read: impl FnOnce(&'a Json) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let value = self.0.get(name).filter(|value| !value.is_null());
        let read = value.map(|value| read(value).ok_or_else(|| malformed(name)));
        read.transpose()
    }

    fn text(&self, name: &'static str) -> Result<Option<&str>, Error> {
        self.read(name, Json::as_str)
    }

    fn id(&self, name: &'static str) -> Result<Option<Id>, Error> {
        let id = self.text(name)?.map(Id::new).transpose();
        id.map_err(|error| Error::from(error).about(name))
    }
}

fn malformed(name: &'static str) -> Error {
    Error::from(ErrorKind::MalformedState).about(name)
}
