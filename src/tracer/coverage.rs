//! Counts the spans that end in a session and in none, for each place in the code that creates spans: see
//! [`SessionTracerProvider::with_coverage`](crate::SessionTracerProvider::with_coverage).
//!
//! A span finds its row when it starts, and adds one to it when it ends. There is a row for each callsite of each
//! provider. The table belongs to the process, so that a span keeps only the number of its row.

use crate::base::diagnostic;
use crate::scope::context::CurrentScope;
use crate::scope::{Scope, bridge, thread};
use crate::tracer::report::{Coverage, CoverageRow, Reason};
use opentelemetry::trace::{SpanBuilder, TraceContextExt};
use opentelemetry::{Context, KeyValue, Value};
use std::num::NonZeroU16;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError};

/// The rows by their numbers: the places, and then a row of each provider for its other spans. [`new_row`] adds them. Empty
/// while no provider has coverage.
static ROWS: [OnceLock<Row>; MOST_ROWS + MOST_OTHERS] =
    [const { OnceLock::new() }; MOST_ROWS + MOST_OTHERS];
/// The row numbers by key: a hash table with open addressing. A slot contains the high bits of the key, and the row number in
/// the low bits. [`new_row`] writes it. Reading takes no lock.
static SLOTS: [AtomicU64; SLOT_COUNT] = [const { AtomicU64::new(0) }; SLOT_COUNT];
/// The number of places. A thread that adds one holds the lock.
static ROW_COUNT: Mutex<usize> = Mutex::new(0);
/// The number of providers that have had coverage.
static PROVIDER_COUNT: AtomicU64 = AtomicU64::new(0);

/// The maximum number of places with their own row. One more row of their provider counts all others.
const MOST_ROWS: usize = 1_024;
/// The most of these further rows. Providers beyond share them.
const MOST_OTHERS: usize = 256;
/// Twice as many as places: half of the slots are always free, so that probing ends soon. A power of two.
const SLOT_COUNT: usize = 2 * MOST_ROWS;
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
    provider: u64,
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
            provider: PROVIDER_COUNT.fetch_add(1, Ordering::Relaxed),
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
        let places = ROWS[..MOST_ROWS].iter().filter_map(OnceLock::get);
        let ours = places.filter(|row| row.provider == self.provider);
        let rows = ours.chain(ROWS[others_index(self.provider)].get());
        let rows = rows.map(Row::to_row).filter(CoverageRow::has_any);
        Coverage::new(rows.collect())
    }

    /// Prints the coverage to standard error, once.
    pub(super) fn print(&self) {
        if self.explains || self.is_printed.swap(true, Ordering::Relaxed) {
            return;
        }
        match is_on_by_environment() {
            true => diagnostic::print(&self.to_coverage().to_string()),
            false if diagnostic::is_off() => {}
            false => diagnostic::print(&self.to_coverage().summary()),
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
        scope: Option<&Scope>,
    ) -> Counted {
        let attributes = builder.attributes.get_or_insert_default();
        let is_root = bridge::take_root_mark(attributes);
        Counted {
            row: match self.explains {
                true => EXPLAINS,
                false => self.row(&builder.name, attributes),
            },
            reason: match scope.is_some_and(Scope::began_with_id) {
                // The session of a future that adopts the span. Another future can end that.
                true => Reason::CreatedBefore,
                false => reason(parent, is_root),
            },
        }
    }

    #[inline]
    fn row(&self, span: &str, attributes: &[KeyValue]) -> NonZeroU16 {
        let place = Place::of(attributes);
        let key = match &place {
            // The text, and not its address: an author can set these attributes with a text on the heap.
            Some(place) => mixed(hash_of_path(place.file), place.line),
            None => hash_of(span),
        };
        let key = mixed(key, self.hash) & !NUMBER_BITS;
        let first = SLOTS[(key >> 32) as usize % SLOT_COUNT].load(Ordering::Acquire);
        match NonZeroU16::new((first & NUMBER_BITS) as u16) {
            Some(number) if first & !NUMBER_BITS == key => number,
            _ => self.find_or_add(key, span, place),
        }
    }

    #[inline(never)]
    fn find_or_add(&self, key: u64, span: &str, place: Option<Place<'_>>) -> NonZeroU16 {
        find(key).unwrap_or_else(|_| self.new_row(key, span, place))
    }

    /// The row of a place whose key isn't in the table.
    #[cold]
    fn new_row(&self, key: u64, span: &str, place: Option<Place<'_>>) -> NonZeroU16 {
        // A full table stays full, so such spans take no lock.
        if ROWS[MOST_ROWS - 1].get().is_none() {
            let mut count = ROW_COUNT.lock().unwrap_or_else(PoisonError::into_inner);
            // Another thread may have added it meanwhile.
            let slot = match find(key) {
                Ok(number) => return number,
                Err(free) => free,
            };
            if let Some(row) = ROWS[..MOST_ROWS].get(*count) {
                row.get_or_init(|| Row::new(self, span, place));
                let number = row_number(*count);
                slot.store(key | u64::from(number.get()), Ordering::Release);
                *count += 1;
                return number;
            }
        }
        let index = others_index(self.provider);
        ROWS[index].get_or_init(|| Row::of_others(self.provider));
        row_number(index)
    }
}

/// The number of the row with this key, or the free slot for it.
fn find(key: u64) -> Result<NonZeroU16, &'static AtomicU64> {
    let mut at = (key >> 32) as usize;
    loop {
        let slot = &SLOTS[at % SLOT_COUNT];
        let found = slot.load(Ordering::Acquire);
        match NonZeroU16::new((found & NUMBER_BITS) as u16) {
            None => return Err(slot),
            Some(number) if found & !NUMBER_BITS == key => return Ok(number),
            Some(_) => at += 1,
        }
    }
}

/// Where the row for the other spans of a provider is.
fn others_index(provider: u64) -> usize {
    MOST_ROWS + provider as usize % MOST_OTHERS
}

/// Numbers begin at one.
fn row_number(index: usize) -> NonZeroU16 {
    NonZeroU16::MIN.saturating_add(index as u16)
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

/// The length and the end of a path tell it from others, and cost the same for the long paths of libraries.
#[inline]
fn hash_of_path(path: &str) -> u64 {
    match path.as_bytes().last_chunk::<24>() {
        None => hash_of(path),
        Some(end) => {
            let (low, middle) = (&end[..8], &end[8..16]);
            let word = |it: &[u8]| u64::from_le_bytes(it.try_into().unwrap_or_default());
            let rotated = word(middle).rotate_left(21) ^ word(&end[16..]).rotate_left(43);
            word(low) ^ rotated ^ path.len() as u64
        }
    }
}

impl Row {
    fn new(tracer: &TracerCounters, span: &str, place: Option<Place<'_>>) -> Self {
        let line = |place: &Place<'_>| u32::try_from(place.line).ok();
        Self {
            instrumentation_scope: tracer.instrumentation_scope.clone(),
            line: place.as_ref().and_then(line),
            file: place.map(|place| place.file.to_owned()),
            span: span.to_owned(),
            ..Self::of_others(tracer.provider)
        }
    }

    /// The row for all other places.
    fn of_others(provider: u64) -> Self {
        Self {
            provider,
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

/// The reason why a span that starts under `parent` is in no session.
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
