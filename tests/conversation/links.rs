//! Linking by hand, and which ids can be read.

use super::{id, linked};
use crate::support::{App, values};
use opentelemetry::trace::TraceContextExt;
use tracing::info_span;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_session::{
    Session,
    conversation::{link_context, parent_context},
    session,
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

#[test]
fn span_is_linked_by_the_ids_of_another() {
    let app = App::new();
    session!("chat-42", otel.name = "one").in_scope(|| {});
    let one = app.span("one").span_context;
    let two = session!("chat-42", otel.name = "two");
    let (trace_id, span_id) = (one.trace_id().to_string(), one.span_id().to_string());
    two.add_link(link_context(&trace_id, &span_id).unwrap());
    drop(two);
    assert_eq!(linked(&app.span("two")), [id(&app, "one")]);
    assert_eq!(
        app.span("two").links.links[0].span_context.trace_id(),
        one.trace_id()
    );
}

#[test]
fn span_is_a_child_by_the_ids_of_another_and_keeps_the_current_session() {
    let app = App::new();
    Session::new("chat-42").unwrap().in_scope(|| {
        let span = info_span!("child");
        span.set_parent(parent_context(TRACE, SPAN).unwrap())
            .unwrap();
        span.in_scope(|| info_span!("below").in_scope(|| {}));
    });
    let child = app.span("child");
    assert_eq!(child.span_context.trace_id().to_string(), TRACE);
    assert_eq!(child.parent_span_id.to_string(), SPAN);
    for name in ["child", "below"] {
        assert_eq!(values(&app.span(name), "session.id"), ["chat-42"]);
    }
}

#[test]
fn ids_are_read_as_opentelemetry_w3c_b3_and_tracia_write_them() {
    let padded = "0000000000000000a3ce929d0e0e4736";
    let cases = [
        (TRACE, SPAN, TRACE),
        (
            "4BF92F3577B34DA6A3CE929D0E0E4736",
            "00F067AA0BA902B7",
            TRACE,
        ),
        ("a3ce929d0e0e4736", SPAN, padded),
        ("tr_a3ce929d0e0e4736", "sp_00f067aa0ba902b7", padded),
        ("tr_A3CE929D0E0E4736", "SP_00F067AA0BA902B7", padded),
        // Tracia takes the id of a span for a trace, and the other way round.
        ("sp_a3ce929d0e0e4736", "tr_00f067aa0ba902b7", padded),
    ];
    for (trace_id, span_id, trace) in cases {
        let context = link_context(trace_id, span_id).unwrap();
        assert_eq!(context.trace_id().to_string(), trace, "{trace_id}");
        assert_eq!(context.span_id().to_string(), SPAN, "{span_id}");
        assert!(context.is_sampled() && context.is_remote());
        let parent = parent_context(trace_id, span_id).unwrap();
        assert_eq!(parent.span().span_context(), &context);
    }
}

#[test]
fn invalid_id_is_an_error_that_does_not_contain_it() {
    let traces = [
        "",
        "4bf92f35",
        "00000000000000000000000000000000",
        "tr_0000000000000000",
        "tr_012",
        "tr_4bf92f3577b34da6a3ce929d0e0e4736",
        "xy_a3ce929d0e0e4736",
        "+bf92f3577b34da6a3ce929d0e0e4736",
        " bf92f3577b34da6a3ce929d0e0e473",
        "zbf92f3577b34da6a3ce929d0e0e4736",
        "ä\u{308}f92f3577b34da6a3ce929d0e0e47",
        "tr_existing_trace_id",
    ];
    for trace_id in traces {
        let error = link_context(trace_id, SPAN).unwrap_err();
        assert!(error.is_invalid_state(), "{trace_id}");
        assert_eq!(
            error.to_string(),
            "the text is not a trace id: use 32 hexadecimal digits, or `tr_` and 16 digits (the tracing \
             service Tracia)"
        );
    }
    for span_id in [
        "",
        "00f067aa",
        "0000000000000000",
        "sp_012",
        "+0f067aa0ba902b7",
        TRACE,
    ] {
        let error = parent_context(TRACE, span_id).unwrap_err();
        assert!(error.is_invalid_state(), "{span_id}");
        assert_eq!(
            error.to_string(),
            "the text is not a span id: use 16 hexadecimal digits, or `sp_` and 16 digits (the tracing service Tracia)"
        );
    }
}
