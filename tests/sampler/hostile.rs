//! Whatever comes in as a `tracestate`: `tests/hostile/sampling.rs` says what has to hold.

#[path = "../hostile/sampling.rs"]
mod rules;

use opentelemetry::trace::TraceState;
use proptest::prelude::*;
use proptest::test_runner::RngAlgorithm;

fn header() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        "[a-z]{1,3}:[a-zA-Z0-9._-]{0,20}",
        "[ -~&&[^,=]]{0,30}",
        "rv:[0-9a-fA-F+]{13,15}",
        "th:[0-9a-f]{0,15}",
    ];
    let ours = prop::collection::vec(part, 0..25).prop_map(|parts| parts.join(";"));
    let others = "([a-z0-9]{1,5}=[!-~&&[^,=]]{1,6},){0,3}";
    let last = "(,[a-z]{1,4}=[0-9]{1,3}){0,31}";
    (others, ours, last).prop_map(|(others, ours, last)| format!("{others}ot={ours}{last}"))
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2_000,
        failure_persistence: None,
        rng_algorithm: RngAlgorithm::XorShift,
        ..ProptestConfig::default()
    })]

    #[test]
    fn session_decides_and_the_tracestate_is_in_order(
        header in header(),
        id in "[a-z0-9]{1,12}",
        always: bool,
    ) {
        if let Ok(before) = header.parse::<TraceState>() {
            rules::check(&before, &id, 0.5, always);
        }
    }
}
