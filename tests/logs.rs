//! What a log record carries: of `opentelemetry-appender-tracing`, and of OpenTelemetry's API.

mod formats;
mod interleaved;
mod own;
mod records;
mod reentrant;

use opentelemetry::logs::AnyValue;
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_sdk::logs::{InMemoryLogExporter, SdkLogRecord, SdkLoggerProvider};
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::subscriber::DefaultGuard;
use tracing::{Dispatch, dispatcher};
use tracing_session::{
    Session, SessionLayer, SessionTracerProvider, processors::SessionLogProcessor,
};
use tracing_subscriber::prelude::*;
use tracing_subscriber::{Layer, Registry};

/// An application that exports its logs. It is the default of this thread.
struct App {
    logs: SdkLoggerProvider,
    exporter: InMemoryLogExporter,
    dispatch: Dispatch,
    _default: DefaultGuard,
}

type Otel = tracing_opentelemetry::OpenTelemetryLayer<
    Registry,
    tracing_session::tracer::SessionTracer<opentelemetry_sdk::trace::SdkTracer>,
>;

impl App {
    fn new() -> Self {
        Self::with(SessionLogProcessor::new(), |otel| {
            SessionLayer::new().wrap(otel)
        })
    }

    fn with_processor(processor: SessionLogProcessor) -> Self {
        Self::with(processor, |otel| SessionLayer::new().wrap(otel))
    }

    fn with<L: Layer<Registry> + Send + Sync>(
        processor: SessionLogProcessor,
        layer: impl FnOnce(Otel) -> L,
    ) -> Self {
        use opentelemetry::trace::TracerProvider;

        let exporter = InMemoryLogExporter::default();
        let logs = SdkLoggerProvider::builder()
            .with_log_processor(processor)
            .with_simple_exporter(exporter.clone())
            .build();
        let provider = SessionTracerProvider::new(SdkTracerProvider::default());
        let otel = tracing_opentelemetry::layer().with_tracer(provider.tracer("app"));
        let subscriber = tracing_subscriber::registry()
            .with(layer(otel))
            .with(OpenTelemetryTracingBridge::new(&logs));
        let dispatch = Dispatch::new(subscriber);
        Self {
            logs,
            exporter,
            _default: dispatcher::set_default(&dispatch),
            dispatch,
        }
    }

    /// What was exported, a line for each record: its text and its attributes.
    #[track_caller]
    fn exports(&self, expected: &[&str]) {
        assert_eq!(self.lines(), expected);
    }

    fn lines(&self) -> Vec<String> {
        let all = self.exporter.get_emitted_logs().unwrap();
        // The SDK has something to say as well.
        let is_ours = |record: &SdkLogRecord| {
            let target = record.target();
            target.is_none_or(|target| !target.starts_with("opentelemetry"))
        };
        let ours = all.iter().filter(|it| is_ours(&it.record));
        ours.map(|it| line(&it.record)).collect()
    }
}

fn line(record: &SdkLogRecord) -> String {
    let mut line = record.body().map(text).unwrap_or_default();
    for (key, value) in record.attributes_iter() {
        line += &format!(" {key}={}", text(value));
    }
    line
}

fn text(value: &AnyValue) -> String {
    match value {
        AnyValue::String(text) => text.to_string(),
        AnyValue::Int(number) => number.to_string(),
        AnyValue::Boolean(value) => value.to_string(),
        AnyValue::ListAny(list) => format!("{:?}", list.iter().map(text).collect::<Vec<_>>()),
        other => format!("{other:?}"),
    }
}

fn chat() -> Session {
    Session::new("chat-42").unwrap().with_user("u-7").unwrap()
}
