//! A backend that keeps the spans that it receives, over the real protocol.

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::TcpListener;

/// An OTLP receiver for traces: HTTP with protobuf, on a free port.
pub(crate) struct Receiver {
    address: SocketAddr,
    spans: Spans,
}

type Spans = Arc<Mutex<Vec<Span>>>;

impl Receiver {
    pub(crate) async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let spans = Spans::default();
        let router = Router::new()
            .route("/v1/traces", post(receive))
            .with_state(spans.clone());
        tokio::spawn(async { axum::serve(listener, router).await });
        Ok(Self { address, spans })
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/v1/traces", self.address)
    }

    /// The spans that have arrived so far.
    pub(crate) fn spans(&self) -> Vec<Span> {
        self.spans
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// The empty body of the answer is an `ExportTraceServiceResponse` without errors.
async fn receive(State(spans): State<Spans>, body: Bytes) -> StatusCode {
    let Ok(request) = ExportTraceServiceRequest::decode(body) else {
        return StatusCode::BAD_REQUEST;
    };
    let scopes = request
        .resource_spans
        .into_iter()
        .flat_map(|it| it.scope_spans);
    spans
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .extend(scopes.flat_map(|it| it.spans));
    StatusCode::OK
}
