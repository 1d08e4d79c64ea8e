//! Several conversations at once, exported to an OTLP receiver.
//!
//!     cargo run --example quickstart
//!
//! needs only Rust: the receiver runs inside the program. It compares the received spans with the expected ones, and
//! fails if a span is missing, isn't expected, or has a wrong session or user. (If `HTTP_PROXY` is set, set
//! `NO_PROXY=127.0.0.1` too.)
//!
//! To send the spans to a real backend instead, such as Phoenix:
//!
//!     OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:6006 cargo run --example quickstart
//!
//! uses HTTP, or gRPC with `OTEL_EXPORTER_OTLP_PROTOCOL=grpc`. `--json` prints a line for each conversation instead.
//!
//! The ways to set a session are in `conversations.rs`.

mod agent;
mod conversations;
mod receiver;
mod report;

use conversations::Conversation;
use futures_util::future::join_all;
use opentelemetry::trace::TracerProvider;
use opentelemetry::{KeyValue, global};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use receiver::Receiver;
use std::error::Error;
use std::process::ExitCode;
use std::{env, io};
use tracing_session::{SessionLayer, SessionTracerProvider};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt;
use tracing_subscriber::prelude::*;

/// The whole setup.
fn set_up(exporter: SpanExporter) -> SessionTracerProvider<SdkTracerProvider> {
    let resource = Resource::builder()
        .with_service_name("quickstart")
        // The project in Phoenix.
        .with_attribute(KeyValue::new("openinference.project.name", "quickstart"))
        .build();
    let sdk = SdkTracerProvider::builder()
        .with_resource(resource)
        .with_batch_exporter(exporter)
        .build();
    // Writes the session on every span of its tracers.
    let provider = SessionTracerProvider::new(sdk);
    // For libraries that use OpenTelemetry's API.
    global::set_tracer_provider(provider.clone());

    let otel = tracing_opentelemetry::layer().with_tracer(provider.tracer("quickstart"));
    tracing_subscriber::registry()
        // Without this, an exporter over gRPC would also export the TRACE spans of its own connection.
        .with(LevelFilter::INFO)
        // Prints the warnings about mistakes in the setup.
        .with(fmt::layer().with_writer(io::stderr))
        // Finds the spans that set a session. It wraps the OpenTelemetry layer: don't add it as a separate layer.
        .with(SessionLayer::new().wrap(otel))
        .init();
    provider
}

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn Error + Send + Sync>> {
    let (receiver, exporter) = destination().await?;
    let provider = set_up(exporter);

    let conversations = conversations::list()?;
    let hold = |conversation: &Conversation| tokio::spawn(conversation.clone().hold());
    for held in join_all(conversations.iter().map(hold)).await {
        held??;
    }
    // Sends the spans that the batch processor still holds. `shutdown` does this too, but returns no error if it fails.
    provider.force_flush()?;
    provider.shutdown()?;

    let json = env::args().any(|argument| argument == "--json");
    let arrived = receiver.map(|receiver| receiver.spans());
    match &arrived {
        _ if json => report::print_json(&conversations),
        Some(arrived) => report::print(arrived),
        None => report::print_where_to_look(&conversations),
    }
    let is_right = arrived.is_none_or(|arrived| report::verify(&conversations, &arrived));
    Ok(if is_right {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn destination() -> Result<(Option<Receiver>, SpanExporter), Box<dyn Error + Send + Sync>> {
    let is_set = |variable| env::var(variable).is_ok_and(|value| !value.is_empty());
    if is_set("OTEL_EXPORTER_OTLP_ENDPOINT") || is_set("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") {
        // The exporter reads the endpoint, the protocol and all other settings from the environment.
        return Ok((None, SpanExporter::builder().build()?));
    }
    let receiver = Receiver::start().await?;
    let exporter = SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(receiver.url())
        .build()?;
    Ok((Some(receiver), exporter))
}
