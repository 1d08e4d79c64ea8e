//! One conversation across three services, in one session and one trace.
//!
//!     cargo run --example services --features tower,reqwest
//!
//! A client calls the gateway (axum, over HTTP), which calls the agent (tonic, over gRPC), which adds a job to the
//! queue of the worker. Each service has its own thread, subscriber and provider, like a separate process. The services
//! share the session only through headers.
//!
//! It prints the received spans as a tree, and fails if they aren't one trace in the client's session.
//!
//! The code for the session: `set_up` in `service.rs`, a layer on each server and client, and two lines for the queue
//! in `worker.rs`.

mod agent;
mod backend;
mod gateway;
mod service;
mod worker;

use backend::Backend;
use service::{Outcome, listen, start};
use std::net::SocketAddr;
use std::process::ExitCode;
use tokio::sync::{mpsc, watch};
use tracing_session::{InSession, Session, propagator_from_env};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome<ExitCode> {
    // Once in each process: OpenTelemetry's global propagator does nothing until you set it. In the one-call setup
    // (`install`), `with_session_propagation` does the same.
    opentelemetry::global::set_text_map_propagator(propagator_from_env()?);

    let backend = Backend::default();
    let (gateway_listener, agent_listener) = (listen()?, listen()?);
    let gateway_address = gateway_listener.local_addr()?;
    let agent_address = agent_listener.local_addr()?;
    let (queue, jobs) = mpsc::unbounded_channel();
    let (running, until) = watch::channel(());

    let worker = worker::run(jobs);
    let agent = agent::serve(agent_listener, queue, until.clone());
    let gateway = gateway::serve(gateway_listener, agent_address, until);
    let services = [
        start("worker", &backend, worker),
        start("agent", &backend, agent),
        start("gateway", &backend, gateway),
    ];

    let session = Session::new("chat-42")?;
    let answer = ask(gateway_address, "What is the weather like?").in_session(session);
    println!("{}", answer.await?);

    drop(running);
    for service in services {
        service.join().map_err(|_| "a service panicked")??;
    }
    let is_right = backend.print_and_verify("chat-42");
    Ok(if is_right {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The client has no spans, so the trace starts in the gateway.
async fn ask(gateway: SocketAddr, question: &'static str) -> Outcome<String> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let client = reqwest_middleware::ClientBuilder::new(client)
        .with(tracing_session::propagation::reqwest::middleware())
        .build();
    let url = format!("http://{gateway}/chat");
    let response = client.post(url).body(question).send().await?;
    Ok(response.error_for_status()?.text().await?)
}
