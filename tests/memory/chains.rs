//! Work that starts its next run from inside itself: the next scope is opened in the `Context` of the one
//! before, which is closed by then. Whatever opens the scopes, such a chain takes no more memory or time
//! than its last link, and dropping it takes no deep stack.

use crate::allocator::LIVE;
use crate::support::{App, session};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use opentelemetry::Context;
use opentelemetry::context::FutureExt as _;
use std::cell::OnceCell;
use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tracing::field::Empty;
use tracing::{Instrument, Span, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_session::{
    Conversation, InSession, Session, current_session, propagation::WithPropagated,
    propagator_from_env, session, session::Part, set_session_id, set_user_id, user,
};

/// Opens a scope, and calls its argument inside.
type Way = fn(&mut dyn FnMut());

fn within(span: Span, work: &mut dyn FnMut()) {
    span.in_scope(work);
}

/// Every way to open a scope.
const WAYS: [(&str, Way); 14] = [
    ("Session value", |work| session("chat-42").in_scope(work)),
    ("user value", |work| {
        let user = Session::default().with_user("u-7").unwrap();
        user.in_scope(work);
    }),
    ("value without the user", |work| {
        let metadata = session("chat-42").with_metadata("plan", "pro").unwrap();
        metadata.without(Part::User).in_scope(work);
    }),
    ("in_session", |work| {
        let done = async { work() }.in_session(session("chat-42"));
        done.now_or_never().unwrap();
    }),
    ("session!", |work| within(session!("chat-42"), work)),
    ("session! with a Session", |work| {
        let session = session("chat-42").with_tags(["beta"]).unwrap();
        within(session!(session), work);
    }),
    ("user!", |work| within(user!("u-7"), work)),
    ("named span", |work| {
        within(info_span!("session", id = "chat-42"), work);
    }),
    ("field, and a user that may come", |work| {
        within(
            info_span!("work", session.id = "chat-42", user.id = Empty),
            work,
        );
    }),
    ("user recorded later", |work| {
        let span = info_span!("work", user.id = Empty, metadata.step = Empty, tags = Empty);
        span.in_scope(|| {
            span.record("user.id", "u-7");
            span.record("metadata.step", 3);
            work();
        });
    }),
    ("set_session_id", |work| {
        info_span!("work", user.id = Empty).in_scope(|| {
            set_session_id("chat-42").unwrap();
            set_user_id("u-7").unwrap();
            work();
        });
    }),
    ("Conversation", |work| {
        let mut conversation = Conversation::new(session("chat-42"));
        let turn = conversation.turn("turn");
        within(turn.span(), work);
        turn.finish();
    }),
    ("headers", |work| {
        let headers = HashMap::from([("baggage".to_owned(), "session.id=chat-42".to_owned())]);
        let done = async { work() }.with_propagated(&headers);
        done.now_or_never().unwrap();
    }),
    ("set_parent", |work| {
        let span = info_span!("work", session.id = "chat-42", user.id = Empty);
        span.set_parent(Context::current()).unwrap();
        within(span, work);
    }),
];

/// The `Context` inside of a scope that is opened in `cx`, and has ended.
fn link(cx: &Context, way: Way) -> Context {
    let _attached = cx.clone().attach();
    let mut inside = None;
    way(&mut || {
        info_span!("step").in_scope(|| drop(current_session()));
        inside = Some(Context::current());
    });
    inside.unwrap()
}

const PART: usize = 100;

/// How many links a chain has: `CHAIN_LINKS`, which CI sets to 30,000.
fn links() -> usize {
    let links = std::env::var("CHAIN_LINKS");
    links.map_or(4_000, |links| links.parse().unwrap())
}

/// How long this thread has run: unlike the time of a clock, it doesn't count other threads and processes.
fn running_time() -> Duration {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let nanos = stat.and_then(|it| it.split(' ').next()?.parse().ok());
    nanos.map_or_else(|| START.elapsed(), Duration::from_nanos)
}

/// Makes a chain of scopes opened in turns in these ways, and asserts that it stays as it was after its first
/// links.
fn chain(app: &App, name: &str, ways: &[Way]) {
    let links = links();
    let ratio = || {
        let mut cx = Context::new();
        let (mut times, mut live) = (vec![running_time()], Vec::new());
        for part in 0..links / PART {
            for at in 0..PART {
                cx = link(&cx, ways[(part * PART + at) % ways.len()]);
            }
            times.push(running_time());
            app.exporter.reset();
            live.push(LIVE.get());
        }
        let (first, last) = (live[1], live[live.len() - 1]);
        assert!(
            last - first < 20_000,
            "{name}: from {first} to {last} bytes"
        );
        // Of the first quarter and of the last one.
        let quarter = times.len() / 4;
        let time = |from: usize| (times[from + quarter] - times[from]).as_secs_f64();
        time(times.len() - 1 - quarter) / time(0)
    };
    // The machine is not ours alone: one time of three is enough.
    let ratios = [(); 3].map(|()| OnceCell::new());
    let is_flat = ratios.iter().any(|it| *it.get_or_init(ratio) < 2.0);
    assert!(is_flat, "{name}: {ratios:?} times as long at the end");
}

/// On a small stack: the drop of a chain that is kept would overflow it.
fn on_a_small_stack(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new().stack_size(512 * 1024);
    thread.spawn(test).unwrap().join().unwrap();
}

fn app() -> App {
    opentelemetry::global::set_text_map_propagator(propagator_from_env().unwrap());
    App::new()
}

#[test]
fn chains_of_scopes_opened_in_one_way_stay_as_they_are() {
    on_a_small_stack(|| {
        let app = app();
        for (name, way) in WAYS {
            chain(&app, name, &[way]);
        }
    });
}

/// Half of the pairs of ways. The order of a pair makes no difference, because the ways alternate.
fn pairs(half: usize) {
    on_a_small_stack(move || {
        let app = app();
        for (at, (one, first)) in WAYS.iter().enumerate() {
            for (other, second) in WAYS[at + 1..].iter().skip(half).step_by(2) {
                chain(&app, &format!("{one}, {other}"), &[*first, *second]);
            }
        }
    });
}

#[test]
fn chains_of_scopes_opened_in_two_ways_stay_as_they_are() {
    pairs(0);
}

#[test]
fn chains_of_scopes_opened_in_two_other_ways_stay_as_they_are() {
    pairs(1);
}

/// A tracing span stays open, and with it the scopes inside, as long as a child is open.
#[test]
fn conversations_with_turns_inside_turns_end() {
    on_a_small_stack(|| {
        let app = app();
        let mut contexts = vec![Context::new()];
        for _ in 0..4_000 {
            let _attached = contexts.pop().unwrap().attach();
            let mut conversation = Conversation::new(session("chat-42"));
            let turn = conversation.turn("turn");
            contexts.push(turn.span().context());
            turn.finish();
        }
        assert_eq!(app.spans().len(), 4_000);
    });
}

/// A job that starts its next run from inside itself. Its span is made when it runs, so that it has no parent in
/// `tracing`, whose own chains of parents overflow the stack.
fn job(left: usize, ended: oneshot::Sender<()>) -> BoxFuture<'static, ()> {
    let run = async move {
        match left {
            0 => ended.send(()).unwrap(),
            _ => drop(tokio::spawn(job(left - 1, ended).with_current_context())),
        }
    };
    let run = async move { run.instrument(info_span!("job", user.id = Empty)).await };
    Box::pin(run.in_session(session("chat-42")))
}

#[test]
fn jobs_that_start_their_next_run_end() {
    on_a_small_stack(|| {
        let app = app();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let (send, ended) = oneshot::channel();
        runtime.block_on(async {
            tokio::spawn(job(links() * 5, send));
            ended.await.unwrap();
        });
        drop(runtime);
        assert_eq!(app.spans().len(), links() * 5 + 1);
    });
}
