//! A span processor for providers that cannot be wrapped. It writes when a span starts.

use crate::base::setup;
use crate::export;
use crate::export::dialect::Dialect;
use crate::export::exporter::Translator;
use crate::scope::{Scope, bridge};
use opentelemetry::trace::Span as _;
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};
use std::time::Duration;

/// Writes the session on spans when they start, for frameworks that build the provider and accept only span
/// processors.
///
/// If you can, wrap the provider in a [`SessionTracerProvider`](crate::SessionTracerProvider) instead. It has
/// none of these limits, and costs a tenth. In a wrapped provider the processor does nothing.
///
/// # Limits
///
/// When a span starts, the processor adds the values that apply under its parent's `Context`, unless the span
/// has attributes with the same keys by then.
///
/// | case | with the processor |
/// | --- | --- |
/// | [`Session`](crate::Session) values, incoming headers, the default session | They work without limits. |
/// | `session!`, `user!` and fields of spans, also recorded later | They work for descendants that start afterwards. |
/// | an opener on which you call `set_parent` | Only the span itself has its values, as its fields were written. |
/// | a user recorded later, for descendants that have started | They don't get it. |
/// | an inherited value that the span then records or sets itself | The span has the attribute twice: first the inherited value, then its own. |
/// | a field `session.id` or `user.id` | It is exported as it was written: with quotes if it was `?value`, and even if it isn't an id. |
/// | the field `id` of a span named `session`, and the fields `tags` and `metadata.key` of openers | They are exported under these names too. |
/// | attributes named `session`, `user` | They keep their names, so Phoenix loses the session of the span, unless you rename them with a [`SessionExporter`](crate::SessionExporter). |
/// | [`set_session_id`](crate::set_session_id), `set_user_id`, `new_session` | They return an error. |
/// | [`mark_trace`](crate::mark_trace) | It marks nothing. |
/// | [`with_root_turns`](crate::SessionLayer::with_root_turns), and turns of a [`Conversation`](crate::Conversation) inside another span | The spans are children of the current span instead of roots. |
/// | [`Privacy`](crate::Privacy) | There is none, because a processor can't remove attributes. |
///
/// An *opener* is a span whose fields set a session or user.
///
/// # Where to put it
///
/// Its place among other processors makes no difference. `Session` values need nothing else. For fields of
/// spans, put the [`SessionLayer`](crate::SessionLayer) around the OpenTelemetry layer. If the framework
/// builds that layer too, add the `SessionLayer` *after* it, as in
/// `subscriber.with(otel).with(SessionLayer::new())`. Then descendants inherit, also those of the third row. A
/// span named `session` then has only its `id`. If you add it before the OpenTelemetry layer, it does nothing for
/// descendants.
///
/// - `init-tracing-opentelemetry` 0.44: `TracingConfig` accepts no processors, but `init_tracerprovider` does. It
///   also returns a provider that you can wrap instead. `examples/init_tracing_opentelemetry` has both.
/// - `logfire` 0.13 accepts processors (`with_additional_span_processor`), but it uses opentelemetry 0.32, whose
///   processors are a different type. It has to move to 0.33 first.
///
/// # Cost
///
/// It takes about 70 % of the time of a span for each span in a session, and 40 % for any other; a wrapped provider
/// takes 5 %. With a second processor, the SDK copies each span that ends for each of them.
///
/// ```
/// use opentelemetry::trace::TracerProvider;
/// use opentelemetry_sdk::trace::SdkTracerProvider;
/// use tracing_session::{SessionLayer, processors::SessionSpanProcessor};
/// use tracing_subscriber::prelude::*;
///
/// let provider = SdkTracerProvider::builder()
///     .with_span_processor(SessionSpanProcessor::new())
///     .build();
/// let otel = tracing_opentelemetry::layer().with_tracer(provider.tracer("chat"));
/// let subscriber = tracing_subscriber::registry().with(SessionLayer::new().wrap(otel));
/// # drop(subscriber);
/// ```
#[derive(Debug)]
#[must_use = "a processor does nothing until a provider has it: `.with_span_processor(processor)`"]
pub struct SessionSpanProcessor {
    translator: Translator,
}

impl SessionSpanProcessor {
    /// A processor, to be added to the builder of a provider.
    ///
    /// ```
    /// use opentelemetry_sdk::trace::SdkTracerProvider;
    /// use tracing_session::processors::SessionSpanProcessor;
    ///
    /// let provider = SdkTracerProvider::builder()
    ///     .with_span_processor(SessionSpanProcessor::new())
    ///     .build();
    /// # drop(provider);
    /// ```
    pub fn new() -> Self {
        setup::processor_created();
        let translator = Translator::new(Dialect::default());
        Self { translator }
    }

    /// Sets the keys that are written. Default: [`Dialect::OPENINFERENCE`].
    ///
    /// The processor can't remove attributes: your own keep their keys, and it adds those of the dialect.
    /// If you build the exporter yourself, use [`SessionExporter`](crate::SessionExporter) instead. It
    /// costs nothing while spans are made.
    ///
    /// ```
    /// use tracing_session::{Dialect, processors::SessionSpanProcessor};
    ///
    /// let dialect = Dialect::OPENINFERENCE.and(Dialect::LANGFUSE);
    /// let processor = SessionSpanProcessor::new().with_dialect(dialect);
    /// ```
    pub fn with_dialect(self, dialect: Dialect) -> Self {
        let translator = Translator::new(dialect);
        Self { translator }
    }
}

impl Default for SessionSpanProcessor {
    fn default() -> Self {
        Self::new()
    }
}

impl SpanProcessor for SessionSpanProcessor {
    fn on_start(&self, span: &mut Span, cx: &Context) {
        // A span of a `SessionTracerProvider` writes the session itself.
        if bridge::is_starting() {
            return;
        }
        let Some(scope) = Scope::of(cx) else { return };
        let mut inherited = Vec::new();
        let mut push = |attribute| inherited.push(attribute);
        scope.with_values(|values| export::encode(values, None, &mut push));
        if inherited.is_empty() {
            return;
        }
        // The SDK copies the attributes, so this comes after the cheap checks.
        let started = span.exported_data().map(|data| data.attributes);
        let started = started.unwrap_or_default();
        let is_own = |it: &KeyValue| started.iter().any(|own| own.key == it.key);
        inherited.retain(|attribute| !is_own(attribute));
        if self.translator.changes {
            // The translator needs the span's own attributes too, as an exporter gets them.
            inherited.splice(0..0, started.iter().cloned());
            self.translator.translate(&mut inherited);
        }
        for attribute in inherited {
            if !is_own(&attribute) {
                span.set_attribute(attribute);
            }
        }
    }

    fn on_end(&self, _: SpanData) {}

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}
