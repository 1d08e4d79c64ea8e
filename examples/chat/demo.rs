//! A few users chat at once, over HTTP. Checks whether their sessions arrive.

use crate::Outcome;
use crate::receiver::Receiver;
use crate::report::{self, attribute};
use axum::http::header::{CONTENT_TYPE, COOKIE, SET_COOKIE};
use futures_util::future::try_join_all;
use opentelemetry_proto::tonic::trace::v1::Span;
use reqwest::Client;
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::time::sleep;
use tracing_session::otlp::Telemetry;

/// A user, a conversation, and its questions.
type Conversation = (&'static str, &'static str, &'static [&'static str]);

const CONVERSATIONS: &[Conversation] = &[
    (
        "ada",
        "chat-1",
        &["When are you open?", "And on Sunday?", "Thank you!"],
    ),
    ("ada", "chat-2", &["Which size do I need?"]),
    ("Zoë", "chat-3", &["Can I rent a bicycle?", HANGS_UP]),
];

/// The client of this question disconnects before the end of the answer.
const HANGS_UP: &str = "How far does an electric one go?";

/// A turn, as the client received it.
struct Turn {
    user: &'static str,
    conversation: &'static str,
    question: &'static str,
    answer: String,
}

/// Whether the right spans arrive.
pub(crate) async fn run(
    url: &str,
    telemetry: &Telemetry,
    receiver: Option<&Receiver>,
) -> Outcome<bool> {
    let client = Client::builder().no_proxy().build()?;
    let hold = |conversation| hold(&client, url, conversation);
    let turns = try_join_all(CONVERSATIONS.iter().map(hold)).await?;
    let turns: Vec<_> = turns.into_iter().flatten().collect();

    // The server notices only later that a client has disconnected.
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        sleep(Duration::from_millis(100)).await;
        telemetry.force_flush()?;
        let Some(receiver) = receiver else {
            println!("Nothing is verified, as the spans went elsewhere.");
            return Ok(true);
        };
        let arrived = receiver.spans();
        let wrong = verify(&turns, &arrived);
        if wrong.is_empty() {
            report::print(&arrived);
            println!("\nAll {} spans arrived as they should.", arrived.len());
            return Ok(true);
        }
        if Instant::now() > until {
            report::print(&arrived);
            wrong.iter().for_each(|wrong| eprintln!("{wrong}"));
            return Ok(false);
        }
    }
}

async fn hold(client: &Client, url: &str, conversation: &Conversation) -> Outcome<Vec<Turn>> {
    let (user, conversation, questions) = *conversation;
    let login = client.post(format!("{url}/user")).body(user).send().await?;
    let cookie = login.error_for_status()?.headers()[SET_COOKIE].clone();

    let mut messages = Vec::new();
    let mut turns = Vec::new();
    for question in questions {
        messages.push(json!({ "role": "user", "content": question }));
        let ask = json!({ "conversation": conversation, "messages": messages });
        let mut response = client
            .post(format!("{url}/chat"))
            .header(COOKIE, &cookie)
            .header(CONTENT_TYPE, "application/json")
            .body(ask.to_string())
            .send()
            .await?
            .error_for_status()?;
        let mut events = String::new();
        while let Some(chunk) = response.chunk().await? {
            events += std::str::from_utf8(&chunk)?;
            if *question == HANGS_UP {
                break;
            }
        }
        let words = events.lines().filter_map(|line| line.strip_prefix("data:"));
        let words = words.map(|word| serde_json::from_str::<String>(word.trim_start()));
        let answer = words.collect::<Result<String, _>>()?;
        messages.push(json!({ "role": "assistant", "content": answer }));
        turns.push(Turn {
            user,
            conversation,
            question,
            answer,
        });
    }
    Ok(turns)
}

/// The spans of a turn, sorted.
const SPANS: [&str; 4] = ["complete", "search", "select", "turn"];

/// The errors.
fn verify(turns: &[Turn], arrived: &[Span]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut arrived_in_turns = 0;
    for turn in turns {
        let Turn { question, .. } = turn;
        let is_root = |span: &&Span| {
            span.parent_span_id.is_empty()
                && attribute(span, "input.value") == *question
                && attribute(span, "openinference.span.kind") == "AGENT"
        };
        let mut roots = arrived.iter().filter(is_root);
        let (Some(root), None) = (roots.next(), roots.next()) else {
            wrong.push(format!("{question} is not one trace"));
            continue;
        };
        let output = attribute(root, "output.value");
        let hung_up = *question == HANGS_UP;
        if !(output == turn.answer || hung_up && output.starts_with(&turn.answer)) {
            wrong.push(format!("{question} was answered with {}", turn.answer));
        }

        let spans = arrived.iter().filter(|it| it.trace_id == root.trace_id);
        let mut names = Vec::new();
        for span in spans {
            let name = &span.name;
            let keys = ["session.id", "user.id", "metadata", "tag.tags"];
            let said = keys.map(|key| attribute(span, key));
            if said != [turn.conversation, turn.user, r#"{"tenant":"acme"}"#, "web"] {
                wrong.push(format!("{question} {name}: {said:?}"));
            }
            if span.end_time_unix_nano > root.end_time_unix_nano {
                wrong.push(format!("{question} {name}: longer than its turn"));
            }
            names.push(span.name.as_str());
        }
        arrived_in_turns += names.len();
        names.sort_unstable();
        names.dedup();
        if names != SPANS {
            wrong.push(format!("{question} has the spans {names:?}"));
        }
    }
    if arrived_in_turns != arrived.len() {
        wrong.push("There are spans of no turn".to_owned());
    }
    wrong
}
