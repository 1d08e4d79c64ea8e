//! A conversation with linked turns, in a server that keeps no state between requests, and turns in an application that
//! is traced from end to end.
//!
//!     cargo run --example conversation
//!
//! prints the exported spans. To send them to Phoenix:
//!
//!     OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:6006 cargo run --example conversation

use opentelemetry::trace::{Span as _, SpanId, TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use std::collections::HashSet;
use std::error::Error;
use std::{env, io};
use tracing::{Instrument, Span, info_span, instrument};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_session::openinference::{OpenInferenceSpanExt, SpanKind};
use tracing_session::{
    Conversation, Session, SessionLayer, SessionTracerProvider, conversation::ConversationState,
    session,
};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt;
use tracing_subscriber::prelude::*;

const TURNS: usize = 20;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let exported = InMemorySpanExporter::default();
    let provider = set_up(&exported)?;

    for in_one_trace in [false, true] {
        let mut state = None;
        for number in 1..=TURNS {
            let question = format!("question {number}");
            state = Some(request(state, in_one_trace, &question).await?);
        }
    }
    for number in 1..=TURNS {
        full_stack(&format!("question {number}")).await;
    }

    provider.force_flush()?;
    outline(&exported.get_finished_spans()?);
    provider.shutdown()?;
    Ok(())
}

/// A request to a server without state: the request and the response contain the state of the conversation.
async fn request(
    state: Option<String>,
    in_one_trace: bool,
    question: &str,
) -> Result<String, Box<dyn Error + Send + Sync>> {
    let mut chat = match state {
        Some(state) => {
            let state: ConversationState = serde_json::from_str(&state)?;
            Conversation::resume(state)
        }
        None if in_one_trace => Conversation::new(Session::new("one trace")?).in_one_trace(),
        None => Conversation::new(Session::new("a trace per turn")?),
    };
    // The state contains no user, because a client could change it.
    chat = chat.with_session(Session::default().with_user("u-7")?);

    let turn = chat.turn("turn");
    answer(question).instrument(turn.span()).await;
    turn.finish();
    Ok(serde_json::to_string(&chat.state())?)
}

/// A request that its caller has traced already. Without `with_root_turns`, the session would have no root spans, and
/// Phoenix would show no turns, no first input and no last output.
async fn full_stack(question: &str) {
    let http = info_span!("POST /chat");
    // A propagator would extract this from the headers. An error means that the span isn't exported.
    let _ = http.set_parent(caller());
    let turn = async {
        let span = session!("full stack", user.id = "u-7", otel.name = "turn");
        answer(question).instrument(span).await;
    };
    turn.instrument(http).await;
}

/// The span of the caller, which exports it to another backend.
fn caller() -> Context {
    let elsewhere = SdkTracerProvider::default().tracer("caller");
    let call = elsewhere.start("call").span_context().clone();
    Context::new().with_remote_span_context(call)
}

async fn answer(question: &str) {
    let turn = Span::current();
    turn.set_span_kind(SpanKind::Agent);
    turn.set_input(question);
    ask_model(question).await;
    turn.set_output(format!("answer to {question}"));
}

#[instrument(skip_all, fields(openinference.span.kind = "LLM", input.value = question))]
async fn ask_model(question: &str) {
    tokio::task::yield_now().await;
}

fn set_up(
    exported: &InMemorySpanExporter,
) -> Result<SessionTracerProvider<SdkTracerProvider>, Box<dyn Error + Send + Sync>> {
    let mut sdk = SdkTracerProvider::builder()
        .with_resource(
            Resource::builder()
                .with_service_name("conversation")
                // The project in Phoenix.
                .with_attribute(KeyValue::new("openinference.project.name", "conversation"))
                .build(),
        )
        .with_simple_exporter(exported.clone());
    if env::var("OTEL_EXPORTER_OTLP_ENDPOINT").is_ok_and(|url| !url.is_empty()) {
        sdk = sdk.with_batch_exporter(SpanExporter::builder().build()?);
    }
    let provider = SessionTracerProvider::new(sdk.build());
    let otel = tracing_opentelemetry::layer().with_tracer(provider.tracer("conversation"));
    tracing_subscriber::registry()
        .with(LevelFilter::INFO)
        .with(fmt::layer().with_writer(io::stderr))
        .with(SessionLayer::new().with_root_turns().wrap(otel))
        .init();
    Ok(provider)
}

/// Prints the turns of each session.
fn outline(spans: &[SpanData]) {
    for session in ["a trace per turn", "one trace", "full stack"] {
        let is_of = |span: &&SpanData| {
            let mut attributes = span.attributes.iter();
            attributes.any(|it| it.key.as_str() == "session.id" && it.value.as_str() == session)
        };
        let spans: Vec<_> = spans.iter().filter(is_of).collect();
        let turns: Vec<_> = spans.iter().filter(|span| span.name == "turn").collect();
        let traces: HashSet<_> = turns
            .iter()
            .map(|turn| turn.span_context.trace_id())
            .collect();
        let roots = turns
            .iter()
            .filter(|turn| turn.parent_span_id == SpanId::INVALID);
        let links = turns.iter().map(|turn| turn.links.links.len());
        println!(
            "{session}: {} turns in {} traces, {} of them roots, with {} links",
            turns.len(),
            traces.len(),
            roots.count(),
            links.sum::<usize>(),
        );
    }
}
