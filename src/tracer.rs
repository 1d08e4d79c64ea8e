//! The tracer provider. Its tracers start each span in the scope of the parent `Context`: see `tracer/start.rs`.

pub(crate) mod attributes;
pub(crate) mod coverage;
pub(crate) mod report;
pub(crate) mod span;
pub(crate) mod start;

pub use self::report::{Coverage, CoverageRow, Reason};
pub use self::span::SessionSpan;
pub use self::start::SessionTracer;

use crate::base::setup;
use crate::export::Redaction;
use crate::export::privacy::Privacy;
use crate::tracer::coverage::Counters;
use opentelemetry::InstrumentationScope;
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::SdkTracerProvider;
use std::sync::Arc;
use std::time::Duration;

/// Wraps a tracer provider, so that its spans are exported with their session.
///
/// It covers every span of the provider's tracers: spans of `tracing`, and spans that a library creates with OpenTelemetry's
/// own API. A span inherits the session of its parent `Context`. When the span ends, the provider adds `session.id`,
/// `user.id` and the session's other values, including values that were recorded in between.
///
/// # Your own attributes
///
/// Attributes that you set are written at once, so samplers and span processors see them. If the session has a value for the
/// same key, your attribute wins on this span. The crate doesn't merge `metadata` and `tag.tags` either. Descendants
/// still inherit the session's value. The crate doesn't see attributes that samplers and span processors add.
///
/// There are three exceptions:
///
/// - The crate exports the fields that set a session under its own keys: `id` as `session.id`, `tags` as `tag.tags`, and
///   `metadata.<key>` inside `metadata`. It writes an id once: at the start if a field has it by then, otherwise at the end. If
///   you record another id later, the span keeps the first, its descendants get the new one, and one warning names the span.
/// - An invalid `session.id` or `user.id` is replaced with the inherited id. Without an inherited id, the invalid value of a field
///   is exported unchanged, but a blank value or a placeholder such as `None` isn't exported.
/// - On spans with a session or user, attributes named `session` and `user` are
///   [renamed](Self::without_renaming_plain_attributes).
///
/// # Cost
///
/// About 50 ns per span with a session and a user. Spans share the texts with the session, so only tags allocate.
///
/// ```
/// use opentelemetry::trace::TracerProvider;
/// use opentelemetry_sdk::trace::SdkTracerProvider;
/// use tracing_session::SessionTracerProvider;
///
/// let provider = SessionTracerProvider::new(SdkTracerProvider::builder().build());
/// opentelemetry::global::set_tracer_provider(provider.clone());
/// let tracer = provider.tracer("chat");
/// # drop(tracer);
/// provider.shutdown()?;
/// # Ok::<(), opentelemetry_sdk::error::OTelSdkError>(())
/// ```
#[derive(Clone, Debug)]
pub struct SessionTracerProvider<P = SdkTracerProvider> {
    inner: P,
    redaction: Option<Arc<Redaction>>,
    /// Renames attributes named `session` and `user` on spans with an id.
    renames_plain: bool,
    coverage: Option<Arc<Counters>>,
}

impl<P> SessionTracerProvider<P> {
    /// Wraps `provider`.
    ///
    /// ```
    /// # use opentelemetry_sdk::trace::SdkTracerProvider;
    /// # use tracing_session::SessionTracerProvider;
    /// let provider = SessionTracerProvider::new(SdkTracerProvider::default());
    /// ```
    #[must_use = "only spans of this provider's tracers have a session: `let provider = SessionTracerProvider::new(...)`"]
    pub fn new(provider: P) -> Self {
        setup::begin();
        Self {
            inner: provider,
            redaction: None,
            renames_plain: true,
            coverage: coverage::is_on_by_environment().then(|| Counters::new(false)),
        }
    }

    /// Redacts ids and metadata on spans of this provider. Default: none.
    ///
    /// ```
    /// # use opentelemetry_sdk::trace::SdkTracerProvider;
    /// # use tracing_session::{Privacy, SessionTracerProvider, export::IdPolicy};
    /// let provider = SessionTracerProvider::new(SdkTracerProvider::default())
    ///     .with_privacy(Privacy::new().with_user_ids(IdPolicy::omitted()));
    /// ```
    #[must_use = "it returns the changed provider: `let provider = provider.with_privacy(...)`"]
    pub fn with_privacy(mut self, privacy: Privacy) -> Self {
        self.redaction = Redaction::of(privacy);
        self
    }

    /// Exports attributes named `session` and `user` under these names. Default: they are renamed to `session.name` and
    /// `user.name` on spans whose session or user is known when you set the attribute.
    ///
    /// Phoenix nests attributes at the dots in their keys. There, `session` and `session.id` can't both exist, and Phoenix
    /// loses the session.
    ///
    /// A [`SessionExporter`](crate::SessionExporter::without_renaming_plain_attributes) renames the other ones.
    ///
    /// ```
    /// # use opentelemetry_sdk::trace::SdkTracerProvider;
    /// # use tracing_session::SessionTracerProvider;
    /// let provider = SessionTracerProvider::new(SdkTracerProvider::default())
    ///     .without_renaming_plain_attributes();
    /// ```
    #[must_use = "it returns the changed provider: `let provider = ...`"]
    pub fn without_renaming_plain_attributes(mut self) -> Self {
        self.renames_plain = false;
        self
    }

    /// Counts the spans that end in a session and those that don't, with the likely reasons: see
    /// [`coverage`](Self::coverage). Default: off, unless the environment variable `TRACING_SESSION_COVERAGE` is `1`.
    ///
    /// Cost: about 10 ns per span, and less than 1 MB for the counters, with any number of span names.
    ///
    /// ```
    /// # use opentelemetry_sdk::trace::SdkTracerProvider;
    /// # use tracing_session::SessionTracerProvider;
    /// let provider = SessionTracerProvider::new(SdkTracerProvider::default()).with_coverage();
    /// ```
    #[must_use = "it returns the changed provider: `let provider = provider.with_coverage()`"]
    pub fn with_coverage(self) -> Self {
        self.with_counters(Counters::new(false))
    }

    pub(crate) fn with_counters(mut self, counters: Arc<Counters>) -> Self {
        self.coverage = Some(counters);
        self
    }

    /// Returns the number of spans that have ended so far, in a session and in none. Print it, or read its rows.
    ///
    /// It is empty unless you call [`with_coverage`](Self::with_coverage) or set the environment variable
    /// `TRACING_SESSION_COVERAGE` to `1`. [`shutdown`](Self::shutdown) prints a summary to standard error, and the whole table
    /// if the variable is `1`.
    ///
    /// ```
    /// use opentelemetry::trace::{Tracer, TracerProvider};
    /// # use opentelemetry_sdk::trace::SdkTracerProvider;
    /// use tracing_session::{Session, SessionTracerProvider};
    ///
    /// let provider = SessionTracerProvider::new(SdkTracerProvider::default()).with_coverage();
    /// let tracer = provider.tracer("app");
    /// Session::new("chat-42")?.in_scope(|| tracer.in_span("answer", |_| {}));
    /// tracer.in_span("clean-up", |_| {});
    ///
    /// let coverage = provider.coverage();
    /// assert_eq!((coverage.covered(), coverage.spans()), (1, 2));
    /// println!("{coverage}");
    /// # Ok::<(), tracing_session::Error>(())
    /// ```
    pub fn coverage(&self) -> Coverage {
        let counters = self.coverage.as_deref();
        counters.map(Counters::to_coverage).unwrap_or_default()
    }

    fn print_coverage(&self) {
        if let Some(counters) = &self.coverage {
            counters.print();
        }
    }

    /// Returns the wrapped provider.
    ///
    /// ```
    /// # use opentelemetry_sdk::trace::SdkTracerProvider;
    /// # use tracing_session::SessionTracerProvider;
    /// let provider = SessionTracerProvider::new(SdkTracerProvider::default());
    /// let sdk: &SdkTracerProvider = provider.inner();
    /// ```
    pub fn inner(&self) -> &P {
        &self.inner
    }
}

impl SessionTracerProvider<SdkTracerProvider> {
    /// Exports the spans that have ended. See [`SdkTracerProvider::force_flush`].
    ///
    /// # Errors
    ///
    /// Returns the errors of the span processors.
    ///
    /// ```
    /// # use opentelemetry_sdk::trace::SdkTracerProvider;
    /// # use tracing_session::SessionTracerProvider;
    /// SessionTracerProvider::new(SdkTracerProvider::default()).force_flush()?;
    /// # Ok::<(), opentelemetry_sdk::error::OTelSdkError>(())
    /// ```
    pub fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    /// Exports the spans that have ended, and shuts the provider down. See [`SdkTracerProvider::shutdown`].
    ///
    /// # Errors
    ///
    /// Returns the errors of the span processors, and an error if the provider was shut down before. It returns no error if
    /// the last spans couldn't be exported: to check that, call [`force_flush`](Self::force_flush) first.
    ///
    /// ```
    /// # use opentelemetry_sdk::trace::SdkTracerProvider;
    /// # use tracing_session::SessionTracerProvider;
    /// SessionTracerProvider::new(SdkTracerProvider::default()).shutdown()?;
    /// # Ok::<(), opentelemetry_sdk::error::OTelSdkError>(())
    /// ```
    pub fn shutdown(&self) -> OTelSdkResult {
        self.print_coverage();
        self.inner.shutdown()
    }

    /// Does the same as [`shutdown`](Self::shutdown), and gives up after `timeout`.
    ///
    /// # Errors
    ///
    /// Returns an error in the same cases as [`shutdown`](Self::shutdown), and if the time is over.
    ///
    /// ```
    /// # use opentelemetry_sdk::trace::SdkTracerProvider;
    /// # use tracing_session::SessionTracerProvider;
    /// # use std::time::Duration;
    /// let provider = SessionTracerProvider::new(SdkTracerProvider::default());
    /// provider.shutdown_with_timeout(Duration::from_secs(5))?;
    /// # Ok::<(), opentelemetry_sdk::error::OTelSdkError>(())
    /// ```
    pub fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.print_coverage();
        self.inner.shutdown_with_timeout(timeout)
    }
}

impl<P: TracerProvider> TracerProvider for SessionTracerProvider<P> {
    type Tracer = SessionTracer<P::Tracer>;

    fn tracer_with_scope(&self, scope: InstrumentationScope) -> Self::Tracer {
        let coverage = self.coverage.as_ref();
        SessionTracer {
            coverage: coverage.map(|it| it.of_tracer(scope.name())),
            inner: self.inner.tracer_with_scope(scope),
            redaction: self.redaction.clone(),
            renames_plain: self.renames_plain,
        }
    }
}
