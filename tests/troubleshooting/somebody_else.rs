use crate::support::App;
use crate::{Mistaken, NOTHING, session_of, some};
use opentelemetry::Context;
use opentelemetry::propagation::TextMapPropagator;
use std::collections::HashMap;
use tracing::info_span;
use tracing::level_filters::LevelFilter;
use tracing_session::{
    InSession, InboundPolicy, Session, SessionLayer, SessionPropagator, current_session_id,
    mark_trace, session, set_session_id,
};
use tracing_subscriber::{Layer, reload};

fn chat() -> Session {
    Session::new("chat-42").unwrap()
}

fn span(name: &'static str) {
    info_span!("span", otel.name = name).in_scope(|| {});
}

fn error_in(app: &Mistaken) -> String {
    let error = info_span!("handler").in_scope(|| set_session_id("chat-42").unwrap_err());
    assert_eq!(app.session_of("handler"), None);
    error.to_string()
}

rows! {
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
        assert_eq!(app.diagnostics.said(), NOTHING);
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

    client_chooses: here "a client has chosen the session" => |_| {
        let headers = HashMap::from([("baggage".to_owned(), "session.id=chosen".to_owned())]);
        let taken = |propagator: SessionPropagator| {
            let _attached = propagator.extract_with_context(&Context::new(), &headers).attach();
            current_session_id()
        };
        assert_eq!(taken(SessionPropagator::new()), some("chosen"));
        let ignore = SessionPropagator::new().with_inbound(InboundPolicy::ignore());
        assert_eq!(taken(ignore), None);
    };

    there_is_no_span: here "no span here to set the session or user on" => |row| {
        row.says(&set_session_id("chat-42").unwrap_err().to_string());
        let _app = App::new();
        row.says(&set_session_id("chat-42").unwrap_err().to_string());
        info_span!("handler").in_scope(|| set_session_id("chat-42").unwrap());
    };

    span_cannot_be_reached: here "the current span is hidden" => |row| {
        let app = Mistaken::wrapped(|otel| {
            let (layer, handle) = reload::Layer::new(SessionLayer::new().around(otel));
            std::mem::forget(handle);
            layer
        });
        row.says(&error_in(&app));
        drop(app);
        let app = Mistaken::wrapped(|otel| {
            SessionLayer::new().around(otel.with_filter(LevelFilter::WARN))
        });
        let error = info_span!("handler").in_scope(|| set_session_id("chat-42").unwrap_err());
        row.says(&error.to_string());
        assert_eq!(app.said(), NOTHING);
    };

    span_is_not_ours: here "the current span's tracer does not come" => |row| {
        let app = Mistaken::unwrapped(|otel| SessionLayer::new().around(otel));
        row.says(&error_in(&app));
    };

    session_is_attached_inside: here "a Session is attached inside" => |row| {
        let _app = App::new();
        info_span!("handler").in_scope(|| {
            let error = chat().in_scope(|| set_session_id("chat-43").unwrap_err());
            row.says(&error.to_string());
        });
    };

    nothing_is_in_force: here "no session or user is in force here" => |row| {
        let _app = App::new();
        info_span!("handler").in_scope(|| {
            row.says(&mark_trace().unwrap_err().to_string());
            set_session_id("chat-42").unwrap();
            mark_trace().unwrap();
        });
    };

    id_is_none: here "id is blank" => |row| {
        for id in [" ", "\n", "two\nlines", &"x".repeat(1025)] {
            row.says(&Session::new(id).unwrap_err().to_string());
        }
    };
}
