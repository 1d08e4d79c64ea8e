//! Which session a record is in.

use crate::logs::{App, chat};
use crate::support;
use opentelemetry::Context;
use opentelemetry::logs::{LogRecord, Logger, LoggerProvider};
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_sdk::logs::{InMemoryLogExporter, SdkLoggerProvider};
use tracing::level_filters::LevelFilter;
use tracing::{Instrument, debug_span, info, info_span};
use tracing_session::{
    InSession, Session, SessionLayer, processors::SessionLogProcessor, session, set_session_id,
    set_user_id, user,
};
use tracing_subscriber::prelude::*;

#[test]
fn event_carries_the_session_that_it_is_emitted_in() {
    let app = App::new();
    info!("before");
    session!("chat-42", user.id = "u-7").in_scope(|| info!(tokens = 12, "in a span"));
    chat().in_scope(|| info!("in a value"));
    info_span!("request", session.id = "chat-43").in_scope(|| {
        info_span!("below").in_scope(|| info!("below a span"));
    });
    info!("after");
    app.exports(&[
        "before",
        "in a span tokens=12 session.id=chat-42 user.id=u-7",
        "in a value session.id=chat-42 user.id=u-7",
        "below a span session.id=chat-43",
        "after",
    ]);
}

#[test]
fn record_of_opentelemetrys_api_carries_the_session_of_its_context() {
    let app = App::new();
    let logger = app.logs.logger("api");
    let write = |text: &'static str| {
        let mut record = logger.create_log_record();
        record.set_body(text.into());
        logger.emit(record);
    };
    write("before");
    chat().in_scope(|| write("in a value"));
    let cx = chat().in_scope(Context::current);
    {
        let _attached = cx.attach();
        write("under a context");
    }
    session!("chat-43").in_scope(|| write("in a span"));
    write("after");
    app.exports(&[
        "before",
        "in a value session.id=chat-42 user.id=u-7",
        "under a context session.id=chat-42 user.id=u-7",
        "in a span session.id=chat-43",
        "after",
    ]);
}

#[test]
fn inner_session_overrides_the_outer_and_keeps_the_user() {
    let app = App::new();
    let outer = user!("u-7");
    outer.in_scope(|| {
        info!("user");
        session!("chat-1").in_scope(|| {
            info!("outer");
            Session::new("chat-2").unwrap().in_scope(|| info!("inner"));
            info!("outer again");
        });
        info!("user again");
    });
    app.exports(&[
        "user user.id=u-7",
        "outer session.id=chat-1 user.id=u-7",
        "inner session.id=chat-2 user.id=u-7",
        "outer again session.id=chat-1 user.id=u-7",
        "user again user.id=u-7",
    ]);
}

#[test]
fn value_recorded_later_is_on_later_records() {
    let app = App::new();
    let request = info_span!(
        "request",
        session.id = "chat-42",
        user.id = tracing::field::Empty
    );
    request.in_scope(|| {
        info!("before the login");
        request.record("user.id", "u-7");
        info!("after the login");
    });
    info_span!("handler").in_scope(|| {
        set_session_id("chat-43").unwrap();
        set_user_id("u-8").unwrap();
        info!("set");
        info_span!("below").in_scope(|| info!("set, below"));
    });
    app.exports(&[
        "before the login session.id=chat-42",
        "after the login session.id=chat-42 user.id=u-7",
        "set session.id=chat-43 user.id=u-8",
        "set, below session.id=chat-43 user.id=u-8",
    ]);
}

#[test]
fn filtered_out_span_still_sets_its_session() {
    let app = App::with(SessionLogProcessor::new(), |otel| {
        SessionLayer::new()
            .with_opener_level(tracing::Level::DEBUG)
            .wrap_filtered(otel, LevelFilter::INFO)
    });
    debug_span!("hidden", session.id = "chat-42").in_scope(|| {
        info!("in it");
        info_span!("exported").in_scope(|| info!("below it"));
    });
    info!("after");
    app.exports(&[
        "in it session.id=chat-42",
        "below it session.id=chat-42",
        "after",
    ]);
}

#[test]
fn default_session_is_on_records_outside_any_other() {
    if !support::alone(test_name!(), &[]) {
        return;
    }
    let default = Session::new("cli-1").unwrap();
    default.set_global_default().unwrap();
    let app = App::new();
    carries_the_default(&app);
    // Of what the filter keeps from the OpenTelemetry layer, too.
    let app = App::with(SessionLogProcessor::new(), |otel| {
        SessionLayer::new()
            .with_opener_level(tracing::Level::INFO)
            .wrap_filtered(otel, LevelFilter::ERROR)
    });
    carries_the_default(&app);
    let app = App::with(SessionLogProcessor::new(), |_| SessionLayer::new());
    carries_the_default(&app);
    // Where the subscriber has no layer of ours, too: the default belongs to the process.
    let app = App::new();
    let registry = tracing_subscriber::registry();
    tracing::subscriber::with_default(registry, || {
        let logger = app.logs.logger("api");
        logger.emit(logger.create_log_record());
    });
    app.exports(&[" session.id=cli-1"]);
}

fn carries_the_default(app: &App) {
    info!("outside");
    info_span!("span").in_scope(|| info!("in a span"));
    session!("chat-42").in_scope(|| info!("in a session"));
    let logger = app.logs.logger("api");
    logger.emit(logger.create_log_record());
    app.exports(&[
        "outside session.id=cli-1",
        "in a span session.id=cli-1",
        "in a session session.id=chat-42",
        " session.id=cli-1",
    ]);
}

#[test]
fn session_is_known_without_an_opentelemetry_layer() {
    let app = App::with(SessionLogProcessor::new(), |_| SessionLayer::new());
    session!("chat-42").in_scope(|| info_span!("below").in_scope(|| info!("below")));
    info!("after");
    app.exports(&["below session.id=chat-42", "after"]);
}

#[test]
fn session_value_is_known_without_a_session_layer() {
    let exporter = InMemoryLogExporter::default();
    let logs = SdkLoggerProvider::builder()
        .with_log_processor(SessionLogProcessor::new())
        .with_simple_exporter(exporter.clone())
        .build();
    let bridge = OpenTelemetryTracingBridge::new(&logs);
    let subscriber = tracing_subscriber::registry().with(bridge);
    tracing::subscriber::with_default(subscriber, || chat().in_scope(|| info!("in a value")));
    let records = exporter.get_emitted_logs().unwrap();
    let line = crate::logs::line(&records[0].record);
    assert_eq!(line, "in a value session.id=chat-42 user.id=u-7");
}

#[test]
fn explicit_parent_of_an_event_does_not_change_its_session() {
    let app = App::new();
    let other = session!("chat-1");
    session!("chat-2").in_scope(|| info!(parent: &other, "of another span"));
    info!(parent: &other, "outside");
    session!("chat-2").in_scope(|| info!(parent: None, "of none"));
    app.exports(&[
        "of another span session.id=chat-2",
        "outside",
        "of none session.id=chat-2",
    ]);
}

#[test]
fn session_follows_the_work() {
    let app = App::new();
    let dispatch = app.dispatch.clone();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .on_thread_start(move || std::mem::forget(tracing::dispatcher::set_default(&dispatch)))
        .build()
        .unwrap();
    runtime.block_on(async {
        let task = async { info!("task") }.in_session(chat());
        tokio::spawn(task).await.unwrap();
        let task = async { info!("instrumented") }.instrument(session!("chat-43"));
        tokio::spawn(task).await.unwrap();
        let session = chat();
        let blocking = move || session.in_scope(|| info!("blocking"));
        tokio::task::spawn_blocking(blocking).await.unwrap();
        let span = session!("chat-44");
        let blocking = move || span.in_scope(|| info!("blocking, in a span"));
        tokio::task::spawn_blocking(blocking).await.unwrap();
        tokio::spawn(async { info!("after") }).await.unwrap();
        tokio::task::spawn_blocking(|| info!("after"))
            .await
            .unwrap();
    });
    app.exports(&[
        "task session.id=chat-42 user.id=u-7",
        "instrumented session.id=chat-43",
        "blocking session.id=chat-42 user.id=u-7",
        "blocking, in a span session.id=chat-44",
        "after",
        "after",
    ]);
}

#[test]
fn nothing_stays_behind_after_a_panic() {
    let app = App::new();
    let panics = std::panic::catch_unwind(|| {
        session!("chat-42").in_scope(|| {
            info!("in the session");
            std::panic::resume_unwind(Box::new(()));
        })
    });
    assert!(panics.is_err());
    info!("after");
    app.exports(&["in the session session.id=chat-42", "after"]);
}

#[test]
fn processor_after_the_exporting_one_comes_too_late() {
    let exporter = InMemoryLogExporter::default();
    let logs = SdkLoggerProvider::builder()
        .with_simple_exporter(exporter.clone())
        .with_log_processor(SessionLogProcessor::new())
        .build();
    let logger = logs.logger("api");
    chat().in_scope(|| logger.emit(logger.create_log_record()));
    let records = exporter.get_emitted_logs().unwrap();
    assert_eq!(records[0].record.attributes_iter().count(), 0);
}

/// The exporting processor alone decides which records are made.
#[test]
fn processor_creates_no_record_without_an_exporter() {
    use opentelemetry::logs::Severity;

    let logs = SdkLoggerProvider::builder()
        .with_log_processor(SessionLogProcessor::new())
        .build();
    let logger = logs.logger("api");
    assert!(!logger.event_enabled(Severity::Error, "target", None));
    assert!(logs.force_flush().is_ok() && logs.shutdown().is_ok());
}

#[test]
fn lifecycle_event_has_the_session_and_the_previous_one() {
    let app = App::new();
    let next = chat()
        .with_attribute("session.previous_id", "chat-41")
        .unwrap();
    next.emit_start();
    next.emit_end();
    let records = app.exporter.get_emitted_logs().unwrap();
    let ours = records.iter().map(|it| &it.record);
    let ours = ours.filter(|it| it.target().is_some_and(|it| it == "tracing_session"));
    let names: Vec<_> = ours.map(|it| it.event_name()).collect();
    assert_eq!(names, [Some("session.start"), Some("session.end")]);
    app.exports(&[
        "session.start session.id=chat-42 user.id=u-7 session.previous_id=chat-41",
        "session.end session.id=chat-42 user.id=u-7 session.previous_id=chat-41",
    ]);
}
