//! A mistake in the setup reaches the developer also where the log filter hides it.

use super::{NO_PROVIDER, plain_provider};
use crate::support;
use opentelemetry::trace::TracerProvider;
use std::process::{Command, Stdio};
use tracing::{Dispatch, Level, Subscriber, dispatcher, info_span};
use tracing_session::{SessionLayer, session};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, fmt, prelude::*};

fn without_the_provider<S>() -> impl Layer<S>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let (provider, _exporter) = plain_provider();
    SessionLayer::new().wrap(tracing_opentelemetry::layer().with_tracer(provider.tracer("app")))
}

type Subscribe = fn() -> Dispatch;

/// Where the events of each subscriber go.
const SUBSCRIBERS: [(&str, Subscribe); 5] = [
    ("nowhere", || {
        tracing_subscriber::registry()
            .with(without_the_provider())
            .into()
    }),
    ("not to our target, in one layer", || {
        let lines = fmt::layer().with_ansi(false).with_writer(std::io::stderr);
        tracing_subscriber::registry()
            .with(without_the_provider())
            .with(lines.with_filter(of_this_crate()))
            .into()
    }),
    ("not to our target, in all layers", || {
        tracing_subscriber::registry()
            .with(without_the_provider())
            .with(fmt::layer().with_ansi(false))
            .with(of_this_crate())
            .into()
    }),
    ("to lines", || {
        tracing_subscriber::registry()
            .with(without_the_provider())
            .with(fmt::layer().with_ansi(false))
            .into()
    }),
    ("to lines of JSON", || {
        tracing_subscriber::registry()
            .with(without_the_provider())
            .with(fmt::layer().json().with_filter(LevelFilter::WARN))
            .into()
    }),
];

/// As `RUST_LOG=my_app=debug`.
fn of_this_crate() -> Targets {
    Targets::new().with_target("main", Level::DEBUG)
}

/// Makes a mistake in the setup twice, and one in a value, inside a span that has an id.
fn make_mistakes(subscriber: Subscribe) {
    for _ in 0..2 {
        let _default = dispatcher::set_default(&subscriber());
        session!("secret-42").in_scope(|| info_span!("below").in_scope(|| {}));
        info_span!("session", id = " ").in_scope(|| {});
    }
}

#[test]
fn mistake_in_the_setup_is_printed_once_unless_a_layer_shows_it() {
    let test = test_name!();
    for (place, subscriber) in SUBSCRIBERS {
        let Some(printed) = support::output_alone(test, &[("PLACE", place)]) else {
            if std::env::var("PLACE").unwrap() == place {
                make_mistakes(subscriber);
            }
            continue;
        };
        let line = format!("tracing-session: {NO_PROVIDER}\n");
        let is_shown = place.starts_with("to ");
        assert_eq!(printed.contains(&line), !is_shown, "{place}: {printed}");
        let text = serde_json::to_string(NO_PROVIDER).unwrap();
        let shown = match place {
            "to lines of JSON" => text.trim_matches('"'),
            _ => NO_PROVIDER,
        };
        // Layers show it once for each subscriber.
        let times = if is_shown { 2 } else { 1 };
        assert_eq!(printed.matches(shown).count(), times, "{place}: {printed}");
        // What is wrong with a value is an event only.
        let is_value_shown = printed.contains("of span `session` at");
        assert_eq!(is_value_shown, is_shown, "{place}: {printed}");
        assert!(!printed.contains("secret"), "{place}: {printed}");
        assert!(
            !printed.contains("tracing_session: tracing-session:"),
            "{place}: {printed}"
        );
    }
}

#[test]
fn all_warnings_are_turned_off_by_a_variable() {
    for (value, is_off) in [("off", true), (" OFF ", true), ("on", false)] {
        let variable = ("TRACING_SESSION_DIAGNOSTICS", value);
        let Some(printed) = support::output_alone(test_name!(), &[variable]) else {
            return SUBSCRIBERS.iter().for_each(|(_, it)| make_mistakes(*it));
        };
        let count = printed.matches("exported without their session").count();
        assert_eq!(count, if is_off { 0 } else { 5 }, "{printed}");
        assert_eq!(printed.contains("is blank"), !is_off, "{printed}");
    }
}

/// As where the reader of a pipe has gone.
#[test]
fn standard_error_that_is_closed_breaks_nothing() {
    const CLOSED: &str = "STANDARD_ERROR_IS_CLOSED";
    if std::env::var_os(CLOSED).is_some() {
        let mut byte = String::new();
        std::io::stdin().read_line(&mut byte).unwrap();
        std::io::Write::write_all(&mut std::io::stderr(), b"x").unwrap_err();
        let (_, nowhere) = SUBSCRIBERS[0];
        return make_mistakes(nowhere);
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    let command = command.args([test_name!(), "--exact", "--nocapture"]);
    let command = command.env(CLOSED, "1").stdin(Stdio::piped());
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stderr.take());
    drop(child.stdin.take());
    let output = child.wait_with_output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && printed.contains("1 passed"),
        "{printed}"
    );
}
