//! A turn of a conversation, and the argument that creates its span.

use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceId};
use std::sync::{Arc, Mutex, PoisonError};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// The last finished turn.
#[derive(Debug, Default)]
pub(crate) struct Last(Mutex<Option<SpanContext>>);

impl Last {
    pub(crate) fn get(&self) -> Option<SpanContext> {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.clone()
    }

    pub(crate) fn set(&self, turn: SpanContext) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(turn);
    }
}

/// The argument of [`Conversation::turn`](crate::Conversation::turn): the name of the turn, as `&str` or
/// `&String`, or a closure that creates its span. You can't implement it for other types.
///
/// ```
/// use tracing_session::{Conversation, conversation::{Turn, TurnSpan}};
///
/// fn next(chat: &mut Conversation, span: impl TurnSpan) -> Turn {
///     chat.turn(span)
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't start a turn: pass its name, or a closure that creates its span",
    note = "write `chat.turn(\"weather\")`, or `chat.turn(|| info_span!(\"weather\"))`: the turn has to create the span itself"
)]
pub trait TurnSpan: sealed::MakeSpan {}

impl<T: sealed::MakeSpan> TurnSpan for T {}

mod sealed {
    use tracing::field::Empty;
    use tracing::{Span, info_span};

    #[diagnostic::on_unimplemented(
        message = "`{Self}` can't start a turn: pass its name, or a closure that creates its span"
    )]
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

/// An unfinished turn of a [`Conversation`](crate::Conversation).
///
/// Dropping a turn without [`finish`](Self::finish) discards it: the next turn follows the previous one. Keep the turn of a
/// streamed answer until the stream has ended.
///
/// ```
/// # use tracing_session::{Conversation, Session, conversation::Turn};
/// # fn answer() -> Result<(), std::io::Error> { Ok(()) }
/// fn take(chat: &mut Conversation) -> Result<(), std::io::Error> {
///     let turn: Turn = chat.turn("weather");
///     turn.span().in_scope(answer)?; // after an error, the next turn follows the previous one
///     turn.finish();
///     Ok(())
/// }
/// # take(&mut Conversation::new(Session::generate())).unwrap();
/// ```
#[derive(Debug)]
#[must_use = "the next turn follows this one only after `turn.finish()`: `let turn = ...`"]
pub struct Turn {
    pub(super) span: Span,
    pub(super) context: SpanContext,
    pub(super) last: Arc<Last>,
}

impl Turn {
    /// Returns the span of the turn. Run the turn's work in it: with `in_scope`, or a future with
    /// [`Instrument`](tracing::Instrument).
    ///
    /// Don't keep it entered across an `await`, because other tasks would run in it too.
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

    /// Returns the id of the span, also if the span isn't sampled.
    ///
    /// Returns `None` without an OpenTelemetry layer, or if a filter disables the span.
    ///
    /// ```
    /// # use tracing_session::{Conversation, Session};
    /// let turn = Conversation::new(Session::generate()).turn("weather");
    /// assert_eq!(turn.span_id(), None); // no subscriber here
    /// ```
    pub fn span_id(&self) -> Option<SpanId> {
        self.context.is_valid().then(|| self.context.span_id())
    }

    /// Returns the id of the turn's trace, or `None` in the same cases as [`span_id`](Self::span_id).
    ///
    /// ```
    /// # use tracing_session::{Conversation, Session};
    /// let turn = Conversation::new(Session::generate()).turn("weather");
    /// assert_eq!(turn.trace_id(), None); // no subscriber here
    /// ```
    pub fn trace_id(&self) -> Option<TraceId> {
        self.context.is_valid().then(|| self.context.trace_id())
    }

    /// Finishes the turn: ends and exports its span, and makes the next turns follow it.
    ///
    /// The span ends even if a library holds a clone of it, such as a connection that was opened in the turn. Spans that
    /// start under it later are still in the session. Fields recorded on it later are lost. If the OpenTelemetry layer is
    /// inside `reload::Layer`, the crate can't reach the span: it ends with its last clone, and the next turn isn't linked to
    /// it.
    ///
    /// ```
    /// # use tracing_session::{Conversation, Session};
    /// Conversation::new(Session::generate()).turn("weather").finish();
    /// ```
    pub fn finish(self) {
        if self.context.is_valid() {
            self.last.set(self.context);
        }
        let otel_context = self.span.context();
        // If this is the last handle, the OpenTelemetry layer ends the span here, and adds its busy and idle times.
        drop(self.span);
        let span = otel_context.span();
        if span.is_recording() {
            span.end();
        }
    }
}

/// The parent's id for a span in `trace` if no span of the trace is known. It is the same in every process.
pub(crate) fn stand_in(trace: TraceId) -> SpanId {
    let [high, low] = [64, 0].map(|shift| (u128::from_be_bytes(trace.to_bytes()) >> shift) as u64);
    SpanId::from(if low == 0 { high } else { low })
}
