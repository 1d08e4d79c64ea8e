//! The worker and its queue of jobs.

use crate::service::Outcome;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tracing::instrument;
use tracing_session::propagation::{WithPropagated, inject_context};

/// It stores text, like a queue outside the process.
pub(crate) type Queue = UnboundedSender<String>;

#[derive(Serialize, Deserialize)]
pub(crate) struct Job {
    text: String,
    headers: HashMap<String, String>,
}

impl Job {
    /// Creates a job with the current context.
    pub(crate) fn new(text: String) -> Self {
        let mut headers = HashMap::new();
        inject_context(&mut headers);
        Self { text, headers }
    }

    pub(crate) fn enqueue(&self, queue: &Queue) -> Outcome {
        Ok(queue.send(serde_json::to_string(self)?)?)
    }
}

/// Works until all senders are dropped.
pub(crate) async fn run(mut jobs: UnboundedReceiver<String>) -> Outcome {
    while let Some(job) = jobs.recv().await {
        let job: Job = serde_json::from_str(&job)?;
        remember(&job.text).with_propagated(&job.headers).await;
    }
    Ok(())
}

#[instrument(skip_all)]
async fn remember(text: &str) {
    store(text).await;
}

#[instrument(skip_all)]
async fn store(_text: &str) {
    tokio::task::yield_now().await;
}
