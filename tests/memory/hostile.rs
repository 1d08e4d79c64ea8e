//! What hostile headers make us allocate: a small multiple of what a header may hold, however much
//! they hold.

use crate::allocator::ALLOCATED;
use crate::support::alone;
use crate::support::carrier::As;
use http::{HeaderMap, HeaderValue};
use opentelemetry::Context;
use opentelemetry::propagation::TextMapPropagator;
use std::collections::HashMap;
use tracing_session::{SessionPropagator, propagation::Carrier, propagator_from_env};

/// Of W3C baggage, in bytes.
const LIMIT: usize = 8192;

/// What extraction asks for in all, even if it gives it back at once.
fn extracting(propagator: &dyn TextMapPropagator, carrier: &impl Carrier) -> usize {
    let extract = || propagator.extract_with_context(&Context::new(), &As(carrier));
    // What is made once, a diagnostic among it.
    drop(extract());
    let before = ALLOCATED.get();
    drop(extract());
    ALLOCATED.get() - before
}

#[test]
fn a_long_header_costs_no_more_than_the_limit() {
    let pieces = [
        "a",
        "%41",
        "%",
        ",",
        "k=v,",
        "k=%2C;p,",
        "session.id=x,",
        "é",
        " ",
    ];
    for (piece, bytes) in pieces
        .map(|piece| [(piece, 8000), (piece, 1 << 20)])
        .concat()
    {
        let long = piece.repeat(bytes / piece.len());
        for value in [
            long.clone(),
            format!("session.id={long}"),
            format!("k={long},session.id=x"),
        ] {
            for (name, propagator) in ours() {
                let map = HashMap::from([(name.to_owned(), value.clone())]);
                let of_map = extracting(&propagator, &map);
                let mut headers = HeaderMap::new();
                if let Ok(value) = HeaderValue::try_from(&value) {
                    headers.insert(name, value);
                }
                let of_headers = extracting(&propagator, &headers);
                assert!(of_map.max(of_headers) <= 4 * LIMIT, "{name}: {piece}");
            }
        }
    }
}

/// The members of valid headers, and of the first of those that are not.
#[test]
fn thousands_of_members_cost_no_more_than_the_64_that_count() {
    for member in ["k{}=v", "{}=%2C;p;q", "session.id=x", "{}", ""] {
        let members: Vec<_> = (0..100_000)
            .map(|n| member.replace("{}", &n.to_string()))
            .collect();
        for many in [64, 500, 100_000] {
            let value = members[..many].join(",");
            let map = HashMap::from([("baggage".to_owned(), value)]);
            let bytes = extracting(&SessionPropagator::new(), &map);
            assert!(bytes <= 4 * LIMIT, "{many} of {member}");
        }
    }
}

/// A carrier has to list them, two words each in a vector that grows, and each is made an id.
#[test]
fn thousands_of_headers_cost_no_more_than_a_list_of_them() {
    const HEADERS: usize = 10_000;
    for value in ["session.id=x", "x", "%41", "k=v", ""] {
        for (name, propagator) in ours() {
            let map = HashMap::from([(name.to_owned(), vec![value.to_owned(); HEADERS])]);
            let of_map = extracting(&propagator, &map);
            let mut headers = HeaderMap::new();
            for _ in 0..HEADERS {
                headers.append(name, HeaderValue::from_static(value));
            }
            let of_headers = extracting(&propagator, &headers);
            assert!(of_map.max(of_headers) <= 4 * LIMIT + HEADERS * 8 * size_of::<&str>());
        }
    }
}

#[test]
fn a_huge_jaeger_header_costs_little() {
    if !alone(test_name!(), &[("OTEL_PROPAGATORS", "jaeger")]) {
        return;
    }
    let propagator = propagator_from_env().unwrap();
    for piece in ["a", "%41", "%", ":", "%3A", "1:1:0:1:"] {
        let huge = piece.repeat((1 << 20) / piece.len());
        let map = HashMap::from([("uber-trace-id".to_owned(), huge)]);
        let bytes = extracting(&propagator, &map);
        assert!(bytes <= 4 * LIMIT, "{piece}");
    }
}

fn ours() -> [(&'static str, SessionPropagator); 4] {
    let of_its_own = || SessionPropagator::new().with_header("x-session").unwrap();
    [
        ("baggage", SessionPropagator::new()),
        ("baggage", SessionPropagator::new().with_user()),
        ("x-session", of_its_own()),
        ("x-session", of_its_own().with_percent_encoded_headers()),
    ]
}
