//! What is kept between requests, and what is refused of it.

use super::{chat, id, is_root, linked, take, trace};
use crate::support::{App, PLACEHOLDERS, values};
use opentelemetry::trace::TraceId;
use opentelemetry_sdk::trace::{Sampler, SamplingDecision, SamplingResult};
use serde_json::{Value as Json, json};
use tracing_session::{Conversation, Session, SessionLayer, conversation::ConversationState};

/// Into the response and out of the next request.
fn sent(chat: &Conversation) -> Conversation {
    let state = serde_json::to_string(&chat.state()).unwrap();
    let back: ConversationState = serde_json::from_str(&state).unwrap();
    assert_eq!(back, chat.state());
    Conversation::resume(back)
}

fn error(state: Json) -> String {
    serde_json::from_value::<ConversationState>(state)
        .unwrap_err()
        .to_string()
}

#[test]
fn conversation_continues_in_the_next_request() {
    for in_one_trace in [false, true] {
        let app = App::new();
        let mut chat = if in_one_trace {
            chat().in_one_trace()
        } else {
            chat()
        };
        for name in ["one", "two", "three"] {
            take(&mut chat, name);
            let (trace_id, span_id) = (chat.trace_id(), chat.last_span_id());
            chat = sent(&chat);
            assert_eq!((chat.trace_id(), chat.last_span_id()), (trace_id, span_id));
        }
        for (name, before) in [("two", "one"), ("three", "two")] {
            let (span, before) = (app.span(name), id(&app, before));
            match in_one_trace {
                true => assert_eq!(span.parent_span_id, before),
                false => assert_eq!(linked(&span), [before]),
            }
        }
        assert!(
            app.spans()
                .iter()
                .all(|span| values(span, "session.id") == ["chat-42"])
        );
    }
}

#[test]
fn state_has_the_documented_format() {
    let app = App::new();
    let mut chat = chat();
    assert_eq!(
        serde_json::to_value(chat.state()).unwrap(),
        json!({ "version": 1, "session_id": "chat-42" })
    );
    take(&mut chat, "one");
    let expected = json!({
        "version": 1,
        "session_id": "chat-42",
        "trace_id": trace(&app, "one").to_string(),
        "last_span_id": id(&app, "one").to_string(),
        "trace_flags": 1,
    });
    assert_eq!(serde_json::to_value(chat.state()).unwrap(), expected);
    chat.reset();
    chat = chat.in_one_trace();
    let mut state = serde_json::to_value(chat.state()).unwrap();
    let fresh = state["session_id"].take();
    assert!(fresh.as_str().is_some_and(|id| id != "chat-42"));
    let expected = json!({ "version": 1, "session_id": null,
        "previous_id": "chat-42", "in_one_trace": true });
    assert_eq!(state, expected);
    assert_eq!(sent(&chat).previous_id(), Some("chat-42"));
}

#[test]
fn user_and_metadata_are_not_in_the_state() {
    let session = Session::default()
        .with_user("u-7")
        .unwrap()
        .with_metadata("plan", "pro");
    let chat = chat().with_session(session.unwrap());
    let state = serde_json::to_string(&chat.state()).unwrap();
    assert!(!state.contains("u-7") && !state.contains("pro"), "{state}");
    let back = Conversation::resume(chat.state());
    assert_eq!(back.session(), &Session::new("chat-42").unwrap());
}

/// Drops all, and writes this `tracestate`.
#[derive(Clone, Debug)]
struct WritesState(String);

impl opentelemetry_sdk::trace::ShouldSample for WritesState {
    fn should_sample(
        &self,
        _: Option<&opentelemetry::Context>,
        _: TraceId,
        _: &str,
        _: &opentelemetry::trace::SpanKind,
        _: &[opentelemetry::KeyValue],
        _: &[opentelemetry::trace::Link],
    ) -> SamplingResult {
        SamplingResult {
            decision: SamplingDecision::Drop,
            attributes: Vec::new(),
            trace_state: self.0.parse().unwrap(),
        }
    }
}

#[test]
fn sampling_decision_and_trace_state_are_kept() {
    let state = "ot=rv:6e6d1a75832a2f".to_owned();
    let app = App::with_provider(
        |builder| builder.with_sampler(Sampler::parent_based(WritesState(state))),
        |otel| SessionLayer::new().wrap(otel),
    );
    let mut chat = chat().in_one_trace();
    take(&mut chat, "one");
    let trace = chat.trace_id();
    let state = serde_json::to_value(chat.state()).unwrap();
    assert_eq!(state["trace_flags"], 0);
    assert_eq!(state["trace_state"], "ot=rv:6e6d1a75832a2f");
    let mut chat = sent(&chat);
    take(&mut chat, "two");
    assert_eq!(chat.trace_id(), trace);
    let state = serde_json::to_value(chat.state()).unwrap();
    assert_eq!(
        (&state["trace_flags"], &state["trace_state"]),
        (&json!(0), &json!("ot=rv:6e6d1a75832a2f"))
    );
    assert!(app.spans().is_empty());
}

/// What would be refused is not written: nobody has to pass on more than 512 bytes.
#[test]
fn trace_state_that_is_too_long_is_omitted() {
    for (bytes, is_kept) in [(512, true), (513, false)] {
        let members = format!("a=123,b={},c={}", "x".repeat(250), "y".repeat(bytes - 261));
        let _app = App::with_provider(
            |builder| builder.with_sampler(WritesState(members.clone())),
            |otel| SessionLayer::new().wrap(otel),
        );
        let mut chat = chat();
        take(&mut chat, "one");
        let state = serde_json::to_value(chat.state()).unwrap();
        let written = state.get("trace_state").and_then(Json::as_str);
        assert_eq!(written, is_kept.then_some(members.as_str()));
        assert_eq!(sent(&chat).last_span_id(), chat.last_span_id());
    }
}

#[test]
fn state_of_another_version_is_refused() {
    let said = error(json!({ "version": 2, "conversation": "chat-42" }));
    assert_eq!(
        said,
        "the conversation state has version 2, but this release reads only version 1: start a new conversation"
    );
    for version in [json!(null), json!("1"), json!(-1), json!(1.5)] {
        let said = error(json!({ "version": version, "session_id": "chat-42" }));
        assert_eq!(
            said,
            "`version`: this field of the conversation state is missing or malformed: start a new conversation"
        );
    }
}

#[test]
fn malformed_state_is_an_error_with_the_field_and_without_its_value() {
    const SECRET: &str = "secret-7f3a";
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let member = |name| format!("{name}={}", "b".repeat(200));
    let long = ["a", "b", "c"].map(member).join(",");
    let cases = [
        (
            json!({}),
            "`session_id`: this field of the conversation state is missing or malformed: start a new conversation",
        ),
        (
            json!({ "session_id": 7_001_007 }),
            "`session_id`: this field of the conversation state is missing or malformed: start a new conversation",
        ),
        (
            json!({ "session_id": [SECRET] }),
            "`session_id`: this field of the conversation state is missing or malformed: start a new conversation",
        ),
        (
            json!({ "session_id": " " }),
            "`session_id`: id is blank: set a value, or leave it out",
        ),
        (
            json!({ "session_id": format!("{SECRET}\n.") }),
            "`session_id`: id contains a control or invisible character: remove it",
        ),
        (
            json!({ "session_id": SECRET.repeat(100) }),
            "`session_id`: id is longer than 1024 bytes: shorten it, or use a hash of it",
        ),
        (
            json!({ "session_id": "undefined" }),
            "`session_id`: id is a placeholder such as None or null: set the value when it is known",
        ),
        (
            json!({ "previous_id": " null " }),
            "`previous_id`: id is a placeholder such as None or null: set the value when it is known",
        ),
        (
            json!({ "previous_id": format!("{SECRET}\n.") }),
            "`previous_id`: id contains a control or invisible character: remove it",
        ),
        (
            json!({ "trace_id": SECRET }),
            "`trace_id`: the text is not a trace id: use 32 hexadecimal digits, or `tr_` and 16 digits (the tracing \
             service Tracia)",
        ),
        (
            json!({ "trace_id": trace, "last_span_id": SECRET }),
            "`last_span_id`: the text is not a span id: use 16 hexadecimal digits, or `sp_` and 16 digits (the tracing \
             service Tracia)",
        ),
        (
            json!({ "last_span_id": "00f067aa0ba902b7" }),
            "`trace_id`: this field of the conversation state is missing or malformed: start a new conversation",
        ),
        (
            json!({ "trace_id": trace, "trace_flags": 256 }),
            "`trace_flags`: this field of the conversation state is missing or malformed: start a new conversation",
        ),
        (
            json!({ "trace_id": trace, "trace_flags": SECRET }),
            "`trace_flags`: this field of the conversation state is missing or malformed: start a new conversation",
        ),
        (
            json!({ "trace_id": trace, "trace_state": SECRET }),
            "`trace_state`: this field of the conversation state is missing or malformed: start a new conversation",
        ),
        (
            json!({ "trace_id": trace, "trace_state": long }),
            "`trace_state`: this field of the conversation state is missing or malformed: start a new conversation",
        ),
        (
            json!({ "in_one_trace": SECRET }),
            "`in_one_trace`: this field of the conversation state is missing or malformed: start a new conversation",
        ),
        (
            json!({ "started": 1 }),
            "`started`: this field of the conversation state is missing or malformed: start a new conversation",
        ),
    ];
    for (mut state, expected) in cases {
        state["version"] = json!(1);
        if !expected.starts_with("`session_id`") {
            state["session_id"] = json!("chat-42");
        }
        assert_eq!(error(state), expected);
    }
    // As one that was serialised twice is.
    for not_an_object in [json!([1, SECRET]), json!(SECRET), json!(null)] {
        let said = error(not_an_object);
        assert_eq!(
            said,
            "`version`: this field of the conversation state is missing or malformed: start a new conversation"
        );
    }
}

/// A `Session` value in code can have such an id. Its state doesn't tell that it came from code.
#[test]
fn state_of_a_session_whose_id_is_a_placeholder_is_refused() {
    for text in PLACEHOLDERS {
        let state = Conversation::new(Session::new(text).unwrap()).state();
        let said = error(serde_json::to_value(state).unwrap());
        assert!(
            said.starts_with("`session_id`: id is a placeholder"),
            "{said}"
        );
    }
}

#[test]
fn fields_of_later_releases_are_ignored() {
    let state = json!({ "version": 1, "session_id": "chat-42", "mood": "good" });
    let state: ConversationState = serde_json::from_value(state).unwrap();
    assert_eq!(state.session_id(), "chat-42");
}

#[test]
fn debug_of_a_state_has_no_ids() {
    assert!(!format!("{:?} {:?}", chat().state(), chat()).contains("chat-42"));
}

// From a trace id, with or without a span id

#[test]
fn conversation_continues_from_ids() {
    let (trace_id, span_id) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
    let app = App::new();
    let mut linked_to = chat().resume_trace(trace_id, Some(span_id)).unwrap();
    assert_eq!(linked_to.trace_id().unwrap().to_string(), trace_id);
    assert_eq!(linked_to.last_span_id().unwrap().to_string(), span_id);
    take(&mut linked_to, "linked");
    let link = &app.span("linked").links.links[0].span_context;
    assert_eq!(
        (link.trace_id().to_string(), link.span_id().to_string()),
        (trace_id.to_owned(), span_id.to_owned())
    );
    assert_ne!(trace(&app, "linked").to_string(), trace_id);

    let mut child = chat()
        .in_one_trace()
        .resume_trace(trace_id, Some(span_id))
        .unwrap();
    take(&mut child, "child");
    assert_eq!(trace(&app, "child").to_string(), trace_id);
    assert_eq!(app.span("child").parent_span_id.to_string(), span_id);
}

#[test]
fn conversation_continues_from_a_trace_id_alone() {
    let trace_id = "4bf92f3577b34da6a3ce929d0e0e4736";
    let app = App::new();
    let mut per_turn = chat().resume_trace(trace_id, None).unwrap();
    assert_eq!(per_turn.trace_id().unwrap().to_string(), trace_id);
    assert_eq!(per_turn.last_span_id(), None);
    take(&mut per_turn, "per turn");
    assert!(is_root(&app.span("per turn")) && linked(&app.span("per turn")).is_empty());

    let mut one_trace = chat().in_one_trace().resume_trace(trace_id, None).unwrap();
    assert_eq!(one_trace.last_span_id(), None);
    take(&mut one_trace, "one");
    take(&mut one_trace, "two");
    assert_eq!(trace(&app, "one").to_string(), trace_id);
    assert_eq!(app.span("two").parent_span_id, id(&app, "one"));
    // The same in every process, so that all turns that know no other hang below one.
    assert_eq!(app.span("one").parent_span_id.to_string(), &trace_id[16..]);
    let state = sent(&chat().in_one_trace().resume_trace(trace_id, None).unwrap()).state();
    assert_eq!(
        serde_json::to_value(state).unwrap().get("last_span_id"),
        None
    );

    // A trace id whose lower half is all zeros.
    let trace_id = "4bf92f3577b34da60000000000000000";
    let mut one_trace = chat().in_one_trace().resume_trace(trace_id, None).unwrap();
    take(&mut one_trace, "three");
    assert_eq!(trace(&app, "three").to_string(), trace_id);
}

#[test]
fn invalid_ids_are_refused() {
    for (trace_id, span_id) in [("4bf92f35", None), ("tr_0123456789abcdef", Some("sp_01"))] {
        let error = chat().resume_trace(trace_id, span_id).unwrap_err();
        assert!(error.is_invalid_state());
    }
}
