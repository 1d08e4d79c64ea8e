//! Setup with the crate `init-tracing-opentelemetry`: its provider, propagators and logs.
//!
//! `TracingConfig` creates a provider and an OpenTelemetry layer that other code can't access. So this example turns
//! them off and adds its own, around a provider that the same crate creates from the same environment variables. With
//! `--processor`, it adds a span processor to that provider instead of wrapping it, as for a framework that doesn't
//! expose its provider.
//!
//! It prints the exported spans, and fails if a span isn't in the session.

use init_tracing_opentelemetry::TracingConfig;
use init_tracing_opentelemetry::otlp::traces::init_tracerprovider;
use init_tracing_opentelemetry::resource::DetectResource;
use opentelemetry::global;
use opentelemetry::trace::{Tracer, TracerProvider};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SpanData, TracerProviderBuilder};
use std::error::Error;
use tracing::instrument;
use tracing_session::{
    Session, SessionLayer, SessionTracerProvider, processors::SessionSpanProcessor, session,
};
use tracing_subscriber::prelude::*;

fn main() -> Result<(), Box<dyn Error>> {
    let exporter = InMemorySpanExporter::default();
    let resource = DetectResource::default().build();
    // For this example, in addition to the exporter that OTEL_EXPORTER_OTLP_ENDPOINT configures.
    let with_ours = |it: TracerProviderBuilder| it.with_simple_exporter(exporter.clone());
    let provider = if std::env::args().any(|argument| argument == "--processor") {
        // If you can't wrap the provider.
        let with_ours = |it| with_ours(it).with_span_processor(SessionSpanProcessor::new());
        let provider = init_tracerprovider(resource, with_ours)?;
        global::set_tracer_provider(provider.clone());
        chat(provider.tracer("chat"))?;
        provider
    } else {
        let provider = SessionTracerProvider::new(init_tracerprovider(resource, with_ours)?);
        global::set_tracer_provider(provider.clone());
        chat(provider.tracer("chat"))?;
        provider.inner().clone()
    };
    provider.force_flush()?;
    let checked = check(&exporter.get_finished_spans()?);
    // The guard does this only for a provider that `TracingConfig` creates.
    provider.shutdown()?;
    checked
}

fn chat<T>(tracer: T) -> Result<(), Box<dyn Error>>
where
    T: Tracer<Span: Send + Sync> + Send + Sync + 'static,
{
    let otel = tracing_opentelemetry::layer()
        .with_error_records_to_exceptions(true)
        .with_tracer(tracer);
    let otel = SessionLayer::new().wrap(otel);
    let _guard = TracingConfig::production()
        .with_stderr()
        .with_otel(false)
        .with_quiet_init(true)
        .init_subscriber_ext(|registry| registry.with(otel))?;

    session!("chat-42").in_scope(|| answer("What is the weather?"));
    Session::new("chat-42")?.in_scope(|| answer("And tomorrow?"));
    Ok(())
}

#[instrument]
fn answer(question: &str) {
    look_up();
}

#[instrument]
fn look_up() {}

fn check(spans: &[SpanData]) -> Result<(), Box<dyn Error>> {
    let mut inside = 0;
    for span in spans {
        let mut ids = span.attributes.iter();
        let id = ids.find(|attribute| attribute.key.as_str() == "session.id");
        let id = id.map(|attribute| attribute.value.as_str());
        println!("{} session.id={}", span.name, id.as_deref().unwrap_or("-"));
        inside += usize::from(id.as_deref() == Some("chat-42"));
    }
    match (inside, spans.len()) {
        (5, 5) => Ok(()),
        (inside, all) => Err(format!("{inside} of {all} spans are in the session").into()),
    }
}
