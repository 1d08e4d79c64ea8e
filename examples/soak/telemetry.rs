//! The setup of a service, as in the README, with counters for each span.

use crate::Outcome;
use crate::report::{Batch, Say};
use opentelemetry::trace::{SpanId, TracerProvider};
use opentelemetry::{Context, global};
use opentelemetry_otlp::{Protocol, SpanExporter as Otlp, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider, Span, SpanData, SpanExporter,
    SpanProcessor,
};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_session::{SessionLayer, SessionTracerProvider, propagator_from_env};
use tracing_subscriber::Layer;
use tracing_subscriber::layer;
use tracing_subscriber::prelude::*;

/// How long the exporter waits for an answer, and for how long it tries again.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(2);

pub(crate) type Provider = SessionTracerProvider<SdkTracerProvider>;

/// How the layer wraps the OpenTelemetry layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Around,
    /// With a filter. Filtered-out spans set their session too.
    Filtered,
}

impl Kind {
    pub(crate) const ALL: [Self; 2] = [Self::Around, Self::Filtered];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Around => "around",
            Self::Filtered => "filtered",
        }
    }
}

pub(crate) fn set_up(kind: Kind, collector: &str) -> Outcome<Provider> {
    let exporter = Otlp::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(collector)
        .with_timeout(TIMEOUT)
        .build()?;
    let config = BatchConfigBuilder::default()
        .with_scheduled_delay(Duration::from_millis(500))
        .build();
    let batches = BatchSpanProcessor::builder(Told(exporter))
        .with_batch_config(config)
        .build();
    let resource = Resource::builder().with_service_name(kind.name()).build();
    let provider = SdkTracerProvider::builder()
        .with_resource(resource)
        .with_span_processor(Counted(batches))
        .build();
    let provider = SessionTracerProvider::new(provider);
    global::set_tracer_provider(provider.clone());
    global::set_text_map_propagator(propagator_from_env()?);

    let otel = tracing_opentelemetry::layer().with_tracer(provider.tracer("chat"));
    let subscriber = tracing_subscriber::registry().with(Heard.with_filter(LevelFilter::WARN));
    match kind {
        Kind::Around => {
            let layer = SessionLayer::new().wrap(otel);
            subscriber.with(layer).with(LevelFilter::INFO).init();
        }
        Kind::Filtered => {
            let layer = SessionLayer::new()
                .with_opener_level(tracing::Level::DEBUG)
                .wrap_filtered(otel, LevelFilter::INFO);
            subscriber.with(layer).init();
        }
    }
    Ok(provider)
}

static STARTED: AtomicU64 = AtomicU64::new(0);
static ENDED: AtomicU64 = AtomicU64::new(0);

/// The started and ended spans, as counted by the SDK.
pub(crate) fn spans() -> (u64, u64) {
    // In this order, so that what ends in between is not taken for one that was never started.
    let ended = ENDED.load(Ordering::SeqCst);
    (STARTED.load(Ordering::SeqCst), ended)
}

#[derive(Debug)]
struct Counted<P>(P);

impl<P: SpanProcessor> SpanProcessor for Counted<P> {
    fn on_start(&self, span: &mut Span, cx: &Context) {
        STARTED.fetch_add(1, Ordering::SeqCst);
        self.0.on_start(span, cx);
    }

    fn on_end(&self, span: SpanData) {
        ENDED.fetch_add(1, Ordering::SeqCst);
        self.0.on_end(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.0.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.0.set_resource(resource);
    }
}

/// Reports for each batch whether the exporter succeeded.
#[derive(Debug)]
struct Told<E>(E);

impl<E: SpanExporter> SpanExporter for Told<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len() as u64;
        let print = print_of(batch.iter().map(|span| span.span_context.span_id()));
        let exported = self.0.export(batch).await;
        let arrived = exported.is_ok();
        Say::Batch(Batch {
            print,
            spans,
            arrived,
        })
        .aloud();
        exported
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.0.set_resource(resource);
    }
}

/// Tells batches apart by the ids of their spans, in whatever order these are.
pub(crate) fn print_of(spans: impl Iterator<Item = SpanId>) -> u64 {
    let number = |span: SpanId| u64::from_be_bytes(span.to_bytes());
    spans.map(number).fold(0, u64::wrapping_add)
}

/// Collects the warnings of the SDK and of this crate.
struct Heard;

#[derive(Default)]
struct Words {
    /// The SDK's warnings, and how often each was emitted.
    sdk: BTreeMap<&'static str, u64>,
    dropped: u64,
    ours: Vec<String>,
}

static WORDS: Mutex<Words> = Mutex::new(Words {
    sdk: BTreeMap::new(),
    dropped: 0,
    ours: Vec::new(),
});

/// How often the SDK has emitted this warning.
pub(crate) fn said(name: &str) -> u64 {
    let words = WORDS.lock().ok();
    words
        .and_then(|words| words.sdk.get(name).copied())
        .unwrap_or(0)
}

/// The spans that didn't fit into the queue. The SDK reports the number when it shuts down.
pub(crate) fn dropped() -> u64 {
    WORDS.lock().map_or(0, |words| words.dropped)
}

/// The warnings of this crate.
pub(crate) fn warnings() -> Vec<String> {
    WORDS
        .lock()
        .map(|words| words.ours.clone())
        .unwrap_or_default()
}

impl<S: Subscriber> Layer<S> for Heard {
    fn on_event(&self, event: &Event<'_>, _: layer::Context<'_, S>) {
        let metadata = event.metadata();
        if *metadata.level() > Level::WARN {
            return;
        }
        let mut read = Read::default();
        event.record(&mut read);
        let Ok(mut words) = WORDS.lock() else { return };
        if metadata.target().starts_with("opentelemetry") {
            *words.sdk.entry(metadata.name()).or_default() += 1;
            words.dropped += read.dropped;
        } else if metadata.target() == "tracing_session" {
            words.ours.push(read.message);
        }
    }
}

#[derive(Default)]
struct Read {
    message: String,
    dropped: u64,
}

impl Visit for Read {
    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "dropped_span_count" {
            self.dropped = value;
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        }
    }
}
