//! The thread context: OpenTelemetry's current `Context`, and the entered spans in which a layer has attached one.
//!
//! Use these functions instead of `Context::current`, because they are safe during thread exit. OpenTelemetry keeps the
//! current `Context` in a thread-local. Reading it after its destructor has run panics, and a panic in the destructor
//! of another thread-local aborts the process. These functions return nothing then.

use crate::scope::Scope;
use crate::scope::tracking::{SpanKey, is_tracked};
use opentelemetry::baggage::{Baggage, BaggageExt, BaggageMetadata};
use opentelemetry::trace::{SpanId, TraceContextExt};
use opentelemetry::{Context, ContextGuard, Key, StringValue};
use std::cell::{Cell, RefCell};
use std::panic::catch_unwind;
use std::sync::{Arc, Weak};
use tracing::span::Id;
use tracing::{Dispatch, Subscriber, dispatcher};
use tracing_subscriber::Registry;

thread_local! {
    /// Whether OpenTelemetry's thread-local existed on the first use of this module, which writes this one.
    /// Thread-locals are dropped in the reverse order of their first use. So this one is dropped before
    /// OpenTelemetry's, and reading it fails from then on.
    static SENTINEL: Sentinel = Sentinel(catch_unwind(|| Context::map_current(|_| ())).is_ok());
}

struct Sentinel(bool);

/// Without a destructor, the thread-local could be read until the end of the thread.
impl Drop for Sentinel {
    fn drop(&mut self) {}
}

/// Whether OpenTelemetry's current `Context` can be read.
#[inline]
fn is_there() -> bool {
    SENTINEL.try_with(|it| it.0).unwrap_or(false)
}

/// Calls `f` with the current `Context`. `None` if the thread is exiting.
#[inline]
pub(crate) fn map_current<T>(f: impl FnOnce(&Context) -> T) -> Option<T> {
    if is_any_entered() {
        sweep();
    }
    is_there().then(|| Context::map_current(f))
}

/// The current `Context`, or an empty one.
pub(crate) fn current() -> Context {
    map_current(Context::clone).unwrap_or_default()
}

impl Scope {
    /// The current scope.
    pub(crate) fn current() -> Option<Arc<Scope>> {
        map_current(Scope::of).flatten()
    }

    /// Makes this the current scope of this thread, until the guard is dropped.
    pub(crate) fn attach(self: Arc<Self>) -> Attached {
        attach_changed(|cx| self.entered(cx))
    }
}

/// The span id of the current `Context`. It is invalid where telemetry is suppressed.
pub(crate) fn current_span() -> Option<SpanId> {
    let span = |cx: &Context| cx.span().span_context().span_id();
    map_current(|cx| cx.has_active_span().then(|| span(cx))).flatten()
}

/// An empty `Context`, except that telemetry stays suppressed if it is in `cx`.
pub(crate) fn outside(cx: &Context) -> Context {
    match cx.is_telemetry_suppressed() {
        true => Context::new().with_telemetry_suppressed(),
        false => Context::new(),
    }
}

/// The same with the baggage of `cx`.
pub(crate) fn without_span(cx: &Context) -> Context {
    let baggage = cx.baggage();
    match baggage.is_empty() {
        true => outside(cx),
        false => {
            let member = |(key, (value, metadata)): (&Key, &(StringValue, BaggageMetadata))| {
                (key.clone(), (value.clone(), metadata.clone()))
            };
            outside(cx).with_baggage(baggage.iter().map(member).collect::<Baggage>())
        }
    }
}

/// Makes `cx` the current one.
pub(crate) fn attach(cx: Context) -> Attached {
    Attached(is_there().then(|| cx.attach()))
}

/// Attaches the `Context` that `change` makes from the current one.
pub(crate) fn attach_changed(change: impl FnOnce(&Context) -> Context) -> Attached {
    Attached(map_current(change).map(Context::attach))
}

/// Keeps a `Context` the current one of this thread until it is dropped.
#[derive(Debug)]
pub(crate) struct Attached(Option<ContextGuard>);

impl Drop for Attached {
    fn drop(&mut self) {
        if !is_there() {
            std::mem::forget(self.0.take());
        }
    }
}

/// Identifies the `Context` that a layer has left current inside a span. If it has changed, code inside has attached
/// another `Context`.
#[derive(Clone, Copy, PartialEq)]
pub(crate) struct Place {
    /// The address of the scope.
    pub(crate) scope: usize,
    /// The OpenTelemetry span.
    pub(crate) span: SpanId,
    /// The address of the baggage.
    pub(crate) baggage: usize,
    pub(crate) is_suppressed: bool,
}

/// A span that is entered on this thread.
pub(crate) struct EnteredSpan {
    pub(crate) span: SpanKey,
    /// Upgrades as long as the layer isn't dropped.
    pub(crate) layer: Weak<()>,
    /// Detaches the scope when it is dropped.
    pub(crate) attached: Option<Attached>,
    /// The scope that is attached inside an adopted span.
    pub(crate) adopted: Option<Arc<Scope>>,
    /// The place after the scope was attached.
    pub(crate) place: Option<Place>,
    /// The setup check continues when the span is exited.
    pub(crate) is_checked: bool,
}

/// The spans of `tracing` that detached work has left. When this is dropped, it enters them again, except spans that
/// were exited inside.
pub(crate) struct LeftSpans {
    dispatch: Dispatch,
    /// The number of spans that were in [`LEFT`] before.
    before: usize,
}

impl LeftSpans {
    /// Exits all spans in the registry, so that no span is current. The layers receive no callbacks, because they would
    /// act on an exit. Without a registry the spans stay current.
    pub(crate) fn new() -> Self {
        // Clone it, because inside `get_default` a second call finds no dispatcher.
        let dispatch = dispatcher::get_default(Dispatch::clone);
        let mut spans = Vec::new();
        if let Some(registry) = dispatch.downcast_ref::<Registry>() {
            while let Some(span) = registry.current_span().id() {
                registry.exit(span);
                spans.push((span.clone(), 0));
            }
        }
        let before = with_left(|left| {
            let before = left.len();
            left.extend(spans.into_iter().rev());
            before
        });
        Self {
            dispatch,
            before: before.unwrap_or(0),
        }
    }
}

impl Drop for LeftSpans {
    fn drop(&mut self) {
        let spans = with_left(|left| left.split_off(self.before.min(left.len())));
        if let Some(registry) = self.dispatch.downcast_ref::<Registry>() {
            let spans = spans.into_iter().flatten();
            spans.for_each(|(span, _)| registry.enter(&span));
        }
    }
}

thread_local! {
    /// The spans that detached work on this thread has left, outermost first. The number counts how often the span is
    /// entered inside. [`LeftSpans`] and the callbacks of enter and exit write it. Empty outside detached work.
    static LEFT: RefCell<Vec<(Id, u32)>> = const { RefCell::new(Vec::new()) };

    /// The length of [`LEFT`], which costs less to read.
    static LEFT_LEN: Cell<usize> = const { Cell::new(0) };
}

fn with_left<T>(f: impl FnOnce(&mut Vec<(Id, u32)>) -> T) -> Option<T> {
    let with = |left: &RefCell<Vec<_>>| {
        let mut left = left.borrow_mut();
        let result = f(&mut left);
        LEFT_LEN.set(left.len());
        result
    };
    LEFT.try_with(with).ok()
}

/// A span is entered, perhaps in detached work.
#[inline(always)]
pub(crate) fn note_enter(span: &Id) {
    if LEFT_LEN.get() > 0 {
        entered_inside(span);
    }
}

/// A span is exited, perhaps in detached work.
#[inline(always)]
pub(crate) fn note_exit(span: &Id) {
    if LEFT_LEN.get() > 0 {
        exited_inside(span);
    }
}

/// A span is entered in detached work.
#[cold]
fn entered_inside(span: &Id) {
    with_left(|left| {
        if let Some((_, inside)) = left.iter_mut().rfind(|it| it.0 == *span) {
            *inside += 1;
        }
    });
}

/// A span is exited in detached work. If the span was entered inside, this ends that enter. Otherwise it isn't entered
/// again afterwards.
#[cold]
fn exited_inside(span: &Id) {
    with_left(|left| match left.iter().rposition(|it| it.0 == *span) {
        Some(at) if left[at].1 > 0 => left[at].1 -= 1,
        Some(at) => drop(left.remove(at)),
        None => {}
    });
}

thread_local! {
    /// The tracked and adopted spans that are entered on this thread, innermost last. Without an OpenTelemetry layer,
    /// all spans. The callbacks of enter and exit write and read it. Empty outside such spans.
    static ENTERED: RefCell<Vec<EnteredSpan>> = const { RefCell::new(Vec::new()) };

    /// The length of [`ENTERED`], which costs less to read.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// Whether such a span is entered on this thread.
#[inline(always)]
pub(crate) fn is_any_entered() -> bool {
    DEPTH.get() > 0
}

pub(crate) fn push(entered: EnteredSpan) {
    // While the thread exits there is no stack, so the guard is dropped at once.
    let _exiting = with_entered(|stack| stack.push(entered));
}

/// Removes a span that is exited, even if it was entered in a layer that was reloaded since. Hold no lock while you
/// drop the result: detaching a `Context` may drop a span, which runs foreign code.
pub(crate) fn pop(span: SpanKey) -> Option<EnteredSpan> {
    with_entered(|stack| {
        let is_it = |entered: &EnteredSpan| entered.span == span;
        let is_of_replaced = |entered: &EnteredSpan| {
            entered.span.span == span.span && entered.layer.strong_count() == 0
        };
        let found = stack.iter().rposition(is_it);
        let found = found.or_else(|| stack.iter().rposition(is_of_replaced));
        found.map(|at| stack.remove(at))
    })
    .flatten()
}

/// Whether a span is entered on this thread with its scope attached.
pub(crate) fn is_entered(span: SpanKey) -> bool {
    let is_it = |it: &EnteredSpan| it.span == span && it.attached.is_some();
    with_entered(|stack| stack.iter().any(is_it)).unwrap_or(false)
}

/// The scope that applies inside an adopted span which is entered on this thread.
pub(crate) fn adopted_scope(span: SpanKey) -> Option<Arc<Scope>> {
    if !is_any_entered() {
        return None;
    }
    let adopted = |it: &EnteredSpan| it.adopted.clone().filter(|_| it.span == span);
    with_entered(|stack| stack.iter().rev().find_map(adopted)).flatten()
}

/// The place inside `span`, and whether its scope is attached. `None`: `span` isn't the innermost span of its layer.
pub(crate) fn innermost(span: SpanKey) -> Option<(Place, bool)> {
    with_entered(|stack| {
        let innermost = stack.iter().rfind(|it| it.span.layer == span.layer)?;
        let place = innermost.place.filter(|_| innermost.span == span)?;
        Some((place, innermost.attached.is_some()))
    })
    .flatten()
}

/// Detaches the scopes of innermost spans that are closed. No layer received their exit, because the layer was reloaded
/// to `None` or the subscriber was dropped.
#[cold]
pub(crate) fn sweep() {
    let closed = || {
        with_entered(|stack| {
            let innermost = stack.last()?;
            let is_closed = innermost.layer.strong_count() == 0 && !is_tracked(innermost.span);
            is_closed.then(|| stack.pop()).flatten()
        })
        .flatten()
    };
    while closed().is_some() {}
}

fn with_entered<T>(f: impl FnOnce(&mut Vec<EnteredSpan>) -> T) -> Option<T> {
    let with = |stack: &RefCell<Vec<EnteredSpan>>| {
        let mut stack = stack.borrow_mut();
        let result = f(&mut stack);
        DEPTH.set(stack.len());
        result
    };
    ENTERED.try_with(with).ok()
}
