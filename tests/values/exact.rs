//! Sessions that are read back are exact: where they are attached, they replace everything (DESIGN row 4).

use crate::support::{App, propagate, session, values};
use opentelemetry::Context;
use tracing::info_span;
use tracing_session::propagation::{TraceHeaders, inject_context, propagated_context};
use tracing_session::{
    Conversation, InSession, Session, SessionPropagator, current_session, session, set_user_id,
    user,
};

fn full(id: &str) -> Session {
    let session = session(id).with_user(format!("user of {id}")).unwrap();
    let session = session
        .with_metadata("of", id)
        .unwrap()
        .with_tags([id])
        .unwrap();
    session
        .with_prompt_template(id)
        .with_attribute("ring", id.to_owned())
        .unwrap()
}

/// Where the session of one conversation is attached inside another one.
fn in_each_place(app: &App, exact: &Session, check: impl Fn(&str)) {
    let within = |f: &dyn Fn()| {
        full("other").in_scope(|| info_span!("request").in_scope(f));
        session!(full("other")).in_scope(f);
        info_span!("request").in_scope(|| {
            full("other").set_on_current_span().unwrap();
            f();
        });
    };
    let job = || info_span!("job").in_scope(|| check("job"));
    within(&|| exact.in_scope(job));
    within(&|| {
        let _guard = exact.attach();
        job();
    });
    within(&|| {
        let future = async { job() }.in_session(exact);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(future);
    });
    within(&|| session!(exact, channel = "web").in_scope(job));
    within(&|| {
        info_span!("worker").in_scope(|| {
            exact.set_on_current_span().unwrap();
            job();
        });
    });
    drop(app.spans());
}

#[test]
fn session_that_was_read_back_replaces_everything() {
    let app = App::new();
    let bare = session("chat-42").in_scope(current_session).unwrap();
    in_each_place(&app, &bare, |_| {
        let here = current_session().unwrap();
        assert_eq!(here, session("chat-42"));
    });
    let jobs = app.spans().into_iter().filter(|span| span.name == "job");
    let mut count = 0;
    for job in jobs {
        count += 1;
        assert_eq!(values(&job, "session.id"), ["chat-42"]);
        for key in [
            "user.id",
            "metadata",
            "tag.tags",
            "ring",
            "llm.prompt_template.template",
        ] {
            assert_eq!(values(&job, key), [""; 0], "{key}");
        }
    }
    assert_eq!(count, 15);
}

#[test]
fn every_way_to_read_a_session_back_is_exact() {
    let read: [fn() -> Session; 3] = [
        || current_session().unwrap(),
        || Session::of(&Context::current()).unwrap(),
        || current_session().unwrap().with_metadata("step", 1).unwrap(),
    ];
    for read in read {
        let read_back = session("chat-42").in_scope(read);
        let here = full("other")
            .in_scope(|| read_back.in_scope(current_session))
            .unwrap();
        assert_eq!((here.id(), here.user_id()), (Some("chat-42"), None));
        assert_eq!(here.metadata("of"), None);
    }
}

#[test]
fn session_of_new_adds_to_the_outer_session() {
    let here = full("other")
        .in_scope(|| session("chat-42").in_scope(current_session))
        .unwrap();
    assert_eq!(
        (here.id(), here.user_id()),
        (Some("chat-42"), Some("user of other"))
    );
}

#[test]
fn nothing_replaces_the_session_by_none() {
    full("other").in_scope(|| {
        let here = Session::nothing().in_scope(current_session);
        assert_eq!(here, None);
        let nothing =
            Session::nothing().in_scope(|| current_session().unwrap_or_else(Session::nothing));
        assert_eq!(nothing.in_scope(current_session), None);
    });
    let app = App::new();
    full("other").in_scope(|| {
        Session::nothing().in_scope(|| info_span!("outside").in_scope(|| {}));
    });
    app.exports("outside");
}

#[test]
fn exact_sessions_are_equal_to_others_with_the_same_values() {
    let (one, other) = (full("chat-42"), full("chat-42").exact());
    assert_eq!(one, other);
    assert_eq!(format!("{one:?}"), format!("{other:?}"));
    assert_eq!(Session::nothing(), Session::default());
    propagate(SessionPropagator::new());
    let headers = |session: &Session| {
        let mut headers = TraceHeaders::default();
        session.in_scope(|| inject_context(&mut headers));
        headers
    };
    assert_eq!(headers(&one), headers(&other));
}

#[test]
fn session_in_headers_is_exact() {
    propagate(SessionPropagator::new());
    let mut headers = TraceHeaders::default();
    session("chat-42").in_scope(|| inject_context(&mut headers));
    let here = full("other").in_scope(|| propagated_context(&headers).in_scope(current_session));
    assert_eq!(here.unwrap(), session("chat-42"));
}

#[test]
fn values_set_inside_an_exact_session_apply() {
    let app = App::new();
    let read_back = session("chat-42").in_scope(current_session).unwrap();
    full("other").in_scope(|| {
        read_back.in_scope(|| {
            user!("u-7").in_scope(|| info_span!("user").in_scope(|| {}));
            info_span!("set").in_scope(|| set_user_id("u-8").unwrap());
        });
    });
    assert_eq!(values(&app.span("set"), "user.id"), ["u-8"]);
    assert_eq!(values(&app.span("set"), "session.id"), ["chat-42"]);
    assert_eq!(values(&app.span("set"), "metadata"), [""; 0]);
}

#[test]
fn turn_inherits_nothing_of_another_session() {
    let app = App::new();
    let turn = |outer: &Session| {
        outer.in_scope(|| Conversation::new(session("chat-42")).turn("turn").finish());
    };
    turn(&full("other"));
    assert_eq!(values(&app.span("turn"), "session.id"), ["chat-42"]);
    for key in ["user.id", "metadata", "tag.tags", "ring"] {
        assert_eq!(values(&app.span("turn"), key), [""; 0], "{key}");
    }
    // The user of the same conversation, or of none, stays.
    for outer in [
        session("chat-42").with_user("u-7").unwrap(),
        Session::default().with_user("u-7").unwrap(),
    ] {
        app.anew(|app| {
            turn(&outer);
            assert_eq!(values(&app.span("turn"), "user.id"), ["u-7"]);
        });
    }
}
