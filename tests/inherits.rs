//! Who inherits a scope (B).

mod adopted;
mod detached;
mod dropped;
mod edges;
mod entered_by_several;
mod equal_ids;
mod filtered_out;
mod hidden;
mod left_behind;
mod levels;
mod opentelemetry_spans;
mod parents;
mod reloaded;
mod set_ups;
mod unexported;

use crate::support::{App, remote, values};
use futures_util::{Stream, StreamExt};
use opentelemetry_sdk::trace::SpanData;
use tracing::{Instrument, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_session::{InSession, Session, current_session, session, user};

fn session_of(span: &SpanData) -> Vec<String> {
    values(span, "session.id")
}

/// A session span that continues a trace from elsewhere.
fn continued(id: &str) -> tracing::Span {
    let session = session!(id);
    session.set_parent(remote()).unwrap();
    session
}

// B1

#[test]
fn contextual_children_inherit_to_any_depth() {
    fn nest(depth: usize) {
        if depth > 0 {
            info_span!("nested").in_scope(|| nest(depth - 1));
        }
    }
    let app = App::new();
    session!("chat-42").in_scope(|| nest(100));
    let spans = app.spans();
    assert_eq!(spans.len(), 101);
    assert!(spans.iter().all(|span| session_of(span) == ["chat-42"]));
}

// B2

#[test]
fn explicit_children_inherit_from_their_parent_entered_or_not() {
    let app = App::new();
    let session = session!("chat-42");
    let never_entered = info_span!(parent: &session, "never entered");
    let other = session!("chat-43").entered();
    info_span!(parent: &session, "of the session").in_scope(|| {});
    info_span!(parent: &never_entered, "of its child").in_scope(|| {
        info_span!("below").in_scope(|| {});
    });
    drop((other, never_entered, session));
    app.exports(
        "
        session session.id=chat-42
          never entered session.id=chat-42
            of its child session.id=chat-42
              below session.id=chat-42
          of the session session.id=chat-42
        session session.id=chat-43
        ",
    );
}

#[test]
fn explicit_child_that_sets_one_id_inherits_the_other() {
    let app = App::new();
    let session = session!("chat-42");
    let _elsewhere = user!("u-1").entered();
    info_span!(parent: &session, "user", user.id = "u-7").in_scope(|| {
        info_span!("below").in_scope(|| {});
    });
    drop(session);
    assert_eq!(
        app.tree(),
        "session session.id=chat-42\n  user user.id=u-7 session.id=chat-42\n    \
         below session.id=chat-42 user.id=u-7\n"
    );
}

// B3

#[test]
fn spans_that_are_never_entered_inherit_and_set_sessions() {
    let app = App::new();
    let session = session!("chat-42");
    drop(info_span!(parent: &session, "child"));
    drop(session);
    session!("chat-43").in_scope(|| drop(info_span!("contextual")));
    app.exports(
        "
        session session.id=chat-42
          child session.id=chat-42
        session session.id=chat-43
          contextual session.id=chat-43
        ",
    );
}

// B4

#[test]
fn tasks_threads_and_streams_keep_the_session_they_were_created_in() {
    let app = App::new();
    let step = |name: &'static str| match name {
        "awaited" => info_span!("awaited"),
        "spawned" => info_span!("spawned"),
        "blocking" => info_span!("blocking"),
        "thread" => info_span!("thread"),
        "detached" => info_span!("detached"),
        _ => info_span!("item"),
    };
    app.runtime().block_on(async {
        let (release, released) = tokio::sync::oneshot::channel::<()>();
        let mut spawned = None;
        let turn = async {
            async { tokio::task::yield_now().await }
                .instrument(step("awaited"))
                .await;
            tokio::spawn(async { tokio::task::yield_now().await }.instrument(step("spawned")))
                .await
                .unwrap();
            let span = step("blocking");
            tokio::task::spawn_blocking(move || span.in_scope(|| step("item").in_scope(|| {})))
                .await
                .unwrap();
            // `tracing` closes a parent only on a thread that has its dispatcher.
            let (span, dispatch) = (step("thread"), app.dispatch.clone());
            let close = move || tracing::dispatcher::with_default(&dispatch, || drop(span));
            std::thread::spawn(close).join().unwrap();
            let items = futures_util::stream::iter(0..3).then(|_| async {
                tokio::task::yield_now().await;
                step("item").in_scope(|| {});
            });
            items.collect::<Vec<_>>().await;
            let detached = async move {
                released.await.unwrap();
                step("item").in_scope(|| {});
            };
            spawned = Some(tokio::spawn(detached.instrument(step("detached"))));
        };
        turn.instrument(session!("chat-42")).await;
        assert_eq!(current_session(), None);
        release.send(()).unwrap();
        spawned.unwrap().await.unwrap();
    });
    let spans = app.spans();
    assert_eq!(spans.len(), 11, "{}", app.tree());
    assert!(
        spans.iter().all(|span| session_of(span) == ["chat-42"]),
        "{}",
        app.tree()
    );
}

#[test]
fn session_value_moves_with_a_spawned_future_and_a_stream() {
    let app = App::new();
    app.runtime().block_on(async {
        let session = Session::new("chat-42").unwrap();
        let work = async {
            tokio::task::yield_now().await;
            info_span!("spawned").in_scope(|| {});
        };
        tokio::spawn(work.in_session(session.clone()))
            .await
            .unwrap();
        let items = futures_util::stream::repeat_with(|| info_span!("item").in_scope(|| {}));
        let items = items.take(2).in_session(session);
        assert_eq!(items.collect::<Vec<_>>().await.len(), 2);
        info_span!("outside").in_scope(|| {});
    });
    app.exports(
        "
        spawned session.id=chat-42
        item session.id=chat-42
        item session.id=chat-42
        outside
        ",
    );
}

#[test]
fn stream_in_a_session_has_a_size_hint() {
    let items = futures_util::stream::iter(0..3).in_session(Session::generate());
    assert_eq!(items.size_hint(), (3, Some(3)));
}
