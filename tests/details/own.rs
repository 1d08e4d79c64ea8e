//! Attributes that the author of a span sets under the same keys.

use crate::support::{App, values};
use crate::{FULL, exports, full, lacks, line, list, span};
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
fn own_metadata_is_joined_with_that_of_the_session_and_wins() {
    let own = [KeyValue::new("metadata", r#"{"tenant":"own","n":1.5}"#)];
    set_own(&full(), &own, |span| {
        assert_eq!(
            metadata(span),
            serde_json::json!({"tenant": "own", "n": 1.5})
        );
    });
}

#[test]
fn own_metadata_that_is_no_object_stands_alone() {
    for text in ["hello", "[1]", "null", "{"] {
        set_own(&full(), &[KeyValue::new("metadata", text)], |span| {
            assert_eq!(values(span, "metadata"), [text]);
        });
    }
}

#[test]
fn own_template_variables_that_are_no_object_stand_alone() {
    const VARIABLES: &str = "llm.prompt_template.variables";
    for text in ["hello", "[1]", "null", "{"] {
        set_own(&full(), &[KeyValue::new(VARIABLES, text)], |span| {
            assert_eq!(values(span, VARIABLES), [text]);
        });
    }
}

#[test]
fn own_entry_of_metadata_recorded_in_quotes_loses_them() {
    let app = App::new();
    full().in_scope(|| info_span!("span", metadata.step = ?"a \"b\"").in_scope(|| {}));
    let expected = serde_json::json!({"tenant": "acme", "step": "a \"b\""});
    assert_eq!(metadata(&app.span("span")), expected);
}

#[test]
fn last_of_ones_own_wins() {
    let own = |first, last| {
        [
            KeyValue::new("metadata", first),
            KeyValue::new("metadata", last),
        ]
    };
    set_own(&full(), &own(r#"{"a":1}"#, "hello"), |span| {
        assert_eq!(values(span, "metadata"), ["hello"]);
    });
    set_own(&full(), &own("hello", r#"{"a":1}"#), |span| {
        assert_eq!(
            metadata(span),
            serde_json::json!({"tenant": "acme", "a": 1})
        );
    });
    let tags = [
        KeyValue::new("tag.tags", "text"),
        KeyValue::new("tag.tags", list(["own"])),
    ];
    set_own(&full(), &tags, |span| {
        assert!(values(span, "tag.tags").concat().contains("own"));
    });
}

#[test]
fn own_entry_of_metadata_is_found_beside_the_others() {
    let own = [
        KeyValue::new("metadata.step", 2),
        KeyValue::new("metadata.tenant", "own"),
        KeyValue::new("metadata.list", Value::Array(Array::I64(vec![1, 2]))),
    ];
    set_own(&full(), &own, |span| {
        let all = values(span, "metadata").concat() + &values(span, "metadata.list").concat();
        assert!(all.contains("[1,2]"), "{}", line(span));
        let metadata = metadata(span);
        assert_eq!(
            (&metadata["step"], &metadata["tenant"]),
            (&2.into(), &"own".into())
        );
    });
}

#[test]
fn own_tags_are_joined_with_those_of_the_session() {
    let own = list(["own", "beta"]);
    set_own(&full(), &[KeyValue::new("tag.tags", own)], |span| {
        let tags = values(span, "tag.tags");
        let [tags] = tags.as_slice() else {
            panic!("{tags:?}")
        };
        let mut tags: Vec<String> = serde_json::from_str(tags).unwrap();
        tags.sort();
        assert_eq!(tags, ["beta", "own"]);
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
fn own_attributes_that_are_not_of_the_session_are_left_alone() {
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
    assert_eq!(
        values(&span, "metadata"),
        [r#"{"tenant":"acme","own":1,"step":2}"#]
    );
    assert_eq!(values(&span, "ring"), ["3"]);
}

#[test]
fn own_attributes_go_no_further() {
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
fn entry_of_metadata_of_one_s_own_keeps_its_type_beside_what_is_inherited() {
    let list = |array: Array| Value::Array(array);
    let own = [
        ("flag", Value::Bool(true), "true"),
        ("whole", Value::I64(-7), "-7"),
        ("part", Value::F64(0.5), "0.5"),
        ("text", Value::String("a \"b\"".into()), r#""a \"b\"""#),
        (
            "flags",
            list(Array::Bool(vec![true, false])),
            "[true,false]",
        ),
        ("wholes", list(Array::I64(vec![1, 2])), "[1,2]"),
        ("parts", list(Array::F64(vec![0.5, 1.0])), "[0.5,1.0]"),
        (
            "texts",
            list(Array::String(vec!["a".into(), "b".into()])),
            r#"["a","b"]"#,
        ),
    ];
    for (key, value, json) in own {
        let attribute = KeyValue::new(format!("metadata.{key}"), value);
        let expected = format!(r#"{{"tenant":"acme","{key}":{json}}}"#);
        set_own(&full(), &[attribute], |span| {
            let found = values(span, "metadata").concat();
            let parsed = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
            let mut found = parsed(&found);
            found.as_object_mut().unwrap().remove("declared");
            assert_eq!(found, parsed(&expected), "{}", line(span));
        });
    }
}

#[test]
fn own_attribute_wins_over_one_that_a_span_says_too() {
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
fn own_entry_of_metadata_is_found_where_it_is_the_one_attribute() {
    let app = App::new();
    let tracer = app.provider.tracer("plain");
    let session = Session::default().with_metadata("tenant", "acme").unwrap();
    let builder = tracer.span_builder("own");
    let builder = builder.with_attributes([KeyValue::new("metadata.step", 2)]);
    session.in_scope(|| drop(tracer.build(builder)));
    assert_eq!(
        metadata(&app.span("own")),
        serde_json::json!({"tenant": "acme", "step": 2})
    );
}

#[test]
fn own_attributes_stand_once_in_a_dialect_without_keys_for_them() {
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
        "metadata",
        "ring",
    ] {
        assert_eq!(values(&span, key).len(), 1, "{key}: {}", line(&span));
    }
}
