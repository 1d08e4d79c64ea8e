//! The scope of a `Context`.
//!
//! OpenTelemetry's [`Context`] is the carrier: child spans, samplers, log processors and propagators read it.
//! [`Scope::of`] returns the scope that applies under a `Context`. It looks in three places:
//!
//! - The [`Entry`] in the `Context`. [`Scope::attach`] adds it. Every `Context` made from this `Context` has it too.
//! - [`SCOPES_BY_SPAN_ID`], the map from OpenTelemetry span id to scope. It has the spans whose own `Context` has no
//!   entry with their scope, because `set_parent` replaced their parent `Context`, the layer couldn't attach the scope,
//!   or the session was set after they had started. Their children's `Context`s have no such entry either, so the map
//!   contains the children too. Spans with counted ids are in [`COUNTED_SPANS`] instead.
//! - [`DEFAULT`], the default session of the process.

use crate::base::shards::Shards;
use crate::scope::Scope;
use crate::scope::tracking::FutureId;
use crate::session::keys::Parts;
use crate::session::{Id, IdKind, Session};
use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceId};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

impl Scope {
    pub(crate) fn of(cx: &Context) -> Option<Arc<Scope>> {
        CurrentScope::under(cx).scope()
    }

    /// The id of this kind, unless it is the default session's.
    pub(crate) fn id_unless_default(&self, kind: IdKind) -> Option<Id> {
        let id = self.with_values(|values| kind.id(values).clone());
        id.filter(|id| !is_of_default(id, kind))
    }

    #[inline]
    pub(crate) fn global_default() -> Option<Arc<Scope>> {
        DEFAULT.get().cloned()
    }

    /// Makes this the default session of the process. False if there is one already.
    pub(crate) fn set_global_default(self: Arc<Self>) -> bool {
        DEFAULT.set(self).is_ok()
    }

    /// `cx` with an entry for this scope.
    pub(crate) fn entered(self: Arc<Self>, cx: &Context) -> Context {
        self.entered_as(cx, Origin::Attached)
    }

    /// `cx` with an entry for this scope, while a future is polled.
    pub(crate) fn entered_to_poll(self: Arc<Self>, cx: &Context, poll: Poll) -> Context {
        self.entered_as(cx, Origin::Poll(poll))
    }

    fn entered_as(self: Arc<Self>, cx: &Context, origin: Origin) -> Context {
        let under = Under::current(cx);
        let starts_trace = cx
            .get::<Entry>()
            .and_then(|it| it.starts_trace_under(under));
        cx.with_value(Entry {
            scope: self,
            under,
            starts_trace: starts_trace.cloned(),
            origin,
        })
    }

    /// `cx` with an entry for this scope. Spans that start under it are roots of traces while `starts_trace` is true.
    pub(crate) fn entered_to_start_a_trace(
        self: Arc<Self>,
        cx: &Context,
        starts_trace: StartsTrace,
    ) -> Context {
        let under = Under::current(cx);
        cx.with_value(Entry {
            scope: self,
            under,
            starts_trace: Some(starts_trace),
            origin: Origin::Attached,
        })
    }
}

pub(super) fn is_of_default(id: &Id, kind: IdKind) -> bool {
    let is_it = |it: &Session| kind.id(it).as_ref().is_some_and(|it| id.is_clone_of(it));
    DEFAULT.get().is_some_and(|it| it.with_values(is_it))
}

/// Prepares `cx`, which was extracted from headers, for a future: it is attached at each poll.
pub(crate) fn to_poll(cx: &Context, replaced: Option<Arc<Scope>>) -> Context {
    let Some(entry) = cx.get::<Entry>() else {
        return cx.clone();
    };
    let poll = Poll {
        replaced,
        shadows: Parts::ALL,
        future: FutureId::default(),
    };
    entry.scope.clone().entered_to_poll(cx, poll)
}

/// Prepares `cx` of a future for a clone of the future.
pub(crate) fn for_clone(cx: &Context) -> Context {
    match cx.get::<Entry>().map(|entry| &entry.origin) {
        Some(Origin::Poll(poll)) => to_poll(cx, poll.replaced.clone()),
        _ => cx.clone(),
    }
}

/// `cx` with the scope that applies inside its span, which a future has adopted.
pub(crate) fn adopted(cx: &Context, scope: Arc<Scope>, poll: Poll) -> Context {
    scope.entered_as(cx, Origin::Adopted(poll))
}

/// The scope of the future that directly enters a span now. `None`: another span or session is between the future and
/// the span.
pub(crate) fn poll_of(cx: &Context) -> Option<(&Arc<Scope>, &Poll)> {
    let entry = cx.get::<Entry>()?;
    match &entry.origin {
        Origin::Poll(poll) | Origin::Adopted(poll) if entry.under == Under::current(cx) => {
            Some((&entry.scope, poll))
        }
        _ => None,
    }
}

/// The scope that applies under a `Context`, by the place where it was found.
pub(crate) enum CurrentScope {
    None,
    /// In the entry of the `Context`, or the default session. Every `Context` made from this one has the same scope.
    Entry(Arc<Scope>),
    /// The same, and a span that starts under the `Context` is the root of a trace.
    EntryOfTurn(Arc<Scope>),
    /// In the map by span id.
    BySpanId(Arc<Scope>),
}

impl CurrentScope {
    #[inline(always)]
    pub(crate) fn under(cx: &Context) -> Self {
        let entry = cx.get::<Entry>();
        let span = cx.span();
        let span = span.span_context();
        if let Some(scope) = scope_by_span_id(span) {
            let is_entry = |entry: &Entry| {
                entry.under == Under::span(span) || Arc::ptr_eq(&entry.scope, &scope)
            };
            if !entry.is_some_and(is_entry) {
                return Self::BySpanId(scope);
            }
        }
        match entry {
            None => Scope::global_default().map_or(Self::None, Self::Entry),
            Some(entry) if entry.starts_trace_under(Under::span(span)).is_some() => {
                Self::EntryOfTurn(entry.scope.clone())
            }
            Some(entry) => Self::Entry(entry.scope.clone()),
        }
    }

    /// The scope, unless it is the default session of the process.
    pub(crate) fn without_default(self) -> Option<Arc<Scope>> {
        let is_default =
            |scope: &Arc<Scope>| DEFAULT.get().is_some_and(|it| Arc::ptr_eq(it, scope));
        self.scope().filter(|scope| !is_default(scope))
    }

    /// Whether every `Context` made from this one has this scope.
    pub(crate) fn is_entry(&self, scope: &Arc<Scope>) -> bool {
        match self {
            Self::Entry(it) | Self::EntryOfTurn(it) => Arc::ptr_eq(it, scope),
            Self::None | Self::BySpanId(_) => false,
        }
    }

    #[inline]
    pub(crate) fn scope(self) -> Option<Arc<Scope>> {
        match self {
            Self::None => None,
            Self::Entry(scope) | Self::EntryOfTurn(scope) | Self::BySpanId(scope) => Some(scope),
        }
    }
}

/// Whether spans are roots, and the span to link them to if no span is current.
pub(crate) type StartsTrace = Arc<(AtomicBool, SpanContext)>;

/// A scope in a `Context`.
struct Entry {
    scope: Arc<Scope>,
    /// The span that was current when the entry was made, or an invalid id. Directly under this span, the entry shadows
    /// the map by span id. Under its descendants the entry is only inherited, so the map shadows the entry.
    under: Under,
    /// True while a turn starts: directly under `under`, and not further down, the next span is a root.
    starts_trace: Option<StartsTrace>,
    origin: Origin,
}

/// The span under which an entry is attached. `is_remote` is part of it, because a span of another process can have the
/// id of a span of this process.
#[derive(Clone, Copy, PartialEq)]
pub(crate) struct Under {
    span: SpanId,
    is_remote: bool,
}

impl Under {
    const NOTHING: Self = Self {
        span: SpanId::INVALID,
        is_remote: false,
    };

    pub(crate) fn current(cx: &Context) -> Self {
        Self::span(cx.span().span_context())
    }

    #[inline]
    pub(crate) fn span(span: &SpanContext) -> Self {
        Self {
            span: span.span_id(),
            is_remote: span.is_remote(),
        }
    }
}

enum Origin {
    /// By a guard, for a closure, or for a span.
    Attached,
    /// While a future is polled.
    Poll(Poll),
    /// Inside a span that the future adopted: see `scope/polled.rs`.
    Adopted(Poll),
}

impl Entry {
    #[inline]
    fn starts_trace_under(&self, span: Under) -> Option<&StartsTrace> {
        let starts_trace = self.starts_trace.as_ref()?;
        (self.under == span && starts_trace.0.load(Ordering::Relaxed)).then_some(starts_trace)
    }
}

/// How the scope of a future relates to the place where the future is polled.
#[derive(Clone)]
pub(crate) struct Poll {
    /// The scope that applies outside the future.
    pub(crate) replaced: Option<Arc<Scope>>,
    /// The parts of outer sessions that don't apply inside the future.
    pub(crate) shadows: Parts,
    pub(crate) future: FutureId,
}

/// The span to link a root to that starts under `cx`.
pub(crate) fn linked(cx: &Context) -> SpanContext {
    let current = cx.span().span_context().clone();
    let entry = cx.get::<Entry>().filter(|_| !current.is_valid());
    let linked = entry.and_then(|it| Some(it.starts_trace.as_ref()?.1.clone()));
    linked.unwrap_or(current)
}

/// Whether a session is attached inside the span of `cx`. A `set_*` function on the span wouldn't change this session.
pub(crate) fn is_inside_span(cx: &Context) -> bool {
    let span = Under::current(cx);
    let is_inside = |it: &Entry| it.under == span && !matches!(it.origin, Origin::Adopted(_));
    span != Under::NOTHING && cx.get::<Entry>().is_some_and(is_inside)
}

/// The scope that `cx` was extracted with. `outer` is the `Context` that it was extracted on top of.
pub(crate) fn extracted_scope(cx: &Context, outer: &Context) -> Option<Arc<Scope>> {
    let entry = cx.get::<Entry>()?;
    let is_new = Scope::of(outer).is_none_or(|outer| !Arc::ptr_eq(&outer, &entry.scope));
    is_new.then(|| entry.scope.clone())
}

/// `cx`, which was extracted from headers without a session, with the scope that applies under `outer`. Without it,
/// extraction could lose a scope in the map, because it replaces the span with this id.
pub(crate) fn with_outer_scope(cx: Context, outer: &Context) -> Context {
    let scope = Scope::of(outer);
    if Scope::of(&cx).as_ref().map(Arc::as_ptr) == scope.as_ref().map(Arc::as_ptr) {
        return cx;
    }
    let under = match (CurrentScope::under(outer), outer.get::<Entry>()) {
        (CurrentScope::Entry(_) | CurrentScope::EntryOfTurn(_), Some(entry)) => entry.under,
        // The scope was set on a span. If another one is set on this span later, it must shadow this entry.
        _ => Under::NOTHING,
    };
    cx.with_value(Entry {
        scope: scope.unwrap_or_else(Scope::empty),
        under,
        starts_trace: None,
        origin: Origin::Attached,
    })
}

/// The default session of the process. [`Scope::set_global_default`] writes it once. Empty in most processes.
static DEFAULT: OnceLock<Arc<Scope>> = OnceLock::new();

/// The map from OpenTelemetry span id to scope, for spans with random ids. Spans of this crate write it when they
/// start, when a session is set on them, and when they are dropped. Empty while there is no such span: see the top of
/// this file.
static SCOPES_BY_SPAN_ID: Shards<u64, (TraceId, Arc<Scope>)> = Shards::new();

/// The same for spans with counted ids. It contains all of these spans, because two spans have one id if two providers
/// count.
static COUNTED_SPANS: Shards<u64, Vec<CountedSpan>> = Shards::new();

struct CountedSpan {
    /// A number that no other span with this id has.
    number: u32,
    trace: TraceId,
    /// `None`: the entry of the span's `Context` applies.
    scope: Option<Arc<Scope>>,
}

fn key(span: &SpanContext) -> u64 {
    u64::from_ne_bytes(span.span_id().to_bytes())
}

/// Whether the id of a span looks counted, perhaps behind a prefix: it has three zero bytes in a row. A span of another
/// provider may have the same counted id, but random ids are unique. One random id in 3 million looks counted, which
/// costs an allocation and has no other effect.
#[inline]
pub(crate) fn is_counted(span: &SpanContext) -> bool {
    #[cold]
    fn has_three_in_a_row(id: u64) -> bool {
        (0..6).any(|at| id & 0xff_ffff << (8 * at) == 0)
    }
    let id = u64::from_ne_bytes(span.span_id().to_bytes());
    let lowest_bits = u64::from_ne_bytes([1; 8]);
    // A zero byte borrows. Few random ids have a zero byte.
    let has_zero = id.wrapping_sub(lowest_bits) & !id & lowest_bits << 7 != 0;
    has_zero && has_three_in_a_row(id)
}

/// Adds the scope of a span whose id isn't counted.
#[inline]
pub(crate) fn set_scope_by_span_id(span: &SpanContext, scope: Arc<Scope>) {
    SCOPES_BY_SPAN_ID.insert(key(span), (span.trace_id(), scope));
}

#[inline]
pub(crate) fn remove_scope_by_span_id(span: &SpanContext) {
    SCOPES_BY_SPAN_ID.remove(key(span));
}

/// Adds a span whose id is counted, or changes its scope.
#[cold]
pub(crate) fn set_counted_span(span: &SpanContext, number: u32, scope: Option<Arc<Scope>>) {
    let trace = span.trace_id();
    let added = CountedSpan {
        number,
        trace,
        scope,
    };
    COUNTED_SPANS.insert_or(key(span), vec![added], |all, mut added| {
        match all.iter_mut().find(|it| it.number == number) {
            Some(earlier) => std::mem::swap(earlier, &mut added[0]),
            None => all.append(&mut added),
        }
        Some(added)
    });
}

#[cold]
pub(crate) fn remove_counted_span(span: &SpanContext, number: u32) {
    // Drop the scope after the unlock.
    let mut removed = None;
    COUNTED_SPANS.remove_if(key(span), |all| {
        let at = all.iter().position(|it| it.number == number);
        removed = at.map(|at| all.swap_remove(at));
        all.is_empty()
    });
}

/// The scope of a span in one of the maps.
#[inline]
fn scope_by_span_id(span: &SpanContext) -> Option<Arc<Scope>> {
    let key = key(span);
    match SCOPES_BY_SPAN_ID.may_have(key) || COUNTED_SPANS.may_have(key) {
        true => look_up(span),
        false => None,
    }
}

/// Finds nothing for a remote span context, even if a span of this process has the same id, because any client can send
/// any id.
#[cold]
fn look_up(span: &SpanContext) -> Option<Arc<Scope>> {
    let is_it = |trace: TraceId| trace == span.trace_id() && !span.is_remote();
    if !is_counted(span) {
        return SCOPES_BY_SPAN_ID.read(key(span), |(trace, scope)| {
            is_it(*trace).then(|| scope.clone())
        });
    }
    // Two spans of a trace with one id are ambiguous.
    COUNTED_SPANS.read(key(span), |all| {
        let mut found = all.iter().filter(|it| is_it(it.trace));
        let only = found.next().filter(|_| found.next().is_none())?;
        only.scope.clone()
    })
}
