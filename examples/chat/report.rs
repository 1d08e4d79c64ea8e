//! The received spans, by session.

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Default)]
struct Row {
    users: BTreeSet<String>,
    turns: usize,
    spans: usize,
    first_input: String,
}

pub(crate) fn print(arrived: &[Span]) {
    let mut arrived: Vec<_> = arrived.iter().collect();
    arrived.sort_by_key(|span| span.start_time_unix_nano);
    let mut rows: BTreeMap<String, Row> = BTreeMap::new();
    for span in arrived {
        let row = rows.entry(attribute(span, "session.id")).or_default();
        row.spans += 1;
        row.users.insert(attribute(span, "user.id"));
        if span.parent_span_id.is_empty() {
            row.turns += 1;
            if row.turns == 1 {
                row.first_input = attribute(span, "input.value");
            }
        }
    }
    println!("\nsession                               user        turns  spans  first input");
    for (session, row) in rows {
        let users: Vec<_> = row.users.into_iter().collect();
        let (users, turns, spans) = (users.join(", "), row.turns, row.spans);
        println!(
            "{session:36}  {users:10} {turns:>6} {spans:>6}  {}",
            row.first_input
        );
    }
}

/// All values of the span under this key. A key that is exported twice shows.
pub(crate) fn attribute(span: &Span, key: &str) -> String {
    let values = span.attributes.iter().filter(|it| it.key == key);
    let values = values.filter_map(|it| it.value.as_ref()?.value.as_ref());
    let values: Vec<_> = values.map(text).collect();
    values.join(" and ")
}

fn text(value: &Value) -> String {
    match value {
        Value::StringValue(text) => text.clone(),
        Value::ArrayValue(list) => {
            let values = list.values.iter().filter_map(|it| it.value.as_ref());
            values.map(text).collect::<Vec<_>>().join(", ")
        }
        other => format!("{other:?}"),
    }
}
