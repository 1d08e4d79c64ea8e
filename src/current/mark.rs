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

/// Marks the current span and its ancestors. Stops at a span that an earlier call marked with this session, ancestors
/// included: if each level of a trace calls `mark_trace`, every call would otherwise cost more than the last.
pub(super) fn mark_trace(session: &Session, dispatch: &Dispatch) -> Result<(), Error> {
    let flag = Rc::new(Cell::new(false));
    let mark = |cx: &Context| bridge::send(cx, SpanCommand::Mark(session.clone(), flag.clone()));
    let here = thread::current();
    // If it isn't a span of `tracing`, its ancestors are unknown.
    let mut is_marked = mark(&here);
    let mut next = dispatch.current_span().id().cloned();
    let Some(state) = LayerState::of(dispatch).filter(|_| next.is_some()) else {
        return ensure(is_marked, ErrorKind::NoSpan);
    };
    // Without a current OpenTelemetry span there is no trace, unless context activation of the OpenTelemetry layer is
    // off.
    let here = here.span().span_context().clone();
    let has_trace = here.is_valid() || state.setup.wrapped.is_activation_on();
    let mut trace = has_trace.then(|| here.trace_id());
    while let Some(span) = next {
        if let Some(cx) = state.otel_context(&span) {
            let it = cx.span();
            let it = it.span_context();
            if *trace.get_or_insert(it.trace_id()) != it.trace_id() {
                return ensure(is_marked, ErrorKind::NoSpan);
            }
            flag.set(true);
            let is_ours = mark(&cx);
            is_marked |= is_ours;
            if is_ours && flag.get() {
                break;
            }
        }
        next = state.subscriber.parent(dispatch, &span);
    }
    Ok(())
}

/// Whether there is a current span, of `tracing` or of OpenTelemetry.
pub(super) fn is_in_span(dispatch: &Dispatch) -> bool {
    dispatch.current_span().id().is_some() || thread::current_span().is_some()
}
