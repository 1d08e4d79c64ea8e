//! A turn of a conversation: its span, and the position that it moves on when it is finished.

use opentelemetry::trace::{SpanContext, SpanId, TraceId};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tracing::Span;

/// The turn that was finished last.
#[derive(Debug, Default)]
pub(crate) struct Last(Mutex<Option<SpanContext>>);

impl Last {
    fn lock(&self) -> MutexGuard<'_, Option<SpanContext>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn get(&self) -> Option<SpanContext> {
        self.lock().clone()
    }

    pub(crate) fn set(&self, turn: SpanContext) {
        *self.lock() = Some(turn);
    }
}

/// What [`Conversation::turn`](crate::Conversation::turn) takes: the name of the turn, as `&str` or `&String`, or a closure that
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

/// A turn of a [`Conversation`](crate::Conversation), under way.
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
    pub(crate) last: Arc<Last>,
}

impl Turn {
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
