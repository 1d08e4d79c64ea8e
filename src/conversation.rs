//! Conversations: one session whose turns are linked. A *turn* is a question and its answer.

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

/// A conversation whose turns are linked: each turn, a question and its answer, follows the previous one.
///
/// By default, each turn is a separate trace with a span link to the previous turn, because Phoenix shows each trace of a
/// session as a turn. With [`in_one_trace`](Self::in_one_trace), each turn is a child of the previous turn.
///
/// A turn follows the last turn that was [finished](Turn::finish). It doesn't follow turns that failed, were cancelled or are
/// still streaming. Two turns at the same time follow the same turn.
///
/// A conversation holds no span. Between requests, keep the conversation or its [state](Self::state).
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
#[doc(alias = "thread")]
#[derive(Debug)]
pub struct Conversation {
    session: Session,
    previous_id: Option<Id>,
    in_one_trace: bool,
    /// The parent of the turns while none is finished: the first turn of the trace, or a stand-in if no span of the trace is
    /// known.
    origin: Option<SpanContext>,
    /// The last finished turn, which unfinished turns share. [`reset`](Self::reset) replaces it, so that turns of the old
    /// session no longer write to it.
    last: Arc<Last>,
    has_events: bool,
    has_started: bool,
}

impl Conversation {
    /// Creates a conversation. A session without an id gets a [new id](Session::generate).
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

    /// Puts all turns into one trace, each as a child of the previous turn. Default: a trace per turn.
    ///
    /// Use it for backends that show a conversation as one tree. They can't show the trace of a very long conversation, and
    /// Phoenix shows only the first turn as a turn.
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

    /// Emits an event when the session starts, and another one when it ends. Default: off.
    ///
    /// The first turn calls [`Session::emit_start`]. [`reset`](Self::reset) and [`end`](Self::end) call
    /// [`Session::emit_end`].
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

    /// Replaces the other values of the session, such as the user, metadata and tags. The session id stays.
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

    /// Continues a trace from ids that a client sends: the next turn follows the span with the id `last_span_id`. To restore
    /// a whole state, use [`resume`](Self::resume).
    ///
    /// Without a span id, the next turn has no link. In [one trace](Self::in_one_trace), it gets a parent that backends don't
    /// have, because a span can't join a trace without a parent. The trace counts as sampled.
    ///
    /// Ids are hexadecimal, as [`trace_id`](Self::trace_id) and [`last_span_id`](Self::last_span_id) display them, or in
    /// Tracia's form: see [`link_context`].
    ///
    /// # Errors
    ///
    /// Returns an error if an id is invalid: [`Error::is_invalid_state`].
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

    /// The span id of `at` is invalid if only the trace is known.
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

    /// Creates the span of the next turn, and starts it.
    ///
    /// The span is the root of a new trace. Inside another span, it gets a span link to that span.
    ///
    /// If you pass a name, the span is exported under that name. In `tracing`, its name is `turn`, its target
    /// `tracing_session` and its level `INFO`, so your filters must enable it (`RUST_LOG=info`, or
    /// `my_app=debug,tracing_session=info`). If a filter disables it, the turn has no span, and work in the turn isn't in the
    /// session. The crate warns once, on standard error if the filter disables the warning too.
    ///
    /// If you pass a closure, it creates the span with your own target, level and fields. Create the span inside the closure,
    /// and without `parent:`.
    ///
    /// The span ends when the [`Turn`] is [finished](Turn::finish), or when you have dropped the turn and all its
    /// [spans](Turn::span). The turn inherits the values that its session doesn't set from the current session, unless that
    /// has a different id.
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
        // The turn inherits nothing from another session.
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
        // This starts the span, which then has its ids.
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

    /// Returns the trace id of the last finished turn, as 32 hexadecimal digits if you display it. In [one
    /// trace](Self::in_one_trace), returns the id of that trace once a turn has started.
    ///
    /// ```
    /// # use tracing_session::{Conversation, Session};
    /// assert_eq!(Conversation::new(Session::generate()).trace_id(), None);
    /// ```
    pub fn trace_id(&self) -> Option<TraceId> {
        let context = self.last.get().or_else(|| self.origin.clone())?;
        Some(context.trace_id())
    }

    /// Returns the span id of the last finished turn, as 16 hexadecimal digits if you display it.
    ///
    /// ```
    /// # use tracing_session::{Conversation, Session};
    /// assert_eq!(Conversation::new(Session::generate()).last_span_id(), None);
    /// ```
    pub fn last_span_id(&self) -> Option<SpanId> {
        Some(self.last.get()?.span_id())
    }

    /// Returns the session of the next turns.
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

    /// Returns the session id before the last [`reset`](Self::reset).
    ///
    /// ```
    /// # use tracing_session::{Conversation, Session};
    /// assert_eq!(Conversation::new(Session::generate()).previous_id(), None);
    /// ```
    pub fn previous_id(&self) -> Option<&str> {
        self.previous_id.as_ref().map(Id::as_str)
    }

    /// Returns the state that the next request needs to continue the conversation. Store it, or send it to the client.
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
    /// If the state comes from a client, check it: see [`ConversationState`].
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

    /// Starts a new session with a new id. The old id becomes the [previous id](Self::previous_id), and the other values
    /// stay.
    ///
    /// The next turn follows no earlier turn. Unfinished turns still belong to the old session. The spans of new turns have
    /// the attribute `session.previous_id`.
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

    /// Ends the conversation: calls [`Session::emit_end`] if [events](Self::with_lifecycle_events) are on and a turn has
    /// started.
    ///
    /// Dropping a conversation doesn't end the session.
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
