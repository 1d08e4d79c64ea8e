//! Compares the exported spans with the spans that a recipe expects.

use crate::Outcome;
use opentelemetry_sdk::trace::{InMemorySpanExporter, SpanData};
use std::collections::HashMap;
use std::process::ExitCode;

/// The attributes that the recipes set. The order is that of a line.
const KEYS: [&str; 7] = [
    "session.id",
    "user.id",
    "metadata",
    "openinference.span.kind",
    "input.value",
    "output.value",
    "llm.token_count.total",
];

/// The lines of a trace's spans.
pub(crate) type Trace<'a> = &'a [&'a str];

pub(crate) struct Report {
    exporter: InMemorySpanExporter,
    has_failed: bool,
}

impl Report {
    pub(crate) fn new(exporter: InMemorySpanExporter) -> Self {
        Self {
            exporter,
            has_failed: false,
        }
    }

    /// Prints one line if the recipe exported exactly these traces, and otherwise both lists.
    pub(crate) fn check(&mut self, recipe: &str, run: Outcome, expected: &[Trace]) -> Outcome {
        let spans = self.exporter.get_finished_spans()?;
        self.exporter.reset();
        let mut traces = HashMap::<_, Vec<_>>::new();
        for span in &spans {
            let trace = span.span_context.trace_id();
            traces.entry(trace).or_default().push(line(span));
        }
        let found = sorted(traces.into_values().collect());
        let expected = expected
            .iter()
            .map(|trace| trace.iter().map(ToString::to_string));
        let expected = sorted(expected.map(Iterator::collect).collect());
        if run.is_ok() && found == expected {
            println!("{recipe}: {} spans, each in its session", spans.len());
        } else {
            println!("{recipe}: FAILED, {run:?}\nfound {found:#?}\nexpected {expected:#?}");
            self.has_failed = true;
        }
        Ok(())
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(u8::from(self.has_failed))
    }
}

fn sorted(mut traces: Vec<Vec<String>>) -> Vec<Vec<String>> {
    for trace in &mut traces {
        trace.sort();
    }
    traces.sort();
    traces
}

/// `name key=value ..`, with every value of a key, so that a second one shows.
fn line(span: &SpanData) -> String {
    let of_key = |key| {
        span.attributes
            .iter()
            .filter(move |it| it.key.as_str() == key)
    };
    let values = KEYS.into_iter().flat_map(of_key);
    let values = values.map(|it| format!(" {}={}", it.key, it.value));
    values.fold(span.name.to_string(), |line, value| line + &value)
}
