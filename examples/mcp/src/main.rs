//! An agent calls tools of an MCP server, with the crate `rmcp`. Each turn is one trace, in one session, on both sides.
//!
//!     cargo run -- --calls 10000
//!
//! Three places set the session:
//!
//! - The client injects its context into `_meta` of each call: `call_tool` in `client.rs`.
//! - The server extracts it for each call: `call_tool` in `server.rs`.
//! - The connection is detached from the turn that opens it: `call_tool` in `client.rs`.
//!
//! MCP has sessions of its own, between one client and one server. They aren't the sessions of this crate.
//!
//! The program holds 100 conversations at once, over a pipe and over HTTP. It prints the spans of a turn, and fails if a span is
//! in a wrong session or trace. `tests/languages/mcp_peers.py` runs it with a server and a client in Python.

mod client;
mod peers;
mod process;
mod report;
mod server;

use client::{Address, Client};
use process::{Outcome, Process};
use std::env;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tracing::instrument;
use tracing_session::{InSession, Session, propagator_from_env};

const SESSIONS: usize = 100;

fn main() -> Outcome {
    // In each process, once. OpenTelemetry's global propagator does nothing until it is set.
    opentelemetry::global::set_text_map_propagator(propagator_from_env()?);

    let arguments: Vec<_> = env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    match *arguments {
        [] => check(1_000),
        ["--calls", calls] => check(calls.parse()?),
        ["--call", program, script] => peers::call([program, script]),
        ["--serve"] => peers::serve(),
        _ => {
            Err("the arguments are none, `--calls N`, `--call PROGRAM SCRIPT` or `--serve`".into())
        }
    }
}

/// Makes this number of calls over each transport.
fn check(calls: usize) -> Outcome {
    let (client, server) = (Process::start("client")?, Process::start("server")?);
    let transports = [
        ("a pipe", Address::Pipe(server.handle().clone())),
        ("HTTP, stateless", Address::Http(listen(&server, false)?)),
        ("HTTP, stateful", Address::Http(listen(&server, true)?)),
    ];
    let turns = calls.div_ceil(SESSIONS);
    println!(
        "The trace of each turn, all of it in the session of its conversation:{}\n",
        report::TURN
    );
    for (transport, address) in transports {
        let start = Instant::now();
        client.run(hold_conversations(Client::new(address), turns))?;
        println!(
            "{SESSIONS} conversations at once over {transport}, {:.1?}:",
            start.elapsed()
        );
        let spans = finished_spans(&client, &server, turns * SESSIONS)?;
        report::check(&spans, turns * SESSIONS)?;
    }
    Ok(())
}

/// Starts a server: its address.
fn listen(process: &Process, is_stateful: bool) -> Outcome<String> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let url = format!("http://{}/mcp", listener.local_addr()?);
    process
        .handle()
        .spawn(server::serve_http(listener, is_stateful));
    Ok(url)
}

/// All conversations at once, over one connection.
async fn hold_conversations(client: Client, turns: usize) -> Outcome {
    let client = Arc::new(client);
    let mut conversations = JoinSet::new();
    for number in 0..SESSIONS {
        let client = client.clone();
        let session = Session::new(format!("chat-{number}"))?;
        let conversation = async move {
            for turn in 0..turns {
                answer(&client, &format!("chat-{number}/{turn}")).await?;
            }
            Outcome::Ok(())
        };
        conversations.spawn(conversation.in_session(session));
    }
    while let Some(outcome) = conversations.join_next().await {
        outcome??;
    }
    match Arc::into_inner(client) {
        Some(client) => client.close().await,
        None => Err("a conversation still has the client".into()),
    }
}

/// A turn, with a root span of its own.
#[instrument(skip(client))]
async fn answer(client: &Client, order: &str) -> Outcome<String> {
    client.call_tool(order).await
}

/// The spans of both processes, once all spans of the turns are there: the last notifications may still be on their way.
fn finished_spans(client: &Process, server: &Process, turns: usize) -> Outcome<Vec<report::Span>> {
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut spans = Vec::new();
    while spans.len() < turns * report::SPANS_OF_A_TURN && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(100));
        spans.extend(client.take_spans()?);
        spans.extend(server.take_spans()?);
    }
    Ok(spans)
}
