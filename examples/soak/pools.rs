//! Work that moves: futures that are cancelled in another session, a pool of workers with its own session, spans that
//! are older than their session, and layers that are reloaded.

use crate::ask::{Dice, Way};
use crate::want::{Want, wanted};
use futures_util::future::pending;
use futures_util::poll;
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use std::sync::LazyLock;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::yield_now;
use tracing::{Instrument, info_span};
use tracing_session::{
    InSession, Session, SessionLayer, SessionTracerProvider, current_session, session,
};
use tracing_subscriber::prelude::*;
use tracing_subscriber::reload;

/// Creates a span when it is dropped.
struct CleansUp(Want);

impl Drop for CleansUp {
    fn drop(&mut self) {
        self.0.is_seen("in a destructor");
        drop(wanted!(self.0, info_span!("clean-up")));
    }
}

fn here() -> Session {
    current_session().unwrap_or_else(Session::nothing)
}

/// Another user, in whose session other work is dropped or done.
fn somebody_else() -> Session {
    let session = Session::new("somebody-else").and_then(|it| it.with_user("somebody-else"));
    session.unwrap_or_default()
}

/// A future that is dropped before it is ready, in the session of another user.
pub(crate) async fn cancelled(want: &Want, dice: &mut Dice) {
    let cleans_up = CleansUp(want.clone());
    let future = async move {
        let _cleans_up = cleans_up;
        pending::<()>().await;
    };
    let mut future = Box::pin(future.in_session(here()));
    for _ in 0..dice.roll(3) {
        assert!(poll!(future.as_mut()).is_pending());
        yield_now().await;
    }
    somebody_else().in_scope(|| drop(future));
}

/// A future whose span was created in no session.
pub(crate) async fn older_span(want: &Want) {
    let session = here();
    let turn = Session::nothing().in_scope(|| wanted!(want, info_span!("older")));
    let inside = want.clone();
    let future = async move {
        inside.is_seen("in an older span");
        drop(wanted!(inside, info_span!("below an older span")));
        yield_now().await;
        inside.is_seen("in an older span, later");
        drop(wanted!(inside, info_span!("below an older span")));
    };
    future.instrument(turn).in_session(session).await;
}

type Job = Box<dyn FnOnce() + Send>;

/// A thread in its own session, which does the work of all other sessions.
static WORKER: LazyLock<Sender<Job>> = LazyLock::new(|| {
    let (jobs, queue) = channel::<Job>();
    thread::spawn(move || {
        let _guard = somebody_else().attach();
        queue.into_iter().for_each(|job| job());
    });
    jobs
});

/// Work in a pool.
pub(crate) async fn pooled(want: &Want) {
    let (session, want) = (here(), want.clone());
    let (done, is_done) = oneshot::channel();
    let job = move || {
        session.in_scope(|| {
            want.is_seen("in a pool");
            wanted!(want, info_span!("pooled")).in_scope(|| drop(want.plain_span("library")));
        });
        let _gone = done.send(());
    };
    if WORKER.send(Box::new(job)).is_ok() {
        let _panicked = is_done.await;
    }
}

/// Reloads layers while spans are entered, again and again, as long as the process lives.
pub(crate) fn reload_for_ever() {
    let provider = SessionTracerProvider::new(SdkTracerProvider::builder().build());
    let tracer = || provider.tracer("reloaded");
    let wrapped = || {
        let otel = tracing_opentelemetry::layer().with_tracer(tracer());
        SessionLayer::new().wrap(otel)
    };
    let (exports, exporting) = reload::Layer::new(wrapped());
    let (logs, logging) = reload::Layer::new(SessionLayer::new());
    let exports = tracing::Dispatch::new(tracing_subscriber::registry().with(exports));
    let logs = tracing::Dispatch::new(tracing_subscriber::registry().with(logs));
    let nowhere = Want {
        way: Way::Call,
        ..Want::default()
    };
    let inside = nowhere.of(&Session::new("reloaded").unwrap_or_default());
    loop {
        tracing::dispatcher::with_default(&exports, || {
            session!("reloaded").in_scope(|| {
                inside.is_seen("before a reload");
                drop(exporting.reload(wrapped()));
            });
            nowhere.is_seen("after a reload");
        });
        tracing::dispatcher::with_default(&logs, || {
            session!("reloaded").in_scope(|| {
                inside.is_seen("before a reload, only logging");
                drop(logging.reload(SessionLayer::new()));
            });
            nowhere.is_seen("after a reload, only logging");
        });
        thread::sleep(Duration::from_millis(5));
    }
}
