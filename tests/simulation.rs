//! A hundred services, each with a sampler of its own, that nobody coordinates.

use opentelemetry::Context;
use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, TraceContextExt, TraceFlags, TraceId, TraceState,
};
use opentelemetry_sdk::trace::{Sampler, SamplingDecision, SamplingResult, ShouldSample};
use std::collections::BTreeMap;
use tracing_session::{Session, SessionSampler};

const SERVICES: usize = 100;
const SESSIONS: usize = 5_000;
const REQUESTS: usize = 500_000;

/// What every other service samples at; the rest have one each of `OTHER_RATIOS`.
const RATIO: f64 = 0.25;
const OTHER_RATIOS: [f64; 5] = [0.001, 0.1, 0.3, 0.5, 0.999];

fn ratio_of(service: usize) -> f64 {
    if service % 2 == 0 {
        RATIO
    } else {
        OTHER_RATIOS[service / 2 % OTHER_RATIOS.len()]
    }
}

/// The same numbers in every run: xorshift64*.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() >> 11) as usize % end
    }

    fn trace_id(&mut self) -> TraceId {
        TraceId::from((u128::from(self.next()) << 64) | u128::from(self.next() | 1))
    }
}

fn sessions(random: &mut Random) -> Vec<Session> {
    let id = |_| Session::new(format!("{:016x}", random.next())).unwrap();
    (0..SESSIONS).map(id).collect()
}

fn ask(sampler: &dyn ShouldSample, cx: &Context, trace: TraceId) -> SamplingResult {
    sampler.should_sample(Some(cx), trace, "turn", &SpanKind::Server, &[], &[])
}

fn is_kept(said: &SamplingResult) -> bool {
    said.decision == SamplingDecision::RecordAndSample
}

#[test]
fn a_hundred_services_never_disagree_on_a_session() {
    let mut random = Random(42);
    let sessions = sessions(&mut random);
    let mut services: Vec<_> = (0..SERVICES)
        .map(|service| SessionSampler::new(ratio_of(service)))
        .collect();
    // For each session, by the bits of the ratio, which have its order: what was decided, and how often.
    let mut decided: BTreeMap<(usize, u64), (bool, usize)> = BTreeMap::new();
    let mut restarts = 0;

    for _ in 0..REQUESTS {
        let service = random.below(SERVICES);
        if random.below(100) == 0 {
            services[service] = SessionSampler::new(ratio_of(service));
            restarts += 1;
        }
        let session = random.below(SESSIONS);
        let cx = sessions[session].clone().in_scope(Context::current);
        let kept = is_kept(&ask(&services[service], &cx, random.trace_id()));

        let key = (session, ratio_of(service).to_bits());
        let (before, times) = decided.entry(key).or_insert((kept, 0));
        assert_eq!(*before, kept, "session {session} at {}", ratio_of(service));
        *times += 1;
    }

    // Of one session, from the lowest ratio to the highest: dropped up to some ratio, and kept from there on.
    for session in 0..SESSIONS {
        let of_it = decided.range((session, 0)..=(session, u64::MAX));
        let kept: Vec<_> = of_it.map(|(_, (kept, _))| *kept).collect();
        assert!(kept.is_sorted(), "session {session}: {kept:?}");
    }
    // Enough was asked for this to mean something: thousands of restarts, each pair asked of many times, each answer given.
    assert!(restarts > 4_000, "{restarts}");
    let times = decided.values().map(|(_, times)| times);
    assert!(times.filter(|times| **times > 1).count() > 20_000);
    for ratio in OTHER_RATIOS.into_iter().chain([RATIO]) {
        let asked = decided.iter().filter(|((_, at), _)| *at == ratio.to_bits());
        let kept = asked.clone().filter(|(_, (kept, _))| *kept).count() as f64;
        let asked = asked.count() as f64;
        let deviation = (asked * ratio * (1.0 - ratio)).sqrt();
        assert!(
            (kept - asked * ratio).abs() < 4.0 * deviation.max(1.0),
            "{ratio}: {kept} of {asked}"
        );
    }
}

#[test]
fn a_trace_through_many_services_is_whole_whether_they_ask_their_parents_or_the_session() {
    let mut random = Random(7);
    let sessions = sessions(&mut random);
    let services: Vec<Box<dyn ShouldSample>> = (0..SERVICES)
        .map(|service| -> Box<dyn ShouldSample> {
            let sampler = SessionSampler::new(RATIO);
            match service % 2 {
                0 => Box::new(Sampler::parent_based(sampler)),
                _ => Box::new(sampler),
            }
        })
        .collect();
    let mut kept_traces = 0;
    for session in &sessions {
        // Some services are told of the session; the others have the `tracestate` alone.
        let [inside, outside] = [session.clone().in_scope(Context::current), Context::new()];
        let trace = random.trace_id();
        let mut cx = inside.clone();
        let mut decisions = Vec::new();
        for _ in 0..8 {
            let said = ask(&*services[random.below(SERVICES)], &cx, trace);
            decisions.push(is_kept(&said));
            let told = if random.below(2) == 0 {
                &inside
            } else {
                &outside
            };
            cx = told.with_remote_span_context(caller(trace, &said, &mut random));
        }
        assert!(decisions.iter().all(|kept| *kept == decisions[0]));
        kept_traces += usize::from(decisions[0]);
    }
    assert!((1_000..1_500).contains(&kept_traces), "{kept_traces}");
}

/// What the next service gets in its headers.
fn caller(trace: TraceId, said: &SamplingResult, random: &mut Random) -> SpanContext {
    let flags = TraceFlags::default().with_sampled(is_kept(said));
    let state: TraceState = said.trace_state.clone();
    let span = SpanId::from(random.next() | 1);
    SpanContext::new(trace, span, flags, true, state)
}
