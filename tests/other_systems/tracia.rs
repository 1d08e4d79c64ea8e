//! The samples of Tracia's documentation of its sessions, which are conversations here.
//!
//! | sample there | test here, in `conversation` |
//! | --- | --- |
//! | `create_session()`, a conversation of three turns | `in_one_trace_each_turn_is_a_child_of_the_turn_before`; as a trace each, `each_turn_is_a_trace_linked_to_the_turn_before` |
//! | `run_local`, `arun_local` | the same two, and `turns_may_be_finished_by_other_tasks` |
//! | `trace_id`, `last_span_id`, `reset()` | `ids_are_those_of_the_last_turn`, `reset_begins_a_session_with_the_previous_id`, `in_one_trace_turns_are_children_of_the_first_until_one_is_finished` |
//! | `create_session(trace_id, parent_span_id)` | `state::conversation_continues_from_ids`, `state::conversation_continues_from_a_trace_id_alone`, and its forms of ids `links::ids_are_read_as_opentelemetry_w3c_b3_and_tracia_write_them` |
//! | a trace continued across requests | `trace_continues_across_requests` below; with more in the state, `state::conversation_continues_in_the_next_request` |
//! | linking by hand | `links::span_is_linked_by_the_ids_of_another`, `links::span_is_a_child_by_the_ids_of_another_and_keeps_the_current_session` |
//! | streaming | `streaming_turn_does_not_move_the_conversation`; `inherits::session_value_moves_with_a_spawned_future_and_a_stream` |

use crate::support::App;
use serde_json::{Value as Json, json};
use tracing::info_span;
use tracing_session::{Conversation, Error, Session};

/// A client of a model, which makes spans of its own.
fn run_local(messages: &[&str]) -> &'static str {
    info_span!("call", messages = messages.len()).in_scope(|| "It rains.")
}

/// Tracia's tree: each call below the one before.
fn client_session() -> Conversation {
    Conversation::new(Session::new("weather").unwrap()).in_one_trace()
}

/// A view of Django. The client has the two ids and sends them back.
#[test]
fn trace_continues_across_requests() {
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
