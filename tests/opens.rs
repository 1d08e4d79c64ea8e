//! What opens a scope.

mod support;

use support::App;
use tracing::field::Empty;
use tracing::info_span;

#[test]
fn span_named_session_with_an_id_opens_a_session() {
    let app = App::new();
    info_span!("session", id = "chat-42").in_scope(|| info_span!("child").in_scope(|| {}));
    app.exports(
        "
        session session.id=chat-42
          child session.id=chat-42
        ",
    );
}

#[test]
fn late() {
    let app = App::new();
    let span = info_span!("session", id = Empty, user.id = Empty);
    span.in_scope(|| {
        let child = info_span!("child");
        let c = child.enter();
        span.record("id", "chat-42");
        span.record("user.id", tracing::field::debug("u-7"));
        drop(c);
    });
    drop(span);
    app.exports(
        "
        session session.id=chat-42 user.id=u-7
          child session.id=chat-42 user.id=u-7
        ",
    );
}
#[test]
fn set_parent() {
    use opentelemetry::trace::*;
    use tracing_opentelemetry::OpenTelemetrySpanExt;
    let app = App::new();
    let span = info_span!("session", id = "chat-42");
    let remote = SpanContext::new(
        TraceId::from(7),
        SpanId::from(8),
        TraceFlags::SAMPLED,
        true,
        Default::default(),
    );
    span.set_parent(opentelemetry::Context::new().with_remote_span_context(remote))
        .unwrap();
    span.in_scope(|| {
        info_span!("child").in_scope(|| info_span!("grand").in_scope(|| {}));
    });
    drop(info_span!(parent: &span, "explicit"));
    drop(span);
    app.exports(
        "
        session session.id=chat-42
          child session.id=chat-42
            grand session.id=chat-42
          explicit session.id=chat-42
        ",
    );
}
#[test]
fn blank() {
    let app = App::new();
    info_span!("session", id = " ").in_scope(|| info_span!("child").in_scope(|| {}));
    app.exports_after(
        "
        session
          child
        ",
        &["x"],
    );
}
