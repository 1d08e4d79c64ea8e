//! A span processor for providers that cannot be wrapped. It writes when a span starts.

use crate::format::dialect::Dialect;
use crate::format::translator::Translator;
use crate::format::write_scope;
use crate::handover;
use crate::layer::heard;
use crate::scope::Scope;
use opentelemetry::trace::Span as _;
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Writes session, user and what else is in force on spans when they start, where a framework builds
/// the provider and lets you add no more than a span processor.
///
/// Wherever you can, wrap the provider in a [`SessionTracerProvider`](crate::SessionTracerProvider),
/// which loses nothing and costs a tenth. Inside a wrapped provider the processor does nothing.
///
/// # What it loses
///
/// A span gets what is in force under its parent's `Context` when it starts, and what it does not
/// say itself by then.
///
/// | case | with the processor |
/// | --- | --- |
/// | [`Session`](crate::Session) values, headers that come in, a default session | as ever |
/// | what `session!`, `user!` and fields of spans say, also late | as ever, on spans below that start afterwards |
/// | the same, where the span that says it has an explicit `parent:` or a `set_parent` | on that span alone |
/// | a user recorded late, on spans below that have started | is missing |
/// | a value that a span inherits, and then records or sets itself | the attribute stands there twice: first the inherited value, then its own |
/// | a field `session.id` or `user.id` | is exported as it was written: with its quotes if it was `?value`, and even if it is no id |
/// | the field `id` of a span named `session` or `user`, and the fields `tags` and `metadata.key` | are exported under these names too |
/// | metadata and tags that a span sets itself by OpenTelemetry's API | are not joined with those in force: its own win |
/// | attributes named `session`, `user` | keep their names, so that Phoenix loses the session of the span |
/// | [`set_session_id`](crate::set_session_id), `set_user_id`, `new_session` | an error |
/// | [`mark_trace`](crate::mark_trace) | marks nothing |
/// | [`with_root_turns`](crate::SessionLayer::with_root_turns), and the turns of a [`Conversation`](crate::Conversation) inside another span | begin no trace: they are children of the span that they are made in |
/// | [`Privacy`](crate::Privacy) | there is none: what a span says itself cannot be taken back |
///
/// # Where to put it
///
/// Its place among other processors makes no difference. `Session` values need nothing else. For what
/// spans say, put the [`SessionLayer`](crate::SessionLayer) around the OpenTelemetry layer as ever.
/// Where the framework makes that layer too, add the `SessionLayer` *after* it, as in
/// `subscriber.with(otel).with(SessionLayer::new())`: then the spans below inherit, those of the third
/// row among them, and only a span named `session` has no more than its `id`. Before the OpenTelemetry
/// layer it does nothing for other spans.
///
/// - `init-tracing-opentelemetry` 0.44: `TracingConfig` lets nobody in, but
///   `init_tracerprovider` takes processors, and gives a provider that can be wrapped instead: both are
///   in `examples/init_tracing_opentelemetry`.
/// - `logfire` 0.13 takes processors (`with_additional_span_processor`), and stands on opentelemetry
///   0.32, whose processors are another type: it has to move to 0.33 first.
///
/// # Cost
///
/// Some 7,000 instructions for each span in a session, and 4,100 for any other, of the 9,800 that a
/// span takes anyway; a wrapped provider takes 500. With a second processor, the SDK copies each span
/// that ends, for each of them; and it lets the attributes of a span be read from a copy only.
///
/// ```
/// use opentelemetry::trace::TracerProvider;
/// use opentelemetry_sdk::trace::SdkTracerProvider;
/// use tracing_session::{SessionLayer, SessionSpanProcessor};
/// use tracing_subscriber::prelude::*;
///
/// let provider = SdkTracerProvider::builder()
///     .with_span_processor(SessionSpanProcessor::new())
///     .build();
/// let otel = tracing_opentelemetry::layer().with_tracer(provider.tracer("chat"));
/// let subscriber = tracing_subscriber::registry().with(SessionLayer::new().around(otel));
/// # drop(subscriber);
/// ```
#[derive(Debug)]
pub struct SessionSpanProcessor {
    translator: Translator,
}

impl SessionSpanProcessor {
    /// A processor, to be added to the builder of a provider.
    ///
    /// ```
    /// use opentelemetry_sdk::trace::SdkTracerProvider;
    /// use tracing_session::SessionSpanProcessor;
    ///
    /// let provider = SdkTracerProvider::builder()
    ///     .with_span_processor(SessionSpanProcessor::new())
    ///     .build();
    /// # drop(provider);
    /// ```
    pub fn new() -> Self {
        EVER.store(true, Ordering::Relaxed);
        heard::set_up_begins();
        Self {
            translator: Translator::default(),
        }
    }

    /// Sets the keys that are written. Default: [`Dialect::OPENINFERENCE`].
    ///
    /// The processor can't remove attributes: your own keep their keys, and it adds those of the dialect.
    /// If you build the exporter yourself, use [`SessionExporter`](crate::SessionExporter) instead. It
    /// costs nothing while spans are made.
    ///
    /// ```
    /// use tracing_session::{Dialect, SessionSpanProcessor};
    ///
    /// let dialect = Dialect::OPENINFERENCE.and(Dialect::LANGFUSE);
    /// let processor = SessionSpanProcessor::new().with_dialect(dialect);
    /// ```
    pub fn with_dialect(self, dialect: Dialect) -> Self {
        Self {
            translator: Translator::new(dialect),
        }
    }
}

impl Default for SessionSpanProcessor {
    fn default() -> Self {
        Self::new()
    }
}

impl SpanProcessor for SessionSpanProcessor {
    fn on_start(&self, span: &mut Span, cx: &Context) {
        // In a span that writes itself.
        if handover::is_starting() {
            return;
        }
        if let Some(scope) = Scope::of(cx) {
            self.write(&scope, span);
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

impl SessionSpanProcessor {
    /// Writes what the span does not say itself.
    fn write(&self, scope: &Scope, span: &mut Span) {
        let mut inherited = Vec::new();
        write_scope(scope, None, &mut |attribute| inherited.push(attribute));
        if inherited.is_empty() {
            return;
        }
        // A copy, which is made only where there is something to write.
        let started = span.exported_data().map(|data| data.attributes);
        let started = started.unwrap_or_default();
        let is_own = |it: &KeyValue| started.iter().any(|own| own.key == it.key);
        inherited.retain(|attribute| !is_own(attribute));
        if self.translator.changes {
            // As the exporter would see it.
            inherited.splice(0..0, started.iter().cloned());
            self.translator.translate(&mut inherited);
        }
        for attribute in inherited {
            if !is_own(&attribute) {
                span.set_attribute(attribute);
            }
        }
    }
}

/// There is a processor. Where nobody has one, nobody pays for it.
static EVER: AtomicBool = AtomicBool::new(false);

/// Whether spans may be marked without a [`SessionTracerProvider`](crate::SessionTracerProvider).
#[inline]
pub(crate) fn is_there() -> bool {
    EVER.load(Ordering::Relaxed)
}
