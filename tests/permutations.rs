//! Every way to say a session or user, combined with every circumstance in which it may be said.
//!
//! Each combination is a small program. What the library makes of it is compared with what an
//! oracle says that has to come of it: which spans are exported, under which parents, with which
//! session and which user, and what `current_session` answers in between.
//!
//! The oracle goes by these rules:
//!
//! - Each value is inherited on its own, from the nearest enclosing scope that has it.
//! - A contextual span is in what is in force on its thread: the innermost of the spans entered and
//!   the `Session` values attached there. A span with `parent: &span` is in that span, whatever is
//!   in force, and one with `parent: None` in nothing.
//! - A span with `set_parent` is in what was in force in the `Context` given, which is nothing if
//!   that is just a remote span.
//! - A field recorded late reaches the span, and all below it that has not ended.
//! - What is set on a span reaches the span, and what is started below it from then on. A span is
//!   started when it is entered first, so one that was made before and waits is reached. Only where
//!   its parent is hidden it is settled when the span is made.
//! - A hidden span that says something is in force where it is entered like any other, and its
//!   explicit children, which are roots for OpenTelemetry, are in it. Values can be set on it. One
//!   that says nothing is not there for contextual spans; its explicit children are in what it is
//!   in; nothing can be set on it.

#![allow(unreachable_pub, reason = "the modules are parts of one test")]

mod support;

#[path = "permutations/combination.rs"]
mod combination;
#[path = "permutations/oracle.rs"]
mod oracle;
#[path = "permutations/runner.rs"]
mod runner;

use combination::{Combination, Filter, combinations};
use oracle::{Listing, expected};
use runner::{HIDDEN, actual};
use support::App;
use tracing_session::SessionLayer;
use tracing_subscriber::filter::filter_fn;

fn app(filter: Filter) -> App {
    match filter {
        Filter::None => App::new(),
        Filter::Open => App::with_layer(|otel| {
            let all = filter_fn(|_| true);
            SessionLayer::new().with_filter(all).around(otel)
        }),
        Filter::HidesOpener | Filter::HidesBoth => App::with_layer(|otel| {
            let not_hidden = filter_fn(|metadata| metadata.target() != HIDDEN);
            SessionLayer::new().with_filter(not_hidden).around(otel)
        }),
    }
}

/// Every combination with this filter exports what the rules say. There are so many that mean
/// something, so many that do not, and so many spans.
#[track_caller]
fn all_obey_the_rules(filter: Filter, run: usize, meaningless: usize, spans: usize) {
    let app = app(filter);
    let (combinations, others): (Vec<_>, Vec<_>) = combinations()
        .filter(|combination| combination.filter == filter)
        .partition(Combination::is_meaningful);
    let mut exported = 0;
    let mut failures = Vec::new();
    for combination in &combinations {
        let program = combination.program();
        let (expected, actual) = (expected(&program), actual(&app, &program));
        exported += actual.spans.len();
        if expected != actual {
            let program = Listing(&program);
            failures.push(format!(
                "{combination:?}\n{program}\nexpected:\n{expected}\nexported:\n{actual}\n"
            ));
        }
        app.exporter.reset();
    }
    assert!(
        failures.is_empty(),
        "{} combinations fail, among them:\n\n{}",
        failures.len(),
        failures.iter().take(3).cloned().collect::<String>()
    );
    assert_eq!((combinations.len(), others.len()), (run, meaningless));
    assert_eq!(exported, spans);
    // What is set over an id that a span has started with is told once for each place in the code.
    let others = app.diagnostics.said().into_iter();
    let others = others.filter(|said| !said.contains("has started with another"));
    assert_eq!(others.collect::<Vec<_>>(), Vec::<String>::new());
}

#[test]
fn every_combination_without_a_filter() {
    all_obey_the_rules(Filter::None, 8_640, 1_728, 188_640);
}

#[test]
fn every_combination_with_a_filter_that_hides_nothing() {
    all_obey_the_rules(Filter::Open, 8_640, 1_728, 188_640);
}

#[test]
fn every_combination_with_the_opener_hidden() {
    all_obey_the_rules(Filter::HidesOpener, 1_368, 9_000, 28_500);
}

#[test]
fn every_combination_with_the_opener_and_the_current_span_hidden() {
    all_obey_the_rules(Filter::HidesBoth, 456, 9_912, 9_348);
}
