//! The guard: what is flushed and shut down when it is dropped.

use super::exporter::Driver;
use super::trouble::Trouble;
use crate::diagnostic;
use crate::error::Error;
use crate::layer::opening::Shared;
use crate::tracer::SessionTracerProvider;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::SdkTracerProvider;
use std::fmt;
use std::sync::Arc;

/// Exports the last spans when it is dropped, and shuts the exporter down.
///
/// Keep it in `main` until the end, by a name: `let _telemetry = ..`. (`let _ = ..` drops it at
/// once, of which a warning tells.) A span that has not ended by then is not exported, nor is any where
/// the process ends by [`std::process::exit`].
///
/// Dropping it blocks the thread until the spans have arrived, for ten seconds at the most: inside
/// an async runtime as well as outside, and while a panic unwinds. Where they do not arrive, it
/// says so by a warning (target `tracing_session`), or on standard error where there is no
/// subscriber for it; [`shutdown`](Self::shutdown) returns it instead.
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
#[must_use = "dropping it ends the export of spans"]
pub struct Telemetry {
    pub(super) provider: SessionTracerProvider<SdkTracerProvider>,
    /// Of the layer: it tells who drops this at once.
    pub(super) shared: Arc<Shared>,
    pub(super) ended: bool,
    /// Outlives the exporter, which has ended by the time that this is dropped.
    pub(super) _driver: Option<Driver>,
}

impl Telemetry {
    /// The provider: for tracers besides those of `tracing`.
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

    /// Exports what has ended so far. Blocks the thread, for five seconds at the most.
    ///
    /// # Errors
    ///
    /// When it did not arrive: [`Error::is_export_failed`].
    ///
    /// ```no_run
    /// let telemetry = tracing_session::otlp::pipeline("my-app").install()?;
    /// telemetry.force_flush()?;
    /// # Ok::<(), tracing_session::Error>(())
    /// ```
    pub fn force_flush(&self) -> Result<(), Error> {
        told(self.provider.force_flush())
    }

    /// What dropping does, with the outcome returned.
    ///
    /// # Errors
    ///
    /// When the last spans did not arrive: [`Error::is_export_failed`].
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
        self.ended = true;
        // Only this one tells whether the spans have arrived.
        let flushed = self.provider.force_flush();
        match self.provider.shutdown() {
            // Somebody did so through the provider, and was told.
            Err(OTelSdkError::AlreadyShutdown) => Ok(()),
            stopped => told(flushed.and(stopped)),
        }
    }
}

fn told(result: OTelSdkResult) -> Result<(), Error> {
    result.map_err(|error| Trouble::Export.caused_by(error))
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        self.shared.check.guard_dropped();
        let Err(error) = self.end() else { return };
        diagnostic::tell_or_print(&diagnostic::of_error(&error));
    }
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry").finish_non_exhaustive()
    }
}
