//! `TraceAdviceTest`: functions with an annotation, which is `#[instrument]` here.

use crate::openinference::{session, shown};
use crate::support::App;
use opentelemetry::Context;
use tracing::instrument;
use tracing_session::Session;

#[instrument]
fn unnamed_chain() -> &'static str {
    "done"
}

fn exported_inside(session: &Session) -> Vec<String> {
    let app = App::new();
    assert_eq!(session.in_scope(unnamed_chain), "done");
    shown(&app.span("unnamed_chain"))
}

#[test]
fn on_enter_returns_null_when_suppressed_via_context() {
    let app = App::new();
    session("sess-123").in_scope(|| {
        let _suppressed = Context::enter_telemetry_suppressed_scope();
        assert_eq!(unnamed_chain(), "done");
    });
    app.exports("");
}

#[test]
fn on_enter_propagates_session_id_from_context() {
    let exported = exported_inside(&session("sess-123"));
    assert_eq!(exported, ["session.id=sess-123"]);
}

#[test]
fn on_enter_propagates_user_id_from_context() {
    let user = Session::default().with_user("user-456").unwrap();
    assert_eq!(exported_inside(&user), ["user.id=user-456"]);
}

#[test]
fn on_enter_propagates_tags_from_context() {
    let tags = Session::default().with_tags(["tag-a", "tag-b"]).unwrap();
    assert_eq!(exported_inside(&tags), [r#"tag.tags=["tag-a","tag-b"]"#]);
}

/// There, metadata is the text of JSON that nobody looks at. Here it is said by key.
#[test]
fn on_enter_propagates_all_context_attributes() {
    let all = session("sess-all")
        .with_user("user-all")
        .and_then(|it| it.with_metadata("key", "value"))
        .and_then(|it| it.with_tags(["t1"]))
        .unwrap();
    assert_eq!(
        exported_inside(&all),
        [
            "session.id=sess-all",
            "user.id=user-all",
            r#"metadata={"key":"value"}"#,
            r#"tag.tags=["t1"]"#,
        ]
    );
}

#[test]
fn on_enter_creates_span_without_context_attributes_when_none_set() {
    assert_eq!(exported_inside(&Session::default()), [""; 0]);
    let app = App::new();
    unnamed_chain();
    app.exports("unnamed_chain");
}
