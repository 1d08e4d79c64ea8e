//! `go/openinference-instrumentation`, and its instrumentors of OpenAI's and Anthropic's clients.

use crate::openinference::{session, shown, work};
use crate::support::App;
use opentelemetry::trace::{Span, SpanKind, Tracer, TracerProvider};
use opentelemetry::{Array, Context, Value};
use tracing::info_span;
use tracing_session::{Session, current_session};

fn exported_inside(session: &Session) -> Vec<String> {
    let app = App::new();
    session.in_scope(|| info_span!("test").in_scope(|| {}));
    assert_eq!(app.diagnostics.said(), [""; 0]);
    shown(&app.span("test"))
}

/// A `Context` is a value there and here: what suppresses is another one.
#[test]
fn suppression() {
    let app = App::new();
    let cx = Context::current();
    assert!(!cx.is_telemetry_suppressed());
    let suppressed = cx.with_telemetry_suppressed();
    assert!(suppressed.is_telemetry_suppressed());
    assert!(!cx.is_telemetry_suppressed());
    let tracer = app.provider.tracer("lib");
    session("session-abc").in_scope(|| {
        let suppressed = Context::current().with_telemetry_suppressed();
        tracer.start_with_context("suppressed", &suppressed).end();
        tracer.start_with_context("test", &Context::current()).end();
    });
    app.exports("test session.id=session-abc");
}

#[test]
fn apply_context_attributes_empty_context_no_op() {
    assert_eq!(exported_inside(&Session::default()), [""; 0]);
    let app = App::new();
    work();
    app.exports("work\n  step");
}

#[test]
fn apply_context_attributes_all_values_propagated() {
    let app = App::new();
    let session = session("session-abc")
        .with_user("user-xyz")
        .and_then(|it| it.with_metadata("team", "platform"))
        .and_then(|it| it.with_tags(["prod", "canary"]))
        .unwrap();
    session.in_scope(|| info_span!("test").in_scope(|| {}));
    let span = app.span("test");
    assert_eq!(
        shown(&span),
        [
            "session.id=session-abc",
            "user.id=user-xyz",
            r#"metadata={"team":"platform"}"#,
            r#"tag.tags=["prod","canary"]"#,
        ]
    );
    let tags = span
        .attributes
        .iter()
        .find(|it| it.key.as_str() == "tag.tags");
    assert_eq!(
        tags.unwrap().value,
        Value::Array(Array::String(vec!["prod".into(), "canary".into()]))
    );
}

#[test]
fn with_tags_variadic_and_empty() {
    let none = Session::default().with_tags([""; 0]).unwrap();
    assert_eq!(none, Session::default());
    none.in_scope(|| assert_eq!(current_session(), None));
    let one = Session::default().with_tags(["solo"]).unwrap();
    assert_eq!(exported_inside(&one), [r#"tag.tags=["solo"]"#]);
}

/// Also of the session itself: what is said of a clone is not said of the one that is in force.
#[test]
fn with_tags_defensive_copy() {
    let app = App::new();
    let mut tags = vec!["prod".to_owned(), "canary".to_owned()];
    let session = Session::default().with_tags(&tags).unwrap();
    tags[0] = "MUTATED".to_owned();
    session.in_scope(|| {
        let changed = session.clone().with_tags(&tags).unwrap();
        assert_eq!(changed.tags().count(), 3);
        info_span!("test").in_scope(|| {});
    });
    assert_eq!(shown(&app.span("test")), [r#"tag.tags=["prod","canary"]"#]);
}

#[test]
fn apply_context_attributes_partial() {
    let only = session("only-session");
    assert_eq!(exported_inside(&only), ["session.id=only-session"]);
}

/// There, an empty value changes nothing, in silence. Here it is an error of whoever makes the
/// `Session`, and the one in force stays. The keys of metadata may not be empty; its values may.
#[test]
fn string_helpers_empty_value_is_no_op() {
    session("outer").in_scope(|| {
        assert!(Session::new("").unwrap_err().is_invalid_id());
        let nothing = Session::default;
        assert!(nothing().with_user("").unwrap_err().is_invalid_id());
        let error = nothing().with_metadata("", "value").unwrap_err();
        assert_eq!(error.to_string(), "metadata key is blank");
        let error = nothing().with_tags([""]).unwrap_err();
        assert_eq!(error.to_string(), "tag is blank");
        assert_eq!(current_session(), Some(session("outer")));
    });
    let empty = Session::default().with_metadata("key", "").unwrap();
    assert_eq!(exported_inside(&empty), [r#"metadata={"key":""}"#]);
}

/// As a client's middleware, which makes a span of OpenTelemetry's for each request.
fn middleware(app: &App, request: impl FnOnce()) {
    let tracer = app.provider.tracer("openai");
    let builder = tracer
        .span_builder("ChatCompletions")
        .with_kind(SpanKind::Client);
    let mut span = builder.start_with_context(&tracer, &Context::current());
    request();
    span.end();
}

#[test]
fn middleware_suppressed_context_emits_no_span() {
    let app = App::new();
    let mut requested = false;
    session("session-abc").in_scope(|| {
        let _suppressed = Context::enter_telemetry_suppressed_scope();
        middleware(&app, || requested = true);
    });
    assert!(requested);
    app.exports("");
}

#[test]
fn middleware_context_attributes_propagate_to_span() {
    let app = App::new();
    let session = session("session-abc").with_user("user-xyz").unwrap();
    session.in_scope(|| middleware(&app, || {}));
    app.exports("ChatCompletions session.id=session-abc user.id=user-xyz");
}
