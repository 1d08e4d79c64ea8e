//! Attributes that the author of a span sets under the same keys.

use crate::details::{FULL, exports, full, lacks, line, list, span};
use crate::support::{App, values};
use opentelemetry::trace::{Span as _, Tracer, TracerProvider};
use opentelemetry::{Array, KeyValue, Value};
use opentelemetry_sdk::trace::SpanData;
use tracing::field::Empty;
use tracing::info_span;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_session::{Dialect, Session, session};

#[test]
fn own_attributes_outside_any_session_are_exported_as_they_were_set() {
    let app = App::new();
    let span = info_span!("span");
    span.set_attribute("metadata", r#"{ "b": 1.0, "a": 12345678901234567890123 }"#);
    span.set_attribute("tag.tags", "a, b");
    drop(span);
    exports(
        &app,
        &[r#"span metadata={ "b": 1.0, "a": 12345678901234567890123 } tag.tags=a, b"#],
    );
}

/// Sets `attributes` on the span of that name in each way and at each time, below `session`.
fn set_own(session: &Session, attributes: &[KeyValue], check: impl Fn(&SpanData)) {
    for way in [
        "builder",
        "started",
        "tracing before",
        "tracing after",
        "declaring",
    ] {
        let app = App::new();
        let tracer = app.provider.tracer("library");
        session.in_scope(|| match way {
            "builder" => {
                let builder = tracer.span_builder("own");
                let builder = builder.with_attributes(attributes.to_vec());
                builder.start(&tracer).end();
            }
            "started" => {
                let mut span = tracer.start("own");
                span.set_attributes(attributes.to_vec());
                span.end();
            }
            "declaring" => {
                let span = info_span!("own", session.id = "chat-42", metadata.declared = 1);
                span.in_scope(|| {
                    for it in attributes {
                        span.set_attribute(it.key.clone(), it.value.clone());
                    }
                });
            }
            way => {
                let span = info_span!("own");
                let entered = (way == "tracing after").then(|| span.enter());
                for it in attributes {
                    span.set_attribute(it.key.clone(), it.value.clone());
                }
                drop(entered);
            }
        });
        let span = app.span("own");
        let mut keys: Vec<_> = span.attributes.iter().map(|it| it.key.clone()).collect();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), span.attributes.len(), "{way}: {}", line(&span));
        check(&span);
    }
}

#[track_caller]
fn metadata(span: &SpanData) -> serde_json::Value {
    let mut metadata: serde_json::Value =
        serde_json::from_str(&values(span, "metadata").concat()).unwrap();
    metadata.as_object_mut().unwrap().remove("declared");
    metadata
}

#[test]
fn own_metadata_wins() {
    let own = [KeyValue::new("metadata", r#"{"tenant":"own","n":1.5}"#)];
    set_own(&full(), &own, |span| {
        assert_eq!(
            metadata(span),
            serde_json::json!({"tenant": "own", "n": 1.5})
        );
    });
}

#[test]
fn own_metadata_that_is_no_object_is_exported_unchanged() {
    for text in ["hello", "[1]", "null", "{"] {
        set_own(&full(), &[KeyValue::new("metadata", text)], |span| {
            assert_eq!(values(span, "metadata"), [text]);
        });
    }
}

#[test]
fn own_template_variables_that_are_no_object_are_exported_unchanged() {
    const VARIABLES: &str = "llm.prompt_template.variables";
    for text in ["hello", "[1]", "null", "{"] {
        set_own(&full(), &[KeyValue::new(VARIABLES, text)], |span| {
            assert_eq!(values(span, VARIABLES), [text]);
        });
    }
}

#[test]
fn own_entry_of_metadata_is_exported_as_it_was_recorded() {
    let app = App::new();
    full().in_scope(|| info_span!("span", metadata.step = ?"a \"b\"").in_scope(|| {}));
    let span = app.span("span");
    assert_eq!(metadata(&span), serde_json::json!({"tenant": "acme"}));
    assert_eq!(values(&span, "metadata.step"), [r#""a \"b\"""#]);
}

#[test]
fn own_attributes_that_are_set_twice_are_unchanged() {
    let app = App::new();
    let own = [
        KeyValue::new("metadata", r#"{"a":1}"#),
        KeyValue::new("tag.tags", "text"),
        KeyValue::new("metadata", "hello"),
        KeyValue::new("tag.tags", list(["own"])),
    ];
    let tracer = app.provider.tracer("library");
    let builder = tracer.span_builder("builder").with_attributes(own.clone());
    full().in_scope(|| builder.start(&tracer).end());
    full().in_scope(|| {
        let mut span = tracer.start("started");
        span.set_attributes(own);
        span.end();
    });
    for name in ["builder", "started"] {
        let span = app.span(name);
        assert_eq!(values(&span, "metadata"), [r#"{"a":1}"#, "hello"]);
        assert_eq!(values(&span, "tag.tags"), ["text", r#"["own"]"#]);
    }
}

#[test]
fn own_metadata_entry_is_kept_beside_the_sessions() {
    let own = [
        KeyValue::new("metadata.step", 2),
        KeyValue::new("metadata.tenant", "own"),
        KeyValue::new("metadata.list", Value::Array(Array::I64(vec![1, 2]))),
    ];
    set_own(&full(), &own, |span| {
        let own = ["metadata.step", "metadata.tenant", "metadata.list"];
        let own = own.map(|key| values(span, key).concat());
        assert_eq!(own, ["2", "own", "[1,2]"]);
        assert_eq!(metadata(span), serde_json::json!({"tenant": "acme"}));
    });
}

#[test]
fn own_tags_win() {
    let own = list(["own", "beta"]);
    set_own(&full(), &[KeyValue::new("tag.tags", own)], |span| {
        assert_eq!(values(span, "tag.tags"), [r#"["own","beta"]"#]);
    });
}

#[test]
fn own_template_and_attribute_win() {
    let own = [
        KeyValue::new("llm.prompt_template.template", "own"),
        KeyValue::new("llm.prompt_template.version", 7),
        KeyValue::new("llm.prompt_template.variables", r#"{"own":1}"#),
        KeyValue::new("ring", "own"),
    ];
    set_own(&full(), &own, |span| {
        assert_eq!(values(span, "llm.prompt_template.template"), ["own"]);
        assert_eq!(values(span, "llm.prompt_template.version"), ["7"]);
        assert_eq!(
            values(span, "llm.prompt_template.variables"),
            [r#"{"own":1}"#]
        );
        assert_eq!(values(span, "ring"), ["own"]);
    });
}

#[test]
fn own_attributes_with_other_keys_are_unchanged() {
    let own = [
        KeyValue::new("tags", "own"),
        KeyValue::new("metadata.", "own"),
        KeyValue::new("tag", "own"),
    ];
    set_own(&full(), &own[..1], |span| {
        assert_eq!(values(span, "tags"), ["own"]);
    });
    set_own(&Session::new("chat-42").unwrap(), &own[2..], |span| {
        assert_eq!(values(span, "tag"), ["own"]);
    });
}

#[test]
fn own_attributes_by_fields_win_too() {
    let app = App::new();
    full().in_scope(|| {
        info_span!(
            "own",
            metadata = r#"{"own":1}"#,
            ring = 3,
            metadata.step = Empty
        )
        .record("metadata.step", 2);
    });
    let span = app.span("own");
    lacks(&span, &[]);
    assert_eq!(values(&span, "metadata"), [r#"{"own":1}"#]);
    assert_eq!(values(&span, "metadata.step"), ["2"]);
    assert_eq!(values(&span, "ring"), ["3"]);
}

#[test]
fn own_attributes_are_not_inherited() {
    let app = App::new();
    full().in_scope(|| {
        let own = info_span!("own");
        own.set_attribute("metadata", r#"{"own":1}"#);
        own.in_scope(|| span("inside"));
    });
    lacks(&app.span("inside"), &[]);
    assert_eq!(line(&app.span("inside")), format!("inside{FULL}"));
}

#[test]
fn own_entry_of_metadata_keeps_its_type() {
    let own = [
        Value::Bool(true),
        Value::I64(-7),
        Value::F64(0.5),
        Value::String("a \"b\"".into()),
        Value::Array(Array::Bool(vec![true, false])),
        Value::Array(Array::F64(vec![0.5, 1.0])),
        list(["a", "b"]),
    ];
    for value in own {
        let attribute = KeyValue::new("metadata.own", value.clone());
        set_own(&full(), std::slice::from_ref(&attribute), |span| {
            assert!(span.attributes.contains(&attribute), "{}", line(span));
        });
    }
}

#[test]
fn own_attribute_wins_over_one_of_a_session_passed_to_the_macro() {
    let app = App::new();
    let session = Session::default().with_attribute("ring", 2).unwrap();
    session!(session).in_scope(|| {
        let own = info_span!("own", ring = 3);
        own.in_scope(|| info_span!("inside").in_scope(|| {}));
    });
    assert_eq!(values(&app.span("own"), "ring"), ["3"]);
    assert_eq!(values(&app.span("inside"), "ring"), ["2"]);
}

#[test]
fn own_attributes_are_exported_once_in_a_dialect_without_keys_for_them() {
    let app = App::with_dialect(Dialect::GEN_AI);
    full().in_scope(|| {
        let span = info_span!("own", metadata.step = 2);
        span.set_attribute("llm.prompt_template.template", "Own {word}");
        span.set_attribute("tag.tags", list(["own"]));
        span.set_attribute("ring", 3);
    });
    let span = app.span("own");
    for key in [
        "llm.prompt_template.template",
        "tag.tags",
        "metadata.step",
        "ring",
    ] {
        assert_eq!(values(&span, key).len(), 1, "{key}: {}", line(&span));
    }
}
