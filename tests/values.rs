//! Which value a span carries (C).

mod support;

use opentelemetry::trace::{Span as _, TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Context, KeyValue};
use support::{App, remote, values};
use tracing::field::{Empty, debug, display};
use tracing::{Instrument, Span, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_session::{
    Session, SessionTracerProvider, current_session, current_session_id, mark_trace, new_session,
    session, set_session_id, set_user_id, user,
};
use uuid::Uuid;

// C1

#[test]
fn inner_value_stands_before_the_outer_one_which_is_restored() {
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
fn session_and_user_are_inherited_each_on_its_own() {
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
          user session.id=chat-42 user.id=u-7
            both session.id=chat-42 user.id=u-7
            session session.id=chat-43 user.id=u-7
              user stays session.id=chat-43 user.id=u-7
          session stays session.id=chat-42
        ",
    );
}

// C2

#[test]
fn own_attribute_wins_on_its_span_whenever_it_was_set_and_is_not_doubled() {
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
          later session.id=own user.id=u-7
          through tracing session.id=own user.id=u-8
            child session.id=chat-42
        ",
    );
}

#[test]
fn own_attribute_wins_on_the_span_that_opens_the_scope_too() {
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
        session session.id=own
          child session.id=chat-43
        ",
    );
}

#[test]
fn own_attribute_that_repeats_the_inherited_value_stands_once() {
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
fn own_attribute_set_back_to_what_the_field_says_follows_the_field() {
    let app = App::new();
    let request = info_span!("request", session.id = "first", user.id = "u-1");
    request.set_attribute("session.id", "own");
    request.set_attribute("session.id", "first");
    request.in_scope(|| {});
    drop(request);
    app.exports("request session.id=first user.id=u-1");
}

#[test]
fn own_attribute_that_repeats_the_inherited_value_stays_when_that_one_changes() {
    let app = App::new();
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
    app.exports(
        "
        request session.id=second user.id=u-2
          child session.id=first user.id=u-1
        ",
    );
}

#[test]
fn own_attribute_is_written_outside_any_scope() {
    let app = App::new();
    let mut span = app.provider.tracer("library").start("plain");
    span.set_attribute(KeyValue::new("session.id", " own "));
    span.set_attribute(KeyValue::new("user.id", 7));
    span.end();
    span.set_attribute(KeyValue::new("user.id", "after the end"));
    drop(span);
    app.exports("plain session.id=own user.id=7");
}

// C3

#[test]
fn value_recorded_late_reaches_the_span_what_is_open_below_it_and_what_comes() {
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
fn value_recorded_late_on_an_outer_span_reaches_through_inner_scopes() {
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
fn outer_value_is_in_force_until_one_is_recorded() {
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
fn outer_value_is_in_force_below_a_parent_set_from_outside_until_one_is_recorded() {
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
fn value_recorded_late_reaches_through_sessions_that_say_nothing_of_it() {
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
fn value_recorded_twice_is_the_last_valid_one_for_spans_that_end_afterwards() {
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
    app.exports_after(
        "
        session session.id=third user.id=u-3
          one session.id=first
          two session.id=second user.id=u-1
          three session.id=second user.id=u-2
          four session.id=third user.id=u-3
        ",
        &[&ignored("id", "session", line, "id is blank")],
    );
}

/// What is said of a field that holds no id.
fn ignored(field: &str, span: &str, line: u32, why: &str) -> String {
    let file = file!();
    format!("tracing-session: field `{field}` of span `{span}` at {file}:{line} is ignored: {why}")
}

#[test]
fn value_recorded_late_reaches_below_a_parent_set_from_outside() {
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

// C4

#[test]
fn value_set_on_the_current_span_reaches_it_and_what_is_started_below_it() {
    let app = App::new();
    info_span!("http").in_scope(|| {
        info_span!("handler").in_scope(|| {
            let before = info_span!("open before").entered();
            drop(before);
            info_span!("before").in_scope(|| {});
            set_session_id(" chat-42 ").unwrap();
            assert_eq!(current_session_id().as_deref(), Some("chat-42"));
            info_span!("after").in_scope(|| info_span!("below").in_scope(|| {}));
            set_user_id("u-7").unwrap();
            info_span!("with user").in_scope(|| {});
            drop(app.provider.tracer("library").start("plain"));
        });
        assert_eq!(current_session(), None);
        info_span!("sibling").in_scope(|| {});
    });
    app.exports(
        "
        http
          handler session.id=chat-42 user.id=u-7
            open before
            before
            after session.id=chat-42
              below session.id=chat-42
            with user session.id=chat-42 user.id=u-7
            plain session.id=chat-42 user.id=u-7
          sibling
        ",
    );
}

#[test]
fn value_set_on_the_current_span_does_not_reach_children_that_had_started() {
    let app = App::new();
    let handler = info_span!("handler");
    let child = handler.in_scope(|| info_span!("child"));
    child.in_scope(|| {});
    handler.in_scope(|| set_session_id("chat-42").unwrap());
    child.in_scope(|| info_span!("below the child").in_scope(|| {}));
    drop((child, handler));
    app.exports(
        "
        handler session.id=chat-42
          child
            below the child
        ",
    );
}

#[test]
fn value_set_on_a_span_that_opens_a_scope_stands_inside_it() {
    let app = App::new();
    let request = info_span!("request", session.id = "chat-42", user.id = Empty);
    request.in_scope(|| {
        set_session_id("chat-43").unwrap();
        info_span!("after").in_scope(|| {});
        request.record("user.id", "u-7");
        info_span!("with user").in_scope(|| {});
    });
    drop(request);
    app.exports(
        "
        request session.id=chat-43 user.id=u-7
          after session.id=chat-43
          with user session.id=chat-43 user.id=u-7
        ",
    );
}

#[test]
fn session_value_inside_the_span_stands_before_what_is_set_on_it() {
    let app = App::new();
    info_span!("handler").in_scope(|| {
        set_session_id("set").unwrap();
        Session::new("value").unwrap().in_scope(|| {
            assert_eq!(current_session_id().as_deref(), Some("value"));
            info_span!("in the value").in_scope(|| info_span!("below").in_scope(|| {}));
        });
        assert_eq!(current_session_id().as_deref(), Some("set"));
        info_span!("after").in_scope(|| {});
    });
    app.exports(
        "
        handler session.id=set
          in the value session.id=value
            below session.id=value
          after session.id=set
        ",
    );
}

#[test]
fn value_set_stays_with_the_span_from_poll_to_poll_and_thread_to_thread() {
    let app = App::new();
    app.runtime().block_on(async {
        let handler = async {
            set_session_id("chat-42").unwrap();
            for _ in 0..5 {
                tokio::task::yield_now().await;
                assert_eq!(current_session_id().as_deref(), Some("chat-42"));
                info_span!("step").in_scope(|| {});
            }
        };
        tokio::spawn(handler.instrument(info_span!("handler")))
            .await
            .unwrap();
    });
    assert_eq!(app.spans().len(), 6);
    assert!(
        app.spans()
            .iter()
            .all(|span| values(span, "session.id") == ["chat-42"])
    );
}

#[test]
fn thousand_tasks_under_one_root_never_see_the_user_of_another() {
    let app = App::new();
    let root = info_span!("root");
    app.runtime().block_on(async {
        let task = |n: usize, root: Span| {
            let work = async move {
                tokio::task::yield_now().await;
                set_user_id(format!("u-{n}")).unwrap();
                for _ in 0..3 {
                    tokio::task::yield_now().await;
                    let user = current_session().unwrap().user_id().map(str::to_owned);
                    assert_eq!(user, Some(format!("u-{n}")));
                    info_span!("step", task = n).in_scope(|| {});
                }
            };
            tokio::spawn(work.instrument(info_span!(parent: &root, "task", task = n)))
        };
        let tasks: Vec<_> = (0..1000).map(|n| task(n, root.clone())).collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
    drop(root);
    let spans = app.spans();
    assert_eq!(spans.len(), 4001);
    for span in spans {
        let expected: Vec<_> = values(&span, "task")
            .iter()
            .map(|n| format!("u-{n}"))
            .collect();
        assert_eq!(values(&span, "user.id"), expected, "{}", span.name);
    }
}

#[test]
fn new_session_is_made_and_set_on_the_current_span() {
    let app = App::new();
    let id = info_span!("handler").in_scope(|| {
        let session = new_session().unwrap();
        assert_eq!(current_session_id().as_deref(), session.id());
        info_span!("below").in_scope(|| {});
        session.id().unwrap().to_owned()
    });
    app.exports(&format!("handler session.id={id}\n  below session.id={id}"));
}

#[test]
fn value_is_set_on_a_plain_opentelemetry_span_where_it_is_the_current_one() {
    let app = App::new();
    app.provider.tracer("library").in_span("plain", |_| {
        set_session_id("chat-42").unwrap();
        info_span!("below").in_scope(|| {});
    });
    app.exports(
        "
        plain session.id=chat-42
          below session.id=chat-42
        ",
    );
}

#[test]
fn without_a_current_span_setting_a_value_is_an_error_that_says_what_to_do() {
    let app = App::new();
    let text = "no span here to set the session or user on; call it inside a span, attach a \
                Session, or give the SessionLayer a default session";
    for result in [
        set_session_id("chat-42"),
        set_user_id("u-7"),
        new_session().map(drop),
    ] {
        let error = result.unwrap_err();
        assert!(error.is_no_span());
        assert_eq!(error.to_string(), text);
    }
    info_span!("after").in_scope(|| {});
    app.exports("after");
}

#[test]
fn value_is_never_set_on_the_exported_span_around_a_hidden_one() {
    use tracing::level_filters::LevelFilter;
    use tracing_session::SessionLayer;
    use tracing_subscriber::Layer;
    let app =
        App::with_layer(|otel| SessionLayer::new().around(otel.with_filter(LevelFilter::INFO)));
    info_span!("root").in_scope(|| {
        let hidden = tracing::debug_span!("task").entered();
        assert!(!hidden.is_disabled(), "the layer for diagnostics wants it");
        let error = set_user_id("u-7").unwrap_err();
        assert!(error.is_no_span());
        assert!(
            error.to_string().starts_with("the current span is hidden"),
            "{error}"
        );
        info_span!("below").in_scope(|| {});
    });
    app.exports(
        "
        root
          below
        ",
    );
}

#[test]
fn value_is_set_on_a_hidden_span_that_opens_a_scope() {
    use tracing::level_filters::LevelFilter;
    use tracing_session::SessionLayer;
    let app = App::with_layer(|otel| {
        SessionLayer::new()
            .with_filter(LevelFilter::INFO)
            .around(otel)
    });
    info_span!("root").in_scope(|| {
        let hidden = tracing::debug_span!("session", id = "chat-42");
        hidden.in_scope(|| {
            set_user_id("u-7").unwrap();
            info_span!("below").in_scope(|| {});
        });
        hidden.in_scope(|| info_span!("entered again").in_scope(|| {}));
        info_span!("beside").in_scope(|| {});
    });
    app.exports(
        "
        root
          below session.id=chat-42 user.id=u-7
          entered again session.id=chat-42 user.id=u-7
          beside
        ",
    );
}

#[test]
fn value_recorded_late_on_a_hidden_span_stands_beside_what_was_set_on_it() {
    use tracing::level_filters::LevelFilter;
    use tracing_session::SessionLayer;
    let app = App::with_layer(|otel| {
        SessionLayer::new()
            .with_filter(LevelFilter::INFO)
            .around(otel)
    });
    let hidden = tracing::debug_span!("session", id = "chat-42", user.id = Empty);
    hidden.in_scope(|| {
        set_session_id("chat-43").unwrap();
        hidden.record("user.id", "u-7");
        info_span!("below").in_scope(|| {});
    });
    app.exports("below session.id=chat-43 user.id=u-7");
}

#[test]
fn value_set_stands_before_what_is_recorded_on_the_span_afterwards() {
    let app = App::new();
    let handler = info_span!("handler", session.id = Empty);
    handler.in_scope(|| {
        set_session_id("set").unwrap();
        handler.record("session.id", "recorded");
        info_span!("below").in_scope(|| {});
        set_session_id("set again").unwrap();
        handler.record("session.id", "recorded again");
        info_span!("below").in_scope(|| {});
    });
    drop(handler);
    app.exports(
        "
        handler session.id=set again
          below session.id=set
          below session.id=set again
        ",
    );
}

#[test]
fn value_that_a_session_inside_the_span_would_hide_is_not_set() {
    let app = App::new();
    info_span!("handler").in_scope(|| {
        Session::new("chat-42").unwrap().in_scope(|| {
            let error = set_user_id("u-7").unwrap_err();
            assert!(error.is_no_span());
            assert!(
                error.to_string().starts_with("a Session is attached"),
                "{error}"
            );
            info_span!("inside").in_scope(|| {
                set_user_id("u-8").unwrap();
                info_span!("below").in_scope(|| {});
            });
        });
    });
    app.exports(
        "
        handler
          inside session.id=chat-42 user.id=u-8
            below session.id=chat-42 user.id=u-8
        ",
    );
}

#[test]
fn value_that_a_session_inside_a_plain_opentelemetry_span_would_hide_is_not_set() {
    let app = App::new();
    app.provider.tracer("library").in_span("plain", |_| {
        let session = Session::new("chat-42").unwrap();
        let error = session.in_scope(|| set_user_id("u-7").unwrap_err());
        assert!(
            error.to_string().starts_with("a Session is attached"),
            "{error}"
        );
    });
    app.exports("plain");
}

#[test]
fn values_set_over_and_over_form_no_chain() {
    let _app = App::new();
    let agent = info_span!("agent", session.id = Empty);
    agent.in_scope(|| (0..100_000).for_each(|n| set_user_id(n).unwrap()));
    drop(agent);
}

#[test]
fn spans_that_declare_a_value_may_nest_deeper_than_the_stack() {
    let app = App::new();
    let mut spans = vec![info_span!("agent", session.id = Empty)];
    for _ in 0..10_000 {
        let inner = spans
            .last()
            .unwrap()
            .in_scope(|| info_span!("agent", session.id = Empty));
        spans.push(inner);
    }
    // From the inside out: `tracing` itself closes a chain of parents on the stack.
    spans.into_iter().rev().for_each(drop);
    assert_eq!(app.spans().len(), 10_001);
}

// C5

#[test]
fn marking_the_trace_writes_what_is_in_force_on_the_open_spans_above() {
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
          own session.id=chat-42 user.id=u-1
            handler session.id=chat-42 user.id=u-7
              ended user.id=u-1
            beside user.id=u-1
        ",
    );
}

#[test]
fn marking_the_trace_again_keeps_what_is_there() {
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
        http session.id=first user.id=u-2
          handler session.id=first
          handler session.id=second user.id=u-2
          handler session.id=third user.id=u-3
        ",
    );
}

#[test]
fn what_a_span_gets_of_its_own_after_the_trace_was_marked_stands_before_the_mark() {
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
fn marking_the_trace_does_not_reach_another_trace() {
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
fn marking_the_trace_reaches_the_span_that_a_session_value_is_in() {
    let app = App::new();
    info_span!("request").in_scope(|| {
        Session::new("chat-42")
            .unwrap()
            .in_scope(|| mark_trace().unwrap());
    });
    app.exports("request session.id=chat-42");
}

#[test]
fn marking_the_trace_reaches_a_plain_opentelemetry_span_where_it_is_the_current_one() {
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
fn marking_the_trace_with_nothing_in_force_or_no_span_is_an_error() {
    let _app = App::new();
    let error = info_span!("request").in_scope(mark_trace).unwrap_err();
    assert_eq!(
        error.to_string(),
        "no session or user is in force here to mark the trace with"
    );
    let error = Session::new("chat-42")
        .unwrap()
        .in_scope(mark_trace)
        .unwrap_err();
    assert!(error.is_no_span());
}

// C6

#[test]
fn every_way_to_write_an_id_makes_the_same_string() {
    let uuid = Uuid::from_u128(0x0193_8c1e_6b1f_7c7a_9c7e_0f4f_3b8e_2a11);
    let text = "a \"b\" \\ é \u{1F600}";
    let app = App::new();
    let opened = |span: Span| {
        span.in_scope(|| info_span!("below").in_scope(|| {}));
        drop(span);
        let spans = app.spans();
        app.exporter.reset();
        assert_eq!(spans.len(), 2);
        let ids: Vec<_> = spans
            .iter()
            .flat_map(|span| values(span, "session.id"))
            .collect();
        assert_eq!(ids.len(), 2, "{ids:?}");
        assert_eq!(ids[0], ids[1]);
        ids[0].clone()
    };
    macro_rules! each {
        (@late % $value:expr) => { display(&$value) };
        (@late ? $value:expr) => { debug(&$value) };
        (@late $value:expr) => { $value };
        ($($value:tt)+) => {{
            let late = info_span!("late", session.id = Empty);
            late.in_scope(|| {});
            late.record("session.id", each!(@late $($value)+));
            [
                opened(info_span!("session", id = $($value)+)),
                opened(info_span!("request", session.id = $($value)+)),
                opened(late),
            ]
        }};
    }
    assert_eq!(each!(text), [text; 3]);
    assert_eq!(each!(%text), [text; 3]);
    assert_eq!(each!(?text), [text; 3]);
    assert_eq!(each!(String::from(text).as_str()), [text; 3]);
    assert_eq!(
        each!(%uuid),
        [uuid.to_string(), uuid.to_string(), uuid.to_string()]
    );
    assert_eq!(
        each!(?uuid),
        [uuid.to_string(), uuid.to_string(), uuid.to_string()]
    );
    assert_eq!(each!(42_u8), ["42"; 3]);
    assert_eq!(each!(42_u16), ["42"; 3]);
    assert_eq!(each!(42_u32), ["42"; 3]);
    assert_eq!(each!(u64::MAX), ["18446744073709551615"; 3]);
    assert_eq!(
        each!(u128::MAX),
        ["340282366920938463463374607431768211455"; 3]
    );
    assert_eq!(each!(42_usize), ["42"; 3]);
    assert_eq!(each!(-42_i8), ["-42"; 3]);
    assert_eq!(each!(-42_i16), ["-42"; 3]);
    assert_eq!(each!(-42_i32), ["-42"; 3]);
    assert_eq!(each!(i64::MIN), ["-9223372036854775808"; 3]);
    assert_eq!(
        each!(i128::MIN),
        ["-170141183460469231731687303715884105728"; 3]
    );
    assert_eq!(each!(-42_isize), ["-42"; 3]);
    // In quotes only because they are part of it.
    assert_eq!(each!("\"quoted\""), ["\"quoted\""; 3]);
    assert_eq!(opened(session!("\"quoted\"")), "\"quoted\"");
    assert_eq!(opened(session!(text)), text);
    assert_eq!(opened(session!(uuid)), uuid.to_string());
    assert_eq!(opened(session!(&42_i128)), "42");
    assert_eq!(Session::new(text).unwrap().id(), Some(text));
    assert_eq!(
        Session::new(uuid).unwrap().id(),
        Some(uuid.to_string().as_str())
    );
    assert_eq!(app.diagnostics.said(), [""; 0]);
}

// C7

#[test]
fn ids_are_trimmed() {
    let app = App::new();
    info_span!("session", id = " \t chat-42\n").in_scope(|| {});
    info_span!("request", user.id = %"\u{a0}u-7 ").in_scope(|| {});
    app.exports(
        "
        session session.id=chat-42
        request user.id=u-7
        ",
    );
}

#[test]
fn value_that_is_no_id_is_ignored_and_the_outer_one_stays() {
    let long = "x".repeat(1025);
    let longest = "é".repeat(512);
    let app = App::new();
    let mut line = 0;
    session!("outer").in_scope(|| {
        for bad in ["", "  ", long.as_str(), "two\nlines", "\u{7f}x", "x\u{85}y"] {
            line = line!() + 1;
            info_span!("session", id = bad).in_scope(|| info_span!("below").in_scope(|| {}));
        }
        info_span!("session", id = longest.as_str()).in_scope(|| {});
    });
    let spans = app.spans();
    assert_eq!(spans.len(), 14);
    for (n, span) in spans.iter().enumerate() {
        let expected = if n == 12 { longest.as_str() } else { "outer" };
        assert_eq!(values(span, "session.id"), [expected]);
        assert_eq!(values(span, "id"), [""; 0]);
    }
    assert_eq!(
        app.diagnostics.said(),
        [
            "id is blank",
            "id is longer than 1024 bytes",
            "id has a control character"
        ]
        .map(|why| ignored("id", "session", line, why))
    );
}

/// In quotes it would be one.
#[test]
fn value_that_is_no_id_is_not_exported_in_its_quotes() {
    let app = App::new();
    session!("outer").in_scope(|| {
        for bad in ["", " ", "two\nlines"] {
            info_span!("given", session.id = ?bad, user.id = ?bad).in_scope(|| {});
            let late = info_span!("late", session.id = Empty, user.id = "u-7");
            late.record("session.id", debug(bad));
            late.record("user.id", debug(bad));
        }
    });
    for span in app.spans() {
        assert_eq!(values(&span, "session.id"), ["outer"], "{}", span.name);
        let user: &[_] = if span.name == "late" { &["u-7"] } else { &[] };
        assert_eq!(values(&span, "user.id"), user, "{}", span.name);
    }
}

#[test]
fn each_field_that_holds_no_id_is_told_of() {
    let app = App::with(|layer| {
        let layer = layer.with_session_fields(["conversation"]);
        layer.with_user_fields(["customer"])
    });
    let line = line!() + 2;
    for _ in 0..2 {
        info_span!("request", conversation = " ", customer = " ").in_scope(|| {});
    }
    let said =
        ["conversation", "customer"].map(|field| ignored(field, "request", line, "id is blank"));
    assert_eq!(app.diagnostics.said(), said);
}

#[test]
fn mistake_in_a_field_is_told_once() {
    let app = App::new();
    let line = line!() + 1;
    info_span!("request", session.id = " ", user.id = "x\ny").in_scope(|| {});
    app.exports_after(
        "request",
        &[
            &ignored("session.id", "request", line, "id is blank"),
            &ignored("user.id", "request", line, "id has a control character"),
        ],
    );
}

#[test]
fn blank_own_attribute_is_not_exported_and_the_inherited_value_stays() {
    // What is said of attributes is said once in the process.
    if !support::alone(
        "blank_own_attribute_is_not_exported_and_the_inherited_value_stays",
        &[],
    ) {
        return;
    }
    let app = App::new();
    let tracer = app.provider.tracer("library");
    session!("chat-42").in_scope(|| {
        for bad in ["", " ", "two\nlines"] {
            let mut span = tracer.start("plain");
            span.set_attribute(KeyValue::new("session.id", bad));
            span.set_attribute(KeyValue::new("user.id", bad));
            span.end();
        }
    });
    app.exports_after(
        "
        session session.id=chat-42
          plain session.id=chat-42
          plain session.id=chat-42
          plain session.id=chat-42
        ",
        &[
            "tracing-session: an attribute `session.id` set on a span is ignored: id is blank",
            "tracing-session: an attribute `user.id` set on a span is ignored: id is blank",
            "tracing-session: an attribute `session.id` set on a span is ignored: id has a control \
             character",
            "tracing-session: an attribute `user.id` set on a span is ignored: id has a control \
             character",
        ],
    );
}

#[test]
fn blank_own_attribute_leaves_the_one_before() {
    let app = App::new();
    session!("chat-42").in_scope(|| {
        let mut span = app.provider.tracer("library").start("plain");
        for value in ["own".to_owned(), "x".repeat(1025)] {
            span.set_attribute(KeyValue::new("session.id", value.clone()));
            span.set_attribute(KeyValue::new("user.id", value));
        }
        span.end();
    });
    let span = app.span("plain");
    assert_eq!(values(&span, "session.id"), ["own"]);
    assert_eq!(values(&span, "user.id"), ["own"]);
}

#[test]
fn session_from_what_is_no_id_is_an_error_that_says_why() {
    let error = |id: &str| Session::new(id).unwrap_err().to_string();
    assert_eq!(error(" "), "id is blank");
    assert_eq!(error(&"x".repeat(1025)), "id is longer than 1024 bytes");
    assert_eq!(error(&"é".repeat(513)), "id is longer than 1024 bytes");
    assert_eq!(error("secret\u{1b}"), "id has a control character");
    assert_eq!(
        Session::new("x".repeat(1024)).unwrap().id().unwrap().len(),
        1024
    );
    let error = Session::default().with_user("\u{0}").unwrap_err();
    assert!(error.is_invalid_id() && !error.is_no_span());
}

// C8

#[test]
fn plain_session_and_user_attributes_are_renamed_in_a_scope() {
    let app = App::new();
    let work = || {
        let span = info_span!("work", session = "tls", user = "root");
        span.in_scope(|| span.set_attribute("session", "resumed"));
    };
    work();
    session!("chat-42").in_scope(work);
    let span = info_span!("own", user = 7);
    span.set_attribute("user.id", "u-7");
    drop(span);
    app.exports(
        "
        work session=resumed user=root
        session session.id=chat-42
          work session.id=chat-42 session.name=resumed user.name=root
        own user.id=u-7 user.name=I64(7)
        ",
    );
}

#[test]
fn plain_session_and_user_attributes_are_renamed_on_the_span_that_opens_the_scope() {
    let app = App::new();
    let fields = info_span!("fields", session.id = "chat-42", session = "tls", user = 7);
    fields.in_scope(|| {});
    drop(fields);
    session!("chat-43", user = "root").in_scope(|| {});
    app.exports(
        "
        fields session.id=chat-42 session.name=tls user.name=I64(7)
        session session.id=chat-43 user.name=root
        ",
    );
}

#[test]
fn plain_session_and_user_attributes_are_left_where_that_is_switched_off() {
    use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};
    use tracing_subscriber::prelude::*;
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder()
        .with_simple_exporter(exporter.clone())
        .build();
    let provider = SessionTracerProvider::new(provider).with_plain_attributes_renamed(false);
    let otel = tracing_opentelemetry::layer().with_tracer(provider.tracer("app"));
    let layer = tracing_session::SessionLayer::new().around(otel);
    let _default = tracing_subscriber::registry().with(layer).set_default();
    session!("chat-42", session = "tls", user = "root").in_scope(|| {
        let mut work = provider.tracer("library").start("work");
        work.set_attribute(KeyValue::new("session", "tls"));
        work.set_attribute(KeyValue::new("user", "root"));
    });
    assert_eq!(
        support::tree(&exporter.get_finished_spans().unwrap()),
        "session session=tls user=root session.id=chat-42\n  work session=tls user=root \
         session.id=chat-42\n"
    );
}
