//! TraceCtrl 0.3.2. There, a session that is set lasts for the thread or task. Here it lasts for the current span and what
//! is started below it (C4): a value that no guard ends has nowhere safe to live on a thread that other work shares.
//!
//! | sample or case there | test here |
//! | --- | --- |
//! | `new_session`, then `current_session_id` | `new_session_is_another_each_time` |
//! | `set_session_id` | `every_span_has_the_session_that_is_current_when_it_starts`; outside any span it is an error: `values::set::setting_a_value_without_a_current_span_is_an_error` |
//! | `TRACECTRL_SESSION_ID`, and `current_session_id` before any other call | `id_of_the_environment_is_used_unchanged_unless_it_is_blank` |
//! | threads and tasks are isolated | `sessions_are_isolated_between_threads`, `.._between_tasks` |
//! | agent A sends a header, agent B reads it | `services::tracectrl_agents_share_session_and_trace_by_hand` |

use super::attributes::{of, plain};
use super::call_model_async;
use crate::support::{self, App, session, values};
use std::collections::HashSet;
use tracing::{Instrument, info_span};
use tracing_session::{Dialect, current_session, current_session_id, new_session, set_session_id};

const ID: &str = "tracectrl.session_id";

fn app() -> App {
    App::with_dialect(Dialect::TRACECTRL)
}

#[test]
fn every_span_has_the_session_that_is_current_when_it_starts() {
    let app = app();
    info_span!("root").in_scope(|| {
        set_session_id("A").unwrap();
        info_span!("first").in_scope(|| {});
        info_span!("child").in_scope(|| {
            set_session_id("B").unwrap();
            plain(&app, "below", &[]);
        });
    });
    app.exports(&format!(
        "
        root {ID}=A
          first {ID}=A
          child {ID}=B
            below {ID}=B
        "
    ));
}

/// There, what is in force takes the place of the span's own. Here the span's own stands (C2), once.
#[test]
fn own_session_of_a_span_wins() {
    let app = app();
    session("B").in_scope(|| plain(&app, "own", &[(ID, "explicit")]));
    assert_eq!(of(&app, "own", [ID]), [["explicit"]]);
}

/// There, both keys stand on the span, and its server prefers its own. Here a span has one
/// session, under the keys that are asked for.
#[test]
fn session_of_an_instrumentor_is_the_spans() {
    for (dialect, keys) in [
        (Dialect::TRACECTRL, &[ID][..]),
        (
            Dialect::TRACECTRL.and(Dialect::OPENINFERENCE),
            &[ID, "session.id"],
        ),
    ] {
        let app = App::with_dialect(dialect);
        session("B").in_scope(|| plain(&app, "own", &[("session.id", "agno")]));
        plain(&app, "fallback", &[("session.id", "agno")]);
        for name in ["own", "fallback"] {
            let span = app.span(name);
            for key in keys {
                assert_eq!(values(&span, key), ["agno"], "{name} {key}");
            }
            assert_eq!(span.attributes.len(), keys.len(), "{name}");
        }
    }
}

#[test]
fn empty_session_is_not_written() {
    let app = app();
    info_span!("empty-session").in_scope(|| assert!(set_session_id("").is_err()));
    app.exports("empty-session");
}

/// There, a child counts as the entry too.
#[test]
fn nothing_else_is_written() {
    let app = app();
    session("A").in_scope(|| info_span!("root").in_scope(|| {}));
    app.exports(&format!("root {ID}=A"));
}

#[test]
fn new_session_is_another_each_time() {
    if !support::alone(test_name!(), &[]) {
        return;
    }
    let app = app();
    let ids = info_span!("agent").in_scope(|| {
        [(); 2].map(|()| {
            let session = new_session().unwrap();
            plain(&app, "call", &[]);
            session.id().unwrap().to_owned()
        })
    });
    assert_ne!(ids[0], ids[1]);
    assert!(ids.iter().all(|id| id.len() == 36));
    let spans = app.spans();
    let calls = spans.iter().filter(|span| span.name == "call");
    let exported: Vec<_> = calls.flat_map(|span| values(span, ID)).collect();
    assert_eq!(exported, ids);
    assert_eq!(values(&app.span("agent"), ID), [&*ids[1]]);
    assert_eq!(current_session(), None);
}

#[test]
fn id_of_the_environment_is_used_unchanged_unless_it_is_blank() {
    let test = test_name!();
    // There, two spaces are an id.
    for variable in ["env-sid", "", "  "] {
        if support::alone(test, &[("TRACECTRL_SESSION_ID", variable)]) {
            let variable = std::env::var("TRACECTRL_SESSION_ID").unwrap();
            let app = app();
            info_span!("agent").in_scope(|| {
                // It gives an id to new sessions, and sets none.
                assert_eq!(current_session_id(), None);
                new_session().unwrap();
                let session = new_session().unwrap();
                match variable.trim() {
                    "" => assert_eq!(session.id().unwrap().len(), 36),
                    id => assert_eq!(session.id(), Some(id)),
                }
                set_session_id("explicit").unwrap();
            });
            return app.exports(&format!("agent {ID}=explicit"));
        }
    }
}

/// A thread sees no session of another, the one that started it included.
#[test]
fn sessions_are_isolated_between_threads() {
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

/// Requests that are served at the same time keep their sessions apart, in tasks that
/// share a thread too. There a task starts with a copy of its maker's session; here it does where
/// it is given its maker's span, and what is set in it stays in its own (C4).
#[test]
fn sessions_are_isolated_between_tasks() {
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
