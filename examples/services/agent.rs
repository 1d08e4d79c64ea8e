//! The agent: a gRPC service with one method, and its client.
//!
//! Service and client are the code that `tonic-prost-build` would generate for
//!
//! ```proto
//! package services;
//! service Agent {
//!   rpc Answer(google.protobuf.StringValue) returns (google.protobuf.StringValue);
//! }
//! ```
//!
//! but written by hand, because generating it needs `protoc`. For `prost`, a `String` is a `StringValue`.

use crate::service::{Outcome, stopped};
use crate::worker::{Job, Queue};
use axum::Router;
use axum::extract::State;
use axum::http::uri::PathAndQuery;
use axum::routing::post;
use std::net::{SocketAddr, TcpListener};
use tokio::sync::watch;
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status, client, server};
use tonic_prost::ProstCodec;
use tower::{ServiceBuilder, service_fn};
use tracing::instrument;
use tracing_session::propagation::tower::Client;

const ANSWER: &str = "/services.Agent/Answer";
type Codec = ProstCodec<String, String>;

/// Cloned for each call. All clones share the connection.
#[derive(Clone)]
pub(crate) struct AgentClient(client::Grpc<Client<Channel>>);

impl AgentClient {
    pub(crate) fn new(agent: SocketAddr) -> Outcome<Self> {
        let channel = Endpoint::try_from(format!("http://{agent}"))?.connect_lazy();
        let channel = ServiceBuilder::new()
            // Injects the current context into every call.
            .layer(tracing_session::propagation::tower::client())
            .service(channel);
        Ok(Self(client::Grpc::new(channel)))
    }

    pub(crate) async fn answer(mut self, question: String) -> Result<String, Status> {
        self.0
            .ready()
            .await
            .map_err(|error| Status::unavailable(error.to_string()))?;
        let path = PathAndQuery::from_static(ANSWER);
        let answer = self.0.unary(Request::new(question), path, Codec::default());
        Ok(answer.await?.into_inner())
    }
}

pub(crate) async fn serve(
    listener: TcpListener,
    queue: Queue,
    until: watch::Receiver<()>,
) -> Outcome {
    let routes = Router::new().route(ANSWER, post(call)).with_state(queue);
    let incoming = TcpIncoming::from(tokio::net::TcpListener::from_std(listener)?);
    Server::builder()
        .layer(tracing_session::propagation::tower::server())
        .add_routes(Routes::from(routes))
        .serve_with_incoming_shutdown(incoming, stopped(until))
        .await?;
    Ok(())
}

/// Handles every call of the method.
async fn call(
    State(queue): State<Queue>,
    request: axum::extract::Request,
) -> axum::http::Response<tonic::body::Body> {
    let method = service_fn(|question: Request<String>| answer(question, queue.clone()));
    server::Grpc::new(Codec::default())
        .unary(method, request)
        .await
}

#[instrument(skip_all)]
async fn answer(question: Request<String>, queue: Queue) -> Result<Response<String>, Status> {
    let answer = ask_model(question.get_ref()).await;
    let job = Job::new(question.into_inner());
    job.enqueue(&queue)
        .map_err(|error| Status::internal(error.to_string()))?;
    Ok(Response::new(answer))
}

#[instrument(skip_all)]
async fn ask_model(_question: &str) -> String {
    tokio::task::yield_now().await;
    "Sunny and 24 degrees.".to_owned()
}
