//! Spans that a filter hides (B8).

use crate::inherits::session_of;
use crate::support::{App, values};
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};
use tracing::level_filters::LevelFilter;
use tracing::{Level, debug, debug_span, info_span, trace_span};
use tracing_session::{
    SessionLayer, SessionTracerProvider, current_session, current_session_id, session, user,
};
use tracing_subscriber::Layer;
use tracing_subscriber::prelude::*;

#[test]
fn span_filtered_out_by_wrap_filtered_sets_the_session() {
    let app = App::with_layer(|otel| {
        SessionLayer::new()
            .with_opener_level(Level::DEBUG)
            .wrap_filtered(otel, LevelFilter::INFO)
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
        debug_span!("user", user.id = "u-8").in_scope(|| info_span!("both").in_scope(|| {}));
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
fn explicit_children_inherit_through_a_filtered_out_span_and_beside_one() {
    let app = App::with_layer(|otel| {
        SessionLayer::new()
            .with_opener_level(Level::DEBUG)
            .wrap_filtered(otel, LevelFilter::INFO)
    });
    let session = session!("chat-42");
    let child = info_span!(parent: &session, "child");
    let _elsewhere = session!(parent: None, "chat-43").entered();
    let hidden = debug_span!(parent: &child, "user", user.id = "u-7");
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
fn filtered_out_span_that_sets_nothing_passes_on_its_parents_session() {
    // Takes everything: then `tracing` asks the filters of each span.
    let _other = tracing::Dispatch::new(tracing_subscriber::registry());
    let app = App::with_layer(|otel| {
        SessionLayer::new()
            .with_opener_level(Level::DEBUG)
            .wrap_filtered(otel, LevelFilter::INFO)
    });
    let elsewhere = session!("chat-42");
    debug_span!(parent: &elsewhere, "hidden").in_scope(|| {
        assert_eq!(current_session_id().as_deref(), Some("chat-42"));
        info_span!("inside").in_scope(|| {});
    });
    debug_span!(parent: None, "hidden").in_scope(|| {
        assert_eq!(current_session(), None);
        info_span!("inside").in_scope(|| {});
    });
    drop(elsewhere);
    app.exports(
        "
        session session.id=chat-42
        inside session.id=chat-42
        inside
        ",
    );
}

#[test]
fn wrap_filtered_enables_nothing_else() {
    // Where there is another subscriber in the process, `tracing` asks the filters of each span.
    if !crate::support::alone(test_name!(), &[]) {
        return;
    }
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder()
        .with_simple_exporter(exporter.clone())
        .build();
    let provider = SessionTracerProvider::new(provider);
    let otel = tracing_opentelemetry::layer().with_tracer(provider.tracer("app"));
    let layer = SessionLayer::new()
        .with_opener_level(Level::DEBUG)
        .wrap_filtered(otel, LevelFilter::INFO);
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
fn span_filtered_out_on_the_opentelemetry_layer_sets_nothing() {
    let app = App::with_layer(|otel| SessionLayer::new().wrap(otel.with_filter(LevelFilter::INFO)));
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
