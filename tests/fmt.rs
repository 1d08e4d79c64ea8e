//! The session in what `tracing_subscriber::fmt` prints.

mod values;

use crate::support::Printed;
use serde_json::{Value, json};
use tracing::{info, info_span};
use tracing_session::fmt::with_session;
use tracing_session::{Session, SessionLayer, session};
use tracing_subscriber::fmt::{FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::Layered;
use tracing_subscriber::prelude::*;
use tracing_subscriber::{Registry, fmt};

impl<'a> MakeWriter<'a> for Printed {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

type Base = Layered<SessionLayer, Registry>;

/// What is printed of `work`, with a `SessionLayer` and no OpenTelemetry layer.
fn printed<N, E>(
    layer: impl FnOnce(fmt::Layer<Base>) -> fmt::Layer<Base, N, E>,
    work: impl FnOnce(),
) -> String
where
    N: for<'writer> FormatFields<'writer> + Send + Sync + 'static,
    E: FormatEvent<Base, N> + Send + Sync + 'static,
{
    let printed = Printed::default();
    let layer = layer(fmt::layer().with_ansi(false)).with_writer(printed.clone());
    let subscriber = tracing_subscriber::registry()
        .with(SessionLayer::new())
        .with(layer);
    tracing::subscriber::with_default(subscriber, work);
    let bytes = printed.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

fn parsed(text: &str) -> Vec<Value> {
    let lines = text.lines();
    lines.map(|it| serde_json::from_str(it).unwrap()).collect()
}

fn chat() -> Session {
    Session::new("chat-42").unwrap().with_user("u-7").unwrap()
}

fn work() {
    info!("before");
    chat().in_scope(|| info!(tokens = 12, "answered"));
    session!("chat-43").in_scope(|| info_span!("below").in_scope(|| info!("below")));
    info!("after");
}

#[test]
fn ids_are_at_the_end_of_a_line() {
    let full = |layer: fmt::Layer<Base>| layer.without_time().map_event_format(with_session);
    assert_eq!(
        printed(full, work),
        " INFO main::fmt: before\n \
          INFO main::fmt: answered tokens=12 session.id=\"chat-42\" user.id=\"u-7\"\n \
          INFO session{session.id=\"chat-43\"}:below: main::fmt: below session.id=\"chat-43\"\n \
          INFO main::fmt: after\n"
    );
}

#[test]
fn ids_are_at_the_end_of_a_compact_line() {
    let compact = |layer: fmt::Layer<Base>| {
        let layer = layer.compact().without_time();
        layer.map_event_format(with_session)
    };
    assert_eq!(
        printed(compact, work),
        " INFO main::fmt: before\n \
          INFO main::fmt: answered tokens=12 session.id=\"chat-42\" user.id=\"u-7\"\n \
          INFO session:below: main::fmt: below session.id=\"chat-43\" session.id=\"chat-43\"\n \
          INFO main::fmt: after\n"
    );
}

#[test]
fn ids_are_a_separate_line_if_an_event_has_several() {
    let pretty = |layer: fmt::Layer<Base>| {
        let layer = layer.pretty().without_time().with_file(false);
        layer.with_line_number(false).map_event_format(with_session)
    };
    assert_eq!(
        printed(pretty, work),
        "   INFO main::fmt: before\n\n   \
            INFO main::fmt: answered, tokens: 12\n    \
             with session.id: \"chat-42\", user.id: \"u-7\"\n\n   \
            INFO main::fmt: below\n    \
             in main::fmt::below\n    \
             in main::fmt::session with session.id: \"chat-43\"\n    \
             with session.id: \"chat-43\"\n\n   \
            INFO main::fmt: after\n\n"
    );
}

#[test]
fn colours_follow_the_layer() {
    let colored = |layer: fmt::Layer<Base>| layer.with_ansi(true).without_time();
    let plain = printed(colored, || info!(tokens = 12, "answered"));
    assert!(plain.contains("\x1b[3mtokens\x1b[0m\x1b[2m=\x1b[0m12"));
    let full = |layer: fmt::Layer<Base>| colored(layer).map_event_format(with_session);
    let in_session = printed(full, || chat().in_scope(|| info!(tokens = 12, "answered")));
    let ids = " \x1b[3msession.id\x1b[0m\x1b[2m=\x1b[0m\"chat-42\" \
               \x1b[3muser.id\x1b[0m\x1b[2m=\x1b[0m\"u-7\"\n";
    assert_eq!(in_session, plain.trim_end().to_owned() + ids);

    let pretty = |layer: fmt::Layer<Base>| {
        let layer = layer.pretty().with_ansi(true).without_time();
        layer.with_file(false).map_event_format(with_session)
    };
    let in_session = printed(pretty, || chat().in_scope(|| info!("answered")));
    assert!(in_session.contains("\x1b[32m"), "{in_session:?}");
    assert!(
        in_session.ends_with(
            "\n    \x1b[2;3mwith\x1b[0m \x1b[1msession.id\x1b[0m: \"chat-42\", \
             \x1b[1muser.id\x1b[0m: \"u-7\"\n\n"
        ),
        "{in_session:?}"
    );
}

#[test]
fn ids_are_members_of_the_object() {
    let json = |layer: fmt::Layer<Base>| layer.json().map_event_format(with_session);
    let text = printed(json, work);
    let lines = parsed(&text);
    let ids = |line: &Value| {
        (
            line.get("session.id").cloned(),
            line.get("user.id").cloned(),
        )
    };
    let all: Vec<_> = lines.iter().map(ids).collect();
    assert_eq!(
        all,
        [
            (None, None),
            (Some(json!("chat-42")), Some(json!("u-7"))),
            (Some(json!("chat-43")), None),
            (None, None),
        ]
    );
    // And the rest is as it was.
    assert_eq!(
        lines[1]["fields"],
        json!({"message": "answered", "tokens": 12})
    );
    assert_eq!(lines[2]["span"], json!({"name": "below"}));
    let second = text.lines().nth(1).unwrap();
    assert!(second.starts_with("{\"session.id\":\"chat-42\",\"user.id\":\"u-7\",\"timestamp\":"));
}

#[test]
fn line_is_valid_with_any_id() {
    let ids = [
        "a\"b",
        "a\\b",
        "a\\\"b",
        "\"",
        "\\",
        "{\"a\":1}",
        "é 会話 🙂",
        "a=b user.id=\"root\"",
        "\u{ad}x\u{2028}y",
    ];
    for id in ids {
        let said = || Session::new(id).unwrap().in_scope(|| info!("in"));
        let json = |layer: fmt::Layer<Base>| layer.json().map_event_format(with_session);
        assert_eq!(parsed(&printed(json, said))[0]["session.id"], id);
        let full = |layer: fmt::Layer<Base>| layer.without_time().map_event_format(with_session);
        let line = printed(full, said);
        assert_eq!(line, format!(" INFO main::fmt: in session.id={id:?}\n"));
    }
}

#[test]
fn object_without_members_is_valid_too() {
    let json = |layer: fmt::Layer<Base>| {
        let layer = layer.json().without_time().with_level(false);
        let layer = layer.with_target(false).flatten_event(true);
        layer.map_event_format(with_session)
    };
    let empty = || {
        info!(nothing = tracing::field::Empty);
        chat().in_scope(|| info!(nothing = tracing::field::Empty));
    };
    let text = printed(json, empty);
    assert_eq!(
        text,
        "{}\n{\"session.id\":\"chat-42\",\"user.id\":\"u-7\"}\n"
    );
}

#[test]
fn line_without_fields_has_one_space_before_the_ids() {
    let full = |layer: fmt::Layer<Base>| layer.without_time().map_event_format(with_session);
    let empty = || chat().in_scope(|| info!(nothing = tracing::field::Empty));
    assert_eq!(
        printed(full, empty),
        " INFO main::fmt: session.id=\"chat-42\" user.id=\"u-7\"\n"
    );
}

#[test]
fn message_of_several_lines_ends_with_the_ids() {
    let full = |layer: fmt::Layer<Base>| layer.without_time().map_event_format(with_session);
    let lines = || {
        Session::new("chat-42")
            .unwrap()
            .in_scope(|| info!("one\ntwo\n"))
    };
    assert_eq!(
        printed(full, lines),
        " INFO main::fmt: one\ntwo session.id=\"chat-42\"\n\n"
    );
    // Nor is a text taken for JSON.
    let bare = |layer: fmt::Layer<Base>| {
        let layer = layer.without_time().with_level(false).with_target(false);
        layer.map_event_format(with_session)
    };
    let text = || {
        Session::new("chat-42")
            .unwrap()
            .in_scope(|| info!("{{\"a\":1}}"))
    };
    assert_eq!(printed(bare, text), "{\"a\":1} session.id=\"chat-42\"\n");
}

#[test]
fn session_is_on_the_lines_of_a_fmt_subscriber() {
    let printed = Printed::default();
    let subscriber = tracing_subscriber::fmt()
        .json()
        .with_writer(printed.clone())
        .map_event_format(with_session)
        .finish()
        .with(SessionLayer::new());
    tracing::subscriber::with_default(subscriber, || {
        session!("chat-42").in_scope(|| info!("in"));
    });
    let text = String::from_utf8(printed.0.lock().unwrap().clone()).unwrap();
    assert_eq!(parsed(&text)[0]["session.id"], "chat-42");
}

/// The line is formatted apart: one that fails leaves nothing behind for the next.
#[test]
fn line_that_cannot_be_formatted_leaves_nothing_behind() {
    struct Fails;

    impl std::fmt::Debug for Fails {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("half of it")?;
            Err(std::fmt::Error)
        }
    }

    let full = |layer: fmt::Layer<Base>| {
        let layer = layer.without_time().log_internal_errors(false);
        layer.map_event_format(with_session)
    };
    let text = printed(full, || {
        chat().in_scope(|| {
            info!(field = ?Fails, "fails");
            info!("next");
        });
    });
    assert_eq!(
        text,
        " INFO main::fmt: next session.id=\"chat-42\" user.id=\"u-7\"\n"
    );
}
