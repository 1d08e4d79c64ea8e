//! A span's own attributes stay where its author put them; the fields of an opener are exported once.

use crate::support::{self, App, values};
use crate::values::ignored;
use opentelemetry::trace::{
    Link, SpanKind, TraceContextExt, TraceId, TraceState, Tracer, TracerProvider,
};
use opentelemetry::{Array, Context, KeyValue, Value};
use opentelemetry_sdk::trace::{
    SamplingDecision, SamplingResult, ShouldSample, Span as SdkSpan, SpanProcessor,
};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tracing::field::Empty;
use tracing::info_span;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_session::{Session, SessionLayer, session};

#[test]
fn field_recorded_again_before_the_span_starts_is_exported_once() {
    for (name, recorded) in [("session.id", "session"), ("id", "session")] {
        let app = App::new();
        let span = match name {
            "id" => info_span!("session", id = Empty),
            _ => info_span!("session", session.id = Empty),
        };
        span.record(name, "one").record(name, "two");
        span.in_scope(|| info_span!("inside").in_scope(|| {}));
        drop(span);
        assert_eq!(values(&app.span("inside"), "session.id"), ["two"]);
        assert_eq!(values(&app.span(recorded), "session.id"), ["two"], "{name}");
        assert_eq!(values(&app.span(recorded), "id"), [""; 0], "{name}");
    }
}

#[test]
fn id_recorded_after_a_blank_or_missing_one_is_exported_once() {
    let app = App::new();
    let line = line!() + 1;
    let blank = info_span!("blank", session.id = " ");
    let missing = info_span!("missing", session.id = ?None::<&str>);
    for span in [blank, missing] {
        span.in_scope(|| {
            span.record("session.id", "chat-42");
            info_span!("inside").in_scope(|| {});
        });
    }
    app.exports_with_diagnostics(
        "
        blank session.id=chat-42
          inside session.id=chat-42
        missing session.id=chat-42
          inside session.id=chat-42
        ",
        &[ignored(
            "session.id",
            "blank",
            line,
            "id is blank: set a value, or leave it out",
        )],
    );
}

#[test]
fn attributes_outside_any_session_keep_their_order_type_and_value() {
    let app = App::new();
    let list = || Value::Array(Array::String(vec!["a".into(), "b".into()]));
    let span = info_span!(
        "plain",
        user = "someone",
        tags = "a,b",
        metadata.x = 1,
        "id" = 7
    );
    span.set_attribute("session", 42);
    span.set_attribute("tag.tags", list());
    span.set_attribute("session.id", 42);
    span.set_attribute("metadata", r#"{"x": 1}"#);
    span.in_scope(|| {});
    span.set_attribute("user.id", true);
    span.set_attribute("session.id", " again ");
    drop(span);
    let plain = app.span("plain");
    let found: Vec<_> = support::attributes(&plain)
        .map(|it| (it.key.to_string(), it.value.clone()))
        .collect();
    let expected: [(&str, Value); 10] = [
        ("user", "someone".into()),
        ("tags", "a,b".into()),
        ("metadata.x", 1.into()),
        ("id", 7.into()),
        ("session", 42.into()),
        ("tag.tags", list()),
        ("session.id", 42.into()),
        ("metadata", r#"{"x": 1}"#.into()),
        ("user.id", true.into()),
        ("session.id", " again ".into()),
    ];
    assert_eq!(found, expected.map(|(key, value)| (key.to_owned(), value)));
}

#[test]
fn own_id_is_not_lost_on_a_span_with_many_attributes() {
    let app = App::new();
    session!("chat-42").in_scope(|| {
        let span = info_span!("crowded");
        span.set_attribute("session.id", "own");
        for number in 0..200 {
            span.set_attribute(format!("key{number}"), number);
        }
        span.in_scope(|| {});
    });
    assert_eq!(values(&app.span("crowded"), "session.id"), ["own"]);
}

/// Keeps the traces of one user.
#[derive(Clone, Debug)]
struct KeepsVip;

impl ShouldSample for KeepsVip {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        _: TraceId,
        _: &str,
        _: &SpanKind,
        attributes: &[KeyValue],
        _: &[Link],
    ) -> SamplingResult {
        let is_vip = attributes.contains(&KeyValue::new("user.id", "vip"))
            || parent.is_some_and(|cx| cx.span().span_context().is_sampled());
        SamplingResult {
            decision: match is_vip {
                true => SamplingDecision::RecordAndSample,
                false => SamplingDecision::Drop,
            },
            attributes: Vec::new(),
            trace_state: TraceState::default(),
        }
    }
}

/// What a processor finds on spans that start.
#[derive(Clone, Debug, Default)]
struct Started(Arc<Mutex<Vec<Found>>>);

/// A span's name and its attributes.
type Found = (String, Vec<KeyValue>);

impl SpanProcessor for Started {
    fn on_start(&self, span: &mut SdkSpan, _: &Context) {
        let data = span.exported_data().unwrap();
        let mut started = self.0.lock().unwrap();
        started.push((data.name.to_string(), data.attributes));
    }

    fn on_end(&self, _: opentelemetry_sdk::trace::SpanData) {}

    fn force_flush(&self) -> opentelemetry_sdk::error::OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> opentelemetry_sdk::error::OTelSdkResult {
        Ok(())
    }
}

#[test]
fn samplers_and_processors_receive_ids_that_are_set_before_the_start() {
    let started = Started::default();
    let processor = started.clone();
    let app = App::with_provider(
        |builder| {
            builder
                .with_sampler(KeepsVip)
                .with_span_processor(processor)
        },
        |otel| SessionLayer::new().wrap(otel),
    );
    for user in ["vip", "other"] {
        info_span!("field", user.id = user).in_scope(|| {});
        let span = info_span!("attribute");
        span.set_attribute("user.id", user);
        span.in_scope(|| {});
        let library = app.provider.tracer("library");
        let built = library
            .span_builder("built")
            .with_attributes([KeyValue::new("user.id", user)]);
        drop(built.start(&library));
    }
    let started = started.0.lock().unwrap();
    let found: Vec<_> = started
        .iter()
        .map(|(name, attributes)| {
            let is_vip = attributes.contains(&KeyValue::new("user.id", "vip"));
            (&**name, is_vip)
        })
        .collect();
    assert_eq!(
        found,
        [("field", true), ("attribute", true), ("built", true)]
    );
}

#[test]
fn field_that_two_threads_record_at_once_is_exported_once() {
    for _ in 0..400 {
        let app = App::new();
        let span = info_span!("session", session.id = "first");
        span.in_scope(|| {});
        std::thread::scope(|threads| {
            for thread in 0..3 {
                let span = &span;
                threads.spawn(move || {
                    for number in 0..20 {
                        span.record("session.id", format!("{thread}-{number}"));
                    }
                });
            }
        });
        drop(span);
        assert_eq!(values(&app.span("session"), "session.id"), ["first"]);
    }
}

#[test]
fn own_attribute_with_any_key_overrides_the_sessions() {
    let session = Session::new("chat-42").unwrap();
    let session = session.with_attribute("id", "ours").unwrap();
    let session = session.with_attribute("session.name", "ours").unwrap();
    let app = App::new();
    session.in_scope(|| {
        info_span!("own", id = "own", session = "own").in_scope(|| {});
        info_span!("none").in_scope(|| {});
    });
    for (span, expected) in [("own", "own"), ("none", "ours")] {
        for key in ["id", "session.name"] {
            assert_eq!(values(&app.span(span), key), [expected], "{key}");
        }
    }
}
