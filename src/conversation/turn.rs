//! A turn of a conversation.

use crate::conversation::Conversation;
use crate::diagnostic::setup;
use crate::here;
use crate::scope::Scope;
use crate::session::keys::PREVIOUS_SESSION_ID;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceId};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// The turn that was finished last.
#[derive(Debug, Default)]
pub(crate) struct Last(Mutex<Option<SpanContext>>);

impl Last {
    pub(crate) fn get(&self) -> Option<SpanContext> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn set(&self, turn: SpanContext) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(turn);
    }
}

/// What [`Conversation::turn`] takes: the name of the turn, as `&str` or `&String`, or a closure that
/// makes its span. It is for these alone.
///
/// ```
/// use tracing_session::{Conversation, Turn, TurnSpan};
///
/// fn next(chat: &mut Conversation, span: impl TurnSpan) -> Turn {
///     chat.turn(span)
/// }
/// ```
pub trait TurnSpan: sealed::MakeSpan {}

impl<T: sealed::MakeSpan> TurnSpan for T {}

mod sealed {
    use tracing::field::Empty;
    use tracing::{Span, info_span};

    pub trait MakeSpan {
        fn make(self) -> Span;
    }

    impl MakeSpan for &str {
        fn make(self) -> Span {
            info_span!(
                target: "tracing_session",
                "turn",
                tracing_session = Empty,
                otel.name = self,
                user.id = Empty,
            )
        }
    }

    impl MakeSpan for &String {
        fn make(self) -> Span {
            self.as_str().make()
        }
    }

    impl<F: FnOnce() -> Span> MakeSpan for F {
        fn make(self) -> Span {
            self()
        }
    }
}

/// A turn of a [`Conversation`], under way.
///
/// Dropped without being finished it leaves the conversation where it was: the turn has failed, or was
/// cancelled. A streamed answer keeps it until the stream has ended.
///
/// ```
/// # use tracing_session::{Conversation, Session, Turn};
/// # fn answer() -> Result<(), std::io::Error> { Ok(()) }
/// fn take(chat: &mut Conversation) -> Result<(), std::io::Error> {
///     let turn: Turn = chat.turn("weather");
///     turn.span().in_scope(answer)?; // an error leaves the conversation where it was
///     turn.finish();
///     Ok(())
/// }
/// # take(&mut Conversation::new(Session::generate())).unwrap();
/// ```
#[derive(Debug)]
#[must_use = "the conversation moves on when the turn is finished"]
pub struct Turn {
    pub(crate) span: Span,
    pub(crate) context: SpanContext,
    last: Arc<Last>,
}

impl Turn {
    /// Has the span of a turn made where it belongs, and starts it: so its ids are known from now on.
    ///
    /// Without a `parent` it is the root of a trace of its own.
    pub(crate) fn start(
        span: impl TurnSpan,
        conversation: &Conversation,
        parent: Option<SpanContext>,
        linked: Option<SpanContext>,
    ) -> Self {
        let here = here::get();
        let scope = Scope::of_turn(Scope::of(&here), conversation.session());
        let begins = Arc::new(AtomicBool::new(true));
        let under = match parent {
            Some(parent) => scope.entered(&here.with_remote_span_context(parent)),
            None => scope.entered_to_begin_a_trace(&here, Some(begins.clone())),
        };
        let attached = here::attach(under);
        let span = span.make();
        drop(attached);
        setup::check_turn(&span);
        if let Some(linked) = linked {
            span.add_link(linked);
        }
        if let Some(previous) = conversation.previous_id() {
            span.set_attribute(PREVIOUS_SESSION_ID, previous.to_owned());
        }
        let context = span.context().span().span_context().clone();
        // The `Context` lives on in what is done in the turn. Behind `reload::Layer` the span is started
        // when it is entered.
        if context.is_valid() {
            begins.store(false, Ordering::Relaxed);
        }
        Self {
            span,
            context,
            last: conversation.last.clone(),
        }
    }

    /// The span of the turn, to do the work in: by `in_scope`, or, for what is awaited, by
    /// [`Instrument`](tracing::Instrument). A span that is entered across an `await` is entered for
    /// other tasks too.
    ///
    /// ```
    /// # use tracing_session::{Conversation, Session};
    /// use tracing_session::openinference::{OpenInferenceSpanExt, SpanKind};
    ///
    /// let turn = Conversation::new(Session::generate()).turn("weather");
    /// turn.span().set_span_kind(SpanKind::Agent);
    /// turn.span().in_scope(|| { /* ... */ });
    /// ```
    pub fn span(&self) -> Span {
        self.span.clone()
    }

    /// The id of the span, or `None` where there is none: without an OpenTelemetry layer, or hidden by a
    /// filter. One that is not sampled has an id.
    ///
    /// ```
    /// # use tracing_session::{Conversation, Session};
    /// let turn = Conversation::new(Session::generate()).turn("weather");
    /// assert_eq!(turn.span_id(), None); // no subscriber here
    /// ```
    pub fn span_id(&self) -> Option<SpanId> {
        self.context.is_valid().then(|| self.context.span_id())
    }

    /// The trace of the turn, as for [`span_id`](Self::span_id).
    ///
    /// ```
    /// # use tracing_session::{Conversation, Session};
    /// let turn = Conversation::new(Session::generate()).turn("weather");
    /// assert_eq!(turn.trace_id(), None); // no subscriber here
    /// ```
    pub fn trace_id(&self) -> Option<TraceId> {
        self.context.is_valid().then(|| self.context.trace_id())
    }

    /// The turn has ended well: those that are made from now on follow it.
    ///
    /// ```
    /// # use tracing_session::{Conversation, Session};
    /// Conversation::new(Session::generate()).turn("weather").finish();
    /// ```
    pub fn finish(self) {
        if self.context.is_valid() {
            self.last.set(self.context);
        }
    }
}
