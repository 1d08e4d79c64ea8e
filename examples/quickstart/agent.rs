//! The work of a turn. This file contains no code for sessions, like the libraries of an application.

use futures_util::{StreamExt, stream};
use opentelemetry::global;
use opentelemetry::trace::{Status, Tracer};
use std::error::Error;
use std::iter;
use std::pin::pin;
use std::time::Duration;
use tokio::time::sleep;
use tracing::{Instrument, Span, instrument};
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// A question, its answer, and the work in between.
#[derive(Clone, Copy)]
pub(crate) struct Turn {
    pub(crate) question: &'static str,
    pub(crate) answer: &'static str,
    pub(crate) steps: &'static [Step],
}

#[derive(Clone, Copy)]
pub(crate) enum Step {
    Search,
    AskModel,
    Remember,
    Locate,
    Refund,
}

pub(crate) type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

/// Does `work`, and sets the input and output that backends show for the turn on the current span.
pub(crate) async fn show(turn: Turn, work: impl Future<Output = Outcome>) {
    let root = Span::current();
    root.set_attribute("openinference.span.kind", "AGENT");
    root.set_attribute("input.value", turn.question);
    if let Err(error) = work.await {
        root.set_status(Status::error(error.to_string()));
    }
    root.set_attribute("output.value", turn.answer);
}

pub(crate) async fn work(turn: Turn) -> Outcome {
    for step in turn.steps {
        match step {
            Step::Search => search(turn.question).await,
            Step::AskModel => ask_model(turn).await,
            Step::Remember => tokio::spawn(remember(turn.question).in_current_span()).await?,
            Step::Locate => locate(),
            Step::Refund => refund().await?,
        }
    }
    Ok(())
}

#[instrument(skip_all, fields(openinference.span.kind = "TOOL", input.value = question))]
async fn search(question: &str) {
    fetch().await;
    fetch().await;
}

#[instrument(skip_all)]
async fn fetch() {
    sleep(MOMENT).await;
}

/// Streams the answer, with a span for each piece.
#[instrument(skip_all, fields(
    openinference.span.kind = "LLM",
    llm.model_name = "gpt-4o-mini",
    llm.token_count.prompt = tokens(turn.question),
    llm.token_count.completion = tokens(turn.answer),
    input.value = turn.question,
    output.value = turn.answer,
))]
async fn ask_model(turn: Turn) {
    let mut pieces = pin!(stream::iter(pieces(turn.answer)).then(receive));
    while pieces.next().await.is_some() {}
}

#[instrument(skip_all)]
async fn receive(_piece: &str) {
    sleep(MOMENT).await;
}

/// Runs in a separate task.
#[instrument(skip_all, fields(openinference.span.kind = "TOOL", input.value = text))]
async fn remember(text: &str) {
    sleep(MOMENT).await;
}

/// Traced with OpenTelemetry's own API, without `tracing`.
fn locate() {
    global::tracer("locator").in_span("locate", |_cx| {});
}

#[instrument(skip_all, fields(openinference.span.kind = "TOOL"))]
async fn refund() -> Outcome {
    sleep(MOMENT).await;
    Err("the bank does not answer".into())
}

fn pieces(answer: &str) -> impl Iterator<Item = &str> {
    answer.split(' ')
}

fn tokens(text: &str) -> i64 {
    pieces(text).count() as i64
}

/// Long enough that the conversations interleave.
pub(crate) const MOMENT: Duration = Duration::from_millis(1);

impl Turn {
    pub(crate) fn fails(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::Refund))
    }

    /// The tokens of the prompt and of the completion.
    pub(crate) fn tokens(&self) -> (i64, i64) {
        let asks = |step: &&Step| matches!(step, Step::AskModel);
        let times = self.steps.iter().filter(asks).count() as i64;
        (times * tokens(self.question), times * tokens(self.answer))
    }

    /// The spans that [`work`] creates: the names on the path to each.
    pub(crate) fn spans(&self) -> impl Iterator<Item = Vec<&'static str>> {
        self.steps.iter().flat_map(|step| match step {
            Step::Search => vec![
                vec!["search"],
                vec!["search", "fetch"],
                vec!["search", "fetch"],
            ],
            Step::AskModel => {
                let pieces = pieces(self.answer).map(|_| vec!["ask_model", "receive"]);
                iter::once(vec!["ask_model"]).chain(pieces).collect()
            }
            Step::Remember => vec![vec!["remember"]],
            Step::Locate => vec![vec!["locate"]],
            Step::Refund => vec![vec!["refund"]],
        })
    }
}
