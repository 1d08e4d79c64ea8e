//! What is read.

use crate::propagation::{
    Lines, TRACE_ID, TRACEPARENT, baggage_of, id_taken, ids_under, only_in, received, sent,
    session, taken,
};
use crate::support::{self, App, PLACEHOLDERS};
use opentelemetry::baggage::BaggageExt;
use opentelemetry::propagation::{TextMapCompositePropagator, TextMapPropagator};
use opentelemetry::trace::{Span, Tracer, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::propagation::{BaggagePropagator, TraceContextPropagator};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use tracing::info_span;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_session::{
    SessionPropagator, current_session, current_session_id,
    propagation::{InboundPolicy, SESSION_HEADER_NAME, extract_session_id},
    session, set_session_id,
};

fn some(id: &str) -> Option<String> {
    Some(id.to_owned())
}

/// The trace's propagator and ours.
fn composed(ours: SessionPropagator, ours_first: bool) -> TextMapCompositePropagator {
    let (ours, trace) = (Box::new(ours), Box::new(TraceContextPropagator::new()));
    TextMapCompositePropagator::new(match ours_first {
        true => vec![ours, trace],
        false => vec![trace, ours],
    })
}

// Where it stands.

#[test]
fn session_is_read_from_w3c_baggage() {
    let propagator = SessionPropagator::new();
    let longest = "%25".repeat(1024);
    for (header, expected) in [
        ("session.id=chat-42", "chat-42"),
        (" \t session.id \t=\t chat-42 \t", "chat-42"),
        ("a=1,session.id=chat-42,b=2", "chat-42"),
        (",,a,=,=b, session.id=chat-42 ,", "chat-42"),
        ("session.id=chat-42;prop=1", "chat-42"),
        ("session.id=chat-42 ; a ; b = c", "chat-42"),
        ("session.id=dGVzdA==", "dGVzdA=="),
        ("session.id=a%20b%2Bc+d", "a b+c+d"),
        ("session.id=%20chat-42%20", "chat-42"),
        ("session.id=a%2Cb%3Bc%3Dd", "a,b;c=d"),
        ("session.id=100%", "100%"),
        ("session.id=100%4", "100%4"),
        ("session.id=100%zz", "100%zz"),
        ("session.id=s%c3%A9ance", "séance"),
        ("session.id=séance", "séance"),
        ("session.id=chat-42,session.id=chat-42", "chat-42"),
        ("session.id=,session.id=chat-42,session.id=%20", "chat-42"),
        (&format!("session.id={longest}"), &"%".repeat(1024)),
    ] {
        let taken = id_taken(&propagator, [("baggage", header)]);
        assert_eq!(taken.as_deref(), Some(expected), "{header}");
    }
    for header in [
        "",
        " ",
        ",",
        "=",
        ";",
        "session.id",
        "session.id=",
        "session.id= ",
        "session.id=%20%09",
        "session.id;a=chat-42",
        "=session.id",
        "Session.Id=chat-42",
        "SESSION.ID=chat-42",
        "session_id=chat-42",
        "x;session.id=chat-42",
        "user.id=u-7",
    ] {
        assert_eq!(
            taken(&propagator, [("baggage", header)]),
            (None, None),
            "{header}"
        );
    }
    assert_eq!(id_taken(&propagator, [("X-Session", "chat-42")]), None);
    assert_eq!(id_taken(&propagator, Lines::default()), None);
}

#[test]
fn session_is_read_from_separate_headers() {
    let tracectrl = only_in("X-TraceCtrl-Session");
    let mirascope = only_in(SESSION_HEADER_NAME);
    let both = tracectrl.clone().with_header(SESSION_HEADER_NAME).unwrap();
    for (propagator, name, expected) in [
        (&tracectrl, "X-TraceCtrl-Session", Some("chat-42")),
        (&tracectrl, "x-tracectrl-session", Some("chat-42")),
        (&tracectrl, "Mirascope-Session-Id", None),
        (&tracectrl, "X-Mirascope-Session-Id", None),
        (&mirascope, "Mirascope-Session-Id", Some("chat-42")),
        (&mirascope, "MIRASCOPE-SESSION-ID", Some("chat-42")),
        (&mirascope, "X-Mirascope-Session-Id", Some("chat-42")),
        (&mirascope, "x-mirascope-session-id", Some("chat-42")),
        (&mirascope, "X-TraceCtrl-Session", None),
        (&both, "X-TraceCtrl-Session", Some("chat-42")),
        (&both, "X-Mirascope-Session-Id", Some("chat-42")),
    ] {
        let taken = id_taken(propagator, [(name, "chat-42")]);
        assert_eq!(taken.as_deref(), expected, "{name}");
    }
    assert_eq!(id_taken(&both, [("baggage", "session.id=chat-42")]), None);
}

#[test]
fn value_of_a_separate_header_is_the_trimmed_id() {
    let plain = only_in("x-session");
    let encoded = plain.clone().with_percent_encoded_headers();
    for (value, in_plain, in_encoded) in [
        ("chat-42", "chat-42", "chat-42"),
        (" \t chat-42 \t ", "chat-42", "chat-42"),
        ("a, b;c=d", "a, b;c=d", "a, b;c=d"),
        ("a%20b+c", "a%20b+c", "a b+c"),
        ("100%", "100%", "100%"),
        ("100%4", "100%4", "100%4"),
        ("s%C3%A9ance", "s%C3%A9ance", "séance"),
        ("séance", "séance", "séance"),
        ("%20chat-42%09", "%20chat-42%09", "chat-42"),
    ] {
        assert_eq!(id_taken(&plain, [("x-session", value)]), some(in_plain));
        assert_eq!(id_taken(&encoded, [("x-session", value)]), some(in_encoded));
    }
    for blank in ["", " ", "\t", "\u{a0}"] {
        assert_eq!(id_taken(&plain, [("x-session", blank)]), None);
        assert_eq!(id_taken(&encoded, [("x-session", blank)]), None);
    }
    assert_eq!(id_taken(&encoded, [("x-session", "%20%20")]), None);
}

#[test]
fn blank_value_is_ignored_and_the_same_id_twice_is_valid() {
    let app = App::new();
    let all = SessionPropagator::new()
        .with_header(SESSION_HEADER_NAME)
        .and_then(|it| it.with_header("x-session"))
        .unwrap();
    let from = [
        ("baggage", "a=1,session.id="),
        ("baggage", ""),
        ("baggage", "session.id=chat%2D42"),
        ("Mirascope-Session-Id", " "),
        ("x-mirascope-session-id", " chat-42 "),
        ("x-session", ""),
        ("x-session", "chat-42"),
        ("X-SESSION", "chat-42"),
    ];
    assert_eq!(id_taken(&all, from), some("chat-42"));
    let none = [
        ("baggage", "session.id= "),
        ("x-session", " "),
        ("Mirascope-Session-Id", ""),
    ];
    assert_eq!(id_taken(&all, none), None);
    assert_eq!(app.diagnostics.messages(), [""; 0]);
}

#[test]
fn user_is_read_only_on_request_and_only_from_baggage() {
    let without = SessionPropagator::new().with_header("x-session").unwrap();
    let with = without.clone().with_user();
    let both = || [("baggage", "user.id=u%2D7;a=1,session.id=chat-42")];
    let user = || [("baggage", "user.id=u-7")];
    assert_eq!(taken(&without, both()), (some("chat-42"), None));
    assert_eq!(taken(&without, user()), (None, None));
    assert_eq!(taken(&with, both()), (some("chat-42"), some("u-7")));
    assert_eq!(taken(&with, user()), (None, some("u-7")));
    assert_eq!(taken(&with.without_baggage(), both()), (None, None));
}

/// The keys of other systems count where there is no `session.id`: a conversation and a session may have two ids.
#[test]
fn session_is_read_under_the_keys_of_other_systems() {
    let propagator = SessionPropagator::new();
    let added = propagator.clone().with_baggage_key("thread").unwrap();
    for (baggage, by_default, with_key) in [
        (
            "langfuse_session_id=chat-42",
            some("chat-42"),
            some("chat-42"),
        ),
        (
            "gen_ai.conversation.id=chat-42",
            some("chat-42"),
            some("chat-42"),
        ),
        (
            "gen_ai.conversation.id=b,langfuse_session_id=a",
            some("a"),
            some("a"),
        ),
        ("langfuse_session_id=a,session.id=b", some("b"), some("b")),
        (
            "langfuse_session_id=,gen_ai.conversation.id=b",
            some("b"),
            some("b"),
        ),
        (
            "langfuse_session_id=%61,langfuse_session_id=a",
            some("a"),
            some("a"),
        ),
        ("thread=c,langfuse_session_id=a", some("a"), some("c")),
        ("thread=c", None, some("c")),
        ("thread=None,langfuse_session_id=a", some("a"), None),
        ("langfuse_session_id=a,langfuse_session_id=b", None, None),
    ] {
        let from = || [("baggage", baggage)];
        assert_eq!(id_taken(&propagator, from()), by_default, "{baggage}");
        assert_eq!(id_taken(&added, from()), with_key, "{baggage}");
    }
    let refuses = propagator.clone().with_inbound(InboundPolicy::ignore());
    assert_eq!(
        id_taken(&refuses, [("baggage", "langfuse_session_id=a")]),
        None
    );
    let without = propagator.without_baggage();
    assert_eq!(
        id_taken(&without, [("baggage", "langfuse_session_id=a")]),
        None
    );
}

#[test]
fn user_is_read_under_the_keys_of_other_systems_on_request() {
    let from = || [("baggage", "langfuse_session_id=a,langfuse_user_id=u-7")];
    let added = SessionPropagator::new()
        .with_user_baggage_key("enduser.id")
        .unwrap();
    assert_eq!(taken(&SessionPropagator::new(), from()), (some("a"), None));
    for propagator in [SessionPropagator::new().with_user(), added.clone()] {
        assert_eq!(taken(&propagator, from()), (some("a"), some("u-7")));
        let own = [("baggage", "langfuse_user_id=u-7,user.id=u-8")];
        assert_eq!(taken(&propagator, own), (None, some("u-8")));
        // The sender hides the user, so another system's key doesn't reveal it.
        let hashed = [("baggage", "langfuse_user_id=u-7,user.hash=5e8a")];
        assert_eq!(taken(&propagator, hashed), (None, None));
    }
    assert_eq!(
        taken(&added, [("baggage", "enduser.id=u-9")]),
        (None, some("u-9"))
    );
}

/// Mirascope's header, which `extract_session_id` finds too.
#[test]
fn header_of_mirascope_is_read_if_there_is_no_other_id() {
    let propagator = SessionPropagator::new();
    for name in ["mirascope-session-id", "X-Mirascope-Session-Id"] {
        assert_eq!(id_taken(&propagator, [(name, "chat-42")]), some("chat-42"));
        let both = [(name, "chat-42"), ("baggage", "session.id=chat-43")];
        assert_eq!(id_taken(&propagator, both), some("chat-43"));
    }
}

// What is refused.

/// Each of these lines leaves what is in force, and is told of once, with the mistake and no value.
fn ignored_and_told_of_once(cases: [(Vec<(&str, &str)>, &str); 4]) {
    let propagator = SessionPropagator::new()
        .with_user()
        .with_percent_encoded_headers()
        .with_header("x-session")
        .unwrap();
    for (lines, error) in cases {
        let app = App::new();
        let outer = session("outer").with_user("u-1").unwrap();
        outer.in_scope(|| {
            for _ in 0..2 {
                let line = |&(name, value): &(&str, &str)| (name.into(), value.into());
                let from = Lines(lines.iter().map(line).collect());
                let cx = received(&propagator, from, &Context::current());
                assert_eq!(ids_under(cx), (some("outer"), some("u-1")), "{lines:?}");
            }
        });
        let said = app.diagnostics.messages();
        let [said] = &said[..] else {
            panic!("{said:?} of {lines:?}");
        };
        assert!(said.starts_with("header `"), "{said}");
        assert!(said.ends_with(&format!("ignored: {error}")), "{said}");
        assert!(!said.contains("secret") && !said.contains("xxx"), "{said}");
    }
}

const DIFFER: &str = "there are several ids, and they differ: make the caller send one id";
const LONG: &str = "id is longer than 1024 bytes: shorten it, or use a hash of it";
const CONTROL: &str = "id contains a control or invisible character: remove it";
const NOT_UNICODE: &str = "id is not valid UTF-8: encode it as UTF-8";
const PLACEHOLDER: &str =
    "id is a placeholder such as None or null: set the value when it is known";

#[test]
fn invalid_or_different_session_ids_in_baggage_are_ignored_with_one_warning() {
    if support::alone(test_name!(), &[]) {
        let long = format!("session.id={}", "x".repeat(1025));
        ignored_and_told_of_once([
            (
                vec![("baggage", "session.id=secret-1,session.id=secret-2")],
                DIFFER,
            ),
            (vec![("baggage", &long)], LONG),
            (vec![("baggage", "session.id=secret%0A1")], CONTROL),
            (vec![("baggage", "session.id=secret%E9")], NOT_UNICODE),
        ]);
    }
}

#[test]
fn invalid_or_different_user_ids_are_ignored_with_one_warning() {
    if support::alone(test_name!(), &[]) {
        let long = format!("user.id={}", "x".repeat(1025));
        let differ = vec![
            ("baggage", "user.id=secret-1"),
            ("baggage", "user.id=secret-2"),
        ];
        ignored_and_told_of_once([
            (differ, DIFFER),
            (vec![("baggage", &long)], LONG),
            (vec![("baggage", "user.id=secret%7F")], CONTROL),
            (vec![("baggage", "user.id=secret%C3")], NOT_UNICODE),
        ]);
    }
}

#[test]
fn invalid_or_different_session_ids_in_a_header_are_ignored_with_one_warning() {
    if support::alone(test_name!(), &[]) {
        let long = "x".repeat(1025);
        ignored_and_told_of_once([
            (
                vec![("x-session", "secret-1"), ("X-Session", "secret-2")],
                DIFFER,
            ),
            (vec![("x-session", &long)], LONG),
            (vec![("x-session", "secret\t1")], CONTROL),
            (vec![("x-session", "secret%ff")], NOT_UNICODE),
        ]);
    }
}

/// What a sender writes for a missing id.
#[test]
fn placeholders_in_headers_are_ignored_with_one_warning() {
    if !support::alone(test_name!(), &[]) {
        return;
    }
    let app = App::new();
    let plain = only_in("x-plain");
    let encoded = only_in("x-encoded").with_percent_encoded_headers();
    let outer = session("outer").with_user("u-1").unwrap();
    outer.in_scope(|| {
        let stays = |propagator: &SessionPropagator, name: &str, value: &str| {
            let cx = received(propagator, [(name, value)], &Context::current());
            let ids = ids_under(cx);
            assert_eq!(ids, (some("outer"), some("u-1")), "{name}: {value}");
        };
        for text in PLACEHOLDERS {
            let every_byte: String = text.bytes().map(|byte| format!("%{byte:02x}")).collect();
            for text in [text, &format!("%20{text}"), &every_byte] {
                let baggage = SessionPropagator::new().with_user();
                stays(&baggage, "baggage", &format!("session.id={text}"));
                stays(&baggage, "baggage", &format!("user.id={text}"));
                let both = format!("session.id=chat-42,user.id={text}");
                stays(&baggage, "baggage", &both);
                stays(&encoded, "x-encoded", text);
            }
            stays(&plain, "x-plain", text);
            stays(&plain, "x-plain", &format!(" {text}\t"));
            let headers = HashMap::from([(SESSION_HEADER_NAME.to_owned(), text.to_owned())]);
            assert_eq!(extract_session_id(&headers), None);
        }
    });
    let of = |header: &str, what: &str| {
        format!("header `{header}` contains {what} that is ignored: {PLACEHOLDER}")
    };
    assert_eq!(
        app.diagnostics.messages(),
        [
            of("baggage", "a `session.id`"),
            of("baggage", "a `user.id`"),
            of("x-encoded", "an id"),
            of("x-plain", "an id"),
            of(SESSION_HEADER_NAME, "an id"),
        ]
    );
    // Only the whole id is a placeholder.
    for id in ["none", "NULL", "None-1", "nilly", "Nan", "undefined user"] {
        assert_eq!(id_taken(&plain, [("x-plain", id)]), some(id));
    }
}

#[test]
fn ids_that_differ_between_two_headers_are_ignored() {
    let app = App::new();
    let propagator = SessionPropagator::new().with_header("x-differs").unwrap();
    for id in ["chat-42", "chat-43"] {
        let from = [("baggage", "session.id=chat-42"), ("x-differs", id)];
        let expected = (id == "chat-42").then(|| id.to_owned());
        assert_eq!(id_taken(&propagator, from), expected);
    }
    assert_eq!(
        app.diagnostics.messages(),
        [
            "header `x-differs` contains an id that is ignored: there are several ids, and they differ: make the \
             caller send one id"
        ]
    );
}

#[test]
fn diagnostic_names_the_right_one_of_mirascopes_two_headers() {
    if !support::alone(test_name!(), &[]) {
        return;
    }
    let app = App::new();
    let propagator = only_in(SESSION_HEADER_NAME);
    let control = "\u{1}";
    assert_eq!(
        id_taken(&propagator, [("X-Mirascope-Session-Id", control)]),
        None
    );
    assert_eq!(
        app.diagnostics.messages(),
        [
            "header `X-Mirascope-Session-Id` contains an id that is ignored: id contains a control \
             or invisible character: remove it"
        ]
    );
}

#[test]
fn diagnostic_about_an_id_in_baggage_names_the_header() {
    if !support::alone(test_name!(), &[]) {
        return;
    }
    let app = App::new();
    assert_eq!(
        id_taken(&SessionPropagator::new(), [("baggage", "session.id=%01")]),
        None
    );
    let said = app.diagnostics.messages().concat();
    assert!(said.contains("header `baggage`"), "{said}");
}

#[test]
fn other_baggage_is_read_even_if_the_session_is_refused() {
    let propagator = SessionPropagator::new().with_inbound(InboundPolicy::ignore());
    let from = [("baggage", "tenant=a,session.id=chat-42")];
    let cx = received(&propagator, from, &Context::new());
    assert_eq!(baggage_of(&cx), ["tenant=a []"]);
    assert_eq!(sent(&propagator, &cx), ["baggage: tenant=a"]);
}

/// TraceCtrl's own sample: one agent calls another, and both have the session and the trace.
#[test]
fn agent_called_with_tracectrls_header_is_in_the_callers_session() {
    let app = App::new();
    let propagator = composed(only_in("X-TraceCtrl-Session"), false);
    let mut request = HashMap::new();
    session!("chat-42").in_scope(|| {
        propagator.inject_context(&Context::current(), &mut request);
    });
    assert_eq!(request["x-tracectrl-session"], "chat-42");
    let cx = propagator.extract_with_context(&Context::new(), &request);
    let attached = cx.attach();
    info_span!("agent b").in_scope(|| {});
    drop(attached);
    app.exports(
        "
        session session.id=chat-42
          agent b session.id=chat-42
        ",
    );
}

// The policy.

#[test]
fn policy_accepts_or_refuses_an_id() {
    let propagator = |policy| SessionPropagator::new().with_user().with_inbound(policy);
    let asked = Arc::new(Mutex::new(Vec::new()));
    let verify = {
        let asked = asked.clone();
        InboundPolicy::verify(move |id: &str, ()| {
            asked.lock().unwrap().push(id.to_owned());
            id.starts_with("chat-")
        })
    };
    let both = |id: &str| [("baggage".to_owned(), format!("session.id={id},user.id=u-7"))];
    let neither = (None, None);
    let ignore = propagator(InboundPolicy::ignore());
    assert_eq!(taken(&ignore, both("chat-42")), neither);
    assert_eq!(taken(&ignore, [("baggage", "user.id=u-7")]), neither);
    for accept in [InboundPolicy::accept(), InboundPolicy::default()] {
        assert_eq!(
            taken(&propagator(accept), both("chat-42")),
            (some("chat-42"), some("u-7"))
        );
    }
    let verify = propagator(verify.clone());
    assert_eq!(
        taken(&verify, both("%20chat%2D42")),
        (some("chat-42"), some("u-7"))
    );
    assert_eq!(taken(&verify, both("other")), neither);
    // There is no id to ask of.
    assert_eq!(taken(&verify, [("baggage", "user.id=u-7")]), neither);
    assert_eq!(taken(&verify, [("baggage", "session.id=")]), neither);
    assert_eq!(*asked.lock().unwrap(), ["chat-42", "other"]);
}

#[test]
fn accepted_id_replaces_the_outer_session_and_user() {
    let propagator = SessionPropagator::new().with_user();
    let outer = session("outer").with_user("u-1").unwrap();
    outer.in_scope(|| {
        let under = |header: &str| {
            let cx = received(&propagator, [("baggage", header)], &Context::current());
            ids_under(cx)
        };
        assert_eq!(under("session.id=chat-42"), (some("chat-42"), None));
        assert_eq!(under("user.id=u-7"), (None, some("u-7")));
        assert_eq!(
            under("session.id=chat-42,user.id=u-7"),
            (some("chat-42"), some("u-7"))
        );
        assert_eq!(under("session.id=outer"), (some("outer"), None));
        assert_eq!(
            current_session().as_ref(),
            Some(&outer),
            "outside, nothing changed"
        );
    });
}

#[test]
fn refused_or_missing_id_keeps_the_current_session() {
    let outer = session("outer").with_user("u-1").unwrap();
    let verify = InboundPolicy::verify(|id: &str, ()| id != "chat-42");
    for policy in [InboundPolicy::ignore(), verify] {
        let propagator = SessionPropagator::new().with_user().with_inbound(policy);
        for header in ["session.id=chat-42,user.id=u-7", "session.id=", "a=1", ""] {
            let under = || received(&propagator, [("baggage", header)], &Context::current());
            let ids = ids_under(outer.in_scope(under));
            assert_eq!(ids, (some("outer"), some("u-1")), "{header}");
        }
    }
}

#[test]
fn headers_with_a_session_replace_the_default_session_and_headers_without_one_keep_it() {
    if !support::alone(test_name!(), &[]) {
        return;
    }
    let default = session("default").with_user("u-1").unwrap();
    default.set_global_default().unwrap();
    let _app = App::new();
    let propagator = SessionPropagator::new();
    let taken = |id: &str| taken(&propagator, [("baggage", format!("session.id={id}"))]);
    assert_eq!(taken("chat-42"), (some("chat-42"), None));
    assert_eq!(taken(""), (some("default"), some("u-1")));
}

// What comes of it.

#[test]
fn spans_under_the_extracted_context_carry_the_session() {
    for ours_first in [true, false] {
        let app = App::new();
        let propagator = composed(SessionPropagator::new().with_user(), ours_first);
        let from = [
            ("traceparent", TRACEPARENT),
            ("baggage", "session.id=chat-42,user.id=u-7"),
        ];
        let cx = received(&propagator, from, &Context::new());

        let request = info_span!("set_parent");
        request.set_parent(cx.clone()).unwrap();
        request.in_scope(|| info_span!("below").in_scope(|| {}));
        drop(request);
        let attached = cx.clone().attach();
        info_span!("attached").in_scope(|| info_span!("below").in_scope(|| {}));
        drop(attached);
        let tracer = app.provider.tracer("lib");
        tracer.start_with_context("plain", &cx).end();

        app.exports(
            "
            set_parent session.id=chat-42 user.id=u-7
              below session.id=chat-42 user.id=u-7
            attached session.id=chat-42 user.id=u-7
              below session.id=chat-42 user.id=u-7
            plain session.id=chat-42 user.id=u-7
            ",
        );
        let trace = |span: &opentelemetry_sdk::trace::SpanData| span.span_context.trace_id();
        assert!(
            app.spans()
                .iter()
                .all(|span| trace(span).to_string() == TRACE_ID)
        );
    }
}

#[test]
fn session_of_a_span_overrides_that_of_its_extracted_parent() {
    let app = App::new();
    let propagator = composed(SessionPropagator::new(), false);
    let from = [
        ("traceparent", TRACEPARENT),
        ("baggage", "session.id=chat-42"),
    ];
    let cx = received(&propagator, from, &Context::new());
    let own = session!("own");
    own.set_parent(cx.clone()).unwrap();
    own.in_scope(|| info_span!("below").in_scope(|| {}));
    drop(own);
    let user = info_span!("user", user.id = "u-7");
    user.set_parent(cx).unwrap();
    user.in_scope(|| info_span!("below").in_scope(|| {}));
    drop(user);
    app.exports(
        "
        session session.id=own
          below session.id=own
        user user.id=u-7 session.id=chat-42
          below session.id=chat-42 user.id=u-7
        ",
    );
}

#[test]
fn extracted_session_is_current_inside_spans_of_another_session() {
    for ours_first in [true, false] {
        for traceparent in [TRACEPARENT, ""] {
            let app = App::new();
            let propagator = composed(SessionPropagator::new(), ours_first);
            let inside = || {
                let from = [
                    ("traceparent", traceparent),
                    ("baggage", "session.id=chat-42"),
                ];
                let cx = received(&propagator, from, &Context::current());
                let _attached = cx.attach();
                assert_eq!(current_session_id(), some("chat-42"));
                info_span!("child").in_scope(|| info_span!("below").in_scope(|| {}));
            };
            session!("a span's").in_scope(inside);
            info_span!("bound").in_scope(|| {
                set_session_id("set on a span").unwrap();
                inside();
                assert_eq!(current_session_id(), some("set on a span"));
            });
            session("a value's").in_scope(inside);
            let carries = |name: &str| {
                let spans = app.spans().into_iter().filter(|span| span.name == name);
                let id = |span| support::values(&span, "session.id").concat();
                spans.map(id).collect::<Vec<_>>()
            };
            assert_eq!(carries("child"), ["chat-42"; 3]);
            assert_eq!(carries("below"), ["chat-42"; 3]);
            assert_eq!(carries("bound"), ["set on a span"]);
        }
    }
}

#[test]
fn two_propagators_may_both_read_the_session() {
    let ours = Box::new(SessionPropagator::new());
    let mirascope = Box::new(only_in(SESSION_HEADER_NAME));
    let both = TextMapCompositePropagator::new(vec![ours, mirascope]);
    let baggage = ("baggage", "session.id=chat-42");
    assert_eq!(id_taken(&both, [baggage]), some("chat-42"));
    assert_eq!(
        id_taken(&both, [baggage, ("Mirascope-Session-Id", "chat-42")]),
        some("chat-42")
    );
    assert_eq!(
        id_taken(&both, [("Mirascope-Session-Id", "chat-42")]),
        some("chat-42")
    );
}

// The other baggage.

#[test]
fn other_baggage_is_read_with_its_properties() {
    let header = " tenant = a%20b ;ttl=60; secure ,session.id=chat-42;x=1,plain=1,empty=,bad key=1,\
                  latin=%E9,user.id=u-7;x=1";
    let cx = received(
        &SessionPropagator::new(),
        [("baggage", header)],
        &Context::new(),
    );
    assert_eq!(
        baggage_of(&cx),
        ["empty= []", "plain=1 []", "tenant=a b [ttl=60; secure]"]
    );
    let sent = sent(&SessionPropagator::new(), &cx).concat();
    let rest = sent.strip_prefix("baggage: session.id=chat-42,").unwrap();
    let mut members: Vec<_> = rest.split(',').collect();
    members.sort_unstable();
    assert_eq!(members, ["empty=", "plain=1", "tenant=a%20b;ttl=60;secure"]);
}

#[test]
fn other_baggage_replaces_that_of_the_context_as_with_opentelemetrys_own() {
    let before = Context::new().with_baggage([KeyValue::new("tenant", "before")]);
    let header = [("baggage", "region=eu")];
    let by =
        |propagator: &dyn TextMapPropagator| baggage_of(&received(propagator, header, &before));
    assert_eq!(by(&SessionPropagator::new()), ["region=eu []"]);
    assert_eq!(by(&BaggagePropagator::new()), ["region=eu []"]);
    let none = received(&SessionPropagator::new(), Lines::default(), &before);
    assert_eq!(baggage_of(&none), ["tenant=before []"]);
    let not_read = received(&only_in("x-session"), header, &before);
    assert_eq!(baggage_of(&not_read), ["tenant=before []"]);
}

/// A header with nothing but the session is a header of baggage, as OpenTelemetry's own has it.
#[test]
fn baggage_with_only_the_session_replaces_that_of_the_context() {
    let before = Context::new().with_baggage([KeyValue::new("tenant", "before")]);
    let header = [("baggage", "session.id=chat-42")];
    let cx = received(&SessionPropagator::new(), header, &before);
    assert_eq!(baggage_of(&cx), [""; 0]);
}

#[test]
fn incoming_ids_are_not_sent_on_unless_they_are_accepted() {
    let from = || [("baggage", "tenant=a,session.id=chat-42,user.id=u-7")];
    let goes_on = |propagator: &SessionPropagator| {
        sent(propagator, &received(propagator, from(), &Context::new())).concat()
    };
    let accepts = SessionPropagator::new();
    assert_eq!(goes_on(&accepts), "baggage: session.id=chat-42,tenant=a");
    let ignores = accepts.clone().with_inbound(InboundPolicy::ignore());
    assert_eq!(goes_on(&ignores), "baggage: tenant=a");
    assert_eq!(goes_on(&ignores.with_user()), "baggage: tenant=a");
    assert_eq!(
        goes_on(&accepts.with_user()),
        "baggage: session.id=chat-42,user.id=u-7,tenant=a"
    );
    let cx = received(&SessionPropagator::new(), from(), &Context::new());
    assert_eq!(sent(&BaggagePropagator::new(), &cx), ["baggage: tenant=a"]);
}

/// Others decode keys, too: to them `user%2Eid` is `user.id`.
#[test]
fn incoming_ids_under_a_percent_encoded_key_are_not_sent_on() {
    let header = [("baggage", "user%2Eid=u-7,%73ession.id=chat-42,tenant=a")];
    let ignores = SessionPropagator::new().with_inbound(InboundPolicy::ignore());
    let cx = received(&ignores, header, &Context::new());
    let next = Lines(vec![(
        "baggage".into(),
        sent(&ignores, &cx).concat().replace("baggage: ", ""),
    )]);
    let read = BaggagePropagator::new().extract_with_context(&Context::new(), &next);
    assert_eq!(baggage_of(&read), ["tenant=a []"]);
}

// The limits.

#[test]
fn baggage_is_read_within_the_limits() {
    let propagator = SessionPropagator::new();
    let ours = "session.id=chat-42";
    let padded = |bytes: usize| format!("{ours},k={}", "v".repeat(bytes - ours.len() - 3));
    assert_eq!(padded(8192).len(), 8192);
    assert_eq!(
        id_taken(&propagator, [("baggage", padded(8192))]),
        some("chat-42")
    );
    assert_eq!(id_taken(&propagator, [("baggage", padded(8193))]), None);
    let others = |count| "k=v,".repeat(count);
    assert_eq!(
        id_taken(&propagator, [("baggage", others(63) + ours)]),
        some("chat-42")
    );
    assert_eq!(
        id_taken(&propagator, [("baggage", others(64) + ours)]),
        None
    );
    // Of all the lines together.
    let lines = |bytes| [("baggage", "v".repeat(bytes)), ("baggage", ours.to_owned())];
    assert_eq!(
        id_taken(&propagator, lines(8192 - ours.len())),
        some("chat-42")
    );
    assert_eq!(id_taken(&propagator, lines(8193 - ours.len())), None);
    let lines = |count| [("baggage", others(count)), ("baggage", ours.to_owned())];
    assert_eq!(id_taken(&propagator, lines(63)), some("chat-42"));
    assert_eq!(id_taken(&propagator, lines(64)), None);
}

#[test]
fn members_after_the_first_64_are_not_read() {
    let many: Vec<_> = (0..70).map(|n| format!("k{n}=v")).collect();
    let cx = received(
        &SessionPropagator::new(),
        [("baggage", many.join(","))],
        &Context::new(),
    );
    assert_eq!(cx.baggage().len(), 64);
    assert!(cx.baggage().get("k63").is_some() && cx.baggage().get("k64").is_none());
}

#[test]
fn one_invalid_id_discards_the_other_id_too() {
    let propagator = SessionPropagator::new().with_user();
    for header in [
        "session.id=chat-42,user.id=%01",
        "user.id=u-7,session.id=%01",
    ] {
        assert_eq!(taken(&propagator, [("baggage", header)]), (None, None));
    }
    let without = SessionPropagator::new();
    let header = [("baggage", "session.id=chat-42,user.id=%01")];
    assert_eq!(taken(&without, header), (some("chat-42"), None));
}

/// A Python service that sends both W3C baggage and Mirascope's header: to it a space in baggage is
/// `+`.
#[test]
fn id_with_a_space_that_python_sends_in_both_headers_is_the_one_with_the_space() {
    let propagator = SessionPropagator::new()
        .with_header(SESSION_HEADER_NAME)
        .unwrap();
    for (baggage, header, expected) in [
        ("session.id=a+b", "a b", Some("a b")),
        ("session.id=a+%2B+b", "a + b", Some("a + b")),
        ("session.id=a%2Bb", "a b", None),
        ("session.id=a+b", "a+b", Some("a+b")),
        ("session.id=a+b", "a c", None),
    ] {
        let headers = HashMap::from([
            ("baggage".to_owned(), baggage.to_owned()),
            ("mirascope-session-id".to_owned(), header.to_owned()),
        ]);
        let cx = propagator.extract_with_context(&Context::new(), &headers);
        let _attached = cx.attach();
        assert_eq!(
            current_session_id().as_deref(),
            expected,
            "{baggage} {header}"
        );
    }
    let lines = [
        ("baggage", "session.id=a+b"),
        (SESSION_HEADER_NAME, "a+b"),
        (SESSION_HEADER_NAME, "a b"),
    ];
    assert_eq!(id_taken(&propagator, lines), None);
}
