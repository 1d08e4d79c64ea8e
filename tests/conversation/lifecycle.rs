//! `session.start` and `session.end`.

use super::{chat, take};
use crate::support::App;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tracing::Event;
use tracing_session::{Conversation, Session, conversation::SessionRotation, current_session};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::prelude::*;

/// What is heard of events: name, session, previous session.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<[Option<String>; 3]>>>);

impl<S: tracing::Subscriber> Layer<S> for Heard {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let session = current_session().unwrap_or_default();
        let previous = session.attribute("session.previous_id");
        self.0.lock().unwrap().push([
            Some(event.metadata().name().to_owned()),
            session.id().map(str::to_owned),
            previous.map(|id| id.as_str().into_owned()),
        ]);
    }
}

impl Heard {
    fn take(&self) -> Vec<[Option<String>; 3]> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

fn heard(name: &str, id: &str, previous: Option<&str>) -> [Option<String>; 3] {
    [Some(name.into()), Some(id.into()), previous.map(Into::into)]
}

#[test]
fn session_emits_events_when_it_starts_and_ends() {
    let events = Heard::default();
    let _default = tracing_subscriber::registry()
        .with(events.clone())
        .set_default();
    let session = Session::new("chat-43").unwrap();
    session.emit_start();
    session.emit_end();
    let session = session
        .with_attribute("session.previous_id", "chat-42")
        .unwrap();
    session.emit_start();
    let expected = [
        heard("session.start", "chat-43", None),
        heard("session.end", "chat-43", None),
        heard("session.start", "chat-43", Some("chat-42")),
    ];
    assert_eq!(events.take(), expected);
}

#[test]
fn conversation_emits_events_on_request() {
    let events = Heard::default();
    let _default = tracing_subscriber::registry()
        .with(events.clone())
        .set_default();
    let mut quiet = chat();
    take(&mut quiet, "one");
    quiet.reset();
    quiet.end();
    assert_eq!(events.take(), Vec::<[Option<String>; 3]>::new());

    let mut chat = chat().with_lifecycle_events();
    assert_eq!(events.take().len(), 0);
    take(&mut chat, "one");
    take(&mut chat, "two");
    assert_eq!(events.take(), [heard("session.start", "chat-42", None)]);
    chat.reset();
    assert_eq!(events.take(), [heard("session.end", "chat-42", None)]);
    take(&mut chat, "three");
    let id = chat.session().id().unwrap().to_owned();
    assert_eq!(
        events.take(),
        [heard("session.start", &id, Some("chat-42"))]
    );
    chat.end();
    assert_eq!(events.take()[0][..2], heard("session.end", &id, None)[..2]);
}

#[test]
fn conversation_that_is_resumed_has_started_and_one_without_a_turn_has_not() {
    let events = Heard::default();
    let app = App::with_layer(|otel| tracing_session::SessionLayer::new().wrap(otel));
    let provider_of_the_test = app; // its subscriber exports; the one below hears
    let _default = tracing_subscriber::registry()
        .with(events.clone())
        .set_default();
    let resumed = |chat: &Conversation| Conversation::resume(chat.state()).with_lifecycle_events();

    let mut chat = chat().with_lifecycle_events();
    let mut not_begun = resumed(&chat);
    take(&mut not_begun, "one");
    assert_eq!(events.take().len(), 1);
    take(&mut chat, "one");
    assert_eq!(events.take().len(), 1);
    let mut begun = resumed(&chat);
    take(&mut begun, "two");
    assert_eq!(events.take().len(), 0);
    begun.end();
    assert_eq!(events.take().len(), 1);
    // Nothing started, so nothing ends.
    super::chat().with_lifecycle_events().end();
    assert_eq!(events.take().len(), 0);
    drop(provider_of_the_test);
}

#[test]
fn start_is_an_event_of_the_turns_span() {
    let app = App::new();
    let mut chat = chat().with_lifecycle_events();
    take(&mut chat, "one");
    take(&mut chat, "two");
    let events = |name| {
        let events = app.span(name).events.events;
        events
            .iter()
            .map(|event| event.name.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(events("one"), ["session.start"]);
    assert!(events("two").is_empty());
}

#[test]
fn sessions_rotate_after_an_idle_time_or_at_an_age_and_keep_their_other_values() {
    const LONG: Duration = Duration::from_secs(3600);
    let values = || Session::new("chat-42").unwrap().with_user("u-7").unwrap();
    let never = SessionRotation::new(values());
    let long = SessionRotation::new(values())
        .with_idle_timeout(LONG)
        .with_max_age(LONG);
    for sessions in [never, long] {
        assert_eq!(
            [sessions.session(), sessions.session()],
            [values(), values()]
        );
    }
    let previous = |it: &Session| it.attribute("session.previous_id").map(ToString::to_string);
    for sessions in [
        SessionRotation::new(values()).with_idle_timeout(Duration::ZERO),
        SessionRotation::new(values())
            .with_max_age(Duration::ZERO)
            .with_idle_timeout(LONG),
    ] {
        let (first, second) = (sessions.session(), sessions.session());
        assert_eq!(previous(&first).as_deref(), Some("chat-42"));
        assert_eq!(previous(&second).as_deref(), first.id());
        assert_eq!(
            (first.user_id(), second.user_id()),
            (Some("u-7"), Some("u-7"))
        );
        assert_ne!(first.id(), second.id());
    }
}
