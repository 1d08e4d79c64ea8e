//! Counts the spans that end in a session and in none, for each place in the code that creates spans: see
//! [`SessionTracerProvider::with_coverage`](crate::SessionTracerProvider::with_coverage).
//!
//! A span finds its row when it starts, and adds one to it when it ends. There is a row for each callsite of each
//! provider. The table belongs to the process, so that a span keeps only the number of its row.

use crate::base::diagnostic;
use crate::base::shards::unique_number;
use crate::scope::context::CurrentScope;
use crate::scope::{Scope, bridge, thread};
use crate::tracer::report::{Coverage, CoverageRow, Reason};
use opentelemetry::trace::{SpanBuilder, TraceContextExt};
use opentelemetry::{Context, KeyValue, Value};
use std::num::NonZeroU16;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError};

/// The rows by their numbers. [`new_row`] adds them. Empty while no provider has coverage.
static ROWS: [OnceLock<Row>; MOST_ROWS + 1] = [const { OnceLock::new() }; MOST_ROWS + 1];
/// The row numbers by key: a hash table with open addressing. A slot contains the high bits of the key, and the row number in
/// the low bits. [`new_row`] writes it. Reading takes no lock.
static SLOTS: [AtomicU64; SLOT_COUNT] = [const { AtomicU64::new(0) }; SLOT_COUNT];
/// The number of rows. [`new_row`] holds the lock while it adds a row.
static ROW_COUNT: Mutex<u16> = Mutex::new(0);

/// The maximum number of places with their own row. One more row counts all others.
const MOST_ROWS: usize = 1_024;
/// Twice as many as rows, so that probing ends soon. A power of two.
const SLOT_COUNT: usize = 2 * MOST_ROWS;
/// The slots in which a row can be.
const PROBES: usize = 16;
/// The bits of a slot that contain the number.
const NUMBER_BITS: u64 = 0xffff;

/// The coverage of a provider.
#[derive(Debug)]
pub(crate) struct Counters {
    provider: u64,
    /// Spans write their reason as an attribute, instead of being counted.
    explains: bool,
    is_printed: AtomicBool,
}

/// The coverage of one tracer.
#[derive(Debug)]
pub(crate) struct TracerCounters {
    provider: u64,
    explains: bool,
    instrumentation_scope: String,
    hash: u64,
}

/// The spans of one place in the code.
struct Row {
    /// `None`: the spans of all providers that have no row.
    provider: Option<u64>,
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

/// How a span is counted when it ends. Small, because each span has it.
#[derive(Clone, Copy)]
pub(super) struct Counted {
    row: NonZeroU16,
    /// The reason if the span ends in no session.
    reason: Reason,
}

/// How a span ends.
pub(super) enum Ending {
    NotSampled,
    InSession {
        /// The span set another session than it inherits.
        replaces: bool,
    },
    /// A field might still set the session.
    BeforeRecord,
    InNone,
}

/// Replaces the row number: the span writes its reason.
const EXPLAINS: NonZeroU16 = NonZeroU16::MAX;

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
            provider: unique_number(),
            explains,
            is_printed: AtomicBool::new(false),
        })
    }

    pub(super) fn of_tracer(&self, instrumentation_scope: &str) -> Arc<TracerCounters> {
        Arc::new(TracerCounters {
            provider: self.provider,
            explains: self.explains,
            instrumentation_scope: instrumentation_scope.to_owned(),
            hash: mixed(hash_of(instrumentation_scope), self.provider),
        })
    }

    pub(super) fn to_coverage(&self) -> Coverage {
        let is_ours = |row: &&Row| row.provider.is_none_or(|it| it == self.provider);
        let rows = ROWS.iter().filter_map(OnceLock::get).filter(is_ours);
        let rows = rows.map(Row::to_row).filter(CoverageRow::has_any);
        Coverage::new(rows.collect())
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

impl TracerCounters {
    /// Finds the row of a span that starts under `parent`.
    #[inline(never)]
    pub(super) fn begin(
        &self,
        builder: &mut SpanBuilder,
        parent: &Context,
        has_scope: bool,
    ) -> Counted {
        let attributes = builder.attributes.get_or_insert_default();
        let is_root = bridge::take_root_mark(attributes);
        Counted {
            row: match self.explains {
                true => EXPLAINS,
                false => self.row(&builder.name, attributes),
            },
            reason: match has_scope {
                true => Reason::ParentOutside,
                false => reason(parent, is_root),
            },
        }
    }

    #[inline]
    fn row(&self, span: &str, attributes: &[KeyValue]) -> NonZeroU16 {
        let place = Place::of(attributes);
        let key = match &place {
            // A callsite has one file name, so its address tells it from others.
            Some(place) => (place.file.as_ptr() as usize as u64).rotate_left(20) ^ place.line,
            None => hash_of(span),
        };
        let key = mixed(key, self.hash) & !NUMBER_BITS;
        let first = SLOTS[first_slot(key)].load(Ordering::Acquire);
        match number(first).filter(|_| first & !NUMBER_BITS == key) {
            Some(number) => number,
            None => self.find_row(key, span, place),
        }
    }

    #[inline(never)]
    fn find_row(&self, key: u64, span: &str, place: Option<Place<'_>>) -> NonZeroU16 {
        let slots = probe(key).map(|it| it.load(Ordering::Acquire));
        let mut found = slots.take_while(|it| *it != 0);
        let found = found.find(|it| it & !NUMBER_BITS == key);
        let new_row = || self.new_row(key, span, place);
        found.and_then(number).unwrap_or_else(new_row)
    }

    /// The row of a place whose key isn't in the table.
    #[cold]
    fn new_row(&self, key: u64, span: &str, place: Option<Place<'_>>) -> NonZeroU16 {
        let mut count = ROW_COUNT.lock().unwrap_or_else(PoisonError::into_inner);
        let new = Row::new(self, span, place);
        let rows = ROWS[..usize::from(*count)].iter();
        // A callsite can have several keys: a generic function has one in each crate that uses it.
        let same = rows
            .filter_map(OnceLock::get)
            .position(|row| row.is_of_same_place(&new));
        let index = match same {
            Some(index) => index,
            None if usize::from(*count) < MOST_ROWS => {
                *count += 1;
                let index = usize::from(*count) - 1;
                let _is_new = ROWS[index].set(new);
                index
            }
            None => {
                ROWS[MOST_ROWS].get_or_init(Row::of_others);
                return row_number(MOST_ROWS);
            }
        };
        let number = row_number(index);
        let slot = key | u64::from(number.get());
        let add = |it: &AtomicU64| {
            it.compare_exchange(0, slot, Ordering::Release, Ordering::Relaxed)
                .is_ok()
        };
        // If all slots are taken, such spans always find their row in the list.
        let _is_added = probe(key).any(add);
        number
    }
}

#[inline]
fn first_slot(key: u64) -> usize {
    (key >> 32) as usize % SLOT_COUNT
}

/// The slots in which a row with this key can be.
fn probe(key: u64) -> impl Iterator<Item = &'static AtomicU64> {
    let first = first_slot(key);
    (first..first + PROBES).map(|at| &SLOTS[at % SLOT_COUNT])
}

/// Numbers begin at one.
fn row_number(index: usize) -> NonZeroU16 {
    NonZeroU16::MIN.saturating_add(index as u16)
}

#[inline]
fn number(slot: u64) -> Option<NonZeroU16> {
    NonZeroU16::new((slot & NUMBER_BITS) as u16)
}

/// Where a span is created: the attributes that tracing-opentelemetry adds.
struct Place<'a> {
    file: &'a str,
    line: u64,
}

impl<'a> Place<'a> {
    #[inline]
    fn of(attributes: &'a [KeyValue]) -> Option<Self> {
        let is_file = |it: &KeyValue| it.key.as_str() == "code.file.path";
        let is_line = |it: &&KeyValue| it.key.as_str() == "code.line.number";
        let at = attributes.iter().position(is_file)?;
        // The module is between the two.
        let mut after = attributes.get(at + 2..)?.iter();
        match (&attributes[at].value, &after.find(is_line)?.value) {
            (Value::String(file), Value::I64(line)) => Some(Self {
                file: file.as_str(),
                line: *line as u64,
            }),
            _ => None,
        }
    }
}

/// One step of a hash function, as in FxHash.
#[inline]
fn mixed(hash: u64, value: u64) -> u64 {
    let product = (hash ^ value).wrapping_mul(0x517c_c1b7_2722_0a95);
    product ^ product >> 32
}

fn hash_of(text: &str) -> u64 {
    let bytes = text.bytes().map(u64::from);
    bytes.fold(text.len() as u64, mixed)
}

impl Row {
    fn new(tracer: &TracerCounters, span: &str, place: Option<Place<'_>>) -> Self {
        let line = |place: &Place<'_>| u32::try_from(place.line).ok();
        Self {
            provider: Some(tracer.provider),
            instrumentation_scope: tracer.instrumentation_scope.clone(),
            line: place.as_ref().and_then(line),
            file: place.map(|place| place.file.to_owned()),
            span: span.to_owned(),
            ..Self::of_others()
        }
    }

    /// The row for all other places.
    fn of_others() -> Self {
        Self {
            provider: None,
            span: "(all other spans)".to_owned(),
            instrumentation_scope: String::new(),
            file: None,
            line: None,
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
        is_same_span
            && self.provider == other.provider
            && self.instrumentation_scope == other.instrumentation_scope
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
    /// Counts the span when it ends. Returns the reason if the span has to write it.
    #[inline]
    pub(super) fn end(self, ending: &Ending) -> Option<KeyValue> {
        let reason = match ending {
            Ending::BeforeRecord => Reason::NotRecorded,
            _ => self.reason,
        };
        let add = |counter: &AtomicU64| _ = counter.fetch_add(1, Ordering::Relaxed);
        let row = ROWS.get(usize::from(self.row.get()) - 1);
        if let Some(row) = row.and_then(OnceLock::get) {
            match ending {
                Ending::NotSampled => add(&row.not_sampled),
                Ending::InSession { replaces } => {
                    add(&row.covered);
                    if *replaces {
                        add(&row.replacing);
                    }
                }
                Ending::BeforeRecord | Ending::InNone => add(&row.missing[reason as usize]),
            }
        }
        let is_missing = matches!(ending, Ending::BeforeRecord | Ending::InNone);
        let is_written = is_missing && self.row == EXPLAINS;
        is_written.then(|| KeyValue::new(REASON_KEY, reason as i64))
    }
}

/// The reason why a span that starts under `parent`, in no scope, is in no session.
#[cold]
fn reason(parent: &Context, is_root: bool) -> Reason {
    let span = parent.span();
    let span = span.span_context();
    match span.is_valid() {
        true if span.is_remote() => Reason::HeadersWithout,
        true => Reason::ParentOutside,
        false if !is_session_current() => Reason::RootOutside,
        false if is_root => Reason::ParentNone,
        false => Reason::CreatedBefore,
    }
}

fn is_session_current() -> bool {
    let current = || thread::map_current(|cx| CurrentScope::under(cx).scope()).flatten();
    Scope::any_exists() && current().is_some_and(|it| it.id().is_some())
}
