//! The tables of the guide's page on troubleshooting: a test for each row makes the row's mistake. If the first cell is a
//! message, the crate emits this message. If it is a symptom, the crate emits nothing.

/// Declares the tests of some rows: each by the beginning of the row's first cell.
macro_rules! rows {
    ($($name:ident: $how:ident $row:literal => $test:expr;)*) => {
        $(
            #[test]
            fn $name() {
                let test = test_name!();
                $crate::troubleshooting::$how(test, $row, $test);
            }
        )*

        pub(crate) const ROWS: &[&str] = &[$($row),*];
    };
}

mod an_error;
mod between_services;
mod in_the_backend;
mod logs_and_tests;
mod nothing_arrives;
mod set_up;
mod somebody_else;
mod without_session;

use crate::support::{self, Base, Diagnostics, values};
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracer, SdkTracerProvider, SpanData};
use std::cell::RefCell;
use tracing::subscriber::DefaultGuard;
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_session::{SessionTracerProvider, tracer::SessionTracer};
use tracing_subscriber::Layer;
use tracing_subscriber::prelude::*;

const PAGE: &str = include_str!("../src/guide/troubleshooting.md");
const SAID: &str = include_str!("../src/base/diagnostic.rs");

/// A row of the page.
struct Row {
    first: &'static str,
    /// Where its first cell has what is said: each of these, and whether it was.
    said: Vec<(&'static str, RefCell<bool>)>,
}

impl Row {
    fn all() -> impl Iterator<Item = &'static str> {
        let is_row = |line: &&str| {
            line.starts_with("| ")
                && !line.starts_with("| ---")
                && !line.starts_with("| message or symptom")
        };
        PAGE.lines().filter(is_row)
    }

    #[track_caller]
    fn of(start: &str) -> Self {
        let is_it = |line: &&str| first_cell(line).trim_start_matches('`').starts_with(start);
        let rows: Vec<_> = Self::all().filter(is_it).collect();
        let [row] = rows[..] else {
            panic!("rows that begin with {start}: {rows:#?}");
        };
        let first = first_cell(row);
        let said = if first.starts_with('`') {
            codes(first)
        } else {
            Vec::new()
        };
        Self {
            first,
            said: said
                .into_iter()
                .map(|it| (it, RefCell::new(false)))
                .collect(),
        }
    }

    /// Asserts that this stands in the row.
    #[track_caller]
    fn says(&self, message: &str) {
        let mut said = self.said.iter();
        let found = said.find(|(said, _)| matches(said, message));
        let (_, was_said) = found.unwrap_or_else(|| panic!("not in the row: {message}"));
        was_said.replace(true);
    }

    #[track_caller]
    fn says_all(&self, messages: &[String]) {
        assert!(!messages.is_empty(), "nothing is said");
        for message in messages {
            self.says(message);
        }
    }

    /// Asserts that these words of its own stand in the row.
    #[track_caller]
    fn has(&self, words: &str) {
        assert!(self.first.contains(words), "{}", self.first);
    }

    #[track_caller]
    fn is_backed(&self) {
        for (said, was_said) in &self.said {
            assert!(*was_said.borrow(), "the row has what was not said: {said}");
        }
    }
}

fn first_cell(line: &str) -> &str {
    line[2..].split(" | ").next().unwrap()
}

/// What stands in a cell as code.
fn codes(cell: &str) -> Vec<&str> {
    let mut codes = Vec::new();
    let mut rest = cell;
    while let Some(start) = rest.find('`') {
        let ticks = rest[start..].bytes().take_while(|it| *it == b'`').count();
        let (fence, inside) = rest[start..].split_at(ticks);
        let end = inside.find(fence).expect("the code has an end");
        codes.push(inside[..end].trim());
        rest = &inside[end + ticks..];
    }
    codes
}

/// Whether a message is what the page has, where `..` stands for anything.
fn matches(said: &str, message: &str) -> bool {
    let mut rest = message;
    said.split("..").all(|part| {
        let found = rest.find(part);
        rest = &rest[found.map_or(0, |at| at + part.len())..];
        found.is_some()
    })
}

fn here(_: &str, row: &str, test: impl FnOnce(&Row)) {
    let row = Row::of(row);
    test(&row);
    row.is_backed();
}

/// In a process of its own: for what is said once in a process, or is set for all of it.
fn alone(name: &str, row: &str, test: impl FnOnce(&Row)) {
    if support::alone(name, &[]) {
        here(name, row, test);
    }
}

/// The same, where the environment asks for what there is not.
fn misled(name: &str, row: &str, test: impl FnOnce(&Row)) {
    let variables = [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_PROPAGATORS", "zipkin"),
    ];
    if support::alone(name, &variables) {
        here(name, row, test);
    }
}

/// The same, where a request may take a minute.
fn patient(name: &str, row: &str, test: impl FnOnce(&Row)) {
    if support::alone(name, &[("OTEL_EXPORTER_OTLP_TIMEOUT", "60000")]) {
        here(name, row, test);
    }
}

/// In a process of its own, which prints what is said.
fn printed(name: &str, row: &str, test: impl FnOnce()) {
    match support::output_alone(name, &[("RUST_LOG", "info,[span]=debug")]) {
        None => test(),
        Some(printed) => here(name, row, |row| row.says(&printed)),
    }
}

/// The same with a level that most spans don't have.
fn quiet(name: &str, row: &str, test: impl FnOnce()) {
    match support::output_alone(name, &[("RUST_LOG", "warn")]) {
        None => test(),
        Some(printed) => here(name, row, |row| row.says(&printed)),
    }
}

type PlainOtel = OpenTelemetryLayer<Base, SdkTracer>;
type OurOtel = OpenTelemetryLayer<Base, SessionTracer<SdkTracer>>;

/// An application that is set up in any way.
struct Mistaken {
    exporter: InMemorySpanExporter,
    diagnostics: Diagnostics,
    _default: DefaultGuard,
}

impl Mistaken {
    /// Whose provider is not wrapped.
    fn unwrapped<L: Layer<Base> + Send + Sync>(make: impl FnOnce(PlainOtel) -> L) -> Self {
        let (provider, exporter) = sdk();
        let otel = tracing_opentelemetry::layer().with_tracer(provider.tracer("app"));
        Self::with(make(otel), exporter)
    }

    fn wrapped<L: Layer<Base> + Send + Sync>(make: impl FnOnce(OurOtel) -> L) -> Self {
        let (provider, exporter) = sdk();
        let tracer = SessionTracerProvider::new(provider).tracer("app");
        Self::with(
            make(tracing_opentelemetry::layer().with_tracer(tracer)),
            exporter,
        )
    }

    fn with(layer: impl Layer<Base> + Send + Sync, exporter: InMemorySpanExporter) -> Self {
        let diagnostics = Diagnostics::default();
        let base = tracing_subscriber::registry().with(diagnostics.clone());
        Self {
            exporter,
            diagnostics,
            _default: base.with(layer).set_default(),
        }
    }

    fn messages(&self) -> Vec<String> {
        self.diagnostics.messages()
    }

    fn spans(&self) -> Vec<SpanData> {
        self.exporter.get_finished_spans().unwrap()
    }

    #[track_caller]
    fn session_of(&self, name: &str) -> Option<String> {
        session_of(&self.spans(), name)
    }
}

fn sdk() -> (SdkTracerProvider, InMemorySpanExporter) {
    let exporter = InMemorySpanExporter::default();
    let builder = SdkTracerProvider::builder().with_simple_exporter(exporter.clone());
    (builder.build(), exporter)
}

/// The session of the one span of that name.
#[track_caller]
fn session_of(spans: &[SpanData], name: &str) -> Option<String> {
    one_value(spans, name, "session.id")
}

#[track_caller]
fn one_value(spans: &[SpanData], name: &str, key: &str) -> Option<String> {
    let named: Vec<_> = spans.iter().filter(|span| span.name == name).collect();
    assert_eq!(named.len(), 1, "spans named {name}");
    let mut values = values(named[0], key);
    assert!(values.len() < 2, "{key} of {name} is {values:?}");
    values.pop()
}

fn some(value: &str) -> Option<String> {
    Some(value.to_owned())
}

const NOTHING: [&str; 0] = [];

#[test]
fn each_row_has_one_test_and_each_test_a_row() {
    let tests = [
        nothing_arrives::ROWS,
        set_up::ROWS,
        without_session::ROWS,
        somebody_else::ROWS,
        an_error::ROWS,
        between_services::ROWS,
        in_the_backend::ROWS,
        logs_and_tests::ROWS,
    ]
    .concat();
    let mut tested: Vec<_> = tests.iter().map(|start| Row::of(start).first).collect();
    let mut rows: Vec<_> = Row::all().map(first_cell).collect();
    tested.sort_unstable();
    rows.sort_unstable();
    assert_eq!(tested, rows);
    assert!(rows.len() > 50);
}

/// `diagnostic.rs` contains the text of every diagnostic, as literals of more than three words.
#[test]
fn each_diagnostic_has_a_row() {
    let mut texts = 0;
    for text in literals(SAID).filter(|text| text.split_whitespace().count() > 3) {
        texts += 1;
        // As it might be said.
        let mut message = String::new();
        for (at, part) in text.split(['{', '}']).enumerate() {
            message += if at % 2 == 0 { part } else { "this" };
        }
        let has = |row: &str| {
            let first = first_cell(row);
            first.starts_with('`') && codes(first).iter().any(|said| matches(said, &message))
        };
        assert!(Row::all().any(has), "no row has: {message}");
    }
    assert!(texts > 15, "{texts}");
}

/// The string literals of a source file, but for its comments.
fn literals(source: &str) -> impl Iterator<Item = String> {
    let code = source
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    let code = code.collect::<Vec<_>>().join("\n");
    let mut literals = Vec::new();
    let mut rest = code.as_str();
    while let Some(start) = rest.find('"') {
        let mut literal = String::new();
        let mut chars = rest[start + 1..].char_indices();
        let end = loop {
            match chars.next().expect("the literal has an end") {
                (at, '"') => break at,
                (_, '\\') => match chars.next().expect("something is escaped").1 {
                    '\n' => {
                        let after = chars.as_str();
                        let blank = after.len() - after.trim_start().len();
                        chars.by_ref().take(blank).for_each(drop);
                    }
                    escaped => literal.push(escaped),
                },
                (_, char) => literal.push(char),
            }
        };
        literals.push(literal);
        rest = &rest[start + 1 + end + 1..];
    }
    literals.into_iter()
}
