//! Nearly all tests, in one executable: linking is most of what building a test takes. Each module answers a reader's
//! question, and `cargo test --all-features --test main opens::` runs the tests of one.
//!
//! The tests are threads of one process. One that changes the process (the default session, the global tracer provider,
//! variables), or waits for a diagnostic that is emitted once per process, begins with `support::alone`, which runs it
//! in a process of its own. A global propagator is set with `support::propagate`.
#![allow(unreachable_pub, reason = "the modules are parts of one test")]

#[macro_use]
mod support;

// What opens a scope, who inherits it, and which value a span exports.
mod concurrency;
mod coverage;
mod details;
mod inherits;
mod opens;
mod permutations;
mod random_programs;
mod root_turns;
mod values;

// What is exported and printed.
mod dialects;
mod exporter;
#[cfg(feature = "fmt")]
mod fmt;
#[cfg(all(feature = "fmt", feature = "logs"))]
mod logs;
mod openinference_spans;
#[cfg(feature = "otlp")]
mod otlp;
#[cfg(all(feature = "fmt", feature = "hash", feature = "logs"))]
mod privacy;
#[cfg(feature = "sampler")]
mod sampler;
#[cfg(feature = "sampler")]
mod simulation;

// Headers and conversations.
mod conversation;
mod propagation;
#[cfg(feature = "http")]
mod round_trip;
#[cfg(all(feature = "reqwest", feature = "tower"))]
mod tower;

// Mistakes, foreign code and hostile input.
#[cfg(all(feature = "fmt", feature = "logs", feature = "sampler"))]
mod deadlocks;
mod errors;
#[cfg(all(
    feature = "hash",
    feature = "http",
    feature = "otlp",
    feature = "sampler"
))]
mod hostile;
mod misuse;
#[cfg(all(feature = "fmt", feature = "sampler"))]
mod panics;
#[cfg(feature = "otlp")]
mod planted;
#[cfg(feature = "testing")]
mod testing;
#[cfg(all(feature = "fmt", feature = "logs"))]
mod thread_end;
#[cfg(all(
    feature = "fmt",
    feature = "hash",
    feature = "logs",
    feature = "otlp",
    feature = "sampler",
    feature = "tower"
))]
mod troubleshooting;

mod other_systems;
