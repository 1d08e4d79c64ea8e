//! A service in Rust with this crate, which has the session in W3C baggage, under the keys of its arguments too, and in Mirascope's header.
//!
//! It is run by `languages.py`.

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use opentelemetry::propagation::TextMapCompositePropagator;
use opentelemetry::trace::{SpanContext, TraceContextExt, TracerProvider};
use opentelemetry::{Context, global};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};
use serde_json::{Map, Value, json};
use std::error::Error;
use std::net::Ipv4Addr;
use tokio::net::TcpListener;
use tracing::instrument;
use tracing_session::{
    InSession, Session, SessionLayer, SessionPropagator, SessionTracerProvider, current_session_id,
    propagation::{SESSION_HEADER_NAME, WithPropagated, inject_context},
};
use tracing_subscriber::prelude::*;

const RELEVANT: [&str; 4] = [
    "traceparent",
    "tracestate",
    "baggage",
    "mirascope-session-id",
];

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder()
        .with_simple_exporter(exporter.clone())
        .build();
    let provider = SessionTracerProvider::new(provider);
    let otel = tracing_opentelemetry::layer().with_tracer(provider.tracer("peer"));
    let otel = SessionLayer::new().wrap(otel);
    tracing_subscriber::registry().with(otel).init();
    let mut sessions = SessionPropagator::new().with_header(SESSION_HEADER_NAME)?;
    for key in std::env::args().skip(1) {
        sessions = sessions.with_baggage_key(key)?;
    }
    global::set_text_map_propagator(TextMapCompositePropagator::new(vec![
        Box::new(TraceContextPropagator::new()),
        Box::new(sessions),
    ]));

    let routes = Router::new()
        .route("/start", post(started))
        .route("/hop", post(called))
        .with_state(exporter);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    println!("{}", listener.local_addr()?.port());
    axum::serve(listener, routes).await?;
    Ok(())
}

type Answer = Result<String, Failed>;

/// Opens the session that the body names, if any.
async fn started(exporter: State<InMemorySpanExporter>, body: String) -> Answer {
    let asked: Value = serde_json::from_str(&body)?;
    let session = asked["session_id"].as_str().map(Session::new);
    let hop = match session.transpose()? {
        Some(session) => hop(&asked["next"]).in_session(session).await,
        None => hop(&asked["next"]).await,
    };
    answer(&exporter, &HeaderMap::new(), hop?)
}

/// Goes on in the session that the headers name, if any.
async fn called(exporter: State<InMemorySpanExporter>, headers: HeaderMap, body: String) -> Answer {
    let asked: Value = serde_json::from_str(&body)?;
    let hop = hop(&asked["next"]).with_propagated(&headers).await;
    answer(&exporter, &headers, hop?)
}

/// What was done in the span of a request.
struct Hop {
    span: SpanContext,
    session_id: Option<String>,
    sent: HeaderMap,
    after: Vec<Value>,
}

#[instrument(skip_all)]
async fn hop(next: &Value) -> Result<Hop, Failed> {
    let mut sent = HeaderMap::new();
    inject_context(&mut sent);
    Ok(Hop {
        span: Context::current().span().span_context().clone(),
        session_id: current_session_id(),
        after: call(next, sent.clone()).await?,
        sent,
    })
}

/// The records of the service at the first address, and of those after it.
async fn call(next: &Value, headers: HeaderMap) -> Result<Vec<Value>, Failed> {
    let Some([url, next @ ..]) = next.as_array().map(Vec::as_slice) else {
        return Ok(Vec::new());
    };
    let request = reqwest::Client::new()
        .post(url.as_str().unwrap_or_default())
        .headers(headers)
        .body(json!({ "next": next }).to_string());
    let response = request.send().await?.error_for_status()?;
    Ok(serde_json::from_str(&response.text().await?)?)
}

fn answer(exporter: &InMemorySpanExporter, received: &HeaderMap, hop: Hop) -> Answer {
    let spans = exporter.get_finished_spans()?;
    let span = spans
        .into_iter()
        .find(|span| span.span_context == hop.span)
        .ok_or("the span was not exported")?;
    let mut exported = span.attributes.iter();
    let exported = exported
        .find(|attribute| attribute.key.as_str() == "session.id")
        .map(|attribute| attribute.value.to_string());
    if exported != hop.session_id {
        return Err(format!("{:?} in force, {exported:?} exported", hop.session_id).into());
    }
    let record = json!({
        "language": "Rust",
        "session_id": exported,
        "trace_id": hop.span.trace_id().to_string(),
        "received": relevant(received),
        "sent": relevant(&hop.sent),
        "error": null,
    });
    Ok(json!([&[record], hop.after.as_slice()].concat()).to_string())
}

fn relevant(headers: &HeaderMap) -> Map<String, Value> {
    let headers = headers
        .iter()
        .filter(|(name, _)| RELEVANT.contains(&name.as_str()));
    headers
        .map(|(name, value)| {
            (
                name.to_string(),
                json!(String::from_utf8_lossy(value.as_bytes())),
            )
        })
        .collect()
}

/// What went wrong, to be told of. The answer then fails the test.
struct Failed(Box<dyn Error + Send + Sync>);

impl<E: Into<Box<dyn Error + Send + Sync>>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        eprintln!("{:?}", self.0);
        StatusCode::INTERNAL_SERVER_ERROR.into_response()
    }
}
