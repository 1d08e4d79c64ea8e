//! Whether all spans are in the right trace and session.

use crate::process::Outcome;
use opentelemetry::trace::{SpanId, TraceId};
use opentelemetry_sdk::trace::SpanData;
use std::collections::HashMap;

/// A finished span, and the process that exports it.
pub(crate) type Span = (&'static str, SpanData);

/// The trace of a turn. Each of its spans has a field `order`, such as `chat-7/3`: the session and the number of the turn.
pub(crate) const TURN: &str = "
  answer (client)
    call_tool (client)
      track (server)
        find_van (server)
        show_progress (client)";
pub(crate) const SPANS_OF_A_TURN: usize = 5;

pub(crate) fn check(spans: &[Span], turns: usize) -> Outcome {
    let mut traces: HashMap<TraceId, Vec<&Span>> = HashMap::new();
    let (mut wrong, mut missing, mut of_connections) = (0, 0, 0);
    for span in spans {
        let trace = span.1.span_context.trace_id();
        traces.entry(trace).or_default().push(span);

        let (session, order) = (value(span, "session.id"), value(span, "order"));
        let expected = order.as_deref().and_then(|order| order.split('/').next());
        // Without an order, `rmcp` made the span for a connection, which serves all sessions.
        of_connections += usize::from(expected.is_none());
        missing += usize::from(expected.is_some() && session.is_none());
        wrong += usize::from(session.is_some() && session.as_deref() != expected);
    }
    let (mut whole, mut torn) = (0, 0);
    for trace in traces.values_mut() {
        let mut orders: Vec<_> = trace.iter().map(|span| value(span, "order")).collect();
        orders.dedup();
        trace.sort_by(|(_, left), (_, right)| left.name.cmp(&right.name));
        match &*orders {
            [None] => {}
            [Some(_)] if tree(trace, SpanId::INVALID, 1) == TURN => whole += 1,
            _ => torn += 1,
        }
    }
    let sums = format!(
        "{whole} turns, each a trace of {SPANS_OF_A_TURN} spans; {torn} other traces; {wrong} spans in a wrong session; \
         {missing} in none; {of_connections} of connections"
    );
    if (whole, torn, wrong, missing) != (turns, 0, 0, 0) {
        return Err(format!("expected {turns} turns, found {sums}").into());
    }
    println!("  {sums}");
    Ok(())
}

fn tree(trace: &[&Span], parent: SpanId, depth: usize) -> String {
    let mut lines = String::new();
    for (process, span) in trace.iter().filter(|span| span.1.parent_span_id == parent) {
        lines += &format!("\n{}{} ({process})", "  ".repeat(depth), span.name);
        lines += &tree(trace, span.span_context.span_id(), depth + 1);
    }
    lines
}

pub(crate) fn value((_, span): &Span, key: &str) -> Option<String> {
    let found = span.attributes.iter().find(|it| it.key.as_str() == key);
    found.map(|it| it.value.to_string())
}
