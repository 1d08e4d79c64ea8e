//! One span that lives long: whatever is recorded or set on it again and again, it takes no more memory or work than
//! after the first thousand times.

use crate::allocator::{ALLOCATED, LIVE};
use crate::support::App;
use opentelemetry::trace::{Span as _, Tracer, TracerProvider};
use opentelemetry::{Key, KeyValue};
use opentelemetry_sdk::trace::SdkTracerProvider;
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};
use tracing::Instrument;
use tracing::field::{Empty, debug};
use tracing::{Span, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_session::{
    InSession, Session, SessionLayer, SessionTracerProvider, current_session, mark_trace, session,
    set_session_id, set_user_id,
};
use tracing_subscriber::prelude::*;
use tracing_subscriber::reload;

const PART: usize = 1_000;

/// How often each value is set: `GROWTH_TIMES`, which is 100,000 where time doesn't matter.
fn times() -> usize {
    let times = std::env::var("GROWTH_TIMES");
    times.map_or(3_000, |times| times.parse().unwrap())
}

/// Calls `work` with each number. The span's own 128 attributes and all tags are there after the first part.
#[track_caller]
fn stays_as_it_is(name: &str, mut work: impl FnMut(usize)) {
    let mut parts = (0..times() / PART).map(|part| {
        let allocated = ALLOCATED.get();
        (part * PART..(part + 1) * PART).for_each(&mut work);
        (LIVE.get(), ALLOCATED.get() - allocated)
    });
    let (live, allocated) = parts.by_ref().nth(1).unwrap();
    let (last_live, last_allocated) = parts.last().unwrap();
    let grown = last_live - live;
    assert!(grown < 20_000, "{name}: {grown} more bytes");
    // Numbers with more digits are longer.
    let is_more = last_allocated > allocated + allocated / 10 + 20_000;
    assert!(
        !is_more,
        "{name}: {allocated} bytes at first, {last_allocated} at last"
    );
}

fn opener() -> Span {
    let span = info_span!(
        "long-lived",
        session.id = Empty,
        user.id = Empty,
        metadata.step = Empty,
        tags = Empty,
        other = Empty
    );
    span.in_scope(|| {});
    span
}

#[test]
fn fields_recorded_on_one_span_take_no_more_memory() {
    let app = App::new();
    let span = opener();
    stays_as_it_is("fields", |n| {
        span.record("session.id", n)
            .record("user.id", debug(Some(n)))
            .record("metadata.step", n)
            .record("tags", n)
            .record("other", n);
        info_span!(parent: &span, "below").in_scope(|| {});
        app.exporter.reset();
    });
}

/// The OpenTelemetry layer keeps all of them until the span starts.
#[test]
fn fields_recorded_before_the_start_are_checked_in_one_pass() {
    let _app = App::new();
    let span = info_span!("request", session.id = Empty, other = Empty);
    for n in 0..100_000 {
        span.record("session.id", n).record("other", n);
    }
    let start = Instant::now();
    span.in_scope(|| {});
    let time = start.elapsed();
    assert!(time < Duration::from_secs(1), "{time:?}");
}

#[test]
fn attributes_set_on_one_span_take_no_more_memory() {
    let app = App::new();
    let keys = [
        "metadata",
        "tag.tags",
        "user.hash",
        "session.id",
        "user.id",
        "session",
        "ring",
        "tags",
    ];
    let with_attribute = Session::new("chat-42").unwrap();
    let with_attribute = with_attribute.with_attribute("ring", 2).unwrap();
    let tracer = app.provider.tracer("library");
    for session in [Session::new("chat-42").unwrap(), with_attribute] {
        session.in_scope(|| {
            let mut library = tracer.start("library");
            stays_as_it_is("attributes of a span of a library", |n| {
                library.set_attribute(KeyValue::new(keys[n % keys.len()], n.to_string()));
                let key = Key::from(format!("metadata.{n}"));
                library.set_attribute(KeyValue::new(key, n.to_string()));
            });
            let opener = opener();
            stays_as_it_is("attributes of an opener", |n| {
                opener.set_attribute(keys[n % keys.len()], n.to_string());
                opener.set_attribute(format!("metadata.{n}"), n.to_string());
            });
        });
    }
}

#[test]
fn sessions_set_on_one_span_take_no_more_memory() {
    let app = App::new();
    for span in [info_span!("plain"), opener(), session!("chat-42")] {
        span.in_scope(|| {
            stays_as_it_is("sessions", |n| {
                set_session_id(n).unwrap();
                set_user_id(n).unwrap();
                let name = n.to_string();
                let more = Session::default().with_metadata(&name, n).unwrap();
                let more = more.with_tags([&name]).unwrap();
                let more = more.with_attribute(&name, n as i64).unwrap();
                more.set_on_current_span().unwrap();
                more.in_scope(|| mark_trace().unwrap());
                info_span!("below").in_scope(|| {});
                app.exporter.reset();
            });
        });
    }
}

#[test]
fn futures_that_enter_one_span_take_no_more_memory() {
    let app = App::new();
    let waker = Context::from_waker(Waker::noop());
    let mut waker = waker;
    for span in [
        info_span!("plain"),
        info_span!("user", user.id = "u-7", tags = Empty),
    ] {
        stays_as_it_is("futures", |n| {
            let request = session!("chat-42", metadata.step = Empty).entered();
            let work = async { drop(info_span!("below").entered()) };
            let session = Session::new(n).unwrap().with_user("u-7").unwrap();
            let work = pin!(work.instrument(span.clone()).in_session(session));
            assert!(work.poll(&mut waker).is_ready());
            drop(request);
            app.exporter.reset();
        });
    }
}

#[test]
fn sessions_set_in_one_enter_of_a_span_take_no_more_memory() {
    let subscriber = tracing_subscriber::registry().with(SessionLayer::new());
    tracing::subscriber::with_default(subscriber, || {
        let span = info_span!("worker");
        let set = |n: usize| {
            set_user_id(n).unwrap();
            let here = current_session().unwrap();
            assert_eq!(here.user_id(), Some(n.to_string().as_str()));
        };
        // OpenTelemetry's stack of `Context`s has room for fewer.
        span.in_scope(|| (0..70_000).for_each(set));
        span.in_scope(|| stays_as_it_is("sets", set));
    });
}

#[test]
fn adopted_spans_that_are_open_when_the_layer_is_replaced_take_no_more_memory() {
    let provider = SessionTracerProvider::new(SdkTracerProvider::default());
    let layer = || {
        let otel = tracing_opentelemetry::layer().with_tracer(provider.tracer("app"));
        SessionLayer::new().wrap(otel)
    };
    let (reloadable, handle) = reload::Layer::new(layer());
    let subscriber = tracing_subscriber::registry().with(reloadable);
    tracing::subscriber::with_default(subscriber, || {
        stays_as_it_is("reloads", |_| {
            let connection = info_span!("connection");
            for _ in 0..2 {
                let request = async {}.instrument(connection.clone());
                let request = pin!(request.in_session(Session::new("chat-42").unwrap()));
                let mut waker = Context::from_waker(Waker::noop());
                assert!(request.poll(&mut waker).is_ready());
                handle.reload(layer()).unwrap();
            }
        });
    });
}
