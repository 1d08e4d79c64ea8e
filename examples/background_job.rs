//! A job that runs after its request has ended. It continues the request's trace in the request's session.
//!
//!     cargo run --example background_job
//!
//! It prints the headers in the job and the exported spans. It fails if a span is in another trace or session.

use opentelemetry::global;
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, SendError, Sender, channel};
use std::thread;
use tracing::instrument;
use tracing_session::{
    Session, SessionLayer, SessionTracerProvider,
    propagation::{WithPropagated, inject_context},
    propagator_from_env,
};
use tracing_subscriber::prelude::*;

struct Job {
    data: String,
    trace_headers: HashMap<String, String>,
}

/// The web server's handler, which doesn't wait for the job.
#[instrument(skip_all)]
fn handle(data: &str, queue: &Sender<Job>) -> Result<(), SendError<Job>> {
    let mut trace_headers = HashMap::new();
    inject_context(&mut trace_headers);
    queue.send(Job {
        data: data.to_owned(),
        trace_headers,
    })
}

/// The worker, which runs on its own thread.
async fn work(queue: Receiver<Job>) {
    for job in queue {
        println!("the job carries:");
        for (name, value) in &job.trace_headers {
            println!("  {name}: {value}");
        }
        process(&job.data).with_propagated(&job.trace_headers).await;
    }
}

#[instrument(skip_all)]
async fn process(data: &str) {
    store(data).await;
}

/// This function contains no code for jobs or sessions.
#[instrument(skip_all)]
async fn store(_data: &str) {
    tokio::task::yield_now().await;
}

fn set_up(exporter: InMemorySpanExporter) -> Result<(), Box<dyn Error>> {
    // OpenTelemetry's global propagator does nothing until you set it.
    global::set_text_map_propagator(propagator_from_env()?);
    let provider = SdkTracerProvider::builder()
        .with_simple_exporter(exporter)
        .build();
    let provider = SessionTracerProvider::new(provider);
    let otel = tracing_opentelemetry::layer().with_tracer(provider.tracer("background_job"));
    let otel = SessionLayer::new().wrap(otel);
    tracing_subscriber::registry().with(otel).init();
    Ok(())
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let exporter = InMemorySpanExporter::default();
    set_up(exporter.clone())?;

    let (queue, jobs) = channel();
    Session::new("chat-42")?.in_scope(|| handle("a long text", &queue))?;
    drop(queue);
    println!("exported when the request is over:");
    print(&exporter.get_finished_spans()?);

    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let worker = thread::spawn(move || runtime.block_on(work(jobs)));
    worker.join().map_err(|_| "the worker panicked")?;
    println!("exported when the job is done:");
    let spans = exporter.get_finished_spans()?;
    print(&spans);

    let traces: HashSet<_> = spans.iter().map(|it| it.span_context.trace_id()).collect();
    let in_session = |span| session(span) == "chat-42";
    if spans.len() == 3 && traces.len() == 1 && spans.iter().all(in_session) {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("a span is missing, or is not in the trace and the session of the request");
    Ok(ExitCode::FAILURE)
}

fn print(spans: &[SpanData]) {
    for span in spans {
        let trace = span.span_context.trace_id();
        println!(
            "  {:7}  trace {trace}  session {}",
            span.name,
            session(span)
        );
    }
}

fn session(span: &SpanData) -> String {
    let mut attributes = span.attributes.iter();
    let session = attributes.find(|it| it.key.as_str() == "session.id");
    session.map_or("-".to_owned(), |it| it.value.to_string())
}
