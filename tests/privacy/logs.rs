//! What is logged.

use crate::{CHAT, USER, both, conversation, hashed};
use opentelemetry::trace::TracerProvider;
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_sdk::logs::{InMemoryLogExporter, SdkLoggerProvider};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};
use tracing::info_span;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_session::{SessionLayer, SessionTracerProvider, session};
use tracing_subscriber::prelude::*;

#[test]
fn no_id_is_in_logs_that_do_not_say_it() {
    let exporter = InMemoryLogExporter::default();
    let logs = SdkLoggerProvider::builder().with_simple_exporter(exporter.clone());
    let logs = logs.build();
    let spans = SdkTracerProvider::builder().with_simple_exporter(InMemorySpanExporter::default());
    let provider = SessionTracerProvider::new(spans.build()).with_privacy(both(hashed()));
    let otel = tracing_opentelemetry::layer().with_tracer(provider.tracer("app"));
    let subscriber = tracing_subscriber::registry()
        .with(SessionLayer::new().around(otel))
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
        logs.contains("is ignored: id has a control character"),
        "{logs}"
    );
    assert!(!logs.contains(USER) && !logs.contains(CHAT), "{logs}");
}
