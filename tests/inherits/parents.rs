//! No parent, and parents from outside (B6, B7).

use crate::inherits::{continued, session_of};
use crate::support::{self, App, remote, values};
use opentelemetry::Context;
use opentelemetry::trace::{
    Span as _, TraceContextExt, TraceId, TraceState, Tracer, TracerProvider,
};
use tracing::field::Empty;
use tracing::info_span;
use tracing_opentelemetry::{OpenTelemetrySpanExt, SetParentError};
use tracing_session::{Session, current_session, current_session_id, session, set_user_id, user};

// B6

#[test]
fn span_with_no_parent_inherits_nothing() {
    let app = App::new();
    let _session = session!("chat-42").entered();
    info_span!(parent: None, "root").in_scope(|| info_span!("below").in_scope(|| {}));
    app.exports(
        "
        root
          below
        ",
    );
}

#[test]
fn opener_with_no_parent_inherits_nothing() {
    let app = App::new();
    let _session = session!("chat-42").entered();
    let _user = user!("u-7").entered();
    session!(parent: None, "chat-43").in_scope(|| info_span!("below").in_scope(|| {}));
    app.exports(
        "
        session session.id=chat-43
          below session.id=chat-43
        ",
    );
}

// B7

#[test]
fn opener_keeps_its_scope_after_set_parent() {
    let app = App::new();
    let _outside = user!("u-1").entered();
    let session = session!("chat-42");
    session.set_parent(remote()).unwrap();
    session.in_scope(|| {
        assert_eq!(current_session_id().as_deref(), Some("chat-42"));
        info_span!("child").in_scope(|| info_span!("grandchild").in_scope(|| {}));
    });
    info_span!(parent: &session, "explicit child").in_scope(|| {
        info_span!("below").in_scope(|| {});
    });
    // A library that takes the `Context` of the span, and starts its own span under it.
    let tracer = app.provider.tracer("library");
    let mut plain = tracer.start_with_context("plain", &session.context());
    plain.end();
    assert!(matches!(
        session.set_parent(remote()),
        Err(SetParentError::AlreadyStarted)
    ));
    drop(session);
    app.exports(
        "
        session session.id=chat-42
          child session.id=chat-42
            grandchild session.id=chat-42
          explicit child session.id=chat-42
            below session.id=chat-42
          plain session.id=chat-42
        ",
    );
    assert_eq!(
        app.span("session").span_context.trace_id(),
        TraceId::from(7)
    );
}

#[test]
fn span_after_set_parent_can_be_entered_again_anywhere() {
    let app = App::new();
    let session = continued("chat-42");
    for _ in 0..2 {
        session.in_scope(|| info_span!("here").in_scope(|| {}));
        app.on_thread(|| session.in_scope(|| info_span!("there").in_scope(|| {})));
        assert_eq!(current_session(), None);
    }
    // Entered twice at once, and by two threads.
    session.in_scope(|| {
        session.in_scope(|| {});
        assert_eq!(current_session_id().as_deref(), Some("chat-42"));
        app.on_thread(|| session.in_scope(|| {}));
        info_span!("here still").in_scope(|| {});
    });
    assert_eq!(current_session(), None);
    drop(session);
    app.exports(
        "
        session session.id=chat-42
          here session.id=chat-42
          there session.id=chat-42
          here session.id=chat-42
          there session.id=chat-42
          here still session.id=chat-42
        ",
    );
}

#[test]
fn spans_after_set_parent_can_be_exited_in_any_order() {
    let app = App::new();
    let (first, second) = (continued("chat-1").entered(), continued("chat-2").entered());
    assert_eq!(current_session_id().as_deref(), Some("chat-2"));
    drop(first);
    info_span!("in the second").in_scope(|| {});
    drop(second);
    assert_eq!(current_session(), None);
    info_span!("outside").in_scope(|| {});
    assert_eq!(session_of(&app.span("in the second")), ["chat-2"]);
    assert_eq!(session_of(&app.span("outside")), [""; 0]);
}

#[test]
fn values_can_be_recorded_and_set_after_set_parent() {
    let app = App::new();
    let session = continued("chat-42");
    session.in_scope(|| {
        info_span!("before").in_scope(|| {});
        let inner = Session::new("inner").unwrap();
        inner.in_scope(|| info_span!("in a value").in_scope(|| {}));
        set_user_id("u-7").unwrap();
        info_span!("after").in_scope(|| info_span!("below").in_scope(|| {}));
    });
    session.in_scope(|| info_span!("later").in_scope(|| {}));
    drop(session);
    app.exports(
        "
        session session.id=chat-42 user.id=u-7
          before session.id=chat-42
          in a value session.id=inner
          after session.id=chat-42 user.id=u-7
            below session.id=chat-42 user.id=u-7
          later session.id=chat-42 user.id=u-7
        ",
    );
}

#[test]
fn span_that_is_no_opener_inherits_from_the_parent_of_set_parent() {
    let app = App::new();
    let given = Session::new("given").unwrap().in_scope(Context::current);
    let _here = session!("here").entered();
    let request = info_span!("with a session");
    request
        .set_parent(given.with_remote_span_context(remote().span().span_context().clone()))
        .unwrap();
    request.in_scope(|| info_span!("below").in_scope(|| {}));
    let request_without = info_span!("without");
    request_without.set_parent(remote()).unwrap();
    request_without.in_scope(|| {});
    drop((request, request_without));
    app.exports(
        "
        with a session session.id=given
          below session.id=given
        without
        ",
    );
}

#[test]
fn session_of_the_parent_of_set_parent_overrides_the_default_session() {
    let test = test_name!();
    if !support::alone(test, &[]) {
        return;
    }
    let default = Session::new("cli-1").unwrap();
    default.set_global_default().unwrap();
    let app = App::new();
    let given = Session::new("given").unwrap().in_scope(Context::current);
    for request in [user!("u-7"), info_span!("request")] {
        request
            .set_parent(given.with_remote_span_context(remote().span().span_context().clone()))
            .unwrap();
        request.in_scope(|| info_span!("below").in_scope(|| {}));
    }
    app.exports(
        "
        user user.id=u-7 session.id=given
          below session.id=given user.id=u-7
        request session.id=given
          below session.id=given
        ",
    );
}

#[test]
fn local_parent_context_finds_the_session_by_both_ids_while_the_span_is_open() {
    let app = App::new();
    let tracer = app.provider.tracer("library");
    let session = session!("chat-42");
    session.set_parent(remote()).unwrap();
    let own = session.context().span().span_context().clone();
    // Not remote: as a library passes it on inside the process.
    let start = |name, trace| {
        let parent = opentelemetry::trace::SpanContext::new(
            trace,
            own.span_id(),
            own.trace_flags(),
            false,
            TraceState::NONE,
        );
        let parent = Context::new().with_remote_span_context(parent);
        tracer.start_with_context(name, &parent).end();
    };
    start("open", own.trace_id());
    start("of another trace", TraceId::from(9));
    drop(session);
    start("ended", own.trace_id());
    assert_eq!(session_of(&app.span("open")), ["chat-42"]);
    assert_eq!(session_of(&app.span("of another trace")), [""; 0]);
    assert_eq!(session_of(&app.span("ended")), [""; 0]);
}

#[test]
fn remote_parent_with_the_id_of_a_local_span_passes_on_no_session() {
    let app = App::new();
    let session = session!("chat-42");
    session.set_parent(remote()).unwrap();
    let _entered = session.enter();
    let own = session.context().span().span_context().clone();
    // As it comes back in the headers of a request to a service in the same process.
    let sent = opentelemetry::trace::SpanContext::new(
        own.trace_id(),
        own.span_id(),
        own.trace_flags(),
        true,
        TraceState::NONE,
    );
    let request = info_span!("request");
    request
        .set_parent(Context::new().with_remote_span_context(sent))
        .unwrap();
    request.in_scope(|| {});
    drop(request);
    assert_eq!(session_of(&app.span("request")), [""; 0]);
}

#[test]
fn outer_session_does_not_apply_after_set_parent() {
    let app = App::new();
    let outside = |span: tracing::Span| {
        span.set_parent(remote()).unwrap();
        span.in_scope(|| info_span!("below").in_scope(|| {}));
    };
    let chat = Session::new("secret").unwrap();
    chat.in_scope(|| outside(user!("u-7")));
    session!("secret").in_scope(|| outside(user!("u-7")));
    let user = Session::default().with_user("secret").unwrap();
    user.in_scope(|| outside(session!("chat-42")));
    user!("secret").in_scope(|| outside(session!("chat-42")));
    let late = info_span!("late", session.id = Empty, user.id = Empty);
    late.in_scope(|| outside(session!("chat-42")));
    late.record("session.id", "secret");
    late.record("user.id", "secret");
    let mut shown = Vec::new();
    for span in app.spans() {
        if span.name != "late" && span.parent_span_is_remote || span.name == "below" {
            let ids = ["session.id", "user.id"].map(|key| values(&span, key));
            shown.push(ids.concat().join(" "));
        }
    }
    let expected = ["u-7", "u-7", "u-7", "u-7"];
    let of_sessions = ["chat-42"; 6];
    assert_eq!(shown, [&expected[..], &of_sessions].concat());
}
