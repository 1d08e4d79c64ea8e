//! `test_manual_instrumentation`: spans by their macros, by `#[instrument]`, by OpenTelemetry's API.

use super::in_force;
use crate::openinference::{EVERYTHING, everything, session, shown};
use crate::support::App;
use opentelemetry::trace::{
    Link, Span, SpanKind, Status, TraceId, TraceState, Tracer, TracerProvider,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{SamplingDecision, SamplingResult, ShouldSample};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use tracing::{info_span, instrument};
use tracing_session::{IdPolicy, InSession, Privacy, SessionLayer};

#[instrument]
fn decorated() {}

#[instrument(skip_all)]
async fn decorated_async() {
    tokio::task::yield_now().await;
}

#[instrument(name = "tool", fields(openinference.span.kind = "TOOL"))]
fn tool() {}

#[test]
fn context_manager_using_session() {
    let app = App::new();
    session("test-session").in_scope(|| {
        info_span!("chain", openinference.span.kind = "CHAIN").in_scope(|| {});
        let tracer = app.provider.tracer("lib");
        tracer.in_span("plain", |_| {});
    });
    app.exports(
        "
        chain openinference.span.kind=CHAIN session.id=test-session
        plain session.id=test-session
        ",
    );
}

#[tokio::test]
async fn chain_decorator_using_session() {
    let app = App::new();
    session("test-session").in_scope(decorated);
    decorated_async().in_session(session("test-session")).await;
    decorated();
    app.exports(
        "
        decorated session.id=test-session
        decorated_async session.id=test-session
        decorated
        ",
    );
}

/// There, the function is decorated inside the scope. Here it is called there.
#[test]
fn tool_decorator_using_session() {
    let app = App::new();
    session("test-session").in_scope(|| {
        #[instrument]
        fn made_inside() {}
        made_inside();
        tool();
    });
    app.exports(
        "
        made_inside session.id=test-session
        tool openinference.span.kind=TOOL session.id=test-session
        ",
    );
}

/// The three `test_suppress_tracing`.
#[test]
fn suppress_tracing() {
    let app = App::new();
    session("test-session").in_scope(|| {
        let suppressed = Context::enter_telemetry_suppressed_scope();
        info_span!("chain").in_scope(|| {});
        decorated();
        tool();
        app.provider.tracer("lib").in_span("plain", |_| {});
        let inside = || info_span!("raises").in_scope(|| panic!("on purpose"));
        assert!(catch_unwind(AssertUnwindSafe(inside)).is_err());
        drop(suppressed);
    });
    app.exports("");
}

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
        |otel| SessionLayer::new().around(otel),
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
            |otel| SessionLayer::new().around(otel),
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
