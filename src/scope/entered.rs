//! Spans of `tracing` whose scope a layer attaches whenever they are entered: *tracked* spans, which the OpenTelemetry layer
//! doesn't know, and *adopted* spans (see `scope/polled.rs`). Other spans have their scope in their `Context`, which the
//! OpenTelemetry layer activates.

use crate::base::shards::Shards;
use crate::scope::Scope;
use crate::scope::context::{self, Attached};
use opentelemetry::trace::{SpanId, TraceContextExt};
use std::cell::{Cell, RefCell};
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

/// A span of `tracing`, by its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SpanKey {
    /// The address of the layer's state: all subscribers count their spans from 1.
    pub(crate) layer: usize,
    pub(crate) span: u64,
}

/// Keys of two layers may have the same hash. They are different keys.
impl Hash for SpanKey {
    #[inline]
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hasher.write_u64(self.span ^ (self.layer as u64).rotate_left(32));
    }
}

/// The tracked and adopted spans, by `tracing`'s span ids. Written when such a span is created, adopted, or closed, and when
/// `set_*` is called in it. Read when a span is entered. Empty if there is an OpenTelemetry layer, no span in a session is
/// filtered out for it, and every span is created in the session in which it is entered.
static TRACKED: Shards<SpanKey, TrackedSpan> = Shards::new();

/// Whether [`TRACKED`] was ever written, so that most processes don't look into it.
static IS_USED: AtomicBool = AtomicBool::new(false);

#[derive(Default)]
struct TrackedSpan {
    /// `None`: the OpenTelemetry layer knows the span.
    scope: Option<Arc<Scope>>,
    adoption: Option<Adoption>,
}

/// The future that has adopted a span last.
#[derive(Clone)]
pub(crate) struct Adoption {
    /// The scope of the future.
    pub(crate) future: Arc<Scope>,
    /// The scope that applies inside the span.
    pub(crate) inside: Arc<Scope>,
}

/// False if a span is neither tracked nor adopted; true if it may be.
#[inline(always)]
pub(crate) fn may_track(span: SpanKey) -> bool {
    IS_USED.load(Ordering::Relaxed) && TRACKED.may_have(span)
}

/// Tracks a span, as long as the guard lives.
pub(crate) fn track(span: SpanKey, scope: Arc<Scope>) -> TrackedGuard {
    replace_tracked(span, scope);
    TrackedGuard(span)
}

/// Gives a tracked span another scope.
pub(crate) fn replace_tracked(span: SpanKey, scope: Arc<Scope>) {
    let scope = Some(scope);
    let adoption = None;
    insert(span, TrackedSpan { scope, adoption });
}

pub(crate) fn tracked_scope(span: SpanKey) -> Option<Arc<Scope>> {
    TRACKED.read(span, |it| it.scope.clone())
}

/// A future adopts a span. The guard is for a span that isn't tracked.
pub(crate) fn adopt(span: SpanKey, adoption: Adoption) -> TrackedGuard {
    let (scope, adoption) = (None, Some(adoption));
    insert(span, TrackedSpan { scope, adoption });
    TrackedGuard(span)
}

pub(crate) fn adoption(span: SpanKey) -> Option<Adoption> {
    TRACKED.read(span, |it| it.adoption.clone())
}

/// Replaces the scope or the adoption of a span, or both.
fn insert(span: SpanKey, tracked: TrackedSpan) {
    IS_USED.store(true, Ordering::Relaxed);
    TRACKED.insert_or(span, tracked, |there, mut new| {
        if new.scope.is_some() {
            std::mem::swap(&mut there.scope, &mut new.scope);
        }
        if new.adoption.is_some() {
            std::mem::swap(&mut there.adoption, &mut new.adoption);
        }
        Some(new)
    });
}

/// Ends the tracking of a span when it is dropped, with the span's extensions.
#[derive(Debug)]
#[must_use]
pub(crate) struct TrackedGuard(SpanKey);

impl TrackedGuard {
    /// Another guard ends the tracking.
    pub(crate) fn forget(self) {
        std::mem::forget(self);
    }
}

impl Drop for TrackedGuard {
    fn drop(&mut self) {
        TRACKED.remove(self.0);
    }
}

/// A span that is entered on this thread.
pub(crate) struct EnteredSpan {
    pub(crate) span: SpanKey,
    /// Upgrades as long as the layer isn't dropped.
    pub(crate) layer: Weak<()>,
    /// Detaches the scope when it is dropped.
    pub(crate) attached: Option<Attached>,
    /// What was current after that.
    pub(crate) place: Option<Place>,
    /// The setup check continues when the span is exited.
    pub(crate) is_checked: bool,
}

/// The current scope, by its address, and the current OpenTelemetry span.
#[derive(PartialEq)]
pub(crate) struct Place(usize, SpanId);

impl Place {
    pub(crate) fn current() -> Option<Self> {
        context::map_current(|cx| {
            let address = |scope: Arc<Scope>| Arc::as_ptr(&scope).addr();
            let scope = Scope::of(cx).map_or(0, address);
            Self(scope, cx.span().span_context().span_id())
        })
    }
}

thread_local! {
    /// The tracked and adopted spans that are entered on this thread, innermost last, and for people who only log, all
    /// spans. The callbacks of enter and exit write and read it. Empty outside such spans.
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
    // While the thread exits there is no stack, and the guard is dropped at once.
    let _exiting = with_entered(|stack| stack.push(entered));
}

/// Removes a span that is exited, also one that was entered in a layer which is gone: it was reloaded since. Drop the result
/// without a lock: detaching a `Context` may drop a span, which runs foreign code.
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

/// Whether this is the innermost span of its layer. `Some(false)`: another scope or OpenTelemetry span is attached inside.
pub(crate) fn is_innermost(span: SpanKey) -> Option<bool> {
    let place = Place::current()?;
    with_entered(|stack| {
        let innermost = stack.iter().rfind(|it| it.span.layer == span.layer)?;
        (innermost.span == span).then(|| innermost.place.as_ref() == Some(&place))
    })
    .flatten()
}

/// Detaches the scope of the innermost span if that span is closed: its exit reached no layer, because the layer was replaced
/// by none, or the subscriber was dropped.
#[cold]
pub(crate) fn sweep() {
    let closed = || {
        with_entered(|stack| {
            let is_closed = |it: &EnteredSpan| {
                it.layer.strong_count() == 0 && TRACKED.read(it.span, |_| Some(())).is_none()
            };
            stack.pop_if(|it| is_closed(it))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_whose_hashes_are_equal_are_both_tracked() {
        let [one, other] = [(0, 1 << 32 | 5), (1, 5)].map(|(layer, span)| SpanKey { layer, span });
        let hash = |key: SpanKey| key.span ^ (key.layer as u64).rotate_left(32);
        assert_eq!(hash(one), hash(other));
        let (first, second) = (Scope::empty(), Scope::empty());
        let one_tracked = track(one, first.clone());
        assert!(tracked_scope(other).is_none());
        let other_tracked = track(other, second.clone());
        for (span, scope) in [(one, &first), (other, &second)] {
            assert!(Arc::ptr_eq(&tracked_scope(span).unwrap(), scope));
        }
        drop(other_tracked);
        assert!(tracked_scope(other).is_none() && tracked_scope(one).is_some() && may_track(one));
        drop(one_tracked);
        assert!(tracked_scope(one).is_none());
    }
}
