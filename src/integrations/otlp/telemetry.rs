//! The telemetry guard, and events on standard error.

use crate::base::diagnostic;
use crate::base::diagnostic::Message;
use crate::base::error::{Error, ErrorKind};
use crate::base::setup::TracerKind;
use crate::integrations::otlp::exporter::Exports;
use crate::layer::spans::LayerState;
use crate::scope::Scope;
use crate::tracer::SessionTracerProvider;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::SdkTracerProvider;
use std::fmt::Debug;
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::{fmt, io};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// A guard that exports the last spans and shuts the exporter down when you drop it.
///
/// Keep it until the end of `main`, in a named variable: `let _telemetry = ..`. (`let _ = ..` drops it at once, and the crate
/// warns about that.) Spans that end later aren't exported. [`std::process::exit`] doesn't drop the guard, so the last spans
/// are lost.
///
/// Dropping it blocks the thread until the spans have arrived, for at most ten seconds, also inside an async runtime and
/// while a panic unwinds. If the spans don't arrive, or if no span was exported at all, a warning names the reason.
/// [`shutdown`](Self::shutdown) also returns an error if they don't arrive.
///
/// ```no_run
/// use tracing_session::otlp::{Telemetry, pipeline};
///
/// fn main() -> Result<(), tracing_session::Error> {
///     let telemetry: Telemetry = pipeline("my-app").install()?;
///     // ...
///     telemetry.shutdown()
/// }
/// ```
#[must_use = "spans are exported only until it is dropped: keep it alive until the end of `main` with `let _telemetry = ...`"]
pub struct Telemetry {
    pub(super) provider: SessionTracerProvider<SdkTracerProvider>,
    /// The layer's state. Its setup check reports a guard that is dropped at once.
    pub(super) state: Arc<LayerState>,
    /// `None` if nothing is to be exported.
    pub(super) exports: Option<Arc<Exports>>,
    /// A session was set before this setup.
    pub(super) had_session: bool,
    /// A filter that disables most spans was reported.
    pub(super) is_filter_reported: bool,
    pub(super) is_shut_down: bool,
}

impl Telemetry {
    /// Returns the tracer provider, for tracers of OpenTelemetry's own API.
    ///
    /// ```no_run
    /// use opentelemetry::trace::{Tracer, TracerProvider};
    ///
    /// let telemetry = tracing_session::otlp::pipeline("my-app").install()?;
    /// let tracer = telemetry.provider().tracer("library");
    /// tracer.in_span("carries the session too", |_cx| {});
    /// # Ok::<(), tracing_session::Error>(())
    /// ```
    pub fn provider(&self) -> &SessionTracerProvider<SdkTracerProvider> {
        &self.provider
    }

    /// Exports the spans that have ended so far. Blocks the thread for at most five seconds.
    ///
    /// # Errors
    ///
    /// Returns an error if the spans didn't arrive: [`Error::is_export_failed`].
    ///
    /// ```no_run
    /// let telemetry = tracing_session::otlp::pipeline("my-app").install()?;
    /// telemetry.force_flush()?;
    /// # Ok::<(), tracing_session::Error>(())
    /// ```
    pub fn force_flush(&self) -> Result<(), Error> {
        self.export_result(self.provider.force_flush())
    }

    /// Exports the last spans and shuts the exporter down, as dropping does, but returns the result.
    ///
    /// # Errors
    ///
    /// Returns an error if the last spans didn't arrive: [`Error::is_export_failed`].
    ///
    /// ```no_run
    /// let telemetry = tracing_session::otlp::pipeline("my-app").install()?;
    /// telemetry.shutdown()?;
    /// # Ok::<(), tracing_session::Error>(())
    /// ```
    pub fn shutdown(mut self) -> Result<(), Error> {
        self.end()
    }

    fn end(&mut self) -> Result<(), Error> {
        self.is_shut_down = true;
        // `shutdown` returns no error for spans that did not arrive.
        let flushed = self.provider.force_flush();
        let result = match self.provider.shutdown() {
            // The application has called `shutdown` on the provider, and got its result.
            Err(OTelSdkError::AlreadyShutdown) => Ok(()),
            stopped => self.export_result(flushed.and(stopped)),
        };
        if let Some(reason) = self.nothing_exported() {
            self.state.subscriber.emit(&reason);
        }
        if let Some(hint) = self.state.openers.names.last_hint() {
            self.state.subscriber.emit(hint);
        }
        result
    }

    /// Uses the failure that a warning reported, because the SDK's error doesn't contain the reason.
    fn export_result(&self, result: OTelSdkResult) -> Result<(), Error> {
        result.map_err(|error| {
            let failure = self.exports.as_ref().and_then(|it| it.failure());
            let cause = failure.map(|it| OTelSdkError::InternalFailure(it.to_string()));
            Error::caused_by(ErrorKind::Export, Arc::new(cause.unwrap_or(error)))
        })
    }

    /// The reason why no span was exported, if that is a mistake.
    ///
    /// An application may end without a span, and a sampler may drop all of them. So it is a mistake only if no span has
    /// reached the tracer, although a session was set meanwhile, or with a filter that disables the level INFO.
    fn nothing_exported(&self) -> Option<Message> {
        let has_spans = self.exports.as_ref()?.has_spans.load(Ordering::Relaxed);
        let is_explained = has_spans || self.is_filter_reported;
        if is_explained || self.state.setup.tracer.kind() != TracerKind::Unknown {
            return None;
        }
        let sets_session = Scope::any_exists() && !self.had_session;
        // `OFF`: there is no subscriber.
        let level = LevelFilter::current();
        let is_added = self.state.subscriber.is_added() && level != LevelFilter::OFF;
        if !is_added {
            let is_needed = level != LevelFilter::OFF || sets_session;
            return is_needed.then_some(diagnostic::LAYER_NOT_ADDED);
        }
        let is_mistake = level < LevelFilter::INFO || sets_session;
        is_mistake.then_some(diagnostic::NO_SPAN_REACHED)
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        if self.is_shut_down {
            return;
        }
        self.state.setup.wrapped.guard_dropped();
        let is_reported = |it: &Arc<Exports>| it.failure().is_some();
        if self.end().is_err() && !self.exports.as_ref().is_some_and(is_reported) {
            self.state.subscriber.emit(&diagnostic::NOT_IN_TIME);
        }
    }
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry").finish_non_exhaustive()
    }
}

/// Writes events to standard error.
///
/// Not a `fmt` layer, because that formats the fields of each span, looks each span up whenever it is entered and left, and
/// prints the spans around an event, with the ids in their fields.
pub(crate) struct StderrEvents;

impl<S: Subscriber> Layer<S> for StderrEvents {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let mut line = format!("{} {}:", metadata.level(), metadata.target());
        event.record(&mut Line(&mut line));
        line.push('\n');
        // `ReportingExporter` reports the same failure in one line, with the reason.
        let is_repeated = match metadata.name() {
            "BatchSpanProcessor.ExportError" => true,
            name => name.starts_with("Export.Failed.") && line.contains("TracesClient.Export"),
        };
        if is_repeated {
            return;
        }
        // `eprintln!` would panic if standard error is closed.
        let _closed = io::stderr().write_all(line.as_bytes());
    }
}

struct Line<'a>(&'a mut String);

impl Visit for Line<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _infallible = match field.name() {
            "message" => write!(self.0, " {value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
    }
}
