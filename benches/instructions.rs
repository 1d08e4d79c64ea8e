//! Instructions per span, counted by callgrind: the same figure on a noisy machine as on a quiet
//! one. `cargo bench --bench instructions`, with valgrind installed; a shape's name as argument
//! runs that shape alone.
//!
//! Each case is a process of its own, run twice with different numbers of rounds: the difference
//! leaves out what starting and stopping cost.

mod workload;

use std::process::{Command, ExitCode};
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
    let mut wanted = args.iter().filter(|arg| !arg.starts_with("--")).peekable();
    let all = wanted.peek().is_none();
    let wanted: Vec<_> = wanted.collect();
    for shape in SHAPES {
        if all || wanted.iter().any(|name| **name == shape.name) {
            compare_cases(shape)?;
        }
    }
    Ok(())
}

/// Each case over the baseline, as a share of what fields written by hand add, and as a multiple of
/// what a span costs at the limit.
fn compare_cases(shape: &Shape) -> Result<(), String> {
    // As many at a time as there are processors.
    let counts: Vec<Result<f64, String>> = std::thread::scope(|scope| {
        let threads: Vec<_> = shape
            .cases
            .iter()
            .map(|case| scope.spawn(|| per_span(shape, *case)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err("panicked".into())))
            .collect()
    });
    let counts: Vec<f64> = counts.into_iter().collect::<Result<_, _>>()?;
    let of = |case: Case| {
        let at = shape.cases.iter().position(|known| *known == case)?;
        counts.get(at).copied()
    };
    let baseline = of(Case::Baseline).ok_or("no baseline")?;
    for (case, per_span) in shape.cases.iter().zip(&counts) {
        let over = per_span - baseline;
        let ratio = |ratio: Option<f64>| ratio.map_or("-".into(), |ratio| format!("{ratio:.3}"));
        println!(
            "shape={} case={} instructions_per_span={per_span:.0} over_baseline={over:.0} of_hand_written={} of_limit={}",
            shape.name,
            case.name(),
            ratio(of(Case::HandWritten).map(|by_hand| over / (by_hand - baseline))),
            ratio(of(Case::Limit).map(|limit| per_span / limit)),
        );
    }
    Ok(())
}

/// What a further span costs.
fn per_span(shape: &Shape, case: Case) -> Result<f64, String> {
    let few = 650_u64.div_ceil(shape.spans);
    let many = 5 * few;
    let further = count(shape, case, many)? - count(shape, case, few)?;
    Ok(further / ((many - few) * shape.spans) as f64)
}

fn count(shape: &Shape, case: Case, rounds: u64) -> Result<f64, String> {
    let this = std::env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(this)
        .args(["--run", shape.name, case.name(), &rounds.to_string()])
        .output()
        .map_err(|error| format!("valgrind: {error}"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    let collected = text
        .lines()
        .find_map(|line| line.split_once("Collected : "));
    let (_, collected) = collected.ok_or_else(|| format!("no count in:\n{text}"))?;
    collected
        .trim()
        .parse()
        .map_err(|error| format!("{collected}: {error}"))
}
