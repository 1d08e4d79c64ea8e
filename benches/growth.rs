//! Costs that must not grow: with depth, with what is alive meanwhile, with what was recorded or set before, and with a second
//! thread. `cargo bench --bench growth`, with valgrind installed; an argument selects the rows whose name contains it. It fails
//! where a cost grows more than allowed.
//!
//! The cost of a span or record is counted in instructions, by callgrind. Each size is a process of its own, in which the set-up
//! isn't counted, and cache misses aren't either. The cost on two threads is nanoseconds: see [`threads`].

mod callgrind;
mod growing;
#[allow(dead_code, reason = "not every shape is wanted")]
mod workload;

use growing::{GROWTHS, Growth, Of};
use std::hint::black_box;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;
use workload::{Case, SHAPES, Shape, threads::time_together};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args.as_slice() {
        ["--run", what, part, size] => run(what, part, size),
        // As criterion tells `cargo bench` from `cargo test`.
        _ if args.contains(&"--bench") && !args.contains(&"--test") => compare(&args),
        _ => test(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs everything once, small.
fn test() -> Result<(), String> {
    install(Case::TracingSession)?;
    for growth in GROWTHS {
        match growth.of {
            Of::Spans(set_up) | Of::OverBaseline(set_up) => set_up(10)(),
            Of::Difference(round) => round(10, true),
        }
    }
    for (_, name, case) in THREADS {
        time_together(shape(name)?, *case, 2, 1);
    }
    Ok(())
}

fn shape(name: &str) -> Result<&'static Shape, String> {
    let shape = SHAPES.iter().find(|shape| shape.name == name);
    shape.ok_or_else(|| format!("no shape {name}"))
}

fn install(case: Case) -> Result<(), String> {
    let subscriber = workload::subscriber(shape("tree13")?, case);
    tracing::dispatcher::set_global_default(subscriber).map_err(|error| error.to_string())
}

/// Rounds of spans.
const ROUNDS: usize = 100;

const WHOLE: &str = "whole";
const LESS: &str = "less";

/// What a process of its own does.
fn run(what: &str, part: &str, size: &str) -> Result<(), String> {
    let growth = GROWTHS.iter().find(|growth| growth.what == what);
    let growth = growth.ok_or("no such row")?;
    let size = size.parse().map_err(|error| format!("{error}"))?;
    let is_whole = part == WHOLE;
    install(match growth.of {
        Of::OverBaseline(_) if !is_whole => Case::Baseline,
        _ => Case::TracingSession,
    })?;
    match growth.of {
        Of::Spans(set_up) | Of::OverBaseline(set_up) => {
            let mut round = set_up(size);
            round();
            counted(|| (0..ROUNDS).for_each(|_| round()));
            // Stays alive: closing thousands of nested spans overflows the stack, with `tracing-subscriber` alone too.
            std::mem::forget(round);
        }
        Of::Difference(round) => {
            round(1, is_whole);
            counted(|| round(size, is_whole));
        }
    }
    Ok(())
}

/// callgrind counts this function, whatever it is called with.
#[inline(never)]
fn counted(work: impl FnOnce()) {
    work();
    // Not a tail call, which would end the count.
    black_box(());
}

/// A line of the table.
struct Row {
    what: &'static str,
    sizes: [usize; 2],
    costs: [f64; 2],
    ratio: f64,
    at_most: f64,
}

impl Growth {
    /// Instructions for each item.
    fn count(&self, part: &str, size: usize) -> Result<f64, String> {
        let args = [self.what, part, &size.to_string()];
        let count = callgrind::in_function("growth::counted", &args)?;
        let rounds = match self.of {
            Of::Difference(_) => 1,
            _ => ROUNDS,
        };
        Ok(count as f64 / (rounds * (self.items)(size)) as f64)
    }

    fn measure(&self) -> Result<Row, String> {
        let [small, large] = self.sizes;
        let count = |part| Ok::<_, String>([self.count(part, small)?, self.count(part, large)?]);
        let whole = count(WHOLE)?;
        let costs = match self.of {
            Of::Spans(_) => whole,
            Of::OverBaseline(_) => {
                let less = count(LESS)?;
                [whole[0], whole[1] - (less[1] - less[0])]
            }
            Of::Difference(_) => {
                let less = count(LESS)?;
                [whole[0] - less[0], whole[1] - less[1]]
            }
        };
        Ok(Row {
            what: self.what,
            sizes: self.sizes,
            costs,
            ratio: costs[1] / costs[0],
            at_most: self.at_most,
        })
    }
}

fn compare(args: &[&str]) -> Result<(), String> {
    let wanted: Vec<_> = args.iter().filter(|arg| !arg.starts_with("--")).collect();
    let is_wanted = |what: &str| wanted.is_empty() || wanted.iter().any(|it| what.contains(**it));
    let growths: Vec<_> = GROWTHS.iter().filter(|it| is_wanted(it.what)).collect();
    let next = AtomicUsize::new(0);
    let measure_some = || {
        let next = || growths.get(next.fetch_add(1, Ordering::Relaxed));
        std::iter::from_fn(next).map(|it| it.measure()).collect()
    };
    let rows: Vec<Result<Vec<Row>, String>> = thread::scope(|scope| {
        let threads = [(); 2].map(|()| scope.spawn(measure_some));
        threads
            .map(|it| it.join().unwrap_or_else(|_| Err("panicked".into())))
            .into()
    });
    let rows: Result<Vec<_>, _> = rows.into_iter().collect();
    let mut rows: Vec<Row> = rows?.into_iter().flatten().collect();
    rows.sort_by_key(|row| GROWTHS.iter().position(|it| it.what == row.what));
    for thread in THREADS.iter().filter(|(what, ..)| is_wanted(what)) {
        rows.extend(threads(thread)?);
    }
    println!(
        "{:<30} {:>13} {:>16} {:>7} {:>8}",
        "what grows", "sizes", "cost of each", "ratio", "at most"
    );
    for Row {
        what,
        sizes,
        costs,
        ratio,
        at_most,
    } in &rows
    {
        let sizes = format!("{} to {}", sizes[0], sizes[1]);
        let costs = format!("{:.0} to {:.0}", costs[0], costs[1]);
        println!("{what:<30} {sizes:>13} {costs:>16} {ratio:>7.3} {at_most:>8}");
    }
    let grown: Vec<_> = rows
        .iter()
        .filter(|row| row.ratio.is_nan() || row.ratio > row.at_most)
        .collect();
    match grown.as_slice() {
        [] => Ok(()),
        grown => {
            let grown: Vec<_> = grown.iter().map(|row| row.what).collect();
            Err(format!("grows: {}", grown.join("; ")))
        }
    }
}

/// What threads share state in: the name, and the shape and case that the other benchmarks know it by.
const THREADS: &[(&str, &str, Case)] = &[
    ("threads: session!", "handler2", Case::TracingSession),
    ("threads: fields recorded late", "handler2", Case::Late),
    ("threads: set_*", "handler2", Case::Set),
    ("threads: set_* and mark_trace", "handler2", Case::Marked),
    ("threads: in_session polls", "turn", Case::SessionValue),
    // The last: a process has it once and for all.
    ("threads: default session", "turn", Case::DefaultSession),
];

/// Of each kind, so many turns in which the threads have run at the same time.
const TURNS: usize = 50;
/// A busy machine may never run two threads at the same time. Then the row is left out.
const TRIES: usize = 2_000;
/// A turn takes a fraction of a millisecond, so that some turns pass undisturbed.
const SPANS_IN_A_TURN: u64 = 100;
/// How much worse than the baseline's the time of two threads may be, over that of one. Where two threads wait for each other all
/// the time, it is 2.
const BROKEN: f64 = 1.5;

/// Nanoseconds per span on one thread and on each of two. How the baseline slows down meanwhile is left out: cores share a cache.
/// Turns alternate, and of each kind the fastest counts, because noise only adds.
fn threads((what, name, case): &(&'static str, &str, Case)) -> Result<Option<Row>, String> {
    let shape = shape(name)?;
    let rounds = SPANS_IN_A_TURN.div_ceil(shape.spans);
    let kinds = [
        (Case::Baseline, 1),
        (Case::Baseline, 2),
        (*case, 1),
        (*case, 2),
    ];
    let mut times = kinds.map(|_| Vec::new());
    for _ in 0..TRIES {
        for (times, (case, threads)) in times.iter_mut().zip(kinds) {
            times.extend(time_together(shape, case, threads, rounds));
        }
        if times.iter().all(|it| it.len() >= TURNS) {
            break;
        }
    }
    if times.iter().any(|it| it.len() < TURNS) {
        println!("{what}: not measured, as this machine rarely runs two threads at the same time");
        return Ok(None);
    }
    let spans = (rounds * shape.spans) as f64;
    let fastest = |it: Vec<Duration>| it.into_iter().min().unwrap_or_default();
    let [base, base_of_two, one, two] = times.map(|it| fastest(it).as_nanos() as f64 / spans);
    Ok(Some(Row {
        what,
        sizes: [1, 2],
        costs: [one, two],
        ratio: (two / one) / (base_of_two / base),
        at_most: BROKEN,
    }))
}
