//! Values set on the current span (C4).

use crate::support::{App, kept, values};
use opentelemetry::trace::{TraceContextExt, Tracer, TracerProvider};
use tracing::field::Empty;
use tracing::{Instrument, Span, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_session::{
    Session, current_session, current_session_id, mark_trace, new_session, session, set_session_id,
    set_user_id,
};

#[test]
fn value_set_on_the_current_span_reaches_it_and_spans_started_under_it() {
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
fn value_set_on_an_opener_overrides_its_fields() {
    let app = App::new();
    let line = line!() + 1;
    let request = info_span!("request", session.id = "chat-42", user.id = Empty);
    request.in_scope(|| {
        set_session_id("chat-43").unwrap();
        info_span!("after").in_scope(|| {});
        request.record("user.id", "u-7");
        info_span!("with user").in_scope(|| {});
    });
    drop(request);
    app.exports_with_diagnostics(
        "
        request session.id=chat-42 user.id=u-7
          after session.id=chat-43
          with user session.id=chat-43 user.id=u-7
        ",
        &[kept(file!(), "request", line, "session.id")],
    );
}

#[test]
fn session_value_inside_the_span_shadows_values_set_on_it() {
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
fn value_set_on_a_span_applies_at_each_poll_on_any_thread() {
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
fn new_session_is_set_on_the_current_span() {
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
fn value_is_set_on_the_current_plain_opentelemetry_span() {
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
fn setting_a_value_without_a_current_span_is_an_error() {
    let app = App::new();
    let text = "there is no current span to set the session or user on: call this inside a span, attach a Session, \
     or set a default session for the process with Session::set_global_default";
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
fn value_is_never_set_on_the_exported_parent_of_a_filtered_out_span() {
    use tracing::level_filters::LevelFilter;
    use tracing_session::SessionLayer;
    use tracing_subscriber::Layer;
    let app = App::with_layer(|otel| SessionLayer::new().wrap(otel.with_filter(LevelFilter::INFO)));
    info_span!("root").in_scope(|| {
        let hidden = tracing::debug_span!("task").entered();
        assert!(!hidden.is_disabled(), "the layer for diagnostics wants it");
        let error = set_user_id("u-7").unwrap_err();
        assert!(error.is_no_span());
        assert!(
            error
                .to_string()
                .starts_with("the current span does not reach the OpenTelemetry layer"),
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
fn value_is_set_on_a_filtered_out_opener() {
    use tracing::{Level, level_filters::LevelFilter};
    use tracing_session::SessionLayer;
    let app = App::with_layer(|otel| {
        SessionLayer::new()
            .with_opener_level(Level::DEBUG)
            .wrap_filtered(otel, LevelFilter::INFO)
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
fn value_recorded_later_on_a_filtered_out_span_adds_to_values_set_on_it() {
    use tracing::{Level, level_filters::LevelFilter};
    use tracing_session::SessionLayer;
    let app = App::with_layer(|otel| {
        SessionLayer::new()
            .with_opener_level(Level::DEBUG)
            .wrap_filtered(otel, LevelFilter::INFO)
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
fn value_set_overrides_values_recorded_afterwards() {
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
fn value_that_a_session_inside_the_span_would_shadow_is_not_set() {
    let app = App::new();
    info_span!("handler").in_scope(|| {
        Session::new("chat-42").unwrap().in_scope(|| {
            let error = set_user_id("u-7").unwrap_err();
            assert!(error.is_no_span());
            assert!(
                error.to_string().starts_with("a Session or another"),
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
fn value_that_a_session_inside_a_plain_opentelemetry_span_would_shadow_is_not_set() {
    let app = App::new();
    app.provider.tracer("library").in_span("plain", |_| {
        let session = Session::new("chat-42").unwrap();
        let error = session.in_scope(|| set_user_id("u-7").unwrap_err());
        assert!(
            error.to_string().starts_with("a Session or another"),
            "{error}"
        );
    });
    app.exports("plain");
}

/// Each setter, in a place where another `Context` is attached inside the current span.
fn set_all(set: impl Fn() -> Result<(), tracing_session::Error>) {
    match set() {
        Err(error) => assert!(
            error.to_string().starts_with("a Session or another"),
            "{error}"
        ),
        Ok(()) => assert!(
            current_session().is_some(),
            "it said Ok, and is not current"
        ),
    }
}

#[test]
fn value_that_another_context_inside_the_span_would_shadow_is_not_set() {
    use opentelemetry::Context;

    let app = App::new();
    let tracer = app.provider.tracer("library");
    let other = info_span!("other");
    let contexts: [&dyn Fn() -> Context; 4] = [
        &Context::new,
        &|| other.context(),
        &|| Context::current_with_span(tracer.start("plain")),
        &|| Context::new().with_span(tracer.start("plain root")),
    ];
    for context in contexts {
        info_span!("handler").in_scope(|| {
            let _attached = context().attach();
            set_all(|| set_session_id("chat-42"));
            set_all(|| set_user_id("u-7"));
            set_all(|| new_session().map(|_| ()));
            set_all(|| Session::new("chat-42").unwrap().set_on_current_span());
            info_span!("below").in_scope(|| {});
        });
    }
    // Without a layer around the OpenTelemetry layer too.
    drop(other);
    let spans = app.spans();
    assert_eq!(
        spans.iter().filter(|span| span.name == "handler").count(),
        4
    );
    for span in spans {
        assert_eq!(values(&span, "session.id"), [""; 0], "{}", span.name);
    }
}

#[test]
fn mark_trace_with_another_trace_attached_inside_marks_no_ancestor() {
    let app = App::new();
    let other = session!("other");
    info_span!("request").in_scope(|| {
        info_span!("handler").in_scope(|| {
            let _attached = other.context().attach();
            mark_trace().unwrap();
        });
    });
    drop(other);
    assert_eq!(values(&app.span("request"), "session.id"), [""; 0]);
    assert_eq!(values(&app.span("handler"), "session.id"), [""; 0]);
}

#[test]
fn values_set_again_and_again_form_no_chain() {
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

/// None of them is a child of the last for `tracing`, so nothing but the innermost scope keeps the others.
#[test]
fn chain_of_scopes_is_dropped_without_a_deep_stack() {
    let follow = || {
        let _app = App::new();
        let agent = || info_span!(parent: None, "agent", session.id = Empty, metadata.step = Empty);
        let mut last = agent();
        for _ in 0..4_000 {
            let next = agent();
            next.set_parent(last.context()).unwrap();
            // It is started before the last one ends.
            let _started = next.context();
            last = next;
        }
    };
    let small = std::thread::Builder::new().stack_size(256 * 1024);
    small.spawn(follow).unwrap().join().unwrap();
}
