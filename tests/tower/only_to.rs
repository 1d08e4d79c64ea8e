//! Which hosts learn the session.

use crate::support::{self, App};
use crate::tower::{TRACE, application, chat, propagate, request, serve};
use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderMap, Response};
use opentelemetry::baggage::{Baggage, BaggageExt};
use opentelemetry::trace::FutureExt;
use opentelemetry::{Context, KeyValue};
use std::convert::Infallible;
use std::future::ready;
use tower::{Service, ServiceBuilder};
use tracing::info_span;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_session::propagation::tower::{ClientLayer, client};

/// What of a session's stands in headers, and whether the trace and the other baggage do.
fn learned(headers: &HeaderMap) -> String {
    let header = |name: &str| headers.get(name).map_or("", |it| it.to_str().unwrap());
    assert_eq!(header("traceparent").len(), TRACE.len());
    let mut members: Vec<_> = header("baggage").split(',').collect();
    assert!(members.contains(&"tier=gold"), "{members:?}");
    members.retain(|member| *member != "tier=gold");
    members.sort_unstable();
    let session = header("x-session");
    let learned = [members.join(","), session.to_owned()];
    learned.join(" ").trim().to_owned()
}

const ALL: &str = "session.id=secret-42,user.id=u-7 secret-42";

/// A caller, with what else could give the session away.
fn caller() -> Context {
    let baggage = Baggage::from_iter([
        KeyValue::new("tier", "gold"),
        KeyValue::new("session.id", "secret-42"),
        KeyValue::new("user.id", "u-7"),
    ]);
    let span = info_span!("caller").context().with_baggage(baggage);
    let _attached = span.attach();
    let session = chat("secret-42").with_user("u-7").unwrap();
    session.in_scope(Context::current)
}

const URLS: [(&str, bool); 13] = [
    ("http://agents.internal/", true),
    ("http://agents.internal:PORT/", true),
    ("http://Agents.INTERNAL:PORT/", true),
    ("http://user:agents@agents.internal/", true),
    ("http://a.agents.internal/", false),
    ("http://evil-agents.internal/", false),
    ("http://agents.internal.evil.com/", false),
    ("http://agents.internal@evil.com/", false),
    ("http://agents.internal:80@evil.com/", false),
    ("http://evil.com/agents.internal", false),
    ("http://evil.com/?@agents.internal", false),
    ("http://corp.internal/", true),
    ("http://a.b.corp.internal:PORT/", true),
];

const HOSTS: [&str; 2] = ["agents.internal", ".corp.internal"];

#[test]
fn only_hosts_that_are_listed_get_the_session_from_a_tower_client() {
    if !support::alone(test_name!(), &[]) {
        return;
    }
    chat("secret-default").set_global_default().unwrap();
    propagate();
    let app = App::new();
    let send = |layer: ClientLayer, request: Request| {
        let mut headers = HeaderMap::new();
        let service = |request: Request| {
            headers = request.headers().clone();
            ready(Ok::<_, Infallible>(Response::new(())))
        };
        let mut client = ServiceBuilder::new().layer(layer).service_fn(service);
        let _attached = caller().attach();
        drop(client.call(request));
        headers
    };
    let only = client().only_to(HOSTS);
    for (url, may_know) in URLS {
        let url = url.replace("PORT", "8080");
        let headers = send(only.clone(), request(&url, &[]));
        assert_eq!(learned(&headers), if may_know { ALL } else { "" }, "{url}");
        assert_eq!(learned(&send(client(), request(&url, &[]))), ALL, "{url}");
    }
    for (host, may_know) in [
        ("agents.internal", true),
        ("Agents.Internal:8080", true),
        ("agents.internal@evil.com", false),
        ("evil-agents.internal", false),
        ("a.corp.internal", true),
        ("", false),
    ] {
        let headers = send(only.clone(), request("/", &[("host", host)]));
        assert_eq!(learned(&headers), if may_know { ALL } else { "" }, "{host}");
    }
    assert_eq!(learned(&send(only.clone(), request("/", &[]))), "");
    // Where the request goes is what counts.
    let headers = [("host", "agents.internal")];
    assert_eq!(
        learned(&send(only.clone(), request("http://evil.com/", &headers))),
        ""
    );
    // What the application wrote itself is its own affair.
    let headers = [("x-session", "my-own")];
    let sent = send(only, request("http://evil.com/", &headers));
    assert_eq!(learned(&sent), "my-own");
    let sent = send(client(), request("http://evil.com/", &headers));
    assert_eq!(learned(&sent), ALL);
    assert_eq!(app.diagnostics.messages(), [""; 0]);
}

#[test]
fn only_hosts_that_are_listed_get_the_session_from_reqwest() {
    let (app, runtime) = application();
    runtime.block_on(async {
        let router = Router::new().fallback(async |headers: HeaderMap| learned(&headers));
        let address = serve(router).await;
        // Every name is the loopback here, so that every request really goes out.
        let port = address.port().to_string();
        let urls = URLS.map(|(url, may_know)| (url.replace("PORT", &port), may_know));
        let resolving = urls
            .iter()
            .fold(reqwest::Client::builder(), |builder, (url, _)| {
                let url: reqwest::Url = url.parse().unwrap();
                builder.resolve(url.host_str().unwrap(), address)
            });
        let client = resolving.no_proxy().build().unwrap();
        let with = |middleware| {
            reqwest_middleware::ClientBuilder::new(client.clone())
                .with(middleware)
                .build()
        };
        let all = with(tracing_session::propagation::reqwest::middleware());
        let only = with(tracing_session::propagation::reqwest::middleware().only_to(HOSTS));
        for (url, may_know) in &urls {
            let expected = if *may_know { ALL } else { "" };
            for (client, expected) in [(&all, ALL), (&only, expected)] {
                let answer = client.get(url).send().with_context(caller()).await;
                let learned = answer.unwrap().text().await.unwrap();
                assert_eq!(learned, expected, "{url}");
            }
        }
        let request = only.get("http://evil.com/").header("x-session", "my-own");
        let answer = request.send().with_context(caller()).await;
        assert_eq!(answer.unwrap().text().await.unwrap(), "my-own");
    });
    assert_eq!(app.diagnostics.messages(), [""; 0]);
}
