//! What has to hold whatever comes in as JSON: as the state of a conversation, and as the headers of a
//! message.

#[path = "rule.rs"]
mod rule;

use crate::support::{App, values};
use opentelemetry_sdk::trace::SpanData;
use serde_json::Value as Json;
use std::collections::{BTreeMap, BTreeSet};
use tracing_session::{
    Conversation,
    conversation::ConversationState,
    propagation::{Carrier, TraceHeaders},
};

fn app() -> &'static App {
    thread_local! {
        static APP: &'static App = Box::leak(Box::new(App::new()));
    }
    APP.with(|app| *app)
}

/// Panics where something does not hold.
pub(crate) fn check(file: &[u8]) {
    check_headers(file);
    let error = match serde_json::from_slice(file) {
        Ok(state) => return goes_on(&state),
        Err(error) => error,
    };
    let is_known = match serde_json::from_slice::<Json>(file) {
        Err(malformed) if error.to_string() == malformed.to_string() => true,
        _ => names_no_value(&error.to_string()),
    };
    assert!(is_known, "{error}");
}

/// Nothing but what is known beforehand, and the number of a version.
fn names_no_value(error: &str) -> bool {
    const OF_A_FIELD: [&str; 7] = [
        "this field of the conversation state is missing or malformed: start a new conversation",
        "id is blank: set a value, or leave it out",
        "id is longer than 1024 bytes: shorten it, or use a hash of it",
        "id contains a control or invisible character: remove it",
        "id is a placeholder such as None or null: set the value when it is known",
        "the text is not a trace id: use 32 hexadecimal digits, or `tr_` and 16 digits (the tracing service Tracia)",
        "the text is not a span id: use 16 hexadecimal digits, or `sp_` and 16 digits (the tracing service Tracia)",
    ];
    const FIELDS: [&str; 9] = [
        "version",
        "session_id",
        "previous_id",
        "in_one_trace",
        "started",
        "trace_id",
        "last_span_id",
        "trace_flags",
        "trace_state",
    ];
    let of_field = |error: &str| {
        let (field, error) = error.strip_prefix('`')?.split_once("`: ")?;
        Some(FIELDS.contains(&field) && OF_A_FIELD.contains(&error))
    };
    let of_version = |error: &str| {
        let version = error
            .strip_prefix("the conversation state has version ")?
            .strip_suffix(", but this release reads only version 1: start a new conversation")?;
        Some(version != "1" && version.parse::<u64>().is_ok())
    };
    of_field(error)
        .or_else(|| of_version(error))
        .unwrap_or(false)
}

fn goes_on(state: &ConversationState) {
    assert_eq!(
        rule::received_id(state.session_id()),
        Ok(state.session_id())
    );
    assert_eq!(
        format!("{state:?}"),
        "ConversationState { session: Session { id: Some(<hidden>), user_id: None, .. }, .. }"
    );
    let mut chat = Conversation::resume(state.clone());
    assert!(chat.state() == *state);
    let written = written(state);
    let mut others = written.clone();
    for id in ["session_id", "previous_id"] {
        if others[id].is_string() {
            others[id] = "another".into();
        }
    }
    let others = Conversation::resume(serde_json::from_value(others).unwrap());
    assert_eq!(format!("{chat:?}"), format!("{others:?}"), "an id is shown");

    // Without a subscriber nothing happens, and with one the trace goes on.
    let quiet = tracing::Dispatch::none();
    tracing::dispatcher::with_default(&quiet, || chat.turn("next").finish());
    assert!(chat.state() == *state);
    app().anew(|app| {
        let turn = chat.turn("next");
        let (span, trace) = (turn.span_id().unwrap(), turn.trace_id().unwrap());
        turn.finish();
        let [turn] = &app.spans()[..] else {
            assert!(written["in_one_trace"] == true && is_not_sampled(&written));
            return;
        };
        assert_eq!(turn.span_context.span_id(), span);
        assert_eq!(turn.span_context.trace_id(), trace);
        check_turn(turn, &written);
        let next = self::written(&chat.state());
        assert_eq!(next["session_id"], written["session_id"]);
        assert_eq!(next["previous_id"], written["previous_id"]);
        assert_eq!(next["last_span_id"], span.to_string());
        assert_eq!(next["trace_id"], trace.to_string());
    });
}

fn is_not_sampled(state: &Json) -> bool {
    state["trace_flags"]
        .as_u64()
        .is_some_and(|flags| flags & 1 == 0)
}

/// The turn that follows on a state.
fn check_turn(turn: &SpanData, before: &Json) {
    assert_eq!(
        values(turn, "session.id"),
        [before["session_id"].as_str().unwrap()]
    );
    let previous: Vec<_> = before["previous_id"].as_str().into_iter().collect();
    assert_eq!(values(turn, "session.previous_id"), previous);
    let trace = turn.span_context.trace_id().to_string();
    let links: Vec<_> = turn.links.iter().map(|link| &link.span_context).collect();
    if before["in_one_trace"] == true {
        assert!(links.is_empty());
        assert!(before["trace_id"].is_null() || before["trace_id"] == trace);
        let parent = &before["last_span_id"];
        assert!(parent.is_null() || *parent == turn.parent_span_id.to_string());
    } else {
        assert_ne!(before["trace_id"], trace);
        let last: Vec<_> = before["last_span_id"].as_str().into_iter().collect();
        let linked: Vec<_> = links.iter().map(|it| it.span_id().to_string()).collect();
        assert_eq!(linked, last);
        assert!(
            links
                .iter()
                .all(|it| before["trace_id"] == it.trace_id().to_string())
        );
    }
}

/// As JSON, which is not long and comes back as what it was.
fn written(state: &ConversationState) -> Json {
    let text = serde_json::to_string(state).unwrap();
    // Two ids of 1,024 bytes and 512 of a `tracestate`, each of which may have to be escaped.
    assert!(
        text.len() <= 2 * (2 * 1024 + 512) + 512,
        "{} bytes",
        text.len()
    );
    assert!(serde_json::from_str::<ConversationState>(&text).unwrap() == *state);
    serde_json::from_str(&text).unwrap()
}

fn check_headers(file: &[u8]) {
    let map = serde_json::from_slice::<BTreeMap<String, String>>(file);
    let (headers, map) = match (serde_json::from_slice::<TraceHeaders>(file), map) {
        (Ok(headers), Ok(map)) => (headers, map),
        (Err(error), Err(malformed)) => {
            let said = error.to_string();
            let is_known = said == "not a map of headers to their values";
            assert!(is_known || malformed.is_syntax() && said == malformed.to_string());
            return;
        }
        (headers, map) => panic!("{:?} {:?}", headers.err(), map.err()),
    };
    assert!(headers.names().into_iter().eq(map.keys()));
    for (name, value) in &map {
        assert!(headers.get_all(name).contains(&value.as_str()));
    }
    let names: BTreeSet<_> = map.keys().collect();
    assert_eq!(format!("{headers:?}"), format!("{names:?}"));
    let text = serde_json::to_string(&headers).unwrap();
    assert!(serde_json::from_str::<TraceHeaders>(&text).unwrap() == headers);
}
