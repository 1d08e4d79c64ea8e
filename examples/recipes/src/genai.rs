//! genai: run the request `in_session`. With its feature `otel`, genai makes a span for each request, and this span is in the session.
//!
//! genai writes OpenTelemetry's keys. Phoenix reads OpenInference's, so the span around the request has the input, the output and the
//! tokens under these.

use crate::Outcome;
use crate::poem::serve;
use crate::report::Trace;
use genai::adapter::AdapterKind;
use genai::chat::ChatRequest;
use genai::resolver::{AuthData, Endpoint};
use genai::{Client, ModelIden, ServiceTarget};
use poem::{Route, handler, post, web::Json};
use serde_json::{Value, json};
use tracing::{Span, instrument};
use tracing_session::openinference::{OpenInferenceSpanExt, SpanKind};
use tracing_session::{InSession, Session};

const MODEL: &str = "gpt-4o-mini";

#[instrument(skip_all)]
async fn ask(client: &Client, question: &str) -> Outcome<String> {
    let span = Span::current();
    span.set_span_kind(SpanKind::Llm);
    span.set_model_name(MODEL);
    span.set_input(question);
    let request = ChatRequest::from_user(question);
    let response = client.exec_chat(MODEL, request, None).await?;
    if let (Some(read), Some(written)) = (
        response.usage.prompt_tokens,
        response.usage.completion_tokens,
    ) {
        span.set_token_counts(read.try_into()?, written.try_into()?);
    }
    let answer = response.first_text().unwrap_or_default();
    span.set_output(answer);
    Ok(answer.to_owned())
}

pub(crate) const SPANS: &[Trace] = &[
    &[
        "ask session.id=chat-1 user.id=u-7 openinference.span.kind=LLM input.value=And tomorrow? output.value=Sunny. llm.token_count.total=18",
        "chat gpt-4o-mini session.id=chat-1 user.id=u-7",
    ],
    &[
        "ask openinference.span.kind=LLM input.value=And tomorrow? output.value=Sunny. llm.token_count.total=18",
        "chat gpt-4o-mini",
    ],
];

pub(crate) async fn run() -> Outcome {
    let model = Route::new().at("/v1/chat/completions", post(complete));
    let (url, server) = serve(model).await?;
    let client = client(format!("{url}/v1/"))?;

    let session = Session::new("chat-1")?.with_user("u-7")?;
    ask(&client, "And tomorrow?").in_session(session).await?;
    ask(&client, "And tomorrow?").await?;
    server.abort();
    Ok(())
}

/// A client of the model at this address, which an application needs for a model on its own machines.
fn client(url: String) -> Outcome<Client> {
    let target = move |_: ServiceTarget| {
        Ok(ServiceTarget {
            endpoint: Endpoint::from_owned(url.clone()),
            auth: AuthData::from_single("no key"),
            model: ModelIden::new(AdapterKind::OpenAI, MODEL),
        })
    };
    let http = reqwest::Client::builder().no_proxy().build()?;
    let client = Client::builder().with_reqwest(http);
    Ok(client.with_service_target_resolver_fn(target).build()?)
}

/// Answers as OpenAI's API does.
#[handler]
fn complete(Json(_request): Json<Value>) -> Json<Value> {
    Json(json!({
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": MODEL,
        "choices": [{
            "index": 0,
            "message": { "role": "assistant", "content": "Sunny." },
            "finish_reason": "stop",
        }],
        "usage": { "prompt_tokens": 12, "completion_tokens": 6, "total_tokens": 18 },
    }))
}
