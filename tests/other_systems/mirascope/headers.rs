//! The headers that Mirascope writes and reads. A row says the reason where we do something else.

use super::*;
use std::collections::HashMap;
use tracing_session::propagation::{extract_session_id, inject_context, propagated_context};

#[test]
fn headers_to_the_id_of_the_session() {
    const BLANK: &str = "blank is nothing";
    const TRIMMED: &str = "ids are trimmed";
    const DIFFER: &str = "several that differ are ignored";
    const VALID: &str = "an id has 1 to 1,024 bytes and no control characters";
    const X: &str = "the header of the documentation is read too";
    let long = "x".repeat(4096);
    let id = "Mirascope-Session-Id";
    assert_eq!(SESSION_HEADER_NAME, id);
    type Lines<'a> = &'a [(&'a str, &'a [&'a str])];
    // The headers, what they say to Mirascope, what they say here, and the rule.
    let rows: &[(Lines, Option<&str>, Option<&str>, &str)] = &[
        (&[(id, &["s1"])], Some("s1"), Some("s1"), ""),
        (
            &[("mirascope-session-id", &["s1"])],
            Some("s1"),
            Some("s1"),
            "",
        ),
        (
            &[("MIRASCOPE-SESSION-ID", &["s1"])],
            Some("s1"),
            Some("s1"),
            "",
        ),
        (&[("X-Mirascope-Session-Id", &["s1"])], None, Some("s1"), X),
        (&[("Other", &["v"])], None, None, ""),
        (&[], None, None, ""),
        (&[(id, &["a", "a"])], Some("a"), Some("a"), ""),
        (&[(id, &["a", "b"])], Some("a"), None, DIFFER),
        (&[(id, &[])], None, None, ""),
        (&[(id, &["", "b"])], Some(""), Some("b"), BLANK),
        (&[(id, &[""])], None, None, ""),
        (&[(id, &["   "])], Some("   "), None, BLANK),
        (&[(id, &[" s1 "])], Some(" s1 "), Some("s1"), TRIMMED),
        // A comma is part of an id, and does not part two.
        (&[(id, &["a, b"])], Some("a, b"), Some("a, b"), ""),
        (
            &[(id, &["séance-你"])],
            Some("séance-你"),
            Some("séance-你"),
            "",
        ),
        (&[(id, &["a\r\nX: y"])], Some("a\r\nX: y"), None, VALID),
        (
            &[(id, &["first"]), ("mirascope-session-id", &["second"])],
            Some("second"),
            None,
            DIFFER,
        ),
        (&[(id, &[&long])], Some(&long), None, VALID),
    ];
    for (lines, mirascope, ours, rule) in rows {
        let values = |values: &[&str]| values.iter().map(|&value| value.to_owned()).collect();
        let line = |&(name, of): &(&str, &[&str])| (name.to_owned(), values(of));
        let headers: HashMap<String, Vec<String>> = lines.iter().map(line).collect();
        assert_eq!(extract_session_id(&headers).as_deref(), *ours, "{lines:?}");
        assert_eq!(mirascope == ours, rule.is_empty(), "{lines:?}");
    }
}

#[test]
fn id_to_the_header() {
    const VALID: &str = "no such id can be made";
    const TRIMMED: &str = "ids are trimmed";
    const ASCII: &str = "a plain header is ASCII";
    let long = "x".repeat(300);
    for (id, mirascope, ours, rule) in [
        (
            "only-session",
            Some("only-session"),
            Some("only-session"),
            "",
        ),
        (&*long, Some(&*long), Some(&*long), ""),
        ("", Some(""), None, VALID),
        ("  ", Some("  "), None, VALID),
        ("a\r\nEvil: 1", Some("a\r\nEvil: 1"), None, VALID),
        ("  pad  ", Some("  pad  "), Some("pad"), TRIMMED),
        ("séance", Some("séance"), None, ASCII),
    ] {
        set_propagator();
        let sent = Session::new(id).map(|session| session.in_scope(injected));
        let sent = sent.unwrap_or_default();
        let header = sent.get(SESSION_HEADER_NAME).map(String::as_str);
        assert_eq!(header, ours, "{id:?}");
        assert_eq!(sent.len(), usize::from(ours.is_some()), "{sent:?}");
        assert_eq!(mirascope == ours, rule.is_empty(), "{id:?}");
    }
}

/// There, a header of another spelling is left beside the new one.
#[test]
fn header_with_another_case_is_replaced() {
    set_propagator();
    let mut sent = headers(&[("mirascope-session-id", "old")]);
    session("over").in_scope(|| inject_context(&mut sent));
    assert_eq!(sent, headers(&[("Mirascope-Session-Id", "over")]));
}

#[test]
fn without_a_session_there_is_no_header() {
    set_propagator();
    assert_eq!(injected(), Headers::new());
}

/// In another session and outside of any. There, the span in force is lost if `traceparent` is invalid. Here it stays.
#[test]
fn headers_set_the_current_session_and_trace() {
    const BLANK: &str = "blank is nothing";
    const X: &str = "the header of the documentation is read too";
    set_propagator();
    let app = App::new();
    let id = SESSION_HEADER_NAME;
    let traceparent = ("traceparent", TRACEPARENT);
    type Id = Option<&'static str>;
    type Row = (
        Vec<(&'static str, &'static str)>,
        Id,
        Id,
        &'static str,
        bool,
    );
    // The headers, the session in them for Mirascope and for us, the reason, and whether they continue a trace.
    let rows: [Row; 14] = [
        (vec![], None, None, "", false),
        (vec![(id, "")], None, None, "", false),
        (vec![(id, "   ")], Some("   "), None, BLANK, false),
        (
            vec![(id, "remote")],
            Some("remote"),
            Some("remote"),
            "",
            false,
        ),
        (
            vec![("mirascope-session-id", "remote")],
            Some("remote"),
            Some("remote"),
            "",
            false,
        ),
        (
            vec![("X-Mirascope-Session-Id", "remote")],
            None,
            Some("remote"),
            X,
            false,
        ),
        (vec![traceparent], None, None, "", true),
        (
            vec![traceparent, (id, "remote")],
            Some("remote"),
            Some("remote"),
            "",
            true,
        ),
        (
            vec![("traceparent", "invalid"), (id, "remote")],
            Some("remote"),
            Some("remote"),
            "",
            false,
        ),
        (vec![("traceparent", "")], None, None, "", false),
        (vec![("traceparent", "\0")], None, None, "", false),
        (
            vec![("traceparent", "00-0af7651916cd43dd8448eb211c80319c")],
            None,
            None,
            "",
            false,
        ),
        (
            vec![("traceparent", "not-a-traceparent")],
            None,
            None,
            "",
            false,
        ),
        (vec![("", "")], None, None, "", false),
    ];
    let inner = headers(&[(
        "traceparent",
        "00-11111111111111111111111111111111-2222222222222222-01",
    )]);
    for (lines, mirascope, ours, rule, continues) in rows {
        assert_eq!(mirascope == ours, rule.is_empty(), "{lines:?}");
        let received = headers(&lines);
        let check = |outer: Option<&str>| {
            let around = here();
            let is_around = || {
                assert_eq!(here(), around, "{lines:?}");
                assert_eq!(current_session_id().as_deref(), outer, "{lines:?}");
            };
            propagated_context(&received).in_scope(|| {
                let span = here();
                let is_inside = || {
                    assert_eq!(here(), span, "{lines:?}");
                    assert_eq!(current_session_id().as_deref(), ours.or(outer), "{lines:?}");
                };
                if continues {
                    assert_eq!(span.trace_id().to_string(), TRACE_ID);
                    assert_eq!(span.span_id().to_string(), SPAN_ID);
                    assert!(span.is_remote() && span.is_sampled());
                } else {
                    assert_eq!(span, around, "{lines:?}");
                }
                let explicit = session("explicit").in_scope(current_session_id);
                assert_eq!(explicit.as_deref(), Some("explicit"));
                is_inside();
                let other = propagated_context(&inner).in_scope(here);
                assert_eq!(other.trace_id().to_string(), "1".repeat(32));
                is_inside();
                info_span!("server").in_scope(|| {});
            });
            is_around();
            let panics = || propagated_context(&received).in_scope(|| panic!("on purpose"));
            assert!(catch_unwind(AssertUnwindSafe(panics)).is_err());
            is_around();
        };
        check(None);
        session("ambient").in_scope(|| check(Some("ambient")));
        info_span!("ambient").in_scope(|| check(None));
        let of_ambient = app.span("ambient").span_context;
        let servers = app.spans().into_iter().filter(|span| span.name == "server");
        let servers: Vec<_> = servers.collect();
        let session_of = |at: usize| values(&servers[at], "session.id").concat();
        assert_eq!(session_of(0), ours.unwrap_or_default());
        assert_eq!(session_of(1), ours.unwrap_or("ambient"));
        for (server, around) in servers.iter().zip([None, None, Some(&of_ambient)]) {
            let trace = server.span_context.trace_id();
            assert_eq!(trace.to_string() == TRACE_ID, continues, "{lines:?}");
            assert!(server.span_context.is_sampled());
            if let (Some(around), false) = (around, continues) {
                assert_eq!(trace, around.trace_id());
            }
        }
        app.exporter.reset();
    }
}

/// W3C baggage carries the session by default, and OpenTelemetry for Rust writes `tracestate` even if it is empty.
#[test]
fn each_format_writes_its_headers_and_reads_them() {
    const VARIABLE: &str = "MIRASCOPE_PROPAGATOR";
    let formats = ["", "tracecontext", "b3", "b3multi", "jaeger", "composite"];
    let of_format = |format: &str| match format {
        "" => support::alone(test_name!(), &[]),
        _ => support::alone(test_name!(), &[(VARIABLE, format)]),
    };
    // Not `any`: each of them has its process.
    if !formats.map(of_format).contains(&true) {
        return;
    }
    let format = std::env::var(VARIABLE).unwrap_or_default();
    global::set_text_map_propagator(propagator_from_env().unwrap());
    let _app = App::new();

    let (sent, client) =
        session("sid").in_scope(|| info_span!("client").in_scope(|| (injected(), here())));
    let (trace, span) = (client.trace_id().to_string(), client.span_id().to_string());
    let text = str::to_owned;
    let tracecontext = [
        ("traceparent", format!("00-{trace}-{span}-01")),
        ("tracestate", text("")),
    ];
    let b3 = [("b3", format!("{trace}-{span}-1"))];
    let multi = [
        ("x-b3-traceid", trace.clone()),
        ("x-b3-spanid", span.clone()),
        ("x-b3-sampled", text("1")),
    ];
    // Mirascope names the parent and sets a second flag, which Jaeger's format has for debugging.
    let jaeger = [("uber-trace-id", format!("{trace}:{span}:0:1"))];
    let of_trace: Vec<_> = match &*format {
        "" | "tracecontext" => tracecontext.into(),
        "b3" => b3.into(),
        "b3multi" => multi.into(),
        "jaeger" => jaeger.into(),
        _ => [&tracecontext[..], &b3, &multi, &jaeger].concat(),
    };
    let of_session = match &*format {
        "" => ("baggage", text("session.id=sid")),
        _ => ("Mirascope-Session-Id", text("sid")),
    };
    let expected = of_trace.into_iter().chain([of_session]);
    let expected: Headers = expected.map(|(name, value)| (text(name), value)).collect();
    assert_eq!(sent, expected, "{format}");

    propagated_context(&sent).in_scope(|| {
        let span = here();
        assert_eq!(span.trace_id(), client.trace_id());
        assert_eq!(span.span_id(), client.span_id());
        assert!(span.is_sampled() && span.is_remote());
        assert_eq!(current_session(), Some(session("sid")));
    });

    // As Mirascope writes them. A server that takes every format is called with one.
    let b3 = format!("{TRACE_ID}-{SPAN_ID}-1");
    let traceparent = format!("00-{TRACE_ID}-{SPAN_ID}-03");
    let jaeger = format!("{TRACE_ID}:{SPAN_ID}:00f067aa0ba902b7:03");
    let theirs: [(&str, &[(&str, &str)]); 4] = [
        ("tracecontext", &[("traceparent", &traceparent)]),
        ("b3", &[("b3", &b3)]),
        (
            "b3multi",
            &[
                ("x-b3-traceid", TRACE_ID),
                ("x-b3-spanid", SPAN_ID),
                ("x-b3-sampled", "1"),
            ],
        ),
        ("jaeger", &[("uber-trace-id", &jaeger)]),
    ];
    for (name, of_trace) in theirs {
        if name == format || format == "composite" {
            let lines = [of_trace, &[("mirascope-session-id", "sid")]].concat();
            propagated_context(&headers(&lines)).in_scope(|| {
                let here = here();
                assert_eq!(here.trace_id().to_string(), TRACE_ID);
                assert_eq!(here.span_id().to_string(), SPAN_ID);
                assert!(here.is_sampled());
                assert_eq!(current_session_id().as_deref(), Some("sid"));
            });
        }
    }
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
