//! Services that call each other: what Python's samples do with FastAPI, Flask and httpx, done with axum, hyper and reqwest.
//! The middleware for all endpoints is `tower::session_and_trace_go_from_reqwest_to_axum`, and TraceCtrl's header
//! `propagation::inbound::agent_called_with_tracectrls_header_is_in_the_callers_session`.

use super::{call_model, call_model_async, propagate};
use crate::support::{self, App};
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, Request, Response};
use axum::routing::post;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use reqwest_middleware::ClientWithMiddleware;
use std::convert::Infallible;
use std::net::Ipv4Addr;
use tokio::net::TcpListener;
use tracing::{Instrument, info_span};
use tracing_session::{
    InSession, Session, current_session_id,
    propagation::{PropagatedContext, WithPropagated, inject_context, propagated_context},
    set_session_id,
};

const TRACECTRL_HEADER: &str = "X-TraceCtrl-Session";

async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = format!("http://{}/api", listener.local_addr().unwrap());
    (listener, url)
}

/// Serves from a task, where nothing is in force but what a request says.
async fn serve(routes: Router) -> String {
    let (listener, url) = listen().await;
    tokio::spawn(async { axum::serve(listener, routes).await });
    url
}

fn plain_client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}

fn client() -> ClientWithMiddleware {
    reqwest_middleware::ClientBuilder::new(plain_client())
        .with(tracing_session::propagation::reqwest::middleware())
        .build()
}

#[tracing::instrument(name = "client", skip_all)]
async fn ask(url: &str) {
    let response = client().post(url).send().await.unwrap();
    assert!(response.status().is_success());
}

fn user_session() -> Session {
    crate::support::session("user-session-123")
}

const ONE_TREE: &str = "
    client session.id=user-session-123
      call session.id=user-session-123
        http session.id=user-session-123
    ";

// Mirascope

/// Mirascope: an endpoint of FastAPI puts in force what the request's headers say.
#[tokio::test]
async fn mirascope_endpoint_extracts_from_its_request() {
    propagate();
    let app = App::new();
    let endpoint = async |headers: HeaderMap| call_model_async().with_propagated(&headers).await;
    let url = serve(Router::new().route("/api", post(endpoint))).await;
    ask(&url).in_session(user_session()).await;
    app.exports(ONE_TREE);
}

/// Mirascope: a function that Flask calls before each request keeps the context with the request, and
/// the view puts it in force. Here in a server of plain hyper, without any framework.
#[tokio::test]
async fn mirascope_server_keeps_the_context_with_the_request() {
    fn before_request(request: &mut Request<Incoming>) {
        let propagated = propagated_context(request.headers());
        request.extensions_mut().insert(propagated);
    }
    fn view(request: &Request<Incoming>) -> Response<String> {
        let propagated = request.extensions().get::<PropagatedContext>();
        propagated.unwrap().clone().in_scope(call_model);
        Response::new(String::new())
    }
    propagate();
    let app = App::new();
    let (listener, url) = listen().await;
    tokio::spawn(async move {
        let (connection, _) = listener.accept().await.unwrap();
        let service = service_fn(async |mut request| {
            before_request(&mut request);
            Ok::<_, Infallible>(view(&request))
        });
        let connection = TokioIo::new(connection);
        let server = hyper::server::conn::http1::Builder::new();
        server.serve_connection(connection, service).await
    });
    ask(&url).in_session(user_session()).await;
    app.exports(ONE_TREE);
}

/// Mirascope: a client around that of httpx adds the headers to those that its caller gives.
#[tokio::test]
async fn mirascope_client_injects_into_every_request() {
    struct TracedClient(reqwest::Client);

    impl TracedClient {
        async fn post(&self, url: &str, mut headers: HeaderMap) -> String {
            inject_context(&mut headers);
            let response = self.0.post(url).headers(headers).send().await;
            response.unwrap().text().await.unwrap()
        }
    }

    propagate();
    let app = App::new();
    let endpoint = async |headers: HeaderMap| {
        call_model_async().with_propagated(&headers).await;
        headers["accept-language"].to_str().unwrap().to_owned()
    };
    let url = serve(Router::new().route("/api", post(endpoint))).await;
    let client = TracedClient(plain_client());
    let call_downstream_service = async || {
        let headers = [("accept-language", "de")];
        let headers = headers.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        let answer = client.post(&url, HeaderMap::from_iter(headers));
        assert_eq!(answer.instrument(info_span!("client")).await, "de");
    };
    call_downstream_service().in_session(user_session()).await;
    app.exports(ONE_TREE);
}

/// Mirascope: services in a row, each of which calls the next, share the trace and the session. Those
/// that run at the same time do not mix.
#[test]
fn mirascope_services_in_a_row_share_one_trace() {
    #[tracing::instrument(skip_all, fields(name = name))]
    async fn service(State((name, next)): State<(&'static str, Option<String>)>) {
        if let Some(next) = next {
            client().post(next).send().await.unwrap();
        }
    }
    propagate();
    let app = App::new();
    app.runtime().block_on(async {
        let mut next = None;
        for name in ["data", "logic", "auth", "gateway"] {
            let routes = Router::new()
                .route("/api", post(service))
                .layer(tracing_session::propagation::tower::server())
                .with_state((name, next.take()));
            next = Some(serve(routes).await);
        }
        let gateway = next.unwrap();
        let requests = ["a", "b", "c"].map(|id| {
            let gateway = gateway.clone();
            let ask = async move { ask(&gateway).await };
            tokio::spawn(ask.in_session(crate::support::session(id)))
        });
        for request in requests {
            request.await.unwrap();
        }
    });
    let tree_of = |id| {
        format!(
            "client session.id={id}\
             \n  service name=gateway session.id={id}\
             \n    service name=auth session.id={id}\
             \n      service name=logic session.id={id}\
             \n        service name=data session.id={id}\n"
        )
    };
    let tree = app.tree();
    for id in ["a", "b", "c"] {
        assert!(tree.contains(&tree_of(id)), "{tree}");
    }
    assert_eq!(tree.lines().count(), 15, "{tree}");
}

// TraceCtrl

/// TraceCtrl: the same by hand, where the propagator knows of traces only. A session is set on a span,
/// so agent B has one (C4).
#[tokio::test]
async fn tracectrl_agents_share_session_and_trace_by_hand() {
    #[tracing::instrument(skip_all)]
    async fn agent_a(url: &str) {
        set_session_id("user-session-123").unwrap();
        let mut headers = HeaderMap::new();
        inject_context(&mut headers);
        let id = current_session_id().unwrap();
        headers.insert(TRACECTRL_HEADER, id.parse().unwrap());
        let request = plain_client().post(url).headers(headers);
        request.send().await.unwrap();
    }
    #[tracing::instrument(skip_all)]
    async fn agent_b(headers: &HeaderMap) {
        set_session_id(headers[TRACECTRL_HEADER].to_str().unwrap()).unwrap();
        call_model_async().await;
    }

    support::propagate(TraceContextPropagator::new());
    let app = App::new();
    let endpoint = async |headers: HeaderMap| agent_b(&headers).with_propagated(&headers).await;
    let url = serve(Router::new().route("/api", post(endpoint))).await;
    agent_a(&url).await;
    app.exports(
        "
        agent_a session.id=user-session-123
          agent_b session.id=user-session-123
            call session.id=user-session-123
              http session.id=user-session-123
        ",
    );
}
