//! What the other systems' documentation shows, said in Rust. What is propagated, and conversations, are in `seeds/`.
//!
//! Every sample, and where it is covered:
//!
//! | system | sample | covered by |
//! | --- | --- | --- |
//! | Arize | `using_session` | `arize_using_session_marks_every_call_inside` |
//! | Arize | `using_user` | `arize_using_user_marks_every_call_inside` |
//! | Arize | session and user together | `arize_session_and_user_together_mark_every_call_inside` |
//! | Arize | session and user are never empty strings | `arize_session_and_user_are_never_empty` |
//! | Arize | the instrumentors (OpenAI, LangChain, ...) | any library that makes spans: the three above |
//! | Mirascope, session | `SessionContext.id` | `mirascope_session_has_the_id_that_it_was_given` |
//! | Mirascope, session | an id is generated where none is given | `mirascope_session_without_an_id_generates_one` |
//! | Mirascope, session | `session(..)` around spans, one inside another | `mirascope_session_inside_a_session_gives_way_to_the_outer_one` |
//! | Mirascope, session | the same, left by an exception | `mirascope_session_left_by_a_panic_gives_way_to_the_outer_one` |
//! | Mirascope, session | `current_session` | `mirascope_current_session_is_there_inside_and_none_outside` |
//! | Mirascope, session | the same, in asynchronous code | `mirascope_session_holds_across_awaits` |
//! | Mirascope, session | `SessionContext.attributes` | `mirascope_attributes_of_a_session_are_its_metadata` |
//! | Mirascope, session | `SESSION_HEADER_NAME`, outgoing requests | `mirascope_session_of_the_client_is_the_servers` |
//! | Mirascope, session | `extract_session_id` | `mirascope_extract_session_id_reads_the_header` |
//! | Mirascope, propagation | client and server | `mirascope_headers_connect_client_and_server` |
//! | Mirascope, propagation | injecting, and what is injected | `mirascope_inject_context_writes_the_trace_and_the_session` |
//! | Mirascope, propagation | extracting, in an endpoint of FastAPI | `mirascope_endpoint_extracts_from_its_request` |
//! | Mirascope, propagation | the propagator's format, from the environment | `mirascope_format_of_the_propagator_is_the_environments` |
//! | Mirascope, propagation | a middleware of FastAPI | `mirascope_middleware_extracts_for_all_endpoints` |
//! | Mirascope, propagation | Flask | `mirascope_server_keeps_the_context_with_the_request` |
//! | Mirascope, propagation | httpx | `mirascope_client_injects_into_every_request` |
//! | Mirascope, propagation | the session's header, sent and read | `mirascope_session_of_the_client_is_the_servers` |
//! | Mirascope, propagation | `Context` values by hand | `mirascope_context_values_may_be_handled_by_hand` |
//! | Mirascope, propagation | microservices | `mirascope_services_in_a_row_share_one_trace` |
//! | Mirascope, propagation | background jobs | `mirascope_background_job_goes_on_with_the_request` |
//! | Mirascope, propagation | other languages | `mirascope_trace_goes_on_in_other_languages` |
//! | TraceCtrl | `new_session`, then `current_session_id` | `tracectrl_new_session_is_the_current_one` |
//! | TraceCtrl | `set_session_id` | `tracectrl_set_session_id_takes_the_applications_own_id` |
//! | TraceCtrl | `TRACECTRL_SESSION_ID`, and who reads it | `tracectrl_environment_overrides_new_session_and_not_set_session_id` |
//! | TraceCtrl | `current_session_id` before any other call | `tracectrl_current_session_id_is_none_before_any_is_set` |
//! | TraceCtrl | threads are isolated | `tracectrl_sessions_are_isolated_between_threads` |
//! | TraceCtrl | asynchronous tasks are isolated | `tracectrl_sessions_are_isolated_between_tasks` |
//! | TraceCtrl | agent A sends a header, agent B reads it | `tracectrl_agents_share_session_and_trace`, and the same `.._by_hand` |
//! | Tracia | `create_session()`, a conversation of three turns | `tracia_turns_of_a_conversation_are_linked`, and as a trace each: `tracia_turns_may_be_traces_of_their_own` |
//! | Tracia | `run_local`, `arun_local` | `tracia_turns_may_be_sync_or_async` |
//! | Tracia | `trace_id`, `last_span_id`, `reset()` | `tracia_ids_are_none_before_the_first_turn_and_after_a_reset`, `tracia_failed_first_turn_makes_the_trace_and_no_last_span` |
//! | Tracia | `create_session(trace_id, parent_span_id)` | `tracia_trace_is_continued_from_its_ids` |
//! | Tracia | a trace continued across requests, a view of Django | `tracia_trace_is_continued_across_requests`, and with more in the state: `tracia_conversation_is_continued_across_requests` |
//! | Tracia | linking by hand | `tracia_spans_are_linked_by_hand` |
//! | Tracia | streaming | `tracia_streamed_turn_moves_the_conversation_when_it_has_ended`, `tracia_streamed_answer_carries_the_session` |

#[cfg(all(feature = "reqwest", feature = "tower"))]
mod http;
mod propagation;
mod tracia;

use crate::support::{self, App, values};
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use tracing::{Instrument, info_span};
use tracing_session::{
    InSession, Session, current_session, current_session_id, new_session, session, set_session_id,
    user,
};
use uuid::Uuid;

/// An application calls a model through a library, which knows nothing of sessions.
fn call_model() {
    info_span!("call").in_scope(|| info_span!("http").in_scope(|| {}));
}

/// The same in asynchronous code.
async fn call_model_async() {
    let call = async {
        tokio::task::yield_now().await;
        info_span!("http").in_scope(|| {});
    };
    call.instrument(info_span!("call")).await;
}

fn session(id: &str) -> Session {
    Session::new(id).unwrap()
}

// Arize

/// Arize: a session id in force for a block. Its instrumentors mark their own spans; here every
/// span is marked, whoever made it.
#[test]
fn arize_using_session_marks_every_call_inside() {
    let app = App::new();
    session("my-session-id").in_scope(call_model);
    session!("my-session-id").in_scope(call_model);
    call_model();
    app.exports(
        "
        call session.id=my-session-id
          http session.id=my-session-id
        session session.id=my-session-id
          call session.id=my-session-id
            http session.id=my-session-id
        call
          http
        ",
    );
}

/// Arize: a user id in force for a block.
#[test]
fn arize_using_user_marks_every_call_inside() {
    let app = App::new();
    let user = Session::default().with_user("my-user-id").unwrap();
    user.in_scope(call_model);
    user!("my-user-id").in_scope(call_model);
    call_model();
    app.exports(
        "
        call user.id=my-user-id
          http user.id=my-user-id
        user user.id=my-user-id
          call user.id=my-user-id
            http user.id=my-user-id
        call
          http
        ",
    );
}

/// Arize: both, said at once or one inside the other.
#[test]
fn arize_session_and_user_together_mark_every_call_inside() {
    let app = App::new();
    let user = Session::default().with_user("my-user-id").unwrap();
    session("my-session-id")
        .with_user("my-user-id")
        .unwrap()
        .in_scope(call_model);
    session("my-session-id").in_scope(|| user.in_scope(call_model));
    user.in_scope(|| session("my-session-id").in_scope(call_model));
    let marked = "
        call session.id=my-session-id user.id=my-user-id
          http session.id=my-session-id user.id=my-user-id
        ";
    app.exports(&marked.repeat(3));
}

/// Arize: neither id may be an empty string. There an empty one is passed over in silence; here
/// making such a `Session` is an error (C7), and a span that says one leaves the outer one in force.
#[test]
fn arize_session_and_user_are_never_empty() {
    let app = App::new();
    assert!(Session::new("").unwrap_err().is_invalid_id());
    let error = Session::default().with_user("").unwrap_err();
    assert!(error.is_invalid_id());
    session("my-session-id").in_scope(|| {
        info_span!("session", session.id = "").in_scope(call_model);
    });
    assert_eq!(
        app.tree(),
        "session session.id=my-session-id\n  call session.id=my-session-id\n    \
         http session.id=my-session-id\n"
    );
}

// Mirascope, session

/// Mirascope: the session that is in force knows its id. The key on the spans is OpenInference's
/// and not Mirascope's own, and plain OpenTelemetry spans are marked too.
#[test]
fn mirascope_session_has_the_id_that_it_was_given() {
    let app = App::new();
    let user_123 = session("user-123");
    assert_eq!(user_123.id(), Some("user-123"));
    user_123.in_scope(|| {
        assert_eq!(current_session().as_ref(), Some(&user_123));
        call_model();
    });
    app.exports(
        "
        call session.id=user-123
          http session.id=user-123
        ",
    );
}

/// Mirascope: a session may have attributes, which whoever asks for the session finds. There, its
/// spans have them as one JSON text; here they are OpenInference's metadata, which is such a text too.
#[test]
fn mirascope_attributes_of_a_session_are_its_metadata() {
    let app = App::new();
    let user_123 = session("user-123")
        .with_metadata("user", "alice")
        .and_then(|session| session.with_metadata("tier", "premium"))
        .unwrap();
    user_123.in_scope(|| {
        let here = current_session().unwrap();
        assert_eq!(here.id(), Some("user-123"));
        assert_eq!(here.metadata("user").unwrap(), "alice");
        assert_eq!(here.metadata("tier").unwrap(), "premium");
        assert_eq!(here.metadata("other"), None);
        call_model();
    });
    call_model();
    app.exports(
        r#"
        call session.id=user-123 metadata={"user":"alice","tier":"premium"}
          http session.id=user-123 metadata={"user":"alice","tier":"premium"}
        call
          http
        "#,
    );
}

/// Mirascope: a session without an id makes one up, and each its own.
#[test]
fn mirascope_session_without_an_id_generates_one() {
    let app = App::new();
    let first = Session::generate();
    let second = Session::generate();
    assert_ne!(first, second);
    first.in_scope(|| assert_eq!(current_session_id().as_deref(), first.id()));
    let of_span = session!().in_scope(|| current_session_id().unwrap());
    for id in [first.id().unwrap(), second.id().unwrap(), &of_span] {
        Uuid::parse_str(id).unwrap();
    }
    app.exports(&format!("session session.id={of_span}"));
}

/// Mirascope: the inner of two sessions is in force inside, and then the outer one again.
#[test]
fn mirascope_session_inside_a_session_gives_way_to_the_outer_one() {
    let app = App::new();
    session("outer").in_scope(|| {
        call_model();
        session("inner").in_scope(|| {
            assert_eq!(current_session_id().as_deref(), Some("inner"));
            call_model();
        });
        assert_eq!(current_session_id().as_deref(), Some("outer"));
        call_model();
    });
    app.exports(
        "
        call session.id=outer
          http session.id=outer
        call session.id=inner
          http session.id=inner
        call session.id=outer
          http session.id=outer
        ",
    );
}

/// Mirascope: an exception ends a session like anything else that leaves its block.
#[test]
fn mirascope_session_left_by_a_panic_gives_way_to_the_outer_one() {
    session("outer").in_scope(|| {
        let inner = || session("inner").in_scope(|| panic!("in the session"));
        assert!(catch_unwind(AssertUnwindSafe(inner)).is_err());
        assert_eq!(current_session_id().as_deref(), Some("outer"));
    });
    assert_eq!(current_session(), None);
}

/// Mirascope: asking for the session gives it inside, and nothing outside of any.
#[test]
fn mirascope_current_session_is_there_inside_and_none_outside() {
    let app = App::new();
    let current = || current_session().map(|session| session.id().unwrap().to_owned());
    assert_eq!(current(), None);
    assert_eq!(
        session("of a value").in_scope(current).unwrap(),
        "of a value"
    );
    assert_eq!(current(), None);
    assert_eq!(
        session!("of a span").in_scope(current).unwrap(),
        "of a span"
    );
    assert_eq!(current(), None);
    app.exports("session session.id=of a span");
}

/// Mirascope: a session holds across `await`, and one inside it too.
#[tokio::test]
async fn mirascope_session_holds_across_awaits() {
    let app = App::new();
    let conversation = async {
        call_model_async().await;
        call_model_async().in_session(session("inner")).await;
        assert_eq!(current_session_id().as_deref(), Some("base"));
        call_model_async().await;
    };
    conversation.in_session(session("base")).await;
    assert_eq!(current_session(), None);
    app.exports(
        "
        call session.id=base
          http session.id=base
        call session.id=inner
          http session.id=inner
        call session.id=base
          http session.id=base
        ",
    );
}

// TraceCtrl. There, a session that is set lasts for the thread or task. Here it lasts for the
// current span and what is started below it (C4): a value that no guard ends has nowhere safe to
// live on a thread that other work shares.

/// TraceCtrl: a session is made, and is the current one from then on, in this span.
#[test]
fn tracectrl_new_session_is_the_current_one() {
    if !support::alone(test_name!(), &[]) {
        return;
    }
    let app = App::new();
    let id = info_span!("agent").in_scope(|| {
        let session = new_session().unwrap();
        assert_eq!(current_session_id().as_deref(), session.id());
        call_model();
        assert_ne!(new_session().unwrap(), session, "each call makes another");
        current_session_id().unwrap()
    });
    assert_eq!(current_session_id(), None, "C4: it ended with the span");
    assert_eq!(values(&app.span("agent"), "session.id"), [id.as_str()]);
    assert_ne!(values(&app.span("call"), "session.id"), [id]);
}

/// TraceCtrl: the application's own id for the session. Outside of any span, where TraceCtrl would
/// set it on the thread, it is an error that says what to do (C4).
#[test]
fn tracectrl_set_session_id_takes_the_applications_own_id() {
    let app = App::new();
    assert!(
        set_session_id("user-session-abc123")
            .unwrap_err()
            .is_no_span()
    );
    info_span!("agent").in_scope(|| {
        new_session().unwrap();
        set_session_id("user-session-abc123").unwrap();
        assert_eq!(current_session_id().as_deref(), Some("user-session-abc123"));
        call_model();
    });
    call_model();
    app.exports(
        "
        agent session.id=user-session-abc123
          call session.id=user-session-abc123
            http session.id=user-session-abc123
        call
          http
        ",
    );
}

/// TraceCtrl: a variable gives every new session its id, and an id that is set stands nevertheless.
/// Without a call of either, nothing is in force.
#[test]
fn tracectrl_environment_overrides_new_session_and_not_set_session_id() {
    if !support::alone(
        test_name!(),
        &[("TRACECTRL_SESSION_ID", "fixed-session-for-testing")],
    ) {
        return;
    }
    let app = App::new();
    info_span!("agent").in_scope(|| {
        assert_eq!(current_session_id(), None);
        for _ in 0..2 {
            let session = new_session().unwrap();
            assert_eq!(session.id(), Some("fixed-session-for-testing"));
        }
        call_model();
        set_session_id("explicit").unwrap();
        assert_eq!(current_session_id().as_deref(), Some("explicit"));
    });
    app.exports(
        "
        agent session.id=explicit
          call session.id=fixed-session-for-testing
            http session.id=fixed-session-for-testing
        ",
    );
}

/// TraceCtrl: there is no session before one was made or set.
#[test]
fn tracectrl_current_session_id_is_none_before_any_is_set() {
    let _app = App::new();
    assert_eq!(current_session_id(), None);
    info_span!("agent").in_scope(|| {
        assert_eq!(current_session_id(), None);
        set_session_id("user-session-abc123").unwrap();
        assert!(current_session_id().is_some());
    });
}

/// TraceCtrl: a thread sees no session of another, the one that started it included.
#[test]
fn tracectrl_sessions_are_isolated_between_threads() {
    let app = App::new();
    let agent = info_span!("agent").entered();
    set_session_id("main").unwrap();
    app.on_thread(|| {
        assert_eq!(current_session_id(), None);
        info_span!("other agent").in_scope(|| {
            set_session_id("other").unwrap();
            assert_eq!(current_session_id().as_deref(), Some("other"));
        });
    });
    assert_eq!(current_session_id().as_deref(), Some("main"));
    drop(agent);
    app.exports(
        "
        agent session.id=main
        other agent session.id=other
        ",
    );
}

/// TraceCtrl: requests that are served at the same time keep their sessions apart, in tasks that
/// share a thread too. There a task starts with a copy of its maker's session; here it does where
/// it is given its maker's span, and what is set in it stays in its own (C4).
#[test]
fn tracectrl_sessions_are_isolated_between_tasks() {
    let app = App::new();
    let request = |id: &'static str| async move {
        set_session_id(id).unwrap();
        for _ in 0..3 {
            tokio::task::yield_now().await;
            assert_eq!(current_session_id().as_deref(), Some(id));
        }
        tokio::spawn(call_model_async().in_current_span())
            .await
            .unwrap();
    };
    app.runtime().block_on(async {
        let requests = ["a", "b", "c"]
            .map(|id| tokio::spawn(request(id).instrument(info_span!("request", name = id))));
        for request in requests {
            request.await.unwrap();
        }
        let agent = async {
            set_session_id("main").unwrap();
            let inside = async {
                assert_eq!(current_session_id().as_deref(), Some("main"));
                set_session_id("inside").unwrap();
            };
            tokio::spawn(inside.instrument(info_span!("task")))
                .await
                .unwrap();
            assert_eq!(current_session_id().as_deref(), Some("main"));
        };
        agent.instrument(info_span!("agent")).await;
    });
    let spans = app.spans();
    assert_eq!(spans.len(), 11, "{}", app.tree());
    for request in spans.iter().filter(|span| span.name == "request") {
        let of_trace = |span: &&_| same_trace(request, span);
        let ids: HashSet<_> = spans
            .iter()
            .filter(of_trace)
            .map(|span| values(span, "session.id"))
            .collect();
        assert_eq!(ids, HashSet::from([values(request, "name")]));
    }
    assert_eq!(values(&app.span("agent"), "session.id"), ["main"]);
    assert_eq!(values(&app.span("task"), "session.id"), ["inside"]);
}

fn same_trace(
    one: &opentelemetry_sdk::trace::SpanData,
    other: &opentelemetry_sdk::trace::SpanData,
) -> bool {
    one.span_context.trace_id() == other.span_context.trace_id()
}
