//! The map of *tracked* and *adopted* spans of `tracing`: a layer attaches their scope whenever they are entered. Tracked spans
//! are those that the OpenTelemetry layer doesn't know; adopted spans are explained in `scope/polled.rs`. The scope of any other
//! span is found from its `Context`, which the OpenTelemetry layer activates.

use crate::base::shards::Shards;
use crate::scope::Scope;
use crate::session::Session;
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
/// `set_*` is called in it. Read when a span is entered. Empty if there is an OpenTelemetry layer, no span is filtered out
/// for it, and every span is created in the session in which it is entered.
static TRACKED: Shards<SpanKey, TrackedSpan> = Shards::new();

/// Whether the process has ever tracked a span, or polled a future in a session. Otherwise no span that is entered needs
/// more than the OpenTelemetry layer does. Set by this file and by `scope/polled.rs`, read whenever a span is entered.
static IS_USED: AtomicBool = AtomicBool::new(false);

pub(crate) fn set_used() {
    IS_USED.store(true, Ordering::Relaxed);
}

#[inline(always)]
pub(crate) fn is_used() -> bool {
    IS_USED.load(Ordering::Relaxed)
}

#[derive(Default)]
struct TrackedSpan {
    /// `None`: the OpenTelemetry layer knows the span, or it isn't known yet which scope the span inherits.
    scope: Option<Arc<Scope>>,
    /// One for each future that has adopted the span and still exists.
    adoptions: Vec<Adoption>,
    /// The span started in a future that adopted it.
    is_exported: bool,
}

/// Tells futures apart, as long as one of them exists. A clone is of the same future.
#[derive(Clone, Debug, Default)]
pub(crate) struct FutureId(Arc<()>);

impl FutureId {
    pub(crate) fn downgrade(&self) -> Weak<()> {
        Arc::downgrade(&self.0)
    }

    pub(crate) fn is(&self, other: &Weak<()>) -> bool {
        std::ptr::eq(Arc::as_ptr(&self.0), other.as_ptr())
    }
}

/// A future has adopted a span.
#[derive(Clone)]
pub(crate) struct Adoption {
    pub(crate) future: Weak<()>,
    /// The scope of the future.
    pub(crate) scope: Arc<Scope>,
    /// The scope that applies inside the span.
    pub(crate) inside: Arc<Scope>,
    /// The values that were set inside the span, in this future.
    pub(crate) set: Session,
}

/// False if a span is neither tracked nor adopted; true if it may be.
#[inline(always)]
pub(crate) fn may_track(span: SpanKey) -> bool {
    TRACKED.may_have(span)
}

/// Tracks a span, as long as the guard lives.
pub(crate) fn track(span: SpanKey, scope: Arc<Scope>) -> TrackedGuard {
    replace_tracked(span, scope);
    TrackedGuard(span)
}

/// Gives a tracked span another scope.
pub(crate) fn replace_tracked(span: SpanKey, scope: Arc<Scope>) {
    let scope = Some(scope);
    insert(
        span,
        TrackedSpan {
            scope,
            ..TrackedSpan::default()
        },
    );
}

pub(crate) fn tracked_scope(span: SpanKey) -> Option<Arc<Scope>> {
    TRACKED.read(span, |it| it.scope.clone())
}

/// Whether a span is open, and tracked or adopted.
pub(crate) fn is_tracked(span: SpanKey) -> bool {
    TRACKED.read(span, |_| Some(())).is_some()
}

/// Tracks a span in a scope that isn't known yet.
pub(crate) fn track_unresolved(span: SpanKey) -> TrackedGuard {
    insert(span, TrackedSpan::default());
    TrackedGuard(span)
}

pub(crate) fn is_unresolved(span: SpanKey) -> bool {
    let is_unresolved = |it: &TrackedSpan| it.scope.is_none() && it.adoptions.is_empty();
    TRACKED
        .read(span, |it| is_unresolved(it).then_some(()))
        .is_some()
}

/// A future adopts a span. The guard of the first future is the one to keep.
pub(crate) fn adopt(span: SpanKey, adoption: Adoption, is_starting: bool) -> TrackedGuard {
    let adopted = TrackedSpan {
        scope: None,
        adoptions: vec![adoption],
        is_exported: is_starting,
    };
    insert(span, adopted);
    TrackedGuard(span)
}

/// How a future has adopted a span.
pub(crate) fn adoption(span: SpanKey, future: &FutureId) -> Option<Adoption> {
    let is_it = |it: &&Adoption| future.is(&it.future);
    TRACKED.read(span, |it| it.adoptions.iter().find(is_it).cloned())
}

/// Whether a span started in a future that adopted it: it is exported with the session of that future, as long as it isn't
/// entered in another one.
pub(crate) fn is_exported(span: SpanKey) -> bool {
    TRACKED
        .read(span, |it| it.is_exported.then_some(()))
        .is_some()
}

/// Replaces the scope of a span, or what one future has adopted it with.
fn insert(span: SpanKey, tracked: TrackedSpan) {
    set_used();
    TRACKED.insert_or(span, tracked, |there, mut new| {
        if new.scope.is_some() {
            std::mem::swap(&mut there.scope, &mut new.scope);
        }
        there.is_exported |= new.is_exported;
        if let Some(adoption) = new.adoptions.pop() {
            let stays =
                |it: &Adoption| it.future.strong_count() > 0 && !it.future.ptr_eq(&adoption.future);
            let all = std::mem::take(&mut there.adoptions).into_iter();
            (there.adoptions, new.adoptions) = all.partition(stays);
            there.adoptions.push(adoption);
        }
        Some(new)
    });
}

/// Ends the tracking of a span when it is dropped, with the span's extensions.
#[derive(Debug)]
#[must_use]
pub(crate) struct TrackedGuard(SpanKey);

impl TrackedGuard {
    pub(crate) fn is_of(&self, span: SpanKey) -> bool {
        self.0 == span
    }

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
