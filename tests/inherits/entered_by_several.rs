//! A span that was created in no session, such as that of a connection, and several futures that enter it.

use crate::inherits::session_of;
use crate::support::{App, alone, session, values};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, Stream, StreamExt};
use opentelemetry_sdk::trace::SpanData;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::task::{Context, Poll};
use tracing::{Dispatch, Instrument, Span, dispatcher, info_span};
use tracing_session::{
    InSession, Session, SessionLayer, current_session, session, set_session_id, set_user_id,
};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::prelude::*;
use tracing_subscriber::reload;

/// Where the span is exported, where a filter hides it, and where people only log.
fn everywhere(test: impl Fn(Span)) {
    let apps = [
        App::new(),
        App::with_layer(|otel| {
            SessionLayer::new().wrap(otel.with_filter(filter_fn(|it| it.name() != "connection")))
        }),
    ];
    for app in &apps {
        app.anew(|_| {
            // From then on it is known whose tracer it is.
            info_span!("first").in_scope(|| {});
            test(info_span!("connection"));
        });
    }
    let only_logs = Dispatch::new(tracing_subscriber::registry().with(SessionLayer::new()));
    dispatcher::with_default(&only_logs, || test(info_span!("connection")));
}

fn here() -> [Option<String>; 2] {
    let session = current_session().unwrap_or_else(Session::nothing);
    [session.id(), session.user_id()].map(|id| id.map(str::to_owned))
}

fn is_here(id: &str, user: &str) {
    let expected = [id, user].map(|it| (!it.is_empty()).then(|| it.to_owned()));
    info_span!("below").in_scope(|| assert_eq!(here(), expected));
    assert_eq!(here(), expected);
}

fn run(future: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(future);
}

fn of(id: &str, user: &str) -> Session {
    session(id).with_user(user).unwrap()
}

fn ids(span: &SpanData) -> [String; 2] {
    ["session.id", "user.id"].map(|key| values(span, key).join(","))
}

#[test]
fn user_that_one_future_sets_reaches_no_other() {
    everywhere(|connection| {
        let first = async {
            set_user_id("alice").unwrap();
            is_here("a", "alice");
        };
        run(first
            .instrument(connection.clone())
            .in_session(session("a")));
        let next = async { is_here("b", "bob") };
        run(next
            .instrument(connection.clone())
            .in_session(of("b", "bob")));
    });
}

#[test]
fn session_that_one_future_sets_reaches_no_other() {
    everywhere(|connection| {
        let alice = Session::default().with_user("alice").unwrap();
        let first = async {
            set_session_id("a").unwrap();
            is_here("a", "alice");
        };
        run(first.instrument(connection.clone()).in_session(alice));
        let next = async { is_here("b", "bob") };
        run(next
            .instrument(connection.clone())
            .in_session(of("b", "bob")));
    });
}

#[test]
fn futures_that_take_turns_keep_their_own_values() {
    for outer in ["guest", ""] {
        everywhere(|connection| {
            let requests: FuturesUnordered<_> = [("a", "alice"), ("b", "bob"), ("c", "carol")]
                .into_iter()
                .map(|(id, user)| {
                    let request = async move {
                        set_user_id(user).unwrap();
                        for _ in 0..3 {
                            is_here(id, user);
                            tokio::task::yield_now().await;
                        }
                    };
                    let session = match outer {
                        "" => session(id),
                        guest => of(id, guest),
                    };
                    request.instrument(connection.clone()).in_session(session)
                })
                .collect();
            run(requests.collect());
        });
    }
}

#[test]
fn span_is_exported_with_no_user_that_a_second_future_sets() {
    let app = App::new();
    let connection = info_span!("connection");
    for (id, user) in [("a", "alice"), ("b", "bob")] {
        let request = async move { set_user_id(user).unwrap() };
        run(request
            .instrument(connection.clone())
            .in_session(session(id)));
    }
    drop(connection);
    assert_eq!(ids(&app.span("connection")), ["", ""]);
}

#[test]
fn values_set_in_a_stream_do_not_apply_in_its_clone() {
    /// Sets a user when it is polled first.
    #[derive(Clone)]
    struct Jobs {
        connection: Span,
        user: Option<&'static str>,
    }

    impl Stream for Jobs {
        type Item = [Option<String>; 2];

        fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
            let (connection, user) = (self.connection.clone(), self.user.take());
            Poll::Ready(Some(connection.in_scope(|| {
                if let Some(user) = user {
                    set_user_id(user).unwrap();
                }
                info_span!("below").in_scope(here)
            })))
        }
    }

    everywhere(|connection| {
        let user = Some("alice");
        let metadata = Session::default().with_metadata("m", 1).unwrap();
        let mut one = Jobs { connection, user }.in_session(metadata);
        let mut other = one.clone();
        let next = one.next().now_or_never().flatten();
        assert_eq!(next.unwrap()[1].as_deref(), Some("alice"));
        let next = async { other.next().await };
        let next = next.in_session(session("b")).now_or_never().flatten();
        assert_eq!(next.unwrap()[0].as_deref(), Some("b"));
    });
}

#[test]
fn user_that_is_set_outside_a_future_is_not_exported_with_its_session() {
    let app = App::new();
    let connection = info_span!("connection");
    let alice = of("a", "alice").with_metadata("mail", "alice@example.org");
    run(async {}
        .instrument(connection.clone())
        .in_session(alice.unwrap()));
    connection.in_scope(|| set_user_id("bob").unwrap());
    drop(connection);
    let span = app.span("connection");
    assert_eq!(ids(&span), ["", "bob"]);
    assert_eq!(values(&span, "metadata"), [""; 0]);
}

#[test]
fn second_user_of_a_session_does_not_change_the_session_id() {
    let app = App::new();
    let connection = info_span!("connection");
    for user in ["alice", "bob"] {
        let session = of("a", user).with_metadata("mail", user).unwrap();
        run(async {}.instrument(connection.clone()).in_session(session));
    }
    drop(connection);
    let span = app.span("connection");
    assert_eq!(ids(&span), ["a", ""]);
    assert_eq!(values(&span, "metadata"), [""; 0]);
}

/// However it is entered there.
#[test]
fn span_that_is_entered_in_another_session_is_exported_with_none() {
    let ways: [fn(&Span); 4] = [
        |connection| session("b").in_scope(|| connection.in_scope(|| {})),
        |connection| session!("b").in_scope(|| connection.in_scope(|| {})),
        |connection| {
            let below = async {}.instrument(connection.clone());
            let below = below.instrument(info_span!("phase"));
            run(below.in_session(session("b")));
        },
        |connection| {
            let below = async { async {}.instrument(connection.clone()).await };
            run(async { below.instrument(info_span!("phase")).await }.in_session(session("b")));
        },
    ];
    for enter in ways {
        let app = App::new();
        let connection = info_span!("connection");
        let first = async { info_span!("below").in_scope(|| connection.in_scope(|| {})) };
        run(first
            .instrument(connection.clone())
            .in_session(of("a", "alice")));
        enter(&connection);
        drop(connection);
        assert_eq!(ids(&app.span("connection")), ["", ""], "{}", app.tree());
    }
}

#[test]
fn explicit_child_inside_the_future_is_in_its_session() {
    everywhere(|connection| {
        let request = async {
            let connection = Span::current();
            info_span!("step").in_scope(|| {
                info_span!(parent: &connection, "explicit").in_scope(|| is_here("a", "alice"));
                let late = info_span!(parent: &connection, "late");
                late.in_scope(|| is_here("a", "alice"));
            });
        };
        run(request
            .instrument(connection.clone())
            .in_session(of("a", "alice")));
        info_span!(parent: &connection, "elsewhere").in_scope(|| is_here("", ""));
    });
}

#[test]
fn explicit_child_inside_the_future_is_a_child() {
    let app = App::new();
    let request = async {
        let turn = Span::current();
        info_span!("step").in_scope(|| {
            info_span!(parent: &turn, "explicit").in_scope(|| {});
            drop(session!(parent: &turn, "b", otel.name = "opener"));
        });
    };
    run(request
        .instrument(info_span!("turn"))
        .in_session(of("a", "alice")));
    let turn = app.span("turn").span_context.span_id();
    for name in ["explicit", "opener"] {
        assert_eq!(app.span(name).parent_span_id, turn, "{name}");
    }
    assert_eq!(ids(&app.span("explicit")), ["a", "alice"]);
    assert_eq!(session_of(&app.span("opener")), ["b"]);
}

fn poll_once(future: &mut Pin<Box<impl Future<Output = ()>>>) -> bool {
    future.now_or_never().is_none()
}

#[test]
fn user_that_is_set_outside_does_not_apply_in_futures() {
    everywhere(|connection| {
        let request = async {
            tokio::task::yield_now().await;
            is_here("a", "alice");
        };
        let request = request
            .instrument(connection.clone())
            .in_session(of("a", "alice"));
        let mut request = Box::pin(request);
        // Each time in another scope.
        assert!(session("x").in_scope(|| poll_once(&mut request)));
        connection.in_scope(|| {
            set_session_id("b").unwrap();
            set_user_id("bob").unwrap();
        });
        assert!(!session("x").in_scope(|| poll_once(&mut request)));
    });
}

#[test]
fn user_that_a_second_future_of_the_session_sets_is_not_exported() {
    type Sets = fn();
    let cases: [(Sets, Sets, [&str; 2]); 3] = [
        (|| {}, || set_user_id("bob").unwrap(), ["a", ""]),
        (
            || set_user_id("alice").unwrap(),
            || set_user_id("bob").unwrap(),
            ["a", ""],
        ),
        (|| {}, || set_session_id("b").unwrap(), ["", ""]),
    ];
    for (first, second, expected) in cases {
        let app = App::new();
        let connection = info_span!("connection");
        let work = async {
            first();
            tokio::task::yield_now().await;
            first();
        };
        let work = work.instrument(connection.clone()).in_session(session("a"));
        let mut work = Box::pin(work);
        assert!(poll_once(&mut work));
        run(async { second() }
            .instrument(connection.clone())
            .in_session(session("a")));
        assert!(!poll_once(&mut work));
        drop((work, connection));
        assert_eq!(ids(&app.span("connection")), expected);
    }
}

#[test]
fn future_that_is_polled_in_two_sessions_exports_neither() {
    let app = App::new();
    let work = async {
        tokio::task::yield_now().await;
        info_span!("below").in_scope(|| {});
    };
    let metadata = Session::default().with_metadata("m", 1).unwrap();
    let work = work
        .instrument(info_span!("connection"))
        .in_session(metadata);
    let mut work = Box::pin(work);
    assert!(of("a", "alice").in_scope(|| poll_once(&mut work)));
    assert!(!of("b", "bob").in_scope(|| poll_once(&mut work)));
    drop(work);
    assert_eq!(ids(&app.span("below")), ["b", "bob"]);
    assert_eq!(ids(&app.span("connection")), ["", ""]);
}

/// One thread enters the span while the other one is just entering it, and the span is starting.
#[test]
fn span_that_two_threads_enter_at_once_is_exported_with_neither() {
    /// Lets the first enter of a connection wait, when the span has started, until the second one is over.
    struct Waits(Arc<Barrier>, AtomicBool);

    impl<S: tracing::Subscriber> Layer<S> for Waits {
        fn on_enter(&self, _: &tracing::Id, _: tracing_subscriber::layer::Context<'_, S>) {
            if !self.1.swap(true, Ordering::SeqCst) {
                self.0.wait();
                self.0.wait();
            }
        }
    }

    let barrier = Arc::new(Barrier::new(2));
    let waits = Waits(barrier.clone(), AtomicBool::new(false));
    let app = App::with_layer(|otel| SessionLayer::new().wrap(otel.and_then(waits)));
    let connection = info_span!("connection");
    let enter = |id: &str| {
        let request = async {}
            .instrument(connection.clone())
            .in_session(session(id));
        run(request);
    };
    std::thread::scope(|scope| {
        scope.spawn(|| dispatcher::with_default(&app.dispatch, || enter("a")));
        barrier.wait();
        enter("b");
        barrier.wait();
    });
    drop(connection);
    assert_eq!(ids(&app.span("connection")), ["", ""]);
}

#[test]
fn spans_of_the_default_user_are_in_no_other_session() {
    if !alone(test_name!(), &[]) {
        return;
    }
    of("default", "u-7").set_global_default().unwrap();
    let app = App::new();
    let alice = Session::default().with_user("alice").unwrap();
    run(async { info_span!("below").in_scope(|| {}) }
        .instrument(info_span!("turn"))
        .in_session(session("a"))
        .in_session(alice));
    let never_polled = async {}.instrument(info_span!("dropped"));
    drop(never_polled.in_session(of("b", "bob")));
    for name in ["turn", "below"] {
        assert_eq!(ids(&app.span(name)), ["a", "alice"], "{name}");
    }
    assert_eq!(ids(&app.span("dropped")), ["b", "bob"]);
}

#[test]
fn explicit_child_of_an_adopted_span_moves_into_no_other_session() {
    let app = App::new();
    let request = async {
        let turn = Span::current();
        let explicit = info_span!(parent: &turn, "explicit");
        async {}
            .instrument(explicit)
            .in_session(of("b", "bob"))
            .await;
    };
    run(request
        .instrument(info_span!("turn"))
        .in_session(of("a", "alice")));
    assert_eq!(ids(&app.span("explicit")), ["a", "alice"]);
}

#[test]
fn explicit_child_behind_a_reloadable_layer_stays_in_its_trace() {
    let app = App::with_layer(|otel| SessionLayer::new().wrap(reload::Layer::new(otel).0));
    let request = async {
        let turn = Span::current();
        info_span!("step").in_scope(|| {
            info_span!(parent: &turn, "explicit").in_scope(|| {});
        });
    };
    run(request
        .instrument(info_span!("turn"))
        .in_session(session("a")));
    let trace = |name: &str| app.span(name).span_context.trace_id();
    assert_eq!(trace("explicit"), trace("turn"));
    assert_eq!(session_of(&app.span("explicit")), ["a"]);
}
