//! The other end: takes traces over HTTP and over gRPC, on one port, and keeps what it is sent.

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use prost::Message;
use std::fmt::Debug;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Arc, Mutex};
use tokio::runtime::Runtime;
use tonic::service::Routes;

pub struct Receiver {
    url: String,
    requests: Requests,
    _runtime: Runtime,
}

/// The headers of a request, and what was in it.
type Requests = Arc<Mutex<Vec<(HeaderMap, ExportTraceServiceRequest)>>>;

impl Receiver {
    pub fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        Self::serving(url, || tokio::net::TcpListener::from_std(listener).unwrap())
    }

    /// At a socket of this machine.
    #[cfg(unix)]
    pub fn start_at(socket: &std::path::Path) -> Self {
        let listener = std::os::unix::net::UnixListener::bind(socket).unwrap();
        listener.set_nonblocking(true).unwrap();
        Self::serving(format!("unix://{}", socket.display()), || {
            tokio::net::UnixListener::from_std(listener).unwrap()
        })
    }

    fn serving<L>(url: String, listener: impl FnOnce() -> L + Send + 'static) -> Self
    where
        L: axum::serve::Listener,
        L::Addr: Debug,
    {
        let requests = Requests::default();
        let grpc = Routes::new(TraceServiceServer::new(Grpc(requests.clone())));
        let router = Router::new()
            .route("/v1/traces", post(http))
            .with_state(requests.clone())
            .route("/refused/v1/traces", post(StatusCode::UNAUTHORIZED))
            .merge(grpc.into_axum_router());
        let runtime = Runtime::new().unwrap();
        runtime.spawn(async { axum::serve(listener(), router).await });
        Self {
            url,
            requests,
            _runtime: runtime,
        }
    }

    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// A line for each span that has arrived: its name, session and user.
    pub fn spans(&self) -> Vec<String> {
        self.spans_with(&["session.id", "user.id"])
    }

    /// A line for each span that has arrived: its name, and the values of these attributes.
    pub fn spans_with(&self, keys: &[&str]) -> Vec<String> {
        let requests = self.requests.lock().unwrap();
        let scopes = requests
            .iter()
            .flat_map(|(_, request)| &request.resource_spans)
            .flat_map(|resource| &resource.scope_spans);
        let line = |span: &opentelemetry_proto::tonic::trace::v1::Span| {
            let values = keys.iter().map(|key| value(&span.attributes, key));
            format!("{} {}", span.name, values.collect::<Vec<_>>().join(" "))
        };
        scopes.flat_map(|scope| &scope.spans).map(line).collect()
    }

    /// An attribute of what has sent the spans: the same in each request.
    #[track_caller]
    pub fn resource(&self, key: &str) -> String {
        let requests = self.requests.lock().unwrap();
        let resources = requests
            .iter()
            .flat_map(|(_, request)| &request.resource_spans)
            .filter_map(|spans| spans.resource.as_ref());
        let values = resources.map(|it| value(&it.attributes, key));
        one(values.collect())
    }

    /// A header: the same in each request.
    #[track_caller]
    pub fn header(&self, name: &str) -> String {
        let requests = self.requests.lock().unwrap();
        let values = requests.iter().map(|(headers, _)| {
            let values = headers.get_all(name).iter();
            let values: Vec<_> = values.map(|value| value.to_str().unwrap()).collect();
            values.join(" and ")
        });
        one(values.collect())
    }
}

#[track_caller]
fn one(mut values: Vec<String>) -> String {
    values.dedup();
    assert_eq!(values.len(), 1, "{values:?}");
    values.remove(0)
}

fn value(attributes: &[KeyValue], key: &str) -> String {
    let values = attributes.iter().filter(|attribute| attribute.key == key);
    let text = |attribute: &KeyValue| match &attribute.value {
        Some(AnyValue {
            value: Some(Value::StringValue(text)),
        }) => text.clone(),
        other => format!("{other:?}"),
    };
    let values: Vec<_> = values.map(text).collect();
    match values.is_empty() {
        true => "-".to_owned(),
        false => values.join(" and "),
    }
}

async fn http(State(requests): State<Requests>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let Ok(request) = ExportTraceServiceRequest::decode(body) else {
        return StatusCode::BAD_REQUEST;
    };
    requests.lock().unwrap().push((headers, request));
    StatusCode::OK
}

struct Grpc(Requests);

#[tonic::async_trait]
impl TraceService for Grpc {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        let (metadata, _, request) = request.into_parts();
        let received = (metadata.into_headers(), request);
        self.0.lock().unwrap().push(received);
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}
