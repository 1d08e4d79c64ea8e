//! What `tracing_session::openinference` writes on spans.

use crate::support::{App, values};
use opentelemetry::Value;
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;
use tracing::{Span, info_span};
use tracing_session::openinference::{self, OpenInferenceSpanExt, SpanKind};
use tracing_session::{SessionLayer, session};
use tracing_subscriber::filter::LevelFilter;

#[test]
fn span_has_its_kind_input_output_model_and_tokens_and_its_session() {
    let app = App::new();
    session!("chat-42").in_scope(|| {
        let span = info_span!("complete");
        span.set_span_kind(SpanKind::Llm);
        span.set_model_name("gpt-4o-mini");
        span.set_input("What is the weather like?");
        span.set_output(String::from("Sunny."));
        span.set_token_counts(12, 6);
    });
    app.exports(
        "
        session session.id=chat-42
          complete openinference.span.kind=LLM llm.model_name=gpt-4o-mini \
            input.value=What is the weather like? input.mime_type=text/plain \
            output.value=Sunny. output.mime_type=text/plain \
            llm.token_count.prompt=I64(12) llm.token_count.completion=I64(6) \
            llm.token_count.total=I64(18) session.id=chat-42
        ",
    );
}

#[test]
fn value_that_is_not_text_is_written_as_json() {
    let app = App::new();
    info_span!("search").in_scope(|| {
        let span = Span::current();
        span.set_input_json(&BTreeMap::from([("query", "weather \"here\"")]))
            .unwrap();
        span.set_output_json(&("sunny", 24)).unwrap();
    });
    let span = app.span("search");
    let is = |key: &str, value: &str| assert_eq!(values(&span, key), [value], "{key}");
    is("input.value", r#"{"query":"weather \"here\""}"#);
    is("input.mime_type", "application/json");
    is("output.value", r#"["sunny",24]"#);
    is("output.mime_type", "application/json");
}

#[test]
fn attributes_can_be_set_on_a_started_span() {
    let app = App::new();
    let span = info_span!("stream");
    span.in_scope(|| info_span!("piece").in_scope(|| {}));
    span.set_output("Sunny.");
    drop(span);
    assert_eq!(values(&app.span("stream"), "output.value"), ["Sunny."]);
}

struct Unserialisable;

impl Serialize for Unserialisable {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("a secret of u-7"))
    }
}

#[test]
fn value_that_cannot_be_serialised_sets_nothing_and_is_not_quoted() {
    let app = App::new();
    info_span!("search").in_scope(|| {
        let span = Span::current();
        for set in [
            span.set_input_json(&Unserialisable),
            span.set_output_json(&Unserialisable),
        ] {
            let error = set.unwrap_err();
            let expected = "the value cannot be serialised as JSON: check its `Serialize`, and that map keys are strings";
            assert_eq!(error.to_string(), expected);
            assert!(!error.is_invalid_id() && !error.is_no_span());
        }
    });
    app.exports("search");
}

#[test]
fn token_counts_never_wrap() {
    let app = App::new();
    info_span!("much").in_scope(|| Span::current().set_token_counts(u64::MAX, 1));
    let span = app.span("much");
    let of = |key| values(&span, key);
    let most = Value::from(i64::MAX).to_string();
    assert_eq!(of(openinference::LLM_TOKEN_COUNT_PROMPT), [&*most]);
    assert_eq!(of(openinference::LLM_TOKEN_COUNT_COMPLETION), ["1"]);
    assert_eq!(of(openinference::LLM_TOKEN_COUNT_TOTAL), [&*most]);
}

#[test]
fn kinds_are_spelt_as_the_conventions_do() {
    let kinds = [
        (SpanKind::Llm, "LLM"),
        (SpanKind::Embedding, "EMBEDDING"),
        (SpanKind::Chain, "CHAIN"),
        (SpanKind::Retriever, "RETRIEVER"),
        (SpanKind::Reranker, "RERANKER"),
        (SpanKind::Tool, "TOOL"),
        (SpanKind::Agent, "AGENT"),
        (SpanKind::Guardrail, "GUARDRAIL"),
        (SpanKind::Evaluator, "EVALUATOR"),
        (SpanKind::Prompt, "PROMPT"),
    ];
    let app = App::new();
    for (kind, text) in kinds {
        info_span!("kind").in_scope(|| Span::current().set_span_kind(kind));
        let exported = app.span("kind");
        assert_eq!(values(&exported, openinference::SPAN_KIND), [text]);
        app.exporter.reset();
    }
}

/// As libraries use it, which cannot know what the application has set up.
fn set_everything(span: &Span) {
    span.set_span_kind(SpanKind::Tool);
    span.set_model_name("gpt-4o-mini");
    span.set_input("in");
    span.set_input_json(&"in").unwrap();
    span.set_output("out");
    span.set_output_json(&"out").unwrap();
    span.set_token_counts(1, 2);
}

#[test]
fn nothing_happens_without_the_opentelemetry_layer() {
    set_everything(&info_span!("no subscriber"));
    let only_logs = tracing_subscriber::Registry::default();
    tracing::subscriber::with_default(only_logs, || set_everything(&info_span!("no layer")));
    let hides_all = |layer: SessionLayer, otel| layer.wrap_filtered(otel, LevelFilter::OFF);
    let app = App::with_layer(|otel| hides_all(SessionLayer::new(), otel));
    set_everything(&info_span!("hidden"));
    app.exports("");
}

#[test]
fn disabled_span_does_not_serialise() {
    assert_eq!(Span::none().set_input_json(&Unserialisable), Ok(()));
}
