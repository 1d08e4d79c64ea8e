//! Whatever comes in as the state of a conversation, nearly right: `tests/hostile/state.rs` says what has
//! to hold.

#[path = "../hostile/state.rs"]
mod rules;

use proptest::prelude::*;
use proptest::test_runner::RngAlgorithm;
use serde_json::{Value as Json, json};

fn value() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<f64>().prop_map(Json::from),
        (0..=256_u64).prop_map(Json::from),
        ".{0,20}".prop_map(Json::from),
        "[^ ]{0,4}secret[^ ]{0,4}".prop_map(Json::from),
        "[0-9a-fA-F]{32}".prop_map(Json::from),
        "((tr|sp|TR)_)?[+0-9a-f]{15,17}".prop_map(Json::from),
        "([a-z0-9]{1,5}(@[a-z]{1,3})?=[ -~&&[^,]]{0,6},?){0,40}".prop_map(Json::from),
        "(a=\\PC{0,9},)?b=[a-z]{200,256},c=[a-z]{200,256}(,d=[a-z]{0,256})?".prop_map(Json::from),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Json::from),
            prop::collection::hash_map(".{0,5}", inner, 0..3)
                .prop_map(|members| members.into_iter().collect()),
        ]
    })
}

/// A field that may be missing, and mostly is what it should be.
fn field(valid: impl Strategy<Value = Json> + 'static) -> BoxedStrategy<Option<Json>> {
    prop_oneof![
        6 => Just(None),
        6 => valid.prop_map(Some),
        1 => value().prop_map(Some),
    ]
    .boxed()
}

fn state() -> impl Strategy<Value = Json> {
    let text = |pattern: &'static str| pattern.prop_map(Json::from);
    let version = prop_oneof![9 => Just(json!(1)), 1 => value()];
    let session = prop_oneof![9 => text("[a-z]{0,3}secret"), 1 => value()];
    let others = (
        field(text("secret[a-z]{0,3}")),
        field(any::<bool>().prop_map(Json::from)),
        field(any::<bool>().prop_map(Json::from)),
        field(text("[0-9a-f]{32}")),
        field(text("sp_[0-9a-f]{16}")),
        field((0..=255_u64).prop_map(Json::from)),
        field(text("a=[0-9]{0,9},b=[a-z]{200,256},c=[a-z]{200,256}")),
        field(text(".{0,9}")),
    );
    (version, session, others).prop_map(|(version, session, others)| {
        let mut state = json!({ "version": version, "session_id": session });
        for (name, value) in [
            ("previous_id", others.0),
            ("in_one_trace", others.1),
            ("started", others.2),
            ("trace_id", others.3),
            ("last_span_id", others.4),
            ("trace_flags", others.5),
            ("trace_state", others.6),
            ("unknown", others.7),
        ] {
            if let Some(value) = value {
                state[name] = value;
            }
        }
        state
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1_000,
        failure_persistence: None,
        rng_algorithm: RngAlgorithm::XorShift,
        ..ProptestConfig::default()
    })]

    #[test]
    fn state_is_refused_without_its_values_or_resumed(stored in prop_oneof![9 => state(), 1 => value()]) {
        rules::check(stored.to_string().as_bytes());
    }
}
