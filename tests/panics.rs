//! Foreign code panics: what the crate calls, or what runs in a session. The application goes on, and nothing is
//! left on the thread for whoever runs there next.

use crate::support::{self, App, Printed};
use opentelemetry::trace::{
    Span as _, SpanContext, Status, TraceContextExt, Tracer, TracerProvider,
};
use opentelemetry::{Context, KeyValue, global};
use opentelemetry_sdk::trace::Sampler;
use serde::{Serialize, Serializer};
use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;
use tracing::field::{Empty, debug, display};
use tracing::{Dispatch, Metadata, Span, dispatcher, info, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_session::fmt::with_session;
use tracing_session::{
    Conversation, InSession, Session, SessionLayer, SessionPropagator, SessionSampler,
    current_session, current_session_id,
    propagation::{InboundPolicy, WithPropagated, propagated_context},
    session, set_session_id, set_user_id, user,
};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::prelude::*;

/// Panics however it is read.
struct Panics;

impl fmt::Debug for Panics {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("in Debug")
    }
}

impl fmt::Display for Panics {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("in Display")
    }
}

impl Serialize for Panics {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        panic!("in Serialize")
    }
}

type Act = fn();

/// Each panics.
const ACTS: &[(&str, Act)] = &[
    // A value of a field, when the span is made.
    ("the id of a session span", || {
        drop(info_span!("session", id = %Panics))
    }),
    ("a quoted id", || drop(info_span!("session", id = ?Panics))),
    ("an id on any span", || {
        drop(info_span!("span", session.id = %Panics))
    }),
    ("the user beside an id", || {
        drop(info_span!("span", session.id = "leaked", user.id = %Panics))
    }),
    ("another field beside an id", || {
        drop(info_span!("session", id = "leaked", other = ?Panics))
    }),
    ("the argument of session!", || drop(session!(Panics))),
    ("the argument of user!", || drop(user!(Panics))),
    ("a field of session!", || {
        drop(session!("leaked", other = ?Panics))
    }),
    ("a field of session! with a value", || {
        let session = Session::new("leaked").unwrap().with_metadata("plan", 1);
        drop(session!(session.unwrap(), other = ?Panics));
    }),
    ("an argument that is evaluated", || {
        let user = || -> String { panic!("on purpose") };
        drop(session!("leaked", user.id = user()));
    }),
    ("metadata of session!", || {
        drop(session!("leaked", metadata.plan = %Panics))
    }),
    ("tags of session!", || {
        drop(session!("leaked", tags = ?Panics))
    }),
    ("a field of an explicit child", || {
        let parent = session!("leaked");
        drop(info_span!(parent: &parent, "session", session.id = "leaked", other = ?Panics));
    }),
    ("a field inside a session", || {
        session!("leaked").in_scope(|| drop(user!("leaked", other = ?Panics)));
    }),
    // Recorded late.
    ("a late id", || {
        let span = info_span!("late", session.id = Empty);
        let _inside = span.enter();
        span.record("session.id", display(Panics));
    }),
    ("a late user beside an id", || {
        let span = info_span!("late", session.id = Empty, user.id = Empty);
        let _inside = span.enter();
        tracing::record_all!(span, session.id = "leaked", user.id = %Panics);
    }),
    ("late metadata", || {
        session!("leaked", metadata.plan = Empty).in_scope(|| {
            Span::current().record("metadata.plan", debug(Panics));
        });
    }),
    ("late tags", || {
        session!("leaked", tags = Empty).in_scope(|| {
            Span::current().record("tags", debug(Panics));
        });
    }),
    // Arguments.
    ("Session::new", || drop(Session::new(Panics))),
    ("with_user", || {
        drop(Session::new("leaked").unwrap().with_user(Panics))
    }),
    ("with_metadata", || {
        drop(
            Session::new("leaked")
                .unwrap()
                .with_metadata("plan", Panics),
        )
    }),
    ("set_session_id", || {
        info_span!("handler").in_scope(|| set_session_id(Panics).unwrap())
    }),
    ("set_user_id in a session", || {
        session!("leaked").in_scope(|| set_user_id(Panics).unwrap());
    }),
    // What runs in a session.
    ("a closure in a session", || {
        Session::new("leaked")
            .unwrap()
            .in_scope(|| panic!("on purpose"));
    }),
    ("a guard", || {
        let _guard = Session::new("leaked").unwrap().attach();
        panic!("on purpose");
    }),
    ("guards in the wrong order", || {
        let outer = Session::new("leaked").unwrap().attach();
        let _inner = Session::new("leaked too").unwrap().attach();
        drop(outer);
        panic!("on purpose");
    }),
    ("a span", || {
        session!("leaked").in_scope(|| panic!("on purpose"))
    }),
    ("a span whose session was set", || {
        info_span!("handler").in_scope(|| {
            set_session_id("leaked").unwrap();
            panic!("on purpose");
        });
    }),
    ("a span below a caller", || {
        let span = session!("leaked");
        let _ = span.set_parent(support::remote());
        span.in_scope(|| panic!("on purpose"));
    }),
    ("a future", || {
        poll(async { panic!("on purpose") }.in_session(leaked()))
    }),
    ("a future in a future", || {
        let inner = async { panic!("on purpose") }.in_session(leaked());
        poll(inner.in_session(leaked()));
    }),
    ("a stream", || {
        let stream = futures_util::stream::poll_fn(|_| -> std::task::Poll<Option<()>> {
            panic!("on purpose")
        });
        let mut stream = Box::pin(stream.in_session(leaked()));
        poll(async move { assert!(futures_util::StreamExt::next(&mut stream).await.is_none()) });
    }),
    ("what came in with headers", || {
        propagated_context(&headers()).in_scope(|| panic!("on purpose"));
    }),
    ("a future with headers", || {
        poll(async { panic!("on purpose") }.with_propagated(&headers()));
    }),
    ("a turn", || {
        let mut chat = Conversation::new(leaked());
        let turn = chat.turn("weather");
        turn.span().in_scope(|| panic!("on purpose"));
    }),
    // Functions that the crate is given.
    ("the closure of a turn", || {
        drop(Conversation::new(leaked()).turn(|| panic!("on purpose")));
    }),
    ("the closure of a turn, in a span of its own", || {
        let closure = || session!("leaked").in_scope(|| panic!("on purpose"));
        drop(Conversation::new(leaked()).turn(closure));
    }),
    ("the verification of an id", || {
        global::set_text_map_propagator(
            SessionPropagator::new()
                .with_inbound(InboundPolicy::verify(|_, ()| panic!("on purpose"))),
        );
        let panicked = catch_unwind(|| drop(propagated_context(&headers())));
        global::set_text_map_propagator(SessionPropagator::new());
        panic::resume_unwind(panicked.unwrap_err());
    }),
    // A field of an event.
    ("an event in a session", || {
        leaked().in_scope(|| info!(field = ?Panics, "half a"))
    }),
    ("an event in a span", || {
        session!("leaked").in_scope(|| info!(field = ?Panics, "half a"))
    }),
    ("an event", || info!(field = ?Panics, "half a")),
];

fn leaked() -> Session {
    Session::new("leaked").unwrap().with_user("leaked").unwrap()
}

fn headers() -> HashMap<String, String> {
    HashMap::from([("baggage".to_owned(), "session.id=leaked".to_owned())])
}

fn poll(future: impl Future<Output = ()>) {
    use std::task;
    let mut future = std::pin::pin!(future);
    let mut cx = task::Context::from_waker(task::Waker::noop());
    assert!(future.as_mut().poll(&mut cx).is_ready());
}

/// Has it panic, and looks for what it has left behind.
fn leaves_nothing(name: &str, act: impl FnOnce()) {
    #[derive(Debug, PartialEq)]
    struct Before(String);

    let before = Before(name.to_owned());
    let attached = Context::current_with_value(Before(name.to_owned())).attach();
    assert!(
        catch_unwind(AssertUnwindSafe(act)).is_err(),
        "{name}: no panic"
    );
    let here = Context::current();
    assert_eq!(here.get::<Before>(), Some(&before), "{name}");
    assert!(!here.has_active_span(), "{name}");
    assert_eq!(current_session(), None, "{name}");
    assert!(Span::current().is_none(), "{name}");
    info_span!("outside").in_scope(|| {
        info_span!("below").in_scope(|| assert_eq!(current_session(), None, "{name}"));
    });
    session!("next").in_scope(|| {
        assert_eq!(current_session_id().as_deref(), Some("next"), "{name}");
        info_span!("in next").in_scope(|| {});
    });
    drop(attached);
    assert_eq!(Context::current().get::<Before>(), None, "{name}");
}

/// Prints no panics: there are many.
fn quietly() {
    panic::set_hook(Box::new(|_| {}));
}

fn each_leaves_nothing(app: &App) {
    quietly();
    global::set_text_map_propagator(SessionPropagator::new());
    ACTS.iter()
        .for_each(|(name, act)| leaves_nothing(name, act));
    assert_eq!(app.diagnostics.messages(), [""; 0]);
    let spans = app.spans();
    for (name, session) in [
        ("outside", None),
        ("below", None),
        ("in next", Some("next")),
    ] {
        let named = spans.iter().filter(|span| span.name == name);
        for span in named {
            let session: Vec<_> = session.into_iter().collect();
            assert_eq!(support::values(span, "session.id"), session, "{name}");
            assert_eq!(support::values(span, "user.id"), [""; 0], "{name}");
        }
    }
}

/// A layer that reads every field.
fn lines() -> impl Layer<support::Base> + Send + Sync {
    tracing_subscriber::fmt::layer()
        .with_writer(std::io::sink)
        .map_event_format(with_session)
}

/// How often the spans were exported that each panic is followed by.
fn exported(app: &App) -> usize {
    let spans = app.spans();
    spans.iter().filter(|span| span.name == "in next").count()
}

#[test]
fn nothing_is_left_around_the_opentelemetry_layer() {
    if support::alone(test_name!(), &[]) {
        let app = App::with_layer(|otel| SessionLayer::new().wrap(otel).and_then(lines()));
        each_leaves_nothing(&app);
        assert_eq!(exported(&app), ACTS.len());
    }
}

#[test]
fn nothing_is_left_beside_hidden_spans() {
    if support::alone(test_name!(), &[]) {
        let app = App::with_layer(|otel| {
            let hides = |metadata: &Metadata<'_>| !["session", "user"].contains(&metadata.name());
            let layer = SessionLayer::new().wrap_filtered(otel, filter_fn(hides));
            layer.and_then(lines())
        });
        each_leaves_nothing(&app);
        assert_eq!(exported(&app), ACTS.len());
    }
}

#[test]
fn nothing_is_left_without_an_opentelemetry_layer() {
    if support::alone(test_name!(), &[]) {
        each_leaves_nothing(&App::with_layer(|_| SessionLayer::new().and_then(lines())));
        let around_none = || SessionLayer::new().wrap(None::<support::Otel>);
        let alone = |_| around_none().and_then(lines());
        each_leaves_nothing(&App::with_layer(alone));
    }
}

#[test]
fn function_of_a_sampler_that_panics_keeps_nothing_and_is_told_of_once() {
    if support::alone(test_name!(), &[]) {
        quietly();
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        let keeps = |session: &Session| -> bool {
            ASKED.fetch_add(1, Ordering::Relaxed);
            panic!("about {session:?}")
        };
        let kept_by_ratio = SessionSampler::new(1.0).always_keep(keeps);
        let app = App::with_provider(
            |builder| builder.with_sampler(Sampler::parent_based(kept_by_ratio)),
            |otel| SessionLayer::new().wrap(otel),
        );
        for _ in 0..3 {
            session!("chat-42").in_scope(|| info_span!("child").in_scope(|| info!("an event")));
            drop(info_span!("never entered", session.id = "chat-42"));
        }
        assert_eq!(ASKED.load(Ordering::Relaxed), 6);
        assert_eq!(app.spans().len(), 9);
        // What was said in a span is there: OpenTelemetry's layer has not been left in the middle.
        assert!(
            app.spans()
                .iter()
                .filter(|span| span.name == "child")
                .all(|span| span.events.len() == 1)
        );
        let said = app.diagnostics.messages();
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(
            said[0].contains("SessionSampler::always_keep` panicked"),
            "{said:?}"
        );

        let dropped = SessionSampler::new(0.0).always_keep(keeps);
        let app = App::with_provider(
            |builder| builder.with_sampler(Sampler::parent_based(dropped)),
            |otel| SessionLayer::new().wrap(otel),
        );
        session!("chat-42").in_scope(|| {});
        assert_eq!(app.tree(), "");

        let kept = SessionSampler::new(1.0).never_keep(keeps);
        let app = App::with_provider(
            |builder| builder.with_sampler(kept),
            |otel| SessionLayer::new().wrap(otel),
        );
        for _ in 0..2 {
            session!("chat-42").in_scope(|| {});
        }
        assert_eq!(app.spans().len(), 2);
        let said = app.diagnostics.messages();
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(
            said[0].contains("SessionSampler::never_keep` panicked"),
            "{said:?}"
        );
    }
}

#[test]
fn task_that_panics_leaves_nothing_to_the_next_on_its_thread() {
    quietly();
    let app = App::new();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        for _ in 0..3 {
            let panics = async {
                let _inside = session!("leaked").entered();
                let _attached = leaked().attach();
                panic!("on purpose");
            };
            let task = tokio::task::LocalSet::new();
            let panicked = task
                .run_until(async { tokio::task::spawn_local(panics.in_session(leaked())).await });
            assert!(panicked.await.unwrap_err().is_panic());
            let next = async { info_span!("outside").in_scope(current_session) };
            assert_eq!(tokio::spawn(next).await.unwrap(), None);
        }
    });
    for span in app.spans().iter().filter(|span| span.name == "outside") {
        assert_eq!(support::values(span, "session.id"), [""; 0]);
    }
}

/// A span of somebody else's, which does not take what it is asked.
struct Foreign(SpanContext);

impl opentelemetry::trace::Span for Foreign {
    fn add_event_with_timestamp<T>(&mut self, _: T, _: SystemTime, _: Vec<KeyValue>)
    where
        T: Into<Cow<'static, str>>,
    {
    }

    fn span_context(&self) -> &SpanContext {
        &self.0
    }

    fn is_recording(&self) -> bool {
        true
    }

    fn set_attribute(&mut self, _: KeyValue) {}

    fn set_status(&mut self, _: Status) {
        panic!("on purpose");
    }

    fn update_name<T>(&mut self, _: T)
    where
        T: Into<Cow<'static, str>>,
    {
    }

    fn add_link(&mut self, _: SpanContext, _: Vec<KeyValue>) {}

    fn end_with_timestamp(&mut self, _: SystemTime) {}
}

#[test]
fn value_that_a_foreign_span_did_not_take_is_not_set_on_the_next() {
    quietly();
    let app = App::with_layer(|otel| SessionLayer::new().wrap(otel));
    leaves_nothing("a foreign span", || {
        let foreign = Foreign(SpanContext::empty_context());
        let _attached = Context::current_with_span(foreign).attach();
        set_session_id("leaked").unwrap();
    });
    let mut next = app.provider.tracer("library").start("next one");
    next.set_status(Status::Unset);
    next.end();
    drop(next);
    assert_eq!(
        support::values(&app.span("next one"), "session.id"),
        [""; 0]
    );
}

#[test]
fn line_after_one_that_panicked_in_a_session_is_whole() {
    quietly();
    let printed = Printed::default();
    let to = printed.clone();
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(move || to.clone())
        .with_ansi(false)
        .without_time()
        .map_event_format(with_session);
    let dispatch = Dispatch::new(tracing_subscriber::registry().with(lines));
    dispatcher::with_default(&dispatch, || {
        let panics = || leaked().in_scope(|| info!(field = ?Panics, "half a line"));
        assert!(catch_unwind(panics).is_err());
        info!("outside");
        Session::new("next")
            .unwrap()
            .in_scope(|| info!("in the next"));
    });
    let printed = String::from_utf8(printed.0.lock().unwrap().clone()).unwrap();
    assert_eq!(
        printed,
        " INFO main::panics: outside\n INFO main::panics: in the next session.id=\"next\"\n"
    );
}
