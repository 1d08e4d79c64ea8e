//! Mirascope 2.8.2: the samples of its documentation, the cases of its own tests, and what it was seen to do.
//!
//! | case there | test here |
//! | --- | --- |
//! | `test_session`, `test_span`, `test_tracing`, and the samples of sessions | `outer_session_is_current_again_after_the_inner_one_even_if_that_panics`, `id_that_is_generated`, `threads_and_tasks` |
//! | `session.test.ts`, "deeply nested"; "concurrent" | `deeply_nested`; `concurrency::each_of_many_tasks_stays_in_its_own_session` |
//! | attributes of a session | `attributes` |
//! | `extract_session_id` | `headers::headers_to_the_id_of_the_session` |
//! | `test_context`, and `test_propagation` where a header is invalid | `headers::headers_set_the_current_session_and_trace` |
//! | `test_propagation` and the samples, of each format | `headers::each_format_writes_its_headers_and_reads_them` |
//! | `three_hops`, `client_server_continuity`, "client and server" | `headers::three_hops` |
//! | `five_threads_isolated`, `invalid_format_error_text` | the same names in `headers` |
//! | `parent_gives_same_trace_id` | `propagation::functions::extracted_context_can_be_the_parent_of_a_span` |
//! | `inject_specific_context` | `propagation::outbound::session_and_trace_compose_in_either_order` |
//! | `Context` values by hand, background jobs, other languages | `samples` |
//! | FastAPI, Flask, httpx, microservices | `services` |
//!
//! These cases have no meaning here: arguments that exclude each other (here they are two functions), a logged error (it is
//! returned), setting the global propagator or not (the application does it), errors of propagators (OpenTelemetry's return
//! none), a cached propagator (nothing is cached), ids and lists that the types exclude.

mod attributes;
mod headers;
mod samples;

use super::{Headers, WAYS, call_model, headers, injected};
use crate::support::{self, App, session, values};
use opentelemetry::propagation::{TextMapCompositePropagator, TextMapPropagator};
use opentelemetry::trace::{Span, SpanContext, TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Context, global};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use std::panic::{AssertUnwindSafe, catch_unwind};
use tracing::info_span;
use tracing_session::{
    InSession, Session, SessionPropagator, current_session, current_session_id,
    propagation::SESSION_HEADER_NAME, propagator_from_env, session,
};

const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const TRACE_ID: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN_ID: &str = "b7ad6b7169203331";

fn here() -> SpanContext {
    Context::current().span().span_context().clone()
}

/// Sets what `MIRASCOPE_PROPAGATOR=tracecontext` makes.
fn set_propagator() {
    let mirascope = SessionPropagator::new().without_baggage();
    let propagators: Vec<Box<dyn TextMapPropagator + Send + Sync>> = vec![
        Box::new(TraceContextPropagator::new()),
        Box::new(mirascope.with_header(SESSION_HEADER_NAME).unwrap()),
    ];
    support::propagate(TextMapCompositePropagator::new(propagators));
}

#[test]
fn outer_session_is_current_again_after_the_inner_one_even_if_that_panics() {
    let outer = session("outer").with_metadata("user", "alice").unwrap();
    let inner = session("inner");
    for (way, run) in WAYS {
        let app = App::new();
        assert_eq!(current_session(), None);
        run(&outer, &mut || {
            let is_outer = || assert_eq!(current_session().as_ref(), Some(&outer), "{way}");
            is_outer();
            call_model();
            run(&inner, &mut || {
                assert_eq!(current_session_id().as_deref(), Some("inner"), "{way}");
                call_model();
            });
            is_outer();
            let panics = || run(&inner, &mut || panic!("on purpose"));
            assert!(catch_unwind(AssertUnwindSafe(panics)).is_err());
            is_outer();
            call_model();
        });
        assert_eq!(current_session(), None, "{way}");
        call_model();
        for name in ["call", "http"] {
            let spans = app.spans().into_iter().filter(|span| span.name == name);
            let ids: Vec<_> = spans
                .map(|span| values(&span, "session.id").concat())
                .collect();
            assert_eq!(ids, ["outer", "inner", "outer", ""], "{way}");
        }
    }
}

#[test]
fn deeply_nested() {
    fn nest(depth: usize) {
        let id = depth.to_string();
        session(&id).in_scope(|| {
            if depth < 100 {
                nest(depth + 1);
            }
            assert_eq!(current_session_id().as_deref(), Some(&*id));
        });
    }
    nest(0);
}

/// There it is of version 4.
#[test]
fn id_that_is_generated() {
    let _app = App::new();
    let of_span = session!().in_scope(|| current_session().unwrap());
    let sessions = [Session::generate(), Session::generate(), of_span];
    for session in &sessions {
        let id = session.id().unwrap();
        let uuid = uuid::Uuid::parse_str(id).unwrap();
        assert_eq!(uuid.get_version_num(), 7);
        // 36 characters, in lower case.
        assert_eq!(uuid.as_hyphenated().to_string(), id);
        session.in_scope(|| assert_eq!(current_session_id().as_deref(), Some(id)));
    }
    assert_ne!(sessions[0], sessions[1]);
}

/// There, a span of OpenTelemetry's own carries nothing. A span that is open already is not
/// marked, and what a span says itself stays.
#[test]
fn spans_that_carry_the_session() {
    let app = App::new();
    info_span!("before").in_scope(|| {
        session("S").in_scope(|| {
            info_span!("child").in_scope(|| {});
            let tracer = app.provider.tracer("lib");
            tracer
                .start_with_context("plain", &Context::current())
                .end();
            session("INNER").in_scope(|| info_span!("inner-child").in_scope(|| {}));
            info_span!("after-inner").in_scope(|| {});
            info_span!("own", session.id = "explicit").in_scope(|| {});
        });
        info_span!("after-session").in_scope(|| {});
    });
    app.exports(
        "
        before
          child session.id=S
          plain session.id=S
          inner-child session.id=INNER
          after-inner session.id=S
          own session.id=explicit
          after-session
        ",
    );
    assert_eq!(values(&app.span("own"), "session.id"), ["explicit"]);
}

/// A task inherits there, from where it was made; here it does where it is said.
#[tokio::test]
async fn threads_and_tasks() {
    let guard = session("as").attach();
    assert_eq!(std::thread::spawn(current_session_id).join().unwrap(), None);
    let said = tokio::spawn(async { current_session_id() }.in_session(session("as")));
    drop(guard);
    assert_eq!(said.await.unwrap().as_deref(), Some("as"));
    let unsaid = tokio::spawn(async { current_session_id() });
    assert_eq!(unsaid.await.unwrap(), None);
}
