//! `SessionExporter`: sends spans to one backend, with the keys of its dialect.

use crate::format::dialect::Dialect;
use crate::format::translator::Translator;
use crate::session::keys::{
    PLAIN_SESSION, PLAIN_SESSION_RENAMED, PLAIN_USER, PLAIN_USER_RENAMED, SESSION_ID, USER_HASH,
    USER_ID,
};
use opentelemetry::{Key, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use std::time::Duration;

/// Wraps a span exporter, so that its backend gets the keys that it reads.
///
/// Spans carry OpenInference's attributes: `session.id`, `user.id`, `metadata` and `tag.tags`. This
/// exporter maps them to the keys of a [`Dialect`] just before they are sent. Each exporter of a tracer
/// provider can have its own dialect.
///
/// # Which attributes it maps
///
/// It maps the attributes of the finished span, whether the session or the span's author set them:
///
/// - If the dialect doesn't have OpenInference's key, the exporter replaces the attribute. Otherwise it
///   adds the other keys. With [`Dialect::GEN_AI`], your own `session.id` is exported as
///   `gen_ai.conversation.id`.
/// - If the dialect has no key for a value, the exporter removes the session's value. Your own
///   attribute stays as it is.
/// - If the span has an attribute with a key of the dialect already, that attribute stays, and
///   `session.id` keeps its value. An attribute that holds no id, such as a blank one, is replaced.
/// - Some keys belong to the whole trace, such as `langfuse.trace.metadata.<key>`. Your own metadata and
///   tags on a span are never exported under them. For Langfuse they become
///   `langfuse.observation.metadata.<key>`; elsewhere they keep OpenInference's keys.
/// - A hashed user, which is `user.hash` on the span, is exported under the dialect's keys for the user.
///   `user.hash` stays where the dialect has `user.id`.
/// - A metadata value gets its JSON type: strings, numbers and booleans stay as they are, and lists and
///   objects are exported as JSON. Nulls are left out.
///
/// All other attributes keep their order, type and value, and so do events and links.
///
/// # Cost
///
/// The work runs on the thread that exports: with a batch exporter, in the background. It takes up to
/// about 1 µs per span with two dialects. The exporter keeps the parsed metadata of the last 128
/// sessions or more, so it parses metadata once per session.
///
/// ```
/// use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};
/// use tracing_session::{Dialect, SessionExporter, SessionTracerProvider};
///
/// # let (phoenix, langfuse) = (InMemorySpanExporter::default(), InMemorySpanExporter::default());
/// let provider = SdkTracerProvider::builder()
///     .with_batch_exporter(SessionExporter::new(phoenix))
///     .with_batch_exporter(SessionExporter::new(langfuse).with_dialect(Dialect::LANGFUSE))
///     .build();
/// let provider = SessionTracerProvider::new(provider);
/// # provider.shutdown()?;
/// # Ok::<(), opentelemetry_sdk::error::OTelSdkError>(())
/// ```
#[derive(Debug)]
pub struct SessionExporter<E> {
    inner: E,
    translator: Translator,
    renames_plain: bool,
}

impl<E> SessionExporter<E> {
    /// Wraps `exporter`.
    ///
    /// ```
    /// # use opentelemetry_sdk::trace::InMemorySpanExporter;
    /// # use tracing_session::SessionExporter;
    /// let exporter = SessionExporter::new(InMemorySpanExporter::default());
    /// ```
    pub fn new(exporter: E) -> Self {
        Self {
            inner: exporter,
            translator: Translator::new(Dialect::default()),
            renames_plain: true,
        }
    }

    /// Sets the keys that are exported. Default: [`Dialect::OPENINFERENCE`].
    ///
    /// ```
    /// # use opentelemetry_sdk::trace::InMemorySpanExporter;
    /// # use tracing_session::{Dialect, SessionExporter};
    /// let exporter = SessionExporter::new(InMemorySpanExporter::default())
    ///     .with_dialect(Dialect::OPENINFERENCE.and(Dialect::LANGFUSE));
    /// ```
    pub fn with_dialect(mut self, dialect: Dialect) -> Self {
        self.translator = Translator::new(dialect);
        self
    }

    /// Sets whether attributes named `session` and `user` are exported as `session.name` and
    /// `user.name` on spans with a session or user. Default: true.
    ///
    /// Phoenix stores attributes nested by the dots in their keys, where `session` and `session.id`
    /// can't both exist: it loses the session. An attribute stays if the span has one with the new name
    /// already.
    ///
    /// The tracer provider renames such attributes too: see
    /// [`SessionTracerProvider::with_plain_attributes_renamed`](crate::SessionTracerProvider::with_plain_attributes_renamed).
    ///
    /// ```
    /// # use opentelemetry_sdk::trace::InMemorySpanExporter;
    /// # use tracing_session::SessionExporter;
    /// let exporter = SessionExporter::new(InMemorySpanExporter::default())
    ///     .with_plain_attributes_renamed(false);
    /// ```
    pub fn with_plain_attributes_renamed(mut self, renamed: bool) -> Self {
        self.renames_plain = renamed;
        self
    }
}

impl<E: SpanExporter> SpanExporter for SessionExporter<E> {
    fn export(&self, mut batch: Vec<SpanData>) -> impl Future<Output = OTelSdkResult> + Send {
        for span in &mut batch {
            if self.renames_plain {
                rename_plain(&mut span.attributes);
            }
            self.translator.translate(&mut span.attributes);
        }
        self.inner.export(batch)
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn shutdown(&self) -> OTelSdkResult {
        self.inner.shutdown()
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// Renames plain attributes beside an id. It runs before the ids are mapped to the keys of the dialect.
fn rename_plain(attributes: &mut [KeyValue]) {
    for (plain, renamed) in [
        (PLAIN_SESSION, PLAIN_SESSION_RENAMED),
        (PLAIN_USER, PLAIN_USER_RENAMED),
    ] {
        let has = |key| attributes.iter().any(|it| it.key.as_str() == key);
        let ids = [SESSION_ID, USER_ID, USER_HASH];
        if has(plain) && !has(renamed) && ids.into_iter().any(has) {
            let plain = attributes.iter_mut().filter(|it| it.key.as_str() == plain);
            plain.for_each(|it| it.key = Key::from_static_str(renamed));
        }
    }
}
