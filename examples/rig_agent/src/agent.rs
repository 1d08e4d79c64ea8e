//! The agent: rig's, with this example's model and tool.

use futures_util::stream;
use rig::completion::{CompletionRequest, CompletionResponse, Usage};
use rig::driver::{Exchange, Model, Opened, Opening, Transport};
use rig::error::ProviderError;
use rig::message::{
    AssistantContent, Message, Origin, ToolCall, ToolFunction, ToolName, UserContent,
};
use rig::test_utils::{MockFrame, MockScript};
use rig::tool::{Tool, ToolContext};
use rig::{Agent, AgentBuilder};
use serde::Deserialize;
use std::convert::Infallible;
use tracing::{Instrument, instrument};
use tracing_session::{InSession, current_session};

pub(crate) fn new() -> Agent {
    let model = Model::new(MockScript::new("here"), Scripted);
    AgentBuilder::new(model).name("support").tool(Track).build()
}

#[derive(Clone)]
struct Scripted;

impl Transport<MockScript> for Scripted {
    fn send(&self, request: CompletionRequest, _: Exchange) -> Opening<MockFrame> {
        let Some(content) = answer(&request) else {
            return Opening::failed(ProviderError::Provider("no such tool".to_owned()));
        };
        let response = CompletionResponse::new(
            vec![content],
            Usage::new().total_tokens(7),
            Origin::new("here", "here", ""),
            serde_json::Value::Null,
        );
        let frame = MockFrame::Response(Box::new(response));
        Opening::ready(Opened::new(stream::iter([Ok(frame)])))
    }
}

/// Calls the tool until it has the tool's result.
fn answer(request: &CompletionRequest) -> Option<AssistantContent> {
    let is_result = |item: &UserContent| matches!(item, UserContent::ToolResult(_));
    let tells = |message: &Message| match message {
        Message::User { content } => content.iter().any(is_result),
        _ => false,
    };
    if request.chat_history.iter().any(tells) {
        return Some(AssistantContent::text("It is on its way."));
    }
    let name = ToolName::new(Track::NAME).ok()?;
    let call = ToolFunction::new(name, serde_json::json!({ "order": 4711 }));
    Some(AssistantContent::ToolCall(ToolCall::from_wire("1", call)))
}

#[derive(Clone)]
struct Track;

#[derive(Deserialize)]
struct Order {
    order: u64,
}

impl Tool for Track {
    const NAME: &'static str = "track";
    type Args = Order;
    type Output = String;
    type Error = Infallible;

    fn description(&self) -> String {
        "Where an order is".to_owned()
    }

    fn parameters(&self) -> serde_json::Value {
        serde_json::json!({ "type": "object", "properties": { "order": { "type": "integer" } } })
    }

    async fn call(&self, _: &mut ToolContext, args: Order) -> Result<String, Infallible> {
        let found = carrier(args.order).await;
        // A spawned task inherits nothing. With the span, it is under the span and in its session.
        let _ = tokio::spawn(remember().in_current_span()).await;
        // With the session alone, it is a separate trace in the same session.
        let session = current_session().unwrap_or_default();
        let _ = tokio::spawn(bill().in_session(session)).await;
        Ok(found)
    }
}

#[instrument]
async fn carrier(order: u64) -> String {
    format!("{order} is in a van")
}

#[instrument]
async fn remember() {}

#[instrument]
async fn bill() {}
