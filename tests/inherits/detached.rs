//! Detached work: it runs in no session and no span.

use crate::inherits::dropped::forever;
use crate::inherits::session_of;
use crate::support::{App, remote, session, values};
use futures_util::{FutureExt, StreamExt, stream};
use hyper::rt::Executor;
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::{CurrentSpanExecutor, TokioExecutor};
use opentelemetry::baggage::BaggageExt;
use opentelemetry::trace::{SpanId, TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Context, KeyValue};
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::{Poll, Waker};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{OnceCell, mpsc, oneshot};
use tracing::{Instrument, Span, info, info_span};
use tracing_session::current::detached;
use tracing_session::{
    InSession, Session, SessionLayer, current_session, current_session_id, session, set_session_id,
};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::prelude::*;

/// Makes spans in each way, and asserts that nothing of the place outside applies.
fn assert_is_outside(app: &App, name: &'static str) {
    assert_eq!(current_session(), None);
    assert!(Span::current().is_none(), "{name}: {:?}", Span::current());
    assert!(!Context::current().has_active_span());
    assert!(Context::current().baggage().is_empty());
    info_span!("tracing", name).in_scope(|| info_span!("child").in_scope(|| {}));
    let tracer = app.provider.tracer("library");
    tracer.in_span(name, |_| {});
    for span in app.spans() {
        assert_eq!(session_of(&span), [""; 0], "{name}");
    }
    let roots = app.spans();
    let roots = roots
        .iter()
        .filter(|span| span.parent_span_id == SpanId::INVALID);
    assert_eq!(roots.count(), 2, "{}", app.tree());
    app.exporter.reset();
}

/// Calls `f` in a session, in spans and in baggage.
fn in_a_request<T>(f: impl FnOnce() -> T) -> T {
    session!("chat-42").in_scope(|| {
        let member = KeyValue::new("tenant", "acme");
        let _baggage = Context::current().with_baggage([member]).attach();
        session("chat-43").in_scope(|| info_span!("handler").in_scope(f))
    })
}

#[test]
fn detached_closures_futures_and_streams_run_in_no_session_and_no_span() {
    let app = App::new();
    in_a_request(|| {
        detached(|| assert_is_outside(&app, "closure"));
        let future = async { assert_is_outside(&app, "future") }.detached();
        future.now_or_never().unwrap();
        let streamed = stream::iter([()]).map(|()| assert_is_outside(&app, "stream"));
        streamed.detached().count().now_or_never().unwrap();
        // Dropped without having been polled, too.
        struct Dropped<'a>(&'a App);
        impl Drop for Dropped<'_> {
            fn drop(&mut self) {
                assert_is_outside(self.0, "destructor");
            }
        }
        let dropped = Dropped(&app);
        let future = async move {
            let _dropped = &dropped;
            forever().await;
        };
        drop(future.detached());
    });
}

#[test]
fn everything_is_current_again_afterwards() {
    let app = App::new();
    in_a_request(|| {
        let handler = Span::current();
        detached(|| detached(|| {}));
        let panics = || detached(|| info_span!("broken").in_scope(|| panic!("inside")));
        assert!(catch_unwind(AssertUnwindSafe(panics)).is_err());
        assert_eq!(Span::current().id(), handler.id());
        assert_eq!(current_session_id().as_deref(), Some("chat-43"));
        assert!(!Context::current().baggage().is_empty());
        set_session_id("chat-44").unwrap();
        info_span!("child").in_scope(|| {});
        info!("an event of the handler");
    });
    assert!(Span::current().is_none());
    assert_eq!(session_of(&app.span("child")), ["chat-44"]);
    let handler = app.span("handler");
    assert_eq!(
        app.span("child").parent_span_id,
        handler.span_context.span_id()
    );
    assert_eq!(handler.events.len(), 1);
}

#[test]
fn between_polls_the_outer_session_and_span_are_current() {
    let app = App::new();
    let mut polls = 0;
    let worker = poll_fn(|_| {
        assert_is_outside(&app, "worker");
        polls += 1;
        match polls {
            3 => Poll::Ready(()),
            _ => Poll::Pending,
        }
    });
    let mut worker = pin!(worker.detached());
    for (poll, is_ready) in [("chat-1", false), ("chat-2", false), ("chat-3", true)] {
        session!(poll).in_scope(|| {
            let mut cx = std::task::Context::from_waker(Waker::noop());
            assert_eq!(worker.as_mut().poll(&mut cx).is_ready(), is_ready);
            assert_eq!(current_session_id().as_deref(), Some(poll));
        });
        app.exporter.reset();
    }
}

#[test]
fn tasks_that_detached_work_spawns_in_the_current_span_are_detached_too() {
    let app = App::new();
    let work = async {
        tokio::spawn(async { info_span!("spawned").in_scope(|| {}) }.in_current_span())
            .await
            .unwrap();
    };
    let request = async {
        tokio::spawn(work.detached().in_current_span())
            .await
            .unwrap()
    };
    let request = request
        .instrument(info_span!("request"))
        .in_session(session("chat-42"));
    app.runtime()
        .block_on(async { tokio::spawn(request).await.unwrap() });
    let spawned = app.span("spawned");
    assert_eq!(session_of(&spawned), [""; 0]);
    assert_eq!(spawned.parent_span_id, SpanId::INVALID);
    assert_eq!(session_of(&app.span("request")), ["chat-42"]);
}

#[test]
fn spans_and_sessions_inside_apply_inside() {
    let app = App::new();
    let work = async {
        assert_eq!(current_session_id().as_deref(), Some("job-7"));
        info_span!("job").in_scope(|| {});
    };
    in_a_request(|| {
        let job = async { work.instrument(info_span!("worker")).await };
        job.in_session(session("job-7"))
            .detached()
            .now_or_never()
            .unwrap();
    });
    assert_eq!(session_of(&app.span("job")), ["job-7"]);
    assert_eq!(session_of(&app.span("worker")), ["job-7"]);
    assert_eq!(app.span("worker").parent_span_id, SpanId::INVALID);
}

#[test]
fn an_explicit_parent_is_a_parent() {
    let app = App::new();
    session!("chat-42").in_scope(|| {
        let here = Span::current();
        detached(|| info_span!(parent: &here, "explicit").in_scope(|| {}));
    });
    assert_eq!(session_of(&app.span("explicit")), ["chat-42"]);
}

#[test]
fn spans_exited_in_detached_work_and_entered_outside_stay_in_order() {
    let app = App::new();
    let outer = session!("chat-42").entered();
    // A guard that moves into the closure, and one that moves out.
    let moves_in = info_span!("moves in").entered();
    let moves_out = detached(|| {
        drop(moves_in);
        info_span!("moves out").entered()
    });
    drop(moves_out);
    info_span!("child").in_scope(|| {});
    drop(outer);
    assert_eq!(session_of(&app.span("child")), ["chat-42"]);
    assert_eq!(session_of(&app.span("moves out")), [""; 0]);
}

#[test]
fn detached_works_with_filters_beside_other_layers_and_without_opentelemetry() {
    let app = App::with_layer(|otel| SessionLayer::new().wrap_filtered(otel, LevelFilter::INFO));
    in_a_request(|| detached(|| assert_is_outside(&app, "filtered")));

    let logs = tracing_subscriber::registry()
        .with(SessionLayer::new())
        .set_default();
    session!("chat-42").in_scope(|| {
        detached(|| assert_eq!((current_session(), Span::current().is_none()), (None, true)));
        assert_eq!(current_session_id().as_deref(), Some("chat-42"));
    });
    drop(logs);
}

#[test]
fn detached_work_has_no_context_from_headers() {
    let app = App::new();
    let _request = remote().attach();
    detached(|| assert_is_outside(&app, "request"));
}

/// The executor of a connection pool, which calls it in the request that opens a connection. Each poll of a connection has a span.
#[derive(Clone)]
struct Connections;

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Connections {
    fn execute(&self, connection: F) {
        let mut connection = Box::pin(connection);
        let connection =
            poll_fn(move |cx| info_span!("connection").in_scope(|| connection.as_mut().poll(cx)));
        let executor = CurrentSpanExecutor::new(TokioExecutor::new());
        detached(|| executor.execute(connection));
    }
}

/// What the first request starts, and all later ones use.
struct Shared {
    jobs: mpsc::Sender<(Session, oneshot::Sender<()>)>,
    keys: mpsc::Sender<oneshot::Sender<()>>,
    pool: Client<HttpConnector, String>,
}

impl Shared {
    /// Starts a worker, a batch loader, a timer and a connection pool, as libraries do: in the current span.
    async fn start() -> Self {
        let (jobs, mut queue) = mpsc::channel::<(Session, oneshot::Sender<()>)>(64);
        let worker = async move {
            while let Some((session, done)) = queue.recv().await {
                info_span!("housekeeping").in_scope(|| {});
                let job = async { info_span!("job", of = session.id()).in_scope(|| {}) };
                job.in_session(&session).await;
                done.send(()).unwrap();
            }
        };
        let (keys, mut wanted) = mpsc::channel::<oneshot::Sender<()>>(64);
        let loader = async move {
            let mut batch = Vec::new();
            while wanted.recv_many(&mut batch, 16).await > 0 {
                info_span!("load").in_scope(|| {});
                batch.drain(..).for_each(|done| done.send(()).unwrap());
            }
        };
        tokio::spawn(worker.in_current_span());
        tokio::spawn(loader.in_current_span());
        Self::arm_timer();
        let pool = Client::builder(Connections).build_http();
        Self { jobs, keys, pool }
    }

    fn arm_timer() {
        let turn = async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            info_span!("tick").in_scope(|| {});
            Self::arm_timer();
        };
        tokio::spawn(turn.in_current_span());
    }
}

#[test]
fn later_requests_are_not_in_the_session_of_the_first() {
    const SESSIONS: usize = 1_000;
    const REQUESTS: usize = 10_000;
    static SHARED: OnceCell<Shared> = OnceCell::const_new();
    let app = App::new();
    let runtime = app.runtime();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let uri = format!("http://{}", listener.local_addr().unwrap());
    runtime.spawn(axum::serve(listener, axum::Router::new()).into_future());
    let request = |number: usize| {
        let own = session(&format!("chat-{}", number % SESSIONS));
        let job = own.clone();
        let uri: hyper::Uri = uri.parse().unwrap();
        let work = async move {
            let shared = SHARED.get_or_init(|| Shared::start().detached()).await;
            let (done, is_done) = oneshot::channel();
            shared.jobs.send((job.clone(), done)).await.unwrap();
            let (loaded, is_loaded) = oneshot::channel();
            shared.keys.send(loaded).await.unwrap();
            is_loaded.await.unwrap();
            is_done.await.unwrap();
            shared.pool.get(uri).await.unwrap();
            info_span!("answer", of = job.id()).in_scope(|| {});
        };
        let span = move || info_span!("request", of = current_session_id());
        async move { work.instrument(span()).await }.in_session(own)
    };
    runtime.block_on(async {
        request(0).await;
        for start in (1..REQUESTS).step_by(100) {
            let end = REQUESTS.min(start + 100);
            let requests: Vec<_> = (start..end).map(|it| tokio::spawn(request(it))).collect();
            for request in requests {
                request.await.unwrap();
            }
        }
    });
    drop(runtime);
    let spans = app.spans();
    let count = |name: &str| spans.iter().filter(|span| span.name == name).count();
    for name in ["request", "job", "answer", "housekeeping"] {
        assert_eq!(count(name), REQUESTS, "{name}");
    }
    assert!(count("load") > 100 && count("tick") > 10);
    assert!(count("connection") > REQUESTS, "{}", count("connection"));
    for span in &spans {
        assert_eq!(session_of(span), values(span, "of"), "{}", span.name);
        let is_root = span.name != "answer";
        assert_eq!(
            span.parent_span_id == SpanId::INVALID,
            is_root,
            "{}",
            span.name
        );
    }
}

/// A guard that moves into detached work ends its span there.
#[test]
fn spans_that_are_exited_inside_are_not_entered_again() {
    let app = App::new();
    let of_alice = session!("chat-alice");
    let entered = of_alice.clone().entered();
    detached(move || drop(entered));
    let later = async { current_session_id() }.in_current_span();
    assert_eq!(later.now_or_never().unwrap(), None);

    // Entered inside too, which is another matter.
    let entered = of_alice.clone().entered();
    detached(|| of_alice.in_scope(|| assert!(!Span::current().is_none())));
    assert_eq!(Span::current().id(), of_alice.id());
    drop(entered);

    let guard = of_alice.clone().entered();
    let holds_it = async move {
        let _guard = guard;
        forever().await;
    };
    drop(holds_it.detached());
    assert!(Span::current().is_none());

    let logs = tracing_subscriber::registry().with(SessionLayer::new());
    for dispatch in [app.dispatch.clone(), logs.into()] {
        tracing::dispatcher::with_default(&dispatch, || {
            let outer = info_span!("outer").entered();
            let inner = session!("chat-alice").entered();
            detached(move || drop(inner));
            assert_eq!(Span::current().id(), outer.id());
            set_session_id("chat-42").unwrap();
        });
    }
}
