//! What a session says besides its ids: metadata, tags, a prompt template, attributes of one's own.

mod cleared;
mod cost;
mod fields;
mod given;
mod inherits;
mod late;
mod marked;
mod most;
mod nested;
mod own;
mod types;

use crate::support::{App, attributes, list, values};
use opentelemetry_sdk::trace::SpanData;
use serde::Serialize;
use std::collections::BTreeMap;
use tracing::info_span;
use tracing_session::Session;

/// A span as one line, with its attributes sorted, but for the OpenTelemetry layer's.
fn line(span: &SpanData) -> String {
    let attributes = attributes(span).map(|it| format!(" {}={}", it.key, it.value));
    let mut attributes: Vec<_> = attributes.collect();
    attributes.sort();
    format!("{}{}", span.name, attributes.concat())
}

/// Asserts what was exported, in the order in which the spans started.
#[track_caller]
fn exports(app: &App, expected: &[&str]) {
    let mut spans = app.spans();
    spans.sort_by_key(|span| span.start_time);
    let lines: Vec<_> = spans.iter().map(line).collect();
    assert_eq!(lines, expected, "\n{}", app.tree());
    assert_eq!(app.diagnostics.messages(), [""; 0]);
}

fn span(name: &'static str) {
    match name {
        "before" => info_span!("before").in_scope(|| {}),
        "after" => info_span!("after").in_scope(|| {}),
        "inside" => info_span!("inside").in_scope(|| {}),
        _ => info_span!("span").in_scope(|| {}),
    }
}

fn with_metadata(session: Session, key: &str, value: impl Serialize) -> Session {
    session.with_metadata(key, value).unwrap()
}

/// A session that says all that a session can.
fn full() -> Session {
    let session = Session::new("chat-42").unwrap().with_user("u-7").unwrap();
    with_metadata(session, "tenant", "acme")
        .with_tags(["beta"])
        .unwrap()
        .with_prompt_template("Say {word}")
        .with_prompt_template_version("v1")
        .with_prompt_template_variables(BTreeMap::from([("word", "hello")]))
        .unwrap()
        .with_attribute("ring", 2)
        .unwrap()
}

const FULL: &str = r#" llm.prompt_template.template=Say {word} llm.prompt_template.variables={"word":"hello"} llm.prompt_template.version=v1 metadata={"tenant":"acme"} ring=2 session.id=chat-42 tag.tags=["beta"] user.id=u-7"#;

const KEYS: [&str; 8] = [
    "llm.prompt_template.template",
    "llm.prompt_template.variables",
    "llm.prompt_template.version",
    "metadata",
    "ring",
    "session.id",
    "tag.tags",
    "user.id",
];

/// The span has all keys of a full session but these, each once.
#[track_caller]
fn lacks(span: &SpanData, missing: &[&str]) {
    for key in KEYS {
        let times = usize::from(!missing.contains(&key));
        assert_eq!(values(span, key).len(), times, "{key}: {}", line(span));
    }
}
