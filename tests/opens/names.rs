//! Which names open a scope (A3): the defaults, names that are added, and callsites that are chosen.

use crate::opens::{extracted, work};
use crate::support::{self, App, values};
use std::collections::HashMap;
use tracing::field::Empty;
use tracing::level_filters::LevelFilter;
use tracing::{Level, Span, debug_span, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_session::{
    Session, SessionLayer, SessionPropagator, current_session_id, propagation::propagated_context,
    session, user,
};
use tracing_subscriber::prelude::*;

#[test]
fn names_set_on_the_layer_add_to_the_defaults() {
    let app = App::with(|layer| {
        layer
            .with_session_span("conversation")
            .with_session_span("dialogue")
            .with_session_field("conversation_id")
            .with_user_span("customer")
            .with_user_field("enduser.id")
    });
    info_span!("conversation", id = "chat-42").in_scope(|| {});
    info_span!("dialogue", id = "chat-43").in_scope(work);
    info_span!("request", conversation_id = "chat-44", enduser.id = "u-7").in_scope(work);
    info_span!("customer", id = "u-8").in_scope(work);
    info_span!("session", id = "chat-45").in_scope(|| {});
    info_span!("request", session.id = "chat-46", user.id = "u-9").in_scope(|| {});
    app.exports(
        "
        conversation session.id=chat-42
        dialogue session.id=chat-43
          work session.id=chat-43
            call session.id=chat-43
        request conversation_id=chat-44 enduser.id=u-7 session.id=chat-44 user.id=u-7
          work session.id=chat-44 user.id=u-7
            call session.id=chat-44 user.id=u-7
        customer user.id=u-8
          work user.id=u-8
            call user.id=u-8
        session session.id=chat-45
        request session.id=chat-46 user.id=u-9
        ",
    );
}

#[test]
fn without_default_names_the_default_spans_and_fields_set_nothing() {
    let layer = |layer: SessionLayer| {
        layer
            .with_session_span("conversation")
            .without_default_names()
            .with_session_field("chat")
    };
    let app = App::with(layer);
    info_span!("session", id = "tls-1", session.id = "tls-2").in_scope(work);
    info_span!("user", id = "root", user.id = 0).in_scope(work);
    info_span!("conversation", id = "chat-42").in_scope(|| {});
    info_span!("request", chat = "chat-43").in_scope(|| {});
    app.exports(
        "
        session id=tls-1 session.id=tls-2
          work
            call
        user id=root user.id=I64(0)
          work
            call
        conversation session.id=chat-42
        request chat=chat-43 session.id=chat-43
        ",
    );
}

#[test]
fn default_name_that_is_added_still_works_without_the_defaults() {
    let app = App::with(|layer| {
        layer
            .with_session_field("session.id")
            .without_default_names()
    });
    info_span!("session", id = "tls-1").in_scope(|| {});
    info_span!("request", session.id = "chat-42", user.id = "u-7").in_scope(|| {});
    app.exports(
        "
        session id=tls-1
        request session.id=chat-42 user.id=u-7
        ",
    );
}

#[test]
fn macros_set_ids_with_any_names_of_the_layer() {
    let app = App::with(|layer| layer.without_default_names().with_opener_filter(|_| false));
    session!("chat-42").in_scope(|| user!("u-7").in_scope(|| info_span!("work").in_scope(|| {})));
    app.exports(
        "
        session session.id=chat-42
          user user.id=u-7 session.id=chat-42
            work session.id=chat-42 user.id=u-7
        ",
    );
}

#[test]
fn field_id_of_macro_spans_is_an_attribute() {
    let app = App::with(|layer| layer.with_user_span("user"));
    session!("chat-42", id = 7).in_scope(|| user!("u-7", id = 8).in_scope(|| {}));
    app.exports(
        "
        session session.id=chat-42 id=I64(7)
          user user.id=u-7 id=I64(8) session.id=chat-42
        ",
    );
}

// A3, by callsite. The session came with headers, and a library has a `session.id` of its own.

#[test]
fn filter_keeps_the_fields_of_a_library_from_setting_the_session() {
    let library = || info_span!(target: "websocket", "frame", session.id = "tls-1").in_scope(work);
    let serve = || {
        let cx = extracted("chat-42");
        let request = info_span!("request");
        request.set_parent(cx).unwrap();
        request.in_scope(library);
    };
    let app = App::new();
    serve();
    app.exports(
        "
        request session.id=chat-42
          frame session.id=tls-1
            work session.id=tls-1
              call session.id=tls-1
        ",
    );
    drop(app);
    let app = App::with(|it| it.with_opener_filter(|span| span.target() != "websocket"));
    serve();
    app.exports(
        "
        request session.id=chat-42
          frame session.id=tls-1
            work session.id=chat-42
              call session.id=chat-42
        ",
    );
}

/// Runs work in the session of headers.
type Way = fn(&mut dyn FnMut());

/// Each way in which a session of headers becomes current.
const FROM_HEADERS: &[(&str, Way)] = &[
    ("attached", |work| {
        let _attached = extracted("chat-42").attach();
        work();
    }),
    ("set_parent", |work| {
        let request = info_span!("request");
        request.set_parent(extracted("chat-42")).unwrap();
        request.in_scope(work);
    }),
    ("propagated_context", |work| {
        support::propagate(SessionPropagator::new());
        let headers = [("baggage".to_owned(), "session.id=chat-42".to_owned())];
        let cx = propagated_context(&HashMap::from(headers));
        let _attached = cx.attach();
        info_span!("request").in_scope(work);
    }),
    ("read back", |work| {
        let session = Session::of(&extracted("chat-42")).unwrap();
        session.in_scope(work);
    }),
];

#[test]
fn filter_keeps_spans_named_session_of_a_library_from_replacing_the_session_of_headers() {
    let library = || {
        info_span!(target: "proxy::protocol", "session", id = 7_u64).in_scope(work);
    };
    for (name, from_headers) in FROM_HEADERS {
        // The name is implicit, and replaces an id of headers.
        let app = App::new();
        from_headers(&mut || library());
        assert_eq!(values(&app.span("call"), "session.id"), ["7"], "{name}");
        drop(app);
        let app = App::with(|it| it.with_opener_filter(|span| !span.target().starts_with("proxy")));
        from_headers(&mut || library());
        for span in ["session", "work", "call"] {
            assert_eq!(values(&app.span(span), "session.id"), ["chat-42"], "{name}");
        }
        assert_eq!(values(&app.span("session"), "id"), ["7"], "{name}");
        // Spans of the application's own code still count.
        from_headers(&mut || {
            info_span!("session", id = "chat-43").in_scope(|| info_span!("own").in_scope(|| {}))
        });
        assert_eq!(
            values(&app.span("own"), "session.id"),
            ["chat-43"],
            "{name}"
        );
        assert_eq!(app.diagnostics.messages(), [""; 0], "{name}");
    }
}

#[test]
fn filter_chooses_by_target_name_and_level() {
    let filters: [fn(&tracing::Metadata<'_>) -> bool; 3] = [
        |span| span.target() == "chat",
        |span| span.name() == "turn",
        |span| *span.level() <= Level::WARN,
    ];
    for (number, filter) in filters.into_iter().enumerate() {
        let app = App::with(|layer| layer.with_opener_filter(filter));
        let spans = [
            info_span!(target: "chat", "a", session.id = "chat-42"),
            info_span!("turn", session.id = "chat-42"),
            tracing::warn_span!("b", session.id = "chat-42"),
        ];
        for (at, span) in spans.iter().enumerate() {
            let session = span.in_scope(current_session_id);
            assert_eq!(
                session.is_some(),
                at == number,
                "filter {number}, span {at}"
            );
        }
        // It may not change anything else.
        info_span!("session", id = Empty).in_scope(|| {});
        drop(spans);
        for name in ["a", "turn", "b"] {
            assert_eq!(values(&app.span(name), "session.id"), ["chat-42"]);
        }
    }
}

#[test]
fn opener_filter_applies_to_filtered_out_spans_and_without_an_opentelemetry_layer() {
    let session = || {
        debug_span!("frame", session.id = "tls-1").in_scope(|| {
            Span::current().record("session.id", "tls-2");
            current_session_id()
        })
    };
    let not_frames = || SessionLayer::new().with_opener_filter(|span| span.name() != "frame");
    let app = App::with_layer(|otel| {
        not_frames()
            .with_opener_level(tracing::Level::DEBUG)
            .wrap_filtered(otel, LevelFilter::INFO)
    });
    assert_eq!(session(), None);
    drop(app);
    let _default = tracing_subscriber::registry()
        .with(not_frames())
        .set_default();
    assert_eq!(session(), None);
}
