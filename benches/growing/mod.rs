//! What `growth` counts, at a size: spans after a set-up, or a round with records and the same without.

use crate::workload::{SESSION, USER};
use futures_util::task::noop_waker_ref;
use opentelemetry::Context;
use std::future::{Future, pending};
use std::hint::black_box;
use std::task::Context as TaskContext;
use tracing::field::{Empty, display};
use tracing::{Instrument, Span, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_session::{InSession, Session, mark_trace, session, set_session_id, set_user_id, user};

/// A cost, and what it must not grow with.
pub(crate) struct Growth {
    pub(crate) what: &'static str,
    pub(crate) sizes: [usize; 2],
    /// How many times the cost at the first size.
    pub(crate) at_most: f64,
    /// How many spans or records a round has, by size.
    pub(crate) items: fn(usize) -> usize,
    pub(crate) of: Of,
}

pub(crate) enum Of {
    /// The spans of a round.
    Spans(fn(usize) -> Round),
    /// The same. How much they grow without this crate is left out.
    OverBaseline(fn(usize) -> Round),
    /// A round of this size, less one with `false`.
    Difference(fn(usize, bool)),
}

/// What is counted once a size is set up.
pub(crate) type Round = Box<dyn FnMut()>;

pub(crate) const GROWTHS: &[Growth] = &[
    // The longest first.
    spans("kept Contexts", [10, 1_000_000], contexts),
    // Of these, the registry of `tracing-subscriber` takes 1.5 %.
    spans("open session! spans", [10, 100_000], open),
    spans("open, ids recorded late", [10, 100_000], late),
    spans("open, set_* called", [10, 100_000], set),
    spans("open, set_parent called", [10, 100_000], moved),
    spans("open, adopted by futures", [10, 100_000], adopted),
    spans("levels above", [1, 10_000], levels),
    spans("levels above, entered", [1, 10_000], entered).over_baseline(),
    spans("openers above", [1, 1_000], openers),
    spans("jobs before in a chain", [1, 10_000], jobs),
    spans("ids recorded before", [1, 10_000], recorded_before),
    spans("set_* called before", [1, 10_000], set_before),
    spans("records of others before", [0, 10_000], others_before).at_most(NOTHING),
    spans_less("records of others meanwhile", others_meanwhile).at_most(NOTHING),
    // Openers inside one opener count their records together: each record makes all of them look again.
    spans_less("records of siblings meanwhile", siblings_meanwhile).at_most(1.1),
    records("mark_trace at each level", 400, marks),
    records("ids recorded late", 10_000, ids),
    records("set_* calls", 10_000, sets),
    records("tags recorded late", 15_000, tags),
    a_record("metadata beside a record", [0, 30], metadata),
    // The next span asks each of them: from 20 levels on, it costs more than ten times as much.
    a_record("openers below a record", [1, 10], outermost),
];

/// For spans.
const FLAT: f64 = 1.05;
/// For spans of other sessions.
const NOTHING: f64 = 1.01;
/// For records.
const TEN_TIMES: f64 = 10.0;

/// The number of spans of a round.
const SPANS: usize = 10;
/// The same where they take turns with records.
const TURNS: usize = 1_000;

const fn spans(what: &'static str, sizes: [usize; 2], set_up: fn(usize) -> Round) -> Growth {
    Growth {
        what,
        sizes,
        at_most: FLAT,
        items: |_| SPANS,
        of: Of::Spans(set_up),
    }
}

const fn spans_less(what: &'static str, round: fn(usize, bool)) -> Growth {
    Growth {
        items: |_| TURNS,
        ..a_record(what, [0, 10_000], round)
    }
}

const fn records(what: &'static str, most: usize, round: fn(usize, bool)) -> Growth {
    Growth {
        items: |size| size,
        ..a_record(what, [1, most], round)
    }
}

const fn a_record(what: &'static str, sizes: [usize; 2], round: fn(usize, bool)) -> Growth {
    Growth {
        what,
        sizes,
        at_most: TEN_TIMES,
        items: |_| 1,
        of: Of::Difference(round),
    }
}

impl Growth {
    const fn at_most(self, at_most: f64) -> Self {
        Self { at_most, ..self }
    }

    const fn over_baseline(self) -> Self {
        match self.of {
            Of::Spans(set_up) => Self {
                of: Of::OverBaseline(set_up),
                ..self
            },
            _ => self,
        }
    }
}

fn step() {
    info_span!("step", model = "local", step = 1_u64).in_scope(|| {});
}

/// A session span, and the others in it.
fn turn() {
    session!(black_box(SESSION), user.id = black_box(USER)).in_scope(|| {
        (1..SPANS).for_each(|_| step());
    });
}

/// Spans of a session, and two that set values of their own.
fn inside() {
    (3..SPANS).for_each(|_| step());
    user!(black_box(USER)).in_scope(|| {});
    opener().in_scope(step);
}

/// A span with fields for a session.
fn opener() -> Span {
    info_span!(
        "work",
        session.id = Empty,
        user.id = Empty,
        metadata.step = Empty,
        tags = Empty
    )
}

fn record(span: &Span, number: usize) {
    span.record("session.id", display(number))
        .record("user.id", display(number));
}

fn set_both(number: usize) {
    // Refused in the baseline.
    let _set = set_session_id(number);
    let _set = set_user_id(number);
}

fn named(number: usize) -> Session {
    let session = Session::new(number).and_then(|it| it.with_user(USER));
    session.unwrap_or_default()
}

fn levels(size: usize) -> Round {
    let mut span = session!(SESSION, user.id = USER);
    for _ in 1..size {
        // The child keeps it open.
        span = span.in_scope(|| info_span!("level"));
    }
    Box::new(move || span.in_scope(inside))
}

fn entered(size: usize) -> Round {
    let mut levels = vec![session!(SESSION, user.id = USER).entered()];
    levels.extend((1..size).map(|_| info_span!("level").entered()));
    Box::new(move || {
        let _levels = &levels;
        inside();
    })
}

/// Turns, while these live.
fn beside<T: 'static>(size: usize, live: impl FnMut(usize) -> T) -> Round {
    let live: Vec<T> = (0..size).map(live).collect();
    Box::new(move || {
        let _live = &live;
        turn();
    })
}

fn contexts(size: usize) -> Round {
    let session = named(1);
    beside(size, move |_| session.in_scope(Context::current))
}

fn open(size: usize) -> Round {
    beside(size, |number| {
        let span = session!(number, user.id = USER);
        span.in_scope(|| {});
        span
    })
}

fn late(size: usize) -> Round {
    beside(size, |number| {
        let span = opener();
        span.in_scope(|| record(&span, number));
        span
    })
}

fn set(size: usize) -> Round {
    beside(size, |number| {
        let span = info_span!("work");
        span.in_scope(|| set_both(number));
        span
    })
}

fn moved(size: usize) -> Round {
    beside(size, |number| {
        let span = session!(number, user.id = USER);
        let _moved = span.set_parent(Context::new());
        span.in_scope(|| {});
        span
    })
}

fn adopted(size: usize) -> Round {
    beside(size, |number| {
        let work = pending::<()>().instrument(info_span!("request"));
        let mut work = Box::pin(work.in_session(named(number)));
        let _pending = work
            .as_mut()
            .poll(&mut TaskContext::from_waker(noop_waker_ref()));
        work
    })
}

fn recorded_before(size: usize) -> Round {
    let span = opener();
    span.in_scope(|| (0..size).for_each(|number| record(&span, number)));
    Box::new(move || span.in_scope(inside))
}

fn set_before(size: usize) -> Round {
    let span = info_span!("work");
    span.in_scope(|| (0..size).for_each(set_both));
    Box::new(move || span.in_scope(inside))
}

/// Runs `work` in a job, in the session that the job before has attached for it. Its span has no parent in `tracing`, whose
/// chains of parents stay open.
fn job(cx: &Context, number: usize, work: impl FnOnce()) -> Context {
    let _attached = cx.clone().attach();
    let span = match number % 3 {
        0 => session!(number),
        1 => info_span!("work"),
        _ => opener(),
    };
    span.in_scope(|| {
        match number % 3 {
            0 => {}
            1 => set_both(number),
            _ => record(&span, number),
        }
        work();
        // The next job is spawned before this one ends.
        Session::new(number)
            .unwrap_or_default()
            .in_scope(Context::current)
    })
}

fn jobs(size: usize) -> Round {
    let mut cx = Context::new();
    for number in 0..size {
        cx = job(&cx, number, || {});
    }
    Box::new(move || {
        for number in 0..3 {
            job(&cx, number, || (0..2).for_each(|_| step()));
        }
        step();
    })
}

/// Openers inside one another, the outermost and the innermost.
fn stack(size: usize) -> [Span; 2] {
    let outermost = opener();
    let mut span = outermost.clone();
    for _ in 0..size {
        span = span.in_scope(|| info_span!("inner", user.id = Empty));
    }
    [outermost, span]
}

fn openers(size: usize) -> Round {
    let [outermost, innermost] = stack(size);
    innermost.in_scope(|| {});
    outermost.record("session.id", SESSION);
    Box::new(move || innermost.in_scope(inside))
}

fn outermost(size: usize, is_recorded: bool) {
    let [outermost, innermost] = stack(size);
    innermost.in_scope(|| {
        if is_recorded {
            outermost.record("session.id", SESSION);
        }
        step();
    });
}

fn others_before(size: usize) -> Round {
    let other = opener();
    other.in_scope(|| (0..size).for_each(|number| record(&other, number)));
    Box::new(move || {
        let _other = &other;
        turn();
    })
}

fn others_meanwhile(size: usize, with_spans: bool) {
    let [one, other] = [opener(), opener()];
    meanwhile(size, &one, &other, with_spans);
}

fn siblings_meanwhile(size: usize, with_spans: bool) {
    let [one, other] = opener().in_scope(|| [opener(), opener()]);
    meanwhile(size, &one, &other, with_spans);
}

/// Spans of one session, each after some of all the records of another one.
fn meanwhile(size: usize, one: &Span, other: &Span, with_spans: bool) {
    other.in_scope(|| {});
    one.in_scope(|| {
        record(one, 1);
        for _ in 0..TURNS {
            (0..size / TURNS).for_each(|number| record(other, number));
            if with_spans {
                step();
            }
        }
    });
}

fn marks(size: usize, is_marked: bool) {
    let mut levels = vec![session!(SESSION, user.id = USER).entered()];
    for _ in 0..size {
        levels.push(info_span!("level").entered());
        if is_marked {
            let _marked = mark_trace();
        }
    }
    // From the innermost, as scopes end.
    while levels.pop().is_some() {}
}

fn ids(size: usize, is_recorded: bool) {
    let span = opener();
    span.in_scope(|| {
        for number in 0..size {
            if is_recorded {
                record(&span, number);
            }
            step();
        }
    });
}

fn sets(size: usize, is_set: bool) {
    info_span!("work").in_scope(|| {
        for number in 0..size {
            if is_set {
                set_both(number);
            }
            step();
        }
    });
}

fn tags(size: usize, is_recorded: bool) {
    let span = opener();
    span.in_scope(|| {
        for number in 0..size {
            if is_recorded {
                span.record("tags", display(number));
            }
            step();
        }
    });
}

fn metadata(size: usize, is_recorded: bool) {
    let mut session = named(1);
    for number in 0..size {
        session = session
            .clone()
            .with_metadata(&number.to_string(), "value")
            .unwrap_or(session);
    }
    session.in_scope(|| {
        let span = opener();
        span.in_scope(|| {
            if is_recorded {
                span.record("metadata.step", 1);
            }
            step();
        });
    });
}
