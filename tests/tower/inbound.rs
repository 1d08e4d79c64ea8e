//! What comes in.

use crate::support::{self, App};
use crate::tower::{
    TRACE, answered, application, are_in, chat, hyper_client, propagate, request, serve, text,
    trace, work,
};
use axum::Router;
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::routing::post;
use http::request::Parts;
use opentelemetry::Context;
use opentelemetry::baggage::BaggageExt;
use tracing::info_span;
use tracing_session::propagation::tower::server;
use tracing_session::{current_session_id, propagation::InboundPolicy, session, set_session_id};

#[derive(Clone)]
struct User(&'static str);

fn owns(request: &Parts, id: &str) -> bool {
    let user = request.extensions.get::<User>();
    user.is_some_and(|User(user)| id.starts_with(user))
}

#[test]
fn a_policy_receives_the_request() {
    let (app, runtime) = application();
    runtime.block_on(async {
        let log_in = async |mut request: Request, next: Next| {
            request.extensions_mut().insert(User("alice"));
            next.run(request).await
        };
        let router = Router::new()
            .route("/", post(async || current_session_id().unwrap_or_default()))
            .layer(server().with_inbound(InboundPolicy::verify(|id, request| owns(request, id))))
            .layer(middleware::from_fn(log_in));
        let address = serve(router).await;
        for (id, expected) in [("alice-42", "alice-42"), ("bob-42", "")] {
            let request = request(format!("http://{address}/"), &[("x-session", id)]);
            let answer = hyper_client().request(request).await.unwrap();
            assert_eq!(text(answer.into_body()).await, expected);
        }
    });
    app.exports("");
}

#[test]
fn refused_session_keeps_the_outer_session_and_the_trace() {
    propagate();
    let app = App::new();
    let refusing = [
        InboundPolicy::ignore(),
        InboundPolicy::verify(|_, _: &Parts| false),
    ];
    for inbound in refusing {
        let layer = || server().with_inbound(inbound.clone());
        let headers = &[
            ("baggage", "session.id=secret-42,user.id=u-7,tier=gold"),
            ("x-session", "secret-42"),
            ("traceparent", TRACE),
        ];
        for headers in [&headers[..2], &headers[..]] {
            let inside = || {
                let (tier, cx) = ("tier", Context::current());
                let tier = cx.baggage().get(tier).map(|tier| tier.to_string());
                assert_eq!(tier.as_deref(), Some("gold"));
                work("handler");
                current_session_id()
            };
            let outside = || answered(layer(), headers, inside);
            assert_eq!(outside(), None);
            let attached = chat("outer").in_scope(outside);
            assert_eq!(attached.as_deref(), Some("outer"));
            let by_span = session!("outer").in_scope(outside);
            assert_eq!(by_span.as_deref(), Some("outer"));
            // Said late, it is bound to the span: the `Context` does not have it.
            let said_late = info_span!("late").in_scope(|| {
                set_session_id("outer").unwrap();
                outside()
            });
            assert_eq!(said_late.as_deref(), Some("outer"));
            let nearer = info_span!("late").in_scope(|| {
                set_session_id("outer").unwrap();
                chat("inner").in_scope(outside)
            });
            assert_eq!(nearer.as_deref(), Some("inner"));
        }
    }
    let handlers = app.spans();
    let handlers = handlers.iter().filter(|span| span.name == "handler");
    let (trace, parent) = trace();
    let remote = handlers.filter(|span| span.span_context.trace_id() == trace);
    let parents: Vec<_> = remote.map(|span| span.parent_span_id).collect();
    assert_eq!(parents, [parent; 10]);
    assert!(!app.tree().contains("secret-42"));
}

#[test]
fn refused_session_keeps_the_default_session() {
    if !support::alone(test_name!(), &[]) {
        return;
    }
    chat("default").set_global_default().unwrap();
    propagate();
    let app = App::new();
    let layer = server().with_inbound(InboundPolicy::ignore());
    let headers = &[("x-session", "secret-42"), ("traceparent", TRACE)];
    answered(layer, headers, || work("handler"));
    are_in(&app, &["default"], &[("handler", 1)]);
}

#[test]
fn a_session_can_be_set_on_the_outer_span_after_one_was_refused() {
    propagate();
    let app = App::new();
    info_span!("outside").in_scope(|| {
        let layer = server().with_inbound(InboundPolicy::ignore());
        answered(layer, &[("x-session", "secret-42")], || {
            set_session_id("chat-42").unwrap();
            work("handler");
            assert_eq!(current_session_id().as_deref(), Some("chat-42"));
        });
    });
    are_in(&app, &["chat-42"], &[("handler", 1), ("outside", 1)]);
}

#[test]
fn a_request_without_a_session_keeps_the_outer_one() {
    propagate();
    let _app = App::new();
    let policies = [
        InboundPolicy::accept(),
        InboundPolicy::ignore(),
        InboundPolicy::verify(|_, _: &Parts| panic!("asked about the session outside")),
    ];
    for policy in policies {
        for headers in [&[][..], &[("traceparent", TRACE)]] {
            let layer = || server().with_inbound(policy.clone());
            let outside = || answered(layer(), headers, current_session_id);
            assert_eq!(outside(), None);
            let attached = chat("outer").in_scope(outside);
            assert_eq!(attached.as_deref(), Some("outer"));
            let said_late = info_span!("late").in_scope(|| {
                set_session_id("outer").unwrap();
                outside()
            });
            assert_eq!(said_late.as_deref(), Some("outer"));
        }
    }
}

#[test]
fn an_extracted_session_overrides_the_outer_one() {
    propagate();
    let _app = App::new();
    let headers = &[("x-session", "inbound")];
    let inside = || answered(server(), headers, current_session_id);
    let attached = chat("outer").with_user("u-7").unwrap().in_scope(inside);
    assert_eq!(attached.as_deref(), Some("inbound"));
    let said_late = info_span!("late").in_scope(|| {
        set_session_id("outer").unwrap();
        inside()
    });
    assert_eq!(said_late.as_deref(), Some("inbound"));
}
