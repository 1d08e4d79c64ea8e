//! A chat in the browser, whose conversations Phoenix shows as sessions.
//!
//!     cargo run --example chat --features otlp
//!
//! and open <http://127.0.0.1:8008> (`CHAT_ADDR` changes the address). It needs no network: `model.rs`
//! replaces the model. It sends the spans
//!
//! - to `OTEL_EXPORTER_OTLP_ENDPOINT`, if it is set;
//! - otherwise to a Phoenix at <http://127.0.0.1:6006>, if one runs: project `chat`, tab Sessions;
//! - otherwise to the receiver of the quickstart, and prints a table of the received spans at the end (Ctrl-C).
//!
//! (If `HTTP_PROXY` is set, set `NO_PROXY=127.0.0.1` too.)
//!
//! `--demo` runs a few conversations with its own server over HTTP, and fails if the receiver gets wrong spans.
//!
//! One function sets the session: `chat` below. `agent.rs`, which creates the spans, contains no code for sessions.

mod agent;
mod demo;
mod login;
mod model;
#[path = "../quickstart/receiver.rs"]
mod receiver;
mod report;
mod telemetry;

use agent::Message;
use axum::http::StatusCode;
use axum::response::Html;
use axum::response::sse::{Event, Sse};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::{FutureExt, Stream, StreamExt};
use login::User;
use serde::Deserialize;
use std::env;
use std::error::Error;
use std::process::ExitCode;
use tokio::net::TcpListener;
use tracing_session::{InSession, Session};

type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// The request of the page: the conversation so far, with the new question at the end.
#[derive(Deserialize)]
struct Ask {
    conversation: String,
    messages: Vec<Message>,
}

/// Answers word by word, as server-sent events.
async fn chat(
    User(user): User,
    Json(ask): Json<Ask>,
) -> Result<Sse<impl Stream<Item = Result<Event, axum::Error>>>, (StatusCode, String)> {
    // The page generates the id. If your server stores conversations, check here that this one belongs to the user.
    let session = session_of(&ask.conversation, &user)
        .map_err(|error| (StatusCode::BAD_REQUEST, error.to_string()))?;
    let words = agent::answer(ask.messages).flatten_stream();
    let events = words.map(|word| Event::default().json_data(word));
    // Around the body and not around this function, which has returned when the body is polled.
    Ok(Sse::new(events.in_session(session)))
}

/// Sets all values of the session.
fn session_of(conversation: &str, user: &str) -> Result<Session, tracing_session::Error> {
    Session::new(conversation)?
        .with_user(user)?
        .with_metadata("tenant", "acme")?
        .with_tags(["web"])
}

fn routes() -> Router {
    Router::new()
        .route("/", get(Html(include_str!("page.html"))))
        .route("/chat", post(chat))
        .route(
            "/user",
            get(login::name).post(login::log_in).delete(login::log_out),
        )
}

#[tokio::main]
async fn main() -> Outcome<ExitCode> {
    let is_demo = env::args().any(|argument| argument == "--demo");
    let destination = telemetry::destination(is_demo).await?;
    println!("Spans go to {}.", destination.name);
    // The whole setup.
    let telemetry = destination.pipeline.install()?;

    let address = if is_demo {
        "127.0.0.1:0".to_owned()
    } else {
        env::var("CHAT_ADDR").unwrap_or_else(|_| "127.0.0.1:8008".to_owned())
    };
    let listener = TcpListener::bind(address).await?;
    let url = format!("http://{}", listener.local_addr()?);
    println!("The chat is at {url}");
    let server = axum::serve(listener, routes());

    if is_demo {
        tokio::spawn(async { server.await });
        let is_right = demo::run(&url, &telemetry, destination.receiver.as_ref()).await?;
        telemetry.shutdown()?;
        return Ok(if is_right {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        });
    }
    let stop = async { drop(tokio::signal::ctrl_c().await) };
    server.with_graceful_shutdown(stop).await?;
    // Sends the last spans, and returns an error if they don't arrive.
    telemetry.shutdown()?;
    if let Some(receiver) = destination.receiver {
        report::print(&receiver.spans());
    }
    Ok(ExitCode::SUCCESS)
}
