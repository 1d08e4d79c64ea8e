use crate::support::App;
use crate::troubleshooting::{NOTHING, one_value, some};
use http::{HeaderMap, Request, Response};
use http_body_util::Empty;
use opentelemetry::baggage::BaggageExt;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::{Context, KeyValue, global};
use std::collections::HashMap;
use std::convert::Infallible;
use tower::{Layer, ServiceExt, service_fn};
use tracing::{Instrument, info_span};
use tracing_session::propagation::tower::{client, server};
use tracing_session::{
    InSession, Session, SessionPropagator, propagation::inject_context, propagator_from_env,
};

fn chat() -> Session {
    Session::new("chat-42").unwrap()
}

fn propagate() {
    global::set_text_map_propagator(propagator_from_env().unwrap());
}

type Body = Empty<&'static [u8]>;

fn request(uri: &str) -> Request<Body> {
    Request::get(uri).body(Body::new()).unwrap()
}

fn run<T>(task: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(task)
}

/// What is said of headers that come in.
fn received(app: &App, propagator: &SessionPropagator, headers: &[(&str, &str)]) {
    let headers = headers
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let headers: HashMap<String, String> = headers.collect();
    let before = app.diagnostics.messages().len();
    let _cx = propagator.extract_with_context(&Context::new(), &headers);
    assert_eq!(app.diagnostics.messages().len(), before + 1);
}

fn in_header(name: &str) -> SessionPropagator {
    SessionPropagator::new().with_header(name).unwrap()
}

rows! {
    propagator_is_not_set: alone "headers carry no trace and no session" => |row| {
        let app = App::new();
        let mut headers: HashMap<String, String> = HashMap::new();
        chat().in_scope(|| inject_context(&mut headers));
        assert!(headers.is_empty());
        row.says_all(&app.diagnostics.messages());
        propagate();
        chat().in_scope(|| inject_context(&mut headers));
        assert_eq!(headers["baggage"], "session.id=chat-42");
        assert_eq!(app.diagnostics.messages().len(), 1);
    };

    propagator_is_unknown: misled "no such propagator (valid: ..)" => |row| {
        row.says(&propagator_from_env().unwrap_err().to_string());
    };

    header_has_no_id: alone "header `..` contains .. that is ignored" => |row| {
        let app = App::new();
        let two = in_header("x-one").with_header("x-other").unwrap();
        received(&app, &two, &[("baggage", "session.id=two%0Alines")]);
        received(&app, &two, &[("x-one", "chat-42"), ("x-other", "chat-43")]);
        row.says_all(&app.diagnostics.messages());
    };

    id_is_not_ascii: alone "header `..` is not sent because the session id is not ASCII" => |row| {
        let app = App::new();
        let session = Session::new("séance").unwrap();
        let sent = |propagator: SessionPropagator| {
            let mut headers: HashMap<String, String> = HashMap::new();
            session.in_scope(|| propagator.inject_context(&Context::current(), &mut headers));
            headers.remove("x-plain")
        };
        assert_eq!(sent(in_header("x-plain")), None);
        row.says_all(&app.diagnostics.messages());
        let encoded = in_header("x-plain").with_percent_encoded_headers();
        assert_eq!(sent(encoded), some("s%C3%A9ance"));
    };

    baggage_is_too_large: alone "header `..` is incomplete" => |row| {
        let app = App::new();
        let long = KeyValue::new("long", "%".repeat(8000));
        let _attached = Context::current_with_baggage([long]).attach();
        let mut headers: HashMap<String, String> = HashMap::new();
        chat().in_scope(|| SessionPropagator::new().inject_context(&Context::current(), &mut headers));
        assert_eq!(headers["baggage"], "session.id=chat-42");
        row.says_all(&app.diagnostics.messages());
    };

    call_is_made_outside: alone "the headers have a trace, but no session" => |_| {
        propagate();
        let app = App::new();
        let sent = |client: tracing_session::propagation::tower::ClientLayer, session: Session| {
            let service = client.layer(service_fn(|request: Request<Body>| async move {
                Ok::<_, Infallible>(request.headers().clone())
            }));
            let call = service.oneshot(request("http://models.example/v1"));
            let headers: HeaderMap = run(call.in_session(session)).unwrap();
            headers.get("baggage").map(|it| it.to_str().unwrap().to_owned())
        };
        let in_span = info_span!("request").entered();
        assert_eq!(sent(client(), Session::default()), None);
        assert_eq!(sent(client(), chat()), some("session.id=chat-42"));
        assert_eq!(sent(client().only_to(["agents.internal"]), chat()), None);
        assert_eq!(sent(client().only_to(["models.example"]), chat()), some("session.id=chat-42"));
        drop(in_span);
        assert_eq!(app.diagnostics.messages(), NOTHING);
    };

    server_layer_is_inside: alone "headers contain an id, but the request is in no session" => |_| {
        propagate();
        let app = App::new();
        let mut request = request("/chat");
        request.headers_mut().insert("baggage", "session.id=chat-42".parse().unwrap());
        // What makes a span for each request.
        let answer = || service_fn(|_| async { Ok::<_, Infallible>(Response::new(Body::new())) });
        let inner = server().layer(answer());
        let inside = service_fn(move |request| {
            inner.clone().oneshot(request).instrument(info_span!("outside the layer"))
        });
        run(inside.oneshot(request.clone())).unwrap();
        let outside = server().layer(service_fn(move |request| {
            answer().oneshot(request).instrument(info_span!("inside the layer"))
        }));
        run(outside.oneshot(request)).unwrap();
        let of = |name| one_value(&app.spans(), name, "session.id");
        assert_eq!((of("outside the layer"), of("inside the layer")), (None, some("chat-42")));
        assert_eq!(app.diagnostics.messages(), NOTHING);
    };
}
