//! `wrap_filtered` leaves the levels of the subscriber as they are: beside any neighbour, they are those of
//! `otel.with_filter(..)` without this crate.

use crate::support::{Printed, alone};
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use std::sync::Mutex;
use tracing::level_filters::LevelFilter;
use tracing::subscriber::with_default;
use tracing::{Dispatch, Level, Metadata, Subscriber, debug_span, info_span};
use tracing_session::{SessionLayer, SessionTracerProvider, current_session_id, session};
use tracing_subscriber::filter::{FilterExt, Targets, filter_fn};
use tracing_subscriber::layer::Context;
use tracing_subscriber::prelude::*;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{EnvFilter, Layer, fmt, registry, reload};

fn otel<S>() -> impl Layer<S> + Send + Sync
where
    S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
{
    let provider = SessionTracerProvider::new(SdkTracerProvider::default());
    tracing_opentelemetry::layer().with_tracer(provider.tracer("app"))
}

fn filtered<S, F>(filter: F) -> impl Layer<S> + Send + Sync
where
    S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
    F: tracing_subscriber::layer::Filter<S> + Send + Sync + 'static,
{
    SessionLayer::new().wrap_filtered(otel(), filter)
}

fn log_lines<S>() -> impl Layer<S> + Send + Sync
where
    S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
{
    fmt::layer().with_writer(Printed::default)
}

/// Spans and events of all levels and two targets, and spans of this level and below it that would set a session.
fn emit() {
    macro_rules! emit {
        ($($level:ident)*) => {$(
            tracing::span!(Level::$level, "span", answer = 42);
            tracing::span!(target: "other", Level::$level, "span");
            tracing::event!(Level::$level, "event");
            tracing::event!(target: "other", Level::$level, session.id = "chat-42", "event");
        )*};
    }
    emit!(ERROR WARN INFO DEBUG TRACE);
    debug_span!("session", id = "chat-42");
    tracing::trace_span!("session", session.id = "chat-42");
}

/// The callsites of [`emit`].
static CALLSITES: Mutex<Vec<&'static Metadata<'static>>> = Mutex::new(Vec::new());

struct Collect;

impl<S: Subscriber> Layer<S> for Collect {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        CALLSITES.lock().unwrap().push(event.metadata());
    }

    fn on_new_span(
        &self,
        span: &tracing::span::Attributes<'_>,
        _: &tracing::Id,
        _: Context<'_, S>,
    ) {
        CALLSITES.lock().unwrap().push(span.metadata());
    }
}

/// Everything that the application notices of the levels: the highest level, the callsites that are always, sometimes or
/// never enabled, and the levels that are enabled.
fn levels(subscriber: impl Into<Dispatch>) -> String {
    let dispatch = subscriber.into();
    // The filters leave their answers to questions without a span or event on the thread.
    let on_thread = std::thread::spawn(move || levels_of(&dispatch));
    on_thread.join().unwrap()
}

fn levels_of(dispatch: &Dispatch) -> String {
    tracing::dispatcher::with_default(dispatch, || {
        let interest = |callsite: &&'static Metadata<'static>| {
            let interest = dispatch.register_callsite(callsite);
            (
                callsite.is_span(),
                *callsite.level(),
                callsite.target().to_owned(),
                format!("{interest:?}"),
            )
        };
        let interests: Vec<_> = CALLSITES.lock().unwrap().iter().map(interest).collect();
        let enabled = [
            tracing::enabled!(Level::WARN),
            tracing::enabled!(Level::INFO),
            tracing::enabled!(Level::DEBUG),
            tracing::enabled!(Level::TRACE),
            tracing::enabled!(Level::DEBUG, session.id),
            !debug_span!("session", id = "chat-42").is_disabled(),
        ];
        format!("{} {enabled:?} {interests:#?}", LevelFilter::current())
    })
}

/// Asserts that the levels beside a neighbour, on either side, are as without this crate.
macro_rules! assert_same {
    ($without:expr, $with:expr, $neighbour:expr) => {
        let shown = concat!(stringify!($with), " beside ", stringify!($neighbour));
        let without = levels(registry().with($without).with($neighbour));
        let with = levels(registry().with($with).with($neighbour));
        assert_eq!(with, without, "{shown}");
        let without = levels(registry().with($neighbour).with($without));
        let with = levels(registry().with($neighbour).with($with));
        assert_eq!(with, without, "{shown}, outside");
        // Together they are one layer.
        let without = levels(registry().with($without.and_then($neighbour)));
        let with = levels(registry().with($with.and_then($neighbour)));
        assert_eq!(with, without, "{shown}, in one layer");
    };
}

macro_rules! assert_same_beside_each {
    ($($filter:expr),* $(,)?) => {$(
        let without = levels(registry().with(otel().with_filter($filter)));
        assert_eq!(levels(registry().with(filtered($filter))), without, stringify!($filter));
        assert_same!(otel().with_filter($filter), filtered($filter), None::<fmt::Layer<_>>);
        assert_same!(otel().with_filter($filter), filtered($filter), Some(log_lines()));
        assert_same!(otel().with_filter($filter), filtered($filter), log_lines());
        assert_same!(otel().with_filter($filter), filtered($filter), log_lines().with_filter(LevelFilter::WARN));
        assert_same!(otel().with_filter($filter), filtered($filter), log_lines().with_filter(LevelFilter::TRACE));
        assert_same!(otel().with_filter($filter), filtered($filter), log_lines().with_filter(EnvFilter::new("info")));
        assert_same!(otel().with_filter($filter), filtered($filter), None::<fmt::Layer<_>>.with_filter(LevelFilter::WARN));
        assert_same!(otel().with_filter($filter), filtered($filter), EnvFilter::new("debug"));
        assert_same!(otel().with_filter($filter), filtered($filter), LevelFilter::WARN);
        assert_same!(otel().with_filter($filter), filtered($filter), reload::Layer::new(None::<LevelFilter>).0);
        assert_same!(otel().with_filter($filter), filtered($filter), otel().with_filter(LevelFilter::ERROR));
    )*};
}

#[test]
fn levels_are_the_same_as_without_this_crate_beside_any_layer() {
    if !alone(test_name!(), &[]) {
        return;
    }
    with_default(registry().with(Collect), emit);
    assert_eq!(CALLSITES.lock().unwrap().len(), 22);
    assert_same_beside_each!(
        LevelFilter::INFO,
        LevelFilter::OFF,
        EnvFilter::new("info"),
        Targets::new().with_default(LevelFilter::INFO),
        Targets::new().with_target("other", LevelFilter::WARN),
        reload::Layer::new(LevelFilter::INFO).0,
        filter_fn(|callsite| callsite.target() == "other" && *callsite.level() <= Level::INFO)
            .with_max_level_hint(LevelFilter::INFO),
        LevelFilter::INFO.or(LevelFilter::WARN),
        Some(LevelFilter::INFO),
    );
    // Two of them.
    let without = levels(
        registry()
            .with(otel().with_filter(LevelFilter::INFO))
            .with(otel().with_filter(LevelFilter::WARN)),
    );
    let with = levels(
        registry()
            .with(filtered(LevelFilter::INFO))
            .with(filtered(LevelFilter::WARN)),
    );
    assert_eq!(with, without);
    // Without a filter.
    assert_same!(
        otel(),
        SessionLayer::new().wrap(otel()),
        None::<fmt::Layer<_>>
    );
    assert_same!(otel(), SessionLayer::new().wrap(otel()), log_lines());
    assert_same!(
        otel(),
        SessionLayer::new().wrap(otel()),
        log_lines().with_filter(LevelFilter::WARN)
    );
    assert_same!(
        otel().with_filter(LevelFilter::INFO),
        SessionLayer::new().wrap(otel().with_filter(LevelFilter::INFO)),
        None::<fmt::Layer<_>>
    );
}

#[test]
fn opener_level_raises_the_highest_level() {
    if !alone(test_name!(), &[]) {
        return;
    }
    let layer = || SessionLayer::new().with_opener_level(Level::DEBUG);
    let inside = |filter: LevelFilter| {
        let layer = layer().wrap_filtered(otel(), filter);
        with_default(registry().with(layer), || {
            let enabled = !debug_span!("other").is_disabled();
            let inside = debug_span!("session", id = "chat-42").in_scope(current_session_id);
            (LevelFilter::current(), inside, enabled)
        })
    };
    let chat = Some("chat-42".to_owned());
    assert_eq!(
        inside(LevelFilter::INFO),
        (LevelFilter::DEBUG, chat.clone(), false)
    );
    assert_eq!(
        inside(LevelFilter::OFF),
        (LevelFilter::DEBUG, chat.clone(), false)
    );
    assert_eq!(inside(LevelFilter::TRACE), (LevelFilter::TRACE, chat, true));
}

#[test]
fn level_follows_a_filter_that_is_reloaded() {
    if !alone(test_name!(), &[]) {
        return;
    }
    let (filter, handle) = reload::Layer::new(LevelFilter::WARN);
    let layer = SessionLayer::new().wrap_filtered(otel(), filter);
    let _default = registry().with(layer).set_default();
    let inside = || session!("chat-42").in_scope(current_session_id);
    for (level, expected) in [
        (LevelFilter::WARN, None),
        (LevelFilter::INFO, Some("chat-42")),
        (LevelFilter::ERROR, None),
        (LevelFilter::TRACE, Some("chat-42")),
    ] {
        handle.reload(level).unwrap();
        assert_eq!(LevelFilter::current(), level);
        assert_eq!(inside().as_deref(), expected, "{level}");
    }
}

#[test]
fn opener_that_a_filter_disables_by_its_target_counts_up_to_the_level_of_the_filter() {
    if !alone(test_name!(), &[]) {
        return;
    }
    let filter = Targets::new().with_target("exported", LevelFilter::INFO);
    let layer = SessionLayer::new().wrap_filtered(otel(), filter);
    let _default = registry().with(layer).set_default();
    assert_eq!(LevelFilter::current(), LevelFilter::INFO);
    let inside = info_span!("session", id = "chat-42").in_scope(current_session_id);
    assert_eq!(inside.as_deref(), Some("chat-42"));
    assert!(info_span!("other").is_disabled());
    assert!(debug_span!("session", id = "chat-42").is_disabled());
}
