//! Allocations per span, and the bytes asked for, in the cases of `instructions`: the same figures
//! on every run. `cargo bench --bench allocations`; a shape's name as argument counts that shape
//! alone.
//!
//! It fails if a span below a session's allocates more often than it would without this crate:
//! `wide1000` is the session's span with a thousand below it, `session1` that span alone.
#![allow(unsafe_code, reason = "an allocator that counts")]

mod workload;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::process::ExitCode;
use tracing::dispatcher::with_default;
use workload::{Case, SHAPES, Shape};

struct Counts;

/// What this thread has allocated. A block that grows counts again, with its new size.
#[derive(Clone, Copy)]
struct Allocated {
    times: i64,
    bytes: i64,
}

thread_local! {
    static ALLOCATED: Cell<Allocated> = const { Cell::new(Allocated { times: 0, bytes: 0 }) };
}

// SAFETY: the system's allocator does the work. What is not here, growing among it, is by default
// done with what is.
unsafe impl GlobalAlloc for Counts {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // A thread that ends can allocate after its locals are gone.
        let _ = ALLOCATED.try_with(|allocated| {
            let Allocated { times, bytes } = allocated.get();
            allocated.set(Allocated {
                times: times + 1,
                bytes: bytes + layout.size() as i64,
            });
        });
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTS: Counts = Counts;

/// Tables and buffers that are kept have their size by then. So many rounds besides, because each
/// of our 64 tables is made for the first session that falls to it.
const SPANS_TO_WARM_UP: u64 = 10_000;
const ROUNDS_TO_WARM_UP: u64 = 100;
const ROUNDS: u64 = 100;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let wanted: Vec<&String> = args.iter().filter(|arg| !arg.starts_with("--")).collect();
    for shape in SHAPES {
        if wanted.is_empty() || wanted.iter().any(|name| *name == shape.name) {
            compare_cases(shape);
        }
    }
    match descendants() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn compare_cases(shape: &Shape) {
    let baseline = count(shape, Case::Baseline);
    let per_span = |count: i64| count as f64 / (ROUNDS * shape.spans) as f64;
    for case in shape.cases {
        let Allocated { times, bytes } = count(shape, *case);
        println!(
            "shape={} case={} allocations_per_span={:.2} bytes_per_span={:.0} over_baseline_allocations={:.2} over_baseline_bytes={:.0}",
            shape.name,
            case.name(),
            per_span(times),
            per_span(bytes),
            per_span(times - baseline.times),
            per_span(bytes - baseline.bytes),
        );
    }
}

/// What the spans below a session's span cost.
fn descendants() -> Result<(), String> {
    let shape = |name| {
        let shape = SHAPES.iter().find(|known| known.name == name);
        shape.ok_or_else(|| format!("no such shape: {name}"))
    };
    let (many, none) = (shape("wide1000")?, shape("session1")?);
    let descendants = ROUNDS * (many.spans - none.spans);
    let of = |case| {
        let (many, none) = (count(many, case), count(none, case));
        (many.times - none.times, many.bytes - none.bytes)
    };
    let (times, bytes) = of(Case::Baseline);
    let mut promise = Ok(());
    for case in [Case::TracingSession, Case::SessionValue] {
        let (ours, our_bytes) = of(case);
        let per_descendant = |count: i64| count as f64 / descendants as f64;
        println!(
            "descendants case={} allocations_per_descendant={:.3} over_baseline_allocations={:.3} over_baseline_bytes={:.1}",
            case.name(),
            per_descendant(ours),
            per_descendant(ours - times),
            per_descendant(our_bytes - bytes),
        );
        // A random span id that looks like a counted one costs an allocation.
        if per_descendant(ours - times) > 0.001 {
            promise = Err(format!("{}: a descendant allocates", case.name()));
        }
    }
    promise
}

/// What so many rounds allocate.
fn count(shape: &Shape, case: Case) -> Allocated {
    with_default(&workload::subscriber(shape, case), || {
        let warm_up = SPANS_TO_WARM_UP.div_ceil(shape.spans);
        for _ in 0..warm_up.max(ROUNDS_TO_WARM_UP) {
            shape.run(case);
        }
        let before = ALLOCATED.get();
        for _ in 0..ROUNDS {
            shape.run(case);
        }
        let after = ALLOCATED.get();
        Allocated {
            times: after.times - before.times,
            bytes: after.bytes - before.bytes,
        }
    })
}
