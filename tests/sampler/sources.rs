//! Where the session may come from, and what comes too late.

use super::{AT_TENTH, AT_TENTH_RV, NEVER, app, kept};
use opentelemetry::propagation::{TextMapCompositePropagator, TextMapPropagator};
use opentelemetry::trace::{TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Context, KeyValue, global};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{InMemorySpanExporter, Sampler, SdkTracerProvider};
use std::collections::HashMap;
use support::{App, values};
use tracing::{Span, info_span, instrument};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_session::{
    Conversation, InSession, Privacy, Session, SessionLayer, SessionPropagator, SessionSampler,
    SessionTracerProvider, export::IdPolicy, new_session, session, set_session_id,
};

use crate::support;

fn tenth() -> impl opentelemetry_sdk::trace::ShouldSample + 'static {
    Sampler::parent_based(SessionSampler::new(0.1))
}

/// Runs `f` for a session that is kept and one that is dropped, and tells how many spans each had.
#[track_caller]
fn decides(spans: usize, f: impl Fn(&App, &str)) {
    for (id, expected) in [(AT_TENTH, spans), (NEVER, 0)] {
        let app = app(tenth());
        f(&app, id);
        let spans = app.spans();
        assert_eq!(spans.len(), expected, "{id}\n{}", app.tree());
        for span in spans {
            assert_eq!(values(&span, "session.id"), [id], "{}", span.name);
        }
    }
}

#[test]
fn values_around_a_root() {
    decides(2, |app, id| {
        let tracer = app.provider.tracer("library");
        let session = Session::new(id).unwrap();
        session.in_scope(|| info_span!("turn").in_scope(|| {}));
        session.in_scope(|| tracer.in_span("plain", |_| {}));
    });
    decides(1, |app, id| {
        let turn = async { info_span!("turn").in_scope(|| {}) };
        let runtime = app.runtime();
        let task = runtime.spawn(turn.in_session(Session::new(id).unwrap()));
        runtime.block_on(task).unwrap();
    });
}

#[test]
fn a_root_that_sets_the_session_itself() {
    #[instrument(skip_all, fields(session.id = id))]
    fn chat(id: &str) {
        info_span!("call").in_scope(|| {});
    }
    decides(2, |_, id| {
        session!(id).in_scope(|| info_span!("call").in_scope(|| {}))
    });
    decides(1, |_, id| drop(session!(id)));
    decides(2, |_, id| chat(id));
    decides(1, |_, id| info_span!("session", id).in_scope(|| {}));
    decides(1, |_, id| {
        let _elsewhere = Session::new("elsewhere").unwrap().attach();
        info_span!(parent: None, "session", id).in_scope(|| {});
    });
}

#[test]
fn a_root_inside_a_span_of_another_session_is_decided_by_its_own() {
    for (outer, inner, expected) in [
        (NEVER, AT_TENTH, ["call", "session"].as_slice()),
        (AT_TENTH, NEVER, &["outer"]),
    ] {
        let app = app(tenth());
        info_span!("outer", session.id = outer).in_scope(|| {
            session!(parent: None, inner).in_scope(|| info_span!("call").in_scope(|| {}));
        });
        assert_eq!(kept(&app), expected);
    }
}

#[test]
fn a_span_under_set_parent() {
    // No parent in it: a root.
    decides(1, |_, id| {
        let cx = Session::new(id).unwrap().in_scope(Context::current);
        let span = info_span!("turn");
        span.set_parent(cx).unwrap();
        span.in_scope(|| {});
    });
    decides(1, |_, id| {
        let span = session!(id);
        span.set_parent(Context::new()).unwrap();
        span.in_scope(|| {});
    });
}

#[test]
fn spans_of_libraries_that_know_the_global_tracer() {
    if !support::alone(test_name!(), &[]) {
        return;
    }
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder()
        .with_simple_exporter(exporter.clone())
        .with_sampler(tenth())
        .build();
    global::set_tracer_provider(SessionTracerProvider::new(provider));
    let tracer = global::tracer("library");
    for id in [AT_TENTH, NEVER] {
        Session::new(id)
            .unwrap()
            .in_scope(|| tracer.in_span(id, |_| tracer.in_span("call", |_| {})));
    }
    let spans = exporter.get_finished_spans().unwrap();
    let names: Vec<_> = spans.iter().map(|span| &*span.name).collect();
    assert_eq!(names, ["call", AT_TENTH]);
}

#[test]
fn the_default_session() {
    for (id, expected) in [(AT_TENTH, 3), (NEVER, 0)] {
        if !support::alone(test_name!(), &[("CASE", id)]) {
            continue;
        }
        if std::env::var("CASE").as_deref() != Ok(id) {
            continue;
        }
        let default = Session::new(id).unwrap();
        default.set_global_default().unwrap();
        let app = app(tenth());
        info_span!("turn").in_scope(|| info_span!("call").in_scope(|| {}));
        app.provider.tracer("library").in_span("plain", |_| {});
        assert_eq!(app.spans().len(), expected, "{id}");
    }
}

fn propagator() -> TextMapCompositePropagator {
    TextMapCompositePropagator::new(vec![
        Box::new(TraceContextPropagator::new()),
        Box::new(SessionPropagator::new()),
    ])
}

#[test]
fn extracted_headers() {
    // A client that makes no spans.
    decides(2, |_, id| {
        let mut headers = HashMap::new();
        let session = Session::new(id).unwrap();
        session.in_scope(|| propagator().inject_context(&Context::current(), &mut headers));
        assert!(!headers.contains_key("traceparent"));
        let _request = propagator().extract(&headers).attach();
        info_span!("request").in_scope(|| info_span!("call").in_scope(|| {}));
    });
}

#[test]
fn downstream_services_follow_the_first_and_have_its_randomness() {
    for (id, expected) in [(AT_TENTH, 1), (NEVER, 0)] {
        let mut headers = HashMap::new();
        let first = app(tenth());
        session!(id).in_scope(|| propagator().inject_context(&Context::current(), &mut headers));
        assert_eq!(first.spans().len(), expected);
        let randomness = headers["tracestate"].clone();
        drop(first);
        // In whatever session it is there: a trace is kept whole.
        let second = app(tenth());
        let request = propagator().extract(&headers).attach();
        info_span!("request").in_scope(|| {
            let cx = Context::current();
            assert_eq!(cx.span().span_context().trace_state().header(), randomness);
        });
        drop(request);
        assert_eq!(second.spans().len(), expected, "{id}");
    }
}

#[test]
fn a_redacted_id_decides_unchanged() {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder()
        .with_simple_exporter(exporter.clone())
        .with_sampler(tenth())
        .build();
    let provider = SessionTracerProvider::new(provider)
        .with_privacy(Privacy::new().with_session_ids(IdPolicy::omitted()));
    let tracer = provider.tracer("library");
    for id in [AT_TENTH, NEVER] {
        Session::new(id)
            .unwrap()
            .in_scope(|| tracer.in_span("turn", |_| {}));
    }
    let [span] = &exporter.get_finished_spans().unwrap()[..] else {
        panic!("one of two");
    };
    assert_eq!(values(span, "session.id"), [""; 0]);
    assert_eq!(
        span.span_context.trace_state().get("ot").unwrap()[3..17],
        *AT_TENTH_RV
    );
}

/// How many of 64 traces of a session are kept, when `turn` makes one.
fn kept_of_64(id: &str, turn: impl Fn(&App, &str)) -> usize {
    let app = app(Sampler::parent_based(SessionSampler::new(0.5)));
    (0..64).for_each(|_| turn(&app, id));
    app.spans().len()
}

/// Both ways to learn the id, for sessions that are kept and dropped.
#[test]
fn an_id_set_in_the_root_is_too_late_and_one_set_before_it_is_in_time() {
    type Turn = fn(&App, &str);
    let late: [Turn; 4] = [
        |_, id| info_span!("turn").in_scope(|| set_session_id(id).unwrap()),
        |_, id| {
            let turn = info_span!("turn", session.id = tracing::field::Empty);
            turn.in_scope(|| {
                Span::current().record("session.id", id);
            });
        },
        |app, id| {
            use opentelemetry::trace::Span as _;
            let tracer = app.provider.tracer("library");
            let mut span = tracer.start("turn");
            span.set_attribute(KeyValue::new("session.id", id.to_owned()));
            span.end();
        },
        // Samplers do not see it, for it may be private.
        |app, id| {
            use opentelemetry::trace::Span as _;
            let tracer = app.provider.tracer("library");
            let id = KeyValue::new("session.id", id.to_owned());
            tracer
                .span_builder("turn")
                .with_attributes([id])
                .start(&tracer)
                .end();
        },
    ];
    for turn in late {
        for id in [AT_TENTH, NEVER] {
            // By the ids of the traces, of which none of 2^64 such runs has all alike.
            assert!((1..64).contains(&kept_of_64(id, turn)));
        }
    }
    let before: [Turn; 4] = [
        |_, id| {
            Session::new(id)
                .unwrap()
                .in_scope(|| info_span!("turn").in_scope(|| {}))
        },
        |_, id| drop(session!(id)),
        |_, id| {
            let headers = HashMap::from([("baggage".to_owned(), format!("session.id={id}"))]);
            let _request = propagator().extract(&headers).attach();
            info_span!("turn").in_scope(|| {});
        },
        // A root of its own, once the id is known.
        |_, id| {
            info_span!(parent: None, "session", id).in_scope(|| {});
        },
    ];
    for turn in before {
        assert_eq!(
            (kept_of_64(AT_TENTH, turn), kept_of_64(NEVER, turn)),
            (64, 0)
        );
    }
}

#[test]
fn a_new_session_in_a_trace_does_not_change_the_decision() {
    let app = app(tenth());
    session!(AT_TENTH).in_scope(|| {
        new_session().unwrap();
        info_span!("call").in_scope(|| {});
    });
    assert_eq!(kept(&app), ["call", "session"]);
}

#[cfg(feature = "tower")]
#[test]
fn a_request_with_the_server_layer_outside_the_layer_that_creates_the_span() {
    use std::convert::Infallible;
    use tower::{Layer, ServiceExt, service_fn};
    use tracing::Instrument;
    use tracing_session::propagation::tower::{ServerBody, server};

    support::propagate(propagator());
    decides(2, |app, id| {
        let traced = service_fn(|_: http::Request<ServerBody<String>>| {
            let answer = async {
                info_span!("call").in_scope(|| {});
                Ok::<_, Infallible>(http::Response::new(String::new()))
            };
            answer.instrument(info_span!("request"))
        });
        let server = server().layer(traced);
        let request = http::Request::builder().header("baggage", format!("session.id={id}"));
        let answer = server.oneshot(request.body(String::new()).unwrap());
        app.runtime().block_on(answer).unwrap();
    });
}

#[test]
fn turns_of_a_conversation_in_both_shapes_and_from_its_state() {
    let talk = |mut chat: Conversation| {
        for turn in ["first", "second", "third"] {
            let turn = chat.turn(turn);
            turn.span().in_scope(|| info_span!("call").in_scope(|| {}));
            turn.finish();
            // As between two requests, which different processes answer.
            chat = Conversation::resume(chat.state());
        }
    };
    decides(6, |_, id| {
        talk(Conversation::new(Session::new(id).unwrap()))
    });
    decides(6, |_, id| {
        talk(Conversation::new(Session::new(id).unwrap()).in_one_trace())
    });
}

#[test]
fn roots_that_the_layer_creates_for_sessions_decide_for_themselves() {
    for (id, expected) in [(AT_TENTH, ["call", "session"].as_slice()), (NEVER, &[])] {
        let app = App::with_provider(
            |builder| builder.with_sampler(tenth()),
            |otel| SessionLayer::new().with_root_turns().wrap(otel),
        );
        // The caller's decision, which is another one, is about his trace.
        let _request = super::remote("ot=rv:80000000000000", id == NEVER).attach();
        session!(id).in_scope(|| info_span!("call").in_scope(|| {}));
        assert_eq!(kept(&app), expected, "{id}");
    }
}
