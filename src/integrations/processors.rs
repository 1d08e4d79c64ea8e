//! Processors: the span processor, for providers that cannot be wrapped, which writes when a span starts, and the log
//! processor.

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
/// | a span that was created before its session, as in `future.instrument(span).in_session(session)` | The spans inside are in the session if the OpenTelemetry layer is wrapped. The span itself isn't. |
/// | an opener on which you call `set_parent` | Only the span itself has its values, as its fields were written. |
/// | a user recorded later, for descendants that have started | They don't get it. |
/// | an inherited value that the span then records or sets itself | The span has the attribute twice: first the inherited value, then its own. |
/// | a field `session.id` or `user.id` | It is exported as it was written: with quotes if it was `?value`, and even if it isn't an id. |
/// | the field `id` of a span named `session`, and the fields `tags` and `metadata.key` of openers | They are exported under these names too. |
/// | attributes named `session`, `user` | They keep their names, so Phoenix loses the session of the span, unless you rename them with a [`SessionExporter`](crate::SessionExporter). |
/// | [`set_session_id`](crate::set_session_id), `set_user_id`, `new_session` | They return an error. |
/// | [`mark_trace`](crate::mark_trace) | It marks nothing. |
/// | [`with_root_turns`](crate::SessionLayer::with_root_turns), and turns of a [`Conversation`](crate::Conversation) inside another span | The spans are children of the current span instead of roots. |
/// | [`with_unexported_session_spans`](crate::SessionLayer::with_unexported_session_spans) | Session spans are exported. |
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

    /// Writes the session on log records: those of `opentelemetry-appender-tracing`, and those made with
    /// OpenTelemetry's API.
    ///
    /// Add it *before* the processor that exports, because later processors can't change the exported record.
    ///
    /// A record gets the values that [`current_session`](crate::current_session) returns where it is written (or the
    /// default session's), as the same attributes as a span. It doesn't get values that are recorded later.
    ///
    /// - If the record has an attribute with the same key, such as an event with a field `session.id`, that attribute
    ///   wins, and the session's value isn't added. Metadata and tags aren't merged. If a [`Dialect`] has more than one
    ///   key for the id, the record's own id is written under these keys too.
    /// - An event with an explicit `parent:` gets the session that is current where it is written. Its trace id comes
    ///   from there too.
    /// - In a span that `SessionLayer::wrap_filtered` filters out, records still get its session.
    /// - Outside any session, records stay unchanged.
    ///
    /// A log processor can't remove an attribute from a record. So [`Privacy`] redacts only the values that this
    /// processor adds. It redacts neither your own attributes nor the text of the record.
    ///
    /// There is no such processor for metrics, because each session id would create a new time series, which the SDK
    /// keeps for the lifetime of the process. Use spans or logs instead.
    ///
    /// # Cost
    ///
    /// About 0.6 to 0.7 of the same fields written by hand, such as `session.id = %id`. A record outside any session
    /// takes about 50 ns more.
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
        /// A processor, to be added to the builder of a provider.
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

        /// Sets the keys that are written. Default: [`Dialect::OPENINFERENCE`].
        ///
        /// A record's own attribute with a key of the dialect stays, and the session keeps its value. A
        /// record's own metadata and tags get no keys of the dialect.
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
        /// let nobody = Privacy::new().with_user_ids(IdPolicy::omitted());
        /// let processor = SessionLogProcessor::new().with_privacy(nobody);
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

        /// False: this processor exports nothing, so it needs no record that no other processor wants.
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
        /// Adds the values that the record has no attributes for.
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
