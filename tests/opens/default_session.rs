//! The default session of the process (A7). Each test has a process of its own.

use crate::opens::{extracted, work};
use crate::support::{self, App};
use opentelemetry::Context;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{Tracer, TracerProvider};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};
use std::collections::HashMap;
use tracing::info_span;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_session::{
    Session, SessionLayer, SessionPropagator, SessionTracerProvider, current_session,
    current_session_id, session, user,
};
use tracing_subscriber::prelude::*;

/// Declares tests that run in a process of their own, whose default session is `cli-1`.
macro_rules! with_default {
    ($($(#[$doc:meta])* $name:ident => $test:expr;)*) => {$(
        $(#[$doc])*
        #[test]
        fn $name() {
            if support::alone(test_name!(), &[]) {
                Session::new("cli-1").unwrap().set_global_default().unwrap();
                $test();
            }
        }
    )*};
}

fn id() -> Option<String> {
    current_session_id()
}

fn some(id: &str) -> Option<String> {
    Some(id.to_owned())
}

with_default! {
    work_outside_any_other_session_carries_it => || {
        let app = App::new();
        assert_eq!(id(), some("cli-1"));
        work();
        session!("chat-42").in_scope(work);
        Session::default().with_user("u-7").unwrap().in_scope(work);
        user!("u-8").in_scope(|| {});
        app.exports(
            "
            work session.id=cli-1
              call session.id=cli-1
            session session.id=chat-42
              work session.id=chat-42
                call session.id=chat-42
            work session.id=cli-1 user.id=u-7
              call session.id=cli-1 user.id=u-7
            user user.id=u-8 session.id=cli-1
            ",
        );
    };

    spans_that_start_afresh_carry_it => || {
        let app = App::new();
        session!("chat-42").in_scope(|| {
            info_span!(parent: None, "root").in_scope(|| {
                assert_eq!(id(), some("cli-1"));
                work();
            });
            user!(parent: None, "u-7").in_scope(|| {});
            session!(parent: None, "chat-43").in_scope(|| {});
        });
        app.exports(
            "
            session session.id=chat-42
            root session.id=cli-1
              work session.id=cli-1
                call session.id=cli-1
            user user.id=u-7 session.id=cli-1
            session session.id=chat-43
            ",
        );
    };

    /// No span of `tracing` is there, and no layer.
    roots_of_the_opentelemetry_api_carry_it => || {
        let exporter = InMemorySpanExporter::default();
        let sdk = SdkTracerProvider::builder().with_simple_exporter(exporter.clone());
        let tracer = SessionTracerProvider::new(sdk.build()).tracer("library");
        tracer.in_span("root", |_| tracer.in_span("child", |_| {}));
        tracer.start_with_context("with a parent", &support::remote());
        let inside = Session::new("chat-42").unwrap();
        inside.in_scope(|| tracer.in_span("in a session", |_| {}));
        assert_eq!(
            support::tree(&exporter.get_finished_spans().unwrap()),
            "root session.id=cli-1\n  child session.id=cli-1\nwith a parent session.id=cli-1\n\
             in a session session.id=chat-42\n"
        );
    };

    spans_below_a_remote_parent_and_spans_of_libraries_carry_it => || {
        let app = App::new();
        let request = info_span!("request");
        request.set_parent(support::remote()).unwrap();
        request.in_scope(|| {
            app.provider.tracer("library").in_span("plain", |_| work());
        });
        drop(request);
        app.exports(
            "
            request session.id=cli-1
              plain session.id=cli-1
                work session.id=cli-1
                  call session.id=cli-1
            ",
        );
    };

    headers_without_a_session_keep_it_and_those_with_one_replace_all_of_it => || {
        let app = App::new();
        let propagator = SessionPropagator::new();
        let without = propagator.extract_with_context(&Context::new(), &HashMap::new());
        for (name, cx) in [("without", without), ("with", extracted("chat-42"))] {
            let request = info_span!("request", otel.name = name);
            request.set_parent(cx.clone()).unwrap();
            request.in_scope(|| info_span!("below").in_scope(|| {}));
            let _attached = cx.attach();
            info_span!("attached").in_scope(|| {});
        }
        app.exports(
            "
            without session.id=cli-1
              below session.id=cli-1
            attached session.id=cli-1
            with session.id=chat-42
              below session.id=chat-42
            attached session.id=chat-42
            ",
        );
    };

    it_goes_out_with_headers => || {
        let mut headers = HashMap::new();
        SessionPropagator::new().inject_context(&Context::new(), &mut headers);
        assert_eq!(headers["baggage"], "session.id=cli-1");
    };

    each_subscriber_and_thread_has_it => || {
        let with_root_turns = || App::with(SessionLayer::with_root_turns);
        for make in [App::new, with_root_turns] {
            let app = make();
            work();
            app.on_thread(work);
            assert_eq!(app.tree().matches("session.id=cli-1").count(), 4);
        }
        assert_eq!(std::thread::spawn(id).join().unwrap(), some("cli-1"));
    };

    it_applies_where_there_is_no_opentelemetry_layer => || {
        let layer = SessionLayer::new();
        let _default = tracing_subscriber::registry().with(layer).set_default();
        let both = || {
            let session = current_session().unwrap();
            let user_id = session.user_id().map(str::to_owned);
            (session.id().unwrap().to_owned(), user_id)
        };
        let cli = || "cli-1".to_owned();
        assert_eq!(both(), (cli(), None));
        assert_eq!(info_span!("work").in_scope(both), (cli(), None));
        let with_user = (cli(), Some("u-7".to_owned()));
        assert_eq!(user!("u-7").in_scope(both), with_user);
        let _session = session!("chat-42").entered();
        let root = info_span!(parent: None, "root");
        assert_eq!(root.in_scope(both), (cli(), None));
        let user = user!(parent: None, "u-7");
        assert_eq!(user.in_scope(both), with_user);
    };

    it_can_be_set_only_once => || {
        let error = Session::generate().set_global_default().unwrap_err();
        assert_eq!(
            error.to_string(),
            "the process has a default session already: set it only once, at the start of main"
        );
        assert!(Session::default().set_global_default().is_err());
        assert_eq!(id(), some("cli-1"));
    };
}

/// All of it is inherited, each value on its own.
#[test]
fn values_of_the_default_session_apply_until_an_inner_value_replaces_them() {
    let test = test_name!();
    if !support::alone(test, &[]) {
        return;
    }
    let default = Session::new("cli-1").unwrap().with_user("u-1").unwrap();
    default.set_global_default().unwrap();
    let app = App::new();
    work();
    let request = info_span!(parent: None, "root");
    request.in_scope(|| info_span!(parent: None, "detached").in_scope(|| {}));
    drop(request);
    session!("chat-42").in_scope(work);
    Session::default().with_user("u-7").unwrap().in_scope(work);
    app.exports(
        "
        work session.id=cli-1 user.id=u-1
          call session.id=cli-1 user.id=u-1
        root session.id=cli-1 user.id=u-1
        detached session.id=cli-1 user.id=u-1
        session session.id=chat-42 user.id=u-1
          work session.id=chat-42 user.id=u-1
            call session.id=chat-42 user.id=u-1
        work session.id=cli-1 user.id=u-7
          call session.id=cli-1 user.id=u-7
        ",
    );
}

#[test]
fn empty_default_session_changes_nothing() {
    if !support::alone(test_name!(), &[]) {
        return;
    }
    Session::default().set_global_default().unwrap();
    assert!(Session::generate().set_global_default().is_err());
    assert_eq!(current_session(), None);
    let app = App::new();
    work();
    app.provider.tracer("library").in_span("plain", |_| {});
    info_span!("session", id = "chat-42").in_scope(|| {});
    session!("chat-43").in_scope(|| info_span!(parent: None, "root").in_scope(|| {}));
    app.exports(
        "
        work
          call
        plain
        session session.id=chat-42
        session session.id=chat-43
        root
        ",
    );
}
