//! The gateway: it serves HTTP and calls a gRPC service.

use crate::agent::AgentClient;
use crate::service::{Outcome, stopped};
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use std::net::{SocketAddr, TcpListener};
use tokio::sync::watch;
use tracing::instrument;

pub(crate) async fn serve(
    listener: TcpListener,
    agent: SocketAddr,
    until: watch::Receiver<()>,
) -> Outcome {
    let routes = Router::new()
        .route("/chat", post(chat))
        .with_state(AgentClient::new(agent)?)
        // Makes the session in the request current for its handler.
        .layer(tracing_session::propagation::tower::server());
    let listener = tokio::net::TcpListener::from_std(listener)?;
    axum::serve(listener, routes)
        .with_graceful_shutdown(stopped(until))
        .await?;
    Ok(())
}

#[instrument(skip_all)]
async fn chat(State(agent): State<AgentClient>, question: String) -> Result<String, StatusCode> {
    login().await;
    agent
        .answer(question)
        .await
        .map_err(|_| StatusCode::BAD_GATEWAY)
}

#[instrument]
async fn login() {
    tokio::task::yield_now().await;
}
