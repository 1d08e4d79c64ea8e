//! Instructions per span, counted by callgrind: the same figure on a noisy machine as on a quiet
//! one. `cargo bench --bench instructions`, with valgrind installed; a shape's name as argument
//! runs that shape alone.
//!
//! It ends with a table of the promises, [`PROMISES`], and fails where one is not kept.

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
    SHAPES.iter().for_each(|shape| counts.print(shape));
    println!("\n| {:<46} | instructions | share | at most |", "per span");
    println!("| {} | ---: | ---: | ---: |", "-".repeat(46));
    let broken = PROMISES.iter().filter(|it| !it.print_kept(&counts)).count();
    if wanted.is_empty() && !cfg!(all(feature = "hash", feature = "sampler")) {
        println!(
            "\nNot run: ids that are hashed, and SessionSampler. They need `--features hash,sampler`."
        );
    }
    match broken {
        0 => Ok(()),
        broken => Err(format!("{broken} promises are not kept")),
    }
}

/// What something may cost at most, as a share of something else.
struct Promise {
    what: &'static str,
    cost: Difference,
    of: Difference,
    at_most: f64,
}

/// Instructions per span of one shape and case, less those of another.
type Difference = (Count, Option<Count>);

type Count = (&'static str, Case);

/// Of what two ids cost that are written by hand on each span.
const fn by_hand(what: &'static str, shape: &'static str, case: Case, at_most: f64) -> Promise {
    promise(what, shape, case, Case::HandWritten, at_most)
}

const fn promise(
    what: &'static str,
    shape: &'static str,
    case: Case,
    of: Case,
    at_most: f64,
) -> Promise {
    let baseline = Some((shape, Case::Baseline));
    Promise {
        what,
        cost: ((shape, case), baseline),
        of: ((shape, of), baseline),
        at_most,
    }
}

/// Of the whole span, without this crate.
const fn of_baseline(what: &'static str, shape: &'static str, at_most: f64) -> Promise {
    Promise {
        of: ((shape, Case::Baseline), None),
        ..by_hand(what, shape, Case::TracingSession, at_most)
    }
}

/// What coverage costs more, of the whole span without this crate.
const fn more(what: &'static str, shape: &'static str, at_most: f64) -> Promise {
    Promise {
        cost: ((shape, Case::Coverage), Some((shape, Case::TracingSession))),
        ..of_baseline(what, shape, at_most)
    }
}

/// What the exporter takes in a shape, of what the same values cost that are written by hand.
const fn exporter(
    what: &'static str,
    shape: &'static str,
    case: Case,
    of: Case,
    at_most: f64,
) -> Promise {
    Promise {
        cost: ((shape, case), Some(("turn_exported", case))),
        ..promise(what, "turn", case, of, at_most)
    }
}

#[rustfmt::skip]
const PROMISES: &[Promise] = {
    use Case::*;
    &[
        by_hand("a span in a session", "wide1000", TracingSession, 0.36),
        by_hand("the same, with metadata", "metadata", TracingSession, 0.32),
        by_hand("the same, with metadata and tags", "full", TracingSession, 0.46),
        Promise {
            cost: (("wide1000", Hashed), Some(("wide1000", TracingSession))),
            ..by_hand("more if both ids are hashed", "wide1000", Hashed, 0.15)
        },
        by_hand("13 spans, the first by session!", "tree13", TracingSession, 0.6),
        by_hand("the same, in a Session", "tree13", SessionValue, 0.4),
        by_hand("the same, with a parent set from outside", "remote", TracingSession, 0.9),
        by_hand("the same, filtered", "filtered", TracingSession, 0.8),
        by_hand("a turn of 31 spans, by session!", "turn", TracingSession, 0.2),
        by_hand("the same, by fields", "turn", Field, 0.2),
        by_hand("the same, by a Conversation", "turn", Conversation, 0.2),
        by_hand("the same, by set_*", "turn", Set, 0.28),
        by_hand("the same, by fields recorded late", "turn", Late, 0.35),
        by_hand("the same, with mark_trace", "turn", Marked, 0.35),
        by_hand("the same, in_session", "turn", SessionValue, 0.6),
        by_hand("the same, in the default session", "turn", DefaultSession, 0.2),
        promise("the same, with metadata and tags", "turn", Full, HandWrittenFull, 0.55),
        promise("the same, with metadata and tags in_session", "turn", FullValue, HandWrittenFull, 0.7),
        by_hand("a turn that isn't sampled", "turn_unsampled", TracingSession, 0.62),
        by_hand("a turn with SessionSampler of roots", "turn_sampler_of_roots", TracingSession, 1.6),
        by_hand("a handler of one span, in a Session", "handler1", SessionValue, 1.0),
        by_hand("the same, in the default session", "handler1", DefaultSession, 0.2),
        by_hand("the same, by session!", "handler1", TracingSession, 2.0),
        by_hand("the same, by set_*", "handler1", Set, 2.0),
        by_hand("the same, by fields recorded late", "handler1", Late, 3.5),
        exporter("the exporter, with a dialect", "turn_dialect", TracingSession, HandWritten, 1.0),
        exporter("the exporter, with two dialects", "turn_dialects", TracingSession, HandWritten, 1.5),
        exporter("the same, with metadata and tags", "turn_dialects", FullValue, HandWrittenFull, 2.1),
        of_baseline("outside any session", "outside", 0.01),
        of_baseline("a single span outside any session", "outside1", 0.02),
        of_baseline("a disabled span or event", "disabled", 0.001),
        more("more with coverage", "turn", 0.012),
        more("the same, outside any session", "outside", 0.025),
        Promise {
            what: "a further poll, of one without this crate",
            cost: (("async10", TracingSession), Some(("async0", TracingSession))),
            of: (("async10", Baseline), Some(("async0", Baseline))),
            at_most: 1.02,
        },
        Promise {
            what: "a span in a chain of 64, of one in a chain of 4",
            cost: (("chain64", TracingSession), None),
            of: (("chain4", TracingSession), None),
            at_most: 1.03,
        },
        Promise {
            what: "headers with a session, of baggage by hand",
            cost: (("inject", SessionPropagator), None),
            of: (("inject", BaggagePropagator), None),
            at_most: 1.3,
        },
    ]
};

impl Promise {
    /// Prints a row of the table at the end. False if the promise is broken; true too where a shape wasn't run.
    fn print_kept(&self, counts: &Counts) -> bool {
        // Without the feature, the ids of this case are left out.
        let is_missing = self.cost.0.1 == Case::Hashed && !cfg!(feature = "hash");
        let both = counts.less(self.cost).zip(counts.less(self.of));
        let Some((cost, of)) = both.filter(|_| !is_missing) else {
            return true;
        };
        let share = cost / of;
        let is_kept = share <= self.at_most;
        let mark = if is_kept { "" } else { "  BROKEN" };
        println!(
            "| {:<46} | {cost:>12.0} | {share:>5.3} | {:>7} |{mark}",
            self.what, self.at_most
        );
        is_kept
    }
}

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

    fn less(&self, (count, less): Difference) -> Option<f64> {
        let get = |(shape, case)| self.get(shape, case);
        Some(get(count)? - less.map_or(Some(0.0), get)?)
    }

    /// Each case, and what it adds to the baseline as a share of what fields written by hand add.
    fn print(&self, shape: &Shape) {
        for case in shape.cases {
            let over = |case| self.less(((shape.name, case), Some((shape.name, Case::Baseline))));
            let Some((count, more)) = self.get(shape.name, *case).zip(over(*case)) else {
                continue;
            };
            let share = over(Case::HandWritten).map_or(String::new(), |by_hand| {
                format!(" of_hand_written={:.3}", more / by_hand)
            });
            println!(
                "shape={} case={} instructions={count:.0} more={more:.0}{share}",
                shape.name,
                case.name(),
            );
        }
    }
}
