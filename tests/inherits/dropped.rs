//! Destructors of futures, streams and bodies run in the session of the future (row 11).

use crate::inherits::session_of;
use crate::support::{App, alone, propagate, session, values};
use futures_util::{Stream, StreamExt};
use opentelemetry::trace::{SpanId, TraceId};
use std::collections::HashMap;
use std::future::{Future, pending};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use tracing::{Instrument, info_span};
use tracing_session::propagation::WithPropagated;
use tracing_session::{InSession, Session, SessionPropagator, current_session_id, user};

/// Creates a span when it is dropped.
pub(crate) struct CleansUp;

impl Drop for CleansUp {
    fn drop(&mut self) {
        info_span!("clean-up").in_scope(|| {});
    }
}

pub(crate) async fn forever() {
    let _cleans_up = CleansUp;
    pending::<()>().await;
}

fn poll_once(future: Pin<&mut impl Future>) {
    let poll = future.poll(&mut Context::from_waker(Waker::noop()));
    assert!(poll.is_pending());
}

/// Polls a future once in an outer user, drops it in another session, and returns the clean-up span.
fn dropped_in_another_session<F: Future>(
    app: &App,
    future: F,
    is_polled: bool,
) -> opentelemetry_sdk::trace::SpanData {
    let mut future = Box::pin(future);
    if is_polled {
        user!("u-1").in_scope(|| poll_once(future.as_mut()));
    }
    let other = session("other").with_user("u-2").unwrap();
    let other = other.with_metadata("of", "other").unwrap();
    other.in_scope(|| info_span!("request").in_scope(|| drop(future)));
    app.span("clean-up")
}

#[test]
fn destructors_of_a_future_run_in_its_session() {
    let app = App::new();
    let future = forever().in_session(session("chat-42"));
    let span = dropped_in_another_session(&app, future, true);
    assert_eq!(session_of(&span), ["chat-42"]);
    assert_eq!(values(&span, "user.id"), ["u-1"]);
    assert_eq!(values(&span, "metadata"), [""; 0]);
    // Nor is it a child of the request of the other session.
    assert_eq!(span.parent_span_id, SpanId::INVALID);
}

#[test]
fn destructors_of_a_future_that_was_never_polled_run_in_its_session() {
    let app = App::new();
    let cleans_up = CleansUp;
    let future = async move {
        let _cleans_up = &cleans_up;
        pending::<()>().await;
    };
    let future = future.in_session(session("chat-42"));
    let span = dropped_in_another_session(&app, future, false);
    assert_eq!(session_of(&span), ["chat-42"]);
    assert_eq!(values(&span, "user.id"), [""; 0]);
}

#[test]
fn destructors_of_a_future_that_was_never_polled_are_in_the_default_session_too() {
    if !alone(test_name!(), &[]) {
        return;
    }
    let default = session("default").with_user("u-7").unwrap();
    default.set_global_default().unwrap();
    let app = App::new();
    let cleans_up = CleansUp;
    let future = async move {
        let _cleans_up = &cleans_up;
        pending::<()>().await;
    };
    drop(future.in_session(session("chat-42")));
    let span = app.span("clean-up");
    assert_eq!(session_of(&span), ["chat-42"]);
    assert_eq!(values(&span, "user.id"), ["u-7"]);
}

#[test]
fn destructors_of_a_future_whose_span_was_created_in_another_session_run_in_the_futures_session() {
    for (place, other_user) in [("other", "u-2"), ("chat-42", "u-2")] {
        let app = App::new();
        let place = session(place).with_user(other_user).unwrap();
        let own = session("chat-42").with_user("u-1").unwrap();
        place.in_scope(|| {
            let cleans_up = CleansUp;
            let future = async move {
                let _cleans_up = &cleans_up;
                pending::<()>().await;
            };
            drop(future.instrument(info_span!("turn")).in_session(own));
        });
        for name in ["turn", "clean-up"] {
            let span = app.span(name);
            assert_eq!(session_of(&span), ["chat-42"]);
            assert_eq!(values(&span, "user.id"), ["u-1"]);
        }
    }
}

#[test]
fn destructors_of_a_future_with_a_user_keep_the_session_of_its_last_poll() {
    let app = App::new();
    let user = Session::default().with_user("u-7").unwrap();
    let mut future = Box::pin(forever().in_session(user));
    session("chat-42").in_scope(|| poll_once(future.as_mut()));
    session("other").in_scope(|| drop(future));
    let span = app.span("clean-up");
    assert_eq!(session_of(&span), ["chat-42"]);
    assert_eq!(values(&span, "user.id"), ["u-7"]);
}

#[test]
fn destructors_of_a_cancelled_future_run_in_its_session_and_trace() {
    let app = App::new();
    // Where no other session applies, the parent span stays.
    let request = info_span!("request");
    request.in_scope(|| {
        let mut future = Box::pin(forever().in_session(session("chat-42")));
        poll_once(future.as_mut());
        drop(future);
    });
    drop(request);
    let span = app.span("clean-up");
    assert_eq!(session_of(&span), ["chat-42"]);
    assert_eq!(
        span.parent_span_id,
        app.span("request").span_context.span_id()
    );
}

#[test]
fn destructors_of_a_future_that_is_ready_run_in_its_session() {
    /// Ready at once, and holds on to its guard.
    struct Ready(#[allow(dead_code)] CleansUp);

    impl Future for Ready {
        type Output = ();

        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
            Poll::Ready(())
        }
    }

    let app = App::new();
    let mut future = Box::pin(Ready(CleansUp).in_session(session("chat-42")));
    let poll = future
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()));
    assert!(poll.is_ready());
    session("other").in_scope(|| drop(future));
    assert_eq!(session_of(&app.span("clean-up")), ["chat-42"]);
}

#[test]
fn destructors_of_a_stream_run_in_its_session() {
    fn stream() -> impl Stream<Item = ()> {
        let cleans_up = CleansUp;
        futures_util::stream::iter([(), ()]).map(move |()| {
            let _cleans_up = &cleans_up;
        })
    }
    for polls in 0..4 {
        let app = App::new();
        let mut stream = Box::pin(stream().in_session(session("chat-42")));
        for _ in 0..polls {
            let _next = stream
                .as_mut()
                .poll_next(&mut Context::from_waker(Waker::noop()));
        }
        session("other").in_scope(|| drop(stream));
        assert_eq!(session_of(&app.span("clean-up")), ["chat-42"], "{polls}");
    }
}

#[test]
fn destructors_of_a_future_with_headers_run_in_their_context() {
    propagate(opentelemetry::propagation::TextMapCompositePropagator::new(
        vec![
            Box::new(opentelemetry_sdk::propagation::TraceContextPropagator::new()),
            Box::new(SessionPropagator::new()),
        ],
    ));
    let app = App::new();
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let headers = HashMap::from([
        (
            "traceparent".to_owned(),
            format!("00-{trace}-00f067aa0ba902b7-01"),
        ),
        ("baggage".to_owned(), "session.id=chat-42".to_owned()),
    ]);
    for is_polled in [true, false] {
        app.anew(|app| {
            let cleans_up = CleansUp;
            let future = async move {
                let _cleans_up = cleans_up;
                pending::<()>().await;
            };
            let future = future.with_propagated(&headers);
            let span = dropped_in_another_session(app, future, is_polled);
            assert_eq!(session_of(&span), ["chat-42"], "{is_polled}");
            assert_eq!(values(&span, "user.id"), [""; 0]);
            assert_eq!(
                span.span_context.trace_id(),
                TraceId::from_hex(trace).unwrap()
            );
        });
    }
}

#[test]
fn nested_futures_are_dropped_each_in_its_session() {
    let app = App::new();
    let inner = async {
        let _cleans_up = CleansUp;
        assert_eq!(current_session_id().as_deref(), Some("inner"));
        pending::<()>().await;
    };
    let outer = async {
        let inner = pin!(inner.in_session(session("inner")));
        inner.await;
    };
    let mut outer = Box::pin(outer.in_session(session("outer")));
    poll_once(outer.as_mut());
    session("other").in_scope(|| drop(outer));
    assert_eq!(session_of(&app.span("clean-up")), ["inner"]);
}

#[test]
fn current_session_is_restored_after_a_destructor() {
    let app = App::new();
    let mut future = Box::pin(forever().in_session(session("chat-42")));
    poll_once(future.as_mut());
    session("other").in_scope(|| {
        drop(future);
        assert_eq!(current_session_id().as_deref(), Some("other"));
        info_span!("after").in_scope(|| {});
    });
    assert_eq!(session_of(&app.span("after")), ["other"]);
}
