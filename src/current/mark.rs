//! How `mark_trace` marks the current span and its ancestors.

use crate::base::error::{Error, ErrorKind};
use crate::current::ensure;
use crate::layer::spans::LayerState;
use crate::scope::bridge::SpanCommand;
use crate::scope::{bridge, thread};
use crate::session::Session;
use opentelemetry::Context;
use opentelemetry::trace::TraceContextExt;
use std::cell::Cell;
use std::rc::Rc;
use tracing::Dispatch;
use tracing_opentelemetry::get_otel_context;

/// Stops at a span that an earlier call has marked with this session, because that call has marked the ancestors too. Otherwise each
/// call would cost more than the one before, in a trace in which each level calls `mark_trace`.
pub(super) fn mark_trace(session: &Session, dispatch: &Dispatch) -> Result<(), Error> {
    let was_marked = Rc::new(Cell::new(false));
    let mark =
        |cx: &Context| bridge::send(cx, SpanCommand::Mark(session.clone(), was_marked.clone()));
    let here = thread::current();
    let mut is_marked = mark(&here);
    let mut next = dispatch.current_span().id().cloned();
    let Some(state) = LayerState::of(dispatch).filter(|_| next.is_some()) else {
        return ensure(is_marked, ErrorKind::NoSpan);
    };
    // Outside any OpenTelemetry span there is no trace, unless the OpenTelemetry layer activates none.
    let here = here.span().span_context().clone();
    let has_trace = here.is_valid() || state.setup.wrapped.is_activation_on();
    let mut trace = has_trace.then(|| here.trace_id());
    while let Some(span) = next {
        if let Some(cx) = get_otel_context(&span, dispatch) {
            let it = cx.span();
            let it = it.span_context();
            if *trace.get_or_insert(it.trace_id()) != it.trace_id() {
                break;
            }
            if *it != here {
                is_marked |= mark(&cx);
            }
            if was_marked.get() {
                break;
            }
        }
        next = state.subscriber.parent(dispatch, &span);
    }
    ensure(is_marked, ErrorKind::NoSpan)
}
