use crate::support::App;
use crate::troubleshooting::{NOTHING, session_of, some};
use opentelemetry::Context;
use opentelemetry::propagation::TextMapPropagator;
use std::collections::HashMap;
use tracing::{Instrument, info_span};
use tracing_session::{
    InSession, Session, SessionLayer, SessionPropagator, current_session_id,
    propagation::InboundPolicy, session,
};

fn chat() -> Session {
    Session::new("chat-42").unwrap()
}

fn span(name: &'static str) {
    info_span!("span", otel.name = name).in_scope(|| {});
}

rows! {
    library_has_a_session_of_its_own: here "spans of a library, and all spans under them" => |_| {
        let library = || info_span!(target: "websocket", "frame", session.id = "tls-1").in_scope(|| span("below"));
        let app = App::new();
        chat().in_scope(library);
        assert_eq!(session_of(&app.spans(), "below"), some("tls-1"));
        drop(app);
        let app = App::with(|it| it.with_opener_filter(|span| span.target() != "websocket"));
        chat().in_scope(library);
        assert_eq!(session_of(&app.spans(), "below"), some("chat-42"));
        assert_eq!(app.diagnostics.messages(), NOTHING);
    };

    library_has_a_span_named_session: here "a session from headers is lost in a library" => |_| {
        let propagator = SessionPropagator::new();
        let headers = HashMap::from([("baggage".to_owned(), "session.id=chat-42".to_owned())]);
        let serve = || {
            let _attached = propagator.extract(&headers).attach();
            info_span!(target: "proxy", "session", id = 7).in_scope(|| span("below"));
        };
        let app = App::new();
        serve();
        assert_eq!(session_of(&app.spans(), "below"), some("7"));
        drop(app);
        let app = App::with(|it| it.with_opener_filter(|span| span.target() != "proxy"));
        serve();
        assert_eq!(session_of(&app.spans(), "below"), some("chat-42"));
        assert_eq!(app.diagnostics.messages(), NOTHING);
    };

    guard_is_held_across_an_await: here "spans of other requests are in the session" => |_| {
        let app = App::new();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let other = |name| async move { span(name) };
        runtime.block_on(async {
            let held = async {
                let _guard = chat().attach();
                tokio::task::yield_now().await;
            };
            tokio::join!(held, other("meanwhile"));
            tokio::join!(tokio::task::yield_now().in_session(chat()), other("in no session"));
        });
        assert_eq!(session_of(&app.spans(), "meanwhile"), some("chat-42"));
        assert_eq!(session_of(&app.spans(), "in no session"), None);
        assert_eq!(app.diagnostics.messages(), NOTHING);
    };

    worker_keeps_the_first_session: here "spans of later requests are in the session of the first" => |_| {
        let app = App::new();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let worker = |name| async move {
            tokio::spawn(async move { span(name) }.in_current_span()).await.unwrap();
        };
        runtime.block_on(async {
            let request = async {
                worker("kept").instrument(info_span!("request")).await;
                worker("detached").detached().instrument(info_span!("request")).await;
            };
            request.in_session(chat()).await;
        });
        assert_eq!(session_of(&app.spans(), "kept"), some("chat-42"));
        assert_eq!(session_of(&app.spans(), "detached"), None);
        assert_eq!(app.diagnostics.messages(), NOTHING);
    };

    trace_has_two_sessions: here "a backend shows two conversations as one" => |_| {
        let traces = |configure: fn(SessionLayer) -> SessionLayer| {
            let app = App::with(configure);
            info_span!("batch").in_scope(|| {
                session!("chat-42").in_scope(|| {});
                session!("chat-43").in_scope(|| {});
            });
            let spans = app.spans();
            let sessions = spans.iter().filter(|it| it.name == "session");
            let traces: Vec<_> = sessions.map(|it| it.span_context.trace_id()).collect();
            assert_eq!(traces.len(), 2);
            traces[0] == traces[1]
        };
        assert!(traces(|layer| layer));
        assert!(!traces(SessionLayer::with_root_turns));
    };

    client_chooses: here "a client chose the session" => |_| {
        let headers = HashMap::from([("baggage".to_owned(), "session.id=chosen".to_owned())]);
        let taken = |propagator: SessionPropagator| {
            let _attached = propagator.extract_with_context(&Context::new(), &headers).attach();
            current_session_id()
        };
        assert_eq!(taken(SessionPropagator::new()), some("chosen"));
        let ignore = SessionPropagator::new().with_inbound(InboundPolicy::ignore());
        assert_eq!(taken(ignore), None);
    };
}
