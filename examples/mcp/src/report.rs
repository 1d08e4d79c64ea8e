//! Whether all spans are in the right trace and session.

use crate::process::Outcome;
use opentelemetry::trace::{SpanId, TraceId};
use opentelemetry_sdk::trace::SpanData;
use std::collections::HashMap;

/// A finished span, and the process that exports it.
pub(crate) type Span = (&'static str, SpanData);

/// The spans of a turn. Each has a field `order`, such as `chat-7/3`: the session and the number of the turn.
pub(crate) const TURN: [(&str, &str); 5] = [
    ("client", "answer"),
    ("client", "call_tool"),
    ("client", "show_progress"),
    ("server", "find_van"),
    ("server", "track"),
];

pub(crate) fn check(spans: &[Span], turns: usize) -> Outcome {
    let mut traces: HashMap<TraceId, Vec<&Span>> = HashMap::new();
    for span in spans {
        let trace = span.1.span_context.trace_id();
        traces.entry(trace).or_default().push(span);
    }
    let (mut whole, mut torn, mut of_connections) = (0, 0, 0);
    let (mut wrong, mut missing) = (0, 0);
    for trace in traces.values() {
        let mut orders: Vec<_> = trace.iter().map(|span| value(span, "order")).collect();
        for (span, order) in trace.iter().zip(&orders) {
            let session = value(span, "session.id");
            match order.as_deref().and_then(|order| order.split_once('/')) {
                Some((expected, _)) => {
                    missing += usize::from(session.is_none());
                    wrong += usize::from(session.is_some_and(|session| session != expected));
                }
                // `rmcp` makes it for a connection, which serves all sessions.
                None => {
                    of_connections += 1;
                    wrong += usize::from(session.is_some());
                }
            }
        }
        let mut names: Vec<_> = trace
            .iter()
            .map(|(process, span)| (*process, &*span.name))
            .collect();
        names.sort_unstable();
        orders.dedup();
        match orders.as_slice() {
            [None] => {}
            [Some(_)] if names == TURN => whole += 1,
            _ => torn += 1,
        }
    }
    let first = traces.values().find(|trace| trace.len() == TURN.len());
    if let Some(trace) = first {
        print(trace, SpanId::INVALID, 1);
    }
    let sums = format!(
        "{whole} turns, each of {} spans in a trace of its own; {torn} other traces; {wrong} spans in a wrong session; \
         {missing} without a session; {of_connections} spans of connections",
        TURN.len()
    );
    println!("  {sums}");
    if (whole, torn, wrong, missing) != (turns, 0, 0, 0) {
        return Err(format!("of {turns} turns: {sums}").into());
    }
    Ok(())
}

fn print(trace: &[&Span], parent: SpanId, depth: usize) {
    for span in trace.iter().filter(|span| span.1.parent_span_id == parent) {
        let name = format!("{}{}", "  ".repeat(depth), span.1.name);
        let session = value(span, "session.id").unwrap_or_else(|| "-".to_owned());
        println!("{name:<20} {} session.id={session}", span.0);
        print(trace, span.1.span_context.span_id(), depth + 1);
    }
}

fn value((_, span): &Span, key: &str) -> Option<String> {
    let found = span.attributes.iter().find(|it| it.key.as_str() == key);
    found.map(|it| it.value.to_string())
}
