//! Ids that are easily damaged on the way.

use crate::propagation::{Lines, id_taken, ids_under, only_in, received, session};
use crate::support::PLACEHOLDERS;
use opentelemetry::Context;
use opentelemetry::baggage::BaggageExt;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry_sdk::propagation::BaggagePropagator;
use tracing_session::{Session, SessionPropagator};

fn hard_ids() -> Vec<String> {
    let mut ids: Vec<String> = [
        "a%20b",
        "100%41",
        "%",
        "%%",
        "100%",
        "100%4",
        "%zz",
        "dGVzdA==",
        "a=b=c",
        "=",
        "a+b",
        "+",
        "two words",
        "a  b",
        "a,b",
        "a, b",
        ",",
        "a;b=1",
        "a;p",
        ";",
        "\"quoted\"",
        "it's",
        "\\",
        "a\\\"b",
        "a\\",
        "{\"json\": [1, 2]}",
        "<b>&amp;</b>",
        "a:b/c@d!$*",
        "a&b#c?d",
        "~-._",
        "a|b^c`d",
        "(a)[b]{c}",
        "evil,session.id=evil,user.id=evil",
        "nullable",
        "0",
        "séance-你",
        "e\u{301}",
        "👩\u{200d}👩\u{200d}👧",
        "a\u{2028}b",
        "a\u{a0}b",
        "\u{ad}a",
        "\u{200d}abc",
        "a\u{10ffff}b",
        "Ā",
        "ÿ",
    ]
    .map(str::to_owned)
    .to_vec();
    for character in ["x", "%", "=", "é", "😀"] {
        ids.push(character.repeat(1024 / character.len()));
    }
    ids
}

/// What arrives of a session that is sent and received by the same propagator.
fn arrives(propagator: &SessionPropagator, session: &Session) -> (Option<String>, Option<String>) {
    let mut lines = Lines::default();
    session.in_scope(|| propagator.inject_context(&Context::current(), &mut lines));
    for (_, value) in &lines.0 {
        assert!(
            value.bytes().all(|byte| matches!(byte, b' '..=b'~')),
            "{value}"
        );
    }
    ids_under(received(propagator, lines, &Context::new()))
}

#[test]
fn every_id_arrives_unchanged_in_baggage() {
    let propagator = SessionPropagator::new().with_user();
    for id in hard_ids() {
        let session = session(&id).with_user(&id).unwrap();
        assert_eq!(arrives(&propagator, &session), (Some(id.clone()), Some(id)));
    }
}

#[test]
fn every_id_arrives_unchanged_in_a_percent_encoded_header() {
    let propagator = only_in("x-session").with_percent_encoded_headers();
    for id in hard_ids() {
        assert_eq!(arrives(&propagator, &session(&id)).0, Some(id));
    }
}

#[test]
fn only_ascii_ids_arrive_in_a_plain_header_and_unchanged() {
    let propagator = only_in("x-session");
    for id in hard_ids() {
        let expected = id.is_ascii().then(|| id.clone());
        assert_eq!(arrives(&propagator, &session(&id)).0, expected);
    }
}

/// A `Session` value in code can have such an id. A receiver takes it for a missing one.
#[test]
fn placeholder_does_not_arrive() {
    let baggage = SessionPropagator::new().with_user();
    let encoded = only_in("x-session").with_percent_encoded_headers();
    for propagator in [baggage, encoded, only_in("x-session")] {
        for text in PLACEHOLDERS {
            assert_eq!(arrives(&propagator, &session(text)), (None, None));
        }
    }
}

#[test]
fn every_id_is_read_by_opentelemetrys_own_propagator() {
    for id in hard_ids() {
        let mut lines = Lines::default();
        let inject = |cx: &Context| SessionPropagator::new().inject_context(cx, &mut lines);
        session(&id).in_scope(|| Context::map_current(inject));
        let cx = received(&BaggagePropagator::new(), lines, &Context::new());
        assert_eq!(cx.baggage().get("session.id").unwrap().as_str(), id);
    }
}

/// What an author of baggage that is not ours has put in arrives too.
#[test]
fn other_baggage_arrives_unchanged() {
    let propagator = SessionPropagator::new();
    for value in hard_ids() {
        let pair = opentelemetry::KeyValue::new("tenant", value.clone());
        let mut lines = Lines::default();
        propagator.inject_context(&Context::new().with_baggage([pair]), &mut lines);
        let cx = received(&propagator, lines, &Context::new());
        assert_eq!(cx.baggage().get("tenant").unwrap().as_str(), value);
    }
}

#[test]
fn characters_that_readers_misread_are_encoded() {
    let mut lines = Lines::default();
    let inject = |cx: &Context| SessionPropagator::new().inject_context(cx, &mut lines);
    session("aZ0-._~:/@!$* +%=,;\"\\é#&'()<>?[]^`{|}").in_scope(|| Context::map_current(inject));
    assert_eq!(
        lines.0[0].1,
        "session.id=aZ0-._~:/@!$*%20%2B%25%3D%2C%3B%22%5C%C3%A9%23%26%27%28%29%3C%3E%3F%5B%5D%5E\
         %60%7B%7C%7D"
    );
}

/// Python's OpenTelemetry writes a space as `+`, which nobody else reads so.
#[test]
fn space_from_a_python_sender_arrives_as_a_plus() {
    let from = [("baggage", "session.id=two+words%2B1")];
    assert_eq!(
        id_taken(&SessionPropagator::new(), from).as_deref(),
        Some("two+words+1")
    );
}
