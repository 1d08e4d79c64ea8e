//! Values that are given to a span.

use crate::support::{App, values};
use crate::{FULL, exports, full, with_metadata};
use tracing::info_span;
use tracing_session::{Session, session, user};

#[test]
fn value_given_to_a_span_is_for_no_span_that_is_made_for_its_fields() {
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
fn values_given_to_spans_of_two_tasks_are_not_exchanged() {
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
