//! A finished turn is over: its span ends and is exported (DESIGN row 10).

use crate::support::{App, session, values};
use tracing::{Span, info_span};
use tracing_session::Conversation;

#[test]
fn finished_turn_is_exported_although_a_library_holds_its_span() {
    let app = App::new();
    let mut chat = Conversation::new(session("chat-42"));
    let turn = chat.turn("weather");
    let held = turn.span().in_scope(Span::current);
    turn.finish();
    assert_eq!(app.spans().len(), 1);
    assert_eq!(values(&app.span("weather"), "session.id"), ["chat-42"]);
    // Work that goes on below it is in the session still.
    held.in_scope(|| info_span!("later").in_scope(|| {}));
    let later = app.span("later");
    assert_eq!(values(&later, "session.id"), ["chat-42"]);
    assert_eq!(
        later.parent_span_id,
        app.span("weather").span_context.span_id()
    );
    drop(held);
    // And it is exported once.
    assert_eq!(app.spans().len(), 2);
}

#[test]
fn finished_turn_without_other_handles_has_its_times() {
    let app = App::with_layer(|otel| {
        tracing_session::SessionLayer::new().wrap(otel.with_tracked_inactivity(true))
    });
    let turn = Conversation::new(session("chat-42")).turn("weather");
    turn.span().in_scope(|| {});
    turn.finish();
    let times = ["busy_ns", "idle_ns"].map(|key| values(&app.span("weather"), key).len());
    assert_eq!(times, [1, 1]);
}

#[test]
fn turn_that_is_finished_in_its_own_span_is_exported() {
    let app = App::new();
    let turn = Conversation::new(session("chat-42")).turn("weather");
    let span = turn.span();
    span.in_scope(|| {
        turn.finish();
        info_span!("later").in_scope(|| {});
    });
    assert_eq!(values(&app.span("later"), "session.id"), ["chat-42"]);
    assert_eq!(app.spans().len(), 2);
}
