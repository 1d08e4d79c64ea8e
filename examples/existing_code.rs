//! An application whose `tracing` spans already have session ids. Three lines in its setup, marked `// new`, export the
//! ids on every span.
//!
//!     cargo run --example existing_code
//!
//! It serves requests, sends some to itself, and prints the exported spans as a tree, with the session and user of
//! each. It fails if a span has no session.

use axum::Router;
use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode, header};
use axum::routing::{get, post};
use opentelemetry::trace::{SpanId, TracerProvider};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use std::error::Error;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tracing::{Instrument, Span, info_span, instrument};
use tracing_session::{SessionLayer, SessionTracerProvider}; // new
use tracing_subscriber::prelude::*;

fn set_up(exporter: InMemorySpanExporter) {
    let provider = SdkTracerProvider::builder()
        .with_simple_exporter(exporter)
        .build();
    let provider = SessionTracerProvider::new(provider); // new
    let otel = tracing_opentelemetry::layer().with_tracer(provider.tracer("support"));
    let otel = SessionLayer::new().wrap(otel); // new
    tracing_subscriber::registry().with(otel).init();
}

// The rest of the code doesn't change.

fn routes() -> Router {
    Router::new()
        .route("/conversations/{conversation}", post(chat))
        .route("/conversations/{conversation}/summary", get(summary))
}

/// The session id is in the request. The user is known after the login.
#[instrument(skip_all, fields(session.id = %conversation, user.id))]
async fn chat(
    Path(conversation): Path<String>,
    headers: HeaderMap,
) -> Result<&'static str, StatusCode> {
    let user = login(&headers).await.ok_or(StatusCode::UNAUTHORIZED)?;
    Span::current().record("user.id", user.as_str());
    let history = database::select("history").await;
    let saved = tokio::spawn(database::insert("history").in_current_span());
    let reply = complete(&history).await;
    saved.await.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok(reply)
}

/// The code creates this span by hand.
async fn summary(Path(conversation): Path<String>) -> &'static str {
    let span = info_span!("session", id = %conversation);
    async {
        let history = database::select("history").await;
        complete(&history).await
    }
    .instrument(span)
    .await
}

#[instrument(skip_all)]
async fn login(headers: &HeaderMap) -> Option<String> {
    database::select("users").await;
    let user = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    Some(user.to_owned())
}

#[instrument(skip_all)]
async fn complete(history: &str) -> &'static str {
    http_client::send(history).await;
    "Have you tried turning it off and on again?"
}

/// A library without any code for sessions.
mod database {
    #[tracing::instrument(name = "database::select")]
    pub(crate) async fn select(table: &str) -> String {
        tokio::task::yield_now().await;
        format!("all of {table}")
    }

    #[tracing::instrument(name = "database::insert")]
    pub(crate) async fn insert(table: &str) {
        tokio::task::yield_now().await;
    }
}

/// Another library.
mod http_client {
    #[tracing::instrument(name = "http_client::send", skip_all)]
    pub(crate) async fn send(_body: &str) {
        tokio::task::yield_now().await;
    }
}

// The rest is only for the example: the requests, and the check of the exported spans.

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    let exporter = InMemorySpanExporter::default();
    set_up(exporter.clone());

    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let server = listener.local_addr()?;
    tokio::spawn(async { axum::serve(listener, routes()).await });
    request(server, "POST /conversations/chat-42", "ada").await?;
    request(server, "POST /conversations/chat-43", "ben").await?;
    request(server, "GET /conversations/chat-42/summary", "ada").await?;

    let mut spans = exporter.get_finished_spans()?;
    spans.sort_by_key(|span| span.start_time);
    let is_root = |span: &&SpanData| span.parent_span_id == SpanId::INVALID;
    let roots: Vec<_> = spans.iter().filter(is_root).collect();
    let requested = ["chat-42", "chat-43", "chat-42"];
    let mut is_right = roots.len() == requested.len();
    for (root, session) in roots.into_iter().zip(requested) {
        is_right &= print_tree(root, &spans, session, 0);
    }
    if is_right && spans.iter().all(|it| attribute(it, "session.id") != NONE) {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("a span is missing, or does not carry the session that it should");
    Ok(ExitCode::FAILURE)
}

async fn request(server: SocketAddr, what: &str, user: &str) -> io::Result<()> {
    let mut connection = TcpStream::connect(server).await?;
    let head = format!(
        "{what} HTTP/1.1\r\nhost: {server}\r\nauthorization: {user}\r\nconnection: close\r\n\r\n"
    );
    connection.write_all(head.as_bytes()).await?;
    let mut response = String::new();
    connection.read_to_string(&mut response).await?;
    if response.starts_with("HTTP/1.1 200 ") {
        Ok(())
    } else {
        Err(io::Error::other(response))
    }
}

/// Prints the span and its descendants. True if all of them are in the right session.
fn print_tree(span: &SpanData, spans: &[SpanData], expected: &str, depth: usize) -> bool {
    let name = format!("{}{}", "  ".repeat(depth), span.name);
    let [session, user] = ["session.id", "user.id"].map(|key| attribute(span, key));
    println!("{name:22}  session.id={session}  user.id={user}");
    let mut marked = session == expected;
    for child in spans {
        if child.parent_span_id == span.span_context.span_id() {
            marked &= print_tree(child, spans, expected, depth + 1);
        }
    }
    marked
}

/// All values of the span under this key. A key that is exported twice shows.
fn attribute(span: &SpanData, key: &str) -> String {
    let found = span.attributes.iter().filter(|it| it.key.as_str() == key);
    let values: Vec<_> = found.map(|it| it.value.to_string()).collect();
    if values.is_empty() {
        NONE.to_owned()
    } else {
        values.join(" and ")
    }
}

const NONE: &str = "-";

/// A test for your own application.
#[cfg(all(test, feature = "testing"))]
mod tests {
    use super::*;
    use tracing_session::testing::capture;

    #[tokio::test(flavor = "multi_thread")]
    async fn spans_of_a_chat_are_in_its_session() {
        let headers = HeaderMap::from_iter([(header::AUTHORIZATION, "ada".parse().unwrap())]);
        let captured = capture(chat(Path("chat-42".to_owned()), headers)).await;
        captured.assert_all_in_session("chat-42");
    }

    #[tokio::test]
    async fn spans_of_a_summary_are_in_its_session() {
        let captured = capture(summary(Path("chat-42".to_owned()))).await;
        captured.assert_all_in_session("chat-42");
    }
}
