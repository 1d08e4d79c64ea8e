//! The span processor, for tracer providers that can't be wrapped, and the log processor.

use crate::base::{diagnostic, setup};
use crate::export;
use crate::export::dialect::Dialect;
use crate::export::exporter::Translator;
use crate::scope::{Scope, bridge};
use opentelemetry::trace::Span as _;
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};
use std::time::Duration;

/// Writes the session on spans when they start. Use it in a framework that builds the tracer provider and accepts only
/// span processors.
///
/// If you can, wrap the provider in a [`SessionTracerProvider`](crate::SessionTracerProvider) instead. It has none of
/// these limits, and costs less than a tenth. In a wrapped provider, the processor does nothing.
///
/// # Limits
///
/// When a span starts, the processor adds the values of the session in the parent `Context`. It doesn't add a value if the
/// span already has an attribute with the same key. An *opener* is a span whose fields set a session or user.
///
/// | case | with the processor |
/// | --- | --- |
/// | [`Session`](crate::Session) values, incoming headers, the default session | They work without limits. |
/// | `session!`, `user!` and fields of spans, also recorded later | They work for descendants that start afterwards. |
/// | a span that was created before its session, as in `future.instrument(span).in_session(session)` | Its descendants are in the session if the OpenTelemetry layer is wrapped. The span itself isn't. |
/// | an opener on which you call `set_parent` | Only the span itself has the values, in the form in which you wrote the fields. |
/// | a user recorded later, for descendants that have started | These descendants don't get the user. |
/// | an inherited value, if you set the attribute on the span later | The span has the attribute twice: first the inherited value, then yours. |
/// | a field `session.id` or `user.id` | It is exported as you wrote it: with the quotes of `?value`, and even if it isn't a valid id. |
/// | the field `id` of a span named `session`, and the fields `tags` and `metadata.key` of openers | These fields are exported too, under their own names. |
/// | attributes named `session`, `user` | They keep their names, so Phoenix loses the session of the span, unless you rename them with a [`SessionExporter`](crate::SessionExporter). |
/// | [`set_session_id`](crate::set_session_id), `set_user_id`, `new_session` | They return an error. |
/// | [`mark_trace`](crate::mark_trace) | It marks nothing. |
/// | [`with_root_turns`](crate::SessionLayer::with_root_turns), and turns of a [`Conversation`](crate::Conversation) inside another span | The spans are children of the current span instead of roots. |
/// | [`with_unexported_session_spans`](crate::SessionLayer::with_unexported_session_spans) | Session spans are exported. |
/// | [`Privacy`](crate::Privacy) | It isn't supported, because a processor can't remove attributes. |
///
/// # Where to put it
///
/// The order of the processors makes no difference. For [`Session`](crate::Session) values, you need nothing else. For
/// fields of spans, wrap the OpenTelemetry layer in a [`SessionLayer`](crate::SessionLayer).
///
/// If the framework builds that layer too, add the `SessionLayer` *after* it:
/// `subscriber.with(otel).with(SessionLayer::new())`. Then descendants inherit the session, including those in the third
/// row of the table, but a span named `session` itself is exported with its field `id` only. If you add the `SessionLayer`
/// before the OpenTelemetry layer, descendants inherit nothing.
///
/// - `init-tracing-opentelemetry` 0.44: `TracingConfig` accepts no processors, but `init_tracerprovider` does. It
///   also returns a provider that you can wrap instead. `examples/init_tracing_opentelemetry` has both.
/// - `logfire` 0.13 accepts processors (`with_additional_span_processor`), but it uses opentelemetry 0.32, whose
///   processors are a different type. It has to move to 0.33 first.
///
/// # Cost
///
/// About 700 ns per span in a session, because the SDK copies each ended span for a second processor. A wrapped provider
/// takes about 50 ns.
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
    /// Creates a processor. Add it to the builder of a tracer provider.
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

    /// Sets the keys that the processor writes. Default: [`Dialect::OPENINFERENCE`].
    ///
    /// The processor can't remove attributes: your own attributes keep their keys, and it adds the keys of the dialect. If
    /// you build the exporter yourself, use [`SessionExporter`](crate::SessionExporter) instead, which costs nothing when
    /// spans start.
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
        // The SDK copies the attributes here, so the cheap checks come first.
        let started = span.exported_data().map(|data| data.attributes);
        let started = started.unwrap_or_default();
        let is_own = |it: &KeyValue| started.iter().any(|own| own.key == it.key);
        inherited.retain(|attribute| !is_own(attribute));
        if self.translator.changes {
            // The translator needs the span's own attributes too, as an exporter gets them.
            inherited.splice(0..0, started.iter().cloned());
            if let Some(warning) = self.translator.translate(&mut inherited) {
                diagnostic::defer(warning);
            }
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

#[cfg(feature = "logs")]
pub(crate) mod logs {
    //! A log processor: writes the current session on log records.

    use crate::base::{diagnostic, setup};
    use crate::export;
    use crate::export::Redaction;
    use crate::export::dialect::Dialect;
    use crate::export::exporter::Translator;
    use crate::export::privacy::Privacy;
    use crate::scope::Scope;
    use crate::session::id::plain_text;
    use crate::session::keys::{SESSION_ID, USER_HASH, USER_ID};
    use crate::session::{Id, Session};
    use opentelemetry::logs::{AnyValue, LogRecord, Severity};
    use opentelemetry::{Array, InstrumentationScope, Key, KeyValue, StringValue, Value};
    use opentelemetry_sdk::error::OTelSdkResult;
    use opentelemetry_sdk::logs::{LogProcessor, SdkLogRecord};
    use std::sync::Arc;
    use std::time::Duration;

    /// Writes the session on the log records of `opentelemetry-appender-tracing` and of OpenTelemetry's API.
    ///
    /// Add it *before* the processor that exports, because later processors can't change the exported record.
    ///
    /// A record gets the same attributes as a span, with the values of the session that is current when the event is
    /// emitted, or of the default session. It doesn't get values that are recorded later.
    ///
    /// - If the record has its own attribute with the same key, such as a field `session.id`, that attribute wins. Metadata
    ///   and tags aren't merged. If a [`Dialect`] has several keys for the id, all of them get the record's own id.
    /// - An explicit `parent:` changes neither the session nor the trace id of an event.
    /// - In a span that `SessionLayer::wrap_filtered` filters out, records still get the session.
    /// - Outside any session, records stay unchanged.
    ///
    /// A log processor can't remove attributes, so [`Privacy`] redacts only the values that this processor adds. It redacts
    /// neither your own attributes nor the text of the record.
    ///
    /// There is no such processor for metrics, because each session id would create a new time series, which the SDK
    /// keeps for the lifetime of the process. Use spans or logs instead.
    ///
    /// # Cost
    ///
    /// About 70 % of the same fields written by hand, such as `session.id = %id`. A record outside any session takes about
    /// 50 ns more.
    ///
    /// ```
    /// use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
    /// # use opentelemetry_sdk::logs::InMemoryLogExporter;
    /// use opentelemetry_sdk::logs::SdkLoggerProvider;
    /// use tracing_session::{SessionLayer, processors::SessionLogProcessor};
    /// use tracing_subscriber::prelude::*;
    ///
    /// # let exporter = InMemoryLogExporter::default();
    /// let logs = SdkLoggerProvider::builder()
    ///     .with_log_processor(SessionLogProcessor::new())
    ///     .with_batch_exporter(exporter)
    ///     .build();
    /// let subscriber = tracing_subscriber::registry()
    ///     .with(SessionLayer::new()) // `.wrap(otel)`, if there are spans to export
    ///     .with(OpenTelemetryTracingBridge::new(&logs));
    /// # drop(subscriber);
    /// ```
    #[derive(Debug, Default)]
    #[must_use = "a processor does nothing until a provider has it: `.with_log_processor(processor)`"]
    pub struct SessionLogProcessor {
        redaction: Option<Arc<Redaction>>,
        /// `None` writes OpenInference's keys.
        translator: Option<Translator>,
    }

    impl SessionLogProcessor {
        /// Creates a processor. Add it to the builder of a logger provider.
        ///
        /// ```
        /// use opentelemetry_sdk::logs::SdkLoggerProvider;
        /// use tracing_session::processors::SessionLogProcessor;
        ///
        /// let logs = SdkLoggerProvider::builder().with_log_processor(SessionLogProcessor::new());
        /// ```
        pub fn new() -> Self {
            setup::begin();
            Self::default()
        }

        /// Sets the keys that the processor writes. Default: [`Dialect::OPENINFERENCE`].
        ///
        /// If a record has its own attribute with a key that the dialect adds, such as `gen_ai.conversation.id`, that
        /// attribute stays, and `session.id` keeps the session's value. A record's own metadata and tags keep their keys.
        ///
        /// ```
        /// use tracing_session::{Dialect, processors::SessionLogProcessor};
        ///
        /// let dialect = Dialect::OPENINFERENCE.and(Dialect::GEN_AI);
        /// let processor = SessionLogProcessor::new().with_dialect(dialect);
        /// ```
        pub fn with_dialect(self, dialect: Dialect) -> Self {
            let translator = Some(Translator::new(dialect));
            Self { translator, ..self }
        }

        /// Redacts the ids and metadata that the processor adds. Default: none.
        ///
        /// Pass a clone of the value that you pass to [`SessionTracerProvider::with_privacy`], so that both share the
        /// hashes.
        ///
        /// [`SessionTracerProvider::with_privacy`]: crate::SessionTracerProvider::with_privacy
        ///
        /// ```
        /// use tracing_session::{Privacy, export::IdPolicy, processors::SessionLogProcessor};
        ///
        /// let privacy = Privacy::new().with_user_ids(IdPolicy::omitted());
        /// let processor = SessionLogProcessor::new().with_privacy(privacy);
        /// ```
        pub fn with_privacy(mut self, privacy: Privacy) -> Self {
            self.redaction = Redaction::of(privacy);
            self
        }
    }

    impl LogProcessor for SessionLogProcessor {
        fn emit(&self, record: &mut SdkLogRecord, _: &InstrumentationScope) {
            if let Some(scope) = Scope::current() {
                self.write(&scope, record);
            }
        }

        /// False, because this processor exports nothing. It needs only the records of other processors.
        fn event_enabled(&self, _: Severity, _: &str, _: Option<&str>) -> bool {
            false
        }

        fn force_flush(&self) -> OTelSdkResult {
            Ok(())
        }

        fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
            Ok(())
        }
    }

    impl SessionLogProcessor {
        /// Adds the session's values whose keys the record doesn't have.
        fn write(&self, scope: &Scope, record: &mut SdkLogRecord) {
            let redaction = self.redaction.as_ref();
            let Some(translator) = &self.translator else {
                let mut push = |it| add(record, it);
                return scope.with_values(|values| export::encode(values, redaction, &mut push));
            };
            let mut attributes = Vec::new();
            let mut push = |attribute| attributes.push(attribute);
            match own_ids(record) {
                own if own.is_empty() => {
                    scope.with_values(|values| export::encode(values, redaction, &mut push));
                }
                own => export::encode(&own.or(scope.to_session()), redaction, &mut push),
            }
            if let Some(warning) = translator.translate(&mut attributes) {
                diagnostic::defer(warning);
            }
            attributes.into_iter().for_each(|it| add(record, it));
        }
    }

    /// Adds an attribute, unless the record has one.
    fn add(record: &mut SdkLogRecord, attribute: KeyValue) {
        let key = attribute.key.as_str();
        let is_own = |own: &Key| own.as_str() == key || own.as_str() == USER_ID && key == USER_HASH;
        if !record.attributes_iter().any(|(own, _)| is_own(own)) {
            record.add_attribute(attribute.key, any(attribute.value));
        }
    }

    /// The ids in the record's own attributes.
    fn own_ids(record: &SdkLogRecord) -> Session {
        let mut own = Session::default();
        for (key, value) in record.attributes_iter() {
            let id = match key.as_str() {
                SESSION_ID => &mut own.id,
                USER_ID => &mut own.user_id,
                _ => continue,
            };
            if let (None, AnyValue::String(text)) = (&id, value) {
                let plain = plain_text(text.as_str());
                *id = Id::received(&plain).ok();
            }
        }
        own
    }

    fn any(value: Value) -> AnyValue {
        fn list<T: Into<AnyValue>>(values: Vec<T>) -> AnyValue {
            values.into_iter().collect()
        }
        match value {
            Value::String(text) => text.into(),
            Value::Bool(value) => value.into(),
            Value::I64(value) => value.into(),
            Value::F64(value) => value.into(),
            Value::Array(Array::Bool(values)) => list(values),
            Value::Array(Array::I64(values)) => list(values),
            Value::Array(Array::F64(values)) => list(values),
            Value::Array(Array::String(values)) => list::<StringValue>(values),
            other => other.to_string().into(),
        }
    }
}
