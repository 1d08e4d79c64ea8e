//! Sibling sessions, links, clones on other threads, scopes that are left early, and reloadable layers.

use crate::support::{App, session, values};
use tracing::{debug_span, info_span};
use tracing_session::{SessionLayer, session};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::prelude::*;
use tracing_subscriber::reload;

fn work() {
    info_span!("work").in_scope(|| info_span!("step").in_scope(|| {}));
}

#[test]
fn sibling_sessions_in_one_trace_stay_separate() {
    let app = App::new();
    info_span!("batch").in_scope(|| {
        let (one, other) = (session!("one"), session!("other"));
        one.in_scope(|| info_span!("of one").in_scope(|| {}));
        other.in_scope(|| info_span!("of other").in_scope(|| {}));
        one.in_scope(|| info_span!("of one again").in_scope(|| {}));
        info_span!("of none").in_scope(|| {});
    });
    app.exports(
        "
        batch
          session session.id=one
            of one session.id=one
            of one again session.id=one
          session session.id=other
            of other session.id=other
          of none
        ",
    );
    let traces: std::collections::HashSet<_> = app
        .spans()
        .iter()
        .map(|span| span.span_context.trace_id())
        .collect();
    assert_eq!(traces.len(), 1);
}

/// A link to a span is no place below it.
#[test]
fn span_that_follows_from_a_session_is_not_in_it() {
    let app = App::new();
    let cause = session!("chat-42");
    let effect = info_span!("effect");
    effect.follows_from(&cause);
    effect.in_scope(work);
    drop((cause, effect));
    for name in ["effect", "work", "step"] {
        assert_eq!(values(&app.span(name), "session.id"), [""; 0], "{name}");
    }
    assert_eq!(app.span("effect").links.len(), 1);
    assert_eq!(values(&app.span("session"), "session.id"), ["chat-42"]);
}

#[test]
fn span_may_be_closed_by_a_clone_on_another_thread() {
    let app = App::new();
    let (opening, inside) = session("outer").in_scope(|| {
        let opening = session!("chat-42");
        let inside = opening.in_scope(|| info_span!("inside"));
        (opening, inside)
    });
    let clones = (opening.clone(), inside.clone());
    drop((opening, inside));
    assert_eq!(app.tree(), "");
    app.on_thread(|| session("of the thread").in_scope(|| drop(clones)));
    app.exports("session session.id=chat-42\n  inside session.id=chat-42");
}

#[test]
fn session_attached_in_a_loop_ends_at_continue_and_return() {
    let app = App::new();
    let find = |wanted: usize| -> Option<usize> {
        for turn in 0..3 {
            let _turn = session(&turn.to_string()).attach();
            info_span!("turn").in_scope(|| {});
            if turn == wanted {
                return Some(turn);
            }
            if turn == 1 {
                continue;
            }
            info_span!("more").in_scope(|| {});
        }
        None
    };
    assert_eq!(find(2), Some(2));
    info_span!("after").in_scope(|| {});
    app.exports(
        "
        turn session.id=0
        more session.id=0
        turn session.id=1
        turn session.id=2
        after
        ",
    );
}

/// The layer that is reloaded has a filter inside, which hides the span that says the session.
#[test]
fn filtered_out_span_behind_a_reloadable_layer_sets_the_session() {
    let app = App::with_layer(|otel| {
        let filtered = SessionLayer::new()
            .with_opener_level(tracing::Level::DEBUG)
            .wrap_filtered(otel, LevelFilter::INFO);
        reload::Layer::new(filtered).0.boxed()
    });
    debug_span!("request", session.id = "chat-42", user.id = "u-7").in_scope(work);
    app.exports(
        "
        work session.id=chat-42 user.id=u-7
          step session.id=chat-42 user.id=u-7
        ",
    );
}
