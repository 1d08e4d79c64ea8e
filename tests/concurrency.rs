//! Many tasks at once, each in a session or with a user of its own, on few threads.
//!
//! The tasks take turns on the worker threads at every `.await`. They say their session in
//! different ways, below a few spans that are open all the time, and not all of them come to their
//! end: some panic inside a span, some are aborted or dropped while they wait in one. Nevertheless
//! every span carries what its own task said, and nothing is left behind on any thread.

use crate::support::{App, values};
use futures_util::future::{BoxFuture, FutureExt};
use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId};
use opentelemetry_sdk::trace::SpanData;
use std::collections::HashSet;
use std::fmt::Display;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::sync::Notify;
use tokio::task::{JoinSet, spawn_blocking, yield_now};
use tracing::field::Empty;
use tracing::{Instrument, Span, info_span, instrument};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_session::{
    InSession, Session, SessionLayer, current_session, current_session_id, session, set_session_id,
    set_user_id,
};
use tracing_subscriber::filter::filter_fn;

/// Of `App::runtime`.
const WORKERS: usize = 4;

/// One of the many tasks.
#[derive(Clone)]
struct Task {
    number: i64,
    end: End,
    in_the_middle: Arc<Notify>,
    watch: Arc<Watch>,
}

/// How a task ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Complete,
    Panicked,
    Aborted,
    Dropped,
}

/// What the tasks see by `current_session`.
#[derive(Default)]
struct Watch {
    looks: AtomicUsize,
    complaints: Mutex<Vec<String>>,
}

impl Watch {
    fn compare(&self, seen: Option<&str>, expected: Option<&str>, place: impl Display) {
        self.looks.fetch_add(1, Ordering::Relaxed);
        if seen != expected {
            let complaint = format!("{place}: {seen:?}, not {expected:?}");
            self.complaints.lock().unwrap().push(complaint);
        }
    }

    /// Asserts that the tasks have looked so many times, and what they saw was right.
    fn is_content_after(&self, looks: usize) {
        assert_eq!(*self.complaints.lock().unwrap(), Vec::<String>::new());
        assert_eq!(self.looks.load(Ordering::Relaxed), looks);
    }
}

impl Task {
    fn new(number: i64, watch: &Arc<Watch>) -> Self {
        let end = match number / WAYS % 8 {
            0 => End::Panicked,
            1 => End::Aborted,
            2 => End::Dropped,
            _ => End::Complete,
        };
        Self {
            number,
            end,
            in_the_middle: Arc::default(),
            watch: watch.clone(),
        }
    }

    fn session_id(&self) -> String {
        format!("chat-{}", self.number)
    }

    fn session(&self) -> Session {
        Session::new(self.session_id()).unwrap()
    }

    /// Lets other tasks run on this thread.
    async fn pause(&self) {
        match self.number % 3 {
            0 => tokio::time::sleep(Duration::from_millis(1)).await,
            _ => yield_now().await,
        }
    }

    /// Does not return where the task is to end early.
    async fn middle(&self) {
        match self.end {
            End::Complete => {}
            // Unlike `panic!`, it prints nothing.
            End::Panicked => resume_unwind(Box::new("on purpose")),
            End::Aborted | End::Dropped => {
                self.in_the_middle.notify_one();
                std::future::pending().await
            }
        }
    }

    fn sees(&self, expected: Option<&str>, place: &str) {
        let place = format_args!("task {} {place}", self.number);
        let seen = current_session_id();
        self.watch.compare(seen.as_deref(), expected, place);
    }

    fn sees_its_own(&self, place: &str) {
        self.sees(Some(&self.session_id()), place);
    }

    fn sees_none(&self, place: &str) {
        self.sees(None, place);
    }
}

/// The spans of a task, wherever its session was said.
async fn work(task: Task) {
    task.sees_its_own("at first");
    info_span!("step", task = task.number).in_scope(|| {
        drop(info_span!("step in step", task = task.number));
    });
    task.pause().await;
    task.sees_its_own("after a pause");
    call(task.clone()).await;
    task.sees_its_own("after a call");
    let span = info_span!("background", task = task.number);
    let in_background = async move {
        task.sees_its_own("in the background");
        task.pause().await;
        drop(info_span!("step in background", task = task.number));
    };
    tokio::spawn(in_background.instrument(span)).await.unwrap();
}

#[instrument(skip_all, fields(task = task.number))]
async fn call(task: Task) {
    task.pause().await;
    task.sees_its_own("in a call");
    let explicit = info_span!(parent: &Span::current(), "explicit", task = task.number);
    task.pause().await;
    task.middle().await;
    explicit.in_scope(|| task.sees_its_own("in an explicit child"));
    task.pause().await;
}

const WAYS: i64 = 10;

/// The task's work, in the session that it says, below a span that it shares with other tasks.
fn in_its_session(task: Task, shared: &Span) -> BoxFuture<'static, ()> {
    let (number, id) = (task.number, task.session_id());
    let inside = shared.clone();
    match number % WAYS {
        0 => {
            let span = session!(parent: shared, id, task = number);
            work(task).instrument(span).boxed()
        }
        1 => {
            let span = shared.in_scope(|| info_span!("session", id, task = number));
            work(task).instrument(span).boxed()
        }
        2 => {
            let span = info_span!(parent: shared, "late", session.id = Empty, task = number);
            recorded_late(task).instrument(span).boxed()
        }
        3 => {
            let span = info_span!(parent: shared, "handler", task = number);
            set_inside(task).instrument(span).boxed()
        }
        4 => {
            let session = task.session();
            work(task).in_session(session).instrument(inside).boxed()
        }
        5 => {
            let session = task.session();
            a_trace_of_its_own(task).in_session(session).boxed()
        }
        6 => {
            let span = session!(id, task = number);
            let context = Context::new().with_remote_span_context(remote());
            // An error where there is no OpenTelemetry layer.
            let _ = span.set_parent(context);
            work(task).instrument(span).boxed()
        }
        7 => {
            let span = session!(parent: shared, id, task = number);
            on_a_blocking_thread(task).instrument(span).boxed()
        }
        8 => by_attribute(task).instrument(inside).boxed(),
        _ => by_guards(task).instrument(inside).boxed(),
    }
}

async fn recorded_late(task: Task) {
    let before = info_span!("open before", task = task.number);
    before.in_scope(|| task.sees_none("before it is known"));
    task.pause().await;
    Span::current().record("session.id", task.session_id());
    drop(before);
    work(task).await;
}

async fn set_inside(task: Task) {
    task.sees_none("before it is set");
    task.pause().await;
    set_session_id(task.session_id()).unwrap();
    work(task).await;
}

async fn a_trace_of_its_own(task: Task) {
    let span = info_span!("turn", task = task.number);
    work(task).instrument(span).await;
}

async fn on_a_blocking_thread(task: Task) {
    let (there, span) = (task.clone(), Span::current());
    let run = move || {
        there.sees_none("on a blocking thread, before");
        span.in_scope(|| {
            there.sees_its_own("on a blocking thread");
            drop(info_span!("blocking", task = there.number));
        });
        there.sees_none("on a blocking thread, after");
    };
    spawn_blocking(run).await.unwrap();
    work(task).await;
}

#[instrument(skip_all, fields(session.id = task.session_id(), task = task.number))]
async fn by_attribute(task: Task) {
    work(task).await;
}

/// No guard is held across an `.await`.
async fn by_guards(task: Task) {
    let session = task.session();
    for _ in 0..2 {
        let guard = session.attach();
        drop(info_span!("guarded", task = task.number));
        drop(guard);
        task.sees_none("outside a guard");
        task.pause().await;
    }
    let span = session.in_scope(|| info_span!("begun", task = task.number));
    work(task).instrument(span).await;
}

fn remote() -> SpanContext {
    SpanContext::new(
        TraceId::from(7),
        SpanId::from(8),
        TraceFlags::SAMPLED,
        true,
        Default::default(),
    )
}

/// Runs a task until it has ended as it is to end.
async fn run(task: Task, future: BoxFuture<'static, ()>) {
    task.sees_none("before it begins");
    match task.end {
        End::Complete => tokio::spawn(future).await.unwrap(),
        End::Panicked => assert!(tokio::spawn(future).await.unwrap_err().is_panic()),
        End::Aborted => {
            let spawned = tokio::spawn(future);
            task.in_the_middle.notified().await;
            spawned.abort();
            assert!(spawned.await.unwrap_err().is_cancelled());
        }
        End::Dropped => tokio::select! {
            () = future => panic!("task {} went on", task.number),
            () = task.in_the_middle.notified() => {}
        },
    }
    task.sees_none("after it has ended");
}

/// The number of the task that a span belongs to.
fn task_of(span: &SpanData) -> Option<i64> {
    let numbers = values(span, "task");
    numbers.first().map(|number| number.parse().unwrap())
}

/// Asserts that there is no session on any worker, and no span to be the parent of others.
fn nothing_is_left_on_workers(runtime: &Runtime) {
    let probe = async || {
        drop(info_span!("probe"));
        let is_empty = current_session().is_none() && !Context::current().has_active_span();
        // Others have to take the probes that wait behind this one.
        std::thread::sleep(Duration::from_millis(1));
        (std::thread::current().id(), is_empty)
    };
    let mut workers = HashSet::new();
    // Which worker takes a task is not for us to choose.
    for _round in 0..1_000 {
        let probes: JoinSet<_> = runtime.block_on(async { (0..16).map(|_| probe()).collect() });
        for (worker, is_empty) in runtime.block_on(probes.join_all()) {
            assert!(is_empty);
            workers.insert(worker);
        }
        if workers.len() == WORKERS {
            return;
        }
    }
    panic!("only {} workers were seen", workers.len());
}

/// Asserts that each span carries the session and user that it should, once.
fn each_carries(
    spans: &[SpanData],
    expected: impl Fn(&SpanData) -> (Option<String>, Option<String>),
) {
    let is_wrong = |span: &&SpanData| {
        let (session, user) = expected(span);
        values(span, "session.id") != Vec::from_iter(session)
            || values(span, "user.id") != Vec::from_iter(user)
    };
    let wrong: Vec<_> = spans.iter().filter(is_wrong).collect();
    assert!(
        wrong.is_empty(),
        "{} of {} spans are wrong, among them:\n{:#?}",
        wrong.len(),
        spans.len(),
        wrong.iter().take(3).collect::<Vec<_>>()
    );
}

/// Has 10,000 tasks run, and gives the spans that they made, and those that they share.
fn many_tasks(app: &App) -> Vec<SpanData> {
    let runtime = app.runtime();
    let watch = Arc::default();
    let shared =
        ["listener", "scheduler", "queue"].map(|name| info_span!("shared", otel.name = name));
    // All spans that stand around a task are made before the first one is entered.
    let made: Vec<_> = (0..10_000)
        .map(|number| {
            let task = Task::new(number, &watch);
            let shared = &shared[number as usize % shared.len()];
            run(task.clone(), in_its_session(task, shared))
        })
        .collect();
    runtime.block_on(async {
        let tasks: JoinSet<_> = made.into_iter().collect();
        tasks.join_all().await;
    });
    nothing_is_left_on_workers(&runtime);
    drop(runtime);
    drop(shared);

    // Twice around each task, 7 times in all the ways to say a session, and 6 times in `work`, or 3
    // times where the task ends early.
    watch.is_content_after(10_000 * 2 + 1_000 * 7 + 6_250 * 6 + 3_750 * 3);
    assert_eq!(app.diagnostics.messages(), Vec::<String>::new());
    let mut spans = app.spans();
    each_carries(&spans, |span| {
        let session = task_of(span).map(|task| format!("chat-{task}"));
        (session, None)
    });
    spans.retain(|span| span.name != "probe");
    spans
}

/// Spans that `work` makes: 6, or 4 in the tasks that end early.
const OF_WORK: usize = 6_250 * 6 + 3_750 * 4;
/// Spans that tasks share.
const SHARED: usize = 3;

#[test]
fn each_of_many_tasks_stays_in_its_own_session() {
    let app = App::new();
    let spans = many_tasks(&app);
    // All the ways to say a session make 13 spans.
    assert_eq!(spans.len(), OF_WORK + 1_000 * 13 + SHARED);
    let tasks: HashSet<_> = spans.iter().filter_map(task_of).collect();
    assert_eq!(tasks.len(), 10_000);
}

#[test]
fn each_of_many_tasks_with_filtered_out_openers_stays_in_its_own_session() {
    let app = App::with_layer(|otel| {
        let says_none = filter_fn(|metadata| {
            metadata.name() != "session" && metadata.fields().field("session.id").is_none()
        });
        SessionLayer::new().wrap_filtered(otel, says_none)
    });
    let spans = many_tasks(&app);
    // Of 13 spans, 6 say the session.
    assert_eq!(spans.len(), OF_WORK + 1_000 * 7 + SHARED);
    let tasks: HashSet<_> = spans.iter().filter_map(task_of).collect();
    assert_eq!(tasks.len(), 10_000);
}

#[test]
fn each_of_many_tasks_without_an_opentelemetry_layer_stays_in_its_own_session() {
    let app = App::with_layer(|_| SessionLayer::new());
    assert_eq!(many_tasks(&app).len(), 0);
}

#[test]
fn users_set_under_one_span_never_mix() {
    let app = App::new();
    let runtime = app.runtime();
    let watch = Arc::default();
    let shared = info_span!("shared", session.id = "lobby");
    runtime.block_on(async {
        let mut tasks = JoinSet::new();
        for number in 0..1_000 {
            let task = Task::new(number, &watch);
            let handler = info_span!(parent: &shared, "handler", task = number);
            tasks.spawn(set_a_user(task).instrument(handler));
        }
        tasks.join_all().await;
    });
    nothing_is_left_on_workers(&runtime);
    drop(runtime);
    drop(shared);

    watch.is_content_after(1_000 * 7);
    assert_eq!(app.diagnostics.messages(), Vec::<String>::new());
    let mut spans = app.spans();
    each_carries(&spans, |span| {
        let lobby = Some("lobby".to_owned());
        match (span.name.as_ref(), task_of(span)) {
            ("probe", None) => (None, None),
            ("shared", None) | ("before", Some(_)) => (lobby, None),
            (_, task) => (lobby, Some(format!("user-{}", task.unwrap()))),
        }
    });
    spans.retain(|span| span.name != "probe");
    assert_eq!(spans.len(), 1_000 * 8 + 1);
}

async fn set_a_user(task: Task) {
    let user = format!("user-{}", task.number);
    let sees = |expected| {
        let session = current_session().unwrap_or_default();
        task.watch.compare(session.user_id(), expected, &user);
    };
    sees(None);
    drop(info_span!("before", task = task.number));
    task.pause().await;
    set_user_id(&user).unwrap();
    for _ in 0..3 {
        sees(Some(&user));
        let step = async {
            task.pause().await;
            sees(Some(&user));
            drop(info_span!("step in step", task = task.number));
        };
        step.instrument(info_span!("step", task = task.number))
            .await;
        task.pause().await;
    }
}
