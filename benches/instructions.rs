//! Instructions per span, counted by callgrind: the same figure on a noisy machine as on a quiet
//! one. `cargo bench --bench instructions`, with valgrind installed; a shape's name as argument
//! runs that shape alone.
//!
//! It fails where a promise is not kept: see [`PROMISES`].

mod callgrind;
mod workload;

use std::process::ExitCode;
use workload::{Case, SHAPES, Shape};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args.as_slice() {
        ["--run", shape, case, rounds] => run(shape, case, rounds),
        _ => compare(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// What a process of its own does.
fn run(shape: &str, case: &str, rounds: &str) -> Result<(), String> {
    let shape = SHAPES.iter().find(|known| known.name == shape);
    let shape = shape.ok_or("no such shape")?;
    let case = shape.cases.iter().find(|known| known.name() == case);
    let case = *case.ok_or("no such case of this shape")?;
    let rounds: u64 = rounds.parse().map_err(|error| format!("{error}"))?;
    let subscriber = workload::subscriber(shape, case);
    tracing::dispatcher::set_global_default(subscriber).map_err(|error| error.to_string())?;
    for _ in 0..rounds {
        shape.run(case);
    }
    Ok(())
}

fn compare(args: &[&str]) -> Result<(), String> {
    let wanted: Vec<_> = args.iter().filter(|arg| !arg.starts_with("--")).collect();
    let mut counts = Counts::default();
    for shape in SHAPES {
        if wanted.is_empty() || wanted.iter().any(|name| **name == shape.name) {
            counts.add(shape)?;
        }
    }
    let mut broken = Vec::new();
    for (promise, at_most, of) in PROMISES {
        // None where an argument has left out a shape, or a feature is off.
        let Some(measured) = of(&counts) else {
            continue;
        };
        println!("promise=\"{promise}\" at_most={at_most} measured={measured:.3}");
        if measured > *at_most {
            broken.push(*promise);
        }
    }
    SHAPES.iter().for_each(|shape| counts.print(shape));
    match broken.as_slice() {
        [] => Ok(()),
        broken => Err(format!("not kept: {}", broken.join("; "))),
    }
}

type Promise = (&'static str, f64, fn(&Counts) -> Option<f64>);

/// What this crate may cost at most.
const PROMISES: &[Promise] = &[
    ("wide1000 of hand_written", 0.36, |counts| {
        counts.of_hand_written("wide1000")
    }),
    ("tree13 of hand_written", 0.6, |counts| {
        counts.of_hand_written("tree13")
    }),
    // Without the feature, the ids of this case are left out.
    ("both ids hashed, more of hand_written", 0.15, |counts| {
        if !cfg!(feature = "hash") {
            return None;
        }
        let hashed = counts.get("wide1000", Case::Hashed)?;
        let more = hashed - counts.get("wide1000", Case::TracingSession)?;
        Some(more / counts.over_baseline("wide1000", Case::HandWritten)?)
    }),
    ("metadata of hand_written", 0.32, |counts| {
        counts.of_hand_written("metadata")
    }),
    ("full of hand_written", 0.46, |counts| {
        counts.of_hand_written("full")
    }),
    ("remote of hand_written", 0.9, |counts| {
        counts.of_hand_written("remote")
    }),
    ("filtered of hand_written", 0.8, |counts| {
        counts.of_hand_written("filtered")
    }),
    ("outside over baseline", 0.02, |counts| {
        counts.of_baseline("outside")
    }),
    ("outside1 over baseline", 0.02, |counts| {
        counts.of_baseline("outside1")
    }),
    ("disabled over baseline", 0.001, |counts| {
        counts.of_baseline("disabled")
    }),
    ("a further poll over baseline", 0.02, |counts| {
        let polls = |case| Some(counts.get("async10", case)? - counts.get("async0", case)?);
        Some(polls(Case::TracingSession)? / polls(Case::Baseline)? - 1.0)
    }),
    ("chain64 over chain4", 0.03, |counts| {
        let ours = |shape| counts.get(shape, Case::TracingSession);
        Some(ours("chain64")? / ours("chain4")? - 1.0)
    }),
    ("turn by session! of hand_written", 0.2, |counts| {
        counts.share("turn", Case::TracingSession, Case::HandWritten)
    }),
    ("turn by fields of hand_written", 0.2, |counts| {
        counts.share("turn", Case::Field, Case::HandWritten)
    }),
    ("turn by a Conversation of hand_written", 0.2, |counts| {
        counts.share("turn", Case::Conversation, Case::HandWritten)
    }),
    (
        "turn in the default session of hand_written",
        0.2,
        |counts| counts.share("turn", Case::DefaultSession, Case::HandWritten),
    ),
    ("turn by set_* of hand_written", 0.25, |counts| {
        counts.share("turn", Case::Set, Case::HandWritten)
    }),
    ("turn by late fields of hand_written", 0.4, |counts| {
        counts.share("turn", Case::Late, Case::HandWritten)
    }),
    ("turn in_session of hand_written", 0.75, |counts| {
        counts.share("turn", Case::SessionValue, Case::HandWritten)
    }),
    ("turn with details of hand_written_full", 0.55, |counts| {
        counts.share("turn", Case::Full, Case::HandWrittenFull)
    }),
    ("unsampled turn of hand_written", 0.65, |counts| {
        counts.share("turn_unsampled", Case::TracingSession, Case::HandWritten)
    }),
    (
        "turn with a sampler of roots of hand_written",
        1.6,
        |counts| {
            counts.share(
                "turn_sampler_of_roots",
                Case::TracingSession,
                Case::HandWritten,
            )
        },
    ),
    ("handler1 by a Session of hand_written", 1.0, |counts| {
        counts.share("handler1", Case::SessionValue, Case::HandWritten)
    }),
    (
        "handler1 in the default session of hand_written",
        0.2,
        |counts| counts.share("handler1", Case::DefaultSession, Case::HandWritten),
    ),
    ("exporter of two dialects of hand_written", 1.5, |counts| {
        counts.exporter("turn_dialects", Case::TracingSession, Case::HandWritten)
    }),
    (
        "exporter of two dialects with details of hand_written_full",
        2.0,
        |counts| counts.exporter("turn_dialects", Case::FullValue, Case::HandWrittenFull),
    ),
    ("inject over TraceContext + Baggage", 1.3, |counts| {
        counts.of_baggage("inject")
    }),
];

/// Instructions per span.
#[derive(Default)]
struct Counts(Vec<(&'static str, Case, f64)>);

impl Counts {
    /// Counts each case of a shape, side by side.
    fn add(&mut self, shape: &Shape) -> Result<(), String> {
        let counts: Vec<Result<f64, String>> = std::thread::scope(|scope| {
            let per_span = |case: Case| callgrind::per_item(shape.name, case.name(), shape.spans);
            let count = |case| scope.spawn(move || per_span(case));
            let threads: Vec<_> = shape.cases.iter().map(|case| count(*case)).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|_| Err("panicked".into())))
                .collect()
        });
        for (case, count) in shape.cases.iter().zip(counts) {
            self.0.push((shape.name, *case, count?));
        }
        Ok(())
    }

    fn get(&self, shape: &str, case: Case) -> Option<f64> {
        let is_it = |known: &&(&str, Case, f64)| known.0 == shape && known.1 == case;
        self.0.iter().find(is_it).map(|(_, _, count)| *count)
    }

    fn over_baseline(&self, shape: &str, case: Case) -> Option<f64> {
        Some(self.get(shape, case)? - self.get(shape, Case::Baseline)?)
    }

    fn of_hand_written(&self, shape: &str) -> Option<f64> {
        self.share(shape, Case::TracingSession, Case::HandWritten)
    }

    /// What a case adds to the baseline, as a share of what `by_hand` adds.
    fn share(&self, shape: &str, case: Case, by_hand: Case) -> Option<f64> {
        Some(self.over_baseline(shape, case)? / self.over_baseline(shape, by_hand)?)
    }

    /// What further dialects add to the exporter, as a share of what `by_hand` adds to a span of the same turn.
    fn exporter(&self, shape: &str, case: Case, by_hand: Case) -> Option<f64> {
        let more = self.get(shape, case)? - self.get("turn_exported", case)?;
        Some(more / self.over_baseline("turn", by_hand)?)
    }

    fn of_baseline(&self, shape: &str) -> Option<f64> {
        let ours = self.over_baseline(shape, Case::TracingSession)?;
        Some(ours / self.get(shape, Case::Baseline)?)
    }

    fn of_baggage(&self, shape: &str) -> Option<f64> {
        let ours = self.get(shape, Case::SessionPropagator)?;
        Some(ours / self.get(shape, Case::BaggagePropagator)?)
    }

    /// Each case over the baseline, as a share of what fields written by hand add, and as a multiple
    /// of what a span costs at the limit.
    fn print(&self, shape: &Shape) {
        let text = |ratio: Option<f64>| ratio.map_or("-".into(), |ratio| format!("{ratio:.3}"));
        for case in shape.cases {
            let count = (
                self.get(shape.name, *case),
                self.over_baseline(shape.name, *case),
            );
            let (Some(per_span), Some(over)) = count else {
                continue;
            };
            let by_hand = self.over_baseline(shape.name, Case::HandWritten);
            let limit = self.get(shape.name, Case::Limit);
            println!(
                "shape={} case={} instructions_per_span={per_span:.0} over_baseline={over:.0} of_hand_written={} of_limit={}",
                shape.name,
                case.name(),
                text(by_hand.map(|by_hand| over / by_hand)),
                text(limit.map(|limit| per_span / limit)),
            );
        }
    }
}
