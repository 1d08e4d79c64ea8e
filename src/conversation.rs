//! A conversation: turns of one session, each linked to the turn before.

pub(crate) mod rotation;
pub(crate) mod state;
pub(crate) mod turn;

pub use self::rotation::SessionRotation;
pub use self::state::{ConversationState, link_context, parent_context};
pub use self::turn::{Turn, TurnSpan};

use crate::base::error::Error;
use crate::base::setup;
use crate::conversation::turn::{Last, stand_in};
use crate::scope::{Scope, thread};
use crate::session::keys::PREVIOUS_SESSION_ID;
use crate::session::{Id, Session};
use opentelemetry::KeyValue;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceId};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// A conversation of which each turn, a question and its answer, is linked to the turn before.
///
/// Each turn is a trace of its own, which is what Phoenix shows as the turns of a session, with a
/// span link to the turn before it; or all of them are [one trace](Self::in_one_trace), each turn a
/// child of the turn before.
///
/// Finishing a turn (see [`Turn::finish`]) moves the conversation on. A turn that has failed, was cancelled or
/// is still streaming doesn't. Two turns at the same time both follow the turn that was finished last.
///
/// A conversation holds no span. Between requests, keep it or its [state](Self::state).
///
/// ```
/// # use opentelemetry::trace::TracerProvider;
/// # use opentelemetry_sdk::trace::SdkTracerProvider;
/// # use tracing_session::{SessionLayer, SessionTracerProvider};
/// # use tracing_subscriber::prelude::*;
/// use tracing::Instrument;
/// use tracing_session::{Conversation, Session};
///
/// # async fn ask(question: &str) -> Result<String, tracing_session::Error> { Ok(question.into()) }
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tracing_session::Error> {
/// # let provider = SessionTracerProvider::new(SdkTracerProvider::default());
/// # let otel = tracing_opentelemetry::layer().with_tracer(provider.tracer("chat"));
/// # let _default = tracing_subscriber::registry().with(SessionLayer::new().wrap(otel)).set_default();
/// let mut chat = Conversation::new(Session::new("chat-42")?);
///
/// let turn = chat.turn("weather");
/// let reply = ask("What is the weather?").instrument(turn.span()).await?;
/// turn.finish();
///
/// let turn = chat.turn("tomorrow"); // linked to the first
/// let reply = ask("And tomorrow?").instrument(turn.span()).await?;
/// # let id = turn.span_id();
/// turn.finish();
/// # assert!(id.is_some() && id == chat.last_span_id());
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Conversation {
    session: Session,
    previous_id: Option<Id>,
    in_one_trace: bool,
    /// The parent of the turns as long as none is finished: the first turn of the trace, or a stand-in where no
    /// span of the trace is known.
    origin: Option<SpanContext>,
    /// The turn that was finished last. Turns share it, so [`reset`](Self::reset) makes a new one: a turn that
    /// was started before no longer moves the conversation.
    last: Arc<Last>,
    has_events: bool,
    has_started: bool,
}

impl Conversation {
    /// A new conversation. A session without an id gets [a new one](Session::generate).
    ///
    /// ```
    /// use tracing_session::{Conversation, Session};
    ///
    /// let chat = Conversation::new(Session::new("chat-42")?.with_user("u-7")?);
    /// assert_eq!(chat.session().id(), Some("chat-42"));
    /// # Ok::<(), tracing_session::Error>(())
    /// ```
    pub fn new(mut session: Session) -> Self {
        session.id.get_or_insert_with(Id::generate);
        Self {
            session,
            previous_id: None,
            in_one_trace: false,
            origin: None,
            last: Arc::default(),
            has_events: false,
            has_started: false,
        }
    }

    /// Puts all turns into one trace, where each turn is a child of the turn before. Default: a trace per turn.
    ///
    /// This is for backends that show a conversation as one tree. They can't show the trace of a very long
    /// conversation, and Phoenix shows only the first turn as a turn.
    ///
    /// ```
    /// use tracing_session::{Conversation, Session};
    ///
    /// let chat = Conversation::new(Session::generate()).in_one_trace();
    /// ```
    #[must_use = "it returns the changed conversation: `let chat = ...`"]
    pub fn in_one_trace(mut self) -> Self {
        self.in_one_trace = true;
        self
    }

    /// Emits an event when the session starts, and one when it ends. Default: none.
    ///
    /// [`Session::emit_start`] is called with the first turn, and [`Session::emit_end`] by
    /// [`reset`](Self::reset) and [`end`](Self::end).
    ///
    /// ```
    /// use tracing_session::{Conversation, Session};
    ///
    /// let chat = Conversation::new(Session::generate()).with_lifecycle_events();
    /// ```
    #[must_use = "it returns the changed conversation: `let chat = ...`"]
    pub fn with_lifecycle_events(mut self) -> Self {
        self.has_events = true;
        self
    }

    /// Sets the other values of its turns, such as the user, metadata and tags. The session id stays.
    ///
    /// ```
    /// use tracing_session::{Conversation, Session, conversation::ConversationState};
    ///
    /// fn of_request(state: ConversationState, user: &str) -> Result<Conversation, tracing_session::Error> {
    ///     let session = Session::default().with_user(user)?;
    ///     Ok(Conversation::resume(state).with_session(session))
    /// }
    /// ```
    #[must_use = "it returns the changed conversation: `let chat = ...`"]
    pub fn with_session(mut self, session: Session) -> Self {
        let id = self.session.id.take();
        self.session = Session { id, ..session };
        self
    }

    /// Continues a trace with the ids that a client sends: the next turn follows the last span, if you know it.
    /// [`resume`](Self::resume) restores the whole state instead.
    ///
    /// Without a span id, the next turn of [one trace](Self::in_one_trace) gets a parent that backends don't
    /// have, because a span can't join a trace without a parent. With a trace per turn, the next turn has no
    /// link. The trace counts as sampled.
    ///
    /// Ids are hexadecimal, in the form that [`trace_id`](Self::trace_id) and
    /// [`last_span_id`](Self::last_span_id) display, or Tracia's: see [`link_context`].
    ///
    /// # Errors
    ///
    /// When an id is invalid: [`Error::is_invalid_state`].
    ///
    /// ```
    /// use tracing_session::{Conversation, Session};
    ///
    /// let (trace_id, span_id) = ("4bf92f3577b34da6a3ce929d0e0e4736", Some("00f067aa0ba902b7"));
    /// let chat = Conversation::new(Session::new("chat-42")?).resume_trace(trace_id, span_id)?;
    /// assert_eq!(chat.trace_id().unwrap().to_string(), trace_id);
    /// # Ok::<(), tracing_session::Error>(())
    /// ```
    pub fn resume_trace(self, trace_id: &str, last_span_id: Option<&str>) -> Result<Self, Error> {
        let trace = state::trace_id(trace_id)?;
        let last = last_span_id.map_or(Ok(SpanId::INVALID), state::span_id)?;
        Ok(self.resumed_at(state::sampled(trace, last)))
    }

    /// The id of the span is invalid where only the trace is known.
    fn resumed_at(mut self, at: SpanContext) -> Self {
        self.last = Arc::default();
        self.origin = None;
        if at.is_valid() {
            self.last.set(at);
        } else {
            self.origin = Some(state::resumable(&at, stand_in(at.trace_id())));
        }
        self.has_started = true;
        self
    }

    /// Creates the span of the next turn and starts it.
    ///
    /// The span is the root of a new trace. Inside another span, it has a span link to that span.
    ///
    /// If you pass a name, the span is exported under that name. In `tracing`, its name is `turn`, its target
    /// `tracing_session` and its level `INFO`, so your filters must enable it (`RUST_LOG=info`, or
    /// `my_app=debug,tracing_session=info`). If a filter disables it, the turn has no span, and work in the
    /// turn isn't in the session. One warning says so, on standard error if the filter disables the warning
    /// too.
    ///
    /// If you pass a closure, it creates the span, with your own target, level and fields. Create the span
    /// inside the closure and without `parent:`.
    ///
    /// The span ends when the [`Turn`] is [finished](Turn::finish), or when it is dropped and all [spans](Turn::span) taken
    /// from it are dropped too. Inside another session the turn inherits nothing: inside the same session, or in none, it
    /// inherits the values that this session doesn't have.
    ///
    /// Cost: about 1.5 µs more than a span that sets a session.
    ///
    /// ```
    /// # use tracing_session::{Conversation, Session};
    /// let mut chat = Conversation::new(Session::generate());
    /// let turn = chat.turn("weather");
    /// turn.span().in_scope(|| { /* in the session */ });
    /// turn.finish();
    ///
    /// let turn = chat.turn(|| tracing::info_span!("tomorrow", channel = "web"));
    /// turn.finish();
    /// ```
    pub fn turn(&mut self, span: impl TurnSpan) -> Turn {
        let last = self.last.get();
        let (parent, linked) = match self.in_one_trace {
            true => (last.or_else(|| self.origin.clone()), None),
            false => (None, last),
        };
        let here = thread::current();
        // Of another session, the turn inherits nothing.
        let outer = Scope::of(&here).filter(|outer| {
            let id = outer.id();
            id.is_none() || id == self.session.id
        });
        let scope = Scope::of_turn(outer, &self.session);
        // True until the turn's span has started: spans under the `Context` are roots of traces meanwhile.
        let begins = Arc::new((AtomicBool::new(true), SpanContext::NONE));
        let under = match parent {
            Some(parent) => scope.entered(&here.with_remote_span_context(parent)),
            None => scope.entered_to_start_a_trace(&here, begins.clone()),
        };
        // The OpenTelemetry layer takes the current `Context` as the parent of a new span.
        let attached = thread::attach(under);
        let span = span.make();
        drop(attached);
        setup::check_turn(&span);
        // Set before the span starts, so that samplers see both.
        if let Some(linked) = linked {
            span.add_link(linked);
        }
        if let Some(previous) = self.previous_id() {
            span.set_attribute(PREVIOUS_SESSION_ID, previous.to_owned());
        }
        // This starts the span, so its ids are known from now on.
        let context = span.context().span().span_context().clone();
        if context.is_valid() {
            // Work in the turn inherits the `Context`, and must not begin traces. Behind `reload::Layer` the
            // span starts only when it is entered.
            begins.0.store(false, Ordering::Relaxed);
            if self.in_one_trace {
                self.origin.get_or_insert_with(|| context.clone());
            }
        }
        if self.has_events && !std::mem::replace(&mut self.has_started, true) {
            span.in_scope(|| self.with_previous_id().emit_start());
        }
        Turn {
            span,
            context,
            last: self.last.clone(),
        }
    }

    /// The trace of the turn that was finished last; with [one trace](Self::in_one_trace), that of all
    /// turns, from the first one on. It displays as 32 hexadecimal digits.
    ///
    /// ```
    /// # use tracing_session::{Conversation, Session};
    /// assert_eq!(Conversation::new(Session::generate()).trace_id(), None);
    /// ```
    pub fn trace_id(&self) -> Option<TraceId> {
        let context = self.last.get().or_else(|| self.origin.clone())?;
        Some(context.trace_id())
    }

    /// The span of the turn that was finished last. It displays as 16 hexadecimal digits.
    ///
    /// ```
    /// # use tracing_session::{Conversation, Session};
    /// assert_eq!(Conversation::new(Session::generate()).last_span_id(), None);
    /// ```
    pub fn last_span_id(&self) -> Option<SpanId> {
        Some(self.last.get()?.span_id())
    }

    /// The session of the turns to come.
    ///
    /// ```
    /// # use tracing_session::{Conversation, Session};
    /// let chat = Conversation::new(Session::new("chat-42")?);
    /// assert_eq!(chat.session().id(), Some("chat-42"));
    /// # Ok::<(), tracing_session::Error>(())
    /// ```
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// The id of the session before the last [`reset`](Self::reset).
    ///
    /// ```
    /// # use tracing_session::{Conversation, Session};
    /// assert_eq!(Conversation::new(Session::generate()).previous_id(), None);
    /// ```
    pub fn previous_id(&self) -> Option<&str> {
        self.previous_id.as_ref().map(Id::as_str)
    }

    /// The state that the next request needs to continue the conversation. Store it, or give it to the client.
    ///
    /// ```
    /// use tracing_session::{Conversation, Session, conversation::ConversationState};
    ///
    /// let chat = Conversation::new(Session::new("chat-42")?);
    /// let response = serde_json::to_string(&chat.state()).unwrap();
    ///
    /// let state: ConversationState = serde_json::from_str(&response).unwrap();
    /// assert_eq!(Conversation::resume(state).session().id(), Some("chat-42"));
    /// # Ok::<(), tracing_session::Error>(())
    /// ```
    pub fn state(&self) -> ConversationState {
        let last = self.last.get();
        let span = last.as_ref().map_or(SpanId::INVALID, SpanContext::span_id);
        let at = last.or_else(|| self.origin.clone());
        let id = self.session.id.clone();
        ConversationState {
            session: id.map(Session::with_id).unwrap_or_default(),
            previous_id: self.previous_id.clone(),
            in_one_trace: self.in_one_trace,
            has_started: self.has_started,
            at: at.map(|at| state::resumable(&at, span)),
        }
    }

    /// Continues a conversation from its state.
    ///
    /// See [`ConversationState`] for what it contains, and what to check if it comes from a client.
    ///
    /// ```
    /// # use tracing_session::{Conversation, Session};
    /// # let chat = Conversation::new(Session::generate());
    /// let mut chat = Conversation::resume(chat.state());
    /// chat.turn("next").finish();
    /// ```
    pub fn resume(state: ConversationState) -> Self {
        state.into()
    }

    /// Starts a new session with a new id. The old id becomes the [previous id](Self::previous_id). The
    /// session's other values stay.
    ///
    /// The next turn follows no other turn. Unfinished turns still belong to the old session. The spans of new
    /// turns have the attribute `session.previous_id`.
    ///
    /// ```
    /// use tracing_session::{Conversation, Session};
    ///
    /// let mut chat = Conversation::new(Session::new("chat-42")?);
    /// chat.reset();
    /// assert_ne!(chat.session().id(), Some("chat-42"));
    /// assert_eq!(chat.previous_id(), Some("chat-42"));
    /// # Ok::<(), tracing_session::Error>(())
    /// ```
    pub fn reset(&mut self) {
        self.emit_end();
        self.previous_id = self.session.id.take();
        self.session.id = Some(Id::generate());
        self.origin = None;
        self.last = Arc::default();
        self.has_started = false;
    }

    /// Ends the conversation: calls [`Session::emit_end`] if its [events](Self::with_lifecycle_events) are on
    /// and a turn has started. Dropping a conversation doesn't end the session.
    ///
    /// ```
    /// # use tracing_session::{Conversation, Session};
    /// Conversation::new(Session::generate()).with_lifecycle_events().end();
    /// ```
    pub fn end(self) {
        self.emit_end();
    }

    fn emit_end(&self) {
        if self.has_events && self.has_started {
            self.session.emit_end();
        }
    }

    fn with_previous_id(&self) -> Session {
        let previous = self.previous_id.iter();
        let previous = previous.map(|id| KeyValue::new(PREVIOUS_SESSION_ID, id.shared()));
        let session = self.session.clone();
        session.change(|it| previous.for_each(|id| _ = it.set_attribute(id)))
    }
}
