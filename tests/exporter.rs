//! `SessionExporter`: which attributes it maps to the keys of a dialect, and which it leaves alone.

use crate::support::{self, App, values};
use opentelemetry::trace::{
    Link, Span as _, SpanContext, SpanId, TraceFlags, TraceId, TraceState, Tracer, TracerProvider,
};
use opentelemetry::{Array, Key, KeyValue, StringValue, Value};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData, SpanExporter};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tracing::info_span;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_session::{
    Dialect, Session, SessionExporter, SessionTracerProvider, processors::SessionSpanProcessor,
};

type Wrapped = SessionExporter<InMemorySpanExporter>;

/// A span with these attributes, as a backend gets it. The SDK makes the span, without our provider.
fn exported_with(
    configure: impl FnOnce(Wrapped) -> Wrapped,
    attributes: impl IntoIterator<Item = KeyValue>,
) -> SpanData {
    let exporter = InMemorySpanExporter::default();
    let wrapped = configure(SessionExporter::new(exporter.clone()));
    let provider = SdkTracerProvider::builder().with_simple_exporter(wrapped);
    let mut span = provider.build().tracer("library").start("span");
    for attribute in attributes {
        span.set_attribute(attribute);
    }
    span.end();
    exporter.get_finished_spans().unwrap().remove(0)
}

fn exported(dialect: Dialect, attributes: impl IntoIterator<Item = KeyValue>) -> SpanData {
    exported_with(|it| it.with_dialect(dialect), attributes)
}

fn line(span: &SpanData) -> String {
    support::tree(std::slice::from_ref(span)).trim_end().into()
}

fn list(texts: &[&'static str]) -> Value {
    let texts = texts.iter().map(|text| StringValue::from(*text));
    Value::Array(Array::String(texts.collect()))
}

fn chat() -> Session {
    Session::new("chat-42").unwrap().with_user("u-7").unwrap()
}

/// A session with metadata and tags, and no ids.
fn details() -> Session {
    let session = Session::default().with_metadata("plan", "pro");
    session.and_then(|it| it.with_tags(["beta"])).unwrap()
}

#[test]
fn two_exporters_of_one_provider_have_two_dialects() {
    let (phoenix, langfuse) = (
        InMemorySpanExporter::default(),
        InMemorySpanExporter::default(),
    );
    let of_langfuse = SessionExporter::new(langfuse.clone()).with_dialect(Dialect::LANGFUSE);
    let provider = SdkTracerProvider::builder()
        .with_simple_exporter(SessionExporter::new(phoenix.clone()))
        .with_simple_exporter(of_langfuse)
        .build();
    let provider = SessionTracerProvider::new(provider);
    let session = chat().with_metadata("plan", "pro").unwrap();
    session.in_scope(|| provider.tracer("library").start("span").end());
    let line = |exporter: InMemorySpanExporter| line(&exporter.get_finished_spans().unwrap()[0]);
    assert_eq!(
        line(phoenix),
        r#"span session.id=chat-42 user.id=u-7 metadata={"plan":"pro"}"#
    );
    assert_eq!(
        line(langfuse),
        "span langfuse.session.id=chat-42 langfuse.user.id=u-7 langfuse.trace.metadata.plan=pro"
    );
}

mod own {
    use super::*;

    const TRACE_METADATA: &str = "langfuse.trace.metadata.";
    const SPAN_METADATA: &str = "langfuse.observation.metadata.";
    const TRACE_TAGS: &str = "langfuse.trace.tags";

    fn metadata() -> KeyValue {
        KeyValue::new("metadata", r#"{"step":2}"#)
    }

    fn tags() -> KeyValue {
        KeyValue::new("tag.tags", list(&["own"]))
    }

    fn of_session(key: &str) -> Option<KeyValue> {
        details().attributes().find(|it| it.key.as_str() == key)
    }

    /// What Langfuse gets of these: the span's author sets `own` before or after the session.
    fn langfuse(session: Option<KeyValue>, own: Option<KeyValue>) -> Vec<String> {
        let before = own.clone().into_iter().chain(session.clone());
        let after = session.into_iter().chain(own);
        let [before, after] = [before.collect::<Vec<_>>(), after.collect()].map(|attributes| {
            let span = exported(Dialect::LANGFUSE, attributes);
            let mut all: Vec<_> = span.attributes.iter().map(text).collect();
            all.sort();
            all
        });
        assert_eq!(before, after);
        before
    }

    fn text(attribute: &KeyValue) -> String {
        format!("{}={}", attribute.key, attribute.value)
    }

    #[test]
    fn metadata_of_a_span_is_never_the_traces() {
        let session = || of_session("metadata");
        let of_trace = format!("{TRACE_METADATA}plan=pro");
        let of_span = format!("{SPAN_METADATA}step=2");
        assert_eq!(langfuse(None, None), [""; 0]);
        assert_eq!(langfuse(session(), None), [&*of_trace]);
        assert_eq!(langfuse(None, Some(metadata())), [&*of_span]);
    }

    #[test]
    fn tags_of_a_span_are_never_the_traces() {
        let session = || of_session("tag.tags");
        let of_trace = format!(r#"{TRACE_TAGS}=["beta"]"#);
        let of_span = format!(r#"{SPAN_METADATA}tags=["own"]"#);
        assert_eq!(langfuse(session(), None), [&*of_trace]);
        assert_eq!(langfuse(None, Some(tags())), [&*of_span]);
    }

    /// The same through the tracer provider, where the crate writes the session's attributes.
    #[test]
    fn provider_keeps_the_two_apart() {
        let app = App::with_dialect(Dialect::LANGFUSE);
        let own = |name: &'static str| {
            let span = info_span!("span", otel.name = name);
            span.set_attribute("metadata", r#"{"step":2}"#);
            span.set_attribute("tag.tags", list(&["own"]));
        };
        own("outside");
        details().in_scope(|| {
            own("inside");
            info_span!("other").in_scope(|| {});
        });
        for name in ["outside", "inside"] {
            let span = app.span(name);
            let step = values(&span, &format!("{SPAN_METADATA}step"));
            assert_eq!(step, ["2"], "{}", line(&span));
            let keys = span.attributes.iter().map(|it| it.key.as_str());
            let of_trace = keys.filter(|key| key.starts_with("langfuse.trace."));
            assert_eq!(of_trace.collect::<Vec<_>>(), [""; 0], "{name}");
            for key in ["metadata", "tag.tags"] {
                assert_eq!(values(&span, key), [""; 0], "{name} {key}");
            }
        }
        let other = app.span("other");
        let plan = values(&other, &format!("{TRACE_METADATA}plan"));
        assert_eq!(plan, ["pro"]);
        assert_eq!(values(&other, TRACE_TAGS), [r#"["beta"]"#]);
    }

    #[test]
    fn keys_of_a_trace_in_other_dialects() {
        for (dialect, expected) in [
            (Dialect::OPENINFERENCE, ["metadata", "tag.tags"]),
            (Dialect::GEN_AI, ["metadata", "tag.tags"]),
            (
                Dialect::LANGSMITH,
                ["langsmith.metadata.step", "langsmith.span.tags"],
            ),
            (Dialect::MLFLOW, ["metadata", "tag.tags"]),
            (Dialect::TRACELOOP, ["metadata", "tag.tags"]),
            (Dialect::POSTHOG, ["metadata", "tag.tags"]),
            (Dialect::WEAVE, ["tag.tags", "wandb.attributes.step"]),
            (Dialect::MIRASCOPE, ["metadata", "mirascope.trace.tags"]),
            (Dialect::TRACECTRL, ["metadata", "tag.tags"]),
        ] {
            let span = exported(dialect.clone(), [metadata(), tags()]);
            let keys = span.attributes.iter().map(|it| it.key.as_str());
            let mut keys: Vec<_> = keys.collect();
            keys.sort_unstable();
            assert_eq!(keys, expected, "{dialect:?}");
        }
    }

    /// Constants of equal text may have one address, most of all where code is optimised.
    #[test]
    fn keys_with_the_same_text_are_distinguished() {
        const OF_CONST: &str = "metadata";
        static OF_STATIC: &str = "metadata";
        static BYTES: [u8; 8] = *b"metadata";
        static LONGER: &str = "metadata\u{0}";
        let keys: Vec<Key> = vec![
            Key::from_static_str("metadata"),
            Key::from_static_str(concat!("meta", "data")),
            Key::from_static_str(OF_CONST),
            Key::from_static_str(OF_STATIC),
            Key::from_static_str(std::str::from_utf8(&BYTES).unwrap()),
            Key::from_static_str(&LONGER[..8]),
            Key::from_static_str(&"metadata.step"[..8]),
            Key::from(Arc::<str>::from("metadata")),
            Key::from("metadata".to_owned()),
        ];
        for key in keys {
            let own = KeyValue::new(key.clone(), r#"{"step":2}"#);
            let line = line(&exported(Dialect::LANGFUSE, [own]));
            assert_eq!(line, format!("span {SPAN_METADATA}step=I64(2)"), "{key:?}");
        }
        // Through clones, and the processors and threads of the SDK.
        let span = exported(
            Dialect::LANGFUSE,
            details().attributes().collect::<Vec<_>>().clone(),
        );
        assert_eq!(values(&span, &format!("{TRACE_METADATA}plan")), ["pro"]);
        let exporter = InMemorySpanExporter::default();
        let wrapped = SessionExporter::new(exporter.clone()).with_dialect(Dialect::LANGFUSE);
        let provider = SdkTracerProvider::builder()
            .with_simple_exporter(InMemorySpanExporter::default())
            .with_batch_exporter(wrapped)
            .build();
        let tracer = SessionTracerProvider::new(provider.clone()).tracer("library");
        details().in_scope(|| tracer.start("span").end());
        provider.force_flush().unwrap();
        let span = &exporter.get_finished_spans().unwrap()[0];
        assert_eq!(values(span, &format!("{TRACE_METADATA}plan")), ["pro"]);
    }

    #[test]
    fn span_processor_maps_as_the_exporter_does() {
        if !crate::support::alone(test_name!(), &[]) {
            return;
        }
        let exporter = InMemorySpanExporter::default();
        let provider = SdkTracerProvider::builder()
            .with_span_processor(SessionSpanProcessor::new().with_dialect(Dialect::LANGFUSE))
            .with_simple_exporter(exporter.clone())
            .build();
        let tracer = provider.tracer("library");
        let own = [metadata(), KeyValue::new("session.id", "own")];
        let builder = tracer.span_builder("own").with_attributes(own);
        let session = details().with_user("u-7").unwrap();
        session.in_scope(|| tracer.build(builder).end());
        let span = &exporter.get_finished_spans().unwrap()[0];
        let keys = ["session.id", "langfuse.session.id", "langfuse.user.id"];
        assert_eq!(
            keys.map(|key| values(span, key)),
            [["own"], ["own"], ["u-7"]]
        );
        let keys = [SPAN_METADATA, TRACE_METADATA].map(|prefix| format!("{prefix}step"));
        assert_eq!(values(span, &keys[0]), ["2"]);
        assert_eq!(values(span, &keys[1]), [""; 0]);
    }
}

#[test]
fn own_id_of_openinference_is_exported_under_the_key_of_the_dialect() {
    let own = [
        KeyValue::new("session.id", "own"),
        KeyValue::new("user.id", "somebody"),
    ];
    let span = exported(Dialect::GEN_AI, own);
    // There is no key for a user, and the session would lose one.
    assert_eq!(
        line(&span),
        "span gen_ai.conversation.id=own user.id=somebody"
    );
    let empty_key = KeyValue::new("", "own");
    let span = exported(Dialect::GEN_AI, chat().attributes().chain([empty_key]));
    assert_eq!(line(&span), "span gen_ai.conversation.id=chat-42 =own");
}

#[test]
fn own_key_of_the_dialect_does_not_change_the_session() {
    let own = || KeyValue::new("gen_ai.conversation.id", "conv_1");
    let session = || Session::new("chat-42").unwrap().attributes();
    let both = Dialect::OPENINFERENCE.and(Dialect::GEN_AI);
    let span = exported(both.clone(), [own()].into_iter().chain(session()));
    assert_eq!(
        line(&span),
        "span gen_ai.conversation.id=conv_1 session.id=chat-42"
    );
    let span = exported(Dialect::GEN_AI, session().chain([own()]));
    assert_eq!(line(&span), "span gen_ai.conversation.id=conv_1");
    // Your own value is not lost.
    let span = exported(
        Dialect::GEN_AI,
        [own(), KeyValue::new("session.id", "mine")],
    );
    assert_eq!(
        line(&span),
        "span gen_ai.conversation.id=conv_1 session.id=mine"
    );
    // And through the provider.
    let app = App::with_dialect(both);
    let framework = info_span!("framework", gen_ai.conversation.id = "conv_1");
    Session::new("chat-42").unwrap().in_scope(|| {
        info_span!("agent").in_scope(|| drop(framework));
        let inside = info_span!("inside", gen_ai.conversation.id = "conv_2");
        inside.in_scope(|| info_span!("below").in_scope(|| {}));
    });
    app.exports(
        "
        framework gen_ai.conversation.id=conv_1
        agent session.id=chat-42 gen_ai.conversation.id=chat-42
        inside gen_ai.conversation.id=conv_2 session.id=chat-42
          below session.id=chat-42 gen_ai.conversation.id=chat-42
        ",
    );
}

#[test]
fn hashed_user_is_the_user() {
    let hashed = || KeyValue::new("user.hash", "5f1d");
    for (dialect, expected) in [
        (Dialect::OPENINFERENCE, "user.hash=5f1d"),
        (Dialect::LANGFUSE, "langfuse.user.id=5f1d"),
        (
            Dialect::OPENINFERENCE.and(Dialect::LANGFUSE),
            "user.hash=5f1d langfuse.user.id=5f1d",
        ),
        (Dialect::MLFLOW, "user.hash=5f1d"),
        (
            Dialect::POSTHOG,
            "posthog.distinct_id=5f1d posthogDistinctId=5f1d",
        ),
        (Dialect::GEN_AI, "user.hash=5f1d"),
    ] {
        let span = exported(dialect, [hashed()]);
        assert_eq!(line(&span), format!("span {expected}"));
    }
    // Your own, beside the user's id.
    let span = exported(Dialect::LANGFUSE, chat().attributes().chain([hashed()]));
    assert_eq!(
        line(&span),
        "span langfuse.session.id=chat-42 langfuse.user.id=u-7 user.hash=5f1d"
    );
}

#[cfg(feature = "hash")]
#[test]
fn user_that_the_provider_hashed_is_the_user() {
    use tracing_session::{Privacy, export::IdPolicy};

    let policy = IdPolicy::hashed("at least sixteen bytes").unwrap();
    for (dialect, keys, others) in [
        (
            Dialect::LANGFUSE,
            &["langfuse.user.id"][..],
            &["user.id", "user.hash"][..],
        ),
        (
            Dialect::OPENINFERENCE.and(Dialect::LANGFUSE),
            &["langfuse.user.id", "user.hash"],
            &["user.id"],
        ),
        // There is no key for a user.
        (Dialect::GEN_AI, &[], &["user.id", "user.hash"]),
    ] {
        let privacy = Privacy::new().with_user_ids(policy.clone());
        let app = App::exporting(
            |exporter| SessionExporter::new(exporter).with_dialect(dialect),
            |provider| provider.with_privacy(privacy),
        );
        chat().in_scope(|| info_span!("span").in_scope(|| {}));
        let span = app.span("span");
        for key in keys {
            assert_eq!(values(&span, key)[0].len(), 64, "{key}");
        }
        for key in others {
            assert_eq!(values(&span, key), [""; 0], "{key}");
        }
        assert!(!line(&span).contains("u-7"));
    }
}

#[test]
fn attribute_that_is_set_again_counts_with_its_last_value() {
    let own = [
        KeyValue::new("session.id", "first"),
        KeyValue::new("session.id", "last"),
    ];
    let span = exported(Dialect::GEN_AI, own);
    assert_eq!(line(&span), "span gen_ai.conversation.id=last");
}

#[test]
fn other_attributes_keep_their_order_type_and_value() {
    let others = [
        KeyValue::new("a", 1),
        KeyValue::new("metadata.step", 2.5),
        KeyValue::new("b", true),
        KeyValue::new("gen_ai.request.model", "m"),
        KeyValue::new("", "empty"),
        KeyValue::new("a", list(&["again"])),
        KeyValue::new("tags", "web"),
    ];
    let mut attributes = others.to_vec();
    attributes.splice(2..2, chat().attributes());
    attributes.splice(6..6, details().attributes());
    let exporter = InMemorySpanExporter::default();
    let wrapped = SessionExporter::new(exporter.clone()).with_dialect(Dialect::LANGFUSE);
    let provider = SdkTracerProvider::builder().with_simple_exporter(wrapped);
    let mut span = provider.build().tracer("library").start("span");
    attributes.into_iter().for_each(|it| span.set_attribute(it));
    let elsewhere = SpanContext::new(
        TraceId::from(7),
        SpanId::from(8),
        TraceFlags::SAMPLED,
        true,
        TraceState::NONE,
    );
    let ids: Vec<_> = chat().attributes().collect();
    span.add_event("event", ids.clone());
    span.add_link(elsewhere.clone(), ids.clone());
    span.end();
    let span = &exporter.get_finished_spans().unwrap()[0];
    let mut attributes = span.attributes.clone();
    for (at, key) in [
        (7, "langfuse.trace.tags"),
        (6, "langfuse.trace.metadata.plan"),
        (3, "langfuse.user.id"),
        (2, "langfuse.session.id"),
    ] {
        assert_eq!(attributes.remove(at).key.as_str(), key);
    }
    assert_eq!(attributes, others);
    assert_eq!(span.events[0].attributes, ids);
    assert_eq!(span.links[0], Link::new(elsewhere, ids, 0));
}

#[test]
fn attribute_of_the_session_is_exported_unchanged() {
    let session = chat().with_attribute("langfuse.user.id", "of the session");
    let session = session.and_then(|it| it.with_attribute("ring", 2)).unwrap();
    let span = exported(Dialect::LANGFUSE, session.attributes());
    assert_eq!(
        line(&span),
        "span langfuse.session.id=chat-42 langfuse.user.id=of the session ring=I64(2)"
    );
}

#[test]
fn metadata_that_cannot_be_split_is_not_lost() {
    let deep = format!(r#"{{"deep":{}{}}}"#, "[".repeat(200), "]".repeat(200));
    for own in ["text", "[1]", "{", "{}", r#"{"none":null}"#, &deep] {
        let attributes = [KeyValue::new("metadata", own.to_owned())];
        let span = exported(Dialect::LANGFUSE, attributes);
        assert_eq!(values(&span, "metadata"), [own]);
        assert_eq!(span.attributes.len(), 1);
    }
    let own = KeyValue::new("tag.tags", "text");
    let span = exported(Dialect::LANGFUSE.and(Dialect::LANGSMITH), [own]);
    assert_eq!(line(&span), "span tag.tags=text");
    // The session's.
    let mut value = serde_json::Value::from(1);
    for _ in 0..200 {
        value = serde_json::Value::Array(vec![value]);
    }
    let session = Session::default().with_metadata("deep", value).unwrap();
    let span = exported(Dialect::LANGFUSE, session.attributes());
    assert_eq!(values(&span, "metadata").len(), 1);
    let nothing = Session::default()
        .with_metadata("none", None::<u8>)
        .unwrap();
    let span = exported(Dialect::LANGFUSE, nothing.attributes());
    assert_eq!(span.attributes, []);
}

#[test]
fn numbers_are_exact() {
    for number in [
        0.9719863718547629,
        1.7976931348623157e308,
        5e-324,
        123456.78901234567,
    ] {
        let session = Session::default().with_metadata("n", number).unwrap();
        let span = exported(Dialect::LANGFUSE, session.attributes());
        assert_eq!(span.attributes[0].value, Value::F64(number));
    }
}

/// More than the exporter keeps, so that some are parsed again.
#[test]
fn sessions_that_take_turns_keep_their_metadata() {
    let exporter = InMemorySpanExporter::default();
    let dialect = Dialect::OPENINFERENCE.and(Dialect::LANGFUSE);
    let wrapped = SessionExporter::new(exporter.clone()).with_dialect(dialect);
    let provider = SdkTracerProvider::builder().with_simple_exporter(wrapped);
    let tracer = SessionTracerProvider::new(provider.build()).tracer("library");
    let sessions: Vec<_> = (0..400)
        .map(|n| Session::default().with_metadata("n", n).unwrap())
        .collect();
    for round in 1..=3 {
        for (n, session) in sessions.iter().enumerate().step_by(round) {
            session.in_scope(|| tracer.start("span").end());
            let span = &exporter.get_finished_spans().unwrap()[0];
            let expected = n.to_string();
            assert_eq!(values(span, "langfuse.trace.metadata.n"), [expected]);
            exporter.reset();
        }
    }
}

/// The SDK keeps 128 attributes of a span. Those of the dialect are added afterwards.
#[test]
fn span_with_more_attributes_than_the_sdk_allows() {
    let own = (0..127).map(|n| KeyValue::new(format!("own.{n}"), n));
    let attributes = own.chain(chat().attributes());
    let span = exported(Dialect::OPENINFERENCE.and(Dialect::LANGFUSE), attributes);
    assert_eq!(span.attributes.len(), 129);
    assert_eq!(span.dropped_attributes_count, 1);
    assert_eq!(values(&span, "own.126"), ["126"]);
    assert_eq!(values(&span, "session.id"), ["chat-42"]);
    assert_eq!(values(&span, "langfuse.session.id"), ["chat-42"]);
    assert_eq!(values(&span, "langfuse.user.id"), [""; 0]);
    let own = (0..200).map(|n| KeyValue::new(format!("own.{n}"), n));
    let attributes = chat().attributes().chain(own);
    let span = exported(Dialect::LANGFUSE, attributes);
    assert_eq!(span.attributes.len(), 128);
    assert_eq!(span.dropped_attributes_count, 74);
    assert_eq!(values(&span, "langfuse.user.id"), ["u-7"]);
}

mod plain {
    use super::*;

    fn with_plain(attributes: impl IntoIterator<Item = KeyValue>) -> Vec<KeyValue> {
        let plain = [KeyValue::new("session", "tls"), KeyValue::new("user", 7)];
        plain.into_iter().chain(attributes).collect()
    }

    #[test]
    fn attributes_beside_an_id_are_renamed_in_place() {
        let span = |attributes| line(&exported(Dialect::OPENINFERENCE, with_plain(attributes)));
        let id = |key: &'static str| vec![KeyValue::new(key, "own")];
        for key in ["session.id", "user.id", "user.hash"] {
            let expected = format!("span session.name=tls user.name=I64(7) {key}=own");
            assert_eq!(span(id(key)), expected);
        }
        assert_eq!(span(Vec::new()), "span session=tls user=I64(7)");
        assert_eq!(
            span([id("session.id"), id("user.name")].concat()),
            "span session.name=tls user=I64(7) session.id=own user.name=own"
        );
    }

    #[test]
    fn attributes_keep_their_names_if_renaming_is_off() {
        let span = exported_with(
            |it| it.without_renaming_plain_attributes(),
            with_plain(chat().attributes()),
        );
        assert_eq!(
            line(&span),
            "span session=tls user=I64(7) session.id=chat-42 user.id=u-7"
        );
    }
}

/// Writes down how it is called.
#[derive(Clone, Debug, Default)]
struct Calls(Arc<Mutex<Vec<String>>>);

impl Calls {
    fn add(&self, call: impl Into<String>) {
        self.0.lock().unwrap().push(call.into());
    }
}

impl SpanExporter for Calls {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.add(format!("export {}", batch.len()));
        Err(OTelSdkError::InternalFailure("full".to_owned()))
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.add(format!("shutdown {timeout:?}"));
        Err(OTelSdkError::Timeout(timeout))
    }

    fn shutdown(&self) -> OTelSdkResult {
        self.add("shutdown");
        Ok(())
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.add("flush");
        Err(OTelSdkError::AlreadyShutdown)
    }

    fn set_resource(&mut self, resource: &Resource) {
        let name = resource.get(&Key::new("service.name"));
        self.add(format!("resource {}", name.unwrap()));
    }
}

#[test]
fn every_call_is_forwarded() {
    let calls = Calls::default();
    let mut exporter = SessionExporter::new(calls.clone()).with_dialect(Dialect::GEN_AI);
    let resource = Resource::builder_empty().with_service_name("app").build();
    exporter.set_resource(&resource);
    let export = futures_util::FutureExt::now_or_never(exporter.export(Vec::new()));
    assert!(matches!(
        export,
        Some(Err(OTelSdkError::InternalFailure(_)))
    ));
    assert!(matches!(
        exporter.force_flush(),
        Err(OTelSdkError::AlreadyShutdown)
    ));
    let second = Duration::from_secs(1);
    assert!(matches!(
        exporter.shutdown_with_timeout(second),
        Err(OTelSdkError::Timeout(_))
    ));
    exporter.shutdown().unwrap();
    assert_eq!(
        *calls.0.lock().unwrap(),
        [
            "resource app",
            "export 0",
            "flush",
            "shutdown 1s",
            "shutdown"
        ]
    );
}

#[test]
fn debug_output_has_no_metadata() {
    let exporter = InMemorySpanExporter::default();
    let wrapped = SessionExporter::new(exporter).with_dialect(Dialect::LANGFUSE);
    let provider = SdkTracerProvider::builder().with_simple_exporter(wrapped);
    let provider = provider.build();
    let mut span = provider.tracer("library").start("span");
    span.set_attribute(KeyValue::new(
        "metadata",
        r#"{"email":"alice@example.com"}"#,
    ));
    span.end();
    let text = format!("{provider:?}");
    assert!(text.contains("langfuse.trace.metadata."), "{text}");
    let of_exporter = text.split("SessionExporter").nth(1).unwrap();
    let (_, of_translator) = of_exporter.split_once("translator").unwrap();
    assert!(!of_translator.contains("alice"), "{of_translator}");
}
