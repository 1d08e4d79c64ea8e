//! Records that are made where one would not expect them: nothing hangs, nothing panics.

use crate::logs::App;
use opentelemetry::logs::{LogRecord, Logger, LoggerProvider};
use opentelemetry::trace::TracerProvider;
use opentelemetry::{Context, InstrumentationScope};
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::{InMemoryLogExporter, LogProcessor, SdkLogRecord, SdkLoggerProvider};
use opentelemetry_sdk::trace::{SdkTracerProvider, Span, SpanData, SpanProcessor};
use std::cell::Cell;
use std::fmt;
use std::time::Duration;
use tracing::span::{Attributes, Id};
use tracing::{Subscriber, info, info_span};
use tracing_session::{
    SessionLayer, SessionTracerProvider, fmt::with_session, processors::SessionLogProcessor,
    session,
};
use tracing_subscriber::layer::Context as LayerContext;
use tracing_subscriber::prelude::*;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, fmt as subscriber_fmt};

/// A field that writes a log when it is printed.
struct Chatty;

impl fmt::Debug for Chatty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        info!("from a field");
        session!("inner").in_scope(|| info!("from a field, in a session"));
        f.write_str("chatty")
    }
}

/// A layer that writes a log in each callback.
struct Everywhere;

impl<S: Subscriber + for<'span> LookupSpan<'span>> Layer<S> for Everywhere {
    fn on_new_span(&self, _: &Attributes<'_>, id: &Id, ctx: LayerContext<'_, S>) {
        let span = ctx.span(id).unwrap();
        // As a layer may have it while it makes something of the span's fields.
        let _locked = span.extensions_mut();
        info!("new span");
    }

    fn on_enter(&self, _: &Id, _: LayerContext<'_, S>) {
        info!("enter");
    }

    fn on_exit(&self, _: &Id, _: LayerContext<'_, S>) {
        info!("exit");
    }

    fn on_close(&self, _: Id, _: LayerContext<'_, S>) {
        info!("close");
    }
}

/// Writes a record by OpenTelemetry's API from where spans start and end.
#[derive(Debug)]
struct Spans(SdkLoggerProvider);

impl Spans {
    fn write(&self, text: &'static str) {
        let logger = self.0.logger("spans");
        let mut record = logger.create_log_record();
        record.set_body(text.into());
        logger.emit(record);
        info!("and by tracing");
    }
}

impl SpanProcessor for Spans {
    fn on_start(&self, _: &mut Span, _: &Context) {
        self.write("start");
    }

    fn on_end(&self, _: SpanData) {
        self.write("end");
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// A log processor that logs.
#[derive(Debug)]
struct Logging;

impl LogProcessor for Logging {
    fn emit(&self, _: &mut SdkLogRecord, _: &InstrumentationScope) {
        thread_local!(static INSIDE: Cell<bool> = const { Cell::new(false) });
        if !INSIDE.replace(true) {
            info!("from the exporter");
            INSIDE.set(false);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// With a subscriber that is the process's: only then `tracing` lets a subscriber write events while
/// it is at work.
#[test]
fn log_from_anywhere_neither_hangs_nor_panics() {
    let this = test_name!();
    if !crate::support::alone(this, &[]) {
        return;
    }
    let exporter = InMemoryLogExporter::default();
    let logs = SdkLoggerProvider::builder()
        .with_log_processor(SessionLogProcessor::new())
        .with_log_processor(Logging)
        .with_simple_exporter(exporter.clone())
        .build();
    let spans = SdkTracerProvider::builder().with_span_processor(Spans(logs.clone()));
    let provider = SessionTracerProvider::new(spans.build());
    let otel = tracing_opentelemetry::layer().with_tracer(provider.tracer("app"));
    tracing_subscriber::registry()
        .with(SessionLayer::new().wrap(otel))
        .with(Everywhere)
        .with(OpenTelemetryTracingBridge::new(&logs))
        .with(
            subscriber_fmt::layer()
                .with_writer(std::io::sink)
                .map_event_format(with_session),
        )
        .init();
    let (done, is_done) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        session!("chat-42").in_scope(|| {
            info!(field = ?Chatty, "event");
            info_span!("below", field = ?Chatty).in_scope(|| info!("below"));
        });
        done.send(()).unwrap();
    });
    is_done.recv_timeout(Duration::from_secs(20)).unwrap();
    let lines: Vec<_> = exporter.get_emitted_logs().unwrap();
    let lines: Vec<_> = lines
        .iter()
        .map(|it| crate::logs::line(&it.record))
        .collect();
    for expected in [
        "event field=chatty session.id=chat-42",
        "from a field session.id=chat-42",
        "from a field, in a session session.id=inner",
        "from the exporter session.id=chat-42",
        "end session.id=chat-42",
        "below session.id=chat-42",
    ] {
        assert!(
            lines.iter().any(|line| line == expected),
            "{expected}: {lines:#?}"
        );
    }
}

/// The same where the subscriber is the thread's: events from inside are lost there, and nothing else.
#[test]
fn log_from_a_field_neither_hangs_nor_panics() {
    let app = App::new();
    session!("chat-42").in_scope(|| info!(field = ?Chatty, "event"));
    app.exports(&["event field=chatty session.id=chat-42"]);
}
