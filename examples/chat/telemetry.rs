//! The destination of the spans.

use crate::Outcome;
use crate::receiver::Receiver;
use std::env;
use std::time::Duration;
use tracing_session::otlp::{Pipeline, Protocol, pipeline};

pub(crate) struct Destination {
    pub(crate) name: String,
    pub(crate) pipeline: Pipeline,
    /// Set if the destination is this example's own receiver.
    pub(crate) receiver: Option<Receiver>,
}

pub(crate) async fn destination(is_demo: bool) -> Outcome<Destination> {
    let chat = pipeline("chat").with_project("chat");
    let is_set = |variable| env::var(variable).is_ok_and(|value| !value.is_empty());
    if is_set("OTEL_EXPORTER_OTLP_ENDPOINT") || is_set("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") {
        return Ok(Destination {
            name: "where the environment says".to_owned(),
            pipeline: chat,
            receiver: None,
        });
    }
    let chat = chat.with_protocol(Protocol::HttpProtobuf);
    if !is_demo && phoenix_runs().await {
        return Ok(Destination {
            name: format!("{PHOENIX}: project chat, tab Sessions"),
            pipeline: chat.with_endpoint(PHOENIX),
            receiver: None,
        });
    }
    let receiver = Receiver::start().await?;
    Ok(Destination {
        name: "a receiver of our own".to_owned(),
        pipeline: chat.with_endpoint(receiver.url()),
        receiver: Some(receiver),
    })
}

const PHOENIX: &str = "http://127.0.0.1:6006";

async fn phoenix_runs() -> bool {
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(1))
        .build();
    let Ok(client) = client else { return false };
    let health = client.get(format!("{PHOENIX}/healthz")).send().await;
    health.is_ok_and(|response| response.status().is_success())
}
