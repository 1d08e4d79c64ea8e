//! Where the spans go, and everything there is to set up.

use crate::Outcome;
use crate::receiver::Receiver;
use opentelemetry::trace::TracerProvider;
use opentelemetry::{KeyValue, global};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use std::time::Duration;
use std::{env, io};
use tracing_session::{SessionLayer, SessionTracerProvider};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt;
use tracing_subscriber::prelude::*;

pub(crate) type Provider = SessionTracerProvider<SdkTracerProvider>;

pub(crate) fn set_up(exporter: SpanExporter) -> Provider {
    let resource = Resource::builder()
        .with_service_name("chat")
        // What Phoenix calls a project.
        .with_attribute(KeyValue::new("openinference.project.name", "chat"))
        .build();
    let sdk = SdkTracerProvider::builder()
        .with_resource(resource)
        .with_batch_exporter(exporter)
        .build();
    // Writes the session on every span of every tracer that it gives out.
    let provider = SessionTracerProvider::new(sdk);
    // So that libraries which know only OpenTelemetry are covered too.
    global::set_tracer_provider(provider.clone());

    let otel = tracing_opentelemetry::layer().with_tracer(provider.tracer("chat"));
    tracing_subscriber::registry()
        // Without it an exporter over gRPC would export the TRACE spans of its own connection too.
        .with(LevelFilter::INFO)
        // Mistakes in the set-up are told as warnings.
        .with(fmt::layer().with_writer(io::stderr))
        // Sees which spans say a session. Around the OpenTelemetry layer, not beside it.
        .with(SessionLayer::new().around(otel))
        .init();
    provider
}

pub(crate) struct Destination {
    pub(crate) name: String,
    pub(crate) exporter: SpanExporter,
    /// Where it is our own.
    pub(crate) receiver: Option<Receiver>,
}

pub(crate) async fn destination(is_demo: bool) -> Outcome<Destination> {
    let is_set = |variable| env::var(variable).is_ok_and(|value| !value.is_empty());
    if is_set("OTEL_EXPORTER_OTLP_ENDPOINT") || is_set("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") {
        return Ok(Destination {
            name: "where the environment says".to_owned(),
            // Takes the endpoint, the protocol and all else from the environment.
            exporter: SpanExporter::builder().build()?,
            receiver: None,
        });
    }
    if !is_demo && phoenix_runs().await {
        return Ok(Destination {
            name: format!("{PHOENIX}: project chat, tab Sessions"),
            exporter: exporter_to(format!("{PHOENIX}/v1/traces"))?,
            receiver: None,
        });
    }
    let receiver = Receiver::start().await?;
    Ok(Destination {
        name: "a receiver of our own".to_owned(),
        exporter: exporter_to(receiver.url())?,
        receiver: Some(receiver),
    })
}

fn exporter_to(url: String) -> Outcome<SpanExporter> {
    let exporter = SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(url);
    Ok(exporter.build()?)
}

const PHOENIX: &str = "http://127.0.0.1:6006";

async fn phoenix_runs() -> bool {
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(1))
        .build();
    let Ok(client) = client else { return false };
    let health = client.get(format!("{PHOENIX}/healthz")).send().await;
    health.is_ok_and(|response| response.status().is_success())
}
