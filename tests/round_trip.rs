//! An id that goes from one service to another arrives as it was sent, or not at all: 100,000 random
//! ids, in each format and carrier.

use crate::support::PLACEHOLDERS;
use crate::support::carrier::As;
use crate::support::may_be_in_an_id;
use http::HeaderMap;
use opentelemetry::Context;
use opentelemetry::baggage::{Baggage, BaggageExt};
use opentelemetry::propagation::{TextMapCompositePropagator, TextMapPropagator};
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRunner};
use std::collections::HashMap;
use std::fmt::Debug;
use tracing_session::{Session, SessionPropagator, current_session, propagation::Carrier};

const PLAIN: &str = "x-session";
const ENCODED: &str = "x-session-encoded";

fn baggage() -> SessionPropagator {
    SessionPropagator::new()
}

fn plain_header() -> SessionPropagator {
    let propagator = SessionPropagator::new().without_baggage();
    propagator.with_header(PLAIN).unwrap()
}

fn encoded_header() -> SessionPropagator {
    let propagator = SessionPropagator::new().without_baggage();
    let propagator = propagator.with_header(ENCODED).unwrap();
    propagator.with_percent_encoded_headers()
}

#[test]
fn baggage_carries_every_id() {
    let propagator = baggage();
    for_each(ids(), |id| {
        assert_arrives::<HashMap<String, String>>(&propagator, &id);
        assert_arrives::<HeaderMap>(&propagator, &id);
    });
}

#[test]
fn a_separate_header_carries_only_ascii_ids() {
    fn check<C: Carrier + Default>(propagator: &SessionPropagator, id: &str) {
        let sent = if id.is_ascii() { Some(id) } else { None };
        let carrier: C = send(propagator, &session(id));
        assert_eq!(carrier.get_all(PLAIN), Vec::from_iter(sent));
        assert_eq!(receive(propagator, &carrier).id(), sent);
    }
    let propagator = plain_header();
    for_each(ids(), |id| {
        check::<HashMap<String, String>>(&propagator, &id);
        check::<HeaderMap>(&propagator, &id);
    });
}

#[test]
fn a_percent_encoded_header_carries_every_id() {
    let propagator = encoded_header();
    for_each(ids(), |id| {
        assert_arrives::<HashMap<String, String>>(&propagator, &id);
        assert_arrives::<HeaderMap>(&propagator, &id);
    });
}

#[test]
fn all_formats_at_once_carry_every_id() {
    let propagator = TextMapCompositePropagator::new(vec![
        Box::new(TraceContextPropagator::new()),
        Box::new(baggage().with_header(PLAIN).unwrap()),
        Box::new(encoded_header()),
    ]);
    let _trace = Context::new().with_remote_span_context(trace()).attach();
    for_each(ids(), |id| {
        let in_map = assert_arrives::<HashMap<String, String>>(&propagator, &id);
        let in_http = assert_arrives::<HeaderMap>(&propagator, &id);
        assert_eq!(in_map.span().span_context(), &trace());
        assert_eq!(in_http.span().span_context(), &trace());
    });
}

#[test]
fn baggage_carries_every_user_and_the_other_entries() {
    fn check<C: Carrier + Default>(
        propagator: &SessionPropagator,
        session: &Session,
        entries: &[Entry],
    ) {
        let carrier: C = send(propagator, session);
        assert_eq!(receive(propagator, &carrier), *session);
        let cx = propagator.extract_with_context(&Context::new(), &As(&carrier));
        let baggage = cx.baggage();
        assert_eq!(baggage.len(), entries.len());
        for (key, value, metadata) in entries {
            let arrived = baggage.get_with_metadata(key).unwrap();
            assert_eq!(arrived.0.as_str(), value);
            assert_eq!(arrived.1.as_str(), metadata);
        }
    }
    let propagator = baggage().with_user();
    let session_and_baggage = (ids(), ids(), entries());
    for_each_of(20_000, session_and_baggage, |(id, user, entries)| {
        let mut baggage = Baggage::new();
        for (key, value, metadata) in &entries {
            baggage.insert_with_metadata(key.clone(), value.clone(), metadata.as_str());
        }
        let _baggage = Context::new().with_baggage(baggage).attach();
        let session = session(&id).with_user(&user).unwrap();
        check::<HashMap<String, String>>(&propagator, &session, &entries);
        check::<HeaderMap>(&propagator, &session, &entries);
    });
}

/// Whoever sends it.
#[test]
fn invalid_id_does_not_become_valid() {
    let (in_baggage, plain, encoded) = (baggage(), plain_header(), encoded_header());
    let placeholders = prop::sample::select(&PLACEHOLDERS[..]).prop_map(str::to_owned);
    let texts = prop_oneof![99 => texts(0..=1100, |_| true), 1 => placeholders];
    for_each(texts, |text| {
        // What `Session::new` makes of it, which trims.
        let session = match PLACEHOLDERS.contains(&text.trim()) {
            true => Session::default(),
            false => Session::new(&text).unwrap_or_default(),
        };
        let sent = percent_encode(text.as_bytes(), NON_ALPHANUMERIC).to_string();
        let headers =
            |name: &str, value: &str| HashMap::from([(name.to_owned(), value.to_owned())]);
        let member = headers("baggage", &format!("session.id={sent}"));
        assert_eq!(receive(&in_baggage, &member), session);
        assert_eq!(receive(&encoded, &headers(ENCODED, &sent)), session);
        assert_eq!(receive(&plain, &headers(PLAIN, &text)), session);
    });
}

/// Each of them stands in an id.
#[test]
fn every_scalar_value_arrives() {
    let propagators: [&dyn TextMapPropagator; 2] = [&baggage(), &encoded_header()];
    let all: Vec<char> = ('\0'..=char::MAX)
        .filter(|char| may_be_in_an_id(*char))
        .collect();
    for some in all.chunks(255) {
        let id: String = ['<'].iter().chain(some).chain(&['>']).collect();
        for propagator in propagators {
            assert_arrives::<HashMap<String, String>>(propagator, &id);
            assert_arrives::<HeaderMap>(propagator, &id);
        }
    }
}

/// Gives all that has arrived.
fn assert_arrives<C: Carrier + Default>(propagator: &dyn TextMapPropagator, id: &str) -> Context {
    let carrier: C = send(propagator, &session(id));
    let cx = propagator.extract_with_context(&Context::new(), &As(&carrier));
    assert_eq!(session_of(&cx).id(), Some(id));
    cx
}

fn session(id: &str) -> Session {
    let session = Session::new(id).unwrap();
    assert_eq!(session.id(), Some(id));
    session
}

fn send<C: Carrier + Default>(propagator: &dyn TextMapPropagator, session: &Session) -> C {
    let mut carrier = C::default();
    session
        .clone()
        .in_scope(|| propagator.inject_context(&Context::current(), &mut As(&mut carrier)));
    carrier
}

fn receive(propagator: &dyn TextMapPropagator, carrier: &impl Carrier) -> Session {
    session_of(&propagator.extract_with_context(&Context::new(), &As(carrier)))
}

fn session_of(cx: &Context) -> Session {
    let _attached = cx.clone().attach();
    current_session().unwrap_or_default()
}

fn trace() -> SpanContext {
    SpanContext::new(
        TraceId::from(7),
        SpanId::from(8),
        TraceFlags::SAMPLED,
        true,
        TraceState::from_key_value([("of", "us")]).unwrap(),
    )
}

fn for_each(texts: impl Strategy<Value = String>, check: impl Fn(String)) {
    for_each_of(100_000, texts, check);
}

fn for_each_of<T: Debug>(cases: u32, values: impl Strategy<Value = T>, check: impl Fn(T)) {
    let config = ProptestConfig {
        cases,
        failure_persistence: None,
        max_shrink_iters: 1000,
        rng_algorithm: RngAlgorithm::XorShift,
        ..ProptestConfig::default()
    };
    let run = TestRunner::new(config).run(&values, |value| {
        check(value);
        Ok(())
    });
    if let Err(failed) = run {
        panic!("{failed}");
    }
}

/// What the rule for ids in headers allows.
fn ids() -> impl Strategy<Value = String> {
    texts(1..=1024, may_be_in_an_id).prop_map(|text| match text.trim() {
        id if id.is_empty() || PLACEHOLDERS.contains(&id) => "x".to_owned(),
        id => id.to_owned(),
    })
}

type Entry = (String, String, String);

/// Members of baggage: the key is a token, the value any text, and the metadata a property or two.
fn entries() -> impl Strategy<Value = Vec<Entry>> {
    let is_token = |char: char| char.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(char);
    let is_property = |char| matches!(char, '!'..='~') && !",;".contains(char);
    let metadata = prop_oneof![
        Just(String::new()),
        texts(1..=10, is_property),
        (texts(1..=10, is_property), texts(1..=10, is_property))
            .prop_map(|(one, other)| format!("{one};{other}")),
    ];
    let entry = (texts(1..=20, is_token), texts(0..=30, |_| true), metadata);
    prop::collection::vec(entry, 0..4).prop_map(|mut entries| {
        entries.sort();
        entries.dedup_by(|one, other| one.0 == other.0);
        entries
    })
}

/// Texts of so many bytes, more short ones than long. To make a text out of one number costs a
/// fraction of what proptest's own texts do.
fn texts(
    bytes: std::ops::RangeInclusive<usize>,
    allowed: impl Fn(char) -> bool,
) -> impl Strategy<Value = String> {
    let least = *bytes.start();
    (any::<u64>(), bytes, 0..9_u32).prop_map(move |(seed, bytes, halved)| {
        let bytes = (bytes >> halved).max(least);
        text(Random(seed), bytes, &allowed)
    })
}

fn text(mut random: Random, bytes: usize, allowed: impl Fn(char) -> bool) -> String {
    let alphabet = random.below(6);
    let mut text = String::with_capacity(bytes);
    // Much may not be allowed.
    for _ in 0..2 * bytes {
        if text.len() == bytes {
            break;
        }
        let of = if alphabet == 5 {
            random.below(5)
        } else {
            alphabet
        };
        let char = match of {
            0 => char::from_u32(random.below(0x11_0000)).unwrap_or('%'),
            1 => random.below(0x80) as u8 as char,
            2 => random.of(b"%+=,;\"\\ &#?:/@'(){}[]<>|^`~!$*._-") as char,
            3 => random.of(b"%%%%0123456789ABCDEFabcdef") as char,
            _ => random.of(&ODD),
        };
        if text.len() + char.len_utf8() <= bytes && allowed(char) {
            text.push(char);
        }
    }
    let rest = bytes - text.len();
    text.extend(std::iter::repeat_n('x', rest));
    text
}

/// Spaces, marks and control characters; characters of one to four bytes.
const ODD: [char; 18] = [
    '\0', '\t', '\r', '\n', '\u{7f}', '\u{85}', '\u{a0}', '\u{3000}', '\u{2028}', '\u{feff}',
    '\u{200b}', '\u{202e}', 'e', '\u{301}', 'ß', 'λ', '中', '🦀',
];

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % u64::from(end)) as u32
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u32) as usize]
    }
}
