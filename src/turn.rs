//! A turn of a conversation.

use opentelemetry::trace::{SpanContext, SpanId, TraceId};
use std::sync::{Arc, Mutex, PoisonError};
use tracing::Span;

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

/// A turn of a [`Conversation`], under way.
///
/// Dropped without being finished it leaves the conversation where it was: the turn has failed, or was
/// cancelled. A streamed answer keeps it until the stream has ended.
#[derive(Debug)]
#[must_use = "the conversation moves on when the turn is finished"]
pub struct Turn {
    pub(crate) span: Span,
    pub(crate) context: SpanContext,
    pub(crate) last: Arc<Last>,
}

impl Turn {
    /// The span of the turn, to do the work in.
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

    /// The id of the span, or `None` where it is not exported: without an OpenTelemetry layer, or hidden
    /// by a filter.
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
