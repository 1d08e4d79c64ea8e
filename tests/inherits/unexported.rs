//! Session spans that only set the session: `SessionLayer::with_unexported_session_spans`.

use crate::inherits::session_of;
use crate::support::{App, remote, session, values};
use futures_util::FutureExt as _;
use opentelemetry::Context;
use opentelemetry::context::FutureExt as _;
use opentelemetry::trace::{SpanId, TraceContextExt, Tracer, TracerProvider};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use std::collections::HashSet;
use tracing::field::Empty;
use tracing::{Instrument, Span, info, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_session::{
    InSession, Session, SessionLayer, current_session_id, mark_trace, session, set_session_id,
    set_user_id, user,
};
use tracing_subscriber::filter::LevelFilter;

fn app() -> App {
    App::with(SessionLayer::with_unexported_session_spans)
}

/// Asserts that a span is the root of a trace, linked to these spans, in this session.
#[track_caller]
fn assert_root(span: &SpanData, session: &str, linked: &[SpanId]) {
    assert_eq!(span.parent_span_id, SpanId::INVALID, "{}", span.name);
    let links = span.links.iter().map(|link| link.span_context.span_id());
    assert_eq!(links.collect::<Vec<_>>(), linked, "{}", span.name);
    assert_eq!(session_of(span), [session], "{}", span.name);
}

/// Opens a connection in a request. Returns its span, and the OpenTelemetry id of the request's span, which `tracing` keeps open
/// until the connection is closed.
fn opened_in_a_request(open: impl FnOnce() -> Span) -> (Span, SpanId) {
    info_span!("upgrade").in_scope(|| {
        let request = Context::current().span().span_context().span_id();
        (open(), request)
    })
}

/// A connection that is opened in a request, and whose messages come when the request is over.
#[test]
fn messages_of_a_connection_are_roots_linked_to_its_request() {
    let app = app();
    let (connection, upgrade) = opened_in_a_request(|| info_span!("session", id = "chat-42"));
    for message in ["first", "second"] {
        connection.in_scope(|| {
            info!("an event of the connection");
            info_span!("message", otel.name = message)
                .in_scope(|| info_span!("step").in_scope(|| {}));
        });
        // At once, while the connection is open.
        assert_root(&app.span(message), "chat-42", &[upgrade]);
    }
    drop(connection);
    let mut names: Vec<_> = app.spans().into_iter().map(|it| it.name).collect();
    names.sort();
    assert_eq!(names, ["first", "second", "step", "step", "upgrade"]);
    let spans = app.spans();
    let traces: HashSet<_> = spans.iter().map(|it| it.span_context.trace_id()).collect();
    assert_eq!(traces.len(), 3);
    for step in app.spans().iter().filter(|it| it.name == "step") {
        assert_eq!(session_of(step), ["chat-42"]);
        assert_ne!(step.parent_span_id, SpanId::INVALID);
    }
    assert_eq!(session_of(&app.span("upgrade")), [""; 0]);
    assert_eq!(app.diagnostics.messages(), [""; 0]);
}

#[test]
fn only_session_spans_are_unexported() {
    let app = app();
    info_span!("handler", session.id = "chat-1").in_scope(|| info_span!("step").in_scope(|| {}));
    user!("u-7").in_scope(|| {});
    info_span!("other", id = "chat-2").in_scope(|| {});
    session!("chat-3").in_scope(|| info_span!("message").in_scope(|| {}));
    let mut names: Vec<_> = app.spans().into_iter().map(|it| it.name).collect();
    names.sort();
    assert_eq!(names, ["handler", "message", "other", "step", "user"]);
    assert_root(&app.span("message"), "chat-3", &[]);
    assert_eq!(
        app.span("step").parent_span_id,
        app.span("handler").span_context.span_id()
    );
}

#[test]
fn explicit_children_are_roots_too() {
    let app = app();
    info_span!("request").in_scope(|| {
        let connection = session!("chat-42", user.id = "u-7");
        info_span!(parent: &connection, "before").in_scope(|| {});
        connection.in_scope(|| {});
        info_span!(parent: &connection, "after", session.id = "chat-43").in_scope(|| {});
    });
    let request = app.span("request").span_context.span_id();
    assert_root(&app.span("before"), "chat-42", &[request]);
    assert_root(&app.span("after"), "chat-43", &[request]);
    assert_eq!(values(&app.span("after"), "user.id"), ["u-7"]);
}

#[test]
fn ids_that_are_recorded_or_set_later_reach_later_messages() {
    let app = app();
    let connection = info_span!("session", id = Empty, user.id = Empty);
    connection.in_scope(|| info_span!("early").in_scope(|| {}));
    connection.record("id", "chat-42");
    connection.in_scope(|| info_span!("recorded").in_scope(|| {}));
    connection.in_scope(|| {
        set_user_id("u-7").unwrap();
        info_span!("set").in_scope(|| {});
        set_session_id("chat-43").unwrap();
        info_span!("set again").in_scope(|| {});
        // There is nothing to mark.
        mark_trace().unwrap();
    });
    connection.in_scope(|| info_span!("entered again").in_scope(|| mark_trace().unwrap()));
    info_span!(parent: &connection, "explicit").in_scope(|| {});
    assert_eq!(session_of(&app.span("early")), [""; 0]);
    assert_root(&app.span("recorded"), "chat-42", &[]);
    assert_root(&app.span("set"), "chat-42", &[]);
    for name in ["set again", "entered again", "explicit"] {
        assert_root(&app.span(name), "chat-43", &[]);
        assert_eq!(values(&app.span(name), "user.id"), ["u-7"], "{name}");
    }
}

#[test]
fn sessions_and_plain_spans_directly_inside_are_in_no_trace_of_the_connection() {
    let app = app();
    info_span!("request").in_scope(|| {
        session!("chat-42").in_scope(|| {
            session("chat-43").in_scope(|| info_span!("inner").in_scope(|| {}));
            app.provider.tracer("library").in_span("plain", |_| {});
            info_span!("session", id = "chat-44").in_scope(|| info_span!("nested").in_scope(|| {}));
        });
        info_span!("after").in_scope(|| {});
    });
    let request = app.span("request").span_context.span_id();
    assert_root(&app.span("inner"), "chat-43", &[request]);
    assert_root(&app.span("plain"), "chat-42", &[request]);
    assert_eq!(app.span("after").parent_span_id, request);
    // An implicit session span inside an explicit one is ignored, and exported as a plain span.
    assert_eq!(session_of(&app.span("nested")), ["chat-42"]);
}

#[test]
fn futures_threads_and_headers() {
    let app = app();
    let (connection, upgrade) = opened_in_a_request(|| session!("chat-42"));
    let task = async {
        for _ in 0..3 {
            tokio::task::yield_now().await;
            async { assert_eq!(current_session_id().as_deref(), Some("chat-42")) }
                .instrument(info_span!("message"))
                .await;
        }
        async { info_span!("in other").in_scope(|| {}) }
            .in_session(session("chat-43"))
            .await;
    };
    app.runtime().block_on(async {
        tokio::spawn(task.instrument(connection.clone()))
            .await
            .unwrap();
    });
    app.on_thread(|| connection.in_scope(|| info_span!("of a thread").in_scope(|| {})));
    for message in app.spans().iter().filter(|it| it.name == "message") {
        assert_root(message, "chat-42", &[upgrade]);
    }
    assert_root(&app.span("in other"), "chat-43", &[upgrade]);
    assert_root(&app.span("of a thread"), "chat-42", &[upgrade]);

    let other = session!("chat-44");
    assert!(other.set_parent(remote()).is_err() || !other.is_disabled());
    other.in_scope(|| {
        let request = info_span!("called");
        request.set_parent(remote()).unwrap();
        request.in_scope(|| {});
    });
    let remote = remote();
    assert_eq!(
        app.span("called").parent_span_id,
        remote.span().span_context().span_id()
    );
}

#[test]
fn unexported_session_spans_with_root_turns_filters_and_without_opentelemetry() {
    let with_turns = App::with(|layer| layer.with_unexported_session_spans().with_root_turns());
    session!("chat-42").in_scope(|| {
        info_span!("turn", session.id = "chat-42").in_scope(|| info_span!("step").in_scope(|| {}));
    });
    let turn = with_turns.span("turn");
    assert_root(&turn, "chat-42", &[]);
    assert_eq!(
        with_turns.span("step").parent_span_id,
        turn.span_context.span_id()
    );
    drop(with_turns);

    let filtered = |level| {
        App::with_layer(move |otel| {
            let layer = SessionLayer::new().with_unexported_session_spans();
            layer
                .with_opener_level(tracing::Level::INFO)
                .wrap_filtered(otel, level)
        })
    };
    for level in [LevelFilter::INFO, LevelFilter::WARN] {
        let app = filtered(level);
        tracing::warn_span!("request").in_scope(|| {
            session!("chat-42").in_scope(|| tracing::warn_span!("message").in_scope(|| {}));
        });
        let request = app.span("request").span_context.span_id();
        assert_root(&app.span("message"), "chat-42", &[request]);
        assert_eq!(app.spans().len(), 2, "{level}");
    }

    use tracing_subscriber::prelude::*;
    let layer = SessionLayer::new().with_unexported_session_spans();
    let _logs = tracing_subscriber::registry().with(layer).set_default();
    session!("chat-42").in_scope(|| {
        assert!(!Span::current().is_none());
        assert_eq!(current_session_id().as_deref(), Some("chat-42"));
    });
    assert_eq!(Session::default().id(), None);
}

/// An application that exports session spans, and one that doesn't.
fn both() -> [App; 2] {
    [App::new(), app()]
}

#[test]
fn set_parent_moves_a_session_span_into_another_session() {
    for app in both() {
        app.anew(|app| {
            let of_bob = session("chat-bob").with_user("bob").unwrap();
            let of_bob = of_bob.in_scope(|| {
                Context::current().with_remote_span_context(remote().span().span_context().clone())
            });
            let of_alice = session("chat-alice").with_user("alice").unwrap();
            let (late, set) =
                of_alice.in_scope(|| (info_span!("session", id = Empty), session!("chat-1")));
            for (span, name) in [(late, "late"), (set, "set")] {
                span.set_parent(of_bob.clone()).unwrap();
                span.in_scope(|| info_span!("message", otel.name = name).in_scope(|| {}));
            }
            assert_eq!(session_of(&app.span("late")), ["chat-bob"]);
            assert_eq!(session_of(&app.span("set")), ["chat-1"]);
            for name in ["late", "set"] {
                assert_eq!(values(&app.span(name), "user.id"), ["bob"], "{name}");
            }
        });
    }
}

/// `Sampler::ParentBased` takes an invalid parent for one that isn't sampled.
#[test]
fn spans_inside_are_sampled_however_the_context_is_carried() {
    let app = app();
    let others = InMemorySpanExporter::default();
    let sdk = SdkTracerProvider::builder()
        .with_simple_exporter(others.clone())
        .build();
    let connection = session!("chat-42");
    connection.in_scope(|| sdk.tracer("library").in_span("plain", |_| {}));
    assert_eq!(others.get_finished_spans().unwrap().len(), 1);

    let cx = connection.context();
    let in_context = async { info_span!("in its context").in_scope(|| {}) };
    in_context.with_context(cx.clone()).now_or_never().unwrap();
    let child = info_span!("with its context as parent");
    child.set_parent(cx.clone()).unwrap();
    child.in_scope(|| {});
    drop(child);
    app.provider
        .tracer("library")
        .start_with_context("started", &cx);
    for name in ["in its context", "with its context as parent", "started"] {
        assert_root(&app.span(name), "chat-42", &[]);
    }
}

#[test]
fn adopted_spans_are_roots_and_session_spans_are_adopted() {
    for app in both() {
        app.anew(|app| {
            let message = async { info_span!("message").in_scope(|| {}) };
            let message = message.instrument(info_span!("session", id = Empty));
            message
                .in_session(session("chat-42"))
                .now_or_never()
                .unwrap();
            assert_eq!(session_of(&app.span("message")), ["chat-42"]);

            let connection = info_span!("session", id = Empty);
            let recorded = connection.clone();
            let messages = async {
                info_span!("before").in_scope(|| {});
                recorded.record("id", "chat-43");
                info_span!("after").in_scope(|| {});
            };
            let user = Session::default().with_user("u-7").unwrap();
            messages
                .instrument(connection)
                .in_session(user)
                .now_or_never()
                .unwrap();
            assert_eq!(values(&app.span("before"), "user.id"), ["u-7"]);
            assert_eq!(session_of(&app.span("after")), ["chat-43"]);
        });
    }
    let app = app();
    info_span!("upgrade").in_scope(|| {
        session!("chat-42").in_scope(|| {
            let message =
                async { info_span!("step").in_scope(|| {}) }.instrument(info_span!("message"));
            message
                .in_session(session("chat-43"))
                .now_or_never()
                .unwrap();
        });
    });
    let upgrade = app.span("upgrade").span_context.span_id();
    assert_root(&app.span("message"), "chat-43", &[upgrade]);
}

#[test]
fn mark_trace_continues_past_an_unexported_session_span() {
    for app in both() {
        app.anew(|app| {
            info_span!("request").in_scope(|| {
                let cx = Context::current();
                session!("chat-42").in_scope(|| {
                    let message = info_span!("message");
                    message.set_parent(cx.clone()).unwrap();
                    message.in_scope(|| {
                        set_session_id("chat-42").unwrap();
                        mark_trace().unwrap();
                    });
                });
            });
            assert_eq!(session_of(&app.span("request")), ["chat-42"]);
        });
    }
}
