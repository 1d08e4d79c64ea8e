//! What is written in the `tracestate`.

use super::{
    AT_HALF, AT_HALF_RV, AT_TENTH, AT_TENTH_RV, NEVER, NEVER_RV, app, asked, asked_of, in_session,
    is_kept, remote,
};
use opentelemetry::Context;
use opentelemetry::trace::{TraceContextExt, TraceId, Tracer, TracerProvider};
use opentelemetry_sdk::trace::Sampler;
use opentelemetry_sdk::trace::SamplingDecision::{Drop, RecordAndSample};
use std::collections::HashMap;
use tracing_session::{Session, SessionSampler, session::Part};

/// What a sampler with the ratio 0.1 makes of a `tracestate` that comes in, for this session.
fn after(id: &str, state: &str) -> String {
    let _of = remote(state, true).attach();
    in_session(&SessionSampler::new(0.1), id)
        .trace_state
        .header()
}

#[test]
fn sampled_span_has_randomness_and_threshold_and_dropped_one_only_randomness() {
    for (id, ratio, expected) in [
        (AT_TENTH, 1.0, format!("ot=rv:{AT_TENTH_RV};th:0")),
        (AT_TENTH, 0.5, format!("ot=rv:{AT_TENTH_RV};th:8")),
        (
            AT_TENTH,
            0.1,
            format!("ot=rv:{AT_TENTH_RV};th:e6666666666666"),
        ),
        (AT_TENTH, 0.01, format!("ot=rv:{AT_TENTH_RV}")),
        (AT_HALF, 0.5, format!("ot=rv:{AT_HALF_RV};th:8")),
        (AT_HALF, 0.1, format!("ot=rv:{AT_HALF_RV}")),
        (NEVER, 0.0, format!("ot=rv:{NEVER_RV}")),
    ] {
        let said = in_session(&SessionSampler::new(ratio), id);
        assert_eq!(said.trace_state.header(), expected, "{id} at {ratio}");
        assert_eq!(is_kept(&said), expected.contains("th"));
        assert_eq!(said.attributes, []);
    }
}

#[test]
fn other_members_of_the_tracestate_stay() {
    let rv = format!("rv:{AT_TENTH_RV};th:e6666666666666");
    for (before, expected) in [
        ("", format!("ot={rv}")),
        ("vendor=1", format!("ot={rv},vendor=1")),
        (
            "a=1,ot=p:8;r:62,b@c=2",
            format!("ot={rv};p:8;r:62,a=1,b@c=2"),
        ),
        ("a=1,ot=th:0;p:8", format!("ot={rv};p:8,a=1")),
        ("ot=th:zz;p:8", format!("ot={rv};p:8")),
        // One part that is malformed, and a reader takes none of them.
        (
            "ot=p:8;garbage;:1;1:2;oK:1;k:a b;ok:",
            format!("ot={rv};p:8;ok:"),
        ),
        ("ot=k2:a.b_c-d;p:8", format!("ot={rv};k2:a.b_c-d;p:8")),
        ("ot=rv:e667;p:8", format!("ot={rv};p:8")),
        ("ot=rv:e66729392fa79g", format!("ot={rv}")),
        ("ot=p:ffffffffffffff", format!("ot={rv};p:ffffffffffffff")),
        ("ot=rv:+66729392fa79f", format!("ot={rv}")),
    ] {
        assert_eq!(after(AT_TENTH, before), expected, "{before}");
    }
    assert_eq!(
        after(NEVER, "a=1,ot=th:0;p:8"),
        format!("ot=rv:{NEVER_RV};p:8,a=1")
    );
}

#[test]
fn other_randomness_stays_and_the_session_decides_without_a_threshold() {
    let sampler = SessionSampler::new(0.1);
    let decided = |session: &str, state: &str| {
        let cx = remote(state, true);
        let _attached = cx.attach();
        let cx = Session::new(session).unwrap().in_scope(Context::current);
        let said = asked(&sampler, &cx);
        (said.decision, said.trace_state.header())
    };
    let highest = "ot=rv:ffffffffffffff;th:c;p:8,a=1";
    let lowest = "ot=p:8;rv:00000000000000;th:0";
    let (highest_after, lowest_after) =
        ("ot=rv:ffffffffffffff;p:8,a=1", "ot=rv:00000000000000;p:8");
    for (session, state, after, decision) in [
        (AT_TENTH, highest, highest_after, RecordAndSample),
        (AT_TENTH, lowest, lowest_after, RecordAndSample),
        (NEVER, highest, highest_after, Drop),
        (NEVER, lowest, lowest_after, Drop),
    ] {
        assert_eq!(decided(session, state), (decision, after.to_owned()));
    }
    // All are kept, whatever the randomness.
    let sampler = SessionSampler::new(0.1).always_keep(|_| true);
    let cx = remote(lowest, true);
    let _attached = cx.attach();
    let cx = Session::new(NEVER).unwrap().in_scope(Context::current);
    assert_eq!(
        asked(&sampler, &cx).trace_state.header(),
        "ot=rv:00000000000000;th:0;p:8"
    );
}

#[test]
fn other_randomness_decides_outside_a_session() {
    let after = |state: &str| {
        let said = asked(&SessionSampler::new(0.1), &remote(state, true));
        (said.decision, said.trace_state.header())
    };
    assert_eq!(
        after("ot=rv:ffffffffffffff;th:c;p:8,a=1"),
        (
            RecordAndSample,
            "ot=rv:ffffffffffffff;th:e6666666666666;p:8,a=1".to_owned()
        )
    );
    // At the threshold it is kept, and below it is not.
    assert_eq!(
        after("ot=rv:e6666666666666"),
        (
            RecordAndSample,
            "ot=rv:e6666666666666;th:e6666666666666".to_owned()
        )
    );
    assert_eq!(
        after("ot=rv:e6666666666665"),
        (Drop, "ot=rv:e6666666666665".to_owned())
    );
}

#[test]
fn randomness_of_the_session_is_decided_on_again() {
    let state = format!("ot=rv:{AT_TENTH_RV};th:8");
    assert_eq!(
        after(AT_TENTH, &state),
        format!("ot=rv:{AT_TENTH_RV};th:e6666666666666")
    );
}

#[test]
fn without_room_no_threshold_is_written() {
    let fits = |others: usize| format!("p:{}", "8".repeat(others - 2));
    let rv = format!("rv:{AT_TENTH_RV};th:e6666666666666");
    let room = 256 - rv.len() - 1;
    assert_eq!(
        after(AT_TENTH, &format!("ot={}", fits(room))),
        format!("ot={rv};{}", fits(room))
    );
    let full = format!("ot={}", fits(room + 1));
    assert_eq!(after(AT_TENTH, &full), full);
    // A threshold of somebody else would be wrong.
    let others = fits(room + 1);
    assert_eq!(
        after(AT_TENTH, &format!("ot=th:0;{others}")),
        format!("ot={others}")
    );
    let with_rv = format!("ot=rv:ffffffffffffff;{others}");
    assert_eq!(after(AT_TENTH, &with_rv), with_rv);
    // The randomness that was there stays, even where nothing can be said of it.
    let own = format!("ot=rv:{AT_TENTH_RV};{}", fits(room + 1));
    assert_eq!(after(AT_TENTH, &own), own);
}

#[test]
fn last_of_too_many_members_is_removed() {
    let members: Vec<_> = (0..32).map(|member| format!("m{member}=1")).collect();
    let expected = format!(
        "ot=rv:{AT_TENTH_RV};th:e6666666666666,{}",
        members[..31].join(",")
    );
    assert_eq!(after(AT_TENTH, &members.join(",")), expected);
}

#[test]
fn outside_a_session_the_trace_id_decides_as_opentelemetry_specifies() {
    let sampler = SessionSampler::new(0.1);
    let none = Session::default()
        .without(Part::Session)
        .with_user("u-7")
        .unwrap();
    for (trace, expected) in [
        (0x00ff_ffff_ffff_ffff, "ot=th:e6666666666666"),
        (0x00e6_6666_6666_6666, "ot=th:e6666666666666"),
        (0x00e6_6666_6666_6665, ""),
        // The eighth byte from the end and those before it do not count.
        (0xff00_0000_0000_0000, ""),
        (0xffff_ffff_0000_0000_0000_0000_0000_0001, ""),
    ] {
        let trace = TraceId::from(trace);
        let said = asked_of(&sampler, &Context::new(), trace);
        assert_eq!(
            (said.trace_state.header().as_str(), is_kept(&said)),
            (expected, !expected.is_empty())
        );
        let a_user_alone = none.in_scope(|| asked_of(&sampler, &Context::current(), trace));
        assert_eq!(a_user_alone, said);
        for before in ["a=1,ot=th:0", "a=1"] {
            let with_vendor = asked_of(&sampler, &remote(before, true), trace);
            assert_eq!(
                with_vendor.trace_state.header(),
                match expected {
                    "" => "a=1".to_owned(),
                    ot => format!("{ot},a=1"),
                }
            );
        }
    }
}

#[test]
fn the_whole_trace_has_the_tracestate_of_its_root_and_so_do_its_headers() {
    use opentelemetry::propagation::TextMapPropagator;
    use opentelemetry_sdk::propagation::TraceContextPropagator;
    let app = app(Sampler::parent_based(SessionSampler::new(0.1)));
    let tracer = app.provider.tracer("library");
    for (id, expected) in [
        (AT_TENTH, format!("ot=rv:{AT_TENTH_RV};th:e6666666666666")),
        (NEVER, format!("ot=rv:{NEVER_RV}")),
    ] {
        Session::new(id).unwrap().in_scope(|| {
            tracer.in_span("root", |_| {
                tracing::info_span!("child").in_scope(|| {
                    let cx = Context::current();
                    assert_eq!(cx.span().span_context().trace_state().header(), expected);
                    let mut headers = HashMap::new();
                    TraceContextPropagator::new().inject_context(&cx, &mut headers);
                    assert_eq!(headers["tracestate"], expected);
                });
            });
        });
    }
    assert_eq!(super::kept(&app), ["child", "root"]);
    for span in app.spans() {
        let header = span.span_context.trace_state().header();
        assert_eq!(header, format!("ot=rv:{AT_TENTH_RV};th:e6666666666666"));
    }
}
