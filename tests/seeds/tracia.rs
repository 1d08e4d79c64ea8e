//! Tracia's documentation of its sessions: conversations.

use crate::seeds::call_model;
use crate::support::{App, values};
use futures_util::StreamExt;
use opentelemetry::trace::{SpanId, TraceId};
use serde_json::{Value as Json, json};
use tracing::{Instrument, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_session::{
    Conversation, ConversationState, Error, InSession, Session, Turn, current_session,
    link_context, parent_context, session,
};

/// A client of a model, which makes spans of its own.
fn run_local(messages: &[&str]) -> &'static str {
    info_span!("call", messages = messages.len()).in_scope(|| "It rains.")
}

async fn arun_local(messages: &[&str]) -> &'static str {
    tokio::task::yield_now().await;
    run_local(messages)
}

/// Tracia's tree: each call below the one before.
fn client_session() -> Conversation {
    Conversation::new(Session::new("weather").unwrap()).in_one_trace()
}

fn ids(turn: &Turn) -> (Option<TraceId>, Option<SpanId>) {
    (turn.trace_id(), turn.span_id())
}

/// Tracia, basic usage: a conversation of three calls. Each is sent with the trace of all and the span
/// of the one before.
#[test]
fn tracia_turns_of_a_conversation_are_linked() {
    let app = App::new();
    let mut session = client_session();
    let mut messages = Vec::new();
    for question in ["What is the weather?", "What about tomorrow?", "Thanks!"] {
        messages.push(question);
        let before = session.trace_id();
        let turn = session.turn(question);
        assert!(before.is_none() || before == turn.trace_id());
        messages.push(turn.span().in_scope(|| run_local(&messages)));
        turn.finish();
    }
    app.exports(
        "
        What is the weather? session.id=weather
          call messages=1 session.id=weather
          What about tomorrow? session.id=weather
            call messages=3 session.id=weather
            Thanks! session.id=weather
              call messages=5 session.id=weather
        ",
    );
    assert_eq!(
        session.last_span_id(),
        Some(app.span("Thanks!").span_context.span_id())
    );
}

/// The same, as Phoenix shows it: a trace for each.
#[test]
fn tracia_turns_may_be_traces_of_their_own() {
    let app = App::new();
    let mut session = Conversation::new(Session::new("weather").unwrap());
    let mut before = None;
    for question in ["What is the weather?", "What about tomorrow?", "Thanks!"] {
        let turn = session.turn(question);
        turn.span().in_scope(|| run_local(&[question]));
        assert!(session.trace_id() != turn.trace_id());
        turn.finish();
        let span = app.span(question);
        let links: Vec<_> = span
            .links
            .links
            .iter()
            .map(|link| link.span_context.span_id())
            .collect();
        assert_eq!(links, Vec::from_iter(before));
        before = Some(span.span_context.span_id());
        assert_eq!(values(&span, "session.id"), ["weather"]);
    }
}

/// Tracia: `run_local`, `arun_local`.
#[tokio::test]
async fn tracia_turns_may_be_sync_or_async() {
    let app = App::new();
    let mut session = client_session();
    let turn = session.turn("sync");
    turn.span().in_scope(|| run_local(&["Hello!"]));
    turn.finish();
    let turn = session.turn("async");
    arun_local(&["Hello!"]).instrument(turn.span()).await;
    turn.finish();
    app.exports(
        "
        sync session.id=weather
          call messages=1 session.id=weather
          async session.id=weather
            call messages=1 session.id=weather
        ",
    );
}

/// Tracia: `trace_id`, `last_span_id`, and `reset()`, which clears both and has the next call start
/// a new trace.
#[test]
fn tracia_ids_are_none_before_the_first_turn_and_after_a_reset() {
    let app = App::new();
    let mut session = client_session();
    assert_eq!((session.trace_id(), session.last_span_id()), (None, None));
    let turn = session.turn("one");
    let first = ids(&turn);
    turn.finish();
    assert_eq!((session.trace_id(), session.last_span_id()), first);

    session.reset();
    assert_eq!((session.trace_id(), session.last_span_id()), (None, None));
    let turn = session.turn("two");
    assert_ne!(turn.trace_id(), first.0);
    turn.finish();
    assert_eq!(app.span("two").parent_span_id, SpanId::INVALID);
    assert_eq!(values(&app.span("two"), "session.previous_id"), ["weather"]);
}

/// Tracia: a first call that fails has made the trace, and is no span to go on from.
#[test]
fn tracia_failed_first_turn_makes_the_trace_and_no_last_span() {
    let app = App::new();
    let mut session = client_session();
    let answer = |turn: Turn| -> Result<(), &str> {
        let failed = turn.span().in_scope(|| Err("the model is busy"));
        failed?;
        turn.finish();
        Ok(())
    };
    let turn = session.turn("failed");
    let (trace_id, _) = ids(&turn);
    answer(turn).unwrap_err();
    assert_eq!(
        (session.trace_id(), session.last_span_id()),
        (trace_id, None)
    );
    session.turn("next").finish();
    assert_eq!(app.span("next").span_context.trace_id(), trace_id.unwrap());
}

/// Tracia, `create_session(trace_id=.., parent_span_id=..)`: the options, and its own ids.
#[test]
fn tracia_trace_is_continued_from_its_ids() {
    let app = App::new();
    let chat = || Conversation::new(Session::new("weather").unwrap()).in_one_trace();
    let (trace_id, span_id) = ("tr_a3ce929d0e0e4736", "sp_00f067aa0ba902b7");
    let mut whole = chat().resume_trace(trace_id, Some(span_id)).unwrap();
    whole.turn("from the span").finish();
    let mut trace = chat().resume_trace(trace_id, None).unwrap();
    trace.turn("in the trace").finish();

    let continued = app.span("from the span");
    assert_eq!(
        continued.span_context.trace_id().to_string(),
        "0000000000000000a3ce929d0e0e4736"
    );
    assert_eq!(continued.parent_span_id.to_string(), "00f067aa0ba902b7");
    assert_eq!(
        app.span("in the trace").span_context.trace_id(),
        continued.span_context.trace_id()
    );
    // Tracia takes anything for a trace id.
    assert!(chat().resume_trace("tr_existing_trace_id", None).is_err());
}

/// Tracia, continuing across requests: a view of Django. The client has the two ids and sends them back.
#[test]
fn tracia_trace_is_continued_across_requests() {
    fn chat(request: &Json) -> Result<Json, Error> {
        let mut session = client_session();
        if let Some(trace_id) = request["trace_id"].as_str() {
            session = session.resume_trace(trace_id, request["last_span_id"].as_str())?;
        }
        let turn = session.turn("chat");
        let text = turn
            .span()
            .in_scope(|| run_local(&[request["message"].as_str().unwrap()]));
        turn.finish();
        let shown = |id: Option<String>| id.unwrap();
        Ok(json!({
            "text": text,
            "trace_id": shown(session.trace_id().map(|id| id.to_string())),
            "last_span_id": shown(session.last_span_id().map(|id| id.to_string())),
        }))
    }

    let app = App::new();
    let mut request = json!({ "message": "What is the weather?" });
    for message in ["What about tomorrow?", "Thanks!", ""] {
        let response = chat(&request).unwrap();
        request = response;
        request["message"] = json!(message);
    }
    app.exports(
        "
        chat session.id=weather
          call messages=1 session.id=weather
          chat session.id=weather
            call messages=1 session.id=weather
            chat session.id=weather
              call messages=1 session.id=weather
        ",
    );
    let malformed = json!({ "message": "Hello!", "trace_id": "tr_existing_trace_id" });
    assert!(chat(&malformed).unwrap_err().is_invalid_state());
}

/// The same with the state of the conversation, which knows its session too.
#[test]
fn tracia_conversation_is_continued_across_requests() {
    fn chat(request: &str) -> String {
        let request: Json = serde_json::from_str(request).unwrap();
        let mut session = match request.get("conversation") {
            Some(state) => {
                let state: ConversationState = serde_json::from_value(state.clone()).unwrap();
                Conversation::resume(state)
            }
            None => Conversation::new(Session::generate()),
        };
        let turn = session.turn("chat");
        turn.span().in_scope(call_model);
        turn.finish();
        json!({ "conversation": session.state() }).to_string()
    }

    let app = App::new();
    let mut request = json!({}).to_string();
    for _ in 0..3 {
        request = chat(&request);
    }
    let spans = app.spans();
    let turns: Vec<_> = spans.iter().filter(|span| span.name == "chat").collect();
    for pair in turns.windows(2) {
        let link = &pair[1].links.links[0];
        assert_eq!(link.span_context.span_id(), pair[0].span_context.span_id());
        assert_eq!(values(pair[1], "session.id"), values(pair[0], "session.id"));
    }
    assert_eq!(turns.len(), 3);
}

/// Tracia, manual span linking: the first span is taken for the session, and each call is told the one
/// before.
#[test]
fn tracia_spans_are_linked_by_hand() {
    let app = App::new();
    let say = |name: &'static str, message: &str, parent: Option<(&str, &str)>| {
        let span = session!("weather", otel.name = name);
        if let Some((trace_id, parent_span_id)) = parent {
            span.set_parent(parent_context(trace_id, parent_span_id).unwrap())
                .unwrap();
        }
        span.in_scope(|| run_local(&[message]));
        let context = opentelemetry::trace::TraceContextExt::span(&span.context())
            .span_context()
            .clone();
        (
            context.trace_id().to_string(),
            context.span_id().to_string(),
        )
    };
    let (_, result1) = say("one", "Hello!", None);
    // The sample's trace id is a span's, of which there are 16 digits.
    let (trace2, result2) = say("two", "Hello again!", Some((&result1, &result1)));
    let (trace3, _) = say("three", "Bye!", Some((&result1, &result2)));
    assert_eq!(trace2, format!("{:0>32}", result1));
    assert_eq!(trace3, trace2);
    assert_eq!(app.span("two").parent_span_id.to_string(), result1);
    assert_eq!(app.span("three").parent_span_id.to_string(), result2);

    // A link is as short.
    let four = session!("weather", otel.name = "four");
    four.add_link(link_context(&trace2, &result2).unwrap());
    drop(four);
    let link = &app.span("four").links.links[0];
    assert_eq!(link.span_context.span_id().to_string(), result2);
}

/// Tracia, streaming: the session moves when the stream has ended, and not before.
#[tokio::test]
async fn tracia_streamed_turn_moves_the_conversation_when_it_has_ended() {
    let app = App::new();
    let mut session = client_session();
    let turn = session.turn("Write a poem.");
    let (trace_id, span_id) = ids(&turn);
    assert_eq!(
        (session.trace_id(), session.last_span_id()),
        (trace_id, None)
    );

    let model = turn.span().in_scope(|| info_span!("call"));
    let chunks = futures_util::stream::iter(["Roses ", "are ", "red."]);
    let mut stream = std::pin::pin!(chunks.then(|chunk| {
        let chunk = async move {
            tokio::task::yield_now().await;
            chunk
        };
        chunk.instrument(info_span!(parent: &model, "chunk"))
    }));
    let mut text = String::new();
    while let Some(chunk) = stream.next().await {
        assert_eq!(session.last_span_id(), None);
        text.push_str(chunk);
    }
    turn.finish();
    assert_eq!(text, "Roses are red.");
    assert_eq!(
        (session.trace_id(), session.last_span_id()),
        (trace_id, span_id)
    );
    drop(model);
    app.exports(
        "
        Write a poem. session.id=weather
          call session.id=weather
            chunk session.id=weather
            chunk session.id=weather
            chunk session.id=weather
        ",
    );
}

/// Tracia: the answer arrives in pieces. What is done for each piece is in the session, and the
/// call's own span, which lasts as long as the stream.
#[tokio::test]
async fn tracia_streamed_answer_carries_the_session() {
    let app = App::new();
    let conversation = Session::new("poem").unwrap();
    let answer = async {
        let call = info_span!("call");
        let chunks = futures_util::stream::iter(["Roses ", "are ", "red."]).then(move |chunk| {
            let chunk = async move {
                tokio::task::yield_now().await;
                chunk
            };
            chunk.instrument(info_span!(parent: &call, "chunk"))
        });
        chunks.in_session(conversation.clone())
    };
    let stream = answer.in_session(conversation.clone()).await;
    let text: String = stream.collect().await;
    assert_eq!(text, "Roses are red.");
    assert_eq!(current_session(), None);
    info_span!("after").in_scope(|| {});
    app.exports(
        "
        call session.id=poem
          chunk session.id=poem
          chunk session.id=poem
          chunk session.id=poem
        after
        ",
    );
}
