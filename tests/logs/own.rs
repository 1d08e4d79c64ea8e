//! What a record says itself.

use crate::logs::{App, chat};
use tracing::info;
use tracing_session::{Dialect, Session, processors::SessionLogProcessor, session};

#[test]
fn own_id_wins_and_is_not_doubled() {
    let app = App::new();
    chat().in_scope(|| {
        info!(session.id = "own", "session");
        info!(user.id = "own", "user");
        info!(session.id = %"own", user.id = ?"own", "both");
        info!("neither");
    });
    info!(session.id = "own", "outside");
    app.exports(&[
        "session session.id=own user.id=u-7",
        "user user.id=own session.id=chat-42",
        "both session.id=own user.id=\"own\"",
        "neither session.id=chat-42 user.id=u-7",
        "outside session.id=own",
    ]);
}

#[test]
fn own_id_is_written_under_the_other_keys_of_the_dialect() {
    let dialect = Dialect::OPENINFERENCE.and(Dialect::LANGFUSE);
    let app = App::with_processor(SessionLogProcessor::new().with_dialect(dialect));
    chat().in_scope(|| {
        info!(session.id = "own", "session");
        info!(langfuse.user.id = ?"own", "user");
        info!(session.id = "\n", "no id");
        info!(session.id = ?Some("own"), "some");
        info!(session.id = ?None::<&str>, "none");
    });
    app.exports(&[
        "session session.id=own user.id=u-7 langfuse.session.id=own langfuse.user.id=u-7",
        "user langfuse.user.id=\"own\" session.id=chat-42 user.id=u-7 langfuse.session.id=chat-42",
        "no id session.id=\n user.id=u-7 langfuse.session.id=chat-42 langfuse.user.id=u-7",
        "some session.id=Some(\"own\") user.id=u-7 langfuse.session.id=own langfuse.user.id=u-7",
        "none session.id=None user.id=u-7 langfuse.session.id=chat-42 langfuse.user.id=u-7",
    ]);
}

#[test]
fn first_of_several_own_ids_wins() {
    let dialect = Dialect::OPENINFERENCE
        .and(Dialect::LANGFUSE)
        .and(Dialect::GEN_AI);
    let app = App::with_processor(SessionLogProcessor::new().with_dialect(dialect));
    Session::new("chat-42").unwrap().in_scope(|| {
        info!(session.id = "one", langfuse.session.id = "two", "two");
        info!(session.id = "one", langfuse.session.id = "\n", "no id");
    });
    app.exports(&[
        "two session.id=one langfuse.session.id=two gen_ai.conversation.id=one",
        "no id session.id=one langfuse.session.id=\n gen_ai.conversation.id=one",
    ]);
}

#[test]
fn own_metadata_and_tags_replace_those_of_the_session() {
    let app = App::new();
    let session = Session::new("chat-42").unwrap();
    let session = session.with_metadata("tenant", "acme").unwrap();
    let session = session.with_tags(["beta"]).unwrap();
    session.in_scope(|| info!(metadata = "{}", tag.tags = "own", "own"));
    app.exports(&["own metadata={} tag.tags=own session.id=chat-42"]);
}

/// Fields of an event open no scope, unlike those of a span.
#[test]
fn own_id_is_not_inherited() {
    let app = App::new();
    session!("chat-42").in_scope(|| {
        info!(session.id = "own", "own");
        info!("next");
    });
    app.exports(&["own session.id=own", "next session.id=chat-42"]);
}
