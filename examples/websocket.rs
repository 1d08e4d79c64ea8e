//! A server with WebSockets: the handshake contains the session id, and each message is a turn with a separate trace.
//!
//!     cargo run --example websocket --features tower
//!
//! Two clients send messages alternately. The program prints the exported spans by session, and fails if a span is in
//! the session of the other client, in no session, or in the trace of another turn.

use axum::Router;
use axum::extract::WebSocketUpgrade;
use axum::extract::ws::{Message, WebSocket};
use axum::response::Response;
use axum::routing::any;
use futures_util::{SinkExt, StreamExt};
use opentelemetry::global;
use opentelemetry::trace::{SpanId, TracerProvider};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use std::error::Error;
use std::net::SocketAddr;
use std::process::ExitCode;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};
use tracing::instrument;
use tracing_session::propagation::{inject_context, tower::server};
use tracing_session::{
    InSession, Session, SessionLayer, SessionTracerProvider, current_session, propagator_from_env,
};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::prelude::*;

type Outcome<T = ()> = Result<T, Box<dyn Error>>;
type Client = WebSocketStream<MaybeTlsStream<TcpStream>>;

const CLIENTS: [&str; 2] = ["chat-alice", "chat-bob"];
const TURNS: usize = 3;

/// The layer `server()` has made the session of the headers current.
#[instrument(skip_all)]
async fn handshake(upgrade: WebSocketUpgrade) -> Response {
    // `on_upgrade` spawns a task, which inherits no session and no span. So the code passes the session to the task.
    // Without a session in the headers, the messages are in no session either.
    let session = current_session().unwrap_or_else(Session::nothing);
    upgrade.on_upgrade(|socket| converse(socket, session))
}

async fn converse(mut socket: WebSocket, session: Session) {
    while let Some(Ok(Message::Text(question))) = socket.recv().await {
        // No span is current here, so the span of `answer` is a root: Phoenix shows it as a turn, as soon as it has ended.
        let reply = answer(&question).in_session(&session).await;
        if socket.send(reply.into()).await.is_err() {
            return;
        }
    }
}

#[instrument]
async fn answer(question: &str) -> String {
    ask_model(question).await
}

/// This function contains no code for sessions.
#[instrument]
async fn ask_model(question: &str) -> String {
    tokio::task::yield_now().await;
    format!("You asked: {question}")
}

/// Opens a socket in the current session.
async fn connect(address: SocketAddr) -> Outcome<Client> {
    let mut request = format!("ws://{address}").into_client_request()?;
    inject_context(request.headers_mut());
    Ok(connect_async(request).await?.0)
}

async fn talk() -> Outcome {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let app = Router::new().route("/", any(handshake)).layer(server());
    let server = tokio::spawn(axum::serve(listener, app).into_future());

    let mut clients = Vec::new();
    for id in CLIENTS {
        let client = connect(address).in_session(Session::new(id)?).await?;
        clients.push((id, client));
    }
    for turn in 1..=TURNS {
        // Both questions are under way before the first reply is read.
        for (id, client) in &mut clients {
            let question = format!("{id}, turn {turn}");
            client.send(question.into()).await?;
        }
        for (_, client) in &mut clients {
            client.next().await.ok_or("the server hung up")??;
        }
    }
    server.abort();
    Ok(())
}

#[tokio::main]
async fn main() -> Outcome<ExitCode> {
    global::set_text_map_propagator(propagator_from_env()?);
    let exporter = InMemorySpanExporter::default();
    let sdk = SdkTracerProvider::builder().with_simple_exporter(exporter.clone());
    let provider = SessionTracerProvider::new(sdk.build());
    let otel = tracing_opentelemetry::layer().with_tracer(provider.tracer("websocket"));
    // The libraries create spans too.
    let own = filter_fn(|metadata| metadata.target().starts_with("websocket"));
    tracing_subscriber::registry()
        .with(SessionLayer::new().wrap_filtered(otel, own))
        .init();

    talk().await?;
    let spans = exporter.get_finished_spans()?;
    let mut found = 0;
    for id in CLIENTS {
        println!("session {id}:");
        for span in spans.iter().filter(|it| attribute(it, "session.id") == id) {
            println!(
                "  {:9}  {}  {}",
                span.name,
                span.span_context.trace_id(),
                attribute(span, "question")
            );
            let is_handshake = span.name == "handshake";
            let is_turn_of_client = attribute(span, "question").starts_with(id);
            let is_root = span.parent_span_id == SpanId::INVALID;
            if is_handshake || is_turn_of_client && is_root == (span.name == "answer") {
                found += 1;
            }
        }
    }
    let expected = CLIENTS.len() * (1 + 2 * TURNS);
    if found == expected && spans.len() == expected {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!(
        "{found} of {} spans are in their session and trace, not {expected}",
        spans.len()
    );
    Ok(ExitCode::FAILURE)
}

fn attribute(span: &SpanData, key: &str) -> String {
    let found = span.attributes.iter().find(|it| it.key.as_str() == key);
    found.map_or_else(String::new, |it| it.value.to_string())
}
