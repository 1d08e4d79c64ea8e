//! Marking the spans above (C5).

use crate::support::{App, remote, values};
use opentelemetry::Context;
use opentelemetry::trace::{Tracer, TracerProvider};
use tracing::info_span;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_session::{Session, mark_trace, set_session_id, set_user_id};

#[test]
fn mark_trace_exports_the_current_session_on_open_ancestors() {
    let app = App::new();
    let elsewhere = info_span!("other trace");
    info_span!("http").in_scope(|| {
        info_span!("own", user.id = "u-1").in_scope(|| {
            info_span!("handler").in_scope(|| {
                info_span!("ended").in_scope(|| {});
                set_session_id("chat-42").unwrap();
                set_user_id("u-7").unwrap();
                mark_trace().unwrap();
            });
            info_span!("beside").in_scope(|| {});
        });
    });
    drop(elsewhere);
    app.exports(
        "
        other trace
        http session.id=chat-42 user.id=u-7
          own user.id=u-1
            handler session.id=chat-42 user.id=u-7
              ended user.id=u-1
            beside user.id=u-1
        ",
    );
}

#[test]
fn second_mark_trace_keeps_the_existing_values() {
    let app = App::new();
    info_span!("http").in_scope(|| {
        let turns = [
            ("first", None),
            ("second", Some("u-2")),
            ("third", Some("u-3")),
        ];
        for (session, user) in turns {
            info_span!("handler").in_scope(|| {
                set_session_id(session).unwrap();
                if let Some(user) = user {
                    set_user_id(user).unwrap();
                }
                mark_trace().unwrap();
            });
        }
    });
    app.exports(
        "
        http session.id=first
          handler session.id=first
          handler session.id=second user.id=u-2
          handler session.id=third user.id=u-3
        ",
    );
}

#[test]
fn own_attribute_set_after_mark_trace_overrides_the_mark() {
    let app = App::new();
    let http = info_span!("http").entered();
    let handler = info_span!("handler").entered();
    Session::new("mark").unwrap().in_scope(|| {
        info_span!("below").in_scope(|| mark_trace().unwrap());
    });
    drop(handler);
    set_session_id("set").unwrap();
    drop(http);
    let own = info_span!("own").entered();
    Session::new("mark")
        .unwrap()
        .in_scope(|| mark_trace().unwrap());
    own.set_attribute("session.id", "own");
    drop(own);
    app.exports(
        "
        http session.id=set
          handler session.id=mark
            below session.id=mark
        own session.id=own
        ",
    );
}

#[test]
fn mark_trace_does_not_reach_another_trace() {
    let app = App::new();
    let outer = info_span!("outer").entered();
    let request = info_span!("request");
    request.set_parent(remote()).unwrap();
    request.in_scope(|| {
        info_span!("handler").in_scope(|| {
            set_session_id("chat-42").unwrap();
            mark_trace().unwrap();
        });
    });
    drop((request, outer));
    let ids = |name| values(&app.span(name), "session.id");
    assert_eq!(ids("request"), ["chat-42"]);
    assert_eq!(ids("outer"), [""; 0]);
}

#[test]
fn mark_trace_reaches_the_span_around_a_session_value() {
    let app = App::new();
    info_span!("request").in_scope(|| {
        Session::new("chat-42")
            .unwrap()
            .in_scope(|| mark_trace().unwrap());
    });
    app.exports("request session.id=chat-42");
}

#[test]
fn mark_trace_reaches_the_current_plain_opentelemetry_span() {
    let app = App::new();
    let session = Session::new("chat-42").unwrap();
    let tracer = app.provider.tracer("library");
    tracer.in_span("plain", |_| session.in_scope(mark_trace).unwrap());
    info_span!("request").in_scope(|| {
        tracer.in_span("plain below", |_| session.in_scope(mark_trace).unwrap());
    });
    app.exports(
        "
        plain session.id=chat-42
        request session.id=chat-42
          plain below session.id=chat-42
        ",
    );
}

#[test]
fn mark_trace_in_a_span_without_a_session_is_an_error() {
    let _app = App::new();
    let error = info_span!("request").in_scope(mark_trace).unwrap_err();
    assert_eq!(
        error.to_string(),
        "there is no current session or user to mark the trace with: set one first"
    );
}

/// So many spans inside one another, and each one marks the trace.
fn levels_that_mark(levels: usize) {
    if levels > 0 {
        info_span!("level").in_scope(|| {
            mark_trace().unwrap();
            levels_that_mark(levels - 1);
        });
    }
}

/// Where many levels mark the trace, a call stops at the spans that are marked with all their ancestors.
#[test]
fn mark_trace_at_each_level_of_a_deep_trace_reaches_all_spans_that_may_be_marked() {
    let app = App::new();
    let chat = || Session::new("chat-42").unwrap();
    let of_user = || chat().with_user("u-7").unwrap();
    info_span!("http").in_scope(|| {
        chat().in_scope(|| {
            info_span!("handler").in_scope(|| {
                chat().in_scope(|| levels_that_mark(30));
                info_span!("inner").in_scope(|| of_user().in_scope(|| levels_that_mark(30)));
                let other = Session::new("chat-43").unwrap();
                other.in_scope(|| levels_that_mark(30));
            });
        });
    });
    for name in ["http", "handler", "inner"] {
        let span = app.span(name);
        assert_eq!(values(&span, "session.id"), ["chat-42"], "{name}");
        assert_eq!(values(&span, "user.id"), ["u-7"], "{name}");
    }
}

#[test]
fn span_of_another_session_in_a_deep_trace_may_be_marked_later() {
    let app = App::new();
    let of_user = Session::new("chat-42").unwrap().with_user("u-7").unwrap();
    info_span!("http").in_scope(|| {
        info_span!("own").in_scope(|| {
            set_session_id("chat-1").unwrap();
            info_span!("handler").in_scope(|| {
                of_user.set_on_current_span().unwrap();
                levels_that_mark(30);
            });
            set_session_id("chat-42").unwrap();
            info_span!("handler").in_scope(|| {
                of_user.set_on_current_span().unwrap();
                levels_that_mark(30);
            });
        });
    });
    for name in ["http", "own"] {
        let span = app.span(name);
        assert_eq!(values(&span, "session.id"), ["chat-42"], "{name}");
        assert_eq!(values(&span, "user.id"), ["u-7"], "{name}");
    }
}

/// A call that can't walk up leaves the ancestors to the next one.
#[test]
fn first_call_without_a_current_span_stops_no_later_call() {
    let calls: [fn(&App, Context); 2] = [
        |app, cx| {
            app.on_thread(move || {
                let _attached = cx.attach();
                mark_trace().unwrap();
            });
        },
        |_, _| {
            let none = tracing::Dispatch::none();
            tracing::dispatcher::with_default(&none, || mark_trace().unwrap());
        },
    ];
    for first_call in calls {
        let app = App::new();
        info_span!("http").in_scope(|| {
            info_span!("handler").in_scope(|| {
                set_session_id("chat-42").unwrap();
                first_call(&app, Context::current());
                mark_trace().unwrap();
            });
        });
        assert_eq!(values(&app.span("http"), "session.id"), ["chat-42"]);
    }
}
