//! Who inherits a scope (B).

mod support;

use futures_util::{Stream, StreamExt};
use opentelemetry::trace::{
    Link, Span as _, SpanKind, Status, TraceContextExt, TraceId, TraceState, Tracer, TracerProvider,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    InMemorySpanExporter, SamplingDecision, SamplingResult, SdkTracerProvider, ShouldSample,
    Span as SdkSpan, SpanData, SpanExporter, SpanProcessor,
};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use support::{App, remote, values};
use tracing::level_filters::LevelFilter;
use tracing::{Instrument, debug, debug_span, info_span, trace_span, warn_span};
use tracing_opentelemetry::{OpenTelemetrySpanExt, SetParentError};
use tracing_session::{
    InSession, Session, SessionLayer, SessionTracerProvider, current_session, current_session_id,
    session, set_session_id, set_user_id, user,
};
use tracing_subscriber::prelude::*;
use tracing_subscriber::{Layer, Registry, reload};

fn session_of(span: &SpanData) -> Vec<String> {
    values(span, "session.id")
}

// B1

#[test]
fn contextual_children_inherit_to_any_depth() {
    fn nest(depth: usize) {
        if depth > 0 {
            info_span!("nested").in_scope(|| nest(depth - 1));
        }
    }
    let app = App::new();
    session!("chat-42").in_scope(|| nest(100));
    let spans = app.spans();
    assert_eq!(spans.len(), 101);
    assert!(spans.iter().all(|span| session_of(span) == ["chat-42"]));
}

// B2

#[test]
fn explicit_children_inherit_from_their_parent_entered_or_not() {
    let app = App::new();
    let session = session!("chat-42");
    let never_entered = info_span!(parent: &session, "never entered");
    let other = session!("chat-43").entered();
    info_span!(parent: &session, "of the session").in_scope(|| {});
    info_span!(parent: &never_entered, "of its child").in_scope(|| {
        info_span!("below").in_scope(|| {});
    });
    drop((other, never_entered, session));
    app.exports(
        "
        session session.id=chat-42
          never entered session.id=chat-42
            of its child session.id=chat-42
              below session.id=chat-42
          of the session session.id=chat-42
        session session.id=chat-43
        ",
    );
}

#[test]
fn explicit_child_that_opens_a_scope_keeps_the_other_value_of_its_parent() {
    let app = App::new();
    let session = session!("chat-42");
    let _elsewhere = user!("u-1").entered();
    info_span!(parent: &session, "user", id = "u-7").in_scope(|| {
        info_span!("below").in_scope(|| {});
    });
    drop(session);
    assert_eq!(
        app.tree(),
        "session session.id=chat-42\n  user session.id=chat-42 user.id=u-7\n    \
         below session.id=chat-42 user.id=u-7\n"
    );
}

// B3

#[test]
fn spans_that_are_never_entered_inherit_and_open_scopes() {
    let app = App::new();
    let session = session!("chat-42");
    drop(info_span!(parent: &session, "child"));
    drop(session);
    session!("chat-43").in_scope(|| drop(info_span!("contextual")));
    app.exports(
        "
        session session.id=chat-42
          child session.id=chat-42
        session session.id=chat-43
          contextual session.id=chat-43
        ",
    );
}

// B4

#[test]
fn tasks_threads_and_streams_keep_the_scope_that_they_were_made_in() {
    let app = App::new();
    let step = |name: &'static str| match name {
        "awaited" => info_span!("awaited"),
        "spawned" => info_span!("spawned"),
        "blocking" => info_span!("blocking"),
        "thread" => info_span!("thread"),
        "detached" => info_span!("detached"),
        _ => info_span!("item"),
    };
    app.runtime().block_on(async {
        let (release, released) = tokio::sync::oneshot::channel::<()>();
        let mut spawned = None;
        let turn = async {
            async { tokio::task::yield_now().await }
                .instrument(step("awaited"))
                .await;
            tokio::spawn(async { tokio::task::yield_now().await }.instrument(step("spawned")))
                .await
                .unwrap();
            let span = step("blocking");
            tokio::task::spawn_blocking(move || span.in_scope(|| step("item").in_scope(|| {})))
                .await
                .unwrap();
            // `tracing` closes a parent only on a thread that has its dispatcher.
            let (span, dispatch) = (step("thread"), app.dispatch.clone());
            let close = move || tracing::dispatcher::with_default(&dispatch, || drop(span));
            std::thread::spawn(close).join().unwrap();
            let items = futures_util::stream::iter(0..3).then(|_| async {
                tokio::task::yield_now().await;
                step("item").in_scope(|| {});
            });
            items.collect::<Vec<_>>().await;
            let detached = async move {
                released.await.unwrap();
                step("item").in_scope(|| {});
            };
            spawned = Some(tokio::spawn(detached.instrument(step("detached"))));
        };
        turn.instrument(session!("chat-42")).await;
        assert_eq!(current_session(), None);
        release.send(()).unwrap();
        spawned.unwrap().await.unwrap();
    });
    let spans = app.spans();
    assert_eq!(spans.len(), 11, "{}", app.tree());
    assert!(
        spans.iter().all(|span| session_of(span) == ["chat-42"]),
        "{}",
        app.tree()
    );
}

#[test]
fn session_value_goes_with_a_spawned_future_and_a_stream() {
    let app = App::new();
    app.runtime().block_on(async {
        let session = Session::new("chat-42").unwrap();
        let work = async {
            tokio::task::yield_now().await;
            info_span!("spawned").in_scope(|| {});
        };
        tokio::spawn(work.in_session(session.clone()))
            .await
            .unwrap();
        let items = futures_util::stream::repeat_with(|| info_span!("item").in_scope(|| {}));
        let items = items.take(2).in_session(session);
        assert_eq!(items.collect::<Vec<_>>().await.len(), 2);
        info_span!("outside").in_scope(|| {});
    });
    app.exports(
        "
        spawned session.id=chat-42
        item session.id=chat-42
        item session.id=chat-42
        outside
        ",
    );
}

#[test]
fn stream_in_a_session_says_how_many_items_it_has() {
    let items = futures_util::stream::iter(0..3).in_session(Session::generate());
    assert_eq!(items.size_hint(), (3, Some(3)));
}

// B5

#[test]
fn nothing_is_left_on_a_thread_after_a_panic_in_a_scope() {
    let app = App::new();
    let result = catch_unwind(|| {
        session!("chat-42").in_scope(|| {
            let _value = Session::new("chat-43").unwrap().attach();
            panic!("in the middle");
        })
    });
    assert!(result.is_err());
    assert_eq!(current_session(), None);
    let session = Session::new("chat-44").unwrap();
    let result = catch_unwind(|| session.in_scope(|| panic!("in the closure")));
    assert!(result.is_err());
    assert_eq!(current_session(), None);
    let mut future = std::pin::pin!(async { panic!("in the future") }.in_session(session));
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    let poll = AssertUnwindSafe(|| future.as_mut().poll(&mut cx));
    assert!(catch_unwind(poll).is_err());
    assert_eq!(current_session(), None);
    info_span!("after").in_scope(|| {});
    assert_eq!(session_of(&app.span("after")), [""; 0]);
}

/// A value that cannot be formatted.
struct Panics;

impl fmt::Debug for Panics {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("in Debug");
    }
}

#[test]
fn nothing_is_left_on_a_thread_after_a_field_panics_in_on_new_span() {
    let app = App::new();
    for _ in 0..3 {
        // The session is known, and attached, by the time that the second field panics.
        let result = catch_unwind(|| info_span!("session", id = "chat-42", other = ?Panics));
        assert!(result.is_err());
        let result = catch_unwind(|| info_span!("session", id = ?Panics));
        assert!(result.is_err());
        assert_eq!(current_session(), None);
        info_span!("after").in_scope(|| info_span!("below").in_scope(|| {}));
    }
    let spans = app.spans();
    assert_eq!(spans.len(), 6);
    assert!(
        spans.iter().all(|span| session_of(span).is_empty()),
        "{}",
        app.tree()
    );
}

#[test]
fn nothing_is_left_after_a_record_that_panics() {
    let app = App::new();
    let span = info_span!("session", id = "chat-42", user.id = tracing::field::Empty);
    let result = catch_unwind(AssertUnwindSafe(|| {
        span.record("user.id", tracing::field::debug(Panics));
    }));
    assert!(result.is_err());
    span.in_scope(|| info_span!("below").in_scope(|| {}));
    drop(span);
    info_span!("after").in_scope(|| {});
    app.exports(
        "
        session session.id=chat-42
          below session.id=chat-42
        after
        ",
    );
}

#[test]
fn guards_dropped_out_of_order_leave_nothing() {
    let app = App::new();
    let outer = Session::new("outer").unwrap().attach();
    let inner = Session::new("inner").unwrap().attach();
    drop(outer);
    assert_eq!(current_session_id().as_deref(), Some("inner"));
    drop(inner);
    assert_eq!(current_session(), None);
    let first = session!("first").entered();
    let second = session!("second").entered();
    drop(first);
    drop(second);
    assert_eq!(current_session(), None);
    info_span!("after").in_scope(|| {});
    assert_eq!(session_of(&app.span("after")), [""; 0]);
}

#[test]
fn spans_left_out_of_order_leave_nothing_without_an_opentelemetry_layer() {
    let _default = tracing_subscriber::registry()
        .with(SessionLayer::new())
        .set_default();
    let first = session!("first").entered();
    let second = session!("second").entered();
    drop(first);
    assert_eq!(current_session_id().as_deref(), Some("second"));
    drop(second);
    assert_eq!(current_session(), None);
}

#[test]
fn interleaved_tasks_on_one_thread_keep_apart() {
    let app = App::new();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        let task = |id: usize| async move {
            for _ in 0..5 {
                tokio::task::yield_now().await;
                info_span!("step", task = id).in_scope(|| {});
                assert_eq!(current_session_id(), Some(format!("chat-{id}")));
            }
        };
        let by_span = (0..10).map(|id| task(id).instrument(session!(format!("chat-{id}"))));
        let by_value =
            (10..20).map(|id| task(id).in_session(Session::new(format!("chat-{id}")).unwrap()));
        let by_request = (20..30).map(|id| task(id).instrument(continued(&format!("chat-{id}"))));
        futures_util::join!(
            futures_util::future::join_all(by_span),
            futures_util::future::join_all(by_value),
            futures_util::future::join_all(by_request),
        );
    });
    let steps: Vec<_> = app
        .spans()
        .into_iter()
        .filter(|span| span.name == "step")
        .collect();
    assert_eq!(steps.len(), 150);
    for step in steps {
        assert_eq!(
            session_of(&step),
            [format!("chat-{}", values(&step, "task")[0])]
        );
    }
}

/// A processor that makes a span of its own for each span that it is shown.
#[derive(Debug)]
struct MakesSpans(Arc<OnceLock<SessionTracerProvider<SdkTracerProvider>>>);

impl SpanProcessor for MakesSpans {
    fn on_start(&self, span: &mut SdkSpan, _: &Context) {
        if span
            .exported_data()
            .is_some_and(|data| data.name == "parent")
        {
            if let Some(provider) = self.0.get() {
                let tracer = provider.tracer("processor");
                // By the builder of a tracer of ours, as the OpenTelemetry layer does it.
                tracer.span_builder("of the processor").start(&tracer).end();
            }
        }
    }
    fn on_end(&self, _: SpanData) {}
    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }
    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

#[test]
fn nothing_leaks_into_spans_that_a_processor_makes() {
    let own = Arc::new(OnceLock::new());
    let app = App::with_provider(
        |builder| builder.with_span_processor(MakesSpans(own.clone())),
        |otel| SessionLayer::new().around(otel),
    );
    own.set(app.provider.clone()).unwrap();
    let parent = info_span!("parent");
    // Making the child starts the parent, and the processor is run in the middle of it.
    let child = info_span!(parent: &parent, "session", id = "chat-42");
    drop((child, parent));
    app.exports(
        "
        parent
          session session.id=chat-42
        of the processor
        ",
    );
}

/// An exporter that makes spans of its own while it exports. On its thread the SDK suppresses them,
/// so it also remembers the session that it saw.
#[derive(Debug)]
struct ExporterMakesSpans {
    own: SdkTracerProvider,
    seen: Arc<Mutex<Vec<Option<Session>>>>,
}

impl SpanExporter for ExporterMakesSpans {
    async fn export(&self, _: Vec<SpanData>) -> OTelSdkResult {
        self.seen.lock().unwrap().push(current_session());
        SessionTracerProvider::new(self.own.clone())
            .tracer("exporter")
            .start("upload")
            .end();
        Ok(())
    }
}

#[test]
fn nothing_leaks_into_spans_that_an_exporter_makes() {
    let uploads = InMemorySpanExporter::default();
    let own = SdkTracerProvider::builder()
        .with_simple_exporter(uploads.clone())
        .build();
    let seen = Arc::<Mutex<Vec<_>>>::default();
    let exporter = ExporterMakesSpans {
        own,
        seen: seen.clone(),
    };
    let app = App::with_provider(
        |builder| builder.with_batch_exporter(exporter),
        |otel| SessionLayer::new().around(otel),
    );
    session!("chat-42").in_scope(|| {
        info_span!("below").in_scope(|| {});
        app.provider.force_flush().unwrap();
    });
    let seen = seen.lock().unwrap();
    assert!(!seen.is_empty() && seen.iter().all(Option::is_none));
    let uploads = uploads.get_finished_spans().unwrap();
    assert!(
        uploads.iter().all(|span| session_of(span).is_empty()),
        "{uploads:?}"
    );
    assert_eq!(session_of(&app.span("below")), ["chat-42"]);
}

// B6

#[test]
fn span_with_no_parent_inherits_nothing() {
    let app = App::new();
    let _session = session!("chat-42").entered();
    info_span!(parent: None, "root").in_scope(|| info_span!("below").in_scope(|| {}));
    app.exports(
        "
        root
          below
        ",
    );
}

#[test]
fn span_with_no_parent_that_opens_a_scope_starts_afresh() {
    let app = App::new();
    let _session = session!("chat-42").entered();
    let _user = user!("u-7").entered();
    session!(parent: None, "chat-43").in_scope(|| info_span!("below").in_scope(|| {}));
    app.exports(
        "
        session session.id=chat-43
          below session.id=chat-43
        ",
    );
}

// B7

#[test]
fn span_that_opens_a_scope_keeps_it_below_a_parent_set_from_outside() {
    let app = App::new();
    let _outside = user!("u-1").entered();
    let session = session!("chat-42");
    session.set_parent(remote()).unwrap();
    session.in_scope(|| {
        assert_eq!(current_session_id().as_deref(), Some("chat-42"));
        info_span!("child").in_scope(|| info_span!("grandchild").in_scope(|| {}));
    });
    info_span!(parent: &session, "explicit child").in_scope(|| {
        info_span!("below").in_scope(|| {});
    });
    // A library that takes the `Context` of the span, and starts its own span under it.
    let tracer = app.provider.tracer("library");
    let mut plain = tracer.start_with_context("plain", &session.context());
    plain.end();
    assert!(matches!(
        session.set_parent(remote()),
        Err(SetParentError::AlreadyStarted)
    ));
    drop(session);
    app.exports(
        "
        session session.id=chat-42
          child session.id=chat-42
            grandchild session.id=chat-42
          explicit child session.id=chat-42
            below session.id=chat-42
          plain session.id=chat-42
        ",
    );
    assert_eq!(
        app.span("session").span_context.trace_id(),
        TraceId::from(7)
    );
}

/// A session span that continues a trace from elsewhere.
fn continued(id: &str) -> tracing::Span {
    let session = session!(id);
    session.set_parent(remote()).unwrap();
    session
}

#[test]
fn span_below_a_parent_set_from_outside_is_entered_again_wherever_it_is_polled() {
    let app = App::new();
    let session = continued("chat-42");
    for _ in 0..2 {
        session.in_scope(|| info_span!("here").in_scope(|| {}));
        app.on_thread(|| session.in_scope(|| info_span!("there").in_scope(|| {})));
        assert_eq!(current_session(), None);
    }
    // Entered twice at once, and by two threads.
    session.in_scope(|| {
        session.in_scope(|| {});
        assert_eq!(current_session_id().as_deref(), Some("chat-42"));
        app.on_thread(|| session.in_scope(|| {}));
        info_span!("here still").in_scope(|| {});
    });
    assert_eq!(current_session(), None);
    drop(session);
    app.exports(
        "
        session session.id=chat-42
          here session.id=chat-42
          there session.id=chat-42
          here session.id=chat-42
          there session.id=chat-42
          here still session.id=chat-42
        ",
    );
}

#[test]
fn spans_below_parents_set_from_outside_are_left_in_any_order() {
    let app = App::new();
    let (first, second) = (continued("chat-1").entered(), continued("chat-2").entered());
    assert_eq!(current_session_id().as_deref(), Some("chat-2"));
    drop(first);
    info_span!("in the second").in_scope(|| {});
    drop(second);
    assert_eq!(current_session(), None);
    info_span!("outside").in_scope(|| {});
    assert_eq!(session_of(&app.span("in the second")), ["chat-2"]);
    assert_eq!(session_of(&app.span("outside")), [""; 0]);
}

#[test]
fn values_change_inside_a_span_below_a_parent_set_from_outside() {
    let app = App::new();
    let session = continued("chat-42");
    session.in_scope(|| {
        info_span!("before").in_scope(|| {});
        let inner = Session::new("inner").unwrap();
        inner.in_scope(|| info_span!("in a value").in_scope(|| {}));
        set_user_id("u-7").unwrap();
        info_span!("after").in_scope(|| info_span!("below").in_scope(|| {}));
    });
    session.in_scope(|| info_span!("later").in_scope(|| {}));
    drop(session);
    app.exports(
        "
        session session.id=chat-42 user.id=u-7
          before session.id=chat-42
          in a value session.id=inner
          after session.id=chat-42 user.id=u-7
            below session.id=chat-42 user.id=u-7
          later session.id=chat-42 user.id=u-7
        ",
    );
}

#[test]
fn span_that_opens_no_scope_takes_that_of_the_parent_set_from_outside() {
    let app = App::new();
    let given = Session::new("given").unwrap().in_scope(Context::current);
    let _here = session!("here").entered();
    let request = info_span!("with a session");
    request
        .set_parent(given.with_remote_span_context(remote().span().span_context().clone()))
        .unwrap();
    request.in_scope(|| info_span!("below").in_scope(|| {}));
    let request_without = info_span!("without");
    request_without.set_parent(remote()).unwrap();
    request_without.in_scope(|| {});
    drop((request, request_without));
    app.exports(
        "
        with a session session.id=given
          below session.id=given
        without
        ",
    );
}

#[test]
fn what_is_in_force_in_a_parent_set_from_outside_stands_before_the_default_session() {
    let app = App::with(|layer| layer.with_default_session(Session::new("cli-1").unwrap()));
    let given = Session::new("given").unwrap().in_scope(Context::current);
    for request in [user!("u-7"), info_span!("request")] {
        request
            .set_parent(given.with_remote_span_context(remote().span().span_context().clone()))
            .unwrap();
        request.in_scope(|| info_span!("below").in_scope(|| {}));
    }
    app.exports(
        "
        user session.id=given user.id=u-7
          below session.id=given user.id=u-7
        request session.id=given
          below session.id=given
        ",
    );
}

#[test]
fn ids_of_a_span_bring_its_session_only_together_and_while_it_is_open() {
    let app = App::new();
    let tracer = app.provider.tracer("library");
    let session = session!("chat-42");
    session.set_parent(remote()).unwrap();
    let own = session.context().span().span_context().clone();
    // Not remote: as a library passes it on inside the process.
    let start = |name, trace| {
        let parent = opentelemetry::trace::SpanContext::new(
            trace,
            own.span_id(),
            own.trace_flags(),
            false,
            TraceState::NONE,
        );
        let parent = Context::new().with_remote_span_context(parent);
        tracer.start_with_context(name, &parent).end();
    };
    start("open", own.trace_id());
    start("of another trace", TraceId::from(9));
    drop(session);
    start("ended", own.trace_id());
    assert_eq!(session_of(&app.span("open")), ["chat-42"]);
    assert_eq!(session_of(&app.span("of another trace")), [""; 0]);
    assert_eq!(session_of(&app.span("ended")), [""; 0]);
}

#[test]
fn remote_parent_with_the_id_of_a_span_here_brings_no_session() {
    let app = App::new();
    let session = session!("chat-42");
    session.set_parent(remote()).unwrap();
    let _entered = session.enter();
    let own = session.context().span().span_context().clone();
    // As it comes back in the headers of a request to a service in the same process.
    let sent = opentelemetry::trace::SpanContext::new(
        own.trace_id(),
        own.span_id(),
        own.trace_flags(),
        true,
        TraceState::NONE,
    );
    let request = info_span!("request");
    request
        .set_parent(Context::new().with_remote_span_context(sent))
        .unwrap();
    request.in_scope(|| {});
    drop(request);
    assert_eq!(session_of(&app.span("request")), [""; 0]);
}

// B8

#[test]
fn hidden_span_opens_its_scope_with_a_filter_given_to_the_session_layer() {
    let app = App::with_layer(|otel| {
        SessionLayer::new()
            .with_filter(LevelFilter::INFO)
            .around(otel)
    });
    let hidden = debug_span!("session", id = "chat-42", user.id = tracing::field::Empty);
    assert!(!hidden.is_disabled());
    hidden.in_scope(|| {
        assert_eq!(current_session_id().as_deref(), Some("chat-42"));
        info_span!("child").in_scope(|| info_span!("grandchild").in_scope(|| {}));
        let open = info_span!("open").entered();
        hidden.record("user.id", "u-7");
        drop(open);
    });
    info_span!(parent: &hidden, "explicit child").in_scope(|| {
        info_span!("below").in_scope(|| {});
    });
    session!("chat-43").in_scope(|| {
        debug_span!("user", id = "u-8").in_scope(|| info_span!("both").in_scope(|| {}));
    });
    assert_eq!(current_session(), None);
    app.exports(
        "
        child session.id=chat-42
          grandchild session.id=chat-42
        open session.id=chat-42 user.id=u-7
        explicit child session.id=chat-42 user.id=u-7
          below session.id=chat-42 user.id=u-7
        session session.id=chat-43
          both session.id=chat-43 user.id=u-8
        ",
    );
}

#[test]
fn explicit_children_inherit_through_a_hidden_span_and_beside_one() {
    let app = App::with_layer(|otel| {
        SessionLayer::new()
            .with_filter(LevelFilter::INFO)
            .around(otel)
    });
    let session = session!("chat-42");
    let child = info_span!(parent: &session, "child");
    let _elsewhere = session!(parent: None, "chat-43").entered();
    let hidden = debug_span!(parent: &child, "user", id = "u-7");
    hidden.in_scope(|| info_span!("in the hidden one").in_scope(|| {}));
    info_span!(parent: &hidden, "of the hidden one").in_scope(|| {});
    let visible = user!(parent: &child, "u-8");
    visible.in_scope(|| {
        let both = current_session().unwrap();
        assert_eq!((both.id(), both.user_id()), (Some("chat-42"), Some("u-8")));
        info_span!("in the visible one").in_scope(|| {});
    });
    drop((visible, hidden, child, session));
    let both = |name| {
        let span = app.span(name);
        (session_of(&span), values(&span, "user.id"))
    };
    let expected = |user: &str| (vec!["chat-42".to_owned()], vec![user.to_owned()]);
    assert_eq!(both("in the hidden one"), expected("u-7"));
    assert_eq!(both("of the hidden one"), expected("u-7"));
    assert_eq!(both("in the visible one"), expected("u-8"));
}

#[test]
fn hidden_span_that_says_nothing_is_not_there_for_what_is_inside_it() {
    // Takes everything: then `tracing` asks the filters of each span.
    let _other = tracing::Dispatch::new(tracing_subscriber::registry());
    let app = App::with_layer(|otel| {
        SessionLayer::new()
            .with_filter(LevelFilter::INFO)
            .around(otel)
    });
    let elsewhere = session!("chat-42");
    debug_span!(parent: &elsewhere, "hidden").in_scope(|| {
        assert_eq!(current_session(), None);
        info_span!("inside").in_scope(|| {});
    });
    drop(elsewhere);
    app.exports(
        "
        session session.id=chat-42
        inside
        ",
    );
}

#[test]
fn nothing_else_becomes_enabled_with_a_filter_given_to_the_session_layer() {
    // Where there is another subscriber in the process, `tracing` asks the filters of each span.
    if !support::alone(
        "nothing_else_becomes_enabled_with_a_filter_given_to_the_session_layer",
        &[],
    ) {
        return;
    }
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder()
        .with_simple_exporter(exporter.clone())
        .build();
    let provider = SessionTracerProvider::new(provider);
    let otel = tracing_opentelemetry::layer().with_tracer(provider.tracer("app"));
    let layer = SessionLayer::new()
        .with_filter(LevelFilter::INFO)
        .around(otel);
    let _default = tracing_subscriber::registry().with(layer).set_default();
    assert!(trace_span!("other").is_disabled());
    assert!(debug_span!("other").is_disabled());
    assert!(!tracing::enabled!(tracing::Level::DEBUG));
    assert!(!tracing::enabled!(tracing::Level::DEBUG, session.id));
    assert!(!debug_span!("session", id = "chat-42").is_disabled());
    debug!("an event");
    info_span!("visible").in_scope(|| debug!("an event"));
    let spans = exporter.get_finished_spans().unwrap();
    assert_eq!(spans.len(), 1);
    assert!(spans[0].events.is_empty());
}

#[test]
fn hidden_span_does_not_exist_with_a_filter_on_the_opentelemetry_layer() {
    let app =
        App::with_layer(|otel| SessionLayer::new().around(otel.with_filter(LevelFilter::INFO)));
    debug_span!("session", id = "chat-42").in_scope(|| info_span!("child").in_scope(|| {}));
    session!("chat-43").in_scope(|| info_span!("child").in_scope(|| {}));
    app.exports(
        "
        child
        session session.id=chat-43
          child session.id=chat-43
        ",
    );
}

// B9

#[test]
fn plain_opentelemetry_spans_inherit_and_pass_on() {
    let app = App::new();
    let tracer = app.provider.tracer("library");
    session!("chat-42").in_scope(|| {
        tracer.in_span("plain", |_| {
            info_span!("below").in_scope(|| tracer.in_span("plain again", |_| {}));
        });
        let mut plain =
            tracer.start_with_context("of the context", &tracing::Span::current().context());
        plain.end();
        drop(tracer.start("dropped, not ended"));
    });
    tracer.in_span("outside", |_| info_span!("below outside").in_scope(|| {}));
    app.exports(
        "
        session session.id=chat-42
          plain session.id=chat-42
            below session.id=chat-42
              plain again session.id=chat-42
          of the context session.id=chat-42
          dropped, not ended session.id=chat-42
        outside
          below outside
        ",
    );
}

#[test]
fn spans_of_the_global_tracer_inherit() {
    let app = App::new();
    opentelemetry::global::set_tracer_provider(app.provider.clone());
    let tracer = opentelemetry::global::tracer("library");
    session!("chat-42").in_scope(|| tracer.in_span("plain", |_| {}));
    assert_eq!(session_of(&app.span("plain")), ["chat-42"]);
}

// B10

/// Drops spans of that name, and remembers the session that it saw in each `Context`.
#[derive(Clone, Debug, Default)]
struct DropsRoots(Arc<Mutex<Vec<Seen>>>);

/// The name of a span, and the session in force where it was sampled.
type Seen = (String, Option<String>);

impl ShouldSample for DropsRoots {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        _: TraceId,
        name: &str,
        _: &SpanKind,
        attributes: &[KeyValue],
        _: &[Link],
    ) -> SamplingResult {
        assert!(
            attributes
                .iter()
                .all(|attribute| !attribute.key.as_str().starts_with("tracing_session"))
        );
        let _attached = parent.unwrap().clone().attach();
        self.0
            .lock()
            .unwrap()
            .push((name.to_owned(), current_session_id()));
        let decision = match name {
            "session" => SamplingDecision::Drop,
            _ => SamplingDecision::RecordAndSample,
        };
        SamplingResult {
            decision,
            attributes: Vec::new(),
            trace_state: TraceState::NONE,
        }
    }
}

#[test]
fn unsampled_spans_pass_the_scope_on() {
    let sampler = DropsRoots::default();
    let app = App::with_provider(
        |builder| builder.with_sampler(sampler.clone()),
        |otel| SessionLayer::new().around(otel),
    );
    let unsampled = session!("chat-42");
    unsampled.in_scope(|| {
        assert_eq!(current_session_id().as_deref(), Some("chat-42"));
        info_span!("child").in_scope(|| {});
    });
    let remote_unsampled = session!("chat-43");
    remote_unsampled.set_parent(remote()).unwrap();
    remote_unsampled.in_scope(|| info_span!("remote child").in_scope(|| {}));
    drop((unsampled, remote_unsampled));
    app.exports(
        "
        child session.id=chat-42
        remote child session.id=chat-43
        ",
    );
    let seen = sampler.0.lock().unwrap();
    let seen: Vec<_> = seen
        .iter()
        .map(|(name, id)| (name.as_str(), id.as_deref()))
        .collect();
    assert_eq!(
        seen,
        [
            ("session", Some("chat-42")),
            ("child", Some("chat-42")),
            ("session", Some("chat-43")),
            ("remote child", Some("chat-43")),
        ]
    );
}

#[test]
fn suppressed_telemetry_exports_nothing_and_breaks_nothing() {
    let app = App::new();
    session!("chat-42").in_scope(|| {
        let _suppressed = Context::enter_telemetry_suppressed_scope();
        session!("chat-43").in_scope(|| info_span!("below").in_scope(|| {}));
    });
    app.exports("session session.id=chat-42");
}

#[test]
fn session_said_where_telemetry_is_suppressed_is_not_in_force_elsewhere() {
    let app = App::new();
    let suppressed = {
        let _suppressed = Context::enter_telemetry_suppressed_scope();
        let parent = Context::current();
        let session = session!("chat-42");
        session.set_parent(parent).unwrap();
        let handler = info_span!("handler");
        handler.in_scope(|| set_session_id("chat-43").unwrap());
        session.in_scope(|| {});
        (session, handler)
    };
    assert_eq!(current_session(), None);
    app.on_thread(|| assert_eq!(current_session(), None));
    info_span!("elsewhere").in_scope(|| {});
    drop(suppressed);
    app.exports("elsewhere");
}

// B11

#[test]
fn two_subscribers_do_not_mix() {
    let first = App::with(|layer| layer.with_session_spans(["conversation"]));
    let in_first = info_span!("conversation", id = "chat-1").entered();
    let second = App::new();
    // Both number their spans alike.
    let in_second = info_span!("session", id = "chat-2").entered();
    drop((in_second, second.dispatch.clone()));
    tracing::dispatcher::with_default(&first.dispatch, || {
        info_span!("below", session = 1).in_scope(|| {});
    });
    drop(in_first);
    assert_eq!(session_of(&first.span("conversation")), ["chat-1"]);
    assert_eq!(session_of(&first.span("below")), ["chat-1"]);
    assert_eq!(session_of(&second.span("session")), ["chat-2"]);
}

#[test]
fn two_subscribers_without_an_opentelemetry_layer_do_not_mix() {
    let subscriber =
        || tracing::Dispatch::new(tracing_subscriber::registry().with(SessionLayer::new()));
    let (first, second) = (subscriber(), subscriber());
    let in_first = || tracing::dispatcher::set_default(&first);
    let in_second = || tracing::dispatcher::set_default(&second);
    // Both number their spans alike: the spans of the two sessions have the same id.
    let default = in_first();
    let one = session!("first");
    drop((default, in_second()));
    let default = in_second();
    let two = session!("second");
    let inner = info_span!("inner");
    assert_eq!(one.id(), two.id());
    drop(default);

    let enter = |span: &tracing::Span| span.clone().entered();
    let entered_one = enter(&one);
    let entered_two = enter(&two);
    drop(entered_one);
    assert_eq!(current_session_id().as_deref(), Some("second"));
    drop(entered_two);
    assert_eq!(current_session(), None);

    let _entered_one = enter(&one);
    let _entered_inner = enter(&inner);
    let _default = in_first();
    set_user_id("u-7").unwrap();
    let both = current_session().unwrap();
    assert_eq!((both.id(), both.user_id()), (Some("first"), Some("u-7")));
}

#[test]
fn two_providers_write_each_its_own_span() {
    let app = App::new();
    let exporter = InMemorySpanExporter::default();
    let other = SdkTracerProvider::builder()
        .with_simple_exporter(exporter.clone())
        .build();
    let other = SessionTracerProvider::new(other);
    session!("chat-42").in_scope(|| other.tracer("other").in_span("of the other", |_| {}));
    let spans = exporter.get_finished_spans().unwrap();
    assert_eq!(session_of(&spans[0]), ["chat-42"]);
    app.exports("session session.id=chat-42");
}

/// The same in whatever the OpenTelemetry layer is wrapped.
fn inherits(app: &App) {
    session!("chat-42").in_scope(|| {
        assert_eq!(current_session_id().as_deref(), Some("chat-42"));
        info_span!("child").in_scope(|| {});
    });
    let remote_session = session!("chat-43");
    let _ = remote_session.set_parent(remote());
    info_span!(parent: &remote_session, "explicit child").in_scope(|| {});
    drop(remote_session);
    app.exports(
        "
        session session.id=chat-42
          child session.id=chat-42
        session session.id=chat-43
          explicit child session.id=chat-43
        ",
    );
}

#[test]
fn works_around_an_optional_layer() {
    inherits(&App::with_layer(|otel| {
        SessionLayer::new().around(Some(otel))
    }));
}

#[test]
fn works_around_a_boxed_layer() {
    inherits(&App::with_layer(|otel| {
        SessionLayer::new().around(otel.boxed())
    }));
    inherits(&App::with_layer(|otel| {
        SessionLayer::new().around(otel).boxed()
    }));
}

#[test]
fn works_around_a_filtered_layer() {
    inherits(&App::with_layer(|otel| {
        SessionLayer::new().around(otel.with_filter(LevelFilter::INFO))
    }));
    inherits(&App::with_layer(|otel| {
        SessionLayer::new()
            .around(otel)
            .with_filter(LevelFilter::INFO)
    }));
    inherits(&App::with_layer(|otel| {
        SessionLayer::new()
            .with_filter(LevelFilter::INFO)
            .around(otel)
    }));
}

#[test]
fn works_around_a_reloadable_layer() {
    inherits(&App::with_layer(|otel| {
        SessionLayer::new().around(reload::Layer::new(otel).0)
    }));
    inherits(&App::with_layer(|otel| {
        reload::Layer::new(SessionLayer::new().around(otel)).0
    }));
}

#[test]
fn works_when_the_layer_is_put_in_later() {
    let mut handle = None;
    let mut later = None;
    let app = App::with_layer(|otel| {
        later = Some(otel);
        let (layer, reloaded) = reload::Layer::new(None::<support::Otel>);
        handle = Some(reloaded);
        SessionLayer::new().around(layer)
    });
    session!("chat-41").in_scope(|| {
        assert_eq!(current_session_id().as_deref(), Some("chat-41"));
    });
    handle.unwrap().reload(later).unwrap();
    inherits(&app);
}

#[test]
fn layers_are_found_from_outside() {
    let app = App::new();
    assert!(app.dispatch.downcast_ref::<support::Otel>().is_some());
    let around = app
        .dispatch
        .downcast_ref::<tracing_session::AroundLayer<support::Otel>>();
    assert!(around.is_some());
    let subscriber = tracing_subscriber::registry().with(SessionLayer::new());
    let dispatch = tracing::Dispatch::new(subscriber);
    assert!(dispatch.downcast_ref::<SessionLayer>().is_some());
}

/// Does to spans what can be done to them, and gives what is exported.
fn everything<T>(
    tracer: &T,
    exporter: &InMemorySpanExporter,
    around: impl FnOnce(
        tracing_opentelemetry::OpenTelemetryLayer<Registry, T>,
    ) -> Box<dyn Layer<Registry> + Send + Sync>,
) -> Vec<String>
where
    T: Tracer<Span: Send + Sync> + Clone + Send + Sync + 'static,
{
    let otel = tracing_opentelemetry::layer().with_tracer(tracer.clone());
    let otel = otel.with_tracked_inactivity(false);
    let _default = tracing_subscriber::registry()
        .with(around(otel))
        .set_default();
    let first = info_span!("first", path = "/", late = tracing::field::Empty);
    let second = info_span!("second", otel.kind = "server");
    first.record("late", true);
    second.follows_from(&first);
    second.in_scope(|| tracing::info!(answer = 42, "an event"));
    second.set_status(Status::error("failed"));
    drop((first, second));
    let linked = remote().span().span_context().clone();
    let builder = tracer.span_builder("plain").with_kind(SpanKind::Client);
    let mut plain = builder
        .with_attributes([KeyValue::new("one", 1)])
        .start(tracer);
    assert!(plain.is_recording());
    plain.update_name("renamed");
    plain.add_event("an event", vec![KeyValue::new("two", 2)]);
    plain.add_link(linked, vec![KeyValue::new("three", 3)]);
    plain.set_status(Status::Ok);
    let end = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(4_000_000_000);
    plain.end_with_timestamp(end);
    assert!(!plain.is_recording());
    let describe = |span: &SpanData| {
        let events = span
            .events
            .iter()
            .map(|event| (&event.name, &event.attributes));
        let links = span.links.iter().map(|link| &link.attributes);
        let (events, links): (Vec<_>, Vec<_>) = (events.collect(), links.collect());
        let SpanData {
            name,
            span_kind,
            attributes,
            status,
            ..
        } = span;
        let (tracer, ends) = (span.instrumentation_scope.name(), span.end_time == end);
        format!(
            "{name} {span_kind:?} {attributes:?} {status:?} {events:?} {links:?} {tracer} {ends}"
        )
    };
    let spans = exporter.get_finished_spans().unwrap();
    spans.iter().map(describe).collect()
}

#[test]
fn spans_outside_any_session_are_exported_as_they_would_be_without_this_crate() {
    let provider = |exporter: &InMemorySpanExporter| {
        SdkTracerProvider::builder()
            .with_simple_exporter(exporter.clone())
            .build()
    };
    let exporter = InMemorySpanExporter::default();
    let without = everything(&provider(&exporter).tracer("app"), &exporter, Layer::boxed);
    let exporter = InMemorySpanExporter::default();
    let wrapped = SessionTracerProvider::new(provider(&exporter));
    let with = everything(&wrapped.tracer("app"), &exporter, |otel| {
        SessionLayer::new().around(otel).boxed()
    });
    assert_eq!(with, without);
    assert_eq!(without.len(), 3);
    assert!(without[1].contains("an event"), "{}", without[1]);
}

/// Refuses events by what is in them, which only `event_enabled` sees.
struct NoEvents;

impl<S> tracing_subscriber::layer::Filter<S> for NoEvents {
    fn enabled(
        &self,
        _: &tracing::Metadata<'_>,
        _: &tracing_subscriber::layer::Context<'_, S>,
    ) -> bool {
        true
    }

    fn event_enabled(
        &self,
        _: &tracing::Event<'_>,
        _: &tracing_subscriber::layer::Context<'_, S>,
    ) -> bool {
        false
    }
}

#[test]
fn filter_inside_is_asked_for_events_and_for_the_highest_level() {
    let app = App::with_layer(|otel| SessionLayer::new().around(otel.with_filter(NoEvents)));
    session!("chat-42").in_scope(|| tracing::info!("an event"));
    assert!(app.span("session").events.is_empty());
    let provider = SessionTracerProvider::new(SdkTracerProvider::default());
    let otel = tracing_opentelemetry::layer().with_tracer(provider.tracer("app"));
    let layer = SessionLayer::new().around(otel.with_filter(LevelFilter::INFO));
    let hint = Layer::<Registry>::max_level_hint(&layer);
    assert_eq!(hint, Some(LevelFilter::INFO));
}

#[test]
fn layer_inside_is_told_of_the_dispatcher() {
    struct Told(Arc<OnceLock<()>>);
    impl<S: tracing::Subscriber> Layer<S> for Told {
        fn on_register_dispatch(&self, _: &tracing::Dispatch) {
            self.0.set(()).unwrap();
        }
    }
    let told = Arc::new(OnceLock::new());
    let _app =
        App::with_layer(|otel| SessionLayer::new().around(otel.and_then(Told(told.clone()))));
    assert!(told.get().is_some());
}

// B12

#[test]
fn without_context_activation_spans_are_marked_and_one_diagnostic_says_what_is_lost() {
    let app =
        App::with_layer(|otel| SessionLayer::new().around(otel.with_context_activation(false)));
    for _ in 0..2 {
        warn_span!("outer").in_scope(|| {
            session!("chat-42").in_scope(|| info_span!("child").in_scope(|| {}));
        });
    }
    app.exports_after(
        "
        outer
          session session.id=chat-42
            child session.id=chat-42
        outer
          session session.id=chat-42
            child session.id=chat-42
        ",
        &["tracing-session: the OpenTelemetry layer was made with with_context_activation(false): \
           Session values and current_session() do not reach into its spans (leave context \
           activation on)"],
    );
}

#[test]
fn without_context_activation_the_diagnostic_comes_inside_a_plain_span_too() {
    let app =
        App::with_layer(|otel| SessionLayer::new().around(otel.with_context_activation(false)));
    app.provider.tracer("library").in_span("plain", |_| {
        session!("chat-42").in_scope(|| {});
        session!("chat-42").in_scope(|| {});
    });
    assert_eq!(app.diagnostics.said().len(), 1);
}

#[test]
fn suppressed_telemetry_is_not_mistaken_for_missing_context_activation() {
    let app = App::new();
    let _suppressed = Context::enter_telemetry_suppressed_scope();
    info_span!("outer").in_scope(|| {
        session!("chat-42").in_scope(|| {});
        session!("chat-42").in_scope(|| {});
    });
    assert_eq!(app.diagnostics.said(), [""; 0]);
}
