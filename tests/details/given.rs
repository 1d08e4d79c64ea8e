//! Values that are given to a span.

use crate::details::{FULL, exports, full, with_metadata};
use crate::support::{App, values};
use tracing::info_span;
use tracing_session::{Session, session, user};

#[test]
fn session_passed_to_the_macro_reaches_no_span_created_by_its_fields() {
    let app = App::new();
    let number = |id: &str| {
        drop(session!(id));
        drop(info_span!("plain"));
        7
    };
    drop(session!(full(), number = number("chat-1")));
    drop(session!(
        "chat-2",
        number = {
            drop(session!(full()));
            7
        }
    ));
    drop(user!("u-8", number = number("chat-3")));
    exports(
        &app,
        &[
            "session session.id=chat-1",
            "plain",
            &format!("session{}", FULL.replace(" ring", " number=7 ring")),
            &format!("session{FULL}"),
            "session number=7 session.id=chat-2",
            "session session.id=chat-3",
            "plain",
            "user number=7 user.id=u-8",
        ],
    );
}

#[test]
fn sessions_passed_by_two_tasks_are_not_exchanged() {
    let app = App::new();
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(async {
        let turn = |id: &'static str, turns: usize| async move {
            let session = with_metadata(Session::new(id).unwrap(), "of", id);
            let number = async {
                for _ in 0..turns {
                    tokio::task::yield_now().await;
                }
                7
            };
            drop(session!(session, number = number.await));
        };
        // The first has to wait for less than the second, which starts in between.
        tokio::join!(turn("chat-1", 2), turn("chat-2", 3));
    });
    for span in app.spans() {
        let id = values(&span, "session.id").concat();
        let own = format!(r#"{{"of":"{id}"}}"#);
        let is_of_another = values(&span, "metadata").iter().any(|it| *it != own);
        assert!(!is_of_another, "{}", app.tree());
    }
}

/// What a task gives, and how often it waits before its span is made.
async fn gives(task: &'static str, [id, user]: [&'static str; 2], turns: usize) {
    let session = match id {
        "" => Session::default(),
        id => Session::new(id).unwrap(),
    };
    let session = match user {
        "" => session,
        user => session.with_user(user).unwrap(),
    };
    let waited = async {
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
        turns
    };
    let session = with_metadata(session, "of", task);
    drop(session!(session, task, waited = waited.await));
}

#[test]
fn sessions_passed_by_two_tasks_at_once_arrive_or_are_lost_if_their_ids_are_equal() {
    let ids = ["", "chat-1", "chat-2"].into_iter();
    let said: Vec<_> = ids
        .flat_map(|id| ["", "u-1", "u-2"].map(|user| [id, user]))
        .collect();
    for one in &said {
        for other in &said {
            let nobody = [one, other].contains(&&["", ""]);
            let is_same_user = one[1].is_empty() || other[1].is_empty() || one[1] == other[1];
            if !nobody && one[0] == other[0] && is_same_user {
                continue;
            }
            let app = App::new();
            let runtime = tokio::runtime::Builder::new_current_thread().build();
            runtime.unwrap().block_on(async {
                tokio::join!(gives("one", *one, 2), gives("other", *other, 3));
            });
            for span in app.spans() {
                let own = format!(r#"{{"of":"{}"}}"#, values(&span, "task").concat());
                let metadata = values(&span, "metadata");
                let is_right = match one == other {
                    true => metadata.iter().all(|it| *it == own),
                    false => metadata == [own],
                };
                assert!(is_right, "{one:?} {other:?} {}", app.tree());
            }
        }
    }
}

#[test]
fn passed_session_with_only_a_user_or_beside_a_user_field_arrives() {
    let app = App::new();
    let of = |session: Session| with_metadata(session, "tenant", "acme");
    drop(session!(of(Session::default().with_user("u-7").unwrap())));
    let given = Session::new("chat-42").unwrap().with_user("u-7").unwrap();
    drop(session!(of(given), user.id = "u-8"));
    for span in app.spans() {
        assert_eq!(
            values(&span, "metadata"),
            [r#"{"tenant":"acme"}"#],
            "{}",
            app.tree()
        );
    }
    assert_eq!(app.spans().len(), 2);
}
