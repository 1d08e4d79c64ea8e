//! What is written.

use crate::propagation::{ids_under, only_in, received, sent, sent_here, sent_in, session};
use crate::support::{self, App};
use opentelemetry::baggage::{Baggage, BaggageExt, KeyValueMetadata};
use opentelemetry::propagation::{TextMapCompositePropagator, TextMapPropagator};
use opentelemetry::trace::{TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::Sampler;
use std::collections::HashMap;
use tracing::level_filters::LevelFilter;
use tracing::{debug_span, info_span};
use tracing_session::{
    Privacy, Session, SessionLayer, SessionPropagator,
    export::IdPolicy,
    propagation::{InboundPolicy, SESSION_HEADER_NAME},
    session,
    session::Part,
    set_session_id, user,
};

const CHAT: &str = "baggage: session.id=chat-42";

#[test]
fn session_is_in_w3c_baggage_by_default() {
    assert_eq!(
        sent_in(&SessionPropagator::new(), &session("chat-42")),
        [CHAT]
    );
    assert_eq!(
        sent_in(&SessionPropagator::default(), &session("chat-42")),
        [CHAT]
    );
}

#[test]
fn separate_headers_are_added_to_baggage_or_replace_it() {
    let session = session("chat-42");
    let both = SessionPropagator::new()
        .with_header(SESSION_HEADER_NAME)
        .unwrap();
    assert_eq!(
        sent_in(&both, &session),
        [CHAT, "Mirascope-Session-Id: chat-42"]
    );
    assert_eq!(
        sent_in(&both.without_baggage(), &session),
        ["Mirascope-Session-Id: chat-42"]
    );
    let three = SessionPropagator::new()
        .with_header("X-TraceCtrl-Session")
        .and_then(|it| it.with_header("x-any.other_1"))
        .unwrap();
    assert_eq!(
        sent_in(&three, &session),
        [
            CHAT,
            "X-TraceCtrl-Session: chat-42",
            "x-any.other_1: chat-42"
        ]
    );
    let none = SessionPropagator::new().without_baggage();
    assert_eq!(sent_in(&none, &session), [""; 0]);
}

#[test]
fn ids_are_written_under_added_baggage_keys() {
    let propagator = SessionPropagator::new()
        .with_baggage_key("langfuse_session_id")
        .and_then(|it| it.with_user_baggage_key("langfuse_user_id"))
        .unwrap();
    let session = session("chat 42").with_user("u-7").unwrap();
    assert_eq!(
        sent_in(&propagator, &session),
        ["baggage: session.id=chat%2042,user.id=u-7,\
          langfuse_session_id=chat%2042,langfuse_user_id=u-7"]
    );
    let key = SessionPropagator::new().with_baggage_key("thread").unwrap();
    assert_eq!(
        sent_in(&key, &session),
        ["baggage: session.id=chat%2042,thread=chat%2042"]
    );
    assert_eq!(sent_in(&propagator, &Session::default()), [""; 0]);
    for key in ["", "two words", "a=b", "a,b", "séance"] {
        let error = SessionPropagator::new().with_baggage_key(key).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("the text is not a baggage key"),
            "{error}"
        );
        assert!(SessionPropagator::new().with_user_baggage_key(key).is_err());
    }
}

/// An id under another system's key is the session's: it is written anew with the session, under the keys that are configured.
#[test]
fn ids_of_other_systems_are_sent_only_in_their_own_session() {
    let user = SessionPropagator::new().with_user();
    let from = || {
        [(
            "baggage",
            "langfuse_session_id=chat-42,langfuse_user_id=u-7,tenant=acme",
        )]
    };
    let cx = received(&user, from(), &Context::new());
    assert_eq!(
        sent(&user, &cx),
        ["baggage: session.id=chat-42,user.id=u-7,tenant=acme"]
    );
    let key = user
        .clone()
        .with_baggage_key("langfuse_session_id")
        .unwrap();
    assert_eq!(
        sent(&key, &cx),
        ["baggage: session.id=chat-42,user.id=u-7,langfuse_session_id=chat-42,tenant=acme"]
    );
    let _attached = cx.attach();
    for (session, expected) in [
        (
            session("chat-43").exact(),
            "baggage: session.id=chat-43,tenant=acme",
        ),
        (Session::nothing(), "baggage: tenant=acme"),
        (
            Session::default().without(Part::User),
            "baggage: session.id=chat-42,tenant=acme",
        ),
    ] {
        assert_eq!(sent_in(&user, &session), [expected]);
    }
}

#[test]
fn refused_ids_of_other_systems_are_not_sent_on() {
    let ignores = SessionPropagator::new().with_inbound(InboundPolicy::ignore());
    for (propagator, header) in [
        (
            ignores,
            "langfuse_session_id=chat-42,gen_ai.conversation.id=chat-43",
        ),
        (
            SessionPropagator::new(),
            "langfuse_session_id=a,langfuse_session_id=b",
        ),
        (SessionPropagator::new(), "langfuse_user_id=u-7"),
    ] {
        let cx = received(&propagator, [("baggage", header)], &Context::new());
        assert_eq!(sent(&propagator, &cx), [""; 0], "{header}");
    }
}

/// The application may have put ids into its own baggage.
#[test]
fn redacted_ids_are_sent_under_no_baggage_key() {
    let omitted = || {
        Privacy::new()
            .with_user_ids(IdPolicy::omitted())
            .with_session_ids(IdPolicy::omitted())
    };
    let propagator = SessionPropagator::new()
        .with_privacy(omitted())
        .with_user_baggage_key("enduser")
        .unwrap();
    for key in [
        "langfuse_session_id",
        "langfuse_user_id",
        "enduser",
        "session.id",
        "user.id",
    ] {
        let cx = Context::new().with_baggage([KeyValue::new(key, "secret")]);
        assert_eq!(sent(&propagator, &cx), [""; 0], "{key}");
    }
}

#[test]
fn keys_are_written_once() {
    let propagator = SessionPropagator::new();
    let keys = ["thread", "thread", "session.id", "user.id"];
    let propagator = keys
        .into_iter()
        .fold(propagator, |it, key| it.with_baggage_key(key).unwrap());
    assert_eq!(
        sent_in(&propagator, &session("chat-42")),
        ["baggage: session.id=chat-42,thread=chat-42"]
    );
}

#[test]
fn hashed_user_is_sent_under_no_added_key() {
    let propagator = SessionPropagator::new()
        .with_user_baggage_key("langfuse_user_id")
        .unwrap()
        .with_privacy(Privacy::new().with_user_ids(IdPolicy::omitted()));
    let session = session("chat-42").with_user("u-7").unwrap();
    assert_eq!(
        sent_in(&propagator, &session),
        ["baggage: session.id=chat-42"]
    );
}

#[test]
fn fields_are_the_names_of_the_headers() {
    let fields = |propagator: &SessionPropagator| {
        let fields = propagator.fields().map(str::to_owned);
        fields.collect::<Vec<_>>()
    };
    let both = SessionPropagator::new().with_header("X-Session").unwrap();
    assert_eq!(fields(&SessionPropagator::new()), ["baggage"]);
    assert_eq!(fields(&both), ["baggage", "X-Session"]);
    let header = both.without_baggage();
    assert_eq!(fields(&header), ["X-Session"]);
}

#[test]
fn invalid_name_of_a_separate_header_is_an_error() {
    let names = [
        "",
        " ",
        "two words",
        "x:y",
        "x\r\ny",
        "séance",
        "x(y)",
        "baggage",
        "Baggage",
    ];
    for name in names {
        let error = SessionPropagator::new().with_header(name).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the name is not valid for a separate session header: use letters, digits and `-`, and not `baggage`",
            "{name}"
        );
        assert!(!error.is_invalid_id() && !error.is_unknown_propagator());
    }
}

#[test]
fn without_a_session_no_header_is_written() {
    let propagator = SessionPropagator::new()
        .with_user()
        .with_header(SESSION_HEADER_NAME)
        .unwrap();
    assert_eq!(sent_here(&propagator), [""; 0]);
    let _app = App::new();
    info_span!("outside any session").in_scope(|| assert_eq!(sent_here(&propagator), [""; 0]));
    assert_eq!(sent_in(&propagator, &Session::default()), [""; 0]);
}

#[test]
fn user_is_sent_only_on_request_and_only_in_baggage() {
    let user = Session::default().with_user("u-7").unwrap();
    let both = session("chat-42").with_user("u-7").unwrap();
    let without = SessionPropagator::new().with_header("x-session").unwrap();
    assert_eq!(sent_in(&without, &both), [CHAT, "x-session: chat-42"]);
    assert_eq!(sent_in(&without, &user), [""; 0]);
    let with = without.with_user();
    assert_eq!(
        sent_in(&with, &both),
        [
            "baggage: session.id=chat-42,user.id=u-7",
            "x-session: chat-42"
        ]
    );
    assert_eq!(sent_in(&with, &user), ["baggage: user.id=u-7"]);
    assert_eq!(sent_in(&with.without_baggage(), &user), [""; 0]);
}

#[test]
fn id_that_is_not_ascii_is_omitted_from_a_plain_header_with_one_warning() {
    let app = App::new();
    let propagator = only_in("x-told").with_header("x-told-too").unwrap();
    for _ in 0..3 {
        assert_eq!(sent_in(&propagator, &session("séance")), [""; 0]);
    }
    let with_baggage = SessionPropagator::new().with_header("x-told").unwrap();
    assert_eq!(
        sent_in(&with_baggage, &session("séance")),
        ["baggage: session.id=s%C3%A9ance"]
    );
    let told = |header| {
        format!(
            "header `{header}` is not sent because the session id is not ASCII: use `with_percent_encoded_headers`, \
             or W3C baggage only"
        )
    };
    assert_eq!(
        app.diagnostics.messages(),
        [told("x-told"), told("x-told-too")]
    );
}

#[test]
fn id_in_a_separate_header_is_percent_encoded_on_request() {
    let plain = only_in("x-session");
    let encoded = plain.clone().with_percent_encoded_headers();
    for (id, in_plain, in_encoded) in [
        ("chat-42", "x-session: chat-42", "x-session: chat-42"),
        (
            "a b%20+=,;\"\\",
            "x-session: a b%20+=,;\"\\",
            "x-session: a%20b%2520+=,;\"\\",
        ),
        ("séance", "", "x-session: s%C3%A9ance"),
    ] {
        let plain = sent_in(&plain, &session(id));
        assert_eq!(plain.concat(), in_plain);
        assert_eq!(sent_in(&encoded, &session(id)), [in_encoded]);
    }
}

#[test]
fn other_baggage_of_the_context_is_sent_with_its_properties() {
    let baggage = |metadata: &str| {
        Context::new().with_baggage([KeyValueMetadata::new("tenant", "a b", metadata)])
    };
    let propagator = SessionPropagator::new();
    for (metadata, written) in [
        ("", "tenant=a%20b"),
        ("ttl=60", "tenant=a%20b;ttl=60"),
        ("ttl=60;secure", "tenant=a%20b;ttl=60;secure"),
        (" ttl = 60 ; ;secure;", "tenant=a%20b;ttl = 60;secure"),
        ("evil=1,session.id=other;ttl=60", "tenant=a%20b;ttl=60"),
        ("evil=\r\nx: y;é=1", "tenant=a%20b"),
    ] {
        let cx = baggage(metadata);
        assert_eq!(sent(&propagator, &cx), [format!("baggage: {written}")]);
        let _attached = cx.attach();
        assert_eq!(
            sent_in(&propagator, &session("chat-42")),
            [format!("{CHAT},{written}")]
        );
    }
}

#[test]
fn current_session_replaces_a_member_with_the_same_key() {
    let members = [
        ("session.id", "of the baggage"),
        ("user.id", "of the baggage"),
    ];
    let members = members.map(|(key, value)| KeyValue::new(key, value));
    let _attached = Context::new().with_baggage(members).attach();
    let both = session("chat-42").with_user("u-7").unwrap();
    assert_eq!(
        sent_in(&SessionPropagator::new().with_user(), &both),
        ["baggage: session.id=chat-42,user.id=u-7"]
    );
}

#[test]
fn baggage_that_is_turned_off_stays_in_the_process() {
    let _attached = Context::new()
        .with_baggage([KeyValue::new("tenant", "a")])
        .attach();
    let propagator = only_in("x-session");
    assert_eq!(
        sent_in(&propagator, &session("chat-42")),
        ["x-session: chat-42"]
    );
    assert_eq!(sent_here(&propagator), [""; 0]);
}

#[test]
fn baggage_over_the_limits_loses_other_members_before_the_session_with_one_warning() {
    if !support::alone(test_name!(), &[]) {
        return;
    }
    let app = App::new();
    let propagator = SessionPropagator::new().with_user();
    let sent = |baggage: Baggage| {
        let _attached = Context::new().with_baggage(baggage).attach();
        let both = session("chat-42").with_user("u-7").unwrap();
        sent_in(&propagator, &both).concat()
    };
    let numbered = |count| {
        let member = |n| KeyValue::new(format!("k{n}"), "v");
        Baggage::from((0..count).map(member).collect::<Vec<_>>())
    };
    let one = |bytes| Baggage::from([KeyValue::new("k", "v".repeat(bytes))]);
    let ours = "baggage: session.id=chat-42,user.id=u-7";
    let left = 8192 - (ours.len() - "baggage: ".len()) - ",k=".len();

    let most = sent(numbered(62));
    assert!(most.starts_with(&format!("{ours},")));
    assert_eq!(most.split(',').count(), 64);
    assert_eq!(sent(one(left)).len(), "baggage: ".len() + 8192);
    assert_eq!(app.diagnostics.messages(), [""; 0]);

    let over = sent(numbered(64));
    assert!(over.starts_with(&format!("{ours},")));
    assert_eq!(over.split(',').count(), 64);
    assert_eq!(sent(one(left + 1)), ours);
    // As it is written, it is three times as long; what is short fits behind it.
    let both = [
        KeyValue::new("long", "%".repeat(3000)),
        KeyValue::new("short", "v"),
    ];
    assert_eq!(sent(Baggage::from(both)), format!("{ours},short=v"));
    assert_eq!(
        app.diagnostics.messages(),
        [
            "header `baggage` is incomplete because baggage is limited to 64 members and 8192 bytes: put less into \
             the baggage"
        ]
    );
}

#[test]
fn longest_ids_of_session_and_user_fit_together() {
    let longest = "%".repeat(1024);
    let both = session(&longest).with_user(&longest).unwrap();
    let encoded = "%25".repeat(1024);
    assert_eq!(
        sent_in(&SessionPropagator::new().with_user(), &both),
        [format!("baggage: session.id={encoded},user.id={encoded}")]
    );
}

#[test]
fn second_session_written_into_the_same_headers_replaces_the_first() {
    let propagator = SessionPropagator::new().with_header("x-session").unwrap();
    let mut headers = HashMap::new();
    for id in ["chat-42", "chat-43"] {
        let write = || propagator.inject_context(&Context::current(), &mut headers);
        session(id).in_scope(write);
    }
    let expected = [("baggage", "session.id=chat-43"), ("x-session", "chat-43")];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(headers, HashMap::from(expected));
}

#[test]
fn session_and_trace_compose_in_either_order() {
    let app = App::new();
    let ours = || Box::new(SessionPropagator::new());
    let trace = || Box::new(TraceContextPropagator::new());
    let first = TextMapCompositePropagator::new(vec![ours(), trace()]);
    let last = TextMapCompositePropagator::new(vec![trace(), ours()]);
    let span = session!("chat-42").entered();
    let [mut one, mut other] = [&first, &last].map(|propagator| sent_here(propagator));
    one.sort();
    other.sort();
    assert_eq!(one, other);
    assert_eq!(one[0], CHAT);
    assert!(
        one[1].starts_with("traceparent: 00-") && one[1].ends_with("-01"),
        "{one:?}"
    );
    assert_eq!(one[2..], ["tracestate: "]);
    drop(span);
    let trace = app.span("session").span_context.trace_id();
    assert!(one[1].contains(&trace.to_string()));
}

// Where the session was said.

#[test]
fn session_of_a_span_is_sent_from_it_and_its_descendants() {
    let app = App::new();
    let propagator = SessionPropagator::new().with_user();
    session!("chat-42").in_scope(|| {
        assert_eq!(sent_here(&propagator), [CHAT]);
        let late = info_span!("late", user.id = tracing::field::Empty).entered();
        assert_eq!(sent_here(&propagator), [CHAT]);
        late.record("user.id", "u-7");
        let both = ["baggage: session.id=chat-42,user.id=u-7"];
        assert_eq!(sent_here(&propagator), both);
        info_span!("below").in_scope(|| assert_eq!(sent_here(&propagator), both));
        user!("u-8").in_scope(|| {
            assert_eq!(
                sent_here(&propagator),
                ["baggage: session.id=chat-42,user.id=u-8"]
            );
        });
        let cx = Context::current();
        let plain = app.provider.tracer("lib").start_with_context("plain", &cx);
        assert_eq!(sent(&propagator, &cx.with_span(plain)), both);
    });
    assert_eq!(sent_here(&propagator), [""; 0]);
}

#[test]
fn session_that_was_set_on_a_span_is_sent_from_it_and_its_descendants() {
    let _app = App::new();
    let propagator = SessionPropagator::new();
    info_span!("request").in_scope(|| {
        info_span!("handler").in_scope(|| {
            set_session_id("chat-42").unwrap();
            assert_eq!(sent_here(&propagator), [CHAT]);
            info_span!("below").in_scope(|| assert_eq!(sent_here(&propagator), [CHAT]));
        });
        assert_eq!(sent_here(&propagator), [""; 0]);
    });
}

#[test]
fn session_is_sent_from_an_unsampled_span() {
    let app = App::with_provider(
        |builder| builder.with_sampler(Sampler::AlwaysOff),
        |otel| SessionLayer::new().wrap(otel),
    );
    let trace = Box::new(TraceContextPropagator::new());
    let propagator =
        TextMapCompositePropagator::new(vec![trace, Box::new(SessionPropagator::new())]);
    session!("chat-42").in_scope(|| {
        info_span!("below").in_scope(|| {
            let sent = sent_here(&propagator);
            assert!(sent[0].ends_with("-00"), "{sent:?}");
            assert_eq!(sent[1..], ["tracestate: ", CHAT]);
        });
    });
    app.exports("");
}

#[test]
fn session_is_sent_from_a_filtered_out_span() {
    let _app = App::with_layer(|otel| {
        SessionLayer::new()
            .with_opener_level(tracing::Level::DEBUG)
            .wrap_filtered(otel, LevelFilter::INFO)
    });
    let propagator = SessionPropagator::new();
    debug_span!("session", id = "chat-42").in_scope(|| {
        assert_eq!(sent_here(&propagator), [CHAT]);
        info_span!("below").in_scope(|| assert_eq!(sent_here(&propagator), [CHAT]));
    });
    assert_eq!(sent_here(&propagator), [""; 0]);
}

#[test]
fn default_session_is_sent_outside_other_sessions() {
    if !support::alone(test_name!(), &[]) {
        return;
    }
    session("chat-42").set_global_default().unwrap();
    let _app = App::new();
    let propagator = SessionPropagator::new();
    assert_eq!(sent_here(&propagator), [CHAT]);
    info_span!("below").in_scope(|| assert_eq!(sent_here(&propagator), [CHAT]));
    let inner = session("chat-43");
    assert_eq!(
        sent_in(&propagator, &inner),
        ["baggage: session.id=chat-43"]
    );
}

#[test]
fn extracted_session_is_sent_on_unless_an_inner_session_overrides_it() {
    let propagator = SessionPropagator::new();
    let cx = received(
        &propagator,
        [("baggage", "session.id=chat-42;ttl=60")],
        &Context::new(),
    );
    assert_eq!(sent(&propagator, &cx), [CHAT]);
    assert_eq!(ids_under(cx.clone()).0.as_deref(), Some("chat-42"));
    let _attached = cx.attach();
    let inner = session("chat-43");
    assert_eq!(
        sent_in(&propagator, &inner),
        ["baggage: session.id=chat-43"]
    );
}

#[test]
fn debug_output_has_no_id() {
    let propagator = SessionPropagator::new().with_user();
    let from = [("baggage", "session.id=secret-42,user.id=secret-7")];
    let cx = received(&propagator, from, &Context::new());
    let shown = format!("{cx:?} {propagator:?}");
    assert!(!shown.contains("secret"), "{shown}");
}
