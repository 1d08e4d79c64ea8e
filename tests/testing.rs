//! The test kit: which spans a capture receives, and the messages of its assertions.

use crate::support::session;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;
use tracing::{Instrument, debug_span, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_session::testing::{Capture, Captured, capture};
use tracing_session::{InSession, SessionLayer, session};
use tracing_subscriber::prelude::*;

fn names<T>(captured: &Captured<T>) -> Vec<String> {
    let mut names: Vec<_> = captured
        .spans()
        .iter()
        .map(|it| it.name.to_string())
        .collect();
    names.sort();
    names
}

/// The message of a failed assertion.
fn failure(assertion: impl FnOnce()) -> String {
    let failed = catch_unwind(AssertUnwindSafe(assertion)).expect_err("it has to fail");
    *failed.downcast::<String>().expect("a formatted message")
}

#[test]
fn closure_is_captured() {
    let captured = Capture::new().in_scope(|| {
        session!("chat-42").in_scope(|| info_span!("answer").in_scope(|| {}));
        debug_span!("detail").in_scope(|| {});
        7
    });
    info_span!("afterwards").in_scope(|| {});
    assert_eq!(captured.output, 7);
    assert_eq!(names(&captured), ["answer", "session"]);
    captured.assert_all_in_session("chat-42");
    captured.assert_all_in_a_session();
}

/// As an application works: tasks and blocking closures, some of which inherit the span.
async fn request(id: &str) {
    let work = async {
        tokio::spawn(async { info_span!("task").in_scope(|| {}) }.in_current_span())
            .await
            .unwrap();
        let span = tracing::Span::current();
        tokio::task::spawn_blocking(move || span.in_scope(|| info_span!("query").in_scope(|| {})))
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
        tokio::spawn(async { info_span!("lost task").in_scope(|| {}) })
            .await
            .unwrap();
        tokio::task::spawn_blocking(|| info_span!("lost query").in_scope(|| {}))
            .await
            .unwrap();
    };
    async { work.instrument(info_span!("request")).await }
        .in_session(session(id))
        .await;
}

async fn capture_a_request(id: &str) {
    let captured = capture(request(id)).await;
    let all = ["lost query", "lost task", "query", "request", "task"];
    assert_eq!(names(&captured), all);
    let failed = failure(|| captured.assert_all_in_session(id));
    assert!(
        failed.contains("2 of 5 spans are in no session"),
        "{failed}"
    );
    assert!(failed.contains("spawn_blocking"), "{failed}");
    captured
        .except(["lost query", "lost task"])
        .assert_all_in_session(id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn tasks_and_blocking_closures_are_captured() {
    capture_a_request("chat-1").await;
}

#[tokio::test]
async fn blocking_closures_of_a_runtime_on_one_thread_are_captured() {
    capture_a_request("chat-2").await;
}

#[test]
fn captures_beside_each_other_do_not_mix() {
    std::thread::scope(|scope| {
        for number in 0..8 {
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_multi_thread()
                    .worker_threads(2)
                    .enable_all()
                    .build()
                    .unwrap();
                for _ in 0..10 {
                    runtime.block_on(capture_a_request(&format!("chat-{number}")));
                }
            });
        }
    });
}

/// In one runtime, spans that inherited nothing are in both.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn two_captures_of_a_runtime_have_their_own_spans() {
    let (one, two) = tokio::join!(capture(request("chat-1")), capture(request("chat-2")));
    for (captured, id) in [(one, "chat-1"), (two, "chat-2")] {
        let own = captured.except(["lost query", "lost task"]);
        own.assert_all_in_session(id);
    }
}

#[test]
fn own_subscriber_is_used() {
    let layer = SessionLayer::new().with_session_field("conversation_id");
    let capture = Capture::new()
        .with_subscriber(|otel| tracing_subscriber::registry().with(layer.wrap(otel)));
    let captured = capture.in_scope(|| {
        debug_span!("turn", conversation_id = "chat-42").in_scope(|| {});
    });
    captured.assert_all_in_session("chat-42");
}

#[test]
fn failure_prints_the_tree_with_place_and_reason_and_no_id() {
    let captured = Capture::new().in_scope(|| {
        session("secret-1").in_scope(|| {
            info_span!("request").in_scope(|| {
                info_span!("inside").in_scope(|| {});
                info_span!(parent: None, "root").in_scope(|| info_span!("child").in_scope(|| {}));
            });
        });
        session("secret-2").in_scope(|| info_span!("other").in_scope(|| {}));
    });
    let line = line!() - 2;
    let root = line - 3;
    let failed = failure(|| captured.assert_all_in_session("secret-1"));
    assert!(!failed.contains("secret"), "{failed}");
    let failed = failed.replace(file!(), "FILE");
    let lines: Vec<_> = failed.lines().collect();
    assert_eq!(
        lines[0],
        "3 of 5 spans are in no session, or in another one:"
    );
    assert_eq!(lines[2..4], ["request", "  inside"]);
    assert_eq!(
        lines[4..7],
        [
            format!("root (FILE:{root})  <-- in no session (ParentNone)"),
            format!("  child (FILE:{root})  <-- in no session (ParentOutside)"),
            format!("other (FILE:{line})  <-- in another session"),
        ]
    );
    assert!(
        lines[8].starts_with("ParentNone: These spans are created with"),
        "{failed}"
    );
    assert!(lines[10].starts_with("ParentOutside: "), "{failed}");
    assert_eq!(lines.len(), 11);
}

#[test]
fn assertion_about_no_spans_fails() {
    let captured = Capture::new().in_scope(|| info_span!("open").entered());
    let failed = failure(|| captured.assert_all_in_a_session());
    assert!(failed.starts_with("No span was captured"), "{failed}");
    assert!(failed.contains("1 spans haven't ended"), "{failed}");
    let excepted = Capture::new().in_scope(|| session!("chat-42").in_scope(|| {}));
    let excepted = excepted.except(["session"]);
    assert!(failure(|| excepted.assert_all_in_a_session()).starts_with("No span"));
}

#[test]
fn attribute_that_is_no_id_is_no_session() {
    let captured = Capture::new().in_scope(|| {
        info_span!("bell", session.id = "a\u{7}b").in_scope(|| {});
        let blank = info_span!("blank");
        blank.set_attribute("session.id", " ");
        blank.in_scope(|| {});
        // More attributes than the SDK keeps.
        let many = info_span!("many");
        (0..200).for_each(|n| many.set_attribute(format!("key {n}"), n));
        many.in_scope(|| {});
    });
    let failed = failure(|| captured.assert_all_in_a_session());
    assert!(failed.starts_with("3 of 3 spans"), "{failed}");
    assert_eq!(failed.matches("<-- in no session").count(), 3, "{failed}");
    assert!(failed.contains("in no session (NotRecorded)"), "{failed}");
}

/// Nothing of the kit is left on a span.
#[test]
fn captured_spans_have_their_own_attributes_only() {
    let captured = Capture::new().in_scope(|| info_span!("work", n = 1).in_scope(|| {}));
    let attributes = captured.spans()[0].attributes.iter();
    let keys: Vec<_> = attributes.map(|it| it.key.as_str()).collect();
    assert!(keys.contains(&"n"), "{keys:?}");
    assert!(
        !keys.iter().any(|key| key.starts_with("tracing_session")),
        "{keys:?}"
    );
}

/// The subscriber of the process stays as it is.
#[test]
fn capture_of_this_thread_sets_nothing_for_the_process() {
    if !crate::support::alone(test_name!(), &[]) {
        return;
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let on_this_thread = Capture::new().on_this_thread().run(async {
        info_span!("here").in_scope(|| {});
        let elsewhere = tokio::spawn(async { info_span!("elsewhere").in_scope(|| {}) });
        elsewhere.await.unwrap();
    });
    assert_eq!(names(&runtime.block_on(on_this_thread)), ["here"]);
    Capture::new().in_scope(|| {});
    tracing_subscriber::registry().try_init().unwrap();
    // An application's own: spans of other threads go there.
    let captured = runtime.block_on(capture(request("chat-42")));
    assert_eq!(names(&captured), ["request"]);
}

/// A future that is dropped before it is ready.
#[tokio::test]
async fn dropped_capture_captures_no_more() {
    let work = async {
        info_span!("first").in_scope(|| {});
        std::future::pending::<()>().await;
    };
    let late = tokio::time::timeout(Duration::from_millis(5), capture(work)).await;
    assert!(late.is_err());
    let captured =
        capture(async { tokio::spawn(async { info_span!("lost").in_scope(|| {}) }).await }).await;
    assert_eq!(names(&captured), ["lost"]);
}
