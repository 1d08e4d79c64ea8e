//! Recipes for frameworks. Each file is one recipe, to copy from:
//!
//! | file | for |
//! | --- | --- |
//! | `actix_web.rs` | A middleware of actix-web continues the caller's session. |
//! | `poem.rs` | The same for poem. |
//! | `apalis.rs` | A job of apalis carries its session through the queue. |
//! | `adk.rs` | The layer reads the ids in the spans of ADK-Rust. |
//! | `genai.rs` | The spans of the client `genai` are in the session, and the root span has input and output. |
//! | `two_ids.rs` | An application has logins and conversations. |
//!
//! The program runs all of them. It fails if a recipe exports other spans than the recipe expects, or a span with another session.

mod actix_web;
mod adk;
mod apalis;
mod genai;
mod poem;
mod report;
mod two_ids;

use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};
use std::error::Error;
use std::process::ExitCode;
use tracing_session::{SessionTracerProvider, propagator_from_env};
use tracing_subscriber::prelude::*;

type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

#[tokio::main]
async fn main() -> Outcome<ExitCode> {
    let mut report = report::Report::new(set_up()?);
    report.check("actix-web", actix_web::run().await, actix_web::SPANS)?;
    report.check("poem", poem::run().await, poem::SPANS)?;
    report.check("apalis", apalis::run().await, apalis::SPANS)?;
    report.check("ADK-Rust", adk::run(), adk::SPANS)?;
    report.check("genai", genai::run().await, genai::SPANS)?;
    report.check("two ids", two_ids::run().await, two_ids::SPANS)?;
    Ok(report.exit_code())
}

/// Once, when the program starts. The exporter of your application sends the spans to a backend.
fn set_up() -> Outcome<InMemorySpanExporter> {
    // OpenTelemetry's global propagator does nothing until it is set.
    opentelemetry::global::set_text_map_propagator(propagator_from_env()?);
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder()
        .with_simple_exporter(exporter.clone())
        .build();
    let provider = SessionTracerProvider::new(provider);
    let otel = tracing_opentelemetry::layer().with_tracer(provider.tracer("recipes"));
    tracing_subscriber::registry()
        .with(adk::layer().wrap(otel))
        .init();
    Ok(exporter)
}
