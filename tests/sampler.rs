//! What a `SessionSampler` keeps, and what it writes.

mod support;

use opentelemetry::Context;
use opentelemetry::trace::{SpanKind, TraceId};
use opentelemetry_sdk::trace::{SamplingDecision, SamplingResult, ShouldSample};
use tracing_session::{Session, SessionSampler};

/// What a sampler says of a span that is started under `cx`.
fn asked(sampler: &dyn ShouldSample, cx: &Context) -> SamplingResult {
    let trace = TraceId::from(1 << 40);
    sampler.should_sample(Some(cx), trace, "turn", &SpanKind::Internal, &[], &[])
}

/// The rows of the tables in the documentation, with as many cells.
fn rows<const N: usize>(first: &str) -> Vec<[&'static str; N]> {
    let page = include_str!("../docs/sampling.md");
    let heading = |line: &&str| line.starts_with(&format!("| {first} |"));
    let lines = page.lines().skip_while(|line| !heading(line)).skip(2);
    let table = lines.take_while(|line| !line.is_empty());
    let cells = |line: &'static str| {
        let line = line.strip_prefix("| ").unwrap().strip_suffix(" |").unwrap();
        let cells = line.split(" | ").map(|cell| cell.trim_matches('`'));
        cells.collect::<Vec<_>>().try_into().unwrap()
    };
    table.map(cells).collect()
}

#[test]
fn decides_as_the_documented_vectors_say() {
    let vectors = rows::<5>("session id");
    assert_eq!(vectors.len(), 16);
    for [id, rv, decisions @ ..] in vectors {
        for (ratio, decision) in [0.5, 0.1, 0.001].into_iter().zip(decisions) {
            let _in = Session::new(id).unwrap().attach();
            let said = asked(&SessionSampler::new(ratio), &Context::current());
            let kept = said.decision == SamplingDecision::RecordAndSample;
            assert_eq!(kept, decision == "kept", "{id} at {ratio}");
            let header = said.trace_state.header();
            assert!(header.starts_with(&format!("ot=rv:{rv}")), "{header}");
        }
    }
}
