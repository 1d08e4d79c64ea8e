//! What opens a scope (A).

mod default_session;
mod explicit;
mod names;

use crate::support::{self, App, values};
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{SpanBuilder, Tracer, TracerProvider};
use opentelemetry::{Context, InstrumentationScope, KeyValue};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracer, SdkTracerProvider};
use std::borrow::Cow;
use tracing::field::Empty;
use tracing::{Level, info_span, instrument};
use tracing_session::{
    InSession, Session, SessionLayer, SessionPropagator, SessionTracerProvider,
    layer::SessionExtension, session, user,
};
use tracing_subscriber::prelude::*;
use tracing_subscriber::registry::LookupSpan;

/// A span that says nothing, with another below it.
fn work() {
    info_span!("work").in_scope(|| info_span!("call").in_scope(|| {}));
}

/// A `Context` as a server extracts it from the headers of a request in this session.
fn extracted(session: &str) -> Context {
    let headers = [("baggage".to_owned(), format!("session.id={session}"))];
    let headers = std::collections::HashMap::from(headers);
    SessionPropagator::new().extract_with_context(&support::remote(), &headers)
}

// A1

#[test]
fn span_named_session_with_an_id_sets_the_session() {
    let app = App::new();
    info_span!("session", id = "chat-42").in_scope(work);
    app.exports(
        "
        session session.id=chat-42
          work session.id=chat-42
            call session.id=chat-42
        ",
    );
}

#[test]
fn span_named_user_sets_no_user_unless_the_name_is_added() {
    #[instrument]
    fn user(id: u64) {
        work();
    }
    let app = App::new();
    let session = Session::new("chat-42").unwrap().with_user("u-1").unwrap();
    session.in_scope(|| user(7));
    app.exports(
        "
        user id=7 session.id=chat-42 user.id=u-1
          work session.id=chat-42 user.id=u-1
            call session.id=chat-42 user.id=u-1
        ",
    );
    drop(app);
    let app = App::with(|layer| layer.with_user_span("user"));
    session.in_scope(|| user(7));
    app.exports(
        "
        user user.id=7 session.id=chat-42
          work session.id=chat-42 user.id=7
            call session.id=chat-42 user.id=7
        ",
    );
}

#[test]
fn other_spans_with_an_id_and_session_spans_without_an_id_set_nothing() {
    let app = App::new();
    info_span!("request", id = "r-1").in_scope(work);
    info_span!("session", other = 1).in_scope(work);
    app.exports(
        "
        request id=r-1
          work
            call
        session other=I64(1)
          work
            call
        ",
    );
}

// A2

#[test]
fn field_session_id_or_user_id_on_any_span_sets_the_id() {
    let app = App::new();
    info_span!(
        "request",
        session.id = "chat-42",
        user.id = "u-7",
        path = "/"
    )
    .in_scope(work);
    app.exports(
        "
        request session.id=chat-42 user.id=u-7 path=/
          work session.id=chat-42 user.id=u-7
            call session.id=chat-42 user.id=u-7
        ",
    );
}

#[test]
fn instrumented_function_with_a_session_field_sets_the_session() {
    #[instrument(fields(session.id = %conversation, user.id), skip_all)]
    fn handle(conversation: &str) {
        work();
        tracing::Span::current().record("user.id", "u-7");
        work();
    }
    let app = App::new();
    handle("chat-42");
    app.exports(
        "
        handle session.id=chat-42 user.id=u-7
          work session.id=chat-42
            call session.id=chat-42
          work session.id=chat-42 user.id=u-7
            call session.id=chat-42 user.id=u-7
        ",
    );
}

// A4

#[test]
fn session_macro_takes_an_id_a_session_or_nothing() {
    let app = App::new();
    session!("chat-42").in_scope(|| {});
    session!(String::from("chat-43"), channel = "web").in_scope(|| {});
    session!(44_u64).in_scope(|| {});
    let session = Session::new("chat-45").unwrap().with_user("u-7").unwrap();
    session!(session).in_scope(|| {});
    session!(&session, channel = "web").in_scope(|| {});
    app.exports(
        "
        session session.id=chat-42
        session session.id=chat-43 channel=web
        session session.id=44
        session session.id=chat-45 user.id=u-7
        session session.id=chat-45 user.id=u-7 channel=web
        ",
    );
}

#[test]
fn session_macro_without_an_id_makes_a_new_uuid_of_version_7() {
    let app = App::new();
    session!().in_scope(|| {});
    session!().in_scope(|| {});
    let ids: Vec<_> = app
        .spans()
        .iter()
        .flat_map(|span| values(span, "session.id"))
        .collect();
    assert_ne!(ids[0], ids[1]);
    for id in ids {
        let id = uuid::Uuid::parse_str(&id).unwrap();
        assert_eq!(id.get_version_num(), 7);
    }
}

#[test]
fn macros_take_a_target_a_parent_and_a_level() {
    let app = App::new();
    let parent = info_span!("parent");
    let session =
        session!(target: "chat", parent: &parent, level: Level::WARN, "chat-42", turn = 1);
    let user = user!(parent: &session, level: Level::DEBUG, "u-7");
    let targeted = user!(target: "chat", "u-8");
    let root = session!(parent: None, "chat-43");
    let of = |span: &tracing::Span| {
        let metadata = span.metadata().unwrap();
        (metadata.target(), *metadata.level())
    };
    assert_eq!(of(&session), ("chat", Level::WARN));
    assert_eq!(of(&user), (module_path!(), Level::DEBUG));
    assert_eq!(of(&targeted), ("chat", Level::INFO));
    assert_eq!(of(&root), (module_path!(), Level::INFO));
    drop((parent, session, user, targeted, root));
    app.exports(
        "
        parent
          session session.id=chat-42 turn=I64(1)
            user user.id=u-7 session.id=chat-42
        user user.id=u-8
        session session.id=chat-43
        ",
    );
}

#[test]
fn session_macro_accepts_a_user_that_is_recorded_later() {
    let app = App::new();
    let span = session!("chat-42");
    span.in_scope(|| info_span!("before").in_scope(|| {}));
    span.record("user.id", "u-7");
    drop(span);
    app.exports(
        "
        session session.id=chat-42 user.id=u-7
          before session.id=chat-42
        ",
    );
}

// A5

#[test]
fn session_value_applies_without_a_span() {
    let app = App::new();
    let session = Session::new("chat-42").unwrap().with_user("u-7").unwrap();
    session.in_scope(work);
    let guard = session.attach();
    work();
    drop(guard);
    work();
    app.exports(
        "
        work session.id=chat-42 user.id=u-7
          call session.id=chat-42 user.id=u-7
        work session.id=chat-42 user.id=u-7
          call session.id=chat-42 user.id=u-7
        work
          call
        ",
    );
}

#[test]
fn session_value_may_set_only_a_user() {
    let app = App::new();
    Session::default().with_user("u-7").unwrap().in_scope(work);
    app.exports(
        "
        work user.id=u-7
          call user.id=u-7
        ",
    );
}

#[tokio::test]
async fn session_value_applies_in_a_future() {
    let app = App::new();
    let answer = async {
        work();
        tokio::task::yield_now().await;
        work();
    };
    answer.in_session(Session::new("chat-42").unwrap()).await;
    app.exports(
        "
        work session.id=chat-42
          call session.id=chat-42
        work session.id=chat-42
          call session.id=chat-42
        ",
    );
}

// A6

#[test]
fn field_id_is_exported_as_the_session_id_and_not_as_id() {
    let app = App::new();
    info_span!("session", id = "chat-42").in_scope(|| {});
    app.exports(
        "
        session session.id=chat-42
        ",
    );
}

#[test]
fn field_id_recorded_later_is_exported_as_the_session_id_and_not_as_id() {
    let app = App::new();
    let before_it_starts = info_span!("session", id = Empty);
    before_it_starts.record("id", "chat-42");
    before_it_starts.in_scope(|| {});
    drop(before_it_starts);
    let after_it_started = info_span!("session", id = Empty);
    after_it_started.in_scope(|| {});
    after_it_started.record("id", tracing::field::display("chat-43"));
    drop(after_it_started);
    app.exports(
        "
        session session.id=chat-42
        session session.id=chat-43
        ",
    );
}

#[test]
fn opener_exports_each_key_once() {
    let app = App::new();
    let span = info_span!("request", session.id = "chat-42", user.id = Empty);
    span.record("user.id", "u-7");
    span.in_scope(|| {});
    span.record("session.id", "chat-42");
    drop(span);
    app.exports("request session.id=chat-42 user.id=u-7");
}

#[test]
fn last_field_wins_if_a_span_sets_its_session_twice() {
    let app = App::new();
    info_span!("session", id = "by its name", session.id = "by its field").in_scope(work);
    app.exports(
        "
        session session.id=by its field
          work session.id=by its field
            call session.id=by its field
        ",
    );
}

// A7

#[cfg(unix)]
#[test]
fn variable_that_is_not_unicode_is_an_error() {
    use std::os::unix::ffi::OsStrExt;
    const VARIABLE: &str = "TRACING_SESSION_ID";
    let this = test_name!();
    let bad = std::ffi::OsStr::from_bytes(b"\xff");
    if std::env::var_os(VARIABLE).is_some_and(|value| value == bad) {
        let error = Session::from_env_or_generate().unwrap_err();
        assert!(error.is_invalid_id());
        assert_eq!(
            error.to_string(),
            "TRACING_SESSION_ID: id is not valid UTF-8: encode it as UTF-8"
        );
        return;
    }
    let mut alone = std::process::Command::new(std::env::current_exe().unwrap());
    let output = alone.args([this, "--exact"]).env(VARIABLE, bad).output();
    let text = String::from_utf8(output.unwrap().stdout).unwrap();
    assert!(text.contains("1 passed"), "{text}");
}

#[test]
fn default_session_comes_from_the_environment() {
    const GENERATED: &str = "a new one";
    let (ours, theirs) = ("TRACING_SESSION_ID", "TRACECTRL_SESSION_ID");
    let cases: &[(&[(&str, &str)], &str)] = &[
        (&[(ours, "a"), (theirs, "b")], "a"),
        (&[(theirs, " b ")], "b"),
        (&[(ours, "  "), (theirs, "c")], "c"),
        (&[], GENERATED),
        (
            &[(ours, "two\nlines"), (theirs, "d")],
            "TRACING_SESSION_ID: id contains a control or invisible character: remove it",
        ),
        (
            &[(theirs, "null")],
            "TRACECTRL_SESSION_ID: id is a placeholder such as None or null: set the value when it is known",
        ),
    ];
    if let Ok(case) = std::env::var("CASE") {
        let (_, expected) = cases[case.parse::<usize>().unwrap()];
        match Session::from_env_or_generate() {
            Err(error) => assert_eq!(error.to_string(), expected),
            Ok(session) if expected == GENERATED => {
                let id = uuid::Uuid::parse_str(session.id().unwrap()).unwrap();
                assert_eq!(id.get_version_num(), 7);
            }
            Ok(session) => assert_eq!(session.id(), Some(expected)),
        }
        return;
    }
    for (case, (variables, _)) in cases.iter().enumerate() {
        let case = case.to_string();
        let variables = [variables, &[("CASE", case.as_str())][..]].concat();
        support::alone(test_name!(), &variables);
    }
}

// Where other layers find it.

#[test]
fn session_is_in_the_extensions_of_its_opener() {
    let _app = App::new();
    let span = info_span!("request", session.id = "chat-42", user.id = Empty);
    let read = || {
        span.with_subscriber(|(id, dispatch)| {
            let registry: &tracing_subscriber::Registry = dispatch.downcast_ref().unwrap();
            let span = registry.span(id).unwrap();
            let extensions = span.extensions();
            extensions.get::<SessionExtension>().unwrap().session()
        })
    };
    assert_eq!(read().unwrap().id(), Some("chat-42"));
    span.record("user.id", "u-7");
    assert_eq!(read().unwrap().user_id(), Some("u-7"));
}

#[test]
fn session_in_the_extensions_of_a_span_with_no_parent_inherits_nothing() {
    let _app = App::new();
    let _elsewhere = session!("chat-42").entered();
    let user = user!(parent: None, "u-7");
    let read = user.with_subscriber(|(id, dispatch)| {
        let registry: &tracing_subscriber::Registry = dispatch.downcast_ref().unwrap();
        let span = registry.span(id).unwrap();
        let extensions = span.extensions();
        extensions.get::<SessionExtension>().unwrap().session()
    });
    let read = read.unwrap();
    assert_eq!((read.id(), read.user_id()), (None, Some("u-7")));
}

/// A tracer with something to say of each of its spans.
#[derive(Debug)]
struct Versioned(SdkTracerProvider);

impl TracerProvider for Versioned {
    type Tracer = VersionedTracer;

    fn tracer_with_scope(&self, scope: InstrumentationScope) -> VersionedTracer {
        VersionedTracer(self.0.tracer_with_scope(scope))
    }
}

struct VersionedTracer(SdkTracer);

impl Tracer for VersionedTracer {
    type Span = opentelemetry_sdk::trace::Span;

    fn span_builder<N: Into<Cow<'static, str>>>(&self, name: N) -> SpanBuilder {
        let builder = self.0.span_builder(name);
        builder.with_attributes([KeyValue::new("version", "1.2")])
    }

    fn build_with_context(&self, builder: SpanBuilder, parent: &Context) -> Self::Span {
        self.0.build_with_context(builder, parent)
    }
}

#[test]
fn attributes_of_the_inner_tracer_are_kept() {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder()
        .with_simple_exporter(exporter.clone())
        .build();
    let tracer = SessionTracerProvider::new(Versioned(provider)).tracer("library");
    let otel = tracing_opentelemetry::layer().with_tracer(tracer);
    let layer = SessionLayer::new().wrap(otel);
    let _default = tracing_subscriber::registry().with(layer).set_default();
    session!("chat-42").in_scope(work);
    assert_eq!(
        support::tree(&exporter.get_finished_spans().unwrap()),
        "session version=1.2 session.id=chat-42\n  work version=1.2 session.id=chat-42\n    \
         call version=1.2 session.id=chat-42\n"
    );
}

#[test]
fn provider_returns_the_inner_provider() {
    let provider = SessionTracerProvider::new(SdkTracerProvider::default());
    provider.force_flush().unwrap();
    provider.shutdown().unwrap();
    assert!(
        provider.inner().shutdown().is_err(),
        "it was shut down through the wrapper"
    );
    assert!(
        provider
            .shutdown_with_timeout(std::time::Duration::ZERO)
            .is_err()
    );
}

/// The layer keeps what a field is in the bits of a number.
#[test]
#[rustfmt::skip]
fn span_with_more_than_64_fields_sets_its_session() {
    macro_rules! wide {
        ($($last:tt)*) => {
            info_span!(
                "wide",
                f00 = 0, f01 = 1, f02 = 2, f03 = 3, f04 = 4, f05 = 5, f06 = 6, f07 = 7, f08 = 8, f09 = 9, f10 = 10, f11 = 11, f12 = 12, f13 = 13, f14 = 14, f15 = 15,
                f16 = 16, f17 = 17, f18 = 18, f19 = 19, f20 = 20, f21 = 21, f22 = 22, f23 = 23, f24 = 24, f25 = 25, f26 = 26, f27 = 27, f28 = 28, f29 = 29, f30 = 30, f31 = 31,
                f32 = 32, f33 = 33, f34 = 34, f35 = 35, f36 = 36, f37 = 37, f38 = 38, f39 = 39, f40 = 40, f41 = 41, f42 = 42, f43 = 43, f44 = 44, f45 = 45, f46 = 46, f47 = 47,
                f48 = 48, f49 = 49, f50 = 50, f51 = 51, f52 = 52, f53 = 53, f54 = 54, f55 = 55, f56 = 56, f57 = 57, f58 = 58, f59 = 59, f60 = 60, f61 = 61, f62 = 62,
                $($last)*
            )
        };
    }
    let app = App::new();
    let late = wide!(f63 = "a text", f64 = "another", session.id = Empty, metadata.tenant = "acme", f67 = "a third");
    late.in_scope(|| info_span!("below").in_scope(|| {}));
    assert_eq!(values(&app.span("below"), "session.id"), [""; 0], "{}", app.tree());
    late.record("session.id", "chat-42");
    late.in_scope(|| info_span!("later").in_scope(|| {}));
    drop(late);
    for name in ["wide", "later"] {
        assert_eq!(values(&app.span(name), "session.id"), ["chat-42"], "{}", app.tree());
        assert_eq!(values(&app.span(name), "metadata"), [r#"{"tenant":"acme"}"#], "{}", app.tree());
    }
    assert_eq!(values(&app.span("wide"), "f63"), ["a text"], "{}", app.tree());
}
