//! A span that was created in no session doesn't hide the session of the future that polls it.

use crate::inherits::dropped::CleansUp;
use crate::inherits::session_of;
use crate::support::{App, propagate, remote, session, values};
use opentelemetry::Context;
use opentelemetry::trace::{TraceContextExt, TracerProvider};
use opentelemetry_sdk::trace::SpanData;
use std::collections::HashMap;
use std::future::{Future, pending, poll_fn};
use std::pin::Pin;
use std::task::{Poll, Waker};
use tracing::field::Empty;
use tracing::{Dispatch, Instrument, Span, dispatcher, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_session::propagation::WithPropagated;
use tracing_session::{
    InSession, Session, SessionLayer, SessionPropagator, current_session, current_session_id,
    session, set_session_id, set_user_id, user,
};
use tracing_subscriber::prelude::*;

fn ids(span: &SpanData) -> [String; 2] {
    ["session.id", "user.id"].map(|key| values(span, key).join(","))
}

fn run<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(future)
}

/// Pending once.
async fn yields() {
    let mut is_first = true;
    poll_fn(move |cx| {
        cx.waker().wake_by_ref();
        match std::mem::take(&mut is_first) {
            true => Poll::Pending,
            false => Poll::Ready(()),
        }
    })
    .await;
}

async fn work() {
    info_span!("before").in_scope(|| {});
    yields().await;
    info_span!("model").in_scope(|| info_span!("below").in_scope(|| {}));
}

fn poll_once(future: Pin<&mut impl Future>) {
    let poll = future.poll(&mut std::task::Context::from_waker(Waker::noop()));
    assert!(poll.is_pending());
}

#[test]
fn session_around_an_instrumented_future_applies_in_its_span() {
    let app = App::new();
    run(work()
        .instrument(info_span!("turn"))
        .in_session(session("chat-42")));
    app.exports(
        "
        turn session.id=chat-42
          before session.id=chat-42
          model session.id=chat-42
            below session.id=chat-42
        ",
    );
}

#[test]
fn session_applies_through_several_such_spans() {
    let app = App::new();
    let future = work()
        .instrument(info_span!("inner"))
        .instrument(info_span!("outer"));
    run(future.in_session(session("chat-42").with_user("u-7").unwrap()));
    for span in app.spans() {
        assert_eq!(ids(&span), ["chat-42", "u-7"], "{}", span.name);
    }
    assert_eq!(app.spans().len(), 5);
}

#[test]
fn sampler_sees_the_session_of_a_span_that_starts_when_it_is_polled() {
    use opentelemetry::trace::{Link, SpanKind, TraceId};
    use opentelemetry_sdk::trace::{SamplingDecision, SamplingResult, ShouldSample};

    #[derive(Clone, Debug)]
    struct InASession;

    impl ShouldSample for InASession {
        fn should_sample(
            &self,
            cx: Option<&Context>,
            _: TraceId,
            _: &str,
            _: &SpanKind,
            _: &[opentelemetry::KeyValue],
            _: &[Link],
        ) -> SamplingResult {
            let is_in_session = cx.and_then(Session::of).is_some();
            SamplingResult {
                decision: match is_in_session {
                    true => SamplingDecision::RecordAndSample,
                    false => SamplingDecision::Drop,
                },
                attributes: Vec::new(),
                trace_state: Default::default(),
            }
        }
    }

    let build =
        |builder: opentelemetry_sdk::trace::TracerProviderBuilder| builder.with_sampler(InASession);
    let app = App::with_provider(build, |otel| SessionLayer::new().wrap(otel));
    run(work()
        .instrument(info_span!("turn"))
        .in_session(session("chat-42")));
    assert_eq!(app.spans().len(), 4);
}

#[test]
fn span_keeps_nothing() {
    let app = App::new();
    let turn = info_span!("turn");
    let mut future = Box::pin(
        work()
            .instrument(turn.clone())
            .in_session(session("chat-42")),
    );
    poll_once(future.as_mut());
    turn.in_scope(|| {
        assert_eq!(current_session(), None);
        info_span!("entered elsewhere").in_scope(|| {});
    });
    info_span!(parent: &turn, "explicit").in_scope(|| {});
    app.on_thread(|| turn.in_scope(|| info_span!("other thread").in_scope(|| {})));
    drop((future, turn));
    for name in ["entered elsewhere", "explicit", "other thread"] {
        assert_eq!(session_of(&app.span(name)), [""; 0], "{name}");
    }
    assert_eq!(session_of(&app.span("turn")), ["chat-42"]);
    assert_eq!(current_session(), None);
}

#[test]
fn span_that_is_entered_in_two_sessions_is_exported_with_neither() {
    let app = App::new();
    let connection = info_span!("connection");
    for id in ["chat-1", "chat-2", "chat-1"] {
        run(work()
            .instrument(connection.clone())
            .in_session(session(id)));
    }
    drop(connection);
    assert_eq!(session_of(&app.span("connection")), [""; 0]);
    let model: Vec<_> = app
        .spans()
        .into_iter()
        .filter(|span| span.name == "model")
        .collect();
    let sessions: Vec<_> = model.iter().flat_map(session_of).collect();
    assert_eq!(sessions, ["chat-1", "chat-2", "chat-1"]);
}

#[test]
fn span_that_is_entered_in_one_session_by_two_users_keeps_only_the_session() {
    let app = App::new();
    let turn = info_span!("turn");
    for user in ["u-1", "u-2"] {
        let session = session("chat-42").with_user(user).unwrap();
        run(work().instrument(turn.clone()).in_session(session));
    }
    drop(turn);
    assert_eq!(ids(&app.span("turn")), ["chat-42", ""]);
}

#[test]
fn user_of_an_adopted_span_is_kept() {
    for polled_inside in [true, false] {
        let app = App::new();
        let authenticated = Session::default().with_user("u-7").unwrap();
        let authenticated = authenticated.with_metadata("plan", "pro").unwrap();
        let turn = authenticated.in_scope(|| info_span!("turn"));
        let inner = session("chat-42").with_metadata("step", 1).unwrap();
        let future = work().instrument(turn).in_session(inner);
        match polled_inside {
            true => authenticated.in_scope(|| run(future)),
            false => run(future),
        }
        let spans = app.spans();
        assert_eq!(spans.len(), 4);
        for span in spans {
            assert_eq!(ids(&span), ["chat-42", "u-7"], "{}", span.name);
            let metadata: serde_json::Value =
                serde_json::from_str(&values(&span, "metadata")[0]).unwrap();
            assert_eq!(metadata, serde_json::json!({ "plan": "pro", "step": 1 }));
        }
    }
}

#[test]
fn user_of_the_session_replaces_the_user_of_an_adopted_span() {
    let app = App::new();
    let auth = Session::default().with_user("u-1").unwrap();
    auth.in_scope(|| {
        let chat = session("chat-42").with_user("u-2").unwrap();
        run(work().instrument(info_span!("turn")).in_session(chat));
    });
    for span in app.spans() {
        assert_eq!(ids(&span), ["chat-42", "u-2"], "{}", span.name);
    }
    let turn = Session::default()
        .with_user("u-1")
        .unwrap()
        .in_scope(|| info_span!("exact"));
    run(work()
        .instrument(turn)
        .in_session(session("chat-43").exact()));
    assert_eq!(ids(&app.span("exact")), ["chat-43", ""]);
}

#[test]
fn declared_fields_are_recorded_in_the_session() {
    let app = App::new();
    let turn = info_span!("turn", user.id = Empty);
    let future = async {
        yields().await;
        Span::current().record("user.id", "u-7");
        work().await;
    };
    run(future.instrument(turn).in_session(session("chat-42")));
    for span in app.spans() {
        assert_eq!(ids(&span), ["chat-42", "u-7"], "{}", span.name);
    }
}

#[test]
fn values_can_be_set_on_such_a_span() {
    let app = App::new();
    let turn = info_span!("turn");
    let future = async {
        set_user_id("u-7").unwrap();
        assert_eq!(current_session_id().as_deref(), Some("chat-42"));
        work().await;
        set_user_id("u-8").unwrap();
        info_span!("last").in_scope(|| {});
    };
    let around = session("chat-42").with_user("u-1").unwrap();
    run(future.instrument(turn.clone()).in_session(around));
    assert_eq!(ids(&app.span("before")), ["chat-42", "u-7"]);
    assert_eq!(ids(&app.span("model")), ["chat-42", "u-7"]);
    assert_eq!(ids(&app.span("last")), ["chat-42", "u-8"]);
    // In the next request, nothing of the session is left.
    run(async { info_span!("next").in_scope(|| {}) }
        .instrument(turn.clone())
        .in_session(session("chat-43")));
    assert_eq!(session_of(&app.span("next")), ["chat-43"]);
    drop(turn);
}

#[test]
fn session_can_be_set_on_such_a_span() {
    let app = App::new();
    let future = async {
        set_session_id("chat-43").unwrap();
        work().await;
    };
    run(future
        .instrument(info_span!("turn"))
        .in_session(session("chat-42")));
    for span in app.spans() {
        assert_eq!(session_of(&span), ["chat-43"], "{}", span.name);
    }
}

#[test]
fn span_of_another_session_keeps_it() {
    let app = App::new();
    let other = session("other").in_scope(|| info_span!("turn"));
    run(work().instrument(other).in_session(session("chat-42")));
    for span in app.spans() {
        assert_eq!(session_of(&span), ["other"], "{}", span.name);
    }
}

#[test]
fn span_of_the_replaced_session_moves_into_the_futures_session() {
    let app = App::new();
    session("server").in_scope(|| {
        run(work()
            .instrument(info_span!("turn"))
            .in_session(session("chat-42")));
    });
    for span in app.spans() {
        assert_eq!(session_of(&span), ["chat-42"], "{}", span.name);
    }
}

#[test]
fn span_with_an_explicit_parent_does_not_move() {
    let app = App::new();
    let outside = info_span!("outside");
    let future = async {
        info_span!(parent: None, "root").in_scope(|| info_span!("below root").in_scope(|| {}));
        info_span!(parent: &outside, "child")
            .in_scope(|| info_span!("below child").in_scope(|| {}));
    };
    run(future.in_session(session("chat-42")));
    for name in ["root", "below root", "child", "below child"] {
        assert_eq!(session_of(&app.span(name)), [""; 0], "{name}");
    }
}

#[test]
fn span_that_is_entered_inside_another_span_does_not_move() {
    let app = App::new();
    let stranger = info_span!("stranger");
    let future = async {
        info_span!("own").in_scope(|| stranger.in_scope(|| info_span!("below").in_scope(|| {})));
    };
    run(future.in_session(session("chat-42")));
    drop(stranger);
    assert_eq!(session_of(&app.span("stranger")), [""; 0]);
    assert_eq!(session_of(&app.span("below")), [""; 0]);
}

#[test]
fn closures_and_guards_adopt_no_span() {
    let app = App::new();
    let stranger = info_span!("stranger");
    session("chat-42").in_scope(|| stranger.in_scope(|| info_span!("below").in_scope(|| {})));
    // Nor inside a future that is polled.
    run(async {
        let other = session("chat-43");
        other.in_scope(|| stranger.in_scope(|| info_span!("further").in_scope(|| {})));
    }
    .in_session(session("chat-42")));
    drop(stranger);
    for name in ["stranger", "below", "further"] {
        assert_eq!(session_of(&app.span(name)), [""; 0], "{name}");
    }
}

fn headers(id: &str) -> HashMap<String, String> {
    propagate(SessionPropagator::new());
    HashMap::from([("baggage".to_owned(), format!("session.id={id}"))])
}

#[test]
fn session_in_headers_applies_inside() {
    let app = App::new();
    let headers = headers("chat-42");
    run(work()
        .instrument(info_span!("turn"))
        .with_propagated(&headers));
    for span in app.spans() {
        assert_eq!(session_of(&span), ["chat-42"], "{}", span.name);
    }
    assert_eq!(app.diagnostics.messages(), [""; 0]);
}

#[test]
fn span_before_its_trace_gets_a_diagnostic() {
    propagate(opentelemetry::propagation::TextMapCompositePropagator::new(
        vec![
            Box::new(opentelemetry_sdk::propagation::TraceContextPropagator::new()),
            Box::new(SessionPropagator::new()),
        ],
    ));
    let app = App::new();
    let headers = HashMap::from([
        (
            "traceparent".to_owned(),
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned(),
        ),
        ("baggage".to_owned(), "session.id=chat-42".to_owned()),
    ]);
    for _ in 0..2 {
        run(work()
            .instrument(info_span!("turn"))
            .with_propagated(&headers));
    }
    let said = app.diagnostics.messages();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(
        said[0].contains("`turn`") && said[0].contains("trace"),
        "{said:?}"
    );
}

#[test]
fn task_that_enters_an_adopted_span_outside_the_future_gets_a_diagnostic() {
    let app = App::new();
    let future = async {
        let task = async { info_span!("task").in_scope(|| {}) }.in_current_span();
        tokio::spawn(task).await.unwrap();
    };
    let local = async {
        tokio::spawn(
            future
                .instrument(info_span!("turn"))
                .in_session(session("chat-42")),
        )
        .await
    };
    run(local).unwrap();
    let said = app.diagnostics.messages();
    assert_eq!(session_of(&app.span("task")), [""; 0]);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("`turn`"), "{said:?}");
}

#[test]
fn destructors_inside_such_a_span_run_in_the_session() {
    let app = App::new();
    let future = async {
        let _cleans_up = CleansUp;
        pending::<()>().await;
    };
    let future = future
        .instrument(info_span!("turn"))
        .in_session(session("chat-42"));
    let mut future = Box::pin(future);
    poll_once(future.as_mut());
    session("other").in_scope(|| drop(future));
    assert_eq!(session_of(&app.span("clean-up")), ["chat-42"]);
    assert_eq!(session_of(&app.span("turn")), ["chat-42"]);
}

#[test]
fn span_with_a_remote_parent_and_no_session_is_adopted() {
    let app = App::new();
    let future = async {
        let span = info_span!("request");
        span.set_parent(remote()).unwrap();
        span.in_scope(|| info_span!("below").in_scope(|| {}));
    };
    run(future.in_session(session("chat-42")));
    for name in ["request", "below"] {
        assert_eq!(session_of(&app.span(name)), ["chat-42"], "{name}");
    }
}

#[test]
fn plain_spans_of_opentelemetry_inside_inherit() {
    let app = App::new();
    let tracer = app.provider.tracer("library");
    let future = async {
        use opentelemetry::trace::Tracer;
        tracer.in_span("plain", |cx| {
            assert!(cx.has_active_span());
            info_span!("below").in_scope(|| {});
        });
    };
    run(future
        .instrument(info_span!("turn"))
        .in_session(session("chat-42")));
    for name in ["plain", "below"] {
        assert_eq!(session_of(&app.span(name)), ["chat-42"], "{name}");
    }
}

#[test]
fn session_applies_without_an_opentelemetry_layer() {
    let subscriber = tracing_subscriber::registry().with(SessionLayer::new());
    let dispatch = Dispatch::new(subscriber);
    dispatcher::with_default(&dispatch, || {
        let check = |expected: (&str, Option<&str>)| {
            info_span!("below").in_scope(|| {
                let here = current_session().unwrap();
                assert_eq!((here.id(), here.user_id()), (Some(expected.0), expected.1));
            });
        };
        let chat = || session("chat-42");
        run(async { check(("chat-42", None)) }
            .instrument(info_span!("turn"))
            .in_session(chat()));
        let turn = user!("u-7").in_scope(|| info_span!("turn"));
        run(async { check(("chat-42", Some("u-7"))) }
            .instrument(turn)
            .in_session(chat()));
        let other = session!("other").in_scope(|| info_span!("turn"));
        run(async { check(("other", None)) }
            .instrument(other)
            .in_session(chat()));
        let root = async {
            info_span!(parent: None, "root").in_scope(|| assert_eq!(current_session(), None));
        };
        run(root.in_session(chat()));
        assert_eq!(current_session(), None);
    });
}

/// Spans of one task under the session of another one.
#[test]
fn span_that_was_entered_before_is_not_exported_with_a_later_future() {
    let users = || session("a").with_user("ua").unwrap();
    let inner: [Session; 5] = [
        session("b").with_user("ub").unwrap(),
        Session::default().with_user("ub").unwrap(),
        Session::nothing(),
        session("job").exact(),
        Session::default().with_tags(["t"]).unwrap(),
    ];
    for inner in inner {
        let app = App::new();
        let handler = async {
            info_span!("before").in_scope(|| {});
            let job = async { info_span!("job").in_scope(|| {}) };
            job.in_current_span().in_session(inner).await;
            info_span!("after").in_scope(|| {});
        };
        run(async { handler.instrument(info_span!("handler")).await }.in_session(users()));
        for name in ["handler", "before", "after"] {
            assert_eq!(ids(&app.span(name)), ["a", "ua"], "{name}");
            assert_eq!(values(&app.span(name), "tag.tags"), [""; 0]);
        }
    }
    // The same for a handler in no session.
    let app = App::new();
    let handler = async {
        info_span!("before").in_scope(|| {});
        let job = async { info_span!("job").in_scope(|| {}) };
        job.in_current_span().in_session(session("b")).await;
        yields().await;
    };
    run(handler.instrument(info_span!("handler")));
    assert_eq!(session_of(&app.span("handler")), [""; 0]);
    assert_eq!(session_of(&app.span("job")), ["b"]);
    assert_eq!(app.diagnostics.messages(), [""; 0]);
}

#[test]
fn span_of_another_user_that_is_dropped_in_a_future_keeps_its_user() {
    for is_polled in [true, false] {
        let app = App::new();
        let stranger = Session::default().with_user("ub").unwrap();
        let future = stranger.in_scope(|| {
            async {
                info_span!("work").in_scope(|| {});
                pending::<()>().await;
            }
            .instrument(info_span!("request"))
        });
        let mut future = Box::pin(future);
        if is_polled {
            poll_once(future.as_mut());
        }
        let users = session("a").with_user("ua").unwrap();
        run(async move { drop(future) }.in_session(users));
        assert_eq!(ids(&app.span("request")), ["", "ub"], "{is_polled}");
    }
}

#[test]
fn exact_session_that_is_set_inside_still_applies_after_an_await() {
    let app = App::new();
    let users = session("a").with_user("ua").unwrap();
    let future = async {
        let exact = Session::default().with_user("ub").unwrap().exact();
        exact.set_on_current_span().unwrap();
        work().await;
    };
    run(future.instrument(info_span!("turn")).in_session(users));
    for span in app.spans() {
        assert_eq!(ids(&span), ["", "ub"], "{}", span.name);
    }
}

#[test]
fn id_that_is_recorded_or_set_inside_keeps_the_user_after_an_await() {
    let set: [fn(); 2] = [
        || {
            Span::current().record("session.id", "own");
        },
        || set_session_id("own").unwrap(),
    ];
    for set in set {
        let app = App::new();
        let auth = Session::default().with_user("ua").unwrap();
        let auth = auth.with_metadata("tenant", "acme").unwrap();
        let future = async {
            set();
            work().await;
        };
        let turn = info_span!("turn", session.id = Empty);
        run(future.instrument(turn).in_session(auth));
        for span in app.spans() {
            assert_eq!(ids(&span), ["own", "ua"], "{}", span.name);
            assert_eq!(values(&span, "metadata"), [r#"{"tenant":"acme"}"#]);
        }
    }
}

#[test]
fn span_that_is_entered_again_inside_itself_stays_adopted() {
    let app = App::new();
    let turn = info_span!("turn");
    let tracer = app.provider.tracer("library");
    let future = async {
        turn.in_scope(|| {
            session("b").in_scope(|| turn.in_scope(|| {}));
            Context::new().attach();
            use opentelemetry::trace::Tracer;
            tracer.in_span("plain", |_| turn.in_scope(|| {}));
            info_span!("rest").in_scope(|| {});
        });
    };
    run(future.in_session(session("chat-42")));
    assert_eq!(session_of(&app.span("rest")), ["chat-42"]);
    assert_eq!(app.diagnostics.messages(), [""; 0]);
}

#[test]
fn explicit_children_inside_inherit() {
    let app = App::new();
    let future = async {
        info_span!(parent: &Span::current(), "child")
            .in_scope(|| info_span!("below").in_scope(|| {}));
        let opener = user!(parent: &Span::current(), "u-7");
        opener.in_scope(|| info_span!("with user").in_scope(|| {}));
    };
    run(future
        .instrument(info_span!("turn"))
        .in_session(session("chat-42")));
    for span in app.spans() {
        assert_eq!(session_of(&span), ["chat-42"], "{}", span.name);
    }
    assert_eq!(ids(&app.span("with user")), ["chat-42", "u-7"]);
}

#[test]
fn values_set_without_an_opentelemetry_layer_still_apply_after_an_await() {
    let dispatch = Dispatch::new(tracing_subscriber::registry().with(SessionLayer::new()));
    dispatcher::with_default(&dispatch, || {
        let turn = Session::default()
            .with_user("u-1")
            .unwrap()
            .in_scope(|| info_span!("turn"));
        let check = |expected| {
            let here = current_session().unwrap();
            assert_eq!((here.id(), here.user_id()), expected);
        };
        let future = async {
            check((Some("a"), Some("u-1")));
            set_user_id("w").unwrap();
            check((Some("a"), Some("w")));
            yields().await;
            check((Some("a"), Some("w")));
            set_session_id("own").unwrap();
            check((Some("own"), Some("w")));
            yields().await;
            check((Some("own"), Some("w")));
        };
        run(future.instrument(turn.clone()).in_session(session("a")));
        turn.in_scope(|| check((None, Some("u-1"))));
        assert_eq!(current_session(), None);
    });
}

#[test]
fn default_session_of_the_process_counts_as_none() {
    let test = test_name!();
    if !crate::support::alone(test, &[]) {
        return;
    }
    session("default").set_global_default().unwrap();
    let app = App::new();
    let future = async {
        set_user_id("w").unwrap();
        work().await;
    };
    run(future
        .instrument(info_span!("turn"))
        .in_session(session("a")));
    for name in ["turn", "before", "model", "below"] {
        assert_eq!(ids(&app.span(name)), ["a", "w"], "{name}");
    }
    app.anew(|app| {
        let turn = info_span!("opener", user.id = Empty);
        run(work().instrument(turn).in_session(session("a")));
        for span in app.spans() {
            assert_eq!(session_of(&span), ["a"], "{}", span.name);
        }
    });
}

/// A future remembers the span that it entered last. A span of another subscriber can have the same id, also if its layer is where the
/// other one was in memory.
#[test]
fn spans_of_subscribers_that_follow_one_another_are_told_apart() {
    let mut polls = 0;
    let outside = std::cell::RefCell::new(None::<tracing::Span>);
    let future = std::future::poll_fn(|_| {
        polls += 1;
        match outside.borrow().clone() {
            None => info_span!("inside").in_scope(|| {}),
            Some(span) => span.in_scope(|| {
                assert_eq!(
                    tracing_session::current_session_id().as_deref(),
                    Some("chat-42")
                );
            }),
        }
        match polls {
            40 => std::task::Poll::Ready(()),
            _ => std::task::Poll::Pending,
        }
    });
    let mut future = std::pin::pin!(future.in_session(session("chat-42")));
    let mut poll = || {
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        future.as_mut().poll(&mut cx).is_ready()
    };
    for _ in 0..20 {
        let app = App::new();
        poll();
        drop(app);
        let _app = App::new();
        outside.replace(Some(info_span!("outside")));
        poll();
        outside.replace(None);
    }
}
