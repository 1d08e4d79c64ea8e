//! Random programs against a model.
//!
//! A seed makes a program of spans, sessions, futures and contexts on one or two threads. The test runs it with the
//! crate and compares with a model that knows only the rules: the values of `session.id`, `user.id` and one key of the
//! metadata on each exported span, the result of each `set_*` and `set_parent`, and what `current_session` returns in
//! between. Where a program differs, the test drops all operations that don't matter and prints the rest with its seed.
//!
//! `PROGRAMS=100000 cargo test --all-features --test main random_programs::` runs more programs for each set-up,
//! `SEED=17` begins with another one, `SHOW=10` prints more failures, and `WITH=Exact,Adopted` switches on groups of
//! operations that are not in `ENABLED`.
//!
//! Where the rules leave a value open, the model allows several. An operation whose whole effect is open, such as an
//! implicit opener in one of several sessions, is dropped from its program, and the rest is compared.

#![allow(unreachable_pub, reason = "the modules are parts of one test")]

mod book;
mod generate;
mod model;
mod program;
mod run;

use crate::support::App;
use book::completed;
use generate::{Choices, generate};
use model::Rules;
use opentelemetry::trace::{SpanId, TraceId, TracerProvider};
use opentelemetry_sdk::trace::IdGenerator;
use program::{Group, Listing, Name, Op, Step};
use run::{HIDDEN, LIBRARY, Outcome, World, run};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use tracing_session::SessionLayer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::reload;

/// The groups that are in every run. Each of the others finds differences.
const ENABLED: &[Group] = &[
    Group::Exact,
    Group::Futures,
    Group::Dropped,
    Group::Adopted,
    Group::Contexts,
    Group::Libraries,
    Group::Options,
    Group::Hidden,
    Group::Refused,
    Group::TwoApps,
    Group::Reload,
];

struct SetUp {
    make: fn() -> World,
    rules: Rules,
    threads: usize,
    hides: bool,
    groups: &'static [Group],
}

const RULES: Rules = Rules {
    exports: true,
    only_end: false,
    hidden_inherit: false,
    adopts: false,
    excludes_libraries: false,
    drops_in_session: false,
    set_applies: false,
    tracked_refuse: false,
    ambiguous_ids: false,
};

const SET_UP: SetUp = SetUp {
    make: || world(vec![App::new()]),
    rules: RULES,
    threads: 2,
    hides: false,
    groups: &[
        Group::Exact,
        Group::Futures,
        Group::Dropped,
        Group::Adopted,
        Group::Contexts,
        Group::Libraries,
        Group::Options,
    ],
};

fn world(apps: Vec<App>) -> World {
    World { apps, reload: None }
}

fn variable<T: std::str::FromStr>(name: &str, default: T) -> T {
    let text = std::env::var(name).ok();
    text.map_or(default, |it| it.parse().ok().expect(name))
}

/// The groups of a set-up that are switched on.
fn groups(set_up: &SetUp) -> Vec<Group> {
    let named = std::env::var("WITH").unwrap_or_default();
    let is_named = |group: &Group| named.split(',').any(|it| it == format!("{group:?}"));
    let groups = set_up.groups.iter().copied();
    groups
        .filter(|it| ENABLED.contains(it) || is_named(it))
        .collect()
}

/// What is wrong with the outcome of a program. An error is what to drop from the completed program, because the rules
/// leave its effect open.
fn differences(world: &World, rules: Rules, program: &[Step]) -> Result<Vec<String>, usize> {
    match catch_unwind(AssertUnwindSafe(|| run(world, program))) {
        Ok(outcome) => {
            let last = after_all(program, &outcome);
            match model::differences(rules, program, &outcome) {
                Err(_) if !last.is_empty() => Ok(last),
                found => Ok([found?, last].concat()),
            }
        }
        Err(_) => Ok(vec!["it panics".to_owned()]),
    }
}

/// The program without the operations whose effect the rules leave open, and its differences. None: it has too many.
fn decided(world: &World, rules: Rules, program: &[Step]) -> Option<(Vec<Step>, Vec<String>)> {
    let mut program = completed(program);
    for _ in 0..20 {
        match differences(world, rules, &program) {
            Ok(found) => return Some((program, found)),
            Err(open) => {
                // A completed program drops its futures.
                let removed = match program[open].op {
                    Op::DropFuture(future, _) => made(&program, future),
                    _ => open,
                };
                program.remove(removed);
                program = completed(&program);
            }
        }
    }
    None
}

/// The step that makes a future.
fn made(program: &[Step], future: Name) -> usize {
    let is_it = |it: &Step| matches!(it.op, Op::Future(name, ..) if name == future);
    program
        .iter()
        .position(is_it)
        .expect("it is made before it is dropped")
}

/// The last span of each thread is in no session and in no other trace.
fn after_all(program: &[Step], outcome: &Outcome) -> Vec<String> {
    let mut found = Vec::new();
    for (index, step) in program.iter().enumerate().skip(program.len() - 6) {
        let is_clean = match step.op {
            Op::Span(name, ..) => !outcome.children.contains(&name),
            Op::Read(_) => outcome.answers[&index] == run::Answer::Read(false, program::NONE),
            _ => true,
        };
        if !is_clean {
            found.push(format!("step {index}: something is left on the thread"));
        }
    }
    found
}

/// Drops operations as long as the program still differs.
fn shrunk(world: &World, rules: Rules, program: &[Step]) -> Vec<Step> {
    let mut program = program.to_vec();
    let mut size = program.len().div_ceil(2);
    while size > 0 {
        let mut at = 0;
        while at < program.len() {
            let mut less = program.clone();
            less.drain(at..(at + size).min(program.len()));
            match differences(world, rules, &completed(&less)) {
                Ok(found) if !found.is_empty() => program = less,
                _ => at += size,
            }
        }
        size /= 2;
    }
    program
}

fn all_obey_the_model(set_up: &SetUp) {
    let groups = groups(set_up);
    let has = |group| groups.contains(&group);
    let rules = Rules {
        adopts: has(Group::Adopted),
        hidden_inherit: has(Group::Hidden),
        drops_in_session: has(Group::Dropped),
        tracked_refuse: has(Group::Refused),
        set_applies: has(Group::Contexts),
        ..set_up.rules
    };
    let choices = Choices {
        groups: &groups,
        threads: set_up.threads,
        hides: set_up.hides,
        exports: rules.exports,
    };
    let mut world = (set_up.make)();
    let first = variable("SEED", 0_u64);
    let programs = variable("PROGRAMS", 2_000_u64);
    let (mut open, mut failures, mut failed) = (0, Vec::new(), 0);
    for seed in first..first + programs {
        let program = generate(seed, choices);
        let Some((program, found)) = decided(&world, rules, &program) else {
            open += 1;
            continue;
        };
        if found.is_empty() {
            continue;
        }
        failed += 1;
        if failures.len() >= variable("SHOW", 3) {
            continue;
        }
        world = (set_up.make)();
        let program = shrunk(&world, rules, &program);
        world = (set_up.make)();
        let program = completed(&program);
        let found = differences(&world, rules, &program).unwrap_or_default();
        let listing = Listing(&program);
        failures.push(format!("seed {seed}:\n{listing}{}\n\n", found.join("\n")));
    }
    assert!(
        failures.is_empty(),
        "{failed} of {programs} programs differ ({open} are open), among them:\n\n{}",
        failures.concat()
    );
    // A reload leaves all but the end open.
    let is_mostly_decided = open * 10 < programs;
    assert!(
        is_mostly_decided || programs < 100 || has(Group::Reload),
        "{open}"
    );
}

#[test]
fn programs_of_an_application() {
    all_obey_the_model(&SET_UP);
}

#[test]
fn programs_of_an_application_that_excludes_a_library() {
    all_obey_the_model(&SetUp {
        make: || {
            let app = App::with(|it| it.with_opener_filter(|span| span.target() != LIBRARY));
            world(vec![app])
        },
        rules: Rules {
            excludes_libraries: true,
            ..RULES
        },
        groups: &[Group::Libraries],
        ..SET_UP
    });
}

#[test]
fn programs_of_an_application_that_filters_spans_out() {
    all_obey_the_model(&SetUp {
        make: || {
            let shown = filter_fn(|metadata| metadata.target() != HIDDEN);
            let app = App::with_layer(|otel| SessionLayer::new().wrap_filtered(otel, shown));
            world(vec![app])
        },
        hides: true,
        groups: &[
            Group::Exact,
            Group::Futures,
            Group::Dropped,
            Group::Contexts,
            Group::Hidden,
            Group::Refused,
        ],
        ..SET_UP
    });
}

#[test]
fn programs_of_an_application_that_only_logs() {
    all_obey_the_model(&SetUp {
        make: || world(vec![App::with_layer(|_| SessionLayer::new())]),
        rules: Rules {
            exports: false,
            ..RULES
        },
        groups: &[
            Group::Exact,
            Group::Futures,
            Group::Dropped,
            Group::Hidden,
            Group::Options,
            Group::Refused,
        ],
        ..SET_UP
    });
}

/// Counts from 1.
#[derive(Debug, Default)]
struct Counting(AtomicU64);

impl IdGenerator for Counting {
    fn new_trace_id(&self) -> TraceId {
        TraceId::from(u128::from(self.0.fetch_add(1, Ordering::Relaxed) + 1))
    }

    fn new_span_id(&self) -> SpanId {
        SpanId::from(self.0.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

#[test]
fn programs_of_two_applications_with_equal_span_ids() {
    fn app() -> App {
        App::with_provider(
            |builder| builder.with_id_generator(Counting::default()),
            |otel| SessionLayer::new().wrap(otel),
        )
    }
    all_obey_the_model(&SetUp {
        make: || world(vec![app(), app()]),
        rules: Rules {
            ambiguous_ids: true,
            ..RULES
        },
        threads: 1,
        groups: &[Group::TwoApps],
        ..SET_UP
    });
}

#[test]
fn programs_of_an_application_that_reloads_its_layer() {
    all_obey_the_model(&SetUp {
        make: || {
            let mut handle = None;
            let app = App::with_layer(|otel| {
                let (layer, reload) = reload::Layer::new(SessionLayer::new().wrap(otel));
                handle = Some(reload);
                layer
            });
            let handle = handle.unwrap();
            let reload = move |app: &App| {
                let otel = tracing_opentelemetry::layer().with_tracer(app.provider.tracer("new"));
                handle.reload(SessionLayer::new().wrap(otel)).unwrap();
            };
            World {
                reload: Some(Box::new(reload)),
                ..world(vec![app])
            }
        },
        rules: Rules {
            only_end: true,
            ..RULES
        },
        groups: &[Group::Reload],
        ..SET_UP
    });
}
