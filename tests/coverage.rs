//! Coverage: the spans in a session and in none, by callsite, with the likely reason.

use crate::support::{App, alone, output_alone, remote, session, shown, values};
use futures_util::FutureExt;
use opentelemetry::trace::{Tracer, TracerProvider};
use opentelemetry::{Context, KeyValue, global};
use opentelemetry_sdk::trace::{InMemorySpanExporter, Sampler, SdkTracerProvider};
use tracing::field::Empty;
use tracing::{Instrument, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_session::tracer::{Coverage, Reason};
use tracing_session::{
    InSession, Session, SessionLayer, SessionTracerProvider, current::detached, session,
    set_session_id, set_user_id,
};

fn app() -> App {
    App::with_format(|provider| provider.with_coverage())
}

/// The reasons why spans of this name are in no session, and the number of those that are in one.
#[track_caller]
fn counted(app: &App, span: &str) -> (u64, Vec<(Reason, u64)>) {
    let coverage = app.provider.coverage();
    let mut rows = coverage.rows().iter().filter(|row| row.span == span);
    let row = rows
        .next()
        .unwrap_or_else(|| panic!("no {span} in {coverage:#?}"));
    assert!(rows.next().is_none(), "{coverage:#?}");
    (row.covered, row.missing.clone())
}

/// One span of this name ended, in no session for this reason.
#[track_caller]
fn assert_missing(app: &App, span: &str, reason: Reason) {
    assert_eq!(counted(app, span), (0, vec![(reason, 1)]), "{span}");
}

/// One span of this name ended, in a session.
#[track_caller]
fn assert_covered(app: &App, span: &str) {
    assert_eq!(counted(app, span), (1, vec![]), "{span}");
}

#[test]
fn spans_are_counted_by_callsite() {
    let app = app();
    let work = || info_span!("work").in_scope(|| {});
    session!("chat-42").in_scope(|| (0..3).for_each(|_| work()));
    work();
    let line = line!() - 3;
    let coverage = app.provider.coverage();
    assert_eq!((coverage.spans(), coverage.covered()), (5, 4));
    assert_eq!(coverage.ratio(), 0.8);
    let row = coverage
        .rows()
        .iter()
        .find(|row| row.span == "work")
        .unwrap();
    assert_eq!(row.file.as_deref(), Some(file!()));
    assert_eq!(row.line, Some(line));
    assert_eq!(row.instrumentation_scope, "app");
    assert_eq!(
        (row.covered, &*row.missing),
        (3, &[(Reason::RootOutside, 1)][..])
    );
}

#[test]
fn reason_is_found() {
    let app = app();
    let in_request =
        |f: &dyn Fn()| session("chat-42").in_scope(|| info_span!("request").in_scope(f));
    let runtime = app.runtime();

    // Tasks and closures that are spawned without the span.
    in_request(&|| {
        let task = async { info_span!("spawned").in_scope(|| {}) };
        runtime.block_on(runtime.spawn(task)).unwrap();
        let query = || info_span!("blocking").in_scope(|| {});
        runtime.block_on(runtime.spawn_blocking(query)).unwrap();
    });
    assert_missing(&app, "spawned", Reason::RootOutside);
    assert_missing(&app, "blocking", Reason::RootOutside);

    in_request(&|| {
        let below = || info_span!("below").in_scope(|| {});
        info_span!(parent: None, "root").in_scope(below);
    });
    assert_missing(&app, "root", Reason::ParentNone);
    assert_missing(&app, "below", Reason::ParentOutside);

    let early = info_span!("early");
    in_request(&|| early.in_scope(|| {}));
    drop(early);
    assert_missing(&app, "early", Reason::CreatedBefore);

    let continued = info_span!("continued");
    continued.set_parent(remote()).unwrap();
    continued.in_scope(|| {});
    drop(continued);
    assert_missing(&app, "continued", Reason::HeadersWithout);

    let login = info_span!("login", session.id = Empty);
    login.in_scope(|| info_span!("first").in_scope(|| {}));
    login.record("session.id", "chat-42");
    login.in_scope(|| info_span!("second").in_scope(|| {}));
    drop(login);
    assert_missing(&app, "first", Reason::NotRecorded);
    assert_covered(&app, "second");
    assert_covered(&app, "login");

    let tracer = app.provider.tracer("library");
    in_request(&|| {
        let builder = tracer.span_builder("plain");
        drop(tracer.build_with_context(builder, &Context::new()));
    });
    assert_missing(&app, "plain", Reason::CreatedBefore);
    assert_eq!(counted(&app, "request").1, []);
}

/// However a span gets its session, it counts.
#[test]
fn spans_that_get_their_session_late_are_in_it() {
    let app = app();
    info_span!("set").in_scope(|| set_session_id("chat-42").unwrap());
    assert_covered(&app, "set");
    let adopted = async {}.instrument(info_span!("adopted"));
    adopted
        .in_session(session("chat-42"))
        .now_or_never()
        .unwrap();
    assert_covered(&app, "adopted");
    info_span!("marked").in_scope(|| {
        session("chat-42").in_scope(|| tracing_session::mark_trace().unwrap());
    });
    assert_covered(&app, "marked");
    let detached_work = || detached(|| info_span!("housekeeping").in_scope(|| {}));
    session("chat-42").in_scope(detached_work);
    assert_missing(&app, "housekeeping", Reason::RootOutside);
}

/// A scope without a session id: the reason is that of a span outside any scope.
#[test]
fn user_alone_does_not_hide_the_reason() {
    let app = app();
    let user = Session::default().with_user("u-7").unwrap();
    info_span!("login", user.id = "u-7").in_scope(|| {});
    user.in_scope(|| info_span!("under a user").in_scope(|| {}));
    Session::nothing().in_scope(|| info_span!("under nothing").in_scope(|| {}));
    for root in ["login", "under a user", "under nothing"] {
        assert_missing(&app, root, Reason::RootOutside);
    }
    let continued = info_span!("continued", user.id = "u-7");
    continued.set_parent(remote()).unwrap();
    continued.in_scope(|| {});
    drop(continued);
    assert_missing(&app, "continued", Reason::HeadersWithout);
    // Entered in two sessions, so it is exported with neither.
    let shared = info_span!("shared");
    for id in ["chat-1", "chat-2"] {
        let work = async {}.instrument(shared.clone());
        work.in_session(session(id)).now_or_never().unwrap();
    }
    drop(shared);
    assert_missing(&app, "shared", Reason::CreatedBefore);
}

/// The user of the mark isn't the span's, so neither of the mark's ids is exported.
#[test]
fn mark_that_is_not_exported_does_not_count() {
    let app = app();
    info_span!("request").in_scope(|| {
        let other = session("chat-42").with_user("u-1").unwrap();
        other.in_scope(|| tracing_session::mark_trace().unwrap());
        set_user_id("u-2").unwrap();
    });
    assert_eq!(shown(&app.span("request")), ["user.id=u-2"]);
    assert_missing(&app, "request", Reason::RootOutside);
}

/// With OpenTelemetry's API, an author can set the location to a text on the heap. The next text can have its address.
#[test]
fn files_are_told_apart_by_their_names() {
    let app = app();
    let tracer = app.provider.tracer("library");
    for _ in 0..100 {
        for name in ["a", "b", "c"] {
            let location = [
                KeyValue::new("code.file.path", format!("src/{name}.rs")),
                KeyValue::new("code.module.name", "library"),
                KeyValue::new("code.line.number", 7),
            ];
            let builder = tracer.span_builder(name).with_attributes(location);
            drop(builder.start(&tracer));
        }
    }
    for name in ["a", "b", "c"] {
        assert_eq!(counted(&app, name), (0, vec![(Reason::RootOutside, 100)]));
    }
}

#[test]
fn session_in_place_of_the_default_one_replaces_none() {
    if !alone(test_name!(), &[]) {
        return;
    }
    session("process").set_global_default().unwrap();
    let app = app();
    let connect = || info_span!("connect", session.id = "socket-7").in_scope(|| {});
    info_span!("request", session.id = "chat-42").in_scope(connect);
    let coverage = app.provider.coverage();
    let rows = coverage.rows().iter();
    let replacing: Vec<_> = rows.map(|row| (&*row.span, row.replacing)).collect();
    assert_eq!(replacing, [("request", 0), ("connect", 1)]);
}

#[test]
fn spans_that_are_not_exported_are_no_missing_ones() {
    let sdk = SdkTracerProvider::builder().with_sampler(Sampler::AlwaysOff);
    let provider = SessionTracerProvider::new(sdk.build()).with_coverage();
    provider.tracer("app").in_span("dropped", |_| {});
    let coverage = provider.coverage();
    assert_eq!((coverage.spans(), coverage.rows()[0].not_sampled), (0, 1));
    assert!(coverage.to_string().contains("The sampler dropped 1 more"));

    let unexported = SessionLayer::new().with_unexported_session_spans();
    let app = app();
    let otel = tracing_opentelemetry::layer().with_tracer(app.provider.tracer("app"));
    let App { dispatch, .. } = App::with_layer(|_| unexported.wrap(otel));
    tracing::dispatcher::with_default(&dispatch, || {
        session!("chat-42").in_scope(|| info_span!("turn").in_scope(|| {}));
    });
    let coverage = app.provider.coverage();
    assert_eq!((coverage.spans(), coverage.rows().len()), (1, 1));
}

#[test]
fn span_of_a_library_that_sets_another_session_is_named() {
    let app = app();
    session("chat-42").in_scope(|| {
        session!("chat-42").in_scope(|| {});
        info_span!("connect", session.id = "socket-7").in_scope(|| {});
    });
    let coverage = app.provider.coverage();
    let rows = coverage.rows().iter();
    let replacing: Vec<_> = rows.map(|row| (&*row.span, row.replacing)).collect();
    assert_eq!(replacing, [("session", 0), ("connect", 1)]);
    assert!(coverage.to_string().contains("with_opener_filter"));
    assert!(!coverage.to_string().contains("socket-7"), "{coverage}");
}

#[test]
fn table_names_the_place_the_reason_and_the_cure() {
    let app = app();
    session("chat-42").in_scope(|| info_span!("in").in_scope(|| {}));
    info_span!("out").in_scope(|| {});
    let line = line!() - 1;
    let table = app.provider.coverage().to_string();
    let place = format!("{}:{line}", file!());
    let expected = format!(
        "50 % of 2 spans had a session.\n\n{}\n  out  1 of 1  {place}",
        Reason::RootOutside
    );
    assert_eq!(table, expected);
}

#[test]
fn exported_spans_are_the_same_and_nothing_is_counted_without_coverage() {
    let exported = |app: &App| {
        session("chat-42").in_scope(|| info_span!(parent: None, "root", n = 1).in_scope(|| {}));
        info_span!("out").in_scope(|| {});
        app.tree()
    };
    let (on, off) = (exported(&app()), exported(&App::new()));
    assert_eq!(on, off);
    let app = App::new();
    info_span!("out").in_scope(|| {});
    assert_eq!(app.provider.coverage(), Coverage::default());
    assert_eq!(
        app.provider.coverage().to_string(),
        "100 % of 0 spans had a session."
    );
}

/// A name for each request, as `otel.name` gives spans, or plain OpenTelemetry.
#[test]
fn many_names_are_counted_in_few_rows() {
    // The table belongs to the process.
    if !alone(test_name!(), &[]) {
        return;
    }
    let app = app();
    for number in 0..3_000 {
        info_span!("request", otel.name = format!("GET /{number}")).in_scope(|| {});
    }
    assert_eq!(app.provider.coverage().rows().len(), 1);
    let tracer = app.provider.tracer("library");
    for round in 0..2 {
        for number in 0..3_000 {
            tracer.in_span(format!("plain {number}"), |_| {});
        }
        let coverage = app.provider.coverage();
        assert_eq!(coverage.rows().len(), 1_025, "round {round}");
        assert_eq!(coverage.spans(), 3_000 * (2 + round));
        let last = &coverage.rows()[1_024];
        assert_eq!(last.span, "(all other spans)");
        assert_eq!(
            last.missing,
            [(Reason::RootOutside, (3_000 - 1_023) * (1 + round))]
        );
    }
    assert!(values(&app.spans()[0], "tracing_session.reason").is_empty());
    // A provider that comes later counts its own spans only.
    let provider = SessionTracerProvider::new(SdkTracerProvider::default()).with_coverage();
    assert_eq!(provider.coverage(), Coverage::default());
    provider.tracer("library").in_span("later", |_| {});
    assert_eq!(provider.coverage().spans(), 1);
}

#[test]
fn shutdown_prints_the_share_and_the_variable_the_table() {
    let run = |on: &[(&str, &str)]| {
        let test = test_name!();
        output_alone(test, on)
    };
    if let Some(said) = run(&[("TRACING_SESSION_COVERAGE", "1")]) {
        assert!(said.contains("50 % of 2 spans had a session."), "{said}");
        assert!(
            said.contains("No session applies where these spans"),
            "{said}"
        );
        assert_eq!(said.matches("spans had a session").count(), 1, "{said}");
        return;
    }
    let sdk = SdkTracerProvider::default();
    let provider = SessionTracerProvider::new(sdk);
    let tracer = provider.tracer("app");
    tracer.in_span("out", |_| {});
    session("chat-42").in_scope(|| tracer.in_span("in", |_| {}));
    let _shut_down = (provider.shutdown(), provider.shutdown());
}

#[test]
fn summary_is_one_line() {
    let Some(said) = output_alone(test_name!(), &[]) else {
        let provider = SessionTracerProvider::new(SdkTracerProvider::default()).with_coverage();
        let tracer = provider.tracer("app");
        (0..1_999).for_each(|_| tracer.in_span("out", |_| {}));
        session("chat-42").in_scope(|| tracer.in_span("in", |_| {}));
        provider.shutdown().unwrap();
        return;
    };
    let expected = "tracing-session: 0 % of 2,000 spans had a session; see `SessionTracerProvider::coverage`, or set \
                    TRACING_SESSION_COVERAGE=1";
    assert!(said.lines().any(|line| line == expected), "{said}");
    let off = [("TRACING_SESSION_DIAGNOSTICS", "off")];
    let said = output_alone(test_name!(), &off).unwrap();
    assert!(!said.contains("spans had a session"), "{said}");
}

/// Spans of libraries that use it are missing, and no counter sees them.
#[test]
fn global_provider_that_is_not_wrapped_is_named() {
    if !alone(test_name!(), &[]) {
        return;
    }
    const NAMED: &str = "global::set_tracer_provider";
    let app = app();
    let table = || app.provider.coverage().to_string();
    assert!(!table().contains(NAMED), "none is set: {}", table());
    let exporter = InMemorySpanExporter::default();
    let other = SdkTracerProvider::builder().with_simple_exporter(exporter.clone());
    global::set_tracer_provider(other.with_sampler(Sampler::AlwaysOn).build());
    assert!(table().contains(NAMED), "{}", table());
    global::set_tracer_provider(app.provider.clone());
    assert!(!table().contains(NAMED), "{}", table());
    assert!(exporter.get_finished_spans().unwrap().is_empty());
    assert!(app.spans().is_empty());
    assert_eq!(app.provider.coverage(), Coverage::default());
}
