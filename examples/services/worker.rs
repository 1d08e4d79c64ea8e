//! The worker, and the queue that it takes its jobs from.

use crate::service::Outcome;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tracing::instrument;
use tracing_session::propagation::{WithPropagated, inject_context};

/// It takes text, as a queue outside the process would.
pub(crate) type Queue = UnboundedSender<String>;

#[derive(Serialize, Deserialize)]
pub(crate) struct Job {
    text: String,
    headers: HashMap<String, String>,
}

impl Job {
    /// A job that carries what is in force here.
    pub(crate) fn new(text: String) -> Self {
        let mut headers = HashMap::new();
        inject_context(&mut headers);
        Self { text, headers }
    }

    pub(crate) fn enqueue(&self, queue: &Queue) -> Outcome {
        Ok(queue.send(serde_json::to_string(self)?)?)
    }
}

/// Works until nobody is left who could send a job.
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
