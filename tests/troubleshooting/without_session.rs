use crate::support::App;
use crate::troubleshooting::{NOTHING, session_of, some};
use opentelemetry::trace::{Tracer, TracerProvider};
use tracing::field::Empty;
use tracing::{Dispatch, Instrument, Span, dispatcher, info_span, instrument};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_session::propagation::WithPropagated;
use tracing_session::{InSession, Session, mark_trace, session, set_session_id, set_user_id};

fn chat() -> Session {
    Session::new("chat-42").unwrap()
}

fn span(name: &'static str) {
    info_span!("span", otel.name = name).in_scope(|| {});
}

/// Runs it on one thread.
fn run<T>(task: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(task)
}

rows! {
    field_holds_no_id: here "field `..` of span `..` at .. is ignored" => |row| {
        let app = App::new();
        let long = "x".repeat(1025);
        info_span!("session", id = " ").in_scope(|| {});
        info_span!("chat", user.id = long.as_str()).in_scope(|| {});
        info_span!("chat", session.id = "chat-42", tags = "a\u{7}b").in_scope(|| {});
        info_span!("chat", user.id = "None").in_scope(|| {});
        row.says_all(&app.diagnostics.messages());
        assert_eq!(app.diagnostics.messages().len(), 4);
    };

    field_has_the_name_of_a_type: here "field `..` of span `..` at .. contains the name of a type" => |row| {
        #[derive(Debug)]
        struct SessionId(#[allow(dead_code, reason = "for Debug")] u64);
        let app = App::new();
        info_span!("chat", session.id = ?SessionId(7)).in_scope(|| {});
        row.says_all(&app.diagnostics.messages());
        assert_eq!(session_of(&app.spans(), "chat"), some("SessionId(7)"));
        info_span!("fixed", session.id = %7).in_scope(|| {});
        assert_eq!(session_of(&app.spans(), "fixed"), some("7"));
        assert_eq!(app.diagnostics.messages().len(), 1);
    };

    session_has_too_many_tags: alone "a session has more than 128 tags, metadata keys or attributes" => |row| {
        let app = App::new();
        let request = info_span!("chat", session.id = "chat-42", tags = tracing::field::Empty);
        for n in 0..200 {
            request.record("tags", n);
        }
        row.says_all(&app.diagnostics.messages());
        assert_eq!(app.diagnostics.messages().len(), 1);
    };

    name_is_only_implicit: here "the field `..` of span `..` at .. is ignored because" => |row| {
        let serve = || {
            info_span!("connection", session.id = "tls-1").in_scope(|| {
                info_span!("session", id = "chat-42").in_scope(|| span("message"));
            });
        };
        let app = App::new();
        serve();
        assert_eq!(session_of(&app.spans(), "message"), some("tls-1"));
        row.says_all(&app.diagnostics.messages());
        drop(app);
        let app = App::with(|it| it.with_session_span("session"));
        serve();
        assert_eq!(session_of(&app.spans(), "message"), some("chat-42"));
        assert_eq!(app.diagnostics.messages(), NOTHING);
        drop(app);
        let app = App::with(|it| it.with_opener_filter(|span| span.name() != "connection"));
        serve();
        assert_eq!(session_of(&app.spans(), "message"), some("chat-42"));
        assert_eq!(app.diagnostics.messages(), NOTHING);
    };

    attribute_holds_no_id: alone "an attribute `..` set on a span is ignored" => |row| {
        let app = App::new();
        chat().in_scope(|| {
            let span = info_span!("chat");
            span.set_attribute("session.id", " ");
            span.in_scope(|| {});
        });
        row.says_all(&app.diagnostics.messages());
        assert_eq!(session_of(&app.spans(), "chat"), some("chat-42"));
    };

    span_keeps_its_id: here "span `..` at .. started with another `..`" => |row| {
        let app = App::new();
        info_span!("chat", session.id = "not yet known").in_scope(|| {
            span("early");
            Span::current().record("session.id", "chat-42");
            span("late");
        });
        row.says_all(&app.diagnostics.messages());
        assert_eq!(session_of(&app.spans(), "chat"), some("not yet known"));
        assert_eq!(session_of(&app.spans(), "late"), some("chat-42"));
        drop(app);
        let app = App::new();
        info_span!("chat", session.id = Empty).in_scope(|| {
            Span::current().record("session.id", "chat-42");
        });
        assert_eq!(session_of(&app.spans(), "chat"), some("chat-42"));
        assert_eq!(app.diagnostics.messages(), NOTHING);
    };

    field_has_another_name: alone "no session was set, but span `..` at .. has a field" => |row| {
        let (file, line) = (file!(), line!() + 1);
        let handle = || info_span!("handle", conversation_id = "chat-42").in_scope(|| span("below"));
        let app = App::new();
        handle();
        app.exports("
            handle conversation_id=chat-42
              below
            ");
        (0..6).for_each(|_| handle());
        // Neither a field of another name nor a user is nearer than the first one.
        (0..20).for_each(|_| info_span!("other", step = 1, model_id = "local").in_scope(|| {}));
        assert_eq!(app.diagnostics.messages(), NOTHING);
        info_span!("login", user_id = "u-7").in_scope(|| {});
        let said = app.diagnostics.messages();
        row.says_all(&said);
        assert_eq!(
            said,
            [format!(
                "no session was set, but span `handle` at {file}:{line} has a field `conversation_id`: if it \
                 identifies the session, use `SessionLayer::new().with_session_field(\"conversation_id\")`; \
                 otherwise ignore this"
            )]
        );
        (0..300).for_each(|_| handle());
        assert_eq!(app.diagnostics.messages().len(), 1);
        drop(app);
        let app = App::with(|it| it.with_session_field("conversation_id"));
        // An application that has added a name may create such spans before its first session.
        (0..20).for_each(|_| info_span!("login", user_id = "u-7").in_scope(|| {}));
        assert_eq!(app.diagnostics.messages(), NOTHING);
        app.exporter.reset();
        handle();
        app.exports("
            handle conversation_id=chat-42 session.id=chat-42
              below session.id=chat-42
            ");
        drop(app);
        // A session was set: these fields are something else.
        let app = App::new();
        (0..20).for_each(|_| info_span!("login", user_id = "u-7").in_scope(|| {}));
        assert_eq!(app.diagnostics.messages(), NOTHING);
    };

    field_is_not_declared: here "a recorded value is on no span" => |_| {
        #[instrument]
        fn not_declared() {
            Span::current().record("user.id", "u-7");
        }
        #[instrument(fields(user.id))]
        fn declared() {
            Span::current().record("user.id", "u-7");
        }
        let app = App::new();
        not_declared();
        declared();
        info_span!("by hand", user.id = Empty).in_scope(|| {
            Span::current().record("user.id", "u-7");
        });
        app.exports("
            not_declared
            declared user.id=u-7
            by hand user.id=u-7
            ");
    };

    field_is_recorded_late: here "early spans of a request have no user" => |_| {
        #[instrument(fields(user.id))]
        fn handle() {
            span("early");
            Span::current().record("user.id", "u-7");
            span("late");
        }
        let app = App::new();
        handle();
        app.exports("
            handle user.id=u-7
              early
              late user.id=u-7
            ");
    };

    span_is_not_entered: here "a span of the session arrives, but later spans" => |_| {
        let app = App::new();
        let session = session!("chat-42");
        span("not entered");
        drop(session);
        let _ = chat().attach();
        span("dropped at once");
        let _guard = chat().attach();
        span("kept");
        app.exports("
            session session.id=chat-42
            not entered
            dropped at once
            kept session.id=chat-42
            ");
    };

    task_is_spawned: here "spans of a spawned task are in no session" => |_| {
        let app = App::new();
        run(async {
            let work = |name| async move { span(name) };
            async {
                tokio::spawn(work("alone")).await.unwrap();
                tokio::spawn(work("with the span").in_current_span()).await.unwrap();
                tokio::spawn(work("with the session").in_session(chat())).await.unwrap();
            }
            .instrument(session!("chat-42"))
            .await;
        });
        let of = |name| session_of(&app.spans(), name);
        assert_eq!(of("alone"), None);
        assert_eq!(of("with the span"), some("chat-42"));
        assert_eq!(of("with the session"), some("chat-42"));
        assert_eq!(app.diagnostics.messages(), NOTHING);
    };

    work_blocks: here "spans of `spawn_blocking`, or of a thread, are in no session" => |_| {
        let app = App::new();
        let dispatch = dispatcher::get_default(Dispatch::clone);
        let block = async |work: Box<dyn FnOnce() + Send>| {
            let dispatch = dispatch.clone();
            let work = move || dispatcher::with_default(&dispatch, work);
            tokio::task::spawn_blocking(work).await.unwrap();
        };
        run(async {
            block(Box::new(|| span("alone"))).await;
            let current = Span::current();
            block(Box::new(move || current.in_scope(|| span("with the span")))).await;
        }
        .instrument(session!("chat-42")));
        let of = |name| session_of(&app.spans(), name);
        assert_eq!(of("alone"), None);
        assert_eq!(of("with the span"), some("chat-42"));
        assert_eq!(app.diagnostics.messages(), NOTHING);
    };

    span_was_made_before: here "the span in `future.instrument" => |_| {
        let app = App::new();
        let work = || async { span("work") };
        run(async {
            let other = Session::new("other").unwrap();
            let before = other.in_scope(|| info_span!("before"));
            work().instrument(before).in_session(chat()).await;
            async { work().instrument(info_span!("inside")).await }.in_session(chat()).await;
            work().in_session(chat()).instrument(info_span!("around")).await;
        });
        app.exports("
            before session.id=other
              work session.id=other
            inside session.id=chat-42
              work session.id=chat-42
            around
              work session.id=chat-42
            ");
        assert_eq!(app.diagnostics.messages(), NOTHING);
    };

    span_is_taken_along: here "span `..` at .. was created before its session was attached" => |row| {
        let app = App::new();
        run(async {
            let task = async { span("task") };
            let turn = async { tokio::spawn(task.in_current_span()).await.unwrap() };
            turn.instrument(info_span!("turn")).in_session(chat()).await;
        });
        row.says_all(&app.diagnostics.messages());
        assert_eq!(session_of(&app.spans(), "task"), None);
    };

    span_is_older_than_its_trace: here "span `..` at .. was created before the headers were read" => |row| {
        crate::support::propagate(opentelemetry::propagation::TextMapCompositePropagator::new(vec![
            Box::new(opentelemetry_sdk::propagation::TraceContextPropagator::new()),
            Box::new(tracing_session::SessionPropagator::new()),
        ]));
        let app = App::new();
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        let headers = std::collections::HashMap::from([
            ("traceparent".to_owned(), format!("00-{trace}-00f067aa0ba902b7-01")),
            ("baggage".to_owned(), "session.id=chat-42".to_owned()),
        ]);
        let turn = info_span!("turn");
        run(async { span("work") }.instrument(turn).with_propagated(&headers));
        row.says_all(&app.diagnostics.messages());
        assert_eq!(session_of(&app.spans(), "work"), some("chat-42"));
    };

    root_inherits_nothing: here "a root in the middle of a session" => |_| {
        fn agent() {
            match Span::current().is_none() {
                true => info_span!(parent: None, "agent").in_scope(|| {}),
                false => info_span!("agent").in_scope(|| {}),
            }
        }
        let app = App::new();
        chat().in_scope(agent);
        chat().in_scope(|| info_span!("turn").in_scope(agent));
        app.exports("
            agent
            turn session.id=chat-42
              agent session.id=chat-42
            ");
    };

    helper_has_a_span: here "after `set_user_id` in a helper" => |_| {
        #[instrument]
        fn helper() {
            set_user_id("u-7").unwrap();
        }
        let app = App::new();
        info_span!("handler").in_scope(|| {
            helper();
            span("after");
            set_user_id("u-7").unwrap();
            span("after that");
        });
        app.exports("
            handler user.id=u-7
              helper user.id=u-7
              after
              after that user.id=u-7
            ");
    };

    span_above_is_not_of_tracing: here "after `mark_trace()`" => |_| {
        let app = App::new();
        app.provider.tracer("http").in_span("http", |_| {
            info_span!("handler").in_scope(|| {
                set_session_id("chat-42").unwrap();
                mark_trace().unwrap();
            });
        });
        assert_eq!(session_of(&app.spans(), "http"), None);
        app.exporter.reset();
        info_span!("http").in_scope(|| {
            info_span!("handler").in_scope(|| {
                set_session_id("chat-42").unwrap();
                mark_trace().unwrap();
            });
        });
        assert_eq!(session_of(&app.spans(), "http"), some("chat-42"));
        app.exporter.reset();
        info_span!("http", session.id = "chat-43").in_scope(|| {
            info_span!("handler").in_scope(|| {
                set_session_id("chat-42").unwrap();
                mark_trace().unwrap();
            });
        });
        assert_eq!(session_of(&app.spans(), "http"), some("chat-43"));
        assert_eq!(app.diagnostics.messages(), NOTHING);
    };
}
