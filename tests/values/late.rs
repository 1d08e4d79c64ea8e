//! Values recorded late (C3).

use crate::support::{App, kept, remote, values};
use crate::values::ignored;
use opentelemetry::Context;
use opentelemetry::trace::TraceContextExt;
use tracing::field::{Empty, display};
use tracing::info_span;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_session::{Session, current_session_id, session};

#[test]
fn value_recorded_later_reaches_the_span_its_open_descendants_and_new_ones() {
    let app = App::new();
    let request = info_span!("request", session.id = Empty, user.id = Empty);
    let entered = request.enter();
    info_span!("ended before").in_scope(|| {});
    let open = info_span!("open").entered();
    let open_below = info_span!("open below").entered();
    request
        .record("session.id", "chat-42")
        .record("user.id", display("u-7"));
    drop((open_below, open));
    info_span!("after").in_scope(|| {});
    drop(entered);
    drop(request);
    app.exports(
        "
        request session.id=chat-42 user.id=u-7
          ended before
          open session.id=chat-42 user.id=u-7
            open below session.id=chat-42 user.id=u-7
          after session.id=chat-42 user.id=u-7
        ",
    );
}

#[test]
fn value_recorded_later_on_an_outer_span_reaches_through_inner_scopes() {
    let app = App::new();
    let request = info_span!("request", user.id = Empty);
    request.in_scope(|| {
        session!("chat-42").in_scope(|| {
            let inner = info_span!("inner", user.id = Empty).entered();
            let value = Session::new("chat-43").unwrap().attach();
            let open = info_span!("open").entered();
            request.record("user.id", "u-7");
            drop((open, value));
            inner.record("user.id", "u-8");
            drop(inner);
        });
    });
    drop(request);
    app.exports(
        "
        request user.id=u-7
          session session.id=chat-42 user.id=u-7
            inner session.id=chat-42 user.id=u-8
              open session.id=chat-43 user.id=u-7
        ",
    );
}

#[test]
fn outer_value_applies_until_one_is_recorded() {
    let app = App::new();
    let outer = Session::new("outer").unwrap().with_user("u-1").unwrap();
    outer.in_scope(|| {
        for late in ["session.id", "user.id"] {
            let request = match late {
                "session.id" => info_span!("request", session.id = Empty),
                _ => info_span!("request", user.id = Empty),
            };
            request.in_scope(|| {
                info_span!("before").in_scope(|| {});
                request.record(late, "late");
                info_span!("after").in_scope(|| {});
            });
        }
    });
    app.exports(
        "
        request session.id=late user.id=u-1
          before session.id=outer user.id=u-1
          after session.id=late user.id=u-1
        request session.id=outer user.id=late
          before session.id=outer user.id=u-1
          after session.id=outer user.id=late
        ",
    );
}

#[test]
fn outer_value_applies_after_set_parent_until_one_is_recorded() {
    let app = App::new();
    let given = Session::new("given").unwrap().in_scope(Context::current);
    let request = info_span!("request", session.id = Empty);
    request
        .set_parent(given.with_remote_span_context(remote().span().span_context().clone()))
        .unwrap();
    request.in_scope(|| {
        info_span!("before").in_scope(|| {});
        request.record("session.id", "late");
        info_span!("after").in_scope(|| {});
    });
    drop(request);
    app.exports(
        "
        request session.id=late
          before session.id=given
          after session.id=late
        ",
    );
}

#[test]
fn value_recorded_later_reaches_through_sessions_that_lack_it() {
    let app = App::new();
    let request = info_span!("request", user.id = Empty);
    let (outer, inner) = (
        Session::new("outer").unwrap(),
        Session::new("inner").unwrap(),
    );
    let open =
        request.in_scope(|| outer.in_scope(|| inner.in_scope(|| info_span!("open").entered())));
    request.record("user.id", "u-7");
    drop(open);
    drop(request);
    app.exports(
        "
        request user.id=u-7
          open session.id=inner user.id=u-7
        ",
    );
}

#[test]
fn value_recorded_twice_is_the_last_valid_one_for_descendants_and_the_first_for_the_span_itself() {
    let app = App::new();
    let line = line!() + 1;
    let request = info_span!("session", id = "first", user.id = Empty);
    request.in_scope(|| {
        info_span!("one").in_scope(|| {});
        request.record("id", "second").record("user.id", "u-1");
        info_span!("two").in_scope(|| {});
        request.record("id", " ").record("user.id", "u-2");
        info_span!("three").in_scope(|| {});
        request.record("id", "third").record("user.id", "u-3");
        info_span!("four").in_scope(|| {});
    });
    drop(request);
    app.exports_with_diagnostics(
        "
        session session.id=first user.id=u-3
          one session.id=first
          two session.id=second user.id=u-1
          three session.id=second user.id=u-2
          four session.id=third user.id=u-3
        ",
        &[
            kept(file!(), "session", line, "session.id"),
            ignored(
                "id",
                "session",
                line,
                "id is blank: set a value, or leave it out",
            ),
        ],
    );
}

#[test]
fn value_recorded_later_reaches_spans_after_set_parent() {
    let app = App::new();
    let request = info_span!("request", session.id = Empty);
    request.set_parent(remote()).unwrap();
    request.in_scope(|| {
        let open = info_span!("open").entered();
        request.record("session.id", "chat-42");
        drop(open);
    });
    drop(request);
    app.exports(
        "
        request session.id=chat-42
          open session.id=chat-42
        ",
    );
}

#[test]
fn value_set_from_the_start_may_be_recorded_again() {
    let app = App::new();
    let line = line!() + 1;
    let request = info_span!("request", session.id = "chat-42");
    request.in_scope(|| {
        let open = info_span!("open").entered();
        assert_eq!(current_session_id().as_deref(), Some("chat-42"));
        request.record("session.id", "chat-43");
        assert_eq!(current_session_id().as_deref(), Some("chat-43"));
        drop(open);
    });
    let login_line = line!() + 1;
    let login = info_span!("login", user.id = "u-7");
    login.in_scope(|| {
        login.record("user.id", "u-8");
        info_span!("after").in_scope(|| {});
    });
    drop((request, login));
    app.exports_with_diagnostics(
        "
        request session.id=chat-42
          open session.id=chat-43
        login user.id=u-7
          after user.id=u-8
        ",
        &[
            kept(file!(), "request", line, "session.id"),
            kept(file!(), "login", login_line, "user.id"),
        ],
    );
}

#[test]
fn session_and_user_recorded_on_two_spans_both_apply_inside() {
    for session_is_outer in [true, false] {
        let app = App::new();
        let chat = || info_span!("chat", session.id = Empty);
        let login = || info_span!("login", user.id = Empty);
        let (outer, inner) = match session_is_outer {
            true => {
                let outer = chat();
                let inner = outer.in_scope(login);
                (outer, inner)
            }
            false => {
                let outer = login();
                let inner = outer.in_scope(chat);
                (outer, inner)
            }
        };
        // A scope of its own, that has to look for each of them elsewhere.
        let tagged = Session::default().with_tags(["beta"]).unwrap();
        let below = inner.in_scope(|| tagged.in_scope(|| info_span!("below")));
        for span in [&outer, &inner] {
            span.record("session.id", "chat-42")
                .record("user.id", "u-7");
        }
        below.in_scope(|| assert_eq!(current_session_id().as_deref(), Some("chat-42")));
        drop((below, inner, outer));
        let below = app.span("below");
        let ids = ["session.id", "user.id"].map(|key| values(&below, key).concat());
        assert_eq!(ids, ["chat-42", "u-7"]);
    }
}
