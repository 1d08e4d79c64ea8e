//! What is logged.

use crate::privacy::{
    CHAT, CHAT_HASH, EMAIL, EMAIL_HASH, Receiver, USER, USER_HASH, both, conversation, hashed,
};
use crate::support::Printed;
use opentelemetry::logs::{LogRecord, Logger, LoggerProvider};
use opentelemetry::trace::TracerProvider;
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_otlp::{LogExporter, Protocol, WithExportConfig};
use opentelemetry_sdk::logs::{InMemoryLogExporter, SdkLoggerProvider};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};
use tracing::{Level, info, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_session::fmt::with_session;
use tracing_session::{
    Conversation, Dialect, Privacy, Session, SessionLayer, SessionTracerProvider, export::IdPolicy,
    processors::SessionLogProcessor, session, set_session_id, set_user_id,
};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::{fmt, prelude::*};

#[test]
fn no_id_is_in_logs_without_a_field_for_it() {
    let exporter = InMemoryLogExporter::default();
    let logs = SdkLoggerProvider::builder()
        .with_log_processor(SessionLogProcessor::new().with_privacy(both(hashed())))
        .with_simple_exporter(exporter.clone())
        .build();
    let spans = SdkTracerProvider::builder().with_simple_exporter(InMemorySpanExporter::default());
    let provider = SessionTracerProvider::new(spans.build()).with_privacy(both(hashed()));
    let otel = tracing_opentelemetry::layer().with_tracer(provider.tracer("app"));
    let subscriber = tracing_subscriber::registry()
        .with(SessionLayer::new().wrap(otel))
        .with(OpenTelemetryTracingBridge::new(&logs));
    tracing::subscriber::with_default(subscriber, || {
        session!(conversation()).in_scope(|| tracing::info!("in the session"));
        conversation().in_scope(|| tracing::info!("in the value"));
        // What is said of mistakes is a log too.
        let wrong = format!("{USER}\n{CHAT}");
        info_span!("request", user.id = %wrong).in_scope(|| {});
        let span = info_span!("span");
        span.set_attribute("user.id", wrong);
        span.in_scope(|| {});
        drop(span);
        info_span!("at last").in_scope(|| {});
    });
    let logs = format!("{:?}", exporter.get_emitted_logs().unwrap());
    assert!(logs.contains("in the session") && logs.contains("in the value"));
    assert!(
        logs.contains("is ignored: id contains a control or invisible character: remove it"),
        "{logs}"
    );
    assert!(!logs.contains(USER) && !logs.contains(CHAT), "{logs}");
    // The session is on them all the same.
    assert!(logs.contains(USER_HASH) && logs.contains(CHAT_HASH));
}

#[test]
fn previous_session_is_redacted_in_lifecycle_events() {
    for policy in [IdPolicy::omitted(), hashed()] {
        let exporter = InMemoryLogExporter::default();
        let logs = SdkLoggerProvider::builder()
            .with_log_processor(SessionLogProcessor::new().with_privacy(both(policy)))
            .with_simple_exporter(exporter.clone())
            .build();
        let subscriber = tracing_subscriber::registry()
            .with(SessionLayer::new())
            .with(OpenTelemetryTracingBridge::new(&logs));
        tracing::subscriber::with_default(subscriber, || {
            let mut chat = Conversation::new(conversation()).with_lifecycle_events();
            chat.turn("one").finish();
            chat.reset();
            chat.turn("two").finish();
        });
        let logs = exporter.get_emitted_logs().unwrap();
        let text = format!("{logs:?}");
        assert_eq!(text.matches("session.start").count() / 2, 2, "{text}");
        assert!(!text.contains(USER) && !text.contains(CHAT), "{text}");
    }
}

type Work = fn(&SdkLoggerProvider);

/// All that puts an id on a record that does not say it itself.
const WAYS: &[(&str, Work)] = &[
    ("value", |_| conversation().in_scope(|| info!("line"))),
    ("span", |_| {
        session!(CHAT, user.id = USER).in_scope(|| info!("line"))
    }),
    ("fields", |_| {
        let span = info_span!("chat", session.id = CHAT, user.id = tracing::field::Empty);
        span.in_scope(|| info!("early"));
        span.record("user.id", USER);
        span.in_scope(|| info_span!("below").in_scope(|| info!("late")));
    }),
    ("set", |_| {
        info_span!("chat").in_scope(|| {
            set_session_id(CHAT).unwrap();
            set_user_id(USER).unwrap();
            info!("line");
        });
    }),
    ("OpenTelemetry's API", |logs| {
        let logger = logs.logger("api");
        let mut record = logger.create_log_record();
        record.set_body("line".into());
        conversation().in_scope(|| logger.emit(record));
    }),
    ("metadata", |_| {
        let session = conversation().with_metadata("email", EMAIL).unwrap();
        session.in_scope(|| info!("line"));
    }),
    ("attribute", |_| {
        let session = conversation().with_attribute("who", USER).unwrap();
        let session = session.with_attribute("langfuse.session.id", CHAT).unwrap();
        session.in_scope(|| info!("line"));
    }),
    ("own", |_| {
        let line = || info!(session.id = "another", user.id = "another", "line");
        conversation().in_scope(line);
    }),
];

/// The records that are sent of `work`, over the real protocol.
fn sent(name: &str, privacy: Privacy, dialect: Dialect, work: Work) -> Vec<u8> {
    let receiver = Receiver::start();
    let exporter = LogExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(format!("http://{}/v1/logs", receiver.address))
        .build()
        .unwrap();
    let ours = SessionLogProcessor::new().with_dialect(dialect.clone());
    let logs = SdkLoggerProvider::builder()
        .with_log_processor(ours.with_privacy(privacy.clone()))
        .with_batch_exporter(exporter)
        .build();
    let spans = SdkTracerProvider::builder().with_simple_exporter(InMemorySpanExporter::default());
    let provider = SessionTracerProvider::new(spans.build()).with_privacy(privacy);
    let otel = tracing_opentelemetry::layer().with_tracer(provider.tracer("app"));
    let layer = SessionLayer::new();
    let ours = Targets::new().with_target("main::privacy", Level::TRACE);
    let subscriber = tracing_subscriber::registry()
        .with(layer.wrap(otel))
        .with(OpenTelemetryTracingBridge::new(&logs).with_filter(ours));
    tracing::subscriber::with_default(subscriber, || work(&logs));
    logs.force_flush().unwrap();
    logs.shutdown().unwrap();
    let bytes = receiver.bodies.lock().unwrap().concat();
    assert!(!bytes.is_empty(), "{name}: nothing was sent");
    bytes
}

fn has(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|it| it == text.as_bytes())
}

#[test]
fn no_id_is_in_exported_records() {
    let both_dialects = || Dialect::OPENINFERENCE.and(Dialect::LANGFUSE);
    for (name, work) in WAYS {
        // So that the test could fail: everything is there, were it not hidden.
        let plain = sent(name, Privacy::new(), Dialect::OPENINFERENCE, *work);
        let expected = if *name == "own" { "another" } else { CHAT };
        assert!(has(&plain, expected), "{name}");
        for dialect in [Dialect::OPENINFERENCE, both_dialects(), Dialect::GEN_AI] {
            let hashes = sent(name, both(hashed()), dialect.clone(), *work);
            let nothing = sent(name, both(IdPolicy::omitted()), dialect, *work);
            for id in [USER, CHAT, EMAIL] {
                assert!(!has(&hashes, id), "{name}: {id}");
                assert!(!has(&nothing, id), "{name}: {id}");
            }
            for hash in [USER_HASH, CHAT_HASH, EMAIL_HASH] {
                assert!(!has(&nothing, hash), "{name}: {hash}");
            }
            assert!(*name == "own" || has(&hashes, CHAT_HASH), "{name}");
        }
    }
}

/// Of what the spans say, the formatters print all.
#[test]
fn no_id_of_a_value_is_printed() {
    for privacy in [both(hashed()), both(IdPolicy::omitted())] {
        let printed = Printed::default();
        let (text, json) = (printed.clone(), printed.clone());
        let text = fmt::layer().with_writer(move || text.clone());
        let json = fmt::layer().json().with_writer(move || json.clone());
        let again = privacy.clone();
        let subscriber = tracing_subscriber::registry()
            .with(SessionLayer::new())
            .with(text.map_event_format(|it| with_session(it).with_privacy(again)))
            .with(json.map_event_format(|it| with_session(it).with_privacy(privacy)));
        tracing::subscriber::with_default(subscriber, || {
            conversation().in_scope(|| info!("line"));
            let user = Session::default().with_user(USER).unwrap();
            info_span!("span").in_scope(|| user.in_scope(|| info!("line")));
        });
        let printed = printed.0.lock().unwrap();
        assert!(has(&printed, "line"));
        assert!(!has(&printed, USER) && !has(&printed, CHAT));
    }
}
