//! The coverage report: a value that you can read and print.

use crate::scope::bridge;
use opentelemetry::trace::{
    Span, SpanBuilder, SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState,
    Tracer,
};
use opentelemetry::{Context, global};
use std::fmt;

/// Counts the spans that have ended in a session and in none: see
/// [`SessionTracerProvider::coverage`](crate::SessionTracerProvider::coverage).
///
/// `Display` lists the spans in no session by their likely reason, with a fix. It prints no ids.
///
/// ```
/// # use opentelemetry_sdk::trace::SdkTracerProvider;
/// # use tracing_session::SessionTracerProvider;
/// let provider = SessionTracerProvider::new(SdkTracerProvider::default()).with_coverage();
/// // ... run the application, or its tests
/// let coverage = provider.coverage();
/// assert!(coverage.ratio() > 0.95, "{coverage}");
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Coverage {
    rows: Vec<CoverageRow>,
    /// OpenTelemetry's global tracer provider is set, and is none of this crate's.
    is_global_unwrapped: bool,
}

/// The counts of the spans that one place in the code creates.
///
/// ```
/// use tracing_session::tracer::{Coverage, CoverageRow};
///
/// /// The places that need work.
/// fn incomplete(coverage: &Coverage) -> impl Iterator<Item = &CoverageRow> {
///     coverage.rows().iter().filter(|row| !row.missing.is_empty())
/// }
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct CoverageRow {
    /// The name of the first of these spans. Later ones can have other names, with the field `otel.name`.
    pub span: String,
    /// The name of the tracer.
    pub instrumentation_scope: String,
    /// The file of the callsite. `None` if the span wasn't created with `tracing`, or if the OpenTelemetry layer has
    /// `with_location(false)`.
    pub file: Option<String>,
    /// The line of the callsite.
    pub line: Option<u32>,
    /// The number of spans that ended in a session.
    pub covered: u64,
    /// The number of spans that ended in no session, by likely reason.
    pub missing: Vec<(Reason, u64)>,
    /// The number of spans that inherited a session and set another one. `covered` includes them.
    pub replacing: u64,
    /// The number of spans that the sampler dropped. The other counts don't include them.
    pub not_sampled: u64,
}

/// The likely reason why a span is in no session. `Display` describes the reason and a fix.
///
/// ```
/// use tracing_session::tracer::Reason;
///
/// assert!(Reason::RootOutside.to_string().contains("in_session"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum Reason {
    /// The span is a root, and there was no current session when it was created, for example in a spawned task.
    RootOutside,
    /// The span was created inside a session, but with `parent: None` or under an empty `Context`.
    ParentNone,
    /// The span was created before its session was attached, or under a `Context` without the session.
    CreatedBefore,
    /// The span continues a trace from headers that contain no session.
    HeadersWithout,
    /// The parent of the span is in no session.
    ParentOutside,
    /// The span declares a field for the session, but ended before the field was recorded.
    NotRecorded,
}

impl Reason {
    pub(crate) const ALL: [Self; 6] = [
        Self::RootOutside,
        Self::ParentNone,
        Self::CreatedBefore,
        Self::HeadersWithout,
        Self::ParentOutside,
        Self::NotRecorded,
    ];
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RootOutside => {
                "No session applies where these spans are created, and they have no parent. Look at the code that \
                 creates them. In a spawned task, use `.in_current_span()` or `.in_session(session)`. In \
                 `spawn_blocking`, enter the span inside the closure, with the result of `Span::current()` from outside \
                 it. For the span of an HTTP request, call `mark_trace()` in the handler when the session is known. Spans of no conversation, such as health checks, can stay here."
            }
            Self::ParentNone => {
                "These spans are created with `parent: None` or under an empty `Context`, so they inherit nothing. \
                 Remove it, or set the session on these spans."
            }
            Self::CreatedBefore => {
                "These spans are created before their session is attached, or under a `Context` without the session. \
                 Create them in the session."
            }
            Self::HeadersWithout => {
                "These spans continue a trace from headers that contain no session. Make the caller send the \
                 session, or set it in the handler."
            }
            Self::ParentOutside => {
                "The parents of these spans are in no session. Set the session at the parent."
            }
            Self::NotRecorded => {
                "These spans ended before a valid id was recorded in the field for the session. Record the id earlier."
            }
        })
    }
}

impl Coverage {
    pub(super) fn new(rows: Vec<CoverageRow>) -> Self {
        Self {
            rows,
            is_global_unwrapped: is_global_unwrapped(),
        }
    }

    /// Returns the number of spans that ended, without the spans that the sampler dropped.
    ///
    /// ```
    /// assert_eq!(tracing_session::tracer::Coverage::default().spans(), 0);
    /// ```
    pub fn spans(&self) -> u64 {
        self.rows
            .iter()
            .map(|row| row.covered + row.without())
            .sum()
    }

    /// Returns the number of spans that ended in a session.
    ///
    /// ```
    /// assert_eq!(tracing_session::tracer::Coverage::default().covered(), 0);
    /// ```
    pub fn covered(&self) -> u64 {
        self.rows.iter().map(|row| row.covered).sum()
    }

    /// Returns the share of spans in a session, from 0 to 1, or 1 if there are no spans.
    ///
    /// ```
    /// assert_eq!(tracing_session::tracer::Coverage::default().ratio(), 1.0);
    /// ```
    pub fn ratio(&self) -> f64 {
        match self.spans() {
            0 => 1.0,
            spans => self.covered() as f64 / spans as f64,
        }
    }

    /// Returns a row for each place that creates spans. Above 1,024 places in the process, the last row counts all others.
    ///
    /// ```
    /// assert!(tracing_session::tracer::Coverage::default().rows().is_empty());
    /// ```
    pub fn rows(&self) -> &[CoverageRow] {
        &self.rows
    }

    /// The report in one line.
    pub(super) fn summary(&self) -> String {
        let cure = match self.covered() < self.spans() {
            true => "; see `SessionTracerProvider::coverage`, or set TRACING_SESSION_COVERAGE=1",
            false => "",
        };
        format!("{}{cure}", self.share())
    }

    fn share(&self) -> String {
        // Rounded down, so that 100 % are all.
        let percent = (self.ratio() * 1_000.0).floor() / 10.0;
        format!(
            "{percent} % of {} spans had a session",
            grouped(self.spans())
        )
    }
}

impl CoverageRow {
    fn without(&self) -> u64 {
        self.missing.iter().map(|(_, count)| count).sum()
    }

    pub(super) fn has_any(&self) -> bool {
        self.covered + self.without() + self.not_sampled > 0
    }

    fn place(&self) -> String {
        match (&self.file, self.line) {
            (Some(file), Some(line)) => format!("{file}:{line}"),
            _ => format!("tracer {}", self.instrumentation_scope),
        }
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.", self.share())?;
        let not_sampled: u64 = self.rows.iter().map(|row| row.not_sampled).sum();
        if not_sampled > 0 {
            let not_sampled = grouped(not_sampled);
            write!(f, " The sampler dropped {not_sampled} more.")?;
        }
        for reason in Reason::ALL {
            let count = |row: &CoverageRow| {
                let found = row.missing.iter().find(|(it, _)| *it == reason);
                found.map_or(0, |(_, count)| *count)
            };
            self.list(f, &reason, count)?;
        }
        self.list(f, &REPLACING, |row| row.replacing)?;
        match self.is_global_unwrapped {
            true => write!(f, "\n\n{GLOBAL}"),
            false => Ok(()),
        }
    }
}

const REPLACING: &str = "These spans set another session inside a session. If the field of the span identifies something \
                         else, such as a connection, exclude the span with `SessionLayer::with_opener_filter`.";

const GLOBAL: &str = "OpenTelemetry's global tracer provider isn't a `SessionTracerProvider`, so the spans of libraries that use \
                      it are in no session, and aren't counted. Call `opentelemetry::global::set_tracer_provider` with the \
                      wrapped provider.";

impl Coverage {
    /// Lists the places for which `count` isn't zero, under a title.
    fn list(
        &self,
        f: &mut fmt::Formatter<'_>,
        title: &dyn fmt::Display,
        count: impl Fn(&CoverageRow) -> u64,
    ) -> fmt::Result {
        let mut rows: Vec<_> = self.rows.iter().filter(|row| count(row) > 0).collect();
        if rows.is_empty() {
            return Ok(());
        }
        write!(f, "\n\n{title}")?;
        rows.sort_by_key(|row| std::cmp::Reverse(count(row)));
        let names = rows
            .iter()
            .take(MOST_LINES)
            .map(|row| row.span.chars().count());
        let width = names.max().unwrap_or(0);
        for row in rows.iter().take(MOST_LINES) {
            let (name, place) = (&row.span, row.place());
            let (count, all) = (grouped(count(row)), grouped(row.covered + row.without()));
            write!(f, "\n  {name:width$}  {count} of {all}  {place}")?;
        }
        match rows.len().saturating_sub(MOST_LINES) {
            0 => Ok(()),
            more => write!(f, "\n  ... and {more} more places"),
        }
    }
}

/// The most lines of a list.
const MOST_LINES: usize = 20;

/// With commas between groups of three digits.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Whether OpenTelemetry's global tracer provider is set, and is none of this crate's.
fn is_global_unwrapped() -> bool {
    // Suppressed, so the span isn't exported. Only the tracer of no provider takes over the parent.
    let (trace, span) = (TraceId::from(1), SpanId::from(1));
    let remote = SpanContext::new(trace, span, TraceFlags::default(), true, TraceState::NONE);
    let parent = Context::new().with_telemetry_suppressed();
    let parent = parent.with_remote_span_context(remote.clone());
    let builder = SpanBuilder::from_name("coverage");
    let span = global::tracer("tracing-session").build_with_context(builder, &parent);
    let is_set = *span.span_context() != remote;
    is_set && !bridge::is_session_span(&Context::new().with_span(span))
}
