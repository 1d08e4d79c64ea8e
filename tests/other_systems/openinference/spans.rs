//! The attributes that samplers receive, and their order.

use super::in_force;
use super::{EVERYTHING, everything};
use crate::support::{App, session, shown};
use opentelemetry::trace::{
    Link, Span, SpanKind, Status, TraceId, TraceState, Tracer, TracerProvider,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{SamplingDecision, SamplingResult, ShouldSample};
use std::sync::{Arc, Mutex};
use tracing::info_span;
use tracing_session::{Privacy, SessionLayer, export::IdPolicy};

/// Remembers what each span was sampled by.
#[derive(Clone, Debug, Default)]
struct Sees(Arc<Mutex<Vec<Seen>>>);

/// The span's own attributes, and those of the session in its `Context`.
type Seen = (Vec<String>, Vec<String>);

impl ShouldSample for Sees {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        _: TraceId,
        _: &str,
        _: &SpanKind,
        attributes: &[KeyValue],
        _: &[Link],
    ) -> SamplingResult {
        let own = attributes
            .iter()
            .map(|it| format!("{}={}", it.key, it.value));
        let _attached = parent.unwrap().clone().attach();
        self.0.lock().unwrap().push((own.collect(), in_force()));
        SamplingResult {
            decision: SamplingDecision::RecordAndSample,
            attributes: Vec::new(),
            trace_state: TraceState::NONE,
        }
    }
}

/// A span of the plain API with these attributes, in the scope of everything.
fn sampled(privacy: Privacy, own: &[KeyValue]) -> (App, Vec<String>, Vec<String>) {
    let sees = Sees::default();
    let mut app = App::with_provider(
        |builder| builder.with_sampler(sees.clone()),
        |otel| SessionLayer::new().wrap(otel),
    );
    app.provider = app.provider.clone().with_privacy(privacy);
    everything().in_scope(|| {
        let tracer = app.provider.tracer("lib");
        let builder = tracer.span_builder("span").with_attributes(own.to_vec());
        // Not `start`, which keeps the current `Context` borrowed, so that none can be attached.
        builder
            .start_with_context(&tracer, &Context::current())
            .end();
    });
    let (attributes, in_force) = sees.0.lock().unwrap().pop().unwrap();
    (app, attributes, in_force)
}

/// There, all are among the attributes. Here the span's own are, and the rest is in the
/// `Context` that the sampler is given, as it is written when the span ends.
#[test]
fn sampler_receives_all_attributes() {
    let own = [
        KeyValue::new("openinference.span.kind", "LLM"),
        KeyValue::new("custom", 7),
    ];
    let (app, attributes, in_force) = sampled(Privacy::new(), &own);
    let own = ["openinference.span.kind=LLM", "custom=7"].map(str::to_owned);
    let all = EVERYTHING.map(|(key, value)| format!("{key}={value}"));
    assert_eq!(attributes, own);
    assert_eq!(in_force, all);
    let exported: Vec<_> = own.into_iter().chain(all).collect();
    assert_eq!(shown(&app.span("span")), exported);
}

/// The sampler receives redacted attributes, as there. The `Context` still has the session itself.
#[test]
fn sampler_receives_masked_attributes() {
    let privacy = Privacy::new()
        .with_user_ids(IdPolicy::omitted())
        .with_metadata(["key-str"], IdPolicy::omitted())
        .with_user_key("asked.by");
    let own = [
        KeyValue::new("asked.by", "test-user"),
        KeyValue::new("user.id", "test-user"),
        KeyValue::new("custom", 7),
    ];
    let (app, attributes, in_force) = sampled(privacy, &own);
    assert_eq!(attributes, ["custom=7"]);
    assert!(in_force.contains(&"user.id=test-user".to_owned()));
    let exported = shown(&app.span("span"));
    assert!(exported.contains(&"session.id=test-session".to_owned()));
    assert!(exported.contains(&r#"metadata={"key-int":1,"key-list":[1,2,3]}"#.to_owned()));
    assert!(!exported.iter().any(|it| it.contains("test-user")));
}

/// `test_config`. There, `openinference.span.kind` is written last, when the limit is exceeded too. Here it is an
/// attribute like any other, and stays as it comes first; what comes last is what is in force, and
/// that is lost where the author's own attributes are as many as the limit allows.
#[test]
fn attribute_priority() {
    for fails in [false, true] {
        let app = App::with_provider(
            |builder| builder.with_max_attributes_per_span(3),
            |otel| SessionLayer::new().wrap(otel),
        );
        session("test-session").in_scope(|| {
            let tracer = app.provider.tracer("lib");
            let builder = tracer.span_builder("span");
            let kind = KeyValue::new("openinference.span.kind", "LLM");
            let mut span = builder.with_attributes([kind]).start(&tracer);
            for key in ["a", "b", "c"] {
                span.set_attribute(KeyValue::new(key, 1));
            }
            if fails {
                span.set_status(Status::error("on purpose"));
            }
            span.end();
            drop(span);
            info_span!("few").in_scope(|| {});
        });
        let span = app.span("span");
        let own = ["openinference.span.kind=LLM", "a=1", "b=1"];
        assert_eq!(shown(&span), own);
        assert_eq!(span.dropped_attributes_count, 2);
    }
}

/// Redaction leaves the span's own attributes in their place, before the session's.
#[test]
fn attributes_of_the_context_come_after_the_spans_own() {
    let privacy = Privacy::new()
        .with_user_ids(IdPolicy::omitted())
        .with_metadata(["secret"], IdPolicy::omitted());
    let app = App::with_format(|provider| provider.with_privacy(privacy));
    let said = session("session-id")
        .with_user("user-id")
        .and_then(|it| it.with_metadata("key", "value"))
        .and_then(|it| it.with_metadata("secret", "value"));
    said.unwrap().in_scope(|| {
        let tracer = app.provider.tracer("lib");
        let own = [
            KeyValue::new("own", "attribute"),
            KeyValue::new("user.id", "user-id"),
        ];
        let builder = tracer.span_builder("span").with_attributes(own);
        builder.start(&tracer).end();
        info_span!("tracing", own = "attribute").in_scope(|| {});
    });
    let exported = [
        "own=attribute",
        "session.id=session-id",
        r#"metadata={"key":"value"}"#,
    ];
    assert_eq!(shown(&app.span("span")), exported);
    assert_eq!(shown(&app.span("tracing")), exported);
}
