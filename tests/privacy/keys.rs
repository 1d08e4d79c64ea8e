//! Redaction by key: before samplers, processors and exporters receive an attribute.

use crate::privacy::{
    CHAT, CHAT_HASH, EMAIL, EMAIL_HASH, KEY, NUMBER, NUMBER_HASH, USER, USER_HASH, both,
    conversation, hashed,
};
use crate::support::values;
use opentelemetry::trace::{
    Event, Link, Span as _, SpanBuilder, SpanContext, SpanId, SpanKind, TraceFlags, TraceId,
    TraceState, Tracer, TracerProvider,
};
use opentelemetry::{Array, Context, KeyValue, Value};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    InMemorySpanExporter, Sampler, SamplingResult, SdkTracerProvider, ShouldSample, Span, SpanData,
    SpanProcessor,
};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};
use tracing::{Dispatch, info, info_span, instrument};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_session::{
    Dialect, Privacy, Session, SessionLayer, SessionTracerProvider, export::IdPolicy,
    tracer::SessionTracer,
};
use tracing_subscriber::prelude::*;

type Provider = SessionTracerProvider<SdkTracerProvider>;

fn provider(privacy: Privacy) -> (Provider, InMemorySpanExporter) {
    let exporter = InMemorySpanExporter::default();
    let sdk = SdkTracerProvider::builder().with_simple_exporter(exporter.clone());
    let provider = SessionTracerProvider::new(sdk.build()).with_privacy(privacy);
    (provider, exporter)
}

/// The spans that `work` makes with OpenTelemetry's API alone.
fn api(
    privacy: Privacy,
    work: impl FnOnce(&SessionTracer<opentelemetry_sdk::trace::SdkTracer>),
) -> Vec<SpanData> {
    let (provider, exporter) = provider(privacy);
    work(&provider.tracer("library"));
    exporter.get_finished_spans().unwrap()
}

/// The spans that `work` makes with `tracing`.
fn traced(privacy: Privacy, layer: SessionLayer, work: impl FnOnce()) -> Vec<SpanData> {
    let (provider, exporter) = provider(privacy);
    let otel = tracing_opentelemetry::layer().with_tracer(provider.tracer("app"));
    let subscriber = tracing_subscriber::registry().with(layer.wrap(otel));
    tracing::dispatcher::with_default(&Dispatch::new(subscriber), work);
    exporter.get_finished_spans().unwrap()
}

/// The same without a `SessionLayer`, so that no span opens a scope.
fn traced_without_layer(privacy: Privacy, work: impl FnOnce()) -> Vec<SpanData> {
    let (provider, exporter) = provider(privacy);
    let otel = tracing_opentelemetry::layer().with_tracer(provider.tracer("app"));
    let subscriber = tracing_subscriber::registry().with(otel);
    tracing::dispatcher::with_default(&Dispatch::new(subscriber), work);
    exporter.get_finished_spans().unwrap()
}

fn no_layer_opens() -> SessionLayer {
    SessionLayer::new().without_default_names()
}

fn ids() -> Vec<KeyValue> {
    vec![
        KeyValue::new("session.id", CHAT),
        KeyValue::new("user.id", USER),
        KeyValue::new("langfuse.user.id", USER),
        KeyValue::new("metadata.email", EMAIL),
    ]
}

fn hashed_ids() -> [(&'static str, &'static str); 4] {
    [
        ("session.id", CHAT_HASH),
        ("user.hash", USER_HASH),
        ("langfuse.user.id", USER_HASH),
        ("metadata.email", EMAIL_HASH),
    ]
}

fn texts(attributes: &[KeyValue]) -> Vec<(String, String)> {
    let text = |it: &KeyValue| (it.key.to_string(), it.value.to_string());
    attributes.iter().map(text).collect()
}

fn sorted(attributes: &[KeyValue]) -> Vec<(String, String)> {
    let mut texts = texts(attributes);
    texts.sort();
    texts
}

fn expected(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut expected: Vec<_> = pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    expected.sort();
    expected
}

#[track_caller]
fn leaks_nothing(seen: &impl std::fmt::Debug) {
    let seen = format!("{seen:?}");
    for id in [USER, CHAT, EMAIL] {
        assert!(!seen.contains(id), "{seen}");
    }
}

/// Keeps what samplers and span processors receive.
#[derive(Clone, Debug, Default)]
struct Witness {
    sampler: Arc<Mutex<Vec<KeyValue>>>,
    on_start: Arc<Mutex<Vec<KeyValue>>>,
    on_end: Arc<Mutex<Vec<KeyValue>>>,
}

impl ShouldSample for Witness {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let mut seen = self.sampler.lock().unwrap();
        seen.extend_from_slice(attributes);
        seen.extend(links.iter().flat_map(|link| link.attributes.clone()));
        Sampler::AlwaysOn.should_sample(parent, trace, name, kind, attributes, links)
    }
}

impl SpanProcessor for Witness {
    fn on_start(&self, span: &mut Span, _: &Context) {
        let data = span.exported_data().unwrap();
        let mut seen = self.on_start.lock().unwrap();
        seen.extend(data.attributes);
        seen.extend(data.events.events.into_iter().flat_map(|it| it.attributes));
        seen.extend(data.links.links.into_iter().flat_map(|it| it.attributes));
    }

    fn on_end(&self, span: SpanData) {
        self.on_end.lock().unwrap().extend(span.attributes);
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

fn link() -> Link {
    let span = SpanContext::new(
        TraceId::from(1),
        SpanId::from(1),
        TraceFlags::SAMPLED,
        false,
        TraceState::default(),
    );
    Link::new(span, ids(), 0)
}

fn builder_with_all() -> SpanBuilder {
    let event = Event::new("event", SystemTime::now(), ids(), 0);
    SpanBuilder::from_name("span")
        .with_attributes([
            KeyValue::new("plan", "pro"),
            KeyValue::new("enduser.id", USER),
        ])
        .with_events(vec![event])
        .with_links(vec![link()])
}

#[test]
fn samplers_and_processors_receive_redacted_values_from_the_start() {
    let witness = Witness::default();
    let sdk = SdkTracerProvider::builder()
        .with_sampler(witness.clone())
        .with_span_processor(witness.clone());
    let provider = SessionTracerProvider::new(sdk.build()).with_privacy(both(hashed()));
    let tracer = provider.tracer("library");
    tracer.build(builder_with_all()).end();
    let start = expected(
        &[
            &[("plan", "pro"), ("enduser.id", USER_HASH)][..],
            &hashed_ids(),
        ]
        .concat(),
    );
    assert_eq!(sorted(&witness.sampler.lock().unwrap()), start);
    let on_start = expected(
        &[
            &[("plan", "pro"), ("enduser.id", USER_HASH)][..],
            &hashed_ids(),
            &hashed_ids(),
        ]
        .concat(),
    );
    assert_eq!(sorted(&witness.on_start.lock().unwrap()), on_start);
    let attributes = witness.on_end.lock().unwrap().clone();
    assert_eq!(
        sorted(&attributes),
        expected(&[("plan", "pro"), ("enduser.id", USER_HASH)])
    );
}

#[test]
fn samplers_receive_the_redacted_fields_of_tracing_spans() {
    let witness = Witness::default();
    let sdk = SdkTracerProvider::builder()
        .with_sampler(witness.clone())
        .with_span_processor(witness.clone());
    let provider = SessionTracerProvider::new(sdk.build()).with_privacy(both(hashed()));
    let otel = tracing_opentelemetry::layer().with_tracer(provider.tracer("app"));
    let subscriber = tracing_subscriber::registry().with(SessionLayer::new().wrap(otel));
    tracing::dispatcher::with_default(&Dispatch::new(subscriber), || {
        let span = info_span!("span", who = USER, chat = ?CHAT, metadata.email = EMAIL);
        span.in_scope(|| info!(who = USER, "event"));
        info_span!("request", user.id = USER, session.id = CHAT, who = USER).in_scope(|| {});
    });
    leaks_nothing(&witness);
    for seen in [&witness.sampler, &witness.on_start] {
        let seen = texts(&seen.lock().unwrap());
        for (key, hash) in [("who", USER_HASH), ("chat", CHAT_HASH)] {
            assert!(seen.contains(&(key.into(), hash.into())), "{key}: {seen:?}");
        }
    }
}

#[test]
fn attributes_of_events_and_links_are_redacted() {
    let spans = api(both(hashed()), |tracer| {
        let mut span = tracer.build(builder_with_all());
        span.add_event("later", ids());
        span.add_event_with_timestamp("later", SystemTime::now(), ids());
        let linked = link();
        span.add_link(linked.span_context, ids());
        span.end();
    });
    leaks_nothing(&spans);
    let events = &spans[0].events.events;
    let links = &spans[0].links.links;
    assert_eq!((events.len(), links.len()), (3, 2));
    let events = events.iter().map(|event| &event.attributes);
    for attributes in events.chain(links.iter().map(|link| &link.attributes)) {
        let in_order = texts(attributes);
        let expected = hashed_ids().map(|(key, hash)| (key.to_owned(), hash.to_owned()));
        assert_eq!(in_order, expected);
    }
    let spans = api(both(IdPolicy::omitted()), |tracer| {
        let mut span = tracer.build(builder_with_all());
        span.add_event("later", ids());
        span.end();
    });
    assert!(
        spans[0]
            .events
            .iter()
            .all(|event| event.attributes.is_empty())
    );
    assert!(spans[0].links.iter().all(|link| link.attributes.is_empty()));
}

#[test]
fn fields_of_events_are_redacted_before_and_after_the_start() {
    let spans = traced(both(hashed()), SessionLayer::new(), || {
        let span = info_span!("span");
        // The span has not been entered: the event is in the builder.
        info!(parent: &span, user.id = USER, "early");
        span.in_scope(|| info!(user.id = %USER, session.id = ?CHAT, "late"));
    });
    leaks_nothing(&spans);
    let events = &spans[0].events.events;
    assert_eq!(events.len(), 2);
    for event in events {
        assert!(texts(&event.attributes).contains(&("user.hash".into(), USER_HASH.into())));
    }
}

#[test]
fn keys_of_every_dialect_are_redacted_in_a_builder_and_later() {
    // Another test's dialect would register the keys for the whole process.
    if !crate::support::alone(test_name!(), &[]) {
        return;
    }
    let of_user = [
        "user.id",
        "langfuse.user.id",
        "langsmith.metadata.user_id",
        "traceloop.association.properties.user_id",
        "posthog.distinct_id",
        "posthogDistinctId",
    ];
    let of_session = [
        "session.id",
        "session.previous_id",
        "gen_ai.conversation.id",
        "langfuse.session.id",
        "langsmith.metadata.thread_id",
        "traceloop.association.properties.session_id",
        "$ai_session_id",
        "sessionId",
        "wandb.thread_id",
        "weave.conversation.id",
        "mirascope.ops.session.id",
        "tracectrl.session_id",
    ];
    let users = of_user.map(|key| (key, USER, USER_HASH));
    let sessions = of_session.map(|key| (key, CHAT, CHAT_HASH));
    for (key, id, hash) in users.into_iter().chain(sessions) {
        let make = |privacy| {
            api(privacy, |tracer| {
                let builder = tracer.span_builder("builder");
                let own = [KeyValue::new(key, id)];
                tracer.build(builder.with_attributes(own)).end();
                let mut span = tracer.start("later");
                span.set_attribute(KeyValue::new(key, id));
                span.end();
            })
        };
        let exported = if key == "user.id" { "user.hash" } else { key };
        for span in make(both(hashed())) {
            assert_eq!(texts(&span.attributes), expected(&[(exported, hash)]));
        }
        for span in make(both(IdPolicy::omitted())) {
            assert_eq!(texts(&span.attributes), [], "{key}");
        }
        // Each kind of id by its own policy.
        let users_alone = make(Privacy::new().with_user_ids(IdPolicy::omitted()));
        let stays = of_session.contains(&key);
        assert_eq!(!users_alone[1].attributes.is_empty(), stays, "{key}");
    }
}

#[test]
fn keys_of_metadata_are_redacted_in_every_dialect() {
    let keys = [
        "metadata.email",
        "langfuse.trace.metadata.email",
        "langsmith.metadata.email",
        "mlflow.traceTag.email",
        "traceloop.association.properties.email",
        "wandb.attributes.email",
    ];
    let privacy = || Privacy::new().with_metadata(["email"], hashed());
    for key in keys {
        let spans = api(privacy(), |tracer| {
            let mut span = tracer.start("span");
            span.set_attribute(KeyValue::new(key, EMAIL));
            span.end();
        });
        // Metadata may be joined to one object: the hash is there all the same.
        leaks_nothing(&spans);
        assert!(
            format!("{spans:?}").contains(EMAIL_HASH),
            "{key}: {spans:?}"
        );
    }
    for key in ["metadata", "mirascope.ops.session.attributes"] {
        let json = format!(r#"{{"zone":"eu","email":"{EMAIL}","age":7}}"#);
        for json in [json.clone(), format!("{json:?}")] {
            let spans = api(privacy(), |tracer| {
                let mut span = tracer.start("span");
                span.set_attribute(KeyValue::new(key, json));
                span.end();
            });
            let expected = format!(r#"{{"zone":"eu","email":"{EMAIL_HASH}","age":7}}"#);
            assert_eq!(values(&spans[0], key), [expected]);
        }
    }
}

#[test]
fn metadata_that_is_not_a_valid_object_is_omitted() {
    let deep = format!(
        r#"{{"email":"{EMAIL}","deep":{}{}}}"#,
        "[".repeat(200),
        "]".repeat(200)
    );
    let broken = format!(r#"{{"email":"{EMAIL}""#);
    for json in [deep, broken] {
        let privacy = Privacy::new().with_metadata(["email"], hashed());
        let spans = api(privacy, |tracer| {
            let mut span = tracer.start("span");
            span.set_attribute(KeyValue::new("metadata", json));
            span.set_attribute(KeyValue::new(
                "mirascope.ops.session.attributes",
                "no object",
            ));
            span.end();
        });
        leaks_nothing(&spans);
        let left = [("mirascope.ops.session.attributes", "no object")];
        assert_eq!(sorted(&spans[0].attributes), expected(&left));
    }
}

#[test]
fn fields_configured_on_a_layer_are_redacted_on_every_span() {
    let (provider, exporter) = provider(both(hashed()));
    // The provider is there already.
    let _layer = SessionLayer::new()
        .with_session_field("keys_test_conversation")
        .with_user_field("keys_test_customer");
    let mut span = provider.tracer("library").start("span");
    span.set_attribute(KeyValue::new("keys_test_customer", USER));
    span.set_attribute(KeyValue::new("keys_test_conversation", CHAT));
    span.end();
    let spans = exporter.get_finished_spans().unwrap();
    let expected = expected(&[
        ("keys_test_conversation", CHAT_HASH),
        ("keys_test_customer", USER_HASH),
    ]);
    assert_eq!(sorted(&spans[0].attributes), expected);
    // A field for which the policy is plain stays.
    let spans = api(Privacy::new().with_session_ids(hashed()), |tracer| {
        let mut span = tracer.start("span");
        span.set_attribute(KeyValue::new("keys_test_customer", USER));
        span.end();
    });
    assert_eq!(values(&spans[0], "keys_test_customer"), [USER]);
}

#[test]
fn keys_of_a_custom_dialect_are_redacted() {
    let _dialect = Dialect::new()
        .with_session_key("keys.test.thread")
        .with_user_key("keys.test.person");
    let spans = api(both(hashed()), |tracer| {
        let mut span = tracer.start("span");
        span.set_attribute(KeyValue::new("keys.test.thread", CHAT));
        span.set_attribute(KeyValue::new("keys.test.person", USER));
        span.end();
    });
    leaks_nothing(&spans);
    assert_eq!(values(&spans[0], "keys.test.person"), [USER_HASH]);
}

#[instrument]
fn user(id: i64) {
    info!("a look-up, not a login");
}

#[test]
fn id_is_redacted_on_spans_named_session_or_user_that_open_nothing() {
    let work = || {
        user(NUMBER);
        info_span!("session", id = CHAT).in_scope(|| {});
        info_span!("session", otel.name = "renamed", id = CHAT).in_scope(|| {});
        let later = info_span!("user", id = tracing::field::Empty);
        later.in_scope(|| {
            later.record("id", USER);
        });
        drop(later);
        info_span!("order", id = 7).in_scope(|| {});
    };
    for spans in [
        traced(both(hashed()), no_layer_opens(), work),
        traced_without_layer(both(hashed()), work),
    ] {
        leaks_nothing(&spans);
        let found: Vec<_> = spans.iter().flat_map(|span| values(span, "id")).collect();
        assert_eq!(found, [NUMBER_HASH, CHAT_HASH, CHAT_HASH, USER_HASH, "7"]);
    }
    let omitted = traced(both(IdPolicy::omitted()), no_layer_opens(), work);
    let found: Vec<_> = omitted.iter().flat_map(|span| values(span, "id")).collect();
    assert_eq!(found, ["7"]);
    // Each kind of id by its own policy.
    let users = Privacy::new().with_user_ids(hashed());
    let users = traced(users, no_layer_opens(), work);
    let found: Vec<_> = users.iter().flat_map(|span| values(span, "id")).collect();
    assert_eq!(found[..4], [NUMBER_HASH, CHAT, CHAT, USER_HASH]);
}

#[test]
fn id_is_redacted_on_plain_spans_and_on_names_configured_on_a_layer() {
    let _layer = SessionLayer::new().with_user_span("keys_test_login");
    for (name, id, hash) in [
        ("session", CHAT, CHAT_HASH),
        ("user", USER, USER_HASH),
        ("keys_test_login", USER, USER_HASH),
        ("order", "7", "7"),
    ] {
        let spans = api(both(hashed()), |tracer| {
            let builder = tracer.span_builder(name);
            let own = [KeyValue::new("id", id)];
            tracer.build(builder.with_attributes(own.clone())).end();
            tracer
                .build(SpanBuilder::from_name(name).with_attributes(own.clone()))
                .end();
            let mut span = tracer.start(name);
            span.set_attribute(own[0].clone());
            span.end();
        });
        assert_eq!(spans.len(), 3);
        for span in spans {
            assert_eq!(texts(&span.attributes), expected(&[("id", hash)]), "{name}");
        }
    }
}

fn hash_of(id: &str) -> String {
    let spans = api(both(hashed()), |tracer| {
        let session = Session::new(id).unwrap();
        session.in_scope(|| tracer.start("span").end());
    });
    values(&spans[0], "session.id").concat()
}

#[test]
fn values_of_every_type_are_redacted_as_their_text() {
    let cases: &[(Value, Option<String>)] = &[
        (Value::I64(42), Some(hash_of("42"))),
        (Value::F64(1.5), Some(hash_of("1.5"))),
        (Value::Bool(true), Some(hash_of("true"))),
        (format!("{USER:?}").into(), Some(USER_HASH.into())),
        (format!(" {USER}\t").into(), Some(USER_HASH.into())),
        (format!("\" {USER}\"").into(), Some(USER_HASH.into())),
        (Value::Array(Array::String(vec![USER.into()])), None),
        (Value::Array(Array::I64(vec![42])), None),
    ];
    for key in [
        "langfuse.user.id",
        "enduser.id",
        "user.id",
        "metadata.email",
    ] {
        for (value, hash) in cases {
            let is_padded = value.as_str() != value.as_str().trim() || value.as_str().contains(" ");
            if key == "metadata.email" && is_padded {
                // Metadata keeps its spaces, so that its hash does not depend on how it was set.
                continue;
            }
            let spans = api(both(hashed()), |tracer| {
                let mut span = tracer.start("span");
                span.set_attribute(KeyValue::new(key, value.clone()));
                span.end();
            });
            leaks_nothing(&spans);
            let found: Vec<_> = spans[0]
                .attributes
                .iter()
                .map(|it| it.value.as_str())
                .collect();
            let found = found.concat();
            match hash {
                Some(hash) => assert!(found.contains(hash), "{key} {value:?}: {spans:?}"),
                None => assert_eq!(found, "", "{key} {value:?}"),
            }
        }
    }
}

#[test]
fn invalid_ids_are_redacted_too() {
    let long = USER.repeat(200);
    for (key, value) in [
        ("langfuse.user.id", long.clone()),
        ("langfuse.user.id", format!("{USER}\n{CHAT}")),
        ("user.id", long),
        ("session.id", format!("{CHAT}\u{7}")),
    ] {
        for policy in [hashed(), IdPolicy::omitted()] {
            let spans = api(both(policy), |tracer| {
                let builder = tracer.span_builder("span");
                let own = KeyValue::new(key, value.clone());
                let mut span = tracer.build(builder.with_attributes([own.clone()]));
                span.set_attribute(own);
                span.end();
            });
            leaks_nothing(&spans);
        }
    }
}

#[test]
fn invalid_id_is_replaced_with_the_inherited_one() {
    for invalid in [
        format!("{USER}\n"),
        "\u{7}".into(),
        " ".into(),
        USER.repeat(200),
    ] {
        let spans = api(both(hashed()), |tracer| {
            conversation().in_scope(|| {
                let builder = tracer.span_builder("builder");
                let own = KeyValue::new("user.id", format!("a{invalid}\u{7}b"));
                tracer.build(builder.with_attributes([own.clone()])).end();
                let mut span = tracer.start("later");
                span.set_attribute(own);
                span.end();
            });
        });
        for span in spans {
            assert_eq!(values(&span, "user.hash"), [USER_HASH]);
        }
    }
}

#[test]
fn every_exporter_of_a_provider_receives_redacted_values() {
    let exporters = [
        InMemorySpanExporter::default(),
        InMemorySpanExporter::default(),
    ];
    let sdk = SdkTracerProvider::builder()
        .with_simple_exporter(exporters[0].clone())
        .with_batch_exporter(exporters[1].clone());
    let provider = SessionTracerProvider::new(sdk.build()).with_privacy(both(hashed()));
    let tracer = provider.tracer("library");
    conversation().in_scope(|| {
        let mut span = tracer.build(builder_with_all());
        span.set_attribute(KeyValue::new("langfuse.session.id", CHAT));
        span.end();
    });
    provider.force_flush().unwrap();
    for exporter in exporters {
        let spans = exporter.get_finished_spans().unwrap();
        leaks_nothing(&spans);
        assert_eq!(values(&spans[0], "user.hash"), [USER_HASH]);
        assert_eq!(values(&spans[0], "langfuse.session.id"), [CHAT_HASH]);
    }
}

#[test]
fn providers_with_two_keys_share_no_hash() {
    let other = || IdPolicy::hashed("another key, as long as that").unwrap();
    let session = conversation().with_metadata("email", EMAIL).unwrap();
    let seen = |one: &IdPolicy, two: &IdPolicy, session: &Session| {
        let providers = [one, two].map(|policy| provider(both(policy.clone())));
        session.in_scope(|| {
            for _ in 0..3 {
                for (provider, _) in &providers {
                    provider.tracer("library").start("span").end();
                }
            }
        });
        providers.map(|(_, exporter)| {
            let spans = exporter.get_finished_spans().unwrap();
            leaks_nothing(&spans);
            let mut each: Vec<_> = spans.iter().map(|it| sorted(&it.attributes)).collect();
            each.dedup();
            assert_eq!(each.len(), 1, "{each:?}");
            each.remove(0)
        })
    };
    let ours = [
        ("metadata", &*format!(r#"{{"email":"{EMAIL_HASH}"}}"#)),
        ("session.id", CHAT_HASH),
        ("user.hash", USER_HASH),
    ];
    // The same session value, then a new one with the other key first.
    let [one, two] = seen(&hashed(), &other(), &session);
    assert_eq!(one, expected(&ours));
    let again = conversation().with_metadata("email", EMAIL).unwrap();
    let [two_first, one_last] = seen(&other(), &hashed(), &again);
    assert_eq!(one_last, expected(&ours));
    assert_eq!(two, two_first);
    for (pair, other) in one.iter().zip(&two) {
        assert_ne!(pair, other);
    }
    // The key that the session remembers is gone, and another may get its memory.
    for round in 0..50 {
        let key = format!("{round}, a key that is long enough");
        let fresh = provider(Privacy::new().with_user_ids(IdPolicy::hashed(&key).unwrap()));
        let same = provider(Privacy::new().with_user_ids(IdPolicy::hashed(&key).unwrap()));
        let other_session = conversation();
        again.in_scope(|| fresh.0.tracer("library").start("span").end());
        other_session.in_scope(|| same.0.tracer("library").start("span").end());
        let hashes = [fresh.1, same.1].map(|exporter| {
            let spans = exporter.get_finished_spans().unwrap();
            values(&spans[0], "user.hash")
        });
        assert_eq!(hashes[0], hashes[1]);
    }
    assert!(IdPolicy::hashed(KEY).is_ok());
}

#[test]
fn keys_that_the_application_adds_are_redacted() {
    let privacy = Privacy::new()
        .with_session_key("acme.thread")
        .with_user_key("acme.customer")
        .with_user_ids(hashed())
        .with_session_ids(IdPolicy::omitted());
    let spans = api(privacy, |tracer| {
        let mut span = tracer.start("span");
        span.set_attribute(KeyValue::new("acme.thread", CHAT));
        span.set_attribute(KeyValue::new("acme.customer", USER));
        span.set_attribute(KeyValue::new("acme.customers", "stays"));
        span.end();
    });
    let expected = expected(&[("acme.customer", USER_HASH), ("acme.customers", "stays")]);
    assert_eq!(sorted(&spans[0].attributes), expected);
}

#[test]
fn text_under_another_key_and_longer_text_is_not_redacted() {
    let spans = api(Privacy::new().with_user_ids(hashed()), |tracer| {
        conversation().in_scope(|| {
            let mut span = tracer.start(USER);
            span.set_attribute(KeyValue::new("note", USER));
            span.set_attribute(KeyValue::new("prompt", format!("I am {USER}")));
            span.end();
        });
    });
    assert_eq!(values(&spans[0], "note"), [USER]);
    assert_eq!(values(&spans[0], "prompt"), [format!("I am {USER}")]);
    assert_eq!(spans[0].name, USER);
}

#[test]
fn other_attributes_keep_their_order_and_type() {
    let own = || {
        vec![
            KeyValue::new("a", 1),
            KeyValue::new("enduser.id", USER),
            KeyValue::new("b", 2.5),
            KeyValue::new("note", "text"),
            KeyValue::new("langfuse.session.id", CHAT),
            KeyValue::new("c", true),
            KeyValue::new("d", Value::Array(Array::I64(vec![1, 2]))),
            KeyValue::new("thread.id", 7),
        ]
    };
    let spans = |privacy| {
        api(privacy, |tracer| {
            let builder = tracer.span_builder("span").with_attributes(own());
            tracer.build(builder).end();
            let mut span = tracer.start("span");
            span.set_attributes(own());
            span.end();
        })
    };
    let redacted = |hash: &dyn Fn(&str) -> Option<&'static str>| {
        let mut own = own();
        own.retain_mut(|it| match it.key.as_str() {
            "enduser.id" | "langfuse.session.id" => match hash(&it.value.as_str()) {
                Some(hash) => {
                    it.value = hash.into();
                    true
                }
                None => false,
            },
            _ => true,
        });
        own
    };
    let hash = |id: &str| Some(if id == USER { USER_HASH } else { CHAT_HASH });
    for span in spans(both(hashed())) {
        assert_eq!(span.attributes, redacted(&hash));
    }
    for span in spans(both(IdPolicy::omitted())) {
        assert_eq!(span.attributes, redacted(&|_| None));
    }
    for span in spans(Privacy::new()) {
        assert_eq!(span.attributes, own());
    }
}

#[test]
fn more_attributes_than_the_limit_are_redacted() {
    // The SDK keeps the first 128.
    let filler = |number: usize| KeyValue::new(format!("filler-{number}"), 1);
    let spans = api(both(hashed()), |tracer| {
        let mut own: Vec<_> = (0..126).map(filler).collect();
        own.insert(0, KeyValue::new("enduser.id", USER));
        own.push(KeyValue::new("langfuse.session.id", CHAT));
        own.push(KeyValue::new("langfuse.user.id", USER));
        tracer
            .build(tracer.span_builder("builder").with_attributes(own.clone()))
            .end();
        let mut span = tracer.start("later");
        span.set_attributes(own);
        span.end();
    });
    for span in spans {
        leaks_nothing(&span);
        assert_eq!(span.attributes.len(), 128);
        assert_eq!(span.dropped_attributes_count, 1);
        assert_eq!(span.attributes[0], KeyValue::new("enduser.id", USER_HASH));
        assert_eq!(
            span.attributes[127],
            KeyValue::new("langfuse.session.id", CHAT_HASH)
        );
    }
}

#[test]
fn attributes_set_on_a_span_before_it_starts_are_redacted() {
    let spans = traced(both(hashed()), SessionLayer::new(), || {
        let span = info_span!("span");
        span.set_attribute("enduser.id", USER);
        span.add_event("event", ids());
        span.add_link_with_attributes(link().span_context, ids());
        span.in_scope(|| {});
        span.set_attribute("langfuse.user.id", USER);
    });
    leaks_nothing(&spans);
    assert_eq!(values(&spans[0], "enduser.id"), [USER_HASH]);
    assert_eq!(values(&spans[0], "langfuse.user.id"), [USER_HASH]);
}
