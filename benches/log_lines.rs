//! Instructions per log line, counted by callgrind: `cargo bench --bench log_lines --features
//! fmt,logs`, with valgrind installed.
//!
//! It fails where a line costs more than [`AT_MOST`] times what writing the same fields by hand costs,
//! both over a line that says no session.

mod callgrind;

use opentelemetry::InstrumentationScope;
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::{LogProcessor, SdkLogRecord, SdkLoggerProvider};
use std::hint::black_box;
use std::io;
use std::process::ExitCode;
use std::time::Duration;
use tracing::{Dispatch, info};
use tracing_session::fmt::with_session;
use tracing_session::{Session, SessionLayer, processors::SessionLogProcessor};
use tracing_subscriber::fmt;
use tracing_subscriber::prelude::*;

const AT_MOST: f64 = 1.2;

const SESSION: &str = "01938c1e-6b1f-7c7a-9c7e-0f4f3b8e2a11";
const USER: &str = "user-4711";

/// How many lines a round has: in a session, it is said once for all of them.
const LINES: u64 = 100;

/// Where lines go: records of OpenTelemetry's, JSON, text. With a session alone, or with a user.
const SHAPES: [&str; 6] = [
    "records",
    "records_user",
    "json",
    "json_user",
    "text",
    "text_user",
];

const CASES: [&str; 5] = [
    // No session, and nothing of ours.
    "baseline",
    // `session.id = %id` on each line.
    "hand_written",
    // The same without the `%`, where it is a `&str`.
    "hand_written_str",
    // This crate, in a `Session`.
    "tracing_session",
    // This crate, outside any session.
    "outside",
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args.as_slice() {
        ["--run", shape, case, rounds] => run(shape, case, rounds),
        _ => compare(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn compare() -> Result<(), String> {
    let mut broken = Vec::new();
    for shape in SHAPES {
        let mut per_line = Vec::new();
        for case in CASES {
            per_line.push(callgrind::per_item(shape, case, LINES)?);
        }
        let over = |at: usize| per_line[at] - per_line[0];
        for (at, case) in CASES.iter().enumerate() {
            println!(
                "shape={shape} case={case} instructions_per_line={:.0} over_baseline={:.0} of_hand_written={:.3}",
                per_line[at],
                over(at),
                over(at) / over(1),
            );
        }
        let measured = over(3) / over(1);
        println!("promise=\"{shape} of hand_written\" at_most={AT_MOST} measured={measured:.3}");
        if measured > AT_MOST {
            broken.push(shape);
        }
    }
    match broken.as_slice() {
        [] => Ok(()),
        broken => Err(format!("not kept: {}", broken.join("; "))),
    }
}

/// What a process of its own does.
fn run(shape: &str, case: &str, rounds: &str) -> Result<(), String> {
    let rounds: u64 = rounds.parse().map_err(|error| format!("{error}"))?;
    let is_ours = ["tracing_session", "outside"].contains(&case);
    tracing::dispatcher::set_global_default(subscriber(shape, is_ours))
        .map_err(|error| error.to_string())?;
    let mut session = Session::new(SESSION).map_err(|error| error.to_string())?;
    let with_user = shape.ends_with("_user");
    if with_user {
        session = session.with_user(USER).map_err(|error| error.to_string())?;
    }
    for _ in 0..rounds {
        let _attached = (case == "tracing_session").then(|| session.attach());
        for _ in 0..LINES {
            line(case, with_user);
        }
    }
    Ok(())
}

fn line(case: &str, with_user: bool) {
    let (session, user) = (black_box(SESSION), black_box(USER));
    match (case, with_user) {
        ("hand_written", false) => info!(tokens = 12, session.id = %session, "answered"),
        ("hand_written", true) => {
            info!(tokens = 12, session.id = %session, user.id = %user, "answered");
        }
        ("hand_written_str", false) => info!(tokens = 12, session.id = session, "answered"),
        ("hand_written_str", true) => {
            info!(
                tokens = 12,
                session.id = session,
                user.id = user,
                "answered"
            );
        }
        _ => info!(tokens = 12, "answered"),
    }
}

fn subscriber(shape: &str, is_ours: bool) -> Dispatch {
    let registry = tracing_subscriber::registry().with(is_ours.then(SessionLayer::new));
    let printed = || fmt::layer().with_ansi(false).with_writer(io::sink);
    match (shape.trim_end_matches("_user"), is_ours) {
        ("json", false) => registry.with(printed().json()).into(),
        ("json", true) => {
            let json = printed().json().map_event_format(with_session);
            registry.with(json).into()
        }
        ("text", false) => registry.with(printed()).into(),
        ("text", true) => registry
            .with(printed().map_event_format(with_session))
            .into(),
        _ => {
            let mut logs = SdkLoggerProvider::builder();
            if is_ours {
                logs = logs.with_log_processor(SessionLogProcessor::new());
            }
            let logs = logs.with_log_processor(Discard).build();
            registry.with(OpenTelemetryTracingBridge::new(&logs)).into()
        }
    }
}

#[derive(Debug)]
struct Discard;

impl LogProcessor for Discard {
    fn emit(&self, record: &mut SdkLogRecord, _: &InstrumentationScope) {
        black_box(record);
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}
