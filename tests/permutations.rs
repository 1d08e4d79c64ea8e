//! Every way to set a session or user, combined with every circumstance.
//!
//! Each combination is a small program. The test runs it with the crate and compares the result with the answer
//! of an oracle, which models the rules and knows nothing of the crate: the exported spans, their parents, the
//! exact values of `session.id`, `user.id` and `id` on each of them, and what `current_session` returns in between.
//!
//! The oracle applies these rules:
//!
//! - Each value is inherited separately, from the nearest enclosing scope that has it.
//! - A contextual span inherits from the current scope of its thread: the innermost of the entered spans and attached
//!   `Session` values. A span with `parent: &span` inherits from that span, and a span with `parent: None` from
//!   nothing.
//! - A span with `set_parent` inherits from the scope in the given `Context`. A remote span alone has none.
//! - A field that is recorded later reaches the span and all descendants that have not ended.
//! - A `set_*` function reaches the span and all descendants that start afterwards. A span starts when it is first
//!   entered, so a child that was created before, and is entered afterwards, inherits the new value. An opener, and a
//!   span whose parent is filtered out, inherit the values that apply when they are created.
//! - An opener that is filtered out still sets the session of the spans inside it. Its explicit children are roots
//!   for OpenTelemetry, and inherit from it. `set_*` works on it. A filtered-out span that opens nothing changes
//!   nothing for contextual spans, its explicit children inherit what it inherits, and `set_*` fails on it.
//! - Explicit beats implicit. A span that is an opener only by the built-in name `session` is *implicit*. It replaces
//!   an implicit id, and an id from headers. Inside any other id it is ignored, except if it sets the same one: then
//!   its fields are plain attributes, and it is a span that opens nothing. The parent that the span is created with
//!   decides, not one that `set_parent` gives it later.
//! - A span that has started with an id of its own fields keeps that id.
//! - The author's own attribute wins on its span, for its key, and reaches no other span. If an opener has started
//!   with the id of its fields, an attribute that the author sets afterwards is exported after it. Under the name of a
//!   field, an attribute counts as the field if it has the field's value, or if the field is recorded
//!   after it and before the start.

#![allow(unreachable_pub, reason = "the modules are parts of one test")]

mod combination;
mod oracle;
mod runner;

use crate::support::App;
use combination::{Combination, Filter, combinations};
use oracle::{Listing, expected};
use runner::{HIDDEN, actual};
use tracing_session::SessionLayer;
use tracing_subscriber::filter::filter_fn;

fn app(filter: Filter) -> App {
    let layer = SessionLayer::new().with_user_span("user");
    match filter {
        Filter::None => App::with_layer(|otel| layer.wrap(otel)),
        Filter::Open => App::with_layer(|otel| {
            let all = filter_fn(|_| true);
            layer.wrap_filtered(otel, all)
        }),
        Filter::HidesOpener | Filter::HidesBoth => App::with_layer(|otel| {
            let not_hidden = filter_fn(|metadata| metadata.target() != HIDDEN);
            layer.wrap_filtered(otel, not_hidden)
        }),
    }
}

/// Asserts that every combination with this filter exports what the oracle expects, and the numbers of
/// combinations with a meaning, combinations without one, and spans.
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
    // An ignored opener is reported once per callsite, a kept id once per callsite in the process: to another test,
    // perhaps.
    let ignored = "does not replace it by default";
    let expected = [ignored, "started with another"];
    let said = app.diagnostics.messages();
    assert!(said.iter().any(|said| said.contains(ignored)), "{said:?}");
    let is_expected = |said: &String| expected.iter().any(|part| said.contains(part));
    let others: Vec<_> = said.iter().filter(|said| !is_expected(said)).collect();
    assert_eq!(others, Vec::<&String>::new());
}

#[test]
fn every_combination_without_a_filter() {
    all_obey_the_rules(Filter::None, 17_334, 3_078, 447_795);
}

#[test]
fn every_combination_with_a_filter_that_hides_nothing() {
    all_obey_the_rules(Filter::Open, 17_334, 3_078, 447_795);
}

#[test]
fn every_combination_with_the_opener_hidden() {
    all_obey_the_rules(Filter::HidesOpener, 3_510, 16_902, 87_165);
}

#[test]
fn every_combination_with_the_opener_and_the_current_span_hidden() {
    all_obey_the_rules(Filter::HidesBoth, 1_170, 19_242, 28_665);
}
