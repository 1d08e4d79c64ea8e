//! How `mark_trace` marks the ancestors of the current span.

use crate::base::error::{Error, ErrorKind};
use crate::current::ensure;
use crate::layer::spans::{LayerState, MarkedTrace};
use crate::scope::bridge::SpanCommand;
use crate::scope::{bridge, thread};
use crate::session::Session;
use opentelemetry::Context;
use opentelemetry::trace::TraceContextExt;
use std::cell::Cell;
use std::rc::Rc;
use tracing::Dispatch;
use tracing_opentelemetry::get_otel_context;

/// Up to this number of spans are marked again at each call. If there are more, the call remembers which spans it has marked:
/// otherwise each call would cost more than the one before, in a trace in which each level calls `mark_trace`.
const FEW: usize = 8;

pub(super) fn mark_trace(session: &Session, dispatch: &Dispatch) -> Result<(), Error> {
    let is_refused = Rc::new(Cell::new(false));
    let command = || SpanCommand::Mark(session.clone(), is_refused.clone());
    let here = thread::current();
    let mut is_marked = bridge::send(&here, command());
    let span = dispatch.current_span().id().cloned();
    let Some((state, span)) = LayerState::of(dispatch).zip(span) else {
        return ensure(is_marked, ErrorKind::NoSpan);
    };
    let trace_id = |cx: &Context| cx.span().span_context().trace_id();
    // Outside any OpenTelemetry span there is no trace, unless the OpenTelemetry layer activates none.
    let has_span = here.span().span_context().is_valid();
    let mut trace = (has_span || state.setup.wrapped.is_activation_on()).then(|| trace_id(&here));
    let marked = MarkedTrace {
        id: session.id.clone(),
        user_id: session.user_id.clone(),
    };
    let mut spans = Vec::new();
    state
        .subscriber
        .ancestors(dispatch, &span, &mut |id, extensions| {
            spans.push(id.clone());
            extensions.get() != Some(&marked)
        });
    // From here on, no span has another session or user.
    let mut first = 0;
    for at in 0..spans.len() {
        let Some(cx) = get_otel_context(&spans[at], dispatch) else {
            continue;
        };
        let id = trace_id(&cx);
        if *trace.get_or_insert(id) != id {
            ensure(is_marked, ErrorKind::NoSpan)?;
            spans.truncate(at);
            break;
        }
        is_refused.set(false);
        is_marked |= bridge::send(&cx, command());
        if is_refused.get() {
            first = at + 1;
        }
    }
    if spans.len() > FEW {
        for span in &spans[first..] {
            state.subscriber.set_marked(dispatch, span, &marked);
        }
    }
    Ok(())
}
