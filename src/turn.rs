//! A turn of a conversation.

use crate::attributes::PREVIOUS_SESSION_ID;
use crate::conversation::Conversation;
use crate::diagnostic::{self, TURN_FILTERED};
use crate::fields;
use crate::handover;
use crate::link;
use crate::opening::Shared;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceId};
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tracing::field::Empty;
use tracing::{Dispatch, Span, dispatcher, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// How a turn follows the one before.
pub(crate) enum Follows {
    Nothing,
    /// As the root of a trace of its own.
    ByLink(SpanContext),
    AsChild(SpanContext),
}

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
    last: Arc<Last>,
}

impl Turn {
    /// Makes the span of a turn, and starts it: so its ids are known from now on.
    pub(crate) fn start(name: &str, conversation: &Conversation, follows: Follows) -> Self {
        let session = conversation.session();
        let place = match follows {
            Follows::Nothing | Follows::ByLink(_) => handover::Turn::Root,
            Follows::AsChild(_) => handover::Turn::Next,
        };
        let giving = fields::Giving::new(session, Some(place));
        let span = info_span!(
            target: "tracing_session",
            "turn",
            tracing_session = Empty,
            otel.name = name,
            session.id = session.id(),
            user.id = session.user_id(),
            { PREVIOUS_SESSION_ID } = conversation.previous_id(),
        );
        drop(giving);
        if span.is_disabled() {
            tell_of_filter();
        }
        match follows {
            Follows::Nothing => {}
            Follows::ByLink(before) => span.add_link(before),
            // Without an OpenTelemetry layer there is nothing to be a child of.
            Follows::AsChild(before) => drop(span.set_parent(link::under(before))),
        }
        let context = span.context().span().span_context().clone();
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

/// Where there is no layer of ours, nobody expects a span.
fn tell_of_filter() {
    static SAID: AtomicBool = AtomicBool::new(false);
    let is_ours = |dispatch: &Dispatch| dispatch.downcast_ref::<Shared>().is_some();
    // A filter that disables the turns is often one that lets no warning of ours pass either.
    if dispatcher::get_default(is_ours)
        && !SAID.swap(true, Ordering::Relaxed)
        && !diagnostic::tell(TURN_FILTERED)
    {
        // `eprintln!` would panic where standard error is closed.
        let _closed = writeln!(io::stderr(), "tracing-session: {TURN_FILTERED}");
    }
}
