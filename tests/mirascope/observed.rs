//! What Mirascope 2.8.2 was seen to do. A rule stands where we do something else.

use super::*;
use tracing::info_span;
use tracing_session::propagated_context;

#[test]
fn headers_to_the_id_of_the_session() {
    const BLANK: &str = "blank is nothing";
    const TRIMMED: &str = "ids are trimmed";
    const DIFFER: &str = "several that differ are ignored";
    const VALID: &str = "an id has 1 to 1,024 bytes and no control characters";
    const X: &str = "the header of the documentation is read too";
    let long = "x".repeat(4096);
    let id = "Mirascope-Session-Id";
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
fn header_of_another_spelling_is_overwritten() {
    set_propagator();
    let mut sent = headers(&[("mirascope-session-id", "old")]);
    session("over").in_scope(|| inject_context(&mut sent));
    assert_eq!(sent, headers(&[("Mirascope-Session-Id", "over")]));
}

#[test]
fn nothing_in_force_is_no_header() {
    set_propagator();
    assert_eq!(injected(), Headers::new());
}

#[test]
fn values_of_the_headers_of_each_format() {
    let Some(format) = in_format(test_name!()) else {
        return;
    };
    let _app = App::new();
    let (sent, span) =
        session("sid").in_scope(|| info_span!("client").in_scope(|| (injected(), here())));
    let (trace, span) = (span.trace_id().to_string(), span.span_id().to_string());
    // Mirascope names the parent and sets a second flag, which Jaeger's format has for debugging.
    let jaeger = ("uber-trace-id", format!("{trace}:{span}:0:1"));
    let tracecontext = ("traceparent", format!("00-{trace}-{span}-01"));
    let b3 = ("b3", format!("{trace}-{span}-1"));
    let multi = [
        ("x-b3-traceid", trace.clone()),
        ("x-b3-spanid", span.clone()),
        ("x-b3-sampled", "1".to_owned()),
    ];
    let mut expected = vec![("Mirascope-Session-Id", "sid".to_owned())];
    match &*format {
        "tracecontext" => expected.push(tracecontext),
        "b3" => expected.push(b3),
        "b3multi" => expected.extend(multi),
        "jaeger" => expected.push(jaeger),
        _ => {
            expected.extend([tracecontext, b3, jaeger]);
            expected.extend(multi);
        }
    }
    for (name, value) in expected {
        assert_eq!(sent[name], value);
    }
}

#[test]
fn headers_as_mirascope_writes_them_are_read() {
    let Some(format) = in_format(test_name!()) else {
        return;
    };
    let span = "b7ad6b7169203331";
    let jaeger = format!("{TRACE_ID}:{span}:00f067aa0ba902b7:03");
    let b3 = format!("{TRACE_ID}-{span}-1");
    let of_format: &[(&str, &str)] = &[
        ("traceparent", &format!("00-{TRACE_ID}-{span}-03")),
        ("b3", &b3),
        ("x-b3-traceid", TRACE_ID),
        ("x-b3-spanid", span),
        ("x-b3-sampled", "1"),
        ("uber-trace-id", &jaeger),
    ];
    let of_format: &[(&str, &str)] = match &*format {
        "tracecontext" => &of_format[..1],
        "b3" => &of_format[1..2],
        "b3multi" => &of_format[2..5],
        "jaeger" => &of_format[5..],
        _ => of_format,
    };
    let lines = [of_format, &[("mirascope-session-id", "sid")]].concat();
    propagated_context(&headers(&lines)).in_scope(|| {
        let here = here();
        assert_eq!(here.trace_id().to_string(), TRACE_ID);
        assert_eq!(here.span_id().to_string(), span);
        assert!(here.is_sampled());
        assert_eq!(current_session_id().as_deref(), Some("sid"));
    });
}

#[test]
fn headers_to_the_session_in_force_inside_another() {
    const BLANK: &str = "blank is nothing";
    set_propagator();
    let id = SESSION_HEADER_NAME;
    for (lines, mirascope, ours, rule) in [
        (vec![], "ambient", "ambient", ""),
        (vec![(id, "")], "ambient", "ambient", ""),
        (vec![(id, "   ")], "   ", "ambient", BLANK),
        (vec![(id, "remote")], "remote", "remote", ""),
        (vec![("traceparent", TRACEPARENT)], "ambient", "ambient", ""),
        (vec![("traceparent", "invalid")], "ambient", "ambient", ""),
    ] {
        let inside = || propagated_context(&headers(&lines)).in_scope(current_session_id);
        let found = session("ambient").in_scope(inside);
        assert_eq!(found.as_deref(), Some(ours), "{lines:?}");
        assert_eq!(mirascope == ours, rule.is_empty(), "{lines:?}");
    }
}

/// There, the span in force is lost if `traceparent` is invalid. Here it stays.
#[test]
fn invalid_traceparent_leaves_the_span_in_force() {
    set_propagator();
    let _app = App::new();
    info_span!("ambient").in_scope(|| {
        let ambient = here();
        let invalid = headers(&[("traceparent", "invalid")]);
        let inside = propagated_context(&invalid).in_scope(here);
        assert_eq!(inside, ambient);
    });
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

/// There it is of version 4.
#[test]
fn id_that_is_generated() {
    let session = Session::generate();
    let id = session.id().unwrap();
    let uuid = uuid::Uuid::parse_str(id).unwrap();
    assert_eq!(uuid.get_version_num(), 7);
    assert_eq!(
        uuid.as_hyphenated().to_string(),
        id,
        "36 characters, in lower case"
    );
}

/// A task inherits there, from where it was made; here it does where it is said.
#[tokio::test]
async fn threads_and_tasks() {
    use tracing_session::InSession;
    let guard = session("as").attach();
    assert_eq!(std::thread::spawn(current_session_id).join().unwrap(), None);
    let said = tokio::spawn(async { current_session_id() }.in_session(session("as")));
    drop(guard);
    assert_eq!(said.await.unwrap().as_deref(), Some("as"));
    let unsaid = tokio::spawn(async { current_session_id() });
    assert_eq!(unsaid.await.unwrap(), None);
}
