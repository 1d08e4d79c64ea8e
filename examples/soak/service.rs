//! A chat service, in a separate process.

use crate::Outcome;
use crate::ask::{Ask, Way};
use crate::faults;
use crate::pools;
use crate::report::{Figures, Say};
use crate::telemetry::{self, Kind, Provider};
use crate::want::{Want, wanted};
use crate::ways;
use axum::body::Body;
use axum::extract::{Extension, Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::post;
use axum::{Json, Router};
use http_body_util::BodyExt;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};
use std::{io, iter};
use tokio::net::TcpListener;
use tower::ServiceExt;
use tracing::{Instrument, Span, info_span};

/// The header with the expected values of the request's span.
pub(crate) const WANT: &str = "x-want";

#[derive(Clone)]
pub(crate) struct App {
    peer: Arc<OnceLock<SocketAddr>>,
    client: tracing_session::propagation::tower::Client<Client<HttpConnector, String>>,
}

/// The span of the request.
#[derive(Clone)]
pub(crate) struct Root(pub(crate) Span);

impl App {
    fn new() -> Self {
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .build_http();
        Self {
            peer: Arc::default(),
            client: tower_layer::Layer::layer(
                &tracing_session::propagation::tower::client(),
                client,
            ),
        }
    }

    /// Calls the other service, with the current session in the headers.
    pub(crate) async fn call(&self, session: Option<&str>) {
        let Some(peer) = self.peer.get() else { return };
        let want = Want {
            way: Way::Call,
            session: session.map(str::to_owned),
            ..Want::default()
        };
        let Ok(want) = serde_json::to_vec(&want) else {
            return;
        };
        let request = Request::post(format!("http://{peer}/tool"))
            .header(WANT, want)
            .body(String::new());
        let Ok(request) = request else { return };
        if let Ok(response) = self.client.clone().oneshot(request).await {
            drop(response.into_body().collect().await);
        }
    }
}

/// After so long a connection that nobody uses is closed.
const IDLE: Duration = Duration::from_millis(500);

fn routes(app: App) -> Router {
    Router::new()
        .route("/chat", post(chat))
        .route("/tool", post(tool))
        .with_state(app)
        .layer(from_fn(in_a_span))
        .layer(tracing_session::propagation::tower::server())
}

/// Creates the span of a request, like a middleware without any code for sessions.
async fn in_a_span(mut request: Request, next: Next) -> Response {
    let want = request.headers().get(WANT).map(|it| it.as_bytes());
    let want = want.and_then(|want| serde_json::from_slice::<Want>(want).ok());
    let want = want.unwrap_or_default();
    let span = wanted!(want, info_span!("request"));
    request.extensions_mut().insert(Root(span.clone()));
    request.extensions_mut().insert(want);
    next.run(request).instrument(span).await
}

async fn chat(
    State(app): State<App>,
    Extension(root): Extension<Root>,
    Json(ask): Json<Ask>,
) -> Result<Body, (StatusCode, String)> {
    let answer = ways::turn(ask, app, root).await;
    let answer = answer.map_err(|error| (StatusCode::BAD_REQUEST, error.to_string()))?;
    Ok(Body::from_stream(answer))
}

async fn tool(Extension(want): Extension<Want>) -> &'static str {
    want.is_seen("in a tool");
    drop(want.plain_span("library of a tool"));
    let tool = wanted!(want, info_span!("tool"));
    tokio::task::yield_now().instrument(tool).await;
    "done"
}

/// Serves until its standard input ends, and does what it is asked for there.
pub(crate) fn run(kind: Kind, collector: &str) -> Outcome {
    faults::watch();
    let provider = telemetry::set_up(kind, collector)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(4)
        .on_thread_start(warm_up)
        .enable_all()
        .build()?;
    let app = App::new();
    let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
    Say::Listening(listener.local_addr()?).aloud();
    let routes = routes(app.clone());
    runtime.spawn(async { axum::serve(listener, routes).await });
    thread::spawn(pools::reload_for_ever);

    for line in io::stdin().lines() {
        match line?.split_once(' ') {
            Some(("peer", address)) => drop(app.peer.set(address.parse()?)),
            _ => Say::Settled(settled(&provider)).aloud(),
        }
    }
    drop(runtime);
    // The SDK reports how many spans it has dropped.
    provider.shutdown()?;
    Say::Stopped(Figures::now()).aloud();
    Ok(())
}

/// The registry of `tracing-subscriber` keeps a place for as many spans as a thread has ever had open
/// at once, and hands these places out in turns: each is made when its turn first comes. Here they all
/// are, so that later nothing grows.
fn warm_up() {
    /// Its first four pages.
    const PLACES: usize = 32 + 64 + 128 + 256;
    let span = || wanted!(Want::default(), info_span!("warm up"));
    drop(Vec::from_iter(iter::repeat_with(span).take(PLACES)));
}

/// What is in use once there is nothing to do any more: all spans have ended, and were exported.
fn settled(provider: &Provider) -> Figures {
    let until = Instant::now() + Duration::from_secs(20);
    let mut quiet = 0;
    while quiet < 10 && Instant::now() < until {
        let (started, ended) = telemetry::spans();
        quiet = if started == ended { quiet + 1 } else { 0 };
        thread::sleep(IDLE / 5);
    }
    // An export that fails is counted where it fails.
    let _failed = provider.force_flush();
    thread::sleep(IDLE);
    Figures::now()
}
