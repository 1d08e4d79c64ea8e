//! What runs while a thread ends: the destructors of thread locals, when OpenTelemetry's own is gone.
//!
//! A panic there ends the process, so each of these tests is one.

use crate::support::{self, App, Printed};
use opentelemetry::logs::{Logger, LoggerProvider};
use opentelemetry::{Context, InstrumentationScope};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::{LogProcessor, SdkLogRecord, SdkLoggerProvider};
use std::any::Any;
use std::cell::RefCell;
use std::collections::HashMap;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task;
use std::time::Duration;
use tracing::field::Empty;
use tracing::{dispatcher, info, info_span};
use tracing_session::fmt::with_session;
use tracing_session::{
    Conversation, InSession, Session, SessionLayer, current_session, mark_trace, new_session,
    processors::SessionLogProcessor,
    propagation::{inject_context, propagated_context},
    session, set_session_id, set_user_id, user,
};
use tracing_subscriber::Layer;
use tracing_subscriber::prelude::*;

/// What is dropped when a thread ends.
type Left = Box<dyn Any>;

thread_local! {
    static LEFT: RefCell<Option<Left>> = const { RefCell::new(None) };
}

/// Runs `before` on a thread of its own, and drops what it gives when OpenTelemetry's thread local is gone,
/// and those of `tracing` still are there: they are dropped in the reverse of the order in which they were made.
fn on_a_thread_that_ends(before: impl FnOnce() -> Left + Send + 'static) {
    let thread = move || {
        let lines = tracing_subscriber::fmt::layer().with_writer(std::io::sink);
        let first = || info_span!("first").in_scope(|| info!("an event"));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), first);
        LEFT.set(None);
        let left = before();
        LEFT.set(Some(left));
    };
    std::thread::spawn(thread).join().unwrap();
}

/// Does something when it is dropped.
fn act(act: impl FnOnce() + 'static) -> Left {
    struct Act<F: FnOnce()>(Option<F>);

    impl<F: FnOnce()> Drop for Act<F> {
        fn drop(&mut self) {
            if let Some(act) = self.0.take() {
                act();
            }
        }
    }

    Box::new(Act(Some(act)))
}

/// A thread local of the subscriber is found by its default for all threads alone, while the thread ends.
fn for_all_threads(layer: impl Layer<support::Base> + Send + Sync) {
    let base = tracing_subscriber::registry().with(support::Diagnostics::default());
    tracing::subscriber::set_global_default(base.with(layer)).unwrap();
}

/// All that can be done without a span.
fn values() {
    info!("an event");
    let session = Session::new("chat-42").unwrap();
    session.in_scope(|| info!("an event in a value"));
    drop(session.attach());
    let mut future = pin!(async {}.in_session(session));
    let _ready = future
        .as_mut()
        .poll(&mut task::Context::from_waker(task::Waker::noop()));
    let _session = current_session();
    let _refused = (set_session_id("chat-44"), set_user_id("u-7"));
    let _refused = (new_session(), mark_trace());
    let mut headers: HashMap<String, String> = HashMap::new();
    inject_context(&mut headers);
    propagated_context(&headers).in_scope(|| {});
    drop(propagated_context(&headers).attach());
}

fn spans() {
    info_span!("span").in_scope(|| info!("an event in a span"));
    session!("chat-42").in_scope(|| {
        user!("u-7").in_scope(|| info!("an event in a session"));
        info_span!(parent: None, "root").in_scope(|| {});
        let late = info_span!("late", session.id = Empty);
        late.record("session.id", "chat-43");
        info_span!(parent: &late, "explicit").in_scope(|| drop(set_user_id("u-8")));
    });
    let mut chat = Conversation::new(Session::generate());
    chat.turn("weather").finish();
}

fn values_and_spans() {
    values();
    spans();
    values();
}

#[test]
fn without_an_opentelemetry_layer_nothing_panics() {
    if support::alone(test_name!(), &[]) {
        let printed = Printed::default();
        let to = printed.clone();
        let lines = tracing_subscriber::fmt::layer()
            .with_writer(move || to.clone())
            .with_ansi(false)
            .map_event_format(with_session);
        for_all_threads(SessionLayer::new().and_then(lines));
        on_a_thread_that_ends(|| {
            values_and_spans();
            act(values_and_spans)
        });
        let printed = String::from_utf8(printed.0.lock().unwrap().clone()).unwrap();
        let lines = |text| printed.lines().filter(|line| line.contains(text)).count();
        // Before the thread has come to its end there is a session, and then there is none.
        assert_eq!(lines("an event in a value"), 4, "{printed}");
        assert_eq!(lines("an event in a value session.id=\"chat-42\""), 2);
        assert_eq!(lines("an event in a session session.id=\"chat-42\""), 1);
    }
}

#[test]
fn around_no_layer_nothing_panics() {
    if support::alone(test_name!(), &[]) {
        Session::generate().set_global_default().unwrap();
        for_all_threads(SessionLayer::new().wrap(None::<support::Otel>));
        on_a_thread_that_ends(|| {
            values_and_spans();
            act(values_and_spans)
        });
    }
}

/// Spans are another matter there: the OpenTelemetry layer panics, as it does without this crate.
#[test]
fn around_the_opentelemetry_layer_nothing_panics_but_that_layer() {
    if support::alone(test_name!(), &[]) {
        let app = App::new();
        dispatcher::set_global_default(app.dispatch.clone()).unwrap();
        on_a_thread_that_ends(|| {
            values_and_spans();
            act(values)
        });
        let started = || {
            let span = session!("started");
            span.in_scope(|| {});
            span
        };
        on_a_thread_that_ends(move || Box::new((session!("not started"), started())));
        on_a_thread_that_ends(|| Box::new(Session::new("attached").unwrap().attach()));
        for name in ["started", "not started"] {
            let spans = app.spans();
            let of_session = |span: &&_| support::values(span, "session.id") == [name];
            assert_eq!(spans.iter().filter(of_session).count(), 1, "{name}");
        }
    }
}

#[test]
fn what_is_left_behind_does_not_panic() {
    if support::alone(test_name!(), &[]) {
        for_all_threads(SessionLayer::new());
        on_a_thread_that_ends(|| Box::new(session!("left inside").entered()));
        on_a_thread_that_ends(|| Box::new(Session::new("attached").unwrap().attach()));
        on_a_thread_that_ends(|| {
            let span = session!("chat-42");
            span.in_scope(|| {});
            act(move || span.in_scope(|| info_span!("below").in_scope(|| {})))
        });
    }
}

#[test]
fn thread_that_comes_to_know_the_crate_only_at_its_end_does_not_panic() {
    if support::alone(test_name!(), &[]) {
        for_all_threads(SessionLayer::new());
        let session = || Session::new("chat-42").unwrap();
        // There still is a `Context` to be had.
        on_a_thread_that_ends(move || {
            act(move || {
                assert_eq!(session().in_scope(current_session), Some(session()));
                values_and_spans();
            })
        });
        // It is gone: OpenTelemetry panics, and that is caught.
        on_a_thread_that_ends(move || {
            drop(Context::current());
            act(move || {
                assert_eq!(session().in_scope(current_session), None);
                values_and_spans();
            })
        });
    }
}

#[test]
fn log_processor_does_not_panic() {
    /// Keeps a record: to make one, the SDK itself asks for the `Context`.
    #[derive(Clone, Debug, Default)]
    struct Keep(Arc<Mutex<Option<SdkLogRecord>>>);

    impl LogProcessor for Keep {
        fn emit(&self, record: &mut SdkLogRecord, _: &InstrumentationScope) {
            *self.0.lock().unwrap() = Some(record.clone());
        }

        fn force_flush(&self) -> OTelSdkResult {
            Ok(())
        }

        fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
            Ok(())
        }
    }

    if support::alone(test_name!(), &[]) {
        let kept = Keep::default();
        let builder = SdkLoggerProvider::builder().with_log_processor(kept.clone());
        let logs = builder.build();
        let logger = logs.logger("app");
        logger.emit(logger.create_log_record());
        let mut record = kept.0.lock().unwrap().take().unwrap();
        on_a_thread_that_ends(move || {
            drop(Session::generate().attach());
            let mut emit = move || {
                let scope = InstrumentationScope::default();
                SessionLogProcessor::new().emit(&mut record, &scope);
                assert_eq!(record.attributes_iter().count(), 0);
            };
            act(move || Session::generate().in_scope(&mut emit))
        });
    }
}
