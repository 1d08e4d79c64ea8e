//! Prints the exported spans, and checks that all are in the session.

use opentelemetry::trace::SpanId;
use opentelemetry_sdk::trace::SpanData;
use std::error::Error;
use tracing_session::Session;

/// The expected spans: of rig, of the tool, and of the tasks that the tool spawns.
const NAMES: &[&str] = &["ask", "chat", "execute_tool", "carrier", "remember", "bill"];

pub(crate) fn check(spans: &[SpanData], session: &Session) -> Result<(), Box<dyn Error>> {
    let mut sorted: Vec<_> = spans.iter().collect();
    sorted.sort_by_key(|span| span.start_time);
    print(&sorted, SpanId::INVALID, 0);

    for name in NAMES {
        if !spans.iter().any(|span| span.name == *name) {
            return Err(format!("there is no span `{name}`").into());
        }
    }
    let is_in_session = |span: &&SpanData| {
        value(span, "session.id").as_deref() == session.id()
            && value(span, "user.id").as_deref() == session.user_id()
    };
    let inside = spans.iter().filter(is_in_session).count();
    if inside < spans.len() {
        return Err(format!("{} spans are not in the session", spans.len() - inside).into());
    }
    println!("\n{inside} spans, all in the session");
    Ok(())
}

fn print(spans: &[&SpanData], parent: SpanId, depth: usize) {
    for span in spans.iter().filter(|span| span.parent_span_id == parent) {
        let name = format!("{}{}", "  ".repeat(depth), span.name);
        let [session, user] =
            ["session.id", "user.id"].map(|key| value(span, key).unwrap_or_else(|| "-".to_owned()));
        println!("{name:<20} session.id={session} user.id={user}");
        print(spans, span.span_context.span_id(), depth + 1);
    }
}

fn value(span: &SpanData, key: &str) -> Option<String> {
    let found = span.attributes.iter().find(|it| it.key.as_str() == key);
    found.map(|it| it.value.to_string())
}
