//! What has to hold whatever is sampled: the session decides, by the function of `docs/sampling.md`, and
//! the `tracestate` that goes out is in order.

use opentelemetry::Context;
use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, TraceContextExt, TraceFlags, TraceId, TraceState,
};
use opentelemetry_sdk::trace::{SamplingDecision, ShouldSample};
use sha2::{Digest, Sha256};
use tracing_session::{Session, SessionSampler};

const VALUES: u64 = 1 << 56;

/// Panics where something does not hold of a span under a parent with this `tracestate`.
pub(crate) fn check(before: &TraceState, id: &str, ratio: f64, always: bool) {
    let sampler = match always {
        true => SessionSampler::new(ratio).always_keep(|_| true),
        false => SessionSampler::new(ratio),
    };
    let said = {
        let _remote = parent(before).attach();
        let cx = Session::new(id).unwrap().in_scope(Context::current);
        let trace = TraceId::from(7);
        sampler.should_sample(Some(&cx), trace, "turn", &SpanKind::Internal, &[], &[])
    };
    let threshold = if always { 0 } else { threshold(ratio) };
    let is_kept = said.decision == SamplingDecision::RecordAndSample;
    assert_eq!(is_kept, randomness(id) >= threshold);

    let after = said.trace_state;
    assert_eq!(after.header().parse::<TraceState>().unwrap(), after);
    let rv = format!("{:014x}", randomness(id));
    let th = format!("{threshold:014x}");
    let th = match th.trim_end_matches('0') {
        "" => "0",
        th => th,
    };
    let ours = |state: &TraceState| state.get("ot").unwrap_or_default().to_owned();
    let (ours, ours_before) = (ours(&after), ours(before));
    if ours_before.is_empty() {
        let th = if is_kept {
            format!(";th:{th}")
        } else {
            String::new()
        };
        assert_eq!(ours, format!("rv:{rv}{th}"));
    }
    assert!(ours.len() <= 256.max(ours_before.len()));
    let said_th: Vec<_> = ours
        .split(';')
        .filter_map(|it| it.strip_prefix("th:"))
        .collect();
    assert!(said_th.is_empty() || said_th == [th] && is_kept, "{ours}");
    // It would be weighed by a randomness that has not decided.
    assert!(
        said_th.is_empty() || always || ours.contains(&format!("rv:{rv}")),
        "{ours}"
    );

    let others = |state: &TraceState| {
        let header = state.header();
        let members = header.split(',').filter(|it| !it.starts_with("ot="));
        members
            .filter(|it| !it.is_empty())
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let kept = others(before);
    // Of too many members the last gives way.
    assert_eq!(others(&after), kept[..kept.len().min(31)]);
}

fn parent(state: &TraceState) -> Context {
    Context::new().with_remote_span_context(SpanContext::new(
        TraceId::from(7),
        SpanId::from(8),
        TraceFlags::SAMPLED,
        true,
        state.clone(),
    ))
}

fn randomness(id: &str) -> u64 {
    let hash = Sha256::digest(id);
    hash[25..]
        .iter()
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn threshold(ratio: f64) -> u64 {
    let kept = (ratio * VALUES as f64).round() as u64;
    VALUES - if ratio > 0.0 { kept.max(1) } else { 0 }
}
