//! What other services get.

use crate::privacy::{
    CHAT, CHAT_HASH, USER, USER_HASH, Work, below, both, conversation, hashed, sent,
};
use opentelemetry::baggage::BaggageExt;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::{Context, KeyValue};
use std::collections::HashMap;
use tracing_session::{Dialect, Privacy, Session, SessionPropagator, export::IdPolicy};

#[test]
fn no_redacted_id_is_in_headers() {
    for policy in [hashed(), IdPolicy::omitted()] {
        let propagator = SessionPropagator::new()
            .with_user()
            .with_header("x-conversation")
            .unwrap()
            .with_privacy(both(policy));
        let baggage = [
            KeyValue::new("user.id", USER),
            KeyValue::new("session.id", CHAT),
            KeyValue::new("tenant", "acme"),
        ];
        let cx = Context::new().with_baggage(baggage);
        for session in [
            conversation(),
            Session::default(),
            Session::new("another").unwrap(),
        ] {
            let _attached = cx.clone().attach();
            let mut headers = HashMap::new();
            session.in_scope(|| propagator.inject(&mut headers));
            let all = format!("{headers:?}");
            assert!(!all.contains(USER) && !all.contains(CHAT), "{all}");
            assert!(all.contains("tenant=acme"), "{all}");
        }
    }
}

#[test]
fn no_redacted_id_is_in_baggage_of_the_application_under_another_key() {
    let propagator = SessionPropagator::new().with_privacy(both(hashed()));
    let baggage = [
        KeyValue::new("langfuse_user_id", USER),
        KeyValue::new("chat", CHAT),
    ];
    let _attached = Context::new().with_baggage(baggage).attach();
    let mut headers = HashMap::new();
    conversation().in_scope(|| propagator.inject(&mut headers));
    let all = format!("{headers:?}");
    assert!(!all.contains(USER) && !all.contains(CHAT), "{all}");
}

#[test]
fn baggage_under_a_key_that_the_application_adds_is_omitted() {
    let privacy = both(IdPolicy::omitted()).with_user_key("enduser.id");
    let propagator = SessionPropagator::new().with_privacy(privacy);
    let baggage = [
        KeyValue::new("enduser.id", USER),
        KeyValue::new("chat", CHAT),
        KeyValue::new("tenant", "acme"),
    ];
    let _attached = Context::new().with_baggage(baggage).attach();
    let mut headers = HashMap::new();
    // In no session: only the key tells.
    propagator.inject(&mut headers);
    assert_eq!(headers["baggage"], "tenant=acme");
}

#[test]
fn hash_in_headers_is_the_same_as_on_spans_and_is_sent_on() {
    let front = SessionPropagator::new()
        .with_user()
        .with_privacy(both(hashed()));
    let mut headers = HashMap::new();
    conversation().in_scope(|| front.inject(&mut headers));
    let behind = SessionPropagator::new().with_user();
    let work: &Work<'_> = &|_| {
        let _attached = behind.extract(&headers).attach();
        below();
        let mut further = HashMap::new();
        behind.inject(&mut further);
        assert_eq!(further, headers);
    };
    let sent = sent(Privacy::new(), Dialect::OPENINFERENCE, |it| it, work);
    assert_eq!(sent.texts("user.hash"), [USER_HASH]);
    assert_eq!(sent.texts("session.id"), [CHAT_HASH]);
}

#[test]
fn sessions_and_users_have_separate_policies() {
    let users = Privacy::new().with_user_ids(hashed());
    let sessions = Privacy::new().with_session_ids(hashed());
    for (privacy, expected) in [
        (users, format!("session.id={CHAT},user.hash={USER_HASH}")),
        (sessions, format!("session.id={CHAT_HASH},user.id={USER}")),
    ] {
        let propagator = SessionPropagator::new().with_user().with_privacy(privacy);
        let mut headers = HashMap::new();
        conversation().in_scope(|| propagator.inject(&mut headers));
        assert_eq!(headers["baggage"], expected);
    }
}
