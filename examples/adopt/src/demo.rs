//! The surroundings of the bot, without any spans: a model server, and customers.

use crate::BoxError;
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};
use std::net::SocketAddr;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

pub(crate) const CONVERSATIONS: usize = 10;
pub(crate) const TURNS: usize = 3;

/// Starts a server with OpenAI's API: its URL.
pub(crate) async fn serve_model() -> Result<String, BoxError> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let url = format!("http://{}", listener.local_addr()?);
    let moderation = json!({ "results": [{ "flagged": false }] });
    let routes = Router::new()
        .route("/chat/completions", post(complete))
        .route("/moderations", post(Json(moderation)));
    tokio::spawn(async { axum::serve(listener, routes).await });
    Ok(url)
}

/// Calls the tool for each question, and then answers with the tool's result.
async fn complete(Json(request): Json<Value>) -> Json<Value> {
    // So that the conversations interleave.
    tokio::task::yield_now().await;
    let last = request["messages"].as_array().and_then(|all| all.last());
    let last = last.unwrap_or(&Value::Null);
    let (message, reason) = if last["role"] == "tool" {
        let answer = json!({ "role": "assistant", "content": "It is on its way." });
        (answer, "stop")
    } else {
        let function = json!({ "name": "find_order", "arguments": "{\"number\": 4711}" });
        let call = json!({ "id": "call-1", "type": "function", "function": function });
        let calls = json!({ "role": "assistant", "content": null, "tool_calls": [call] });
        (calls, "tool_calls")
    };
    Json(json!({
        "id": "completion-1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o-mini",
        "choices": [{ "index": 0, "message": message, "finish_reason": reason }],
        "usage": { "prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12 },
    }))
}

/// All conversations at once, of two customers. A load balancer checks the health.
pub(crate) async fn hold_conversations(bot: SocketAddr) {
    let mut conversations = JoinSet::new();
    for number in 0..CONVERSATIONS {
        conversations.spawn(hold_conversation(bot, number));
    }
    for outcome in conversations.join_all().await {
        if let Err(error) = outcome {
            eprintln!("a conversation has failed: {error}");
        }
    }
}

async fn hold_conversation(bot: SocketAddr, number: usize) -> Result<(), BoxError> {
    let http = reqwest::Client::new();
    let url = format!("http://{bot}/conversations/chat-{number}");
    let token = ["ada", "ben"][number % 2];
    for _ in 0..TURNS {
        let turn = http
            .post(&url)
            .bearer_auth(token)
            .body("Where is my order 4711?");
        turn.send().await?.error_for_status()?;
    }
    let history = http.get(&url).bearer_auth(token).send().await?;
    let history: Vec<Value> = history.error_for_status()?.json().await?;
    if history.len() != 2 * TURNS {
        return Err(format!("{} messages in the history", history.len()).into());
    }
    let health = http.get(format!("http://{bot}/health")).send().await?;
    health.error_for_status()?;
    Ok(())
}
