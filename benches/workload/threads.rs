//! Wall-clock time on several threads at once that share a subscriber.

use super::{Case, Shape, subscriber};
use std::hint::spin_loop;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tracing::dispatcher::with_default;

/// Before the clock starts: a new thread and a new subscriber allocate what they keep.
const SPANS_TO_WARM_UP: u64 = 200;

/// How long it takes until each of so many threads has made the spans so many times.
pub(crate) fn time(shape: &Shape, case: Case, threads: u32, rounds: u64) -> Duration {
    from_first_to_last(&times(shape, case, threads, rounds))
}

/// The same, if the threads have run at the same time. On a busy machine few do.
pub(crate) fn time_together(
    shape: &Shape,
    case: Case,
    threads: u32,
    rounds: u64,
) -> Option<Duration> {
    let times = times(shape, case, threads, rounds);
    let time = from_first_to_last(&times);
    let starts: Vec<_> = times.iter().map(|(start, _)| (*start, *start)).collect();
    (from_first_to_last(&starts) < time / 20).then_some(time)
}

fn from_first_to_last(times: &[(Instant, Instant)]) -> Duration {
    let start = times.iter().map(|(start, _)| *start).min();
    let end = times.iter().map(|(_, end)| *end).max();
    end.zip(start)
        .map_or(Duration::ZERO, |(end, start)| end - start)
}

/// When each thread starts and ends.
fn times(shape: &Shape, case: Case, threads: u32, rounds: u64) -> Vec<(Instant, Instant)> {
    // A new one each time: while more than one is alive, callsites ask all of them.
    let subscriber = subscriber(shape, case);
    let ready = AtomicU32::new(0);
    let make_spans = || {
        for _ in 0..SPANS_TO_WARM_UP.div_ceil(shape.spans) {
            shape.run(case);
        }
        // Spins: a thread that sleeps here may wake only when the other one has ended.
        ready.fetch_add(1, Ordering::AcqRel);
        while ready.load(Ordering::Acquire) < threads {
            spin_loop();
        }
        // Here and not where the threads are waited for: no core may be left to take the time there.
        let start = Instant::now();
        for _ in 0..rounds {
            shape.run(case);
        }
        (start, Instant::now())
    };
    thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|_| scope.spawn(|| with_default(&subscriber, make_spans)))
            .collect();
        running
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
            .collect()
    })
}
