//! Which headers an installed set-up writes and reads.

use super::environment::EXPORTER;
use super::session;
use crate::support;
use opentelemetry::baggage::BaggageExt;
use opentelemetry::{Context, KeyValue};
use std::collections::BTreeMap;
use tracing::info_span;
use tracing_session::otlp::{Pipeline, pipeline};
use tracing_session::propagation::{extract_context, inject_context};
use tracing_session::{current_session, session};

const PROPAGATORS: &str = "OTEL_PROPAGATORS";
const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn injected() -> BTreeMap<String, String> {
    let mut headers = BTreeMap::new();
    inject_context(&mut headers);
    headers
}

/// The headers of a call that is made in a session, beside baggage that contains the same ids.
fn sent() -> BTreeMap<String, String> {
    let baggage = [
        ("tier", "gold"),
        ("session.id", "chat-42"),
        ("user.id", "u-7"),
    ];
    let baggage = baggage.map(|(key, value)| KeyValue::new(key, value));
    let _baggage = Context::current().with_baggage(baggage).attach();
    session().in_scope(|| info_span!("answer").in_scope(injected))
}

/// Runs a test in a process of its own for each list of propagators. The list in that process.
fn in_each<const LEN: usize>(test: &str, lists: [&str; LEN]) -> Option<String> {
    for list in lists {
        if support::alone(test, &[(EXPORTER, "none"), (PROPAGATORS, list)]) {
            return Some(std::env::var(PROPAGATORS).unwrap());
        }
    }
    None
}

const BAGGAGE: &str = "tracecontext,baggage";
const SEPARATE: &str = "tracecontext";

#[test]
fn session_is_not_sent_by_default() {
    let Some(list) = in_each(test_name!(), [BAGGAGE, SEPARATE]) else {
        return;
    };
    let telemetry = pipeline("my-app").install().unwrap();
    let mut sent = sent();
    assert_eq!(
        sent.remove("traceparent").map(|it| it.len()),
        Some(TRACE.len())
    );
    sent.remove("tracestate");
    let others = [("baggage".to_owned(), "tier=gold".to_owned())];
    let others = others.into_iter().filter(|_| list == BAGGAGE).collect();
    assert_eq!(sent, others);
    telemetry.shutdown().unwrap();
}

#[test]
fn session_is_sent_with_session_propagation() {
    let Some(list) = in_each(test_name!(), [BAGGAGE, SEPARATE]) else {
        return;
    };
    let pipeline: Pipeline = pipeline("my-app").with_session_propagation();
    let telemetry = pipeline.install().unwrap();
    let sent = sent();
    let (name, value) = match list.as_str() {
        BAGGAGE => ("baggage", "session.id=chat-42"),
        _ => ("Mirascope-Session-Id", "chat-42"),
    };
    assert!(sent[name].starts_with(value), "{sent:?}");
    assert!(sent.contains_key("traceparent"));
    telemetry.shutdown().unwrap();
}

/// Only sending is opt-in: a server that extracts a context has asked for the session.
#[test]
fn session_in_incoming_headers_applies_and_is_not_sent_on() {
    let Some(list) = in_each(test_name!(), [BAGGAGE, SEPARATE]) else {
        return;
    };
    let telemetry = pipeline("my-app").install().unwrap();
    let headers = match list.as_str() {
        BAGGAGE => ("baggage", "session.id=chat-43,tier=gold"),
        _ => ("mirascope-session-id", "chat-43"),
    };
    let headers = [headers, ("traceparent", TRACE)];
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let _attached = extract_context(&BTreeMap::from(headers)).attach();
    assert_eq!(current_session().unwrap().id(), Some("chat-43"));
    session!("chat-44").in_scope(|| {
        let sent = injected();
        assert_eq!(sent["traceparent"][..36], TRACE[..36]);
        let ids = ["chat-43", "chat-44"];
        let has_id = |value: &String| ids.iter().any(|id| value.contains(id));
        assert!(!sent.values().any(has_id), "{sent:?}");
    });
    telemetry.shutdown().unwrap();
}
