//! An agent of the crate `rig`, whose spans contain no session. Its model runs in this program, without a network: it
//! calls a tool, and then answers with the tool's result.
//!
//! It prints the exported spans, and fails if a span isn't in the session.

mod agent;
mod report;

use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};
use rig::Agent;
use rig::completion::PromptError;
use rig::run::PromptResponse;
use std::error::Error;
use tracing::instrument;
use tracing_session::{InSession, Session, SessionLayer, SessionTracerProvider};
use tracing_subscriber::prelude::*;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder()
        .with_simple_exporter(exporter.clone())
        .build();
    let provider = SessionTracerProvider::new(provider);
    let otel = tracing_opentelemetry::layer().with_tracer(provider.tracer("rig-agent"));
    tracing_subscriber::registry()
        .with(SessionLayer::new().wrap(otel))
        .init();

    let agent = agent::new();
    let session = Session::new("chat-42")?.with_user("u-7")?;
    for question in ["Where is my order?", "And the other one?"] {
        let answer = ask(&agent, question).in_session(session.clone()).await?;
        println!("{question} {answer}");
    }
    println!();

    provider.force_flush()?;
    report::check(&exporter.get_finished_spans()?, &session)
}

/// A turn of the conversation, whose span is the parent of rig's spans. Without a current span, rig creates its root
/// with `parent: None`, which inherits neither a span nor a session.
#[instrument(skip_all)]
async fn ask(agent: &Agent, question: &str) -> Result<PromptResponse, PromptError> {
    agent.prompt(question).max_turns(3).await
}
