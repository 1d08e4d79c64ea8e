//! Several subscribers and providers, and each way to put the layer on one (B11, B12).

use crate::inherits::session_of;
use crate::support::{App, remote};
use opentelemetry::trace::{Span as _, SpanKind, Status, TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tracing::level_filters::LevelFilter;
use tracing::{info_span, warn_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_session::{
    SessionLayer, SessionTracerProvider, current_session, current_session_id, session, set_user_id,
};
use tracing_subscriber::prelude::*;
use tracing_subscriber::{Layer, Registry, reload};

// B11

#[test]
fn two_subscribers_do_not_mix() {
    let first = App::with(|layer| layer.with_session_span("conversation"));
    let in_first = info_span!("conversation", id = "chat-1").entered();
    let second = App::new();
    // Both number their spans alike.
    let in_second = info_span!("session", session.id = "chat-2").entered();
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
fn two_providers_each_write_their_own_span() {
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
        SessionLayer::new().wrap(Some(otel))
    }));
}

#[test]
fn works_around_a_boxed_layer() {
    inherits(&App::with_layer(|otel| {
        SessionLayer::new().wrap(otel.boxed())
    }));
    inherits(&App::with_layer(|otel| {
        SessionLayer::new().wrap(otel).boxed()
    }));
}

#[test]
fn works_around_a_filtered_layer() {
    inherits(&App::with_layer(|otel| {
        SessionLayer::new().wrap(otel.with_filter(LevelFilter::INFO))
    }));
    inherits(&App::with_layer(|otel| {
        SessionLayer::new()
            .wrap(otel)
            .with_filter(LevelFilter::INFO)
    }));
    inherits(&App::with_layer(|otel| {
        SessionLayer::new().wrap_filtered(otel, LevelFilter::INFO)
    }));
}

#[test]
fn works_around_a_reloadable_layer() {
    inherits(&App::with_layer(|otel| {
        SessionLayer::new().wrap(reload::Layer::new(otel).0)
    }));
    inherits(&App::with_layer(|otel| {
        reload::Layer::new(SessionLayer::new().wrap(otel)).0
    }));
}

#[test]
fn explicit_opener_around_a_reloadable_layer_stays_in_its_trace() {
    let app = App::with_layer(|otel| SessionLayer::new().wrap(reload::Layer::new(otel).0));
    let outer = session!("chat-42");
    let inner = info_span!(parent: &outer, "inner", user.id = "u-7");
    info_span!(parent: &inner, "below").in_scope(|| {});
    drop((inner, outer));
    let outer = app.span("session").span_context;
    for name in ["inner", "below"] {
        let span = app.span(name);
        assert_eq!(session_of(&span), ["chat-42"], "{name}");
        assert_eq!(span.span_context.trace_id(), outer.trace_id(), "{name}");
    }
}

#[test]
fn works_when_the_layer_is_added_later() {
    let mut handle = None;
    let mut later = None;
    let app = App::with_layer(|otel| {
        later = Some(otel);
        let (layer, reloaded) = reload::Layer::new(None::<crate::support::Otel>);
        handle = Some(reloaded);
        SessionLayer::new().wrap(layer)
    });
    session!("chat-41").in_scope(|| {
        assert_eq!(current_session_id().as_deref(), Some("chat-41"));
    });
    handle.unwrap().reload(later).unwrap();
    inherits(&app);
}

#[test]
fn layers_can_be_downcast() {
    let app = App::new();
    assert!(
        app.dispatch
            .downcast_ref::<crate::support::Otel>()
            .is_some()
    );
    let around = app
        .dispatch
        .downcast_ref::<tracing_session::layer::WrappedLayer<crate::support::Otel>>();
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
        SessionLayer::new().wrap(otel).boxed()
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
fn inner_filter_is_called_for_events_and_for_the_highest_level() {
    let app = App::with_layer(|otel| SessionLayer::new().wrap(otel.with_filter(NoEvents)));
    session!("chat-42").in_scope(|| tracing::info!("an event"));
    assert!(app.span("session").events.is_empty());
    let provider = SessionTracerProvider::new(SdkTracerProvider::default());
    let otel = tracing_opentelemetry::layer().with_tracer(provider.tracer("app"));
    let layer = SessionLayer::new().wrap(otel.with_filter(LevelFilter::INFO));
    let hint = Layer::<Registry>::max_level_hint(&layer);
    assert_eq!(hint, Some(LevelFilter::INFO));
}

#[test]
fn inner_layer_receives_the_dispatcher() {
    struct Told(Arc<OnceLock<()>>);
    impl<S: tracing::Subscriber> Layer<S> for Told {
        fn on_register_dispatch(&self, _: &tracing::Dispatch) {
            self.0.set(()).unwrap();
        }
    }
    let told = Arc::new(OnceLock::new());
    let _app = App::with_layer(|otel| SessionLayer::new().wrap(otel.and_then(Told(told.clone()))));
    assert!(told.get().is_some());
}

// B12

#[test]
fn without_context_activation_spans_have_their_session_and_one_diagnostic_is_emitted() {
    let app = App::with_layer(|otel| SessionLayer::new().wrap(otel.with_context_activation(false)));
    for _ in 0..2 {
        warn_span!("outer").in_scope(|| {
            session!("chat-42").in_scope(|| info_span!("child").in_scope(|| {}));
        });
    }
    app.exports_with_diagnostics(
        "
        outer
          session session.id=chat-42
            child session.id=chat-42
        outer
          session session.id=chat-42
            child session.id=chat-42
        ",
        &["attached sessions and `current_session()` have no effect inside spans because the OpenTelemetry layer was \
           made with `with_context_activation(false)`: leave context activation on"],
    );
}

#[test]
fn without_context_activation_the_diagnostic_is_emitted_inside_a_plain_span_too() {
    let app = App::with_layer(|otel| SessionLayer::new().wrap(otel.with_context_activation(false)));
    app.provider.tracer("library").in_span("plain", |_| {
        session!("chat-42").in_scope(|| {});
        session!("chat-42").in_scope(|| {});
    });
    assert_eq!(app.diagnostics.messages().len(), 1);
}

#[test]
fn suppressed_telemetry_is_not_reported_as_missing_context_activation() {
    let app = App::new();
    let _suppressed = Context::enter_telemetry_suppressed_scope();
    info_span!("outer").in_scope(|| {
        session!("chat-42").in_scope(|| {});
        session!("chat-42").in_scope(|| {});
    });
    assert_eq!(app.diagnostics.messages(), [""; 0]);
}
