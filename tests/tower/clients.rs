//! Headers that clients write: the mark of sensitive values, and redirects.

use crate::tower::{application, chat, propagate, request, serve};
use axum::Router;
use axum::extract::Request;
use axum::http::{Extensions, HeaderMap, Response, StatusCode, header};
use opentelemetry::Context;
use opentelemetry::trace::FutureExt;
use std::convert::Infallible;
use std::future::ready;
use std::sync::{Arc, Mutex};
use tonic::async_trait;
use tracing_session::propagation::reqwest::middleware;
use tracing_session::propagation::tower::client;

fn assert_sensitive(headers: &HeaderMap) {
    for name in ["baggage", "x-session"] {
        assert!(headers[name].is_sensitive(), "{name}");
    }
    assert!(!format!("{headers:?}").contains("secret-42"));
}

#[test]
fn headers_of_a_tower_client_are_marked_sensitive() {
    propagate();
    let mut sent = HeaderMap::new();
    let service = |request: Request| {
        sent = request.headers().clone();
        ready(Ok::<_, Infallible>(Response::new(())))
    };
    let mut client = tower::ServiceBuilder::new()
        .layer(client())
        .service_fn(service);
    let request = request("http://agents.internal/", &[]);
    drop(chat("secret-42").in_scope(|| tower::Service::call(&mut client, request)));
    assert_sensitive(&sent);
}

/// Keeps the headers that the middleware before it has written.
#[derive(Clone, Default)]
struct Sent(Arc<Mutex<HeaderMap>>);

#[async_trait]
impl reqwest_middleware::Middleware for Sent {
    async fn handle(
        &self,
        request: reqwest::Request,
        extensions: &mut Extensions,
        next: reqwest_middleware::Next<'_>,
    ) -> reqwest_middleware::Result<reqwest::Response> {
        *self.0.lock().unwrap() = request.headers().clone();
        next.run(request, extensions).await
    }
}

fn in_a_session() -> Context {
    chat("secret-42").in_scope(Context::current)
}

#[test]
fn headers_of_reqwest_are_marked_sensitive() {
    let (_app, runtime) = application();
    runtime.block_on(async {
        let address = serve(Router::new()).await;
        let sent = Sent::default();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let client = reqwest_middleware::ClientBuilder::new(client)
            .with(middleware())
            .with(sent.clone())
            .build();
        let request = client.get(format!("http://{address}/"));
        request.send().with_context(in_a_session()).await.unwrap();
        assert_sensitive(&sent.0.lock().unwrap());
    });
}

/// `reqwest` follows redirects below its middleware, and removes only `authorization` and `cookie` headers for another
/// host. `only_to` documents it, and says to set this policy.
#[test]
fn redirects_that_reqwest_follows_carry_the_session_to_hosts_that_are_not_listed() {
    let (_app, runtime) = application();
    runtime.block_on(async {
        let learned = async |headers: HeaderMap| format!("{:?}", headers.get("x-session"));
        let other = serve(Router::new().fallback(learned)).await;
        let location = format!("http://evil.com:{}/", other.port());
        let redirect = async move || (StatusCode::FOUND, [(header::LOCATION, location)]);
        let listed = serve(Router::new().fallback(redirect)).await;
        let send = async |policy: Option<reqwest::redirect::Policy>| {
            let mut client = reqwest::Client::builder().no_proxy();
            client = client.resolve("agents.internal", listed);
            client = client.resolve("evil.com", other);
            if let Some(policy) = policy {
                client = client.redirect(policy);
            }
            let client = reqwest_middleware::ClientBuilder::new(client.build().unwrap())
                .with(middleware().only_to(["agents.internal"]))
                .build();
            let url = format!("http://agents.internal:{}/", listed.port());
            let answer = client.get(url).send().with_context(in_a_session()).await;
            answer.unwrap()
        };
        let followed = send(None).await;
        assert_eq!(followed.url().host_str(), Some("evil.com"));
        assert_eq!(followed.text().await.unwrap(), r#"Some("secret-42")"#);
        let none = send(Some(reqwest::redirect::Policy::none())).await;
        assert_eq!(none.status(), StatusCode::FOUND);
        assert_eq!(none.url().host_str(), Some("agents.internal"));
    });
}
