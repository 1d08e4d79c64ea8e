//! Which value a span carries (C).

mod debug;
mod exact;
mod ids;
mod late;
mod marked;
mod own;
mod set;

use crate::support::{App, kept};
use opentelemetry::KeyValue;
use opentelemetry::trace::{Span as _, Tracer, TracerProvider};
use std::panic::Location;
use tracing::info_span;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_session::{Session, session, user};

/// The diagnostic about a field with an invalid id, in the file of the caller.
#[track_caller]
fn ignored(field: &str, span: &str, line: u32, why: &str) -> String {
    let file = Location::caller().file();
    format!("field `{field}` of span `{span}` at {file}:{line} is ignored: {why}")
}

// C1

#[test]
fn inner_value_overrides_the_outer_one_which_is_restored() {
    let app = App::new();
    session!("outer").in_scope(|| {
        info_span!("before").in_scope(|| {});
        session!("inner").in_scope(|| info_span!("inside").in_scope(|| {}));
        Session::new("value")
            .unwrap()
            .in_scope(|| info_span!("in the value").in_scope(|| {}));
        info_span!("after").in_scope(|| {});
    });
    app.exports(
        "
        session session.id=outer
          before session.id=outer
          session session.id=inner
            inside session.id=inner
          in the value session.id=value
          after session.id=outer
        ",
    );
}

#[test]
fn session_and_user_are_inherited_separately() {
    let app = App::new();
    session!("chat-42").in_scope(|| {
        user!("u-7").in_scope(|| {
            info_span!("both").in_scope(|| {});
            session!("chat-43").in_scope(|| info_span!("user stays").in_scope(|| {}));
        });
        info_span!("session stays").in_scope(|| {});
    });
    app.exports(
        "
        session session.id=chat-42
          user user.id=u-7 session.id=chat-42
            both session.id=chat-42 user.id=u-7
            session session.id=chat-43 user.id=u-7
              user stays session.id=chat-43 user.id=u-7
          session stays session.id=chat-42
        ",
    );
}

// C2

#[test]
fn own_attribute_wins_on_its_span_at_any_time_and_is_not_duplicated() {
    let app = App::new();
    let tracer = app.provider.tracer("library");
    session!("chat-42").in_scope(|| {
        let builder = tracer.span_builder("at the start");
        let mut span = builder
            .with_attributes([KeyValue::new("session.id", "own")])
            .start(&tracer);
        span.end();
        let mut span = tracer.start("later");
        span.set_attribute(KeyValue::new("session.id", "first"));
        span.set_attributes([
            KeyValue::new("session.id", "own"),
            KeyValue::new("user.id", "u-7"),
        ]);
        span.end();
        let span = info_span!("through tracing");
        span.set_attribute("session.id", "own");
        span.in_scope(|| info_span!("child").in_scope(|| {}));
        span.set_attribute("user.id", "u-8");
    });
    app.exports(
        "
        session session.id=chat-42
          at the start session.id=own
          later session.id=first session.id=own user.id=u-7
          through tracing session.id=own user.id=u-8
            child session.id=chat-42
        ",
    );
}

#[test]
fn own_attribute_wins_on_the_opener_too() {
    let app = App::new();
    let before = info_span!("before", session.id = "chat-42");
    before.set_attribute("session.id", "own");
    before.in_scope(|| info_span!("child").in_scope(|| {}));
    let after = session!("chat-43");
    after.in_scope(|| {
        after.set_attribute("session.id", "own");
        info_span!("child").in_scope(|| {});
    });
    drop((before, after));
    app.exports(
        "
        before session.id=own
          child session.id=chat-42
        session session.id=chat-43 session.id=own
          child session.id=chat-43
        ",
    );
}

#[test]
fn own_attribute_with_the_inherited_value_is_exported_once() {
    let app = App::new();
    session!("chat-42").in_scope(|| {
        let span = info_span!("child");
        span.set_attribute("session.id", "chat-42");
    });
    app.exports(
        "
        session session.id=chat-42
          child session.id=chat-42
        ",
    );
}

#[test]
fn own_attribute_set_back_to_the_fields_value_follows_the_field() {
    let app = App::new();
    let request = info_span!("request", session.id = "first", user.id = "u-1");
    request.set_attribute("session.id", "own");
    request.set_attribute("session.id", "first");
    request.in_scope(|| {});
    drop(request);
    app.exports("request user.id=u-1 session.id=first");
}

#[test]
fn own_attribute_with_the_inherited_value_stays_when_the_inherited_value_changes() {
    let app = App::new();
    let line = line!() + 1;
    let request = info_span!("request", session.id = "first", user.id = "u-1");
    request.in_scope(|| {
        let span = info_span!("child").entered();
        span.set_attribute("session.id", "first");
        span.set_attribute("user.id", "u-1");
        request
            .record("session.id", "second")
            .record("user.id", "u-2");
    });
    drop(request);
    app.exports_with_diagnostics(
        "
        request session.id=first user.id=u-1
          child session.id=first user.id=u-1
        ",
        &["session.id", "user.id"].map(|key| kept(file!(), "request", line, key)),
    );
}

#[test]
fn own_attribute_outside_any_scope_is_exported_as_it_was_set() {
    let app = App::new();
    let mut span = app.provider.tracer("library").start("plain");
    span.set_attribute(KeyValue::new("session.id", " own "));
    span.set_attribute(KeyValue::new("user.id", 7));
    span.end();
    span.set_attribute(KeyValue::new("user.id", "after the end"));
    drop(span);
    app.exports("plain session.id= own  user.id=I64(7)");
}
