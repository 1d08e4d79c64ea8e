//! The propagators that the environment names.

use crate::propagation::{id_taken, received, sent_here, session};
use crate::support::{self, App, values};
use opentelemetry::trace::TraceContextExt;
use opentelemetry::{Context, global};
use std::collections::BTreeSet;
use std::process::Command;
use tracing::info_span;
use tracing_session::propagation::{Carrier, TraceHeaders, inject_context, propagated_context};
use tracing_session::propagator_from_env;

const OTEL: &str = "OTEL_PROPAGATORS";
const MIRASCOPE: &str = "MIRASCOPE_PROPAGATOR";

/// The names of the headers that are written here.
fn names() -> String {
    let propagator = propagator_from_env().unwrap();
    let lines = sent_here(&propagator);
    let name = |line: &String| line.split(':').next().unwrap().to_owned();
    let names: BTreeSet<_> = lines.iter().map(name).collect();
    names.into_iter().collect::<Vec<_>>().join(" ")
}

/// Runs the test once for each of these, in a process of its own: gives its number there.
fn case(test: &str, cases: &[&[(&str, &str)]]) -> Option<usize> {
    if let Ok(case) = std::env::var("CASE") {
        return Some(case.parse().unwrap());
    }
    for (number, variables) in cases.iter().enumerate() {
        let number = number.to_string();
        support::alone(test, &[*variables, &[("CASE", number.as_str())]].concat());
    }
    None
}

#[test]
fn context_reaches_a_child_process_in_the_environment() {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    let parent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let variables = [
        ("BAGGAGE", "session.id=chat%2042,tenant=acme"),
        ("TRACEPARENT", &parent),
    ];
    if support::alone(test_name!(), &variables) {
        // Without a propagator there are none.
        assert_eq!(TraceHeaders::from_env().names(), [""; 0]);
        global::set_text_map_propagator(propagator_from_env().unwrap());
        let app = App::new();
        let mut command = Command::new("a child of this child");
        command.env("Baggage", "of the application");
        propagated_context(&TraceHeaders::from_env()).in_scope(|| {
            info_span!("main").in_scope(|| inject_context(&mut command));
        });
        let span = app.span("main");
        assert_eq!(values(&span, "session.id"), ["chat 42"]);
        assert_eq!(span.span_context.trace_id().to_string(), TRACE);
        let parent = format!("00-{TRACE}-{}-01", span.span_context.span_id());
        assert_eq!(command.get_all("traceparent"), [&parent]);
        assert_eq!(
            command.get_all("baggage"),
            ["session.id=chat%2042,tenant=acme"]
        );
        assert_eq!(command.get_all("x-session"), [""; 0]);
        command.set("X-Session", "chat-42".to_owned());
        assert_eq!(command.get_all("x-session"), ["chat-42"]);
        let names = [
            "BAGGAGE",
            "Baggage",
            "TRACEPARENT",
            "TRACESTATE",
            "X_SESSION",
        ];
        assert_eq!(command.names(), names);
    }
}

#[test]
fn environment_selects_the_headers() {
    const DEFAULT: &str = "baggage traceparent tracestate";
    const TRACECONTEXT: &str = "Mirascope-Session-Id traceparent tracestate";
    const MULTI: &str = "Mirascope-Session-Id x-b3-sampled x-b3-spanid x-b3-traceid";
    const COMPOSITE: &str = "Mirascope-Session-Id b3 traceparent tracestate uber-trace-id \
        x-b3-sampled x-b3-spanid x-b3-traceid";
    let cases: &[(&[(&str, &str)], &str)] = &[
        (&[], DEFAULT),
        (&[(OTEL, "")], DEFAULT),
        (&[(OTEL, " \t")], DEFAULT),
        (&[(OTEL, "tracecontext,baggage")], DEFAULT),
        (&[(OTEL, " baggage , , tracecontext ,")], DEFAULT),
        (
            &[(OTEL, "tracecontext,baggage,tracecontext,baggage")],
            DEFAULT,
        ),
        (&[(OTEL, "tracecontext")], TRACECONTEXT),
        (&[(OTEL, "baggage")], "baggage"),
        (&[(OTEL, "b3multi")], MULTI),
        (&[(OTEL, "jaeger")], "Mirascope-Session-Id uber-trace-id"),
        (&[(OTEL, "jaeger,baggage")], "baggage uber-trace-id"),
        (&[(OTEL, "tracecontext,b3,b3multi,jaeger")], COMPOSITE),
        (&[(OTEL, "none")], "Mirascope-Session-Id"),
        (&[(OTEL, "none,tracecontext")], TRACECONTEXT),
        (&[(MIRASCOPE, "")], DEFAULT),
        (&[(MIRASCOPE, "  ")], DEFAULT),
        (&[(MIRASCOPE, "tracecontext")], TRACECONTEXT),
        (&[(MIRASCOPE, "b3multi")], MULTI),
        (
            &[(MIRASCOPE, "jaeger")],
            "Mirascope-Session-Id uber-trace-id",
        ),
        (&[(MIRASCOPE, "composite")], COMPOSITE),
        (&[(OTEL, "b3multi"), (MIRASCOPE, "jaeger")], MULTI),
        (&[(OTEL, "b3multi"), (MIRASCOPE, "no such")], MULTI),
        (
            &[(OTEL, " "), (MIRASCOPE, "jaeger")],
            "Mirascope-Session-Id uber-trace-id",
        ),
        (
            &[(OTEL, "none"), (MIRASCOPE, "composite")],
            "Mirascope-Session-Id",
        ),
    ];
    let variables: Vec<_> = cases.iter().map(|(variables, _)| *variables).collect();
    let test = test_name!();
    let Some(case) = case(test, &variables) else {
        return;
    };
    let _app = App::new();
    let both = session("chat-42").with_user("u-7").unwrap();
    both.in_scope(|| info_span!("call").in_scope(|| assert_eq!(names(), cases[case].1)));
}

#[test]
fn unknown_propagator_in_the_environment_is_an_error_that_lists_the_valid_ones() {
    let cases: &[(&[(&str, &str)], &str)] = &[
        (&[(OTEL, "xray")], "xray"),
        (&[(OTEL, "TraceContext")], "TraceContext"),
        (&[(OTEL, "composite")], "composite"),
        (&[(OTEL, "b3 multi")], "b3 multi"),
        (&[(OTEL, "tracecontext, ottrace ,xray")], "ottrace"),
        (&[(OTEL, "xray"), (MIRASCOPE, "b3")], "xray"),
        (&[(MIRASCOPE, "W3C")], "W3C"),
        (&[(MIRASCOPE, "TRACECONTEXT")], "TRACECONTEXT"),
        (&[(MIRASCOPE, "tracecontext ")], "tracecontext "),
        (&[(MIRASCOPE, "baggage")], "baggage"),
        (&[(MIRASCOPE, "none")], "none"),
        (&[(MIRASCOPE, "b3,tracecontext")], "b3,tracecontext"),
    ];
    let variables: Vec<_> = cases.iter().map(|(variables, _)| *variables).collect();
    let test = test_name!();
    let Some(case) = case(test, &variables) else {
        return;
    };
    let (variables, name) = cases[case];
    let (variable, valid) = match variables[0].0 {
        OTEL => (OTEL, "tracecontext, baggage, b3, b3multi, jaeger, none"),
        _ => (MIRASCOPE, "tracecontext, b3, b3multi, jaeger, composite"),
    };
    let error = propagator_from_env().unwrap_err();
    assert!(error.is_unknown_propagator() && !error.is_invalid_id());
    assert_eq!(
        error.to_string(),
        format!("{variable}: `{name}`: no such propagator (valid: {valid})")
    );
}

#[test]
fn b3_is_a_single_header() {
    let cases: &[&[(&str, &str)]] = &[&[(OTEL, "b3")], &[(MIRASCOPE, "b3")]];
    if case(test_name!(), cases).is_some() {
        let _app = App::new();
        let session = session("chat-42");
        let inside = || assert_eq!(names(), "Mirascope-Session-Id b3");
        session.in_scope(|| info_span!("call").in_scope(inside));
    }
}

#[test]
fn without_a_span_only_the_session_is_written() {
    let cases: &[(&[(&str, &str)], &str)] = &[
        (&[], "baggage"),
        (&[(OTEL, "tracecontext")], "Mirascope-Session-Id"),
        (&[(OTEL, "jaeger")], "Mirascope-Session-Id"),
        (&[(OTEL, "none")], "Mirascope-Session-Id"),
    ];
    let variables: Vec<_> = cases.iter().map(|(variables, _)| *variables).collect();
    let test = test_name!();
    if let Some(case) = case(test, &variables) {
        assert_eq!(names(), "");
        session("chat-42").in_scope(|| assert_eq!(names(), cases[case].1));
    }
}

/// `b3: 0` would tell who is called that the trace must not be sampled.
#[test]
fn b3_writes_no_sampling_decision_without_a_span() {
    let cases: &[&[(&str, &str)]] = &[
        &[(OTEL, "b3")],
        &[(OTEL, "b3multi")],
        &[(MIRASCOPE, "composite")],
    ];
    let test = test_name!();
    if case(test, cases).is_some() {
        assert_eq!(names(), "");
        let session = session("chat-42");
        session.in_scope(|| assert_eq!(names(), "Mirascope-Session-Id"));
    }
}

/// OpenTelemetry's specification: debugging implies sampling.
#[test]
fn b3_for_debugging_is_sampled() {
    if case(test_name!(), &[&[(OTEL, "b3")]]).is_some() {
        let b3 = "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-d";
        let cx = received(
            &propagator_from_env().unwrap(),
            [("b3", b3)],
            &Context::new(),
        );
        let span = cx.span().span_context().clone();
        assert!(span.is_valid() && span.is_sampled(), "{span:?}");
    }
}

#[test]
fn headers_of_b3_are_read_in_the_forms_that_its_clients_write() {
    let test = test_name!();
    let Some(_) = case(test, &[&[(OTEL, "b3")], &[(OTEL, "b3multi")]]) else {
        return;
    };
    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";
    let read = |headers: &[(&str, &str)]| {
        let propagator = propagator_from_env().unwrap();
        let cx = received(&propagator, headers, &Context::new());
        let span = cx.span().span_context().clone();
        span.is_valid()
            .then(|| (span.trace_id().to_string(), span.is_sampled()))
    };
    for (header, sampled) in [
        (&*format!("{TRACE}-{SPAN}-1"), true),
        (&format!("{TRACE}-{SPAN}-0"), false),
        (&format!("{TRACE}-{SPAN}"), false),
        (&format!("{TRACE}-{SPAN}-1-{SPAN}"), true),
        (&format!(" {}-{SPAN}-d ", TRACE.to_uppercase()), true),
    ] {
        let expected = Some((TRACE.to_owned(), sampled));
        assert_eq!(read(&[("b3", header)]), expected, "{header}");
    }
    let short = format!("{}-{SPAN}-1", &TRACE[16..]);
    let expected = format!("{}{}", "0".repeat(16), &TRACE[16..]);
    assert_eq!(read(&[("b3", &short)]), Some((expected, true)));
    for header in [
        "",
        "0",
        "-",
        TRACE,
        &format!("{TRACE}-{SPAN}-x"),
        &format!("{}-{SPAN}-1", "0".repeat(32)),
        &format!("{TRACE}-{}-1", "0".repeat(16)),
        &format!("+{}-{SPAN}-1", &TRACE[1..]),
        &format!("0{TRACE}-{SPAN}-1"),
        &format!("{TRACE}-0{SPAN}-1"),
    ] {
        assert_eq!(read(&[("b3", header)]), None, "{header}");
    }
    let ids = [("X-B3-TraceId", TRACE), ("X-B3-SpanId", SPAN)];
    let with = |further: &[(&'static str, &'static str)]| read(&[&ids, further].concat());
    let expected = |sampled| Some((TRACE.to_owned(), sampled));
    assert_eq!(with(&[]), expected(false));
    assert_eq!(with(&[("X-B3-Sampled", "1")]), expected(true));
    assert_eq!(with(&[("X-B3-Sampled", "true")]), expected(true));
    assert_eq!(with(&[("X-B3-Sampled", "0")]), expected(false));
    assert_eq!(with(&[("X-B3-Flags", "1")]), expected(true));
    assert_eq!(with(&[("X-B3-Flags", "0")]), expected(false));
    assert_eq!(with(&[("X-B3-Sampled", "maybe")]), None);
    assert_eq!(read(&ids[..1]), None);
}

#[test]
fn header_of_jaeger_is_read_in_the_forms_that_its_clients_write() {
    let test = test_name!();
    let Some(_) = case(test, &[&[(OTEL, "jaeger")]]) else {
        return;
    };
    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";
    let read = |header: &str| {
        let propagator = propagator_from_env().unwrap();
        let cx = received(&propagator, [("Uber-Trace-Id", header)], &Context::new());
        let span = cx.span().span_context().clone();
        let ids = (span.trace_id().to_string(), span.span_id().to_string());
        let sampled = span.is_sampled();
        span.is_valid().then_some((ids.0, ids.1, sampled))
    };
    let short = ("7".to_owned() + &"0".repeat(15), "8");
    for (header, trace, span, sampled) in [
        (&*format!("{TRACE}:{SPAN}:0:1"), TRACE, SPAN, true),
        (&format!("{TRACE}:{SPAN}:0:0"), TRACE, SPAN, false),
        (&format!("{TRACE}:{SPAN}:{SPAN}:03"), TRACE, SPAN, true),
        (&format!("{TRACE}:{SPAN}:0:2"), TRACE, SPAN, false),
        (&format!(" {TRACE}:{SPAN}:0:1 "), TRACE, SPAN, true),
        (&format!("{TRACE}%3A{SPAN}%3a0%3A1"), TRACE, SPAN, true),
        (
            &format!("{}:{SPAN}:0:1", TRACE.to_uppercase()),
            TRACE,
            SPAN,
            true,
        ),
        (
            &format!("{}:{}:0:1", short.0, short.1),
            &format!("{}{}", "0".repeat(16), short.0),
            "0000000000000008",
            true,
        ),
    ] {
        let expected = (trace.to_owned(), span.to_owned(), sampled);
        assert_eq!(read(header), Some(expected), "{header}");
    }
    for header in [
        "",
        ":::",
        &format!("0:{SPAN}:0:1"),
        &format!("{TRACE}:0:0:1"),
        &format!("{TRACE}:{SPAN}:0"),
        &format!("{TRACE}:{SPAN}:0:1:1"),
        &format!("0{TRACE}:{SPAN}:0:1"),
        &format!("{TRACE}:0{SPAN}:0:1"),
        &format!("+{}:{SPAN}:0:1", &TRACE[1..]),
        &format!("{TRACE}:{SPAN}:0:"),
        &format!("{TRACE}:{SPAN}:0:zz"),
        &format!("{TRACE}:{SPAN}:0:100"),
        &format!("x{}:{SPAN}:0:1", &TRACE[1..]),
    ] {
        assert_eq!(read(header), None, "{header}");
    }
}

#[test]
fn header_of_mirascope_is_read_in_both_spellings_if_the_environment_lists_no_baggage() {
    let test = test_name!();
    let Some(_) = case(test, &[&[(OTEL, "b3")]]) else {
        return;
    };
    let propagator = propagator_from_env().unwrap();
    for name in ["Mirascope-Session-Id", "x-mirascope-session-id"] {
        let taken = id_taken(&propagator, [(name, "chat-42")]);
        assert_eq!(taken.as_deref(), Some("chat-42"));
    }
    assert_eq!(
        id_taken(&propagator, [("baggage", "session.id=chat-42")]),
        None
    );
}

#[cfg(unix)]
#[test]
fn variable_that_is_not_utf8_is_an_error_about_the_variable() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let test = test_name!();
    if std::env::var_os(OTEL).is_none_or(|value| value.to_str().is_some()) {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args([test, "--exact"])
            .env(OTEL, OsStr::from_bytes(b"b3\xff"))
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stdout)
        );
        return;
    }
    let error = propagator_from_env().unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with("OTEL_PROPAGATORS: ") && text.contains("UTF-8"),
        "{text}"
    );
    assert!(!text.contains("id is") && !error.is_invalid_id(), "{text}");
}
