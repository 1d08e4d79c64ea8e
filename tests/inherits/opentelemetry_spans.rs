//! Spans made by OpenTelemetry's API, and those that are dropped (B9, B10).

use crate::inherits::session_of;
use crate::support::{self, App, remote};
use opentelemetry::trace::{
    Link, Span as _, SpanKind, TraceId, TraceState, Tracer, TracerProvider,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{SamplingDecision, SamplingResult, ShouldSample};
use std::sync::{Arc, Mutex};
use tracing::info_span;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_session::{SessionLayer, current_session, current_session_id, session, set_session_id};

// B9

#[test]
fn plain_opentelemetry_spans_inherit_and_pass_on() {
    let app = App::new();
    let tracer = app.provider.tracer("library");
    session!("chat-42").in_scope(|| {
        tracer.in_span("plain", |_| {
            info_span!("below").in_scope(|| tracer.in_span("plain again", |_| {}));
        });
        let mut plain =
            tracer.start_with_context("of the context", &tracing::Span::current().context());
        plain.end();
        drop(tracer.start("dropped, not ended"));
    });
    tracer.in_span("outside", |_| info_span!("below outside").in_scope(|| {}));
    app.exports(
        "
        session session.id=chat-42
          plain session.id=chat-42
            below session.id=chat-42
              plain again session.id=chat-42
          of the context session.id=chat-42
          dropped, not ended session.id=chat-42
        outside
          below outside
        ",
    );
}

#[test]
fn spans_of_the_global_tracer_inherit() {
    if !support::alone(test_name!(), &[]) {
        return;
    }
    let app = App::new();
    opentelemetry::global::set_tracer_provider(app.provider.clone());
    let tracer = opentelemetry::global::tracer("library");
    session!("chat-42").in_scope(|| tracer.in_span("plain", |_| {}));
    assert_eq!(session_of(&app.span("plain")), ["chat-42"]);
}

// B10

/// Drops spans of that name, and remembers the session that it saw in each `Context`.
#[derive(Clone, Debug, Default)]
struct DropsRoots(Arc<Mutex<Vec<Seen>>>);

/// The name of a span, and the session in force where it was sampled.
type Seen = (String, Option<String>);

impl ShouldSample for DropsRoots {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        _: TraceId,
        name: &str,
        _: &SpanKind,
        attributes: &[KeyValue],
        _: &[Link],
    ) -> SamplingResult {
        assert!(
            attributes
                .iter()
                .all(|attribute| !attribute.key.as_str().starts_with("tracing_session"))
        );
        let _attached = parent.unwrap().clone().attach();
        self.0
            .lock()
            .unwrap()
            .push((name.to_owned(), current_session_id()));
        let decision = match name {
            "session" => SamplingDecision::Drop,
            _ => SamplingDecision::RecordAndSample,
        };
        SamplingResult {
            decision,
            attributes: Vec::new(),
            trace_state: TraceState::NONE,
        }
    }
}

#[test]
fn unsampled_spans_pass_on_the_session() {
    let sampler = DropsRoots::default();
    let app = App::with_provider(
        |builder| builder.with_sampler(sampler.clone()),
        |otel| SessionLayer::new().wrap(otel),
    );
    let unsampled = session!("chat-42");
    unsampled.in_scope(|| {
        assert_eq!(current_session_id().as_deref(), Some("chat-42"));
        info_span!("child").in_scope(|| {});
    });
    let remote_unsampled = session!("chat-43");
    remote_unsampled.set_parent(remote()).unwrap();
    remote_unsampled.in_scope(|| info_span!("remote child").in_scope(|| {}));
    drop((unsampled, remote_unsampled));
    app.exports(
        "
        child session.id=chat-42
        remote child session.id=chat-43
        ",
    );
    let seen = sampler.0.lock().unwrap();
    let seen: Vec<_> = seen
        .iter()
        .map(|(name, id)| (name.as_str(), id.as_deref()))
        .collect();
    assert_eq!(
        seen,
        [
            ("session", Some("chat-42")),
            ("child", Some("chat-42")),
            ("session", Some("chat-43")),
            ("remote child", Some("chat-43")),
        ]
    );
}

#[test]
fn suppressed_telemetry_exports_nothing_and_breaks_nothing() {
    let app = App::new();
    session!("chat-42").in_scope(|| {
        let _suppressed = Context::enter_telemetry_suppressed_scope();
        session!("chat-43").in_scope(|| info_span!("below").in_scope(|| {}));
    });
    app.exports("session session.id=chat-42");
}

#[test]
fn session_set_where_telemetry_is_suppressed_applies_only_there() {
    let app = App::new();
    let suppressed = {
        let _suppressed = Context::enter_telemetry_suppressed_scope();
        let parent = Context::current();
        let session = session!("chat-42");
        session.set_parent(parent).unwrap();
        let handler = info_span!("handler");
        // Its span has no id, so the session would not be in force.
        let error = handler.in_scope(|| set_session_id("chat-43").unwrap_err());
        assert!(error.is_no_span());
        session.in_scope(|| {});
        (session, handler)
    };
    assert_eq!(current_session(), None);
    app.on_thread(|| assert_eq!(current_session(), None));
    info_span!("elsewhere").in_scope(|| {});
    drop(suppressed);
    app.exports("elsewhere");
}
