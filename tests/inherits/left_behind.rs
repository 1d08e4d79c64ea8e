//! Nothing is left behind, and tasks keep apart (B5).
use crate::inherits::continued;
use crate::support::{App, values};
use opentelemetry::Context;
use opentelemetry::trace::{Span as _, Tracer, TracerProvider};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    InMemorySpanExporter, SdkTracerProvider, Span as SdkSpan, SpanData, SpanExporter, SpanProcessor,
};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use tracing::{Instrument, info_span};
use tracing_session::{
    InSession, Session, SessionLayer, SessionTracerProvider, current_session, current_session_id,
    session,
};
use tracing_subscriber::prelude::*;

use crate::inherits::session_of;

#[test]
fn nothing_stays_current_after_a_panic_in_a_scope() {
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
fn nothing_stays_current_after_a_field_panics_in_on_new_span() {
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
fn nothing_stays_current_after_a_record_that_panics() {
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
fn nothing_stays_current_after_guards_are_dropped_out_of_order() {
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
fn nothing_stays_current_after_spans_are_exited_out_of_order_without_an_opentelemetry_layer() {
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
fn interleaved_tasks_on_one_thread_do_not_mix() {
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
        |otel| SessionLayer::new().wrap(otel),
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
        |otel| SessionLayer::new().wrap(otel),
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
