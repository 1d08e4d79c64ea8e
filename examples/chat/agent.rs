//! Answers a question: one turn. This file contains no code for sessions, like the libraries of an application.
//!
//! ```text
//! turn               AGENT      the question, the answer
//!   search           RETRIEVER  what was found for it
//!     select                    as a database driver would trace it
//!   complete         LLM        the model, its tokens; lasts as long as the answer is streamed
//! ```

use crate::model;
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt, stream};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::time::sleep;
use tracing::{Instrument, Span, info, info_span, instrument};
use tracing_session::openinference::{OpenInferenceSpanExt, SpanKind};

#[derive(Deserialize, Serialize)]
pub(crate) struct Message {
    role: Role,
    content: String,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum Role {
    User,
    Assistant,
}

/// Answers the last message.
pub(crate) async fn answer(messages: Vec<Message>) -> impl Stream<Item = String> {
    let question = messages.last().map_or("", |message| &message.content);
    // A root span, so it starts a trace. Phoenix shows each trace as a turn.
    let turn = info_span!("turn");
    turn.set_span_kind(SpanKind::Agent);
    turn.set_input(question);
    let facts = search(question).instrument(turn.clone()).await;
    let answer = Answer::begin(turn, question, &messages, &facts);
    stream::unfold(answer, |mut answer| async {
        Some((answer.next().await?, answer))
    })
}

#[instrument(skip_all, fields(openinference.span.kind = SpanKind::Retriever.as_str()))]
async fn search(question: &str) -> Vec<&'static str> {
    let span = Span::current();
    span.set_input(question);
    let facts = select(question).await;
    // A list of texts can always be written as JSON.
    let _ = span.set_output_json(&facts);
    facts
}

#[instrument(skip_all)]
async fn select(question: &str) -> Vec<&'static str> {
    sleep(Duration::from_millis(20)).await;
    model::facts(question)
}

/// A streamed answer, with the spans that end when it ends.
struct Answer {
    words: BoxStream<'static, String>,
    said: String,
    is_complete: bool,
    prompt_tokens: u64,
    complete: Span,
    turn: Span,
}

impl Answer {
    fn begin(turn: Span, question: &str, messages: &[Message], facts: &[&str]) -> Self {
        let complete = info_span!(parent: &turn, "complete");
        complete.set_span_kind(SpanKind::Llm);
        complete.set_model_name(model::NAME);
        // This can't fail either, like the other list.
        let _ = complete.set_input_json(&messages);
        let read = messages.iter().map(|message| &*message.content);
        let read = read.chain(facts.iter().copied());
        Self {
            words: model::complete(question, facts).boxed(),
            said: String::new(),
            is_complete: false,
            prompt_tokens: read.map(model::tokens).sum(),
            complete,
            turn,
        }
    }

    async fn next(&mut self) -> Option<String> {
        // The spans of the model's client are descendants of the call.
        let word = self.words.next().instrument(self.complete.clone()).await;
        match &word {
            Some(word) => self.said.push_str(word),
            None => self.is_complete = true,
        }
        word
    }
}

/// The answer is dropped after its last word, or earlier if the client disconnects. In both cases, the spans end here,
/// with the words so far.
impl Drop for Answer {
    fn drop(&mut self) {
        let tokens = model::tokens(&self.said);
        self.complete.set_token_counts(self.prompt_tokens, tokens);
        self.complete.set_output(&*self.said);
        self.turn.set_output(&*self.said);
        // The exported end time is the time when a span was last exited.
        self.turn.in_scope(|| {
            if !self.is_complete {
                info!("the client has hung up");
            }
        });
    }
}
