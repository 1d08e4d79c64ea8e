//! How many tags, metadata keys and attributes a session may have.

use crate::details::{span, with_metadata};
use crate::support::{self, App, values};
use opentelemetry::trace::{Span as _, Tracer, TracerProvider};
use opentelemetry::{KeyValue, Value};
use tracing::field::Empty;
use tracing::info_span;
use tracing_session::{Session, current_session, session};

const MOST: usize = 128;

const REPORTED: &str = "a session has more than 128 tags, metadata keys or attributes, so the last ones are \
    dropped: use one metadata key for a value that changes, or set the value as an attribute of the current span";

fn counts(session: &Session) -> [usize; 2] {
    [session.tags().count(), session.all_metadata().count()]
}

#[test]
fn value_with_too_many_is_an_error() {
    let error = "the session is full: it can have at most 128 tags, 128 metadata keys and 128 attributes: \
                 remove some, or set the value on a span";
    let tags = |range: std::ops::Range<usize>| range.map(|n| n.to_string());
    let session = Session::default().with_tags(tags(0..MOST)).unwrap();
    // Tags that it has already are none too many.
    let session = session.with_tags(tags(10..20)).unwrap();
    assert_eq!(session.tags().count(), MOST);
    assert_eq!(
        session.with_tags(["another"]).unwrap_err().to_string(),
        error
    );
    assert_eq!(
        Session::default()
            .with_tags(tags(0..MOST + 1))
            .unwrap_err()
            .to_string(),
        error
    );

    let mut session = Session::default();
    for n in 0..MOST {
        session = session.with_metadata(&n.to_string(), n).unwrap();
        session = session.with_attribute(&n.to_string(), n as i64).unwrap();
    }
    let session = session.with_metadata("7", "again").unwrap();
    let session = session.with_attribute("7", "again").unwrap();
    assert_eq!(session.metadata("7").unwrap(), "again");
    assert_eq!(session.attribute("7"), Some(&Value::from("again")));
    assert_eq!(
        session
            .clone()
            .with_metadata("another", 1)
            .unwrap_err()
            .to_string(),
        error
    );
    assert_eq!(
        session
            .with_attribute("another", 1)
            .unwrap_err()
            .to_string(),
        error
    );
}

#[test]
fn tags_recorded_again_and_again_are_limited_and_reported_once() {
    // Reported once in the process.
    if !support::alone(test_name!(), &[]) {
        return;
    }
    let app = App::new();
    let session = session!("chat-42", tags = Empty, metadata.step = Empty).entered();
    for n in 0..1_000 {
        session.record("tags", n).record("metadata.step", n);
    }
    assert_eq!(counts(&current_session().unwrap()), [MOST, 1]);
    assert_eq!(current_session().unwrap().metadata("step").unwrap(), 999);
    span("inside");
    drop(session);
    assert_eq!(app.diagnostics.messages(), [REPORTED]);
    let tags = (0..MOST).map(|n| format!("\"{n}\"")).collect::<Vec<_>>();
    for span in app.spans() {
        assert_eq!(values(&span, "tag.tags"), [format!("[{}]", tags.join(","))]);
    }
}

#[test]
fn tags_of_one_field_are_limited_and_reported_once() {
    if !support::alone(test_name!(), &[]) {
        return;
    }
    let app = App::new();
    let tags = (0..1_000)
        .map(|n| n.to_string())
        .collect::<Vec<_>>()
        .join(",");
    for _ in 0..2 {
        let session = info_span!("request", session.id = "chat-42", tags = tags);
        assert_eq!(
            session.in_scope(|| counts(&current_session().unwrap())),
            [MOST, 0]
        );
    }
    assert_eq!(app.diagnostics.messages(), [REPORTED]);
}

#[test]
fn values_of_nested_sessions_are_limited_and_reported_once() {
    fn nest(left: usize) {
        if left == 0 {
            return assert_eq!(counts(&current_session().unwrap()), [MOST; 2]);
        }
        let name = left.to_string();
        let session = with_metadata(Session::default(), &name, left);
        session
            .with_tags([name])
            .unwrap()
            .in_scope(|| nest(left - 1));
    }
    if !support::alone(test_name!(), &[]) {
        return;
    }
    let app = App::new();
    session!("chat-42").in_scope(|| {
        nest(500);
        info_span!("long-lived").in_scope(|| {
            for n in 0..1_000 {
                let name = n.to_string();
                let session = with_metadata(Session::default(), &name, n);
                let session = session.with_tags([&name]).unwrap();
                session
                    .with_attribute(&name, n)
                    .unwrap()
                    .set_on_current_span()
                    .unwrap();
            }
            assert_eq!(counts(&current_session().unwrap()), [MOST; 2]);
        });
    });
    assert_eq!(app.diagnostics.messages(), [REPORTED]);
}

#[test]
fn own_attribute_set_again_and_again_still_wins() {
    let app = App::new();
    let tracer = app.provider.tracer("library");
    let session = Session::new("chat-42")
        .unwrap()
        .with_attribute("ring", 2)
        .unwrap();
    session.in_scope(|| {
        let mut span = tracer.start("library");
        for n in 0..3 {
            span.set_attribute(KeyValue::new("ring", n));
            span.set_attribute(KeyValue::new("other", n));
        }
        span.end();
    });
    assert_eq!(values(&app.span("library"), "ring"), ["0", "1", "2"]);
    assert_eq!(values(&app.span("library"), "session.id"), ["chat-42"]);
}

/// The span had its own attribute before the session's attribute was set on it.
#[test]
fn attribute_set_on_a_started_span_does_not_duplicate_an_own_attribute() {
    let app = App::new();
    let session = Session::new("chat-42")
        .unwrap()
        .with_attribute("ring", 2)
        .unwrap();
    let more = Session::default().with_attribute("zone", 3).unwrap();
    session.in_scope(|| {
        info_span!("work", zone = 1).in_scope(|| {
            more.with_attribute("ring", 4)
                .unwrap()
                .set_on_current_span()
                .unwrap();
            span("inside");
        });
    });
    assert_eq!(values(&app.span("work"), "zone"), ["1"]);
    assert_eq!(values(&app.span("work"), "ring"), ["4"]);
    assert_eq!(values(&app.span("inside"), "zone"), ["3"]);
}
