//! A layer is reloaded, or its subscriber is dropped, while spans are entered: the thread is clean afterwards.

use crate::inherits::session_of;
use crate::support::App;
use opentelemetry::Context;
use opentelemetry::trace::{TraceContextExt, TracerProvider};
use tracing::{Dispatch, dispatcher, info_span};
use tracing_session::{Session, SessionLayer, current_session, current_session_id, session, user};
use tracing_subscriber::prelude::*;
use tracing_subscriber::{Registry, reload};

fn assert_clean() {
    assert_eq!(current_session(), None);
    assert!(!Context::current().span().span_context().is_valid());
}

/// An application whose layer, around the OpenTelemetry layer, can be replaced.
macro_rules! reloadable {
    ($app:ident, $new:ident) => {
        let mut handle = None;
        let $app = App::with_layer(|otel| {
            let (layer, reload) = reload::Layer::new(SessionLayer::new().wrap(otel));
            handle = Some(reload);
            layer
        });
        let handle = handle.unwrap();
        let tracer = || $app.provider.tracer("reloaded");
        let $new = || {
            let otel = tracing_opentelemetry::layer().with_tracer(tracer());
            handle.reload(SessionLayer::new().wrap(otel)).unwrap();
        };
    };
}

#[test]
fn thread_is_clean_after_a_reload_in_a_span() {
    reloadable!(app, reload);
    let entered = session!("chat-42").entered();
    let inner = info_span!("inner").entered();
    reload();
    drop(inner);
    drop(entered);
    assert_clean();
    info_span!("next").in_scope(|| {});
    let next = app.span("next");
    assert_eq!(session_of(&next), [""; 0]);
    assert_eq!(next.parent_span_id, opentelemetry::trace::SpanId::INVALID);
}

#[test]
fn thread_is_clean_after_a_reload_when_the_parent_is_exited_first() {
    reloadable!(app, reload);
    let (outer, inner) = (session!("chat-42"), user!("u-7"));
    let outer = outer.entered();
    let inner = inner.entered();
    reload();
    drop(outer);
    drop(inner);
    assert_clean();
    info_span!("next").in_scope(|| {});
    assert_eq!(session_of(&app.span("next")), [""; 0]);
}

/// The same for people who only log.
fn logging() -> (Dispatch, reload::Handle<Option<SessionLayer>, Registry>) {
    let (layer, handle) = reload::Layer::new(Some(SessionLayer::new()));
    let subscriber = tracing_subscriber::registry().with(layer);
    (Dispatch::new(subscriber), handle)
}

#[test]
fn thread_without_an_opentelemetry_layer_is_clean_after_a_reload_in_a_span() {
    for is_on in [true, false] {
        let (dispatch, handle) = logging();
        dispatcher::with_default(&dispatch, || {
            let outer = session!("chat-42").entered();
            let inner = info_span!("inner").entered();
            handle.reload(is_on.then(SessionLayer::new)).unwrap();
            drop(inner);
            drop(outer);
            assert_clean();
            info_span!("next").in_scope(assert_clean);
        });
        assert_clean();
    }
}

/// Spans that are open when the layer is replaced.
#[test]
fn spans_without_an_opentelemetry_layer_keep_their_session_after_a_reload() {
    let (dispatch, handle) = logging();
    dispatcher::with_default(&dispatch, || {
        let is_here = |id| assert_eq!(current_session_id().as_deref(), Some(id));
        let chat = session!("chat-42");
        let below = chat.in_scope(|| info_span!("below"));
        handle.reload(Some(SessionLayer::new())).unwrap();
        for span in [&chat, &below] {
            span.in_scope(|| is_here("chat-42"));
            session!("other").in_scope(|| span.in_scope(|| is_here("chat-42")));
            info_span!(parent: span, "child").in_scope(|| is_here("chat-42"));
        }
        assert_clean();
    });
}

#[test]
fn session_stays_current_until_the_span_is_exited_after_a_reload() {
    let (dispatch, handle) = logging();
    dispatcher::with_default(&dispatch, || {
        let outer = session!("chat-42").entered();
        handle.reload(Some(SessionLayer::new())).unwrap();
        info_span!("inner").in_scope(|| {
            assert_eq!(current_session_id().as_deref(), Some("chat-42"));
        });
        drop(outer);
        assert_clean();
    });
}

#[test]
fn thread_without_an_opentelemetry_layer_is_clean_when_the_parent_is_exited_first() {
    for reloads in [false, true] {
        let (dispatch, handle) = logging();
        dispatcher::with_default(&dispatch, || {
            let outer = session!("chat-42").entered();
            let inner = user!("u-7").entered();
            if reloads {
                handle.reload(Some(SessionLayer::new())).unwrap();
            }
            drop(outer);
            let session = inner.in_scope(current_session).unwrap();
            assert_eq!(
                (session.id(), session.user_id()),
                (Some("chat-42"), Some("u-7"))
            );
            drop(inner);
            assert_clean();
        });
    }
}

#[test]
fn thread_is_clean_when_a_dispatcher_is_entered_and_exited_by_hand() {
    for reloads in [false, true] {
        let (dispatch, handle) = logging();
        let span = dispatcher::with_default(&dispatch, || session!("chat-42"));
        let id = span.id().unwrap();
        dispatch.enter(&id);
        assert_eq!(current_session_id().as_deref(), Some("chat-42"));
        if reloads {
            handle.reload(Some(SessionLayer::new())).unwrap();
        }
        dispatch.exit(&id);
        assert_clean();
    }
}

#[test]
fn thread_is_clean_after_the_subscriber_of_an_entered_span_is_dropped() {
    let (dispatch, handle) = logging();
    let span = dispatcher::with_default(&dispatch, || session!("chat-42"));
    let id = span.id().unwrap();
    dispatch.enter(&id);
    assert_eq!(current_session_id().as_deref(), Some("chat-42"));
    drop((span, dispatch, handle));
    assert_clean();
    Session::new("chat-43").unwrap().in_scope(|| {
        assert_eq!(current_session_id().as_deref(), Some("chat-43"));
    });
    assert_clean();
}
