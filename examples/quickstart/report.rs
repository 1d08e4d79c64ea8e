//! The received spans: as a table, as a tree, and compared with the expected ones.

use crate::agent::Turn;
use crate::conversations::Conversation;
use opentelemetry_proto::tonic::common::v1::AnyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// The values of a span, and its place in the trace.
#[derive(PartialEq)]
struct Marked {
    path: String,
    session: String,
    user: String,
    metadata: String,
    tags: String,
    failed: bool,
}

impl fmt::Display for Marked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            path,
            session,
            user,
            metadata,
            tags,
            failed,
        } = self;
        let failed = if *failed { ", failed" } else { "" };
        write!(
            f,
            "{path}: session {session}, user {user}, metadata {metadata}, tags {tags}{failed}"
        )
    }
}

const NONE: &str = "-";

/// Whether all expected spans arrived, each with its session and user. Prints the differences.
pub(crate) fn verify(conversations: &[Conversation], arrived: &[Span]) -> bool {
    let mut unexpected: Vec<_> = arrived.iter().map(|span| marked(span, arrived)).collect();
    let mut missing = Vec::new();
    for conversation in conversations {
        for span in conversation.spans() {
            let expected = Marked {
                path: span.path.join(" > "),
                session: conversation.session.id().unwrap_or(NONE).to_owned(),
                user: span.user.unwrap_or(NONE).to_owned(),
                metadata: json!({ "tenant": conversation.tenant() }).to_string(),
                tags: conversation.tags().join(", "),
                failed: span.failed,
            };
            match unexpected.iter().position(|span| *span == expected) {
                Some(found) => drop(unexpected.swap_remove(found)),
                None => missing.push(expected),
            }
        }
    }
    if missing.is_empty() && unexpected.is_empty() {
        eprintln!("\nAll {} spans arrived as they should.", arrived.len());
        return true;
    }
    for span in &missing {
        eprintln!("did not arrive: {span}");
    }
    for span in &unexpected {
        eprintln!("should not have arrived: {span}");
    }
    false
}

fn marked(span: &Span, all: &[Span]) -> Marked {
    let code = span.status.as_ref().map(|status| status.code());
    Marked {
        path: path(span, all),
        session: attribute(span, "session.id"),
        user: attribute(span, "user.id"),
        metadata: attribute(span, "metadata"),
        tags: attribute(span, "tag.tags"),
        failed: code == Some(StatusCode::Error),
    }
}

fn path(span: &Span, all: &[Span]) -> String {
    if span.parent_span_id.is_empty() {
        return span.name.clone();
    }
    let above = all.iter().find(|other| is_child(span, other));
    let above = above.map_or_else(|| "not arrived".to_owned(), |span| path(span, all));
    format!("{above} > {}", span.name)
}

fn is_child(span: &Span, parent: &Span) -> bool {
    span.parent_span_id == parent.span_id && span.trace_id == parent.trace_id
}

/// All values of the span under this key. A key that is exported twice shows.
fn attribute(span: &Span, key: &str) -> String {
    let values = span.attributes.iter().filter(|it| it.key == key);
    let values: Vec<_> = values.map(|it| text(it.value.as_ref())).collect();
    if values.is_empty() {
        NONE.to_owned()
    } else {
        values.join(" and ")
    }
}

fn text(value: Option<&AnyValue>) -> String {
    match value.and_then(|it| it.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::ArrayValue(list)) => {
            let texts: Vec<_> = list.values.iter().map(|it| text(Some(it))).collect();
            texts.join(", ")
        }
        other => format!("{other:?}"),
    }
}

pub(crate) fn print(arrived: &[Span]) {
    print_table(arrived);
    let mut traces: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for span in arrived {
        traces.entry(&span.trace_id).or_default().push(span);
    }
    if let Some(largest) = traces.into_values().max_by_key(Vec::len) {
        println!("\nOne of the turns, with the session and user of each span:\n");
        print_tree(largest);
    }
}

#[derive(Default)]
struct Row<'a> {
    users: BTreeSet<String>,
    traces: BTreeSet<&'a [u8]>,
    spans: usize,
    without_session: usize,
    without_user: usize,
}

fn print_table(arrived: &[Span]) {
    // A span without its session counts for the session of the other spans of its turn.
    let mut sessions = BTreeMap::new();
    for span in arrived {
        let session = attribute(span, "session.id");
        if session != NONE {
            sessions.insert(&span.trace_id, session);
        }
    }
    let mut rows: BTreeMap<&str, Row<'_>> = BTreeMap::new();
    for span in arrived {
        let session = sessions.get(&span.trace_id).map_or(NONE, String::as_str);
        let row = rows.entry(session).or_default();
        row.traces.insert(&span.trace_id);
        row.spans += 1;
        row.without_session += usize::from(attribute(span, "session.id") == NONE);
        match attribute(span, "user.id") {
            user if user == NONE => row.without_user += 1,
            user => drop(row.users.insert(user)),
        }
    }
    println!(
        "{:36}  {:5} {:>6} {:>6} {:>16} {:>13}",
        "session", "user", "turns", "spans", "without session", "without user"
    );
    for (session, row) in rows {
        let users: Vec<_> = row.users.into_iter().collect();
        println!(
            "{session:36}  {:5} {:>6} {:>6} {:>16} {:>13}",
            if users.is_empty() {
                NONE.to_owned()
            } else {
                users.join(", ")
            },
            row.traces.len(),
            row.spans,
            row.without_session,
            row.without_user
        );
    }
}

fn print_tree(mut trace: Vec<&Span>) {
    fn print_below(trace: &[&Span], is_here: &dyn Fn(&Span) -> bool, depth: usize) {
        for span in trace.iter().filter(|span| is_here(span)) {
            let name = format!("{}{}", "  ".repeat(depth), span.name);
            let [session, user] = ["session.id", "user.id"].map(|key| attribute(span, key));
            println!("{name:36}  {session}  {user}");
            print_below(trace, &|child| is_child(child, span), depth + 1);
        }
    }
    trace.sort_by_key(|span| span.start_time_unix_nano);
    print_below(&trace, &|span| span.parent_span_id.is_empty(), 0);
}

/// The conversations that ran.
pub(crate) fn print_json(conversations: &[Conversation]) {
    for conversation in conversations {
        let turns = conversation.turns;
        let tokens = turns.iter().map(Turn::tokens);
        let (prompt, completion) = tokens.fold((0, 0), |all, of| (all.0 + of.0, all.1 + of.1));
        let line = json!({
            "session": conversation.session.id(),
            "user": conversation.session.user_id(),
            "tenant": conversation.tenant(),
            "tags": conversation.tags(),
            "turns": turns.len(),
            "spans": conversation.spans().count(),
            "first_input": turns.first().map(|turn| turn.question),
            "last_output": turns.last().map(|turn| turn.answer),
            "prompt_tokens": prompt,
            "completion_tokens": completion,
        });
        println!("{line}");
    }
}

pub(crate) fn print_where_to_look(conversations: &[Conversation]) {
    println!("Sent {} conversations.\n", conversations.len());
    println!(
        "In Phoenix: project \"quickstart\", tab Sessions. There, metadata['tenant'] == 'acme'"
    );
    println!("            as the filter finds those of one tenant.");
    println!("In Jaeger:  service \"quickstart\", and one of these as the tag:\n");
    for conversation in conversations {
        let session = conversation.session.id().unwrap_or(NONE);
        println!("  session.id={session}");
    }
}
