//! Under which keys what is in force is exported.

use crate::support::{self, list, values};
use opentelemetry::trace::{Span as _, Tracer, TracerProvider};
use opentelemetry::{KeyValue, Value};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use serde_json::json;
use tracing::info_span;
use tracing_session::{
    Dialect, Session, SessionExporter, SessionLayer, SessionTracerProvider, session,
};
use tracing_subscriber::prelude::*;

/// What is exported in this dialect of spans that `work` makes.
fn exported(
    dialect: Dialect,
    work: impl FnOnce(&SessionTracerProvider<SdkTracerProvider>),
) -> Vec<SpanData> {
    let exporter = InMemorySpanExporter::default();
    let wrapped = SessionExporter::new(exporter.clone()).with_dialect(dialect);
    let sdk = SdkTracerProvider::builder().with_simple_exporter(wrapped);
    let provider = SessionTracerProvider::new(sdk.build());
    let otel = tracing_opentelemetry::layer().with_tracer(provider.tracer("app"));
    let subscriber = tracing_subscriber::registry().with(SessionLayer::new().wrap(otel));
    tracing::subscriber::with_default(subscriber, || work(&provider));
    exporter.get_finished_spans().unwrap()
}

/// Attributes that are not the OpenTelemetry layer's, sorted by key.
fn attributes(span: &SpanData) -> Attributes {
    let mut ours: Vec<_> = support::attributes(span)
        .map(|it| (it.key.to_string(), it.value.clone()))
        .collect();
    ours.sort_by(|one, other| one.0.cmp(&other.0));
    ours
}

type Attributes = Vec<(String, Value)>;

/// A session with a user, tags, and metadata of each type of JSON.
fn conversation() -> Session {
    Session::new("chat-42")
        .and_then(|it| it.with_user("u-7"))
        .and_then(|it| it.with_metadata("text", "acme"))
        .and_then(|it| it.with_metadata("int", 3))
        .and_then(|it| it.with_metadata("most", u64::MAX))
        .and_then(|it| it.with_metadata("float", 1.5))
        .and_then(|it| it.with_metadata("yes", true))
        .and_then(|it| it.with_metadata("none", None::<u8>))
        .and_then(|it| it.with_metadata("list", ["a"]))
        .and_then(|it| it.with_metadata("object", json!({"a": 1})))
        .and_then(|it| it.with_metadata("d.k", "dotted"))
        .and_then(|it| it.with_tags(["a,b", "c"]))
        .unwrap()
}

const JSON: &str = concat!(
    r#"{"text":"acme","int":3,"most":18446744073709551615,"float":1.5,"yes":true,"#,
    r#""none":null,"list":["a"],"object":{"a":1},"d.k":"dotted"}"#
);

/// The same metadata, each by itself.
fn entries(prefix: &str) -> Attributes {
    let entries = [
        ("text", "acme".into()),
        ("int", 3.into()),
        ("most", "18446744073709551615".into()),
        ("float", 1.5.into()),
        ("yes", true.into()),
        ("list", r#"["a"]"#.into()),
        ("object", r#"{"a":1}"#.into()),
        ("d.k", "dotted".into()),
    ];
    entries
        .map(|(key, value)| (format!("{prefix}{key}"), value))
        .into()
}

/// What each dialect writes of `conversation()`. Source: the code of the backends, in the version of
/// November 2026, and for Phoenix and MLflow what they showed of spans sent to them.
fn table() -> Vec<(&'static str, Dialect, Attributes)> {
    let is = |key: &str, value: &'static str| (key.to_owned(), Value::from(value));
    let with = |mut all: Vec<_>, prefix| {
        all.extend(entries(prefix));
        all
    };
    let tags = |key: &str| (key.to_owned(), list(["a,b", "c"]));
    vec![
        (
            "OpenInference",
            Dialect::OPENINFERENCE,
            vec![
                is("session.id", "chat-42"),
                is("user.id", "u-7"),
                is("metadata", JSON),
                tags("tag.tags"),
            ],
        ),
        (
            "GenAI",
            Dialect::GEN_AI,
            vec![is("gen_ai.conversation.id", "chat-42")],
        ),
        (
            "Langfuse",
            Dialect::LANGFUSE,
            with(
                vec![
                    is("langfuse.session.id", "chat-42"),
                    is("langfuse.user.id", "u-7"),
                    tags("langfuse.trace.tags"),
                ],
                "langfuse.trace.metadata.",
            ),
        ),
        (
            "LangSmith",
            Dialect::LANGSMITH,
            with(
                vec![
                    is("langsmith.metadata.thread_id", "chat-42"),
                    is("langsmith.metadata.user_id", "u-7"),
                    is("langsmith.span.tags", "a,b,c"),
                ],
                "langsmith.metadata.",
            ),
        ),
        (
            "MLflow",
            Dialect::MLFLOW,
            with(
                vec![is("session.id", "chat-42"), is("user.id", "u-7")],
                "mlflow.traceTag.",
            ),
        ),
        (
            "Traceloop",
            Dialect::TRACELOOP,
            with(
                vec![
                    is("traceloop.association.properties.session_id", "chat-42"),
                    is("traceloop.association.properties.user_id", "u-7"),
                ],
                "traceloop.association.properties.",
            ),
        ),
        (
            "PostHog",
            Dialect::POSTHOG,
            vec![
                is("$ai_session_id", "chat-42"),
                is("sessionId", "chat-42"),
                is("posthog.distinct_id", "u-7"),
                is("posthogDistinctId", "u-7"),
            ],
        ),
        (
            "Weave",
            Dialect::WEAVE,
            with(
                vec![
                    is("wandb.thread_id", "chat-42"),
                    is("weave.conversation.id", "chat-42"),
                ],
                "wandb.attributes.",
            ),
        ),
        (
            "Mirascope",
            Dialect::MIRASCOPE,
            vec![
                is("mirascope.ops.session.id", "chat-42"),
                is("mirascope.ops.session.attributes", JSON),
                tags("mirascope.trace.tags"),
            ],
        ),
        (
            "TraceCtrl",
            Dialect::TRACECTRL,
            vec![is("tracectrl.session_id", "chat-42")],
        ),
    ]
}

fn sorted(mut attributes: Attributes) -> Attributes {
    attributes.sort_by(|one, other| one.0.cmp(&other.0));
    attributes.dedup();
    attributes
}

#[test]
fn the_default_is_openinference_and_not_the_table_without_keys() {
    assert_eq!(Dialect::default(), Dialect::OPENINFERENCE);
    assert_ne!(Dialect::default(), Dialect::new());
}

#[test]
fn each_dialect_alone_writes_its_keys_and_no_other() {
    for (name, dialect, expected) in table() {
        let spans = exported(dialect, |provider| {
            conversation().in_scope(|| {
                info_span!("by tracing").in_scope(|| {});
                provider.tracer("library").start("by OpenTelemetry").end();
            });
            session!(conversation()).in_scope(|| {});
        });
        assert_eq!(spans.len(), 3);
        let expected = sorted(expected);
        for span in &spans {
            assert_eq!(attributes(span), expected, "{name}: {}", span.name);
        }
    }
}

#[test]
fn each_dialect_can_be_written_beside_openinference() {
    let (_, openinference, usual) = table().remove(0);
    for (name, dialect, expected) in table() {
        for dialect in [
            openinference.clone().and(dialect.clone()),
            dialect.and(openinference.clone()),
        ] {
            let spans = exported(dialect, |_| {
                conversation().in_scope(|| info_span!("span").in_scope(|| {}));
            });
            let expected = sorted([usual.clone(), expected.clone()].concat());
            assert_eq!(attributes(&spans[0]), expected, "{name}");
        }
    }
}

#[test]
fn all_dialects_can_be_written_at_once() {
    let all = table().into_iter();
    let all = all.fold(Dialect::new(), |all, (_, dialect, _)| all.and(dialect));
    let spans = exported(all, |_| {
        conversation().in_scope(|| info_span!("span").in_scope(|| {}));
    });
    let expected = table().into_iter().flat_map(|(_, _, expected)| expected);
    assert_eq!(attributes(&spans[0]), sorted(expected.collect()));
}

#[test]
fn custom_dialect_is_exported() {
    const OURS: Dialect = Dialect::new();
    let ours = OURS
        .with_session_key("acme.conversation")
        .with_user_key("acme.customer")
        .with_metadata_key("acme.metadata")
        .with_metadata_prefix("acme.metadata.")
        .with_tags_key("acme.tags");
    let spans = exported(ours, |_| {
        conversation().in_scope(|| info_span!("span").in_scope(|| {}));
    });
    let mut expected = entries("acme.metadata.");
    expected.extend([
        ("acme.conversation".into(), "chat-42".into()),
        ("acme.customer".into(), "u-7".into()),
        ("acme.metadata".into(), JSON.into()),
        ("acme.tags".into(), list(["a,b", "c"])),
    ]);
    assert_eq!(attributes(&spans[0]), sorted(expected));
    let nothing = exported(Dialect::new(), |_| {
        conversation().in_scope(|| info_span!("span").in_scope(|| {}));
    });
    assert_eq!(attributes(&nothing[0]), []);
}

#[test]
fn existing_key_is_not_written_twice() {
    let dialect = Dialect::OPENINFERENCE
        .with_session_key("session.id")
        .with_user_key("user.id")
        .with_metadata_key("metadata")
        .with_tags_key("tag.tags");
    let dialect = dialect.and(Dialect::MLFLOW).and(Dialect::MLFLOW);
    let spans = exported(dialect, |_| {
        conversation().in_scope(|| info_span!("span").in_scope(|| {}));
    });
    for key in [
        "session.id",
        "user.id",
        "metadata",
        "tag.tags",
        "mlflow.traceTag.int",
    ] {
        assert_eq!(values(&spans[0], key).len(), 1, "{key}");
    }
}

#[test]
fn key_of_two_dialects_keeps_its_meaning_from_the_first() {
    let of_session = Dialect::new().with_session_key("acme.id");
    let of_user = Dialect::new().with_user_key("acme.id");
    for (dialect, id) in [
        (of_session.clone().and(of_user.clone()), "chat-42"),
        (of_user.and(of_session), "u-7"),
    ] {
        let spans = exported(dialect, |_| {
            conversation().in_scope(|| info_span!("span").in_scope(|| {}));
        });
        assert_eq!(values(&spans[0], "acme.id"), [id]);
    }
}

#[test]
fn prompt_template_and_own_attributes_have_the_same_keys_in_all() {
    let session = Session::default()
        .with_prompt_template("Say {word}")
        .with_prompt_template_version("v1")
        .with_prompt_template_variables(json!({"word": "hello"}))
        .and_then(|it| it.with_attribute("ring", 2))
        .unwrap();
    for (name, dialect, _) in table() {
        let spans = exported(dialect, |_| {
            session.in_scope(|| info_span!("span").in_scope(|| {}));
        });
        let keys: Vec<_> = attributes(&spans[0]).into_iter().map(|it| it.0).collect();
        let expected = [
            "llm.prompt_template.template",
            "llm.prompt_template.variables",
            "llm.prompt_template.version",
            "ring",
        ];
        assert_eq!(keys, expected, "{name}");
    }
}

/// Sets an attribute on a span in a conversation, in every way and at every time.
fn with_own(dialect: &Dialect, own: &KeyValue) -> Vec<SpanData> {
    exported(dialect.clone(), |provider| {
        let tracer = provider.tracer("library");
        conversation().in_scope(|| {
            let builder = tracer.span_builder("builder");
            let builder = builder.with_attributes([own.clone()]);
            builder.start(&tracer).end();
            let mut span = tracer.start("started");
            span.set_attribute(own.clone());
            span.end();
        });
        let mut span = session!(conversation());
        let entered = span.enter();
        tracing_opentelemetry::OpenTelemetrySpanExt::set_attribute(
            &tracing::Span::current(),
            own.key.clone(),
            own.value.clone(),
        );
        drop(entered);
        span = tracing::Span::none();
        drop(span);
    })
}

#[test]
fn own_attribute_under_a_key_of_the_dialect_wins_and_is_not_doubled() {
    for (name, dialect, expected) in table() {
        for (key, _) in &expected {
            if ["session.id", "user.id", "metadata", "tag.tags"].contains(&key.as_str()) {
                continue;
            }
            let spans = with_own(&dialect, &KeyValue::new(key.clone(), "own"));
            assert_eq!(spans.len(), 3);
            for span in &spans {
                assert_eq!(values(span, key), ["own"], "{name}: {key} on {}", span.name);
                assert_eq!(attributes(span).len(), expected.len(), "{name}: {key}");
            }
        }
    }
}

#[test]
fn own_id_under_a_key_of_the_dialect_does_not_change_the_session() {
    let session = Session::new("chat-42").unwrap();
    let work = |own: &'static str| {
        let spans = exported(Dialect::OPENINFERENCE.and(Dialect::LANGFUSE), |_| {
            session.in_scope(|| info_span!("span", langfuse.session.id = own).in_scope(|| {}));
        });
        ["session.id", "langfuse.session.id"].map(|key| values(&spans[0], key))
    };
    assert_eq!(work(" own "), [["chat-42"], [" own "]]);
    // A blank one and a placeholder are ignored, as they are under OpenInference's key.
    for no_id in [" ", "None", "Some(None)"] {
        assert_eq!(work(no_id), [["chat-42"], ["chat-42"]]);
    }
}

#[test]
fn own_attribute_of_openinference_is_not_lost_in_another_dialect() {
    let own = [
        KeyValue::new("session.id", "own"),
        KeyValue::new("user.id", "own"),
        KeyValue::new("metadata", r#"{"own":1}"#),
        KeyValue::new("tag.tags", list(["own"])),
        KeyValue::new("llm.prompt_template.version", "own"),
    ];
    let mut lost = Vec::new();
    for (name, dialect, _) in table() {
        for own in &own {
            // Under its own key, or under that of the dialect.
            let is_there = |span: &SpanData| {
                let mut attributes = attributes(span).into_iter();
                attributes
                    .any(|(key, value)| value.to_string().contains("own") || key.ends_with(".own"))
            };
            if !with_own(&dialect, own).iter().all(is_there) {
                lost.push(format!("{} in {name}", own.key));
            }
        }
    }
    assert_eq!(lost, [""; 0]);
}

#[test]
fn attribute_of_the_session_under_a_key_of_the_dialect_is_not_doubled() {
    for (name, dialect, expected) in table() {
        for (key, _) in &expected {
            let Ok(session) = conversation().with_attribute(key, "attribute") else {
                continue;
            };
            let spans = exported(dialect.clone(), |_| {
                session.in_scope(|| info_span!("span").in_scope(|| {}));
            });
            assert_eq!(values(&spans[0], key).len(), 1, "{name}: {key}");
        }
    }
}

#[test]
fn attribute_of_the_session_that_looks_like_metadata_of_the_dialect_is_not_lost() {
    let session = conversation().with_attribute("traceloop.association.properties.tier", "gold");
    let spans = exported(Dialect::TRACELOOP, |_| {
        session
            .unwrap()
            .in_scope(|| info_span!("span").in_scope(|| {}));
    });
    let tier = values(&spans[0], "traceloop.association.properties.tier");
    assert_eq!(tier, ["gold"]);
}

#[test]
fn metadata_with_the_name_of_an_id_does_not_take_its_place() {
    for (dialect, prefix, session_id, user_id) in [
        (
            Dialect::LANGSMITH,
            "langsmith.metadata.",
            "thread_id",
            "user_id",
        ),
        (
            Dialect::TRACELOOP,
            "traceloop.association.properties.",
            "session_id",
            "user_id",
        ),
    ] {
        let session = conversation()
            .with_metadata(session_id, "metadata")
            .and_then(|it| it.with_metadata(user_id, "metadata"))
            .unwrap();
        let spans = exported(dialect.clone(), |_| {
            session.in_scope(|| info_span!("span").in_scope(|| {}));
        });
        let of = |key: &str| values(&spans[0], &format!("{prefix}{key}"));
        assert_eq!(
            (of(session_id), of(user_id)),
            (vec!["chat-42".into()], vec!["u-7".into()])
        );
    }
}

#[test]
fn metadata_with_the_name_of_an_id_is_written_if_there_is_no_id() {
    let session = Session::default().with_metadata("user_id", "metadata");
    let spans = exported(Dialect::TRACELOOP, |_| {
        session
            .unwrap()
            .in_scope(|| info_span!("span").in_scope(|| {}));
    });
    let user = values(&spans[0], "traceloop.association.properties.user_id");
    assert_eq!(user, ["metadata"]);
}

#[test]
fn several_providers_have_separate_dialects() {
    let mut providers = Vec::new();
    for (_, dialect, expected) in table() {
        let exporter = InMemorySpanExporter::default();
        let wrapped = SessionExporter::new(exporter.clone()).with_dialect(dialect);
        let sdk = SdkTracerProvider::builder().with_simple_exporter(wrapped);
        let provider = SessionTracerProvider::new(sdk.build());
        providers.push((provider, exporter, sorted(expected)));
    }
    // More providers than a session remembers, one after the other and all over again.
    conversation().in_scope(|| {
        for _ in 0..3 {
            for (provider, ..) in &providers {
                provider.tracer("library").start("span").end();
            }
        }
    });
    for (_, exporter, expected) in &providers {
        let spans = exporter.get_finished_spans().unwrap();
        assert_eq!(spans.len(), 3);
        for span in &spans {
            assert_eq!(attributes(span), *expected);
        }
    }
}

#[test]
fn value_recorded_later_is_written_in_the_dialect() {
    let spans = exported(Dialect::LANGFUSE, |_| {
        let span = session!("chat-42", metadata.plan = tracing::field::Empty, tags = "a");
        span.record("user.id", "u-7").record("metadata.plan", "pro");
    });
    let expected = [
        ("langfuse.session.id", "chat-42".into()),
        ("langfuse.trace.metadata.plan", "pro".into()),
        ("langfuse.trace.tags", list(["a"])),
        ("langfuse.user.id", "u-7".into()),
    ];
    assert_eq!(
        attributes(&spans[0]),
        expected.map(|(key, value)| (key.to_owned(), value))
    );
}

#[test]
fn plain_session_and_user_are_unchanged_if_renaming_is_off() {
    let exporter = InMemorySpanExporter::default();
    let sdk = SdkTracerProvider::builder().with_simple_exporter(exporter.clone());
    let provider = SessionTracerProvider::new(sdk.build()).without_renaming_plain_attributes();
    conversation().in_scope(|| {
        let mut span = provider.tracer("library").start("span");
        span.set_attribute(KeyValue::new("session", "plain"));
        span.end();
    });
    let spans = exporter.get_finished_spans().unwrap();
    assert_eq!(values(&spans[0], "session"), ["plain"]);
}
