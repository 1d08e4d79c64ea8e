//! How many are kept, and that everybody keeps the same.

use super::{AT_TENTH, AT_TENTH_RV, asked, asked_of, in_session, is_kept};
use opentelemetry::Context;
use opentelemetry::trace::{SpanKind, TraceId, Tracer, TracerProvider};
use opentelemetry_sdk::trace::{InMemorySpanExporter, Sampler, SdkTracerProvider, ShouldSample};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::thread;
use tracing_session::{Session, SessionSampler, SessionTracerProvider};

/// The rows of a table in the documentation, by what stands over its first column.
fn rows<const N: usize>(first: &str) -> Vec<[&'static str; N]> {
    let page = include_str!("../../docs/sampling.md");
    let heading = format!("| {first} |");
    let lines = page.lines().skip_while(|line| !line.starts_with(&heading));
    let table = lines.skip(2).take_while(|line| !line.is_empty());
    let cells = |line: &'static str| {
        let line = line.strip_prefix("| ").unwrap().strip_suffix(" |").unwrap();
        let cells = line.split(" | ").map(|cell| cell.trim_matches('`'));
        cells.collect::<Vec<_>>().try_into().unwrap()
    };
    table.map(cells).collect()
}

#[test]
fn decides_as_in_the_documented_vectors() {
    let vectors = rows::<5>("session id");
    assert_eq!(vectors.len(), 16);
    for [id, rv, decisions @ ..] in vectors {
        for (ratio, decision) in [0.5, 0.1, 0.001].into_iter().zip(decisions) {
            let said = in_session(&SessionSampler::new(ratio), id);
            assert_eq!(is_kept(&said), decision == "sampled", "{id} at {ratio}");
            let ot = said.trace_state.get("ot").unwrap();
            assert_eq!(ot.split(';').next(), Some(&*format!("rv:{rv}")), "{id}");
        }
    }
}

#[test]
fn root_without_a_context_is_decided_by_its_trace_id() {
    for (trace, kept) in [(1 << 55, true), ((1 << 55) - 1, false)] {
        let (trace, kind) = (TraceId::from(trace), SpanKind::Internal);
        let said = SessionSampler::new(0.5).should_sample(None, trace, "turn", &kind, &[], &[]);
        assert_eq!(is_kept(&said), kept);
    }
}

#[test]
fn writes_the_documented_thresholds() {
    let thresholds = rows::<2>("ratio");
    assert_eq!(thresholds.len(), 11);
    // The randomness that every threshold keeps.
    let highest = super::remote("ot=rv:ffffffffffffff", true);
    for [ratio, th] in thresholds {
        let said = asked(&SessionSampler::new(ratio.parse().unwrap()), &highest);
        let expected = format!("rv:ffffffffffffff;th:{th}");
        assert_eq!(said.trace_state.get("ot"), Some(&*expected), "{ratio}");
    }
}

#[test]
fn white_space_around_an_id_and_other_values_of_a_session_make_no_difference() {
    let sampler = SessionSampler::new(0.1);
    let session = Session::new(format!("\t{AT_TENTH} \n")).unwrap();
    let session = session
        .with_user("u-7")
        .unwrap()
        .with_tags(["web"])
        .unwrap();
    let said = session.in_scope(|| asked(&sampler, &Context::current()));
    assert_eq!(said, in_session(&sampler, AT_TENTH));
    assert_eq!(said.trace_state.get("ot").unwrap()[3..17], *AT_TENTH_RV);
}

/// Numbers that look random, and are the same in each run: SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`.
    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// Puts an id of 32 digits in place of `id`.
    fn put_id(&mut self, id: &mut String) {
        id.clear();
        let _ = write!(id, "{:016x}{:016x}", self.next(), self.next());
    }
}

#[test]
fn of_a_million_sessions_the_ratio_is_kept_and_each_ratio_keeps_what_a_lower_one_keeps() {
    const RATIOS: [f64; 3] = [0.001, 0.1, 0.5];
    const SESSIONS: u64 = 1_000_000;
    const THREADS: u64 = 4;
    let count = |seed| {
        let samplers = RATIOS.map(SessionSampler::new);
        let mut random = Random(seed);
        let mut id = String::new();
        let mut counts = [0; 3];
        for _ in 0..SESSIONS / THREADS {
            random.put_id(&mut id);
            let _in = Session::new(&id).unwrap().attach();
            let cx = Context::current();
            let kept = samplers.each_ref().map(|it| is_kept(&asked(it, &cx)));
            assert!(kept.is_sorted(), "{id}: {kept:?}");
            for (count, kept) in counts.iter_mut().zip(kept) {
                *count += u64::from(kept);
            }
        }
        counts
    };
    let counts = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| scope.spawn(move || count(6 << 32 | thread)))
            .collect();
        let counts = threads.into_iter().map(|thread| thread.join().unwrap());
        counts.reduce(|a, b| std::array::from_fn(|at| a[at] + b[at]))
    });
    for (ratio, count) in RATIOS.into_iter().zip(counts.unwrap()) {
        let expected = ratio * SESSIONS as f64;
        let deviation = (expected * (1.0 - ratio)).sqrt();
        let off = (count as f64 - expected) / deviation;
        println!("ratio={ratio} kept={count} standard_deviations={off:.2}");
        assert!(
            off.abs() <= 3.0,
            "{count} of {SESSIONS} at {ratio}: {off} off"
        );
    }
}

#[test]
fn no_session_is_split_between_services_restarts_orders_and_traces() {
    const SESSIONS: usize = 400;
    const TRACES: usize = 3;
    const RATIO: f64 = 0.3;
    // Each makes the traces of all sessions in an order of its own, and is started again twelve times.
    let service = |seed| {
        let mut random = Random(seed);
        let mut turns: Vec<_> = (0..SESSIONS * TRACES).map(|turn| turn % SESSIONS).collect();
        for at in 1..turns.len() {
            turns.swap(at, random.below(at + 1));
        }
        let mut exported = BTreeMap::new();
        for run in turns.chunks(100) {
            let exporter = InMemorySpanExporter::default();
            let provider = SdkTracerProvider::builder()
                .with_simple_exporter(exporter.clone())
                .with_sampler(Sampler::parent_based(SessionSampler::new(RATIO)))
                .build();
            let tracer = SessionTracerProvider::new(provider.clone()).tracer("service");
            for turn in run {
                let session = Session::new(format!("chat-{turn}")).unwrap();
                session.in_scope(|| tracer.in_span("turn", |_| tracer.in_span("call", |_| {})));
            }
            for span in exporter.get_finished_spans().unwrap() {
                let session = crate::support::values(&span, "session.id").concat();
                *exported.entry(session).or_insert(0) += 1;
            }
        }
        exported
    };
    let of_services: Vec<_> = thread::scope(|scope| {
        let services = (0..8).map(|seed| scope.spawn(move || service(seed)));
        let services: Vec<_> = services.collect();
        services.into_iter().map(|it| it.join().unwrap()).collect()
    });
    let first = &of_services[0];
    assert!(
        first.values().all(|spans| *spans == TRACES * 2),
        "{first:?}"
    );
    // Some are kept, and some are not.
    assert!((SESSIONS / 5..SESSIONS / 2).contains(&first.len()));
    assert!(of_services.iter().all(|spans| spans == first));
}

#[test]
fn trace_id_makes_no_difference() {
    let _in = Session::new(AT_TENTH).unwrap().attach();
    let (cx, sampler) = (Context::current(), SessionSampler::new(0.1));
    let mut random = Random(1);
    for _ in 0..1000 {
        let trace = u128::from(random.next()) << 64 | u128::from(random.next());
        assert_eq!(asked_of(&sampler, &cx, trace.into()), asked(&sampler, &cx));
    }
}
