//! Whatever comes in as a `tracestate`: the session decides, and what goes out is in order.

use super::{asked, in_session, is_kept, remote};
use opentelemetry::Context;
use opentelemetry::trace::TraceState;
use proptest::prelude::*;
use proptest::test_runner::RngAlgorithm;
use tracing_session::{Session, SessionSampler};

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
        let Ok(before) = header.parse::<TraceState>() else { return Ok(()) };
        let sampler = SessionSampler::new(0.5);
        let sampler = if always { sampler.always_keep(|_| true) } else { sampler };
        let alone = in_session(&sampler, &id).decision;
        let remote = remote(&header, true).attach();
        let cx = Session::new(&id).unwrap().in_scope(Context::current);
        drop(remote);
        let said = asked(&sampler, &cx);
        let is_kept = is_kept(&said);
        prop_assert_eq!(said.decision, alone);
        let after = said.trace_state;
        prop_assert_eq!(&after.header().parse::<TraceState>().unwrap(), &after);
        let mut ours = after.get("ot").unwrap_or_default().split(';');
        prop_assert!(is_kept || ours.all(|it| !it.starts_with("th:")));
        let length = |state: &TraceState| state.get("ot").map_or(0, str::len);
        prop_assert!(length(&after) <= 256.max(length(&before)));
        let others = |state: &TraceState| {
            let header = state.header();
            let members = header.split(',').filter(|it| !it.starts_with("ot="));
            members.filter(|it| !it.is_empty()).map(str::to_owned).collect::<Vec<_>>()
        };
        let kept = others(&before);
        // Of too many members the last gives way.
        prop_assert_eq!(&others(&after)[..], &kept[..kept.len().min(31)]);
    }
}
