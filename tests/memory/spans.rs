//! Nothing that the crate keeps grows with the number of spans.

use crate::allocator::LIVE;
use crate::support::{self, remote};
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use std::fmt;
use std::panic::{catch_unwind, resume_unwind};
use tracing::level_filters::LevelFilter;
use tracing::subscriber::with_default;
use tracing::{Subscriber, debug_span, info_span};
use tracing_opentelemetry::{OpenTelemetryLayer, OpenTelemetrySpanExt};
use tracing_session::{
    Session, SessionLayer, SessionTracerProvider, session, set_session_id, tracer::SessionTracer,
};
use tracing_subscriber::prelude::*;
use tracing_subscriber::registry::LookupSpan;

const TIMES: isize = 2_000;

/// How many more bytes are in use after doing something over and over.
fn grows(mut work: impl FnMut()) -> isize {
    // Tables have their size by then.
    (0..TIMES).for_each(|_| work());
    let before = LIVE.get();
    (0..TIMES).for_each(|_| work());
    LIVE.get() - before
}

#[track_caller]
fn does_not_grow(work: impl FnMut()) {
    let bytes = grows(work);
    assert!(bytes < TIMES * 8, "{bytes} bytes");
}

fn otel<S>() -> OpenTelemetryLayer<S, SessionTracer<SdkTracer>>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let provider = SessionTracerProvider::new(SdkTracerProvider::default());
    tracing_opentelemetry::layer().with_tracer(provider.tracer("app"))
}

#[test]
fn spans_that_have_ended_leave_nothing() {
    let _default = tracing_subscriber::registry()
        .with(SessionLayer::new().wrap(otel()))
        .set_default();
    does_not_grow(|| {
        session!("chat-42").in_scope(|| info_span!("below").in_scope(|| {}));
        let request = session!("chat-42");
        request.set_parent(remote()).unwrap();
        request.in_scope(|| info_span!("below").in_scope(|| {}));
        info_span!(parent: &request, "of the request").in_scope(|| {});
        info_span!("handler").in_scope(|| set_session_id("chat-43").unwrap());
    });
}

#[test]
fn filtered_out_spans_leave_nothing() {
    let work = || {
        debug_span!("session", id = "chat-42").in_scope(|| info_span!("below").in_scope(|| {}));
    };
    // Another layer wants the span, so it is made.
    let hides = SessionLayer::new().wrap(otel().with_filter(LevelFilter::INFO));
    let subscriber = tracing_subscriber::registry()
        .with(support::Diagnostics::default())
        .with(hides);
    with_default(subscriber, || does_not_grow(work));
    // Spans that are filtered out in a session.
    let work_in_session = || {
        let session = session!("chat-42");
        debug_span!(parent: &session, "hidden").in_scope(|| {
            debug_span!("hidden").in_scope(|| {
                let _ = set_session_id("chat-43");
            });
        });
    };
    let provider = SessionTracerProvider::new(SdkTracerProvider::default());
    let ours = tracing_opentelemetry::layer().with_tracer(provider.tracer("app"));
    let hides = SessionLayer::new().wrap(ours.with_filter(LevelFilter::INFO));
    let subscriber = tracing_subscriber::registry()
        .with(support::Diagnostics::default())
        .with(hides);
    with_default(subscriber, || does_not_grow(work_in_session));
    let hides = SessionLayer::new()
        .with_opener_level(tracing::Level::DEBUG)
        .wrap_filtered(otel(), LevelFilter::INFO);
    let subscriber = tracing_subscriber::registry().with(hides);
    with_default(subscriber, || does_not_grow(work));
    let subscriber = tracing_subscriber::registry().with(SessionLayer::new());
    with_default(subscriber, || does_not_grow(work));
}

#[test]
fn spans_that_panic_while_they_are_made_leave_nothing() {
    struct Panics;
    impl fmt::Debug for Panics {
        fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
            resume_unwind(Box::new("in Debug"))
        }
    }
    let _default = tracing_subscriber::registry()
        .with(SessionLayer::new().wrap(otel()))
        .set_default();
    let make = || info_span!("session", id = "chat-42", other = ?Panics);
    // What `tracing-subscriber` keeps of a span that was never made.
    let without = grows(|| assert!(catch_unwind(|| info_span!("span", other = ?Panics)).is_err()));
    let with = grows(|| assert!(catch_unwind(make).is_err()));
    assert!(with <= without + TIMES, "{with} bytes, {without} without");
}

#[test]
fn details_leave_nothing() {
    let _default = tracing_subscriber::registry()
        .with(SessionLayer::new().wrap(otel()))
        .set_default();
    let _connection = info_span!("session", id = "chat-42", metadata.step = 0).entered();
    let said = Session::default().with_metadata("plan", "pro").unwrap();
    let said = said.with_tags(["a"]).unwrap();
    let mut step = 0;
    does_not_grow(|| {
        step += 1;
        // On one span that stays, over and over.
        tracing::Span::current()
            .record("metadata.step", step)
            .record("tags", "a");
        set_session_id("chat-42").unwrap();
        said.in_scope(|| info_span!("value").in_scope(|| {}));
        let span = session!(said, metadata.step = tracing::field::Empty);
        span.in_scope(|| span.record("metadata.step", step).in_scope(|| {}));
        let own = info_span!("own");
        OpenTelemetrySpanExt::set_attribute(&own, "metadata", r#"{"own":1}"#);
    });
}

#[test]
fn many_providers_that_redact_metadata_leave_nothing_in_a_session() {
    use opentelemetry::trace::{Span, Tracer};
    use tracing_session::{Privacy, export::IdPolicy};

    let said = Session::default().with_metadata("plan", "pro").unwrap();
    does_not_grow(|| {
        let provider = SessionTracerProvider::new(SdkTracerProvider::default());
        let privacy = Privacy::new().with_metadata(["plan"], IdPolicy::omitted());
        let provider = provider.with_privacy(privacy);
        said.in_scope(|| provider.tracer("app").start("span").end());
    });
}

#[test]
fn scopes_that_follow_one_another_form_no_chain() {
    let _default = tracing_subscriber::registry()
        .with(SessionLayer::new().wrap(otel()))
        .set_default();
    let _connection = info_span!("connection", user.id = "u-7").entered();
    does_not_grow(|| {
        set_session_id("chat-42").unwrap();
        Session::new("chat-43").unwrap().in_scope(|| {});
    });
}

#[test]
fn span_whose_ids_are_redacted_and_set_repeatedly_does_not_grow() {
    use tracing_session::{Privacy, export::IdPolicy};

    let provider = SessionTracerProvider::new(SdkTracerProvider::default())
        .with_privacy(Privacy::new().with_user_ids(IdPolicy::omitted()));
    let otel = tracing_opentelemetry::layer().with_tracer(provider.tracer("app"));
    let _default = tracing_subscriber::registry()
        .with(SessionLayer::new().wrap(otel))
        .set_default();
    let _connection = info_span!("connection").entered();
    let mut times = 0;
    does_not_grow(|| {
        times += 1;
        set_session_id(times).unwrap();
    });
}
