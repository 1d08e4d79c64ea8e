//! The session on log lines: on OpenTelemetry's records, and on lines that are printed as text, as JSON, and with
//! `json-subscriber`.
//!
//!     cargo run --example logs --features fmt,logs
//!
//! It runs two conversations at once, prints the lines in each of the four formats, and fails if a line is in the wrong
//! conversation.

use opentelemetry::logs::AnyValue;
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_sdk::logs::{InMemoryLogExporter, SdkLogRecord, SdkLoggerProvider};
use serde_json::Value;
use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::task::yield_now;
use tracing::level_filters::LevelFilter;
use tracing::{info, instrument};
use tracing_session::fmt::with_session;
use tracing_session::{
    SessionLayer, current_session, current_session_id, processors::SessionLogProcessor,
};
use tracing_subscriber::{fmt, prelude::*};

/// Collects the lines. An application would send them to OTLP, to the console, or to files.
#[derive(Default)]
struct Output {
    records: InMemoryLogExporter,
    text: Lines,
    json: Lines,
    json_subscriber: Lines,
}

fn set_up(output: &Output) -> SdkLoggerProvider {
    let logs = SdkLoggerProvider::builder()
        // First, because it writes on the record that the next processor exports.
        .with_log_processor(SessionLogProcessor::new())
        .with_simple_exporter(output.records.clone())
        .build();

    let text = output.text.clone();
    let text = fmt::layer()
        .with_ansi(false)
        .with_writer(move || text.clone())
        .map_event_format(with_session);

    let json = output.json.clone();
    let json = fmt::layer()
        .json()
        .with_writer(move || json.clone())
        .map_event_format(with_session);

    // Its `serialize_extension` reads only the innermost span, which may not be the span with the session.
    let lines = output.json_subscriber.clone();
    let mut json_subscriber = json_subscriber::fmt::layer().with_writer(move || lines.clone());
    let layer = json_subscriber.inner_layer_mut();
    layer.add_dynamic_field("session.id", |_, _| current_session_id());
    layer.add_dynamic_field("user.id", |_, _| {
        current_session()?.user_id().map(str::to_owned)
    });

    tracing_subscriber::registry()
        .with(SessionLayer::new()) // `.wrap(otel)`, if you export spans too
        .with(OpenTelemetryTracingBridge::new(&logs))
        .with(text)
        .with(json)
        .with(json_subscriber)
        .with(LevelFilter::INFO)
        .init();
    logs
}

#[instrument(skip_all, fields(session.id = conversation, user.id))]
async fn chat(conversation: &str, user: &str) {
    info!(conversation, "asked");
    yield_now().await;
    tracing::Span::current().record("user.id", user);
    complete(conversation).await;
}

#[instrument(skip_all)]
async fn complete(conversation: &str) {
    yield_now().await;
    info!(conversation, tokens = 12, "answered");
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let output = Output::default();
    let logs = set_up(&output);
    let runtime = tokio::runtime::Builder::new_multi_thread().build()?;
    runtime.block_on(async {
        info!("started");
        let first = tokio::spawn(chat("chat-1", "alice"));
        let second = tokio::spawn(chat("chat-2", "bob"));
        first.await.and(second.await)
    })?;
    logs.force_flush()?;

    let records = output.records.get_emitted_logs()?;
    let of_app = |record: &&SdkLogRecord| record.target().is_some_and(|it| it == "logs");
    let records = records.iter().map(|it| &it.record).filter(of_app);
    check("OpenTelemetry", records.map(line_of_record).collect())?;
    check("fmt, text", without_spans(&output.text.lines()))?;
    check("fmt, JSON", parsed(output.json.lines())?)?;
    check("json-subscriber", parsed(output.json_subscriber.lines())?)?;
    Ok(logs.shutdown()?)
}

/// Prints the lines. True if each line is in its conversation, and has the user as soon as the user is known.
fn check(way: &str, lines: Vec<String>) -> Result<(), Box<dyn Error>> {
    println!("\n{way}");
    let mut answers = 0;
    for line in &lines {
        println!("  {line}");
        let says = |key: &str, value: &str| line.contains(&format!("{key}=\"{value}\""));
        let right = ["chat-1", "chat-2"]
            .iter()
            .all(|chat| says("session.id", chat) == says("conversation", chat));
        let answered = line.contains("answered");
        let users = (says("user.id", "alice"), says("user.id", "bob"));
        let right_user = match (answered, says("conversation", "chat-1")) {
            (false, _) => users == (false, false),
            (true, is_first) => users == (is_first, !is_first),
        };
        if !right || !right_user {
            return Err(format!("{way}: in the wrong conversation: {line}").into());
        }
        answers += usize::from(answered);
    }
    match (lines.len(), answers) {
        (5, 2) => Ok(()),
        (all, answers) => Err(format!("{way}: {all} lines, {answers} answers").into()),
    }
}

fn line_of_record(record: &SdkLogRecord) -> String {
    let text = |value: &AnyValue| match value {
        AnyValue::String(text) => format!("{:?}", text.as_str()),
        AnyValue::Int(number) => number.to_string(),
        other => format!("{other:?}"),
    };
    let attributes = record.attributes_iter();
    let attributes = attributes.map(|(key, value)| format!("{key}={}", text(value)));
    let body = record.body().map(text).unwrap_or_default();
    [body]
        .into_iter()
        .chain(attributes)
        .collect::<Vec<_>>()
        .join(" ")
}

/// A line from its target on. The text before it has the fields of the spans.
fn without_spans(lines: &[String]) -> Vec<String> {
    let line = |line: &String| Some(line.split_once(" logs: ")?.1.to_owned());
    lines.iter().filter_map(line).collect()
}

/// The expected values of a line, at the top level and in the fields.
fn parsed(lines: Vec<String>) -> Result<Vec<String>, serde_json::Error> {
    let parse = |line: String| {
        let line: Value = serde_json::from_str(&line)?;
        let members = line.as_object().into_iter().flatten();
        let fields = line["fields"].as_object().into_iter().flatten();
        let members = members
            .filter(|(key, _)| key.ends_with(".id"))
            .chain(fields);
        let members = members.map(|(key, value)| format!("{key}={value}"));
        Ok(members.collect::<Vec<_>>().join(" "))
    };
    lines.into_iter().map(parse).collect()
}

/// Keeps the lines that a layer prints.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn lines(&self) -> Vec<String> {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&bytes);
        text.lines().map(str::to_owned).collect()
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
