//! Who inherits a scope (B).

mod support;

use futures_util::StreamExt;
use opentelemetry::trace::{
    Link, Span as _, SpanKind, TraceContextExt, TraceId, TraceState, Tracer, TracerProvider,
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
    session, user,
};
use tracing_subscriber::prelude::*;
use tracing_subscriber::{Layer, reload};

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
        let all = (
            futures_util::future::join_all(by_span),
            futures_util::future::join_all(by_value),
        );
        futures_util::future::join(all.0, all.1).await;
    });
    let steps: Vec<_> = app
        .spans()
        .into_iter()
        .filter(|span| span.name == "step")
        .collect();
    assert_eq!(steps.len(), 100);
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

/// An exporter that makes spans of its own while it exports.
#[derive(Debug)]
struct ExporterMakesSpans(SdkTracerProvider);

impl SpanExporter for ExporterMakesSpans {
    async fn export(&self, _: Vec<SpanData>) -> OTelSdkResult {
        SessionTracerProvider::new(self.0.clone())
            .tracer("exporter")
            .start("upload")
            .end();
        Ok(())
    }
}

#[test]
fn nothing_leaks_into_spans_that_an_exporter_makes() {
    let uploads = InMemorySpanExporter::default();
    let other = SdkTracerProvider::builder()
        .with_simple_exporter(uploads.clone())
        .build();
    let app = App::with_provider(
        |builder| builder.with_batch_exporter(ExporterMakesSpans(other)),
        |otel| SessionLayer::new().around(otel),
    );
    session!("chat-42").in_scope(|| {
        info_span!("below").in_scope(|| {});
        app.provider.force_flush().unwrap();
    });
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
