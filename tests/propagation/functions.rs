//! The functions that go by OpenTelemetry's global propagator.

use crate::propagation::{TRACE_ID, TRACEPARENT, session};
use crate::support::{self, App};
use opentelemetry::propagation::text_map_propagator::FieldIter;
use opentelemetry::propagation::{
    Extractor, Injector, TextMapCompositePropagator, TextMapPropagator,
};
use opentelemetry::trace::TraceContextExt;
use opentelemetry::{Context, global};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use std::collections::{BTreeMap, HashMap};
use tracing::{Instrument, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_session::{
    Session, SessionPropagator, current_session, current_session_id,
    propagation::{
        InboundPolicy, WithPropagated, extract_context, inject_context, propagated_context,
    },
    session, set_session_id,
};

type Headers = BTreeMap<String, String>;

fn set() {
    let propagators: Vec<Box<dyn TextMapPropagator + Send + Sync>> = vec![
        Box::new(TraceContextPropagator::new()),
        Box::new(SessionPropagator::new()),
    ];
    support::propagate(TextMapCompositePropagator::new(propagators));
}

fn headers<const LEN: usize>(lines: [(&str, &str); LEN]) -> Headers {
    let owned = lines.map(|(name, value)| (name.to_owned(), value.to_owned()));
    Headers::from(owned)
}

fn from_outside() -> Headers {
    headers([
        ("Traceparent", TRACEPARENT),
        ("Baggage", "session.id=chat-42"),
    ])
}

fn trace_here() -> String {
    Context::current()
        .span()
        .span_context()
        .trace_id()
        .to_string()
}

#[test]
fn until_a_propagator_is_set_nothing_happens_and_one_diagnostic_explains_it() {
    if !support::alone(test_name!(), &[]) {
        return;
    }
    let app = App::new();
    session!("secret-1").in_scope(|| {
        for _ in 0..2 {
            let mut written = Headers::new();
            inject_context(&mut written);
            assert_eq!(written, Headers::new());
            let other = headers([
                ("baggage", "session.id=secret-2"),
                ("traceparent", TRACEPARENT),
            ]);
            let here = trace_here();
            propagated_context(&other).in_scope(|| {
                assert_eq!(current_session_id().as_deref(), Some("secret-1"));
                assert_eq!(trace_here(), here);
            });
            let cx = extract_context(&other);
            assert!(!cx.span().span_context().is_remote());
        }
    });
    assert_eq!(
        app.diagnostics.messages(),
        [
            "headers carry no trace and no session because no propagator is set: call \
             `opentelemetry::global::set_text_map_propagator(propagator_from_env()?)`"
        ]
    );
}

#[test]
fn current_context_is_injected() {
    set();
    let app = App::new();
    let mut written = Headers::new();
    inject_context(&mut written);
    assert_eq!(written, Headers::new());
    session("chat-42").in_scope(|| inject_context(&mut written));
    assert_eq!(written, headers([("baggage", "session.id=chat-42")]));
    session!("chat-43").in_scope(|| inject_context(&mut written));
    let span = app.span("session").span_context;
    let traceparent = format!("00-{}-{}-01", span.trace_id(), span.span_id());
    let baggage = ("baggage", "session.id=chat-43");
    let expected = headers([baggage, ("traceparent", &traceparent), ("tracestate", "")]);
    assert_eq!(written, expected);
}

#[test]
fn headers_with_another_case_are_replaced() {
    set();
    let mut written = headers([("BAGGAGE", "session.id=old"), ("Accept", "*/*")]);
    session("chat-42").in_scope(|| inject_context(&mut written));
    assert_eq!(
        written,
        headers([("Accept", "*/*"), ("baggage", "session.id=chat-42")])
    );
}

#[test]
fn extracted_context_can_be_the_parent_of_a_span() {
    set();
    let app = App::new();
    let request = info_span!("request");
    request
        .set_parent(extract_context(&from_outside()))
        .unwrap();
    request.in_scope(|| info_span!("below").in_scope(|| {}));
    drop(request);
    assert_eq!(current_session(), None);
    app.exports(
        "
        request session.id=chat-42
          below session.id=chat-42
        ",
    );
    assert_eq!(
        app.span("request").span_context.trace_id().to_string(),
        TRACE_ID
    );
}

#[test]
fn propagated_context_is_current_until_its_guard_is_dropped() {
    set();
    let app = App::new();
    session("outer").in_scope(|| {
        let guard = propagated_context(&from_outside()).attach();
        assert_eq!(current_session_id().as_deref(), Some("chat-42"));
        assert_eq!(trace_here(), TRACE_ID);
        info_span!("inside").in_scope(|| {});
        drop(guard);
        assert_eq!(current_session_id().as_deref(), Some("outer"));
        let inside = propagated_context(&from_outside()).in_scope(current_session_id);
        assert_eq!(inside.as_deref(), Some("chat-42"));
        info_span!("outside").in_scope(|| {});
    });
    app.exports(
        "
        inside session.id=chat-42
        outside session.id=outer
        ",
    );
}

/// However the session was said: by a value, by a span, or set on a span.
#[test]
fn extracted_trace_without_a_session_keeps_the_current_session() {
    set();
    let _app = App::new();
    let inside = || {
        let headers = headers([("traceparent", TRACEPARENT)]);
        propagated_context(&headers).in_scope(current_session_id)
    };
    let left = Some("chat-42".to_owned());
    assert_eq!(session("chat-42").in_scope(inside), left, "a value");
    assert_eq!(session!("chat-42").in_scope(inside), left, "a span");
    let set_on_a_span = || {
        set_session_id("chat-42").unwrap();
        inside()
    };
    assert_eq!(
        info_span!("request").in_scope(set_on_a_span),
        left,
        "set on a span"
    );
}

/// What came in is nearer than the span, and would hide the value, as an attached `Session` would.
#[test]
fn session_is_not_set_on_a_span_outside_the_extracted_context() {
    set();
    let app = App::new();
    for traceparent in ["", TRACEPARENT] {
        let lines = [
            ("traceparent", traceparent),
            ("baggage", "session.id=chat-42"),
        ];
        info_span!("outside").in_scope(|| {
            propagated_context(&headers(lines)).in_scope(|| {
                assert!(set_session_id("chat-43").is_err(), "{traceparent}");
                assert_eq!(current_session_id().as_deref(), Some("chat-42"));
            });
        });
    }
    app.exports(
        "
        outside
        outside
        ",
    );
}

#[test]
fn session_is_set_on_a_span_inside_the_extracted_context() {
    set();
    let app = App::new();
    propagated_context(&from_outside()).in_scope(|| {
        info_span!("inside").in_scope(|| {
            set_session_id("chat-43").unwrap();
            let mut written = Headers::new();
            inject_context(&mut written);
            assert_eq!(written["baggage"], "session.id=chat-43");
        });
    });
    app.exports("inside session.id=chat-43");
}

#[test]
fn spawned_future_runs_in_the_context_of_the_headers() {
    set();
    let app = App::new();
    app.runtime().block_on(async {
        let jobs = ["chat-1", "chat-2", "chat-3"].map(|id| {
            let work = async move {
                for _ in 0..3 {
                    tokio::task::yield_now().await;
                    assert_eq!(current_session_id().as_deref(), Some(id));
                }
                info_span!("step").in_scope(|| {});
                async {}.instrument(info_span!("awaited")).await;
            };
            let headers = headers([("baggage", &format!("session.id={id}"))]);
            tokio::spawn(work.with_propagated(&headers))
        });
        for job in jobs {
            job.await.unwrap();
        }
        assert_eq!(current_session(), None);
    });
    let line = |span: &opentelemetry_sdk::trace::SpanData| {
        format!(
            "{} {}",
            span.name,
            support::values(span, "session.id").concat()
        )
    };
    let mut lines: Vec<_> = app.spans().iter().map(line).collect();
    lines.sort();
    assert_eq!(
        lines,
        [
            "awaited chat-1",
            "awaited chat-2",
            "awaited chat-3",
            "step chat-1",
            "step chat-2",
            "step chat-3"
        ]
    );
}

#[test]
fn debug_of_a_propagated_context_has_no_id() {
    set();
    let headers = headers([("baggage", "session.id=secret-42,user.id=secret-7")]);
    let shown = format!("{:?}", propagated_context(&headers));
    assert!(!shown.contains("secret"), "{shown}");
}

#[test]
fn session_crosses_two_calls_between_services() {
    set();
    let app = App::new();
    let mut to_second: HashMap<String, String> = HashMap::new();
    session!("chat-42").in_scope(|| inject_context(&mut to_second));
    let second = info_span!("second");
    second.set_parent(extract_context(&to_second)).unwrap();
    let mut to_third: HashMap<String, Vec<String>> = HashMap::new();
    second.in_scope(|| inject_context(&mut to_third));
    propagated_context(&to_third).in_scope(|| info_span!("third").in_scope(|| {}));
    drop(second);
    app.exports(
        "
        session session.id=chat-42
          second session.id=chat-42
            third session.id=chat-42
        ",
    );
}

/// A policy that asks for what is in force, and for the propagator: neither may be locked.
#[test]
fn policy_runs_in_the_outer_context() {
    if !support::alone(test_name!(), &[]) {
        return;
    }
    let policy = InboundPolicy::verify(|_: &str, ()| {
        let mut headers = Headers::new();
        inject_context(&mut headers);
        headers["baggage"] == "session.id=outer" && current_session_id().is_some()
    });
    global::set_text_map_propagator(SessionPropagator::new().with_inbound(policy));
    let outer: Session = session("outer");
    let inner = || propagated_context(&from_outside()).in_scope(current_session_id);
    assert_eq!(outer.in_scope(inner).as_deref(), Some("chat-42"));
}

/// Some propagators look for names that only begin as theirs do.
#[test]
fn custom_propagator_receives_the_names_of_a_carrier() {
    if !support::alone(test_name!(), &[]) {
        return;
    }
    #[derive(Debug)]
    struct Prefixed;
    struct Tenant(String);
    impl TextMapPropagator for Prefixed {
        fn inject_context(&self, _: &Context, _: &mut dyn Injector) {}

        fn extract_with_context(&self, cx: &Context, from: &dyn Extractor) -> Context {
            let names = from.keys();
            let found = names.iter().find_map(|name| name.strip_prefix("tenant-"));
            match found {
                Some(tenant) => cx.with_value(Tenant(tenant.to_owned())),
                None => cx.clone(),
            }
        }

        fn fields(&self) -> FieldIter<'_> {
            FieldIter::new(&[])
        }
    }
    global::set_text_map_propagator(Prefixed);
    let cx = extract_context(&headers([("other", "1"), ("tenant-acme", "1")]));
    assert_eq!(cx.get::<Tenant>().unwrap().0, "acme");
}
