//! Sessions cross real servers and clients: axum, tonic and hyper; hyper's client, tonic's and
//! reqwest's.

mod clients;
mod inbound;
mod only_to;

use crate::support::{self, App, alone, values};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, Response, Version};
use axum::middleware;
use axum::routing::post;
use futures_util::future::join_all;
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt, stream};
use http_body::Body as _;
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming};
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use opentelemetry::Context;
use opentelemetry::propagation::TextMapCompositePropagator;
use opentelemetry::trace::{FutureExt, SpanId, TraceContextExt, TraceId};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SpanData;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Barrier};
use std::task::{self, Poll};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tonic::transport::{Endpoint, server::TcpIncoming};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tower::limit::ConcurrencyLimit;
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
use tracing::level_filters::LevelFilter;
use tracing::{Instrument, info_span};
use tracing_session::propagation::tower::{ServerBody, client, server};
use tracing_session::{InSession, Session, SessionLayer, SessionPropagator, current_session_id};
use tracing_subscriber::Layer;

/// Everything that can carry a session, so that nothing is missed that must not.
fn propagate() {
    let session = SessionPropagator::new().with_user();
    let session = session.with_header("x-session").unwrap();
    support::propagate(TextMapCompositePropagator::new(vec![
        Box::new(TraceContextPropagator::new()),
        Box::new(session),
    ]));
}

fn application() -> (App, Runtime) {
    propagate();
    // The spans of h2 are not of interest.
    let app = App::with_layer(|otel| {
        SessionLayer::new()
            .wrap(otel)
            .with_filter(LevelFilter::INFO)
    });
    let runtime = app.runtime();
    (app, runtime)
}

/// A span that is over at once.
fn work(name: &str) {
    info_span!("work", otel.name = name).in_scope(|| {});
}

fn chat(id: &str) -> Session {
    Session::new(id).unwrap()
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

async fn serve(router: Router) -> SocketAddr {
    let (listener, address) = listen().await;
    tokio::spawn(async { axum::serve(listener, router).await });
    address
}

/// A server of hyper's own, with one service for all connections.
async fn serve_hyper<S, B>(service: S) -> SocketAddr
where
    S: Service<hyper::Request<Incoming>, Response = Response<B>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send,
    B: http_body::Body<Data = Bytes, Error = Infallible> + Send + 'static,
{
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = TowerToHyperService::new(service.clone());
            let connection = hyper::server::conn::http1::Builder::new();
            tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
        }
    });
    address
}

fn hyper_client() -> HyperClient<HttpConnector, Body> {
    HyperClient::builder(TokioExecutor::new()).build_http()
}

fn request(uri: impl ToString, headers: &[(&str, &str)]) -> Request {
    let request = Request::post(uri.to_string());
    let with = |request: http::request::Builder, (name, value): &(&str, &str)| {
        request.header(*name, *value)
    };
    let request = headers.iter().fold(request, with);
    request.body(Body::empty()).unwrap()
}

async fn text(body: impl http_body::Body<Data = Bytes, Error: std::fmt::Debug>) -> String {
    let body = body.collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

/// Chunks that are made after the handler has returned.
fn chunks(name: &'static str, each: impl Fn() -> Bytes + Send) -> impl Stream<Item = Bytes> + Send {
    stream::iter(0..3).then(move |_| {
        let bytes = each();
        async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            work(name);
            bytes
        }
    })
}

/// Asserts that these spans are in the session, `times` of each, and gives the last one.
#[track_caller]
fn are_in(app: &App, session: &[&str], names: &[(&str, usize)]) -> SpanData {
    let spans = app.spans();
    let mut last = None;
    for (name, times) in names {
        let named: Vec<_> = spans.iter().filter(|span| span.name == *name).collect();
        assert_eq!(named.len(), *times, "{name} in\n{}", app.tree());
        for span in named {
            assert_eq!(values(span, "session.id"), session, "{}", app.tree());
            last = Some(span.clone());
        }
    }
    last.unwrap()
}

/// Asserts that no worker thread is left in a session or in a span.
fn workers_are_clean(runtime: &Runtime) {
    const WORKERS: usize = 4;
    let all_here = Arc::new(Barrier::new(WORKERS));
    let look = || {
        let all_here = all_here.clone();
        runtime.spawn(async move {
            // Each waits for the others, so each is on a thread of its own.
            all_here.wait();
            let cx = Context::current();
            (current_session_id(), cx.has_active_span())
        })
    };
    let found = (0..WORKERS).map(|_| look()).collect::<Vec<_>>();
    for found in runtime.block_on(join_all(found)) {
        assert_eq!(found.unwrap(), (None, false));
    }
}

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn trace() -> (TraceId, SpanId) {
    (
        TraceId::from(0x0af7651916cd43dd8448eb211c80319c),
        SpanId::from(0xb7ad6b7169203331),
    )
}

// Real servers, real clients

#[test]
fn session_and_trace_go_from_reqwest_to_axum() {
    let (app, runtime) = application();
    runtime.block_on(async {
        let router = Router::new()
            .route("/api", post(async || work("handler")))
            .layer(server());
        let address = serve(router).await;
        let client = reqwest_middleware::ClientBuilder::new(reqwest::Client::new())
            .with(tracing_session::propagation::reqwest::middleware())
            .build();
        let call = client.post(format!("http://{address}/api")).send();
        let session = chat("chat-42").with_user("u-7").unwrap();
        let turn = call.in_session(session).instrument(info_span!("caller"));
        assert!(turn.await.unwrap().status().is_success());
    });
    let handler = are_in(&app, &["chat-42"], &[("handler", 1)]);
    let caller = app.span("caller");
    assert_eq!(handler.parent_span_id, caller.span_context.span_id());
    assert_eq!(
        handler.span_context.trace_id(),
        caller.span_context.trace_id()
    );
    assert_eq!(values(&handler, "user.id"), ["u-7"]);
    workers_are_clean(&runtime);
}

#[test]
fn filter_keeps_spans_of_a_library_from_replacing_the_session_of_the_request() {
    propagate();
    for (is_filtered, expected) in [(false, "7"), (true, "chat-42")] {
        let app = App::with(|layer| match is_filtered {
            true => layer.with_opener_filter(|span| !span.target().starts_with("proxy")),
            false => layer,
        });
        let handler = |_: hyper::Request<ServerBody<String>>| {
            let library = info_span!(target: "proxy::protocol", "session", id = 7_u64);
            let answer = async {
                work("handler");
                Ok::<_, Infallible>(Response::new(String::new()))
            };
            answer.instrument(library)
        };
        let service = ServiceBuilder::new().layer(server()).service_fn(handler);
        let request = hyper::Request::post("/").header("x-session", "chat-42");
        let answer = service.oneshot(request.body(String::new()).unwrap());
        futures_util::FutureExt::now_or_never(answer)
            .unwrap()
            .unwrap();
        let spans = app.spans();
        let handler = spans.iter().find(|it| it.name == "handler").unwrap();
        assert_eq!(values(handler, "session.id"), [expected]);
    }
}

#[test]
fn session_and_trace_go_from_hypers_client_to_hypers_server() {
    let (app, runtime) = application();
    runtime.block_on(async {
        let handler = |request: hyper::Request<ServerBody<Incoming>>| {
            work("called");
            async move {
                work("polled");
                request.into_body().collect().await.unwrap();
                let body = chunks("streamed", Bytes::new).map(|it| Ok(Frame::data(it)));
                Ok::<_, Infallible>(Response::new(http_body_util::StreamBody::new(body)))
            }
        };
        let service = ServiceBuilder::new().layer(server());
        let address = serve_hyper(service.service_fn(handler)).await;
        let mut client = ServiceBuilder::new()
            .layer(client())
            .service(hyper_client());
        let answer = info_span!("caller").in_scope(|| {
            let uri = format!("http://{address}/");
            chat("chat-42").in_scope(|| client.call(request(uri, &[])))
        });
        text(answer.await.unwrap().into_body()).await;
    });
    let last = are_in(
        &app,
        &["chat-42"],
        &[("called", 1), ("polled", 1), ("streamed", 3)],
    );
    let caller = app.span("caller");
    assert_eq!(last.parent_span_id, caller.span_context.span_id());
    workers_are_clean(&runtime);
}

struct Agent;

impl Agent {
    fn healthy() -> HealthCheckResponse {
        HealthCheckResponse {
            status: ServingStatus::Serving.into(),
        }
    }
}

#[tonic::async_trait]
impl Health for Agent {
    async fn check(
        &self,
        request: tonic::Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<HealthCheckResponse>, tonic::Status> {
        work(&request.into_inner().service);
        Ok(tonic::Response::new(Self::healthy()))
    }

    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, tonic::Status>>;

    async fn watch(
        &self,
        _: tonic::Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<Self::WatchStream>, tonic::Status> {
        let answers = chunks("streamed", Bytes::new).map(|_| Ok(Self::healthy()));
        Ok(tonic::Response::new(answers.boxed()))
    }
}

#[test]
fn session_and_trace_go_from_tonic_to_tonic() {
    let (app, runtime) = application();
    runtime.block_on(async {
        let (listener, address) = listen().await;
        let service = HealthServer::new(Agent);
        let agents = tonic::transport::Server::builder()
            .layer(server())
            .add_service(service);
        tokio::spawn(agents.serve_with_incoming(TcpIncoming::from(listener)));

        let origin = format!("http://localhost:{}", address.port());
        let channel = Endpoint::from_shared(format!("http://{address}")).unwrap();
        let channel = channel.connect_lazy();
        let around = |layer| ServiceBuilder::new().layer(layer).service(channel.clone());
        let ask = |service: &str| HealthCheckRequest {
            service: service.to_owned(),
        };

        let session = chat("chat-42");
        let mut agent = HealthClient::new(around(client()));
        let check = agent.check(ask("check")).in_session(session.clone());
        check.instrument(info_span!("caller")).await.unwrap();
        let watch = agent.watch(ask("")).in_session(session.clone()).await;
        let answers = watch.unwrap().into_inner();
        assert_eq!(answers.collect::<Vec<_>>().await.len(), 3);

        // Its requests name their host only if it is told.
        let only = client().only_to(["localhost"]);
        let mut agent = HealthClient::new(around(only.clone()));
        let check = agent.check(ask("host unknown"));
        check.in_session(session.clone()).await.unwrap();
        let mut agent = HealthClient::with_origin(around(only), origin.parse().unwrap());
        let check = agent.check(ask("host known"));
        check.in_session(session).await.unwrap();
    });
    let session = &["chat-42"];
    are_in(&app, session, &[("streamed", 3), ("host known", 1)]);
    are_in(&app, &[], &[("host unknown", 1)]);
    let check = are_in(&app, session, &[("check", 1)]);
    let caller = app.span("caller");
    assert_eq!(check.parent_span_id, caller.span_context.span_id());
    workers_are_clean(&runtime);
}

// What belongs to a request

/// A body that says when it is polled.
struct Told<B>(B);

impl<B: http_body::Body + Unpin> http_body::Body for Told<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        work("read");
        Pin::new(&mut self.0).poll_frame(cx)
    }
}

#[test]
fn bodies_and_tasks_are_in_the_session() {
    let (app, runtime) = application();
    let handler = async |body: Body| {
        let in_task = async { work("task") }.with_context(Context::current());
        tokio::spawn(in_task).await.unwrap();
        // Not told of the session: the body knows it.
        let read = tokio::spawn(body.collect()).await.unwrap().unwrap();
        assert_eq!(read.to_bytes(), "onetwo");
        work("handler");
        Body::from_stream(chunks("streamed", || "chunk".into()).map(Ok::<_, Infallible>))
    };
    runtime.block_on(async {
        let tell = async |request: Request| request.map(|body| Body::new(Told(body)));
        let router = Router::new()
            .route("/", post(handler))
            .layer(server())
            .layer(middleware::map_request(tell));
        let address = serve(router).await;
        let mut request = request(format!("http://{address}/"), &[("x-session", "chat-42")]);
        let sent = stream::iter(["one", "two"]).then(async |chunk| {
            tokio::time::sleep(Duration::from_millis(1)).await;
            Ok::<_, Infallible>(chunk)
        });
        *request.body_mut() = Body::from_stream(sent);
        let answer = hyper_client().request(request).await.unwrap();
        assert_eq!(text(answer.into_body()).await, "chunkchunkchunk");
    });
    let names = [("task", 1), ("handler", 1), ("streamed", 3)];
    are_in(&app, &["chat-42"], &names);
    let reads = app.spans().iter().filter(|it| it.name == "read").count();
    assert!(reads >= 2);
    are_in(&app, &["chat-42"], &[("read", reads)]);
    workers_are_clean(&runtime);
}

/// So that a server writes its length, and no body where there is none.
#[test]
fn body_has_the_length_of_the_inner_one() {
    let echo = service_fn(async |request: http::Request<ServerBody<String>>| {
        let body = request.into_body();
        Ok::<_, Infallible>(Response::new(body))
    });
    let service = ServiceBuilder::new().layer(server()).service(echo);
    let (_app, runtime) = application();
    for (text, is_end) in [("onetwo", false), ("", true)] {
        let answer = service.clone().oneshot(http::Request::new(text.to_owned()));
        let body = runtime.block_on(answer).unwrap().into_body();
        assert_eq!(body.size_hint().exact(), Some(text.len() as u64));
        assert_eq!(body.is_end_stream(), is_end);
    }
}

#[test]
fn service_waits_until_the_inner_one_is_ready() {
    let (_app, runtime) = application();
    let work = service_fn(async |_: http::Request<ServerBody<String>>| {
        Ok::<_, Infallible>(Response::new(String::new()))
    });
    // It panics where it is called before it is ready.
    let one_at_a_time = ConcurrencyLimit::new(work, 1);
    let mut service = ServiceBuilder::new().layer(server()).service(one_at_a_time);
    runtime.block_on(async {
        let first = service
            .ready()
            .await
            .unwrap()
            .call(http::Request::default());
        let is_ready = |it: &mut _| {
            Service::<http::Request<String>>::poll_ready(
                it,
                &mut task::Context::from_waker(task::Waker::noop()),
            )
            .is_ready()
        };
        assert!(!is_ready(&mut service));
        first.await.unwrap();
        assert!(is_ready(&mut service));
    });
}

#[test]
fn interleaved_requests_on_one_connection_do_not_mix() {
    const REQUESTS: usize = 32;
    let (app, runtime) = application();
    runtime.block_on(async {
        let all_here = Arc::new(tokio::sync::Barrier::new(REQUESTS));
        let handler = async move |headers: HeaderMap| {
            let id = headers["x-session"].to_str().unwrap().to_owned();
            for _ in 0..3 {
                work(&id);
                all_here.wait().await;
                assert_eq!(current_session_id().as_deref(), Some(&*id));
            }
            Body::from_stream(stream::iter(0..3).then(move |_| {
                let (id, all_here) = (id.clone(), all_here.clone());
                async move {
                    all_here.wait().await;
                    work(&id);
                    Ok::<_, Infallible>(Bytes::from("chunk"))
                }
            }))
        };
        let address = serve(Router::new().route("/", post(handler)).layer(server())).await;

        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let client = ServiceBuilder::new().layer(client()).service_fn(|request| {
            let mut sender = sender.clone();
            async move { sender.send_request(request).await }
        });
        let call = async |id: usize| {
            let mut request = request(format!("http://{address}/"), &[]);
            *request.version_mut() = Version::HTTP_2;
            let answer = client.clone().oneshot(request);
            let answer = answer.in_session(chat(&format!("chat-{id}"))).await;
            text(answer.unwrap().into_body()).await
        };
        join_all((0..REQUESTS).map(call)).await;
    });
    for id in 0..REQUESTS {
        let id = format!("chat-{id}");
        are_in(&app, &[&id], &[(&id, 6)]);
    }
    workers_are_clean(&runtime);
}

#[test]
fn panic_leaves_no_session_behind() {
    let (app, runtime) = application();
    let handler = |request: hyper::Request<ServerBody<Incoming>>| {
        let at = request.uri().path().to_owned();
        work(&at);
        assert_ne!(at, "/call", "a panic that is meant");
        async move {
            assert_ne!(at, "/poll", "a panic that is meant");
            let body = stream::iter(0..2).map(|chunk| {
                assert_ne!(chunk, 1, "a panic that is meant");
                Ok(Frame::data(Bytes::from("chunk")))
            });
            Ok::<_, Infallible>(Response::new(http_body_util::StreamBody::new(body)))
        }
    };
    runtime.block_on(async {
        let service = ServiceBuilder::new().layer(server());
        let address = serve_hyper(service.service_fn(handler)).await;
        for at in ["/call", "/poll", "/body"].repeat(20) {
            let request = request(format!("http://{address}{at}"), &[("x-session", "chat-42")]);
            let read = match hyper_client().request(request).await {
                Ok(answer) => answer.into_body().collect().await.map(|_| ()).is_err(),
                Err(_) => true,
            };
            assert!(read, "{at} answered");
        }
    });
    workers_are_clean(&runtime);
    let names = [("/call", 20), ("/poll", 20), ("/body", 20)];
    are_in(&app, &["chat-42"], &names);
}

// Said once

/// Answers a request with these headers, by a server that is in force where it is called.
fn answered<T>(
    layer: tracing_session::propagation::tower::ServerLayer,
    headers: &[(&str, &str)],
    mut handler: impl FnMut() -> T,
) -> T {
    let mut answer = None;
    let service = |_| -> Ready<Result<Response<Body>, Infallible>> {
        answer = Some(handler());
        ready(Ok(Response::default()))
    };
    let mut service = ServiceBuilder::new().layer(layer).service_fn(service);
    drop(service.call(request("/", headers)));
    answer.unwrap()
}

#[test]
fn without_a_propagator_one_diagnostic_explains_it() {
    if !alone(test_name!(), &[]) {
        return;
    }
    let app = App::new();
    for _ in 0..3 {
        let inside = || answered(server(), &[("x-session", "secret-42")], current_session_id);
        assert_eq!(inside(), None);
        assert_eq!(chat("outer").in_scope(inside).as_deref(), Some("outer"));
        let service = service_fn(|request: Request| {
            assert!(request.headers().is_empty());
            ready(Ok::<_, Infallible>(Response::new(())))
        });
        let mut client = ServiceBuilder::new().layer(client()).service(service);
        drop(chat("outer").in_scope(|| client.call(request("/", &[]))));
    }
    app.exports_with_diagnostics(
        "",
        &[
            "headers carry no trace and no session because no propagator is set: call \
             `opentelemetry::global::set_text_map_propagator(propagator_from_env()?)`",
        ],
    );
}

#[test]
fn headers_with_an_invalid_id_are_ignored_with_one_warning() {
    if !alone(test_name!(), &[]) {
        return;
    }
    let (app, runtime) = application();
    runtime.block_on(async {
        let handler = async || current_session_id().unwrap_or_default();
        let router = Router::new().route("/", post(handler)).layer(server());
        let address = serve(router).await;
        let conflicting = [("x-session", "secret-1"), ("x-session", "secret-2")];
        let elsewhere = [
            ("x-session", "secret-1"),
            ("baggage", "session.id=secret-2"),
        ];
        let invalid = [("baggage", "session.id=secret%00")];
        let long = "secret".repeat(200);
        let too_long = [("x-session", &*long)];
        for headers in [&conflicting[..], &elsewhere, &invalid, &too_long].repeat(3) {
            let request = request(format!("http://{address}/"), headers);
            let answer = hyper_client().request(request).await.unwrap();
            assert_eq!(text(answer.into_body()).await, "");
        }
    });
    app.exports_with_diagnostics(
        "",
        &[
            "header `x-session` contains an id that is ignored: there are several ids, and they differ: make the \
             caller send one id",
            "header `baggage` contains a `session.id` that is ignored: id contains a control \
             or invisible character: remove it",
            "header `x-session` contains an id that is ignored: id is longer than 1024 bytes: \
             shorten it, or use a hash of it",
        ],
    );
    workers_are_clean(&runtime);
}
