//! Counts the spans that end in a session and those that don't, by the place in the code that creates them: see
//! [`SessionTracerProvider::with_coverage`](crate::SessionTracerProvider::with_coverage).
//!
//! A span finds its row when it starts, and adds one to it when it ends. Rows are few, because there is one for each
//! callsite: above [`MOST_ROWS`], the spans of new places are counted together.

use crate::base::diagnostic;
use crate::scope::context::CurrentScope;
use crate::scope::{bridge, thread};
use crate::tracer::attributes::SpanAttributes;
use crate::tracer::report::{Coverage, CoverageRow, Reason};
use opentelemetry::trace::{SpanBuilder, TraceContextExt};
use opentelemetry::{Context, KeyValue, Value};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError};

/// The most places that are counted by themselves.
const MOST_ROWS: usize = 1_024;

/// Twice as many as rows, so that probing ends soon.
const SLOTS: usize = 2 * MOST_ROWS;
/// The slots in which a row can be.
const PROBES: usize = 16;

/// The counters of a provider.
pub(crate) struct Counters {
    /// A hash table with open addressing: finding a row takes no lock.
    slots: Box<[Slot]>,
    /// The rows in the order in which they were made. The last one of a full table is for all other places.
    rows: Mutex<Vec<Arc<Row>>>,
    /// Spans write their reason as an attribute, instead of being counted.
    explains: bool,
    is_printed: AtomicBool,
}

/// The key of a place, and its row.
type Slot = OnceLock<(u64, Arc<Row>)>;

/// The counters for the spans of one tracer.
#[derive(Debug)]
pub(crate) struct TracerCounters {
    counters: Arc<Counters>,
    instrumentation_scope: String,
    hash: u64,
}

/// The spans of one place in the code.
struct Row {
    span: String,
    instrumentation_scope: String,
    file: Option<String>,
    line: Option<u32>,
    covered: AtomicU64,
    missing: [AtomicU64; Reason::ALL.len()],
    /// The spans that set another session inside a session.
    replacing: AtomicU64,
    not_sampled: AtomicU64,
}

/// A span that is being counted.
pub(super) struct Counted {
    row: Arc<Row>,
    /// The reason if the span ends in no session.
    reason: Reason,
    explains: bool,
}

/// The key of the attribute with the reason, for the test kit. The attributes of a captured span don't contain it.
pub(crate) const REASON_KEY: &str = "tracing_session.reason";

/// The variable that turns coverage on for all providers.
const VARIABLE: &str = "TRACING_SESSION_COVERAGE";

/// Whether the environment turns coverage on.
pub(super) fn is_on_by_environment() -> bool {
    static IS_ON: LazyLock<bool> =
        LazyLock::new(|| std::env::var_os(VARIABLE).is_some_and(|it| it == "1" || it == "true"));
    *IS_ON
}

impl Counters {
    pub(crate) fn new(explains: bool) -> Arc<Self> {
        Arc::new(Self {
            slots: (0..SLOTS).map(|_| OnceLock::new()).collect(),
            rows: Mutex::default(),
            explains,
            is_printed: AtomicBool::new(false),
        })
    }

    pub(super) fn of_tracer(self: &Arc<Self>, instrumentation_scope: &str) -> Arc<TracerCounters> {
        Arc::new(TracerCounters {
            counters: self.clone(),
            instrumentation_scope: instrumentation_scope.to_owned(),
            hash: hash_of(instrumentation_scope),
        })
    }

    /// The slots in which a row can be.
    #[inline]
    fn probe(&self, key: u64) -> impl Iterator<Item = &Slot> {
        let start = key as usize % SLOTS;
        (start..start + PROBES).map(|at| &self.slots[at % SLOTS])
    }

    pub(super) fn to_coverage(&self) -> Coverage {
        let rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        let rows = rows.iter().map(|row| row.to_row()).collect();
        Coverage { rows }
    }

    /// Prints the coverage to standard error, once.
    pub(super) fn print(&self) {
        let is_first = !self.is_printed.swap(true, Ordering::Relaxed);
        if is_first && !self.explains {
            let coverage = self.to_coverage();
            diagnostic::print(&match is_on_by_environment() {
                true => coverage.to_string(),
                false => coverage.summary(),
            });
        }
    }
}

/// The name of the row for all other places.
const OTHERS: &str = "(all other spans)";

impl TracerCounters {
    /// Finds the row of a span that starts. Call it before the tracer takes its marks out of the builder.
    #[inline]
    pub(super) fn begin(&self, builder: &SpanBuilder) -> Counted {
        let attributes = builder.attributes.as_deref().unwrap_or_default();
        let place = Place::of(attributes);
        let key = match &place {
            // A callsite has one file name, so its address tells it from others.
            Some(place) => mixed(place.file.as_ptr() as usize as u64, place.line),
            None => hash_of(&builder.name),
        };
        let key = mixed(key, self.hash);
        let found = self.counters.probe(key).map_while(OnceLock::get);
        let mut found = found.filter(|(it, _)| *it == key);
        Counted {
            row: match found.next() {
                Some((_, row)) => row.clone(),
                None => self.new_row(key, &builder.name, place),
            },
            reason: match bridge::is_of_root(attributes) {
                true => Reason::ParentNone,
                false => Reason::CreatedBefore,
            },
            explains: self.counters.explains,
        }
    }

    /// The row of a place whose key isn't in the table.
    #[cold]
    fn new_row(&self, key: u64, span: &str, place: Option<Place<'_>>) -> Arc<Row> {
        let rows = &self.counters.rows;
        let mut rows = rows.lock().unwrap_or_else(PoisonError::into_inner);
        let new = Row::new(span, &self.instrumentation_scope, place);
        // A callsite can have several keys: a generic function has one in each crate that uses it.
        let row = match rows.iter().find(|row| row.is_of_same_place(&new)) {
            Some(row) => row.clone(),
            None if rows.len() == MOST_ROWS => return rows[MOST_ROWS - 1].clone(),
            None => {
                let is_last = rows.len() == MOST_ROWS - 1;
                let row = if is_last {
                    Row::new(OTHERS, "", None)
                } else {
                    new
                };
                rows.push(Arc::new(row));
                let row = rows[rows.len() - 1].clone();
                if is_last {
                    return row;
                }
                row
            }
        };
        // If all slots are taken, such spans always find their row in the list.
        let mut slots = self.counters.probe(key);
        let _is_added = slots.any(|slot| slot.set((key, row.clone())).is_ok());
        row
    }
}

/// Without the rows, of which there may be many.
impl fmt::Debug for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Counters").finish_non_exhaustive()
    }
}

/// Where a span is created: the attributes that tracing-opentelemetry adds.
struct Place<'a> {
    file: &'a str,
    line: u64,
}

impl<'a> Place<'a> {
    #[inline]
    fn of(attributes: &'a [KeyValue]) -> Option<Self> {
        let at = attributes
            .iter()
            .position(|it| it.key.as_str() == "code.file.path")?;
        let line = attributes[at..]
            .iter()
            .find(|it| it.key.as_str() == "code.line.number")?;
        match (&attributes[at].value, &line.value) {
            (Value::String(file), Value::I64(line)) => Some(Self {
                file: file.as_str(),
                line: *line as u64,
            }),
            _ => None,
        }
    }
}

/// The hash function FxHash, which is cheap. Its low bits are mixed least, so it is rotated.
#[inline]
fn mixed(hash: u64, value: u64) -> u64 {
    (hash ^ value)
        .wrapping_mul(0x517c_c1b7_2722_0a95)
        .rotate_left(26)
}

fn hash_of(text: &str) -> u64 {
    text.bytes().fold(0, |hash, byte| mixed(hash, byte.into()))
}

impl Row {
    fn new(span: &str, instrumentation_scope: &str, place: Option<Place<'_>>) -> Self {
        let line = |place: &Place<'_>| u32::try_from(place.line).ok();
        Self {
            span: span.to_owned(),
            instrumentation_scope: instrumentation_scope.to_owned(),
            line: place.as_ref().and_then(line),
            file: place.map(|place| place.file.to_owned()),
            covered: AtomicU64::default(),
            missing: Default::default(),
            replacing: AtomicU64::default(),
            not_sampled: AtomicU64::default(),
        }
    }

    /// Spans of one callsite can have several names.
    fn is_of_same_place(&self, other: &Self) -> bool {
        let is_same_span = match &self.file {
            Some(_) => (&self.file, self.line) == (&other.file, other.line),
            None => other.file.is_none() && self.span == other.span,
        };
        is_same_span && self.instrumentation_scope == other.instrumentation_scope
    }

    fn to_row(&self) -> CoverageRow {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let missing = Reason::ALL.into_iter().zip(self.missing.iter().map(count));
        CoverageRow {
            span: self.span.clone(),
            instrumentation_scope: self.instrumentation_scope.clone(),
            file: self.file.clone(),
            line: self.line,
            covered: count(&self.covered),
            missing: missing.filter(|(_, count)| *count > 0).collect(),
            replacing: count(&self.replacing),
            not_sampled: count(&self.not_sampled),
        }
    }
}

impl Counted {
    /// A span has started under `parent`, in no session.
    #[cold]
    pub(super) fn started_outside(&mut self, parent: &Context) {
        let span = parent.span();
        let span = span.span_context();
        let is_session_current = || {
            let current = thread::map_current(|cx| CurrentScope::under(cx).scope());
            current.flatten().is_some_and(|it| it.id().is_some())
        };
        match span.is_valid() {
            true if span.is_remote() => self.reason = Reason::HeadersWithout,
            true => self.reason = Reason::ParentOutside,
            // Otherwise it is why the span isn't in this session.
            false if !is_session_current() => self.reason = Reason::RootOutside,
            false => {}
        }
    }

    /// Counts a span that ends. The reason, if the span has to write it.
    pub(super) fn end(&self, own: &SpanAttributes, is_recording: bool) -> Option<KeyValue> {
        let add = |counter: &AtomicU64| _ = counter.fetch_add(1, Ordering::Relaxed);
        if !is_recording {
            add(&self.row.not_sampled);
            return None;
        }
        if own.is_in_session() {
            add(&self.row.covered);
            if own.replaces_session() {
                add(&self.row.replacing);
            }
            return None;
        }
        let reason = match own.may_get_session() {
            true => Reason::NotRecorded,
            false => self.reason,
        };
        add(&self.row.missing[reason as usize]);
        (self.explains).then(|| KeyValue::new(REASON_KEY, reason as i64))
    }
}
