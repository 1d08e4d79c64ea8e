//! Wall-clock time per span, in the cases of `instructions`: on one thread, and on two at once that
//! share a subscriber. `cargo bench --bench spans`; an argument is a filter, as criterion takes it.
//!
//! criterion times one case after the other, and a busy machine slows one down and spares the next.
//! The lines at the end are therefore measured once more: the cases take turns, and of each its
//! fastest turn counts, because noise only adds. With two threads it is the time until both have
//! ended, over the spans of one of them: where threads do not hinder each other, the same as alone.

mod workload;

use criterion::{BenchmarkId, Criterion, Throughput};
use std::process::ExitCode;
use std::time::Duration;
use workload::{Case, SHAPES, Shape, threads::time};

const TIMED: &[&str] = &[
    "tree13",
    "wide1000",
    "session1",
    "remote",
    "filtered",
    "unsampled",
    "turn",
    "turn_unsampled",
    "handler1",
    "outside",
    "async0",
    "async10",
];

const THREADS: [u32; 2] = [1, 2];

/// For each thread: two are disturbed more often than one.
const TURNS: u32 = 60;
/// About a millisecond: short enough that some turns pass undisturbed.
const SPANS_IN_A_TURN: u64 = 1_000;

fn main() -> ExitCode {
    let mut criterion = Criterion::default()
        .without_plots()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(300))
        .nresamples(2_000)
        .configure_from_args();
    let mut compared = Vec::new();
    for name in TIMED {
        let Some(shape) = SHAPES.iter().find(|known| known.name == *name) else {
            eprintln!("no such shape: {name}");
            return ExitCode::FAILURE;
        };
        for threads in THREADS {
            compared.extend(with_criterion(&mut criterion, shape, threads));
        }
    }
    criterion.final_summary();

    for _ in 0..TURNS {
        compared.iter_mut().for_each(Compared::turns);
    }
    compared.iter().for_each(Compared::print);
    ExitCode::SUCCESS
}

/// What is left to compare: the cases that criterion measured, and the baseline in any case.
fn with_criterion(
    criterion: &mut Criterion,
    shape: &'static Shape,
    threads: u32,
) -> Option<Compared> {
    let mut group = criterion.benchmark_group(shape.name);
    group.throughput(Throughput::Elements(shape.spans * u64::from(threads)));
    let mut any = false;
    let mut fastest = Vec::new();
    for case in shape.cases {
        let mut calls = 0;
        group.bench_function(BenchmarkId::new(case.name(), threads), |bencher| {
            bencher.iter_custom(|rounds| {
                calls += 1;
                time(shape, *case, threads, rounds)
            });
        });
        // None if the filter leaves it out, and one if criterion is to look whether it runs.
        let measured = calls > 1;
        any |= measured;
        if measured || *case == Case::Baseline {
            fastest.push((*case, Duration::MAX));
        }
    }
    group.finish();
    any.then_some(Compared {
        shape,
        threads,
        fastest,
    })
}

/// The cases of a shape on so many threads, with the time of a turn.
struct Compared {
    shape: &'static Shape,
    threads: u32,
    fastest: Vec<(Case, Duration)>,
}

impl Compared {
    fn rounds(&self) -> u64 {
        SPANS_IN_A_TURN.div_ceil(self.shape.spans)
    }

    fn turns(&mut self) {
        let rounds = self.rounds();
        for _ in 0..self.threads {
            for (case, fastest) in &mut self.fastest {
                *fastest = time(self.shape, *case, self.threads, rounds).min(*fastest);
            }
        }
    }

    fn print(&self) {
        let spans = (self.rounds() * self.shape.spans) as f64;
        let per_span = |turn: &Duration| turn.as_nanos() as f64 / spans;
        let baseline = self
            .fastest
            .iter()
            .find(|(case, _)| *case == Case::Baseline)
            .map(|(_, turn)| per_span(turn));
        for (case, turn) in &self.fastest {
            let of_baseline = baseline.map(|baseline| per_span(turn) / baseline);
            println!(
                "shape={} case={} threads={} ns_per_span={:.0} of_baseline={}",
                self.shape.name,
                case.name(),
                self.threads,
                per_span(turn),
                of_baseline.map_or("-".into(), |ratio| format!("{ratio:.3}")),
            );
        }
    }
}
