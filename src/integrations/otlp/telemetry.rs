//! The guard of the set-up, the levels in `RUST_LOG`, and warnings on standard error.

use crate::base::diagnostic;
use crate::base::diagnostic::Message;
use crate::base::error::{Error, ErrorKind};
use crate::integrations::otlp::exporter::GrpcDriver;
use crate::layer::spans::LayerState;
use crate::tracer::SessionTracerProvider;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::SdkTracerProvider;
use std::fmt::Debug;
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Arc;
use std::{fmt, io};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::Context;

/// Exports the last spans when it is dropped, and shuts the exporter down.
///
/// Keep it until the end of `main`, in a named variable: `let _telemetry = ..`. (`let _ = ..` drops it at once, and a
/// warning says so.) Spans that have not ended by then aren't exported. If the process ends with
/// [`std::process::exit`], the last spans are lost.
///
/// Dropping it blocks the thread until the spans have arrived, for at most ten seconds, also inside an async runtime and
/// while a panic unwinds. If they don't arrive, it emits a warning (target `tracing_session`), or prints to standard error
/// if there is no subscriber. [`shutdown`](Self::shutdown) returns the error instead.
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
    pub(super) is_shut_down: bool,
    /// Drives the exporter's connection, so it has to outlive the shutdown in `drop`.
    pub(super) _driver: Option<GrpcDriver>,
}

impl Telemetry {
    /// The provider, for tracers of the plain OpenTelemetry API.
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
    /// If the spans did not arrive: [`Error::is_export_failed`].
    ///
    /// ```no_run
    /// let telemetry = tracing_session::otlp::pipeline("my-app").install()?;
    /// telemetry.force_flush()?;
    /// # Ok::<(), tracing_session::Error>(())
    /// ```
    pub fn force_flush(&self) -> Result<(), Error> {
        export_result(self.provider.force_flush())
    }

    /// Does the same as dropping, and returns the result.
    ///
    /// # Errors
    ///
    /// If the last spans did not arrive: [`Error::is_export_failed`].
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
        match self.provider.shutdown() {
            // The application has called `shutdown` on the provider, and got its result.
            Err(OTelSdkError::AlreadyShutdown) => Ok(()),
            stopped => export_result(flushed.and(stopped)),
        }
    }
}

fn export_result(result: OTelSdkResult) -> Result<(), Error> {
    result.map_err(|error| Error::caused_by(ErrorKind::Export, Arc::new(error)))
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        if self.is_shut_down {
            return;
        }
        self.state.setup.wrapped.guard_dropped();
        if let Err(error) = self.end() {
            diagnostic::emit(&Message::from(error.full_text()).about_setup());
        }
    }
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry").finish_non_exhaustive()
    }
}

const OWN_TARGET: &str = "tracing_session";
/// The targets of OpenTelemetry's crates begin with this.
const OTEL_TARGETS: &str = "opentelemetry";

/// The levels in `RUST_LOG`, and a warning about directives that are ignored.
///
/// Warnings, and the turns of a `Conversation`, pass unless a directive names their target: a directive for one crate
/// must not hide mistakes or turns.
pub(crate) fn levels() -> (Targets, Option<Message>) {
    let directives = std::env::var("RUST_LOG").unwrap_or_default();
    let directives = directives.split(',').map(str::trim);
    // `Targets` would take the name of a span for the name of a target.
    let is_valid = |it: &&str| !it.contains('[') && it.parse::<Targets>().is_ok();
    let (valid, ignored): (Vec<_>, Vec<_>) =
        directives.filter(|it| !it.is_empty()).partition(is_valid);
    let mut levels = match valid.join(",").parse() {
        Ok(levels) if !valid.is_empty() => levels,
        _ => Targets::new().with_default(LevelFilter::INFO),
    };
    let default = levels.default_level().unwrap_or(LevelFilter::INFO);
    let turns = default.clamp(LevelFilter::WARN, LevelFilter::INFO);
    for (target, level) in [(OWN_TARGET, turns), (OTEL_TARGETS, LevelFilter::WARN)] {
        if !levels.iter().any(|(named, _)| named == target) {
            levels = levels.with_target(target, level);
        }
    }
    let ignored = ignored.first();
    (levels, ignored.map(|it| diagnostic::directive_ignored(it)))
}

/// Writes the warnings of this crate and of OpenTelemetry to standard error.
///
/// Not a `fmt` layer with a filter: that one would look up each span whenever it is entered and left.
pub(crate) struct StderrWarnings;

impl<S: Subscriber> Layer<S> for StderrWarnings {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let (level, target) = (event.metadata().level(), event.metadata().target());
        if *level > Level::WARN || !(target == OWN_TARGET || target.starts_with(OTEL_TARGETS)) {
            return;
        }
        let mut line = format!("{level} {target}:");
        event.record(&mut Line(&mut line));
        // `eprintln!` would panic if standard error is closed.
        let _closed = writeln!(io::stderr(), "{line}");
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
