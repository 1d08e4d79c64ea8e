//! Which session a line is in, and what of it is printed.

use crate::fmt::{Base, chat, parsed, printed};
use crate::support;
use serde_json::json;
use tracing::{info, info_span};
use tracing_session::fmt::with_session;
use tracing_session::{Privacy, Session, export::IdPolicy, session, set_session_id};
use tracing_subscriber::fmt;

#[test]
fn own_id_of_an_event_wins_and_is_not_doubled() {
    let own = || {
        chat().in_scope(|| {
            info!(session.id = "own", "session");
            info!(user.id = %"own", "user");
            info!(session.id = tracing::field::Empty, "none");
        });
    };
    let flat = |layer: fmt::Layer<Base>| {
        let layer = layer.json().flatten_event(true);
        layer.map_event_format(with_session)
    };
    let text = printed(flat, own);
    let lines = parsed(&text);
    assert_eq!(
        (&lines[0]["session.id"], &lines[0]["user.id"]),
        (&json!("own"), &json!("u-7"))
    );
    assert_eq!(
        (&lines[1]["session.id"], &lines[1]["user.id"]),
        (&json!("chat-42"), &json!("own"))
    );
    assert_eq!(lines[2]["session.id"], "chat-42");
    for line in text.lines() {
        assert_eq!(line.matches("session.id").count(), 1, "{line}");
        assert_eq!(line.matches("user.id").count(), 1, "{line}");
    }

    // Wherever among its fields it stands.
    let text = printed(flat, || {
        chat().in_scope(|| info!(session.id = "own", tokens = 12, "first"));
    });
    assert_eq!(text.matches("session.id").count(), 1, "{text}");

    let nested = |layer: fmt::Layer<Base>| layer.json().map_event_format(with_session);
    let lines = parsed(&printed(nested, own));
    assert_eq!(lines[0].get("session.id"), None);
    assert_eq!(lines[0]["fields"]["session.id"], "own");
    assert_eq!(lines[0]["user.id"], "u-7");

    let full = |layer: fmt::Layer<Base>| layer.without_time().map_event_format(with_session);
    assert_eq!(
        printed(full, own),
        " INFO main::fmt::values: session session.id=\"own\" user.id=\"u-7\"\n \
          INFO main::fmt::values: user user.id=own session.id=\"chat-42\"\n \
          INFO main::fmt::values: none session.id=\"chat-42\" user.id=\"u-7\"\n"
    );
}

#[test]
fn line_has_the_values_recorded_so_far() {
    let full = |layer: fmt::Layer<Base>| layer.without_time().map_event_format(with_session);
    let late = || {
        let request = info_span!("request", user.id = tracing::field::Empty);
        request.in_scope(|| {
            info!("early");
            request.record("user.id", "u-7");
            set_session_id("chat-42").unwrap();
            info!("late");
        });
    };
    let text = printed(full, late);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], " INFO request: main::fmt::values: early");
    assert!(lines[1].ends_with("main::fmt::values: late session.id=\"chat-42\" user.id=\"u-7\""));
}

#[test]
fn default_session_is_on_lines_outside_any_other() {
    if !support::alone(test_name!(), &[]) {
        return;
    }
    let default = Session::new("cli-1").unwrap();
    default.set_global_default().unwrap();
    let full = |layer: fmt::Layer<Base>| layer.without_time().map_event_format(with_session);
    let text = printed(full, || {
        info!("outside");
        chat().in_scope(|| info!("inside"));
    });
    assert_eq!(
        text,
        " INFO main::fmt::values: outside session.id=\"cli-1\"\n \
          INFO main::fmt::values: inside session.id=\"chat-42\" user.id=\"u-7\"\n"
    );
}

#[test]
fn explicit_parent_of_an_event_does_not_change_its_session() {
    let full = |layer: fmt::Layer<Base>| layer.without_time().map_event_format(with_session);
    let text = printed(full, || {
        let other = session!("chat-1");
        chat().in_scope(|| info!(parent: &other, "in"));
    });
    assert!(
        text.ends_with("main::fmt::values: in session.id=\"chat-42\" user.id=\"u-7\"\n"),
        "{text}"
    );
}

#[test]
fn private_values_are_not_printed() {
    let privacy = Privacy::new().with_user_ids(IdPolicy::omitted());
    let full = |layer: fmt::Layer<Base>| {
        let layer = layer.without_time();
        layer.map_event_format(|format| with_session(format).with_privacy(privacy))
    };
    let text = printed(full, || {
        chat().in_scope(|| info!("both"));
        Session::default()
            .with_user("u-7")
            .unwrap()
            .in_scope(|| info!("user"));
    });
    assert_eq!(
        text,
        " INFO main::fmt::values: both session.id=\"chat-42\"\n INFO main::fmt::values: user\n"
    );
}

#[test]
fn object_without_members_stays_so_if_the_ids_are_private() {
    let omitted = IdPolicy::omitted;
    let privacy = Privacy::new()
        .with_user_ids(omitted())
        .with_session_ids(omitted());
    let json = |layer: fmt::Layer<Base>| {
        let layer = layer.json().without_time().with_level(false);
        let layer = layer.with_target(false).flatten_event(true);
        layer.map_event_format(|format| with_session(format).with_privacy(privacy))
    };
    let text = printed(json, || {
        chat().in_scope(|| info!(nothing = tracing::field::Empty));
    });
    assert_eq!(text, "{}\n");
}

#[cfg(feature = "hash")]
#[test]
fn hash_of_the_user_replaces_the_id() {
    let privacy = Privacy::new().with_user_ids(IdPolicy::hashed("at least sixteen bytes").unwrap());
    let json = |layer: fmt::Layer<Base>| {
        let layer = layer.json();
        layer.map_event_format(|format| with_session(format).with_privacy(privacy))
    };
    let text = printed(json, || {
        chat().in_scope(|| {
            info!("hashed");
            info!(user.id = "own", "own");
        });
    });
    let lines = parsed(&text);
    assert_eq!(lines[0]["user.hash"].as_str().unwrap().len(), 64);
    assert!(!text.contains("u-7"));
    assert_eq!(lines[1].get("user.hash"), None);
}

#[test]
fn lifecycle_event_has_the_session() {
    let full = |layer: fmt::Layer<Base>| layer.without_time().map_event_format(with_session);
    let text = printed(full, || {
        chat().emit_start();
        chat().emit_end();
    });
    assert_eq!(
        text,
        " INFO tracing_session: session.start session.id=\"chat-42\" user.id=\"u-7\"\n \
          INFO tracing_session: session.end session.id=\"chat-42\" user.id=\"u-7\"\n"
    );
}
