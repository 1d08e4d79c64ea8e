//! Sets span attributes that Phoenix and similar backends show: kind, input, output, model and tokens.
//!
//! The keys are those of OpenInference's semantic conventions (`spec/semantic_conventions.md` in the repository
//! `Arize-ai/openinference`). This module has only the keys that a page of sessions shows. It doesn't instrument model
//! calls: with [`OpenInferenceSpanExt`], you set the attributes on your own spans.
//!
//! Phoenix reads the first input and last output of a session, and the input and output of a turn, from root
//! spans only. It counts tokens on spans of the kind [`SpanKind::Llm`] only. It computes the cost from the token counts
//! and a model name in its price table, such as `gpt-4o-mini`. If several providers have a model with that name, set the
//! attribute `llm.provider` too.
//!
//! ```
//! use tracing::info_span;
//! use tracing_session::openinference::{OpenInferenceSpanExt, SpanKind};
//!
//! let span = info_span!("complete");
//! span.set_span_kind(SpanKind::Llm);
//! span.set_model_name("gpt-4o-mini");
//! span.set_input("What is the weather like?");
//! // When you have the answer:
//! span.set_output("Sunny and 24 degrees.");
//! span.set_token_counts(12, 6);
//! ```

use crate::base::error::{Error, ErrorKind};
use serde::Serialize;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// The key of a span's kind: see [`SpanKind`].
///
/// ```
/// assert_eq!(tracing_session::openinference::SPAN_KIND, "openinference.span.kind");
/// ```
pub const SPAN_KIND: &str = "openinference.span.kind";

/// The key of the input, as text.
///
/// ```
/// assert_eq!(tracing_session::openinference::INPUT_VALUE, "input.value");
/// ```
pub const INPUT_VALUE: &str = "input.value";

/// The key of the input's type: `text/plain` or `application/json`.
///
/// ```
/// assert_eq!(tracing_session::openinference::INPUT_MIME_TYPE, "input.mime_type");
/// ```
pub const INPUT_MIME_TYPE: &str = "input.mime_type";

/// The key of the output, as text.
///
/// ```
/// assert_eq!(tracing_session::openinference::OUTPUT_VALUE, "output.value");
/// ```
pub const OUTPUT_VALUE: &str = "output.value";

/// The key of the output's type: `text/plain` or `application/json`.
///
/// ```
/// assert_eq!(tracing_session::openinference::OUTPUT_MIME_TYPE, "output.mime_type");
/// ```
pub const OUTPUT_MIME_TYPE: &str = "output.mime_type";

/// The key of the model's name, as its provider calls it.
///
/// ```
/// assert_eq!(tracing_session::openinference::LLM_MODEL_NAME, "llm.model_name");
/// ```
pub const LLM_MODEL_NAME: &str = "llm.model_name";

/// The key of the number of tokens in the prompt.
///
/// ```
/// use tracing_session::openinference::LLM_TOKEN_COUNT_PROMPT;
/// assert_eq!(LLM_TOKEN_COUNT_PROMPT, "llm.token_count.prompt");
/// ```
pub const LLM_TOKEN_COUNT_PROMPT: &str = "llm.token_count.prompt";

/// The key of the number of tokens in the completion.
///
/// ```
/// use tracing_session::openinference::LLM_TOKEN_COUNT_COMPLETION;
/// assert_eq!(LLM_TOKEN_COUNT_COMPLETION, "llm.token_count.completion");
/// ```
pub const LLM_TOKEN_COUNT_COMPLETION: &str = "llm.token_count.completion";

/// The key of the total number of tokens.
///
/// ```
/// use tracing_session::openinference::LLM_TOKEN_COUNT_TOTAL;
/// assert_eq!(LLM_TOKEN_COUNT_TOTAL, "llm.token_count.total");
/// ```
pub const LLM_TOKEN_COUNT_TOTAL: &str = "llm.token_count.total";

/// The kind of work that a span represents. Backends draw each kind differently.
///
/// ```
/// use tracing::info_span;
/// use tracing_session::openinference::SpanKind;
///
/// // As a field, if you know the kind when you create the span:
/// let span = info_span!("search", openinference.span.kind = SpanKind::Retriever.as_str());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SpanKind {
    /// A call of a large language model. Backends count tokens on this kind only.
    Llm,
    /// A call of an embedding model.
    Embedding,
    /// The start of an application's work, or a link between its steps.
    Chain,
    /// A search for documents.
    Retriever,
    /// A call that sorts documents by relevance.
    Reranker,
    /// A function that a model or an agent calls.
    Tool,
    /// A piece of reasoning that calls models and tools.
    Agent,
    /// A check that blocks bad input or output.
    Guardrail,
    /// An evaluation of a model's output.
    Evaluator,
    /// The creation of a prompt from a template.
    Prompt,
}

impl SpanKind {
    /// Returns the kind as it is exported.
    ///
    /// ```
    /// use tracing_session::openinference::SpanKind;
    ///
    /// assert_eq!(SpanKind::Llm.as_str(), "LLM");
    /// ```
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Llm => "LLM",
            Self::Embedding => "EMBEDDING",
            Self::Chain => "CHAIN",
            Self::Retriever => "RETRIEVER",
            Self::Reranker => "RERANKER",
            Self::Tool => "TOOL",
            Self::Agent => "AGENT",
            Self::Guardrail => "GUARDRAIL",
            Self::Evaluator => "EVALUATOR",
            Self::Prompt => "PROMPT",
        }
    }
}

/// Sets OpenInference's attributes on a [`tracing::Span`]. The span need not declare them as fields.
///
/// You can set them as long as you have a handle of the span. Without the OpenTelemetry layer, and on a disabled or
/// filtered-out span, nothing happens. Set each attribute once: OpenTelemetry's SDK doesn't replace attributes, so it would
/// export both values.
///
/// [`Privacy`](crate::Privacy) doesn't redact the values.
///
/// Cost: one `set_attribute` per attribute, two for an input or output, and a copy of a text that isn't a `String`.
///
/// ```
/// use tracing::{Span, instrument};
/// use tracing_session::openinference::{OpenInferenceSpanExt, SpanKind};
///
/// #[instrument(skip_all)]
/// fn add(a: u64, b: u64) -> Result<u64, tracing_session::Error> {
///     let span = Span::current();
///     span.set_span_kind(SpanKind::Tool);
///     span.set_input_json(&[a, b])?;
///     span.set_output_json(&(a + b))?;
///     Ok(a + b)
/// }
/// # assert_eq!(add(1, 2), Ok(3));
/// ```
pub trait OpenInferenceSpanExt: sealed::Sealed {
    /// Sets the span's kind.
    ///
    /// ```
    /// # use tracing_session::openinference::{OpenInferenceSpanExt, SpanKind};
    /// tracing::info_span!("turn").set_span_kind(SpanKind::Chain);
    /// ```
    fn set_span_kind(&self, kind: SpanKind);

    /// Sets the input, as text.
    ///
    /// ```
    /// # use tracing_session::openinference::OpenInferenceSpanExt;
    /// tracing::info_span!("turn").set_input("What is the weather like?");
    /// ```
    fn set_input(&self, text: impl Into<String>);

    /// Sets the input, as JSON.
    ///
    /// # Errors
    ///
    /// Returns an error and sets nothing if `value` can't be serialised, for example if it is a map whose keys aren't texts.
    /// On a disabled span, it doesn't serialise `value`, and returns `Ok`.
    ///
    /// ```
    /// # use tracing_session::openinference::OpenInferenceSpanExt;
    /// tracing::info_span!("search").set_input_json(&("weather", 3))?;
    /// # Ok::<(), tracing_session::Error>(())
    /// ```
    fn set_input_json(&self, value: &impl Serialize) -> Result<(), Error>;

    /// Sets the output, as text.
    ///
    /// ```
    /// # use tracing_session::openinference::OpenInferenceSpanExt;
    /// tracing::info_span!("turn").set_output("Sunny and 24 degrees.");
    /// ```
    fn set_output(&self, text: impl Into<String>);

    /// Sets the output, as JSON.
    ///
    /// # Errors
    ///
    /// Returns an error in the same cases as [`set_input_json`](Self::set_input_json).
    ///
    /// ```
    /// # use tracing_session::openinference::OpenInferenceSpanExt;
    /// tracing::info_span!("search").set_output_json(&["sunny", "24 degrees"])?;
    /// # Ok::<(), tracing_session::Error>(())
    /// ```
    fn set_output_json(&self, value: &impl Serialize) -> Result<(), Error>;

    /// Sets the model's name, as its provider calls it. Backends look up prices with this name.
    ///
    /// ```
    /// # use tracing_session::openinference::OpenInferenceSpanExt;
    /// tracing::info_span!("complete").set_model_name("gpt-4o-mini");
    /// ```
    fn set_model_name(&self, name: impl Into<String>);

    /// Sets the number of tokens in the prompt and in the completion, and their sum.
    ///
    /// A number above `i64::MAX`, the largest number in an attribute, becomes `i64::MAX`.
    ///
    /// ```
    /// # use tracing_session::openinference::OpenInferenceSpanExt;
    /// tracing::info_span!("complete").set_token_counts(12, 6);
    /// ```
    fn set_token_counts(&self, prompt: u64, completion: u64);
}

impl OpenInferenceSpanExt for Span {
    fn set_span_kind(&self, kind: SpanKind) {
        self.set_attribute(SPAN_KIND, kind.as_str());
    }

    fn set_input(&self, text: impl Into<String>) {
        set_text(self, INPUT, text);
    }

    fn set_input_json(&self, value: &impl Serialize) -> Result<(), Error> {
        set_json(self, INPUT, value)
    }

    fn set_output(&self, text: impl Into<String>) {
        set_text(self, OUTPUT, text);
    }

    fn set_output_json(&self, value: &impl Serialize) -> Result<(), Error> {
        set_json(self, OUTPUT, value)
    }

    fn set_model_name(&self, name: impl Into<String>) {
        if !self.is_disabled() {
            self.set_attribute(LLM_MODEL_NAME, name.into());
        }
    }

    fn set_token_counts(&self, prompt: u64, completion: u64) {
        for (key, count) in [
            (LLM_TOKEN_COUNT_PROMPT, prompt),
            (LLM_TOKEN_COUNT_COMPLETION, completion),
            (LLM_TOKEN_COUNT_TOTAL, prompt.saturating_add(completion)),
        ] {
            self.set_attribute(key, i64::try_from(count).unwrap_or(i64::MAX));
        }
    }
}

/// The keys of a value and of its MIME type.
type Keys = [&'static str; 2];

const INPUT: Keys = [INPUT_VALUE, INPUT_MIME_TYPE];
const OUTPUT: Keys = [OUTPUT_VALUE, OUTPUT_MIME_TYPE];

fn set_text(span: &Span, [key, mime_type]: Keys, text: impl Into<String>) {
    if !span.is_disabled() {
        span.set_attribute(key, text.into());
        span.set_attribute(mime_type, "text/plain");
    }
}

fn set_json(span: &Span, [key, mime_type]: Keys, value: &impl Serialize) -> Result<(), Error> {
    if !span.is_disabled() {
        // The error drops serde's text, which may contain the value.
        let json = serde_json::to_string(value).map_err(|_| ErrorKind::Serialize)?;
        span.set_attribute(key, json);
        span.set_attribute(mime_type, "application/json");
    }
    Ok(())
}

/// Sealed, so that a new method isn't a breaking change.
mod sealed {
    pub trait Sealed {}

    impl Sealed for tracing::Span {}
}
