//! Under which keys a record carries what is in force, and what is hidden.

use crate::logs::{App, chat};
use opentelemetry::logs::AnyValue;
use std::collections::BTreeMap;
use tracing::info;
use tracing_session::{
    Dialect, Privacy, Session, export::IdPolicy, processors::SessionLogProcessor,
};

fn full() -> Session {
    let session = chat()
        .with_metadata("tenant", "acme")
        .and_then(|it| it.with_metadata("seats", 12))
        .and_then(|it| it.with_tags(["beta", "web"]))
        .and_then(|it| it.with_attribute("deployment.ring", 2))
        .and_then(|it| it.with_attribute("deployment.canary", true))
        .unwrap();
    session
        .with_prompt_template("What is the weather in {city}?")
        .with_prompt_template_variables(BTreeMap::from([("city", "Oslo")]))
        .unwrap()
}

const TEMPLATE: &str = "llm.prompt_template.template=What is the weather in {city}? \
    llm.prompt_template.variables={\"city\":\"Oslo\"} deployment.ring=2 deployment.canary=true";

#[test]
fn record_has_all_values_of_a_session() {
    let app = App::new();
    full().in_scope(|| info!("full"));
    app.exports(&[&format!(
        "full session.id=chat-42 user.id=u-7 metadata={{\"tenant\":\"acme\",\"seats\":12}} \
         tag.tags=[\"beta\", \"web\"] {TEMPLATE}"
    )]);
}

#[test]
fn values_keep_their_types() {
    use opentelemetry::{Array, Value};

    let list = |value: Array| Value::Array(value);
    let values: [(&str, Value, AnyValue); 8] = [
        ("bool", true.into(), true.into()),
        ("integer", 2.into(), 2.into()),
        ("float", 0.5.into(), 0.5.into()),
        ("text", "web".into(), "web".into()),
        (
            "bools",
            list(vec![true].into()),
            AnyValue::from_iter([true]),
        ),
        ("integers", list(vec![2].into()), AnyValue::from_iter([2])),
        ("floats", list(vec![0.5].into()), AnyValue::from_iter([0.5])),
        (
            "texts",
            Value::Array(Array::String(vec!["web".into()])),
            AnyValue::from_iter(["web"]),
        ),
    ];
    let mut session = Session::default();
    for (key, value, _) in &values {
        session = session.with_attribute(key, value.clone()).unwrap();
    }
    let app = App::new();
    session.in_scope(|| info!("typed"));
    let all = app.exporter.get_emitted_logs().unwrap();
    let written = all[0].record.attributes_iter();
    let written: BTreeMap<_, _> = written.map(|(key, value)| (key.as_str(), value)).collect();
    for (key, _, expected) in &values {
        assert_eq!(written.get(key), Some(&expected), "{key}");
    }
}

#[test]
fn each_dialect_has_its_keys() {
    let cases = [
        (
            Dialect::GEN_AI,
            format!("gen_ai.conversation.id=chat-42 {TEMPLATE}"),
        ),
        (
            Dialect::LANGFUSE,
            format!(
                "langfuse.session.id=chat-42 langfuse.user.id=u-7 \
                 langfuse.trace.metadata.seats=12 langfuse.trace.tags=[\"beta\", \"web\"] \
                 {TEMPLATE} langfuse.trace.metadata.tenant=acme"
            ),
        ),
        (
            Dialect::new().with_session_key("acme.conversation"),
            format!("acme.conversation=chat-42 {TEMPLATE}"),
        ),
    ];
    for (dialect, expected) in cases {
        let app = App::with_processor(SessionLogProcessor::new().with_dialect(dialect));
        full().in_scope(|| info!("full"));
        app.exports(&[&format!("full {expected}")]);
    }
}

#[test]
fn private_values_are_omitted() {
    let privacy = Privacy::new()
        .with_user_ids(IdPolicy::omitted())
        .with_metadata(["tenant"], IdPolicy::omitted());
    let app = App::with_processor(SessionLogProcessor::new().with_privacy(privacy));
    full().in_scope(|| info!("full"));
    chat().in_scope(|| info!(user.id = "own", "cannot be taken out"));
    app.exports(&[
        &format!(
            "full session.id=chat-42 metadata={{\"seats\":12}} tag.tags=[\"beta\", \"web\"] {TEMPLATE}"
        ),
        "cannot be taken out user.id=own session.id=chat-42",
    ]);
}

#[cfg(feature = "hash")]
#[test]
fn hash_of_the_user_is_not_added_beside_an_own_id() {
    let privacy = Privacy::new().with_user_ids(IdPolicy::hashed("at least sixteen bytes").unwrap());
    let app = App::with_processor(SessionLogProcessor::new().with_privacy(privacy));
    chat().in_scope(|| {
        info!("hashed");
        info!(user.id = "own", "own");
    });
    let lines = app.lines();
    assert!(lines[0].starts_with("hashed session.id=chat-42 user.hash="));
    assert!(!lines[0].contains("u-7"));
    assert_eq!(lines[1], "own user.id=own session.id=chat-42");
}
