//! apalis: a job carries the session and the trace of the request that pushes it.
//!
//! apalis stores the trace of a job in its metadata, but not the session. So the job has a field for the headers.

use crate::Outcome;
use crate::report::Trace;
use apalis::prelude::*;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tracing::instrument;
use tracing_session::Session;
use tracing_session::propagation::{TraceHeaders, WithPropagated, inject_context};

#[derive(Serialize, Deserialize)]
struct Job {
    text: String,
    // Jobs that an older version has stored have no headers.
    #[serde(default)]
    trace_headers: TraceHeaders,
}

impl Job {
    fn new(text: &str) -> Self {
        let mut trace_headers = TraceHeaders::default();
        inject_context(&mut trace_headers);
        let text = text.to_owned();
        Self {
            text,
            trace_headers,
        }
    }
}

#[instrument(skip_all)]
fn handle(text: &str) -> Outcome<String> {
    // `MemoryStorage` keeps values as they are. The databases of apalis store JSON, so this example does too.
    Ok(serde_json::to_string(&Job::new(text))?)
}

/// The worker's function.
async fn work(job: String, done: Data<UnboundedSender<()>>) -> Result<(), BoxDynError> {
    let job: Job = serde_json::from_str(&job)?;
    summarise(&job.text)
        .with_propagated(&job.trace_headers)
        .await;
    Ok(done.send(())?)
}

#[instrument(skip_all)]
async fn summarise(text: &str) {
    tokio::task::yield_now().await;
    store(text).await;
}

#[instrument(skip_all)]
async fn store(_summary: &str) {
    tokio::task::yield_now().await;
}

pub(crate) const SPANS: &[Trace] = &[
    &[
        "handle session.id=chat-1 user.id=u-7",
        "summarise session.id=chat-1",
        "store session.id=chat-1",
    ],
    &[
        "handle session.id=chat-2",
        "summarise session.id=chat-2",
        "store session.id=chat-2",
    ],
    &["handle", "summarise", "store"],
];

pub(crate) async fn run() -> Outcome {
    let sessions = [
        // The headers carry the user only with `SessionPropagator::with_user`.
        Session::new("chat-1")?.with_user("u-7")?,
        Session::new("chat-2")?,
        Session::nothing(),
    ];
    let mut storage = MemoryStorage::new();
    for session in &sessions {
        let job = session.in_scope(|| handle("a long text"))?;
        storage.push(job).await?;
    }

    let (done, mut jobs_done) = unbounded_channel::<()>();
    let worker = WorkerBuilder::new("summaries")
        .backend(storage)
        .concurrency(2)
        .data(done)
        .build(work);
    let all_are_done = async move {
        for _ in sessions {
            jobs_done.recv().await;
        }
        Ok::<_, std::io::Error>(())
    };
    Ok(worker.run_until(all_are_done).await?)
}
