//! `test_propagation.py`: the formats, what is read and what is written.

use super::*;
use crate::support;
use tracing::info_span;
use tracing_session::{extract_context, propagated_context};

/// Of the default it is W3C baggage that carries the session here; and OpenTelemetry for Rust
/// writes `tracestate` even if it is empty.
#[test]
fn exact_header_set_per_format() {
    let test = test_name!();
    if std::env::var_os("TEST_ALONE").is_none() && !support::alone(test, &[]) {
        in_format(test);
        return;
    }
    let format = std::env::var("MIRASCOPE_PROPAGATOR").unwrap_or_default();
    global::set_text_map_propagator(propagator_from_env().unwrap());
    let _app = App::new();
    let inside = || info_span!("client").in_scope(injected);
    let sent: BTreeMap<_, _> = session("sid").in_scope(inside).into_iter().collect();
    let names: Vec<_> = sent.keys().map(String::as_str).collect();
    let expected: &[&str] = match &*format {
        "" => &["baggage", "traceparent", "tracestate"],
        "tracecontext" => &["Mirascope-Session-Id", "traceparent", "tracestate"],
        "b3" => &["Mirascope-Session-Id", "b3"],
        "b3multi" => &[
            "Mirascope-Session-Id",
            "x-b3-sampled",
            "x-b3-spanid",
            "x-b3-traceid",
        ],
        "jaeger" => &["Mirascope-Session-Id", "uber-trace-id"],
        _ => &[
            "Mirascope-Session-Id",
            "b3",
            "traceparent",
            "tracestate",
            "uber-trace-id",
            "x-b3-sampled",
            "x-b3-spanid",
            "x-b3-traceid",
        ],
    };
    assert_eq!(names, expected, "{format}");
}

#[test]
fn invalid_format_error_text() {
    let invalid = [
        "W3C",
        "TRACECONTEXT",
        "tracecontext ",
        "baggage",
        "b3,tracecontext",
    ];
    for name in invalid {
        if support::alone(test_name!(), &[("MIRASCOPE_PROPAGATOR", name)]) {
            let name = std::env::var("MIRASCOPE_PROPAGATOR").unwrap();
            let error = propagator_from_env().unwrap_err();
            assert_eq!(
                error.to_string(),
                format!(
                    "MIRASCOPE_PROPAGATOR: `{name}`: no such propagator (valid: tracecontext, \
                     b3, b3multi, jaeger, composite)"
                )
            );
            return;
        }
    }
}

#[test]
fn extract_valid() {
    set_propagator();
    let cx = extract_context(&headers(&[("traceparent", TRACEPARENT)]));
    let span = cx.span().span_context().clone();
    assert!(span.is_valid() && span.is_remote() && span.is_sampled());
    assert_eq!(span.trace_id().to_string(), TRACE_ID);
    assert_eq!(span.span_id().to_string(), "b7ad6b7169203331");
}

#[test]
fn extract_invalid() {
    set_propagator();
    let cx = extract_context(&headers(&[("traceparent", "invalid")]));
    assert!(!cx.span().span_context().is_valid());
}

#[test]
fn extract_missing() {
    set_propagator();
    assert!(
        !extract_context(&Headers::new())
            .span()
            .span_context()
            .is_valid()
    );
}

#[test]
fn inject_specific_context() {
    let app = App::new();
    let span = app.provider.tracer("lib").start("client");
    let trace = span.span_context().trace_id().to_string();
    let cx = session("chat-42").in_scope(|| Context::current_with_span(span));
    let mut sent = Headers::new();
    TraceContextPropagator::new().inject_context(&cx, &mut sent);
    SessionPropagator::new().inject_context(&cx, &mut sent);
    assert!(sent["traceparent"].contains(&trace));
    assert_eq!(sent["baggage"], "session.id=chat-42");
}

#[test]
fn inject_extract_session_round_trip() {
    set_propagator();
    let _app = App::new();
    let sent = session("chat-42").in_scope(|| info_span!("client").in_scope(injected));
    let mut names: Vec<_> = sent.keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, [SESSION_HEADER_NAME, "traceparent", "tracestate"]);
    assert_eq!(extract_session_id(&sent).as_deref(), Some("chat-42"));
    let inside = propagated_context(&sent).in_scope(current_session_id);
    assert_eq!(inside.as_deref(), Some("chat-42"));
}

#[test]
fn trace_round_trip_for_all_formats() {
    if in_format(test_name!()).is_none() {
        return;
    }
    let _app = App::new();
    let (sent, client) =
        session("sid").in_scope(|| info_span!("client").in_scope(|| (injected(), here())));
    propagated_context(&sent).in_scope(|| {
        let span = here();
        assert_eq!(span.trace_id(), client.trace_id());
        assert_eq!(span.span_id(), client.span_id());
        assert!(span.is_sampled() && span.is_remote());
        assert_eq!(current_session(), Some(session("sid")));
    });
}

#[test]
fn client_server_continuity() {
    set_propagator();
    let app = App::new();
    let sent = session("chat-42").in_scope(|| info_span!("client").in_scope(injected));
    propagated_context(&sent).in_scope(|| info_span!("server").in_scope(|| {}));
    app.exports(
        "
        client session.id=chat-42
          server session.id=chat-42
        ",
    );
}

#[test]
fn three_hops() {
    set_propagator();
    let app = App::new();
    let hop = |from: &Headers, name: &'static str| {
        propagated_context(from).in_scope(|| info_span!("hop", otel.name = name).in_scope(injected))
    };
    let first = session("chat-42").in_scope(|| hop(&Headers::new(), "first"));
    let second = hop(&first, "second");
    hop(&second, "third");
    app.exports(
        "
        first session.id=chat-42
          second session.id=chat-42
            third session.id=chat-42
        ",
    );
}

#[test]
fn b3_client_to_composite_server() {
    if !support::alone(test_name!(), &[("MIRASCOPE_PROPAGATOR", "composite")]) {
        return;
    }
    global::set_text_map_propagator(propagator_from_env().unwrap());
    let b3 = format!("{TRACE_ID}-b7ad6b7169203331-1");
    let sent = headers(&[("b3", &b3), (SESSION_HEADER_NAME, "chat-42")]);
    propagated_context(&sent).in_scope(|| {
        assert_eq!(here().trace_id().to_string(), TRACE_ID);
        assert_eq!(here().span_id().to_string(), "b7ad6b7169203331");
        assert_eq!(current_session_id().as_deref(), Some("chat-42"));
    });
}

#[test]
fn five_threads_isolated() {
    set_propagator();
    let app = App::new();
    std::thread::scope(|scope| {
        let threads = ["one", "two", "three", "four", "five"].map(|id| {
            let dispatch = &app.dispatch;
            scope.spawn(move || {
                let _default = tracing::dispatcher::set_default(dispatch);
                set_propagator();
                session(id).in_scope(|| {
                    for _ in 0..20 {
                        let sent = info_span!("client").in_scope(injected);
                        assert_eq!(sent[SESSION_HEADER_NAME], id);
                        let inside = propagated_context(&sent).in_scope(current_session_id);
                        assert_eq!(inside.as_deref(), Some(id));
                    }
                });
            })
        });
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

#[test]
fn malformed_partial_empty_traceparent() {
    set_propagator();
    let app = App::new();
    for traceparent in [
        "not-a-traceparent",
        "00-0af7651916cd43dd8448eb211c80319c",
        "",
    ] {
        let sent = headers(&[
            ("traceparent", traceparent),
            (SESSION_HEADER_NAME, "chat-42"),
        ]);
        propagated_context(&sent).in_scope(|| {
            info_span!("server").in_scope(|| assert!(here().is_valid() && here().is_sampled()));
        });
    }
    app.exports(&"server session.id=chat-42\n".repeat(3));
    let spans = app.spans();
    assert!(
        spans
            .iter()
            .all(|span| span.span_context.trace_id().to_string() != TRACE_ID)
    );
}
