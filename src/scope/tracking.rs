//! The map of *tracked* and *adopted* spans of `tracing`, by `tracing`'s span id. A layer attaches their scope whenever
//! they are entered. Tracked spans are spans that the OpenTelemetry layer doesn't know. `scope/polled.rs` explains
//! adopted spans. All other spans have their scope in their `Context`, which the OpenTelemetry layer activates.

use crate::base::shards::{Shards, unique_number};
use crate::scope::Scope;
use crate::session::Session;
use opentelemetry::trace::SpanContext;
use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

/// Identifies a span of `tracing`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SpanKey {
    /// The number of the layer: all subscribers count their spans from 1.
    pub(crate) layer: LayerNumber,
    pub(crate) span: u64,
}

impl SpanKey {
    /// The key of no span.
    pub(crate) const NONE: Self = Self {
        layer: LayerNumber(0),
        span: 0,
    };
}

/// A unique number of a layer. An address isn't unique, because a future can refer to a span of a layer that was
/// dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LayerNumber(u64);

impl Default for LayerNumber {
    fn default() -> Self {
        Self(unique_number())
    }
}

/// Keys of two layers may have the same hash, but they aren't equal.
impl Hash for SpanKey {
    #[inline]
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hasher.write_u64(self.span ^ self.layer.0.rotate_left(32));
    }
}

/// The tracked and adopted spans. Written when such a span is created, adopted or closed, and when a `set_*` function
/// is called in it. Read when a span is entered. Empty if there is an OpenTelemetry layer, no span is filtered out for
/// it, and every span is created in the session in which it is entered.
static TRACKED: Shards<SpanKey, TrackedSpan> = Shards::new();

/// True after the first span is tracked, or the first future is polled in a session. Until then, the layer has nothing to do
/// when a span is entered. Set by this file and by `scope/polled.rs`, and read whenever a span is entered.
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
    /// By the number of the future. When there are [`most`](Self::most), adoptions of finished futures are removed.
    adoptions: BTreeMap<u64, Adoption>,
    /// The number of adoptions at which adoptions of finished futures are removed.
    most: usize,
    /// The number of the future in which the span started, if this future adopted it.
    started_in: Option<u64>,
    /// The span is an unexported session span. Spans directly inside are roots, linked to this other span.
    linked: Option<SpanContext>,
}

/// Identifies a future. A clone identifies the same future.
#[derive(Clone, Debug)]
pub(crate) struct FutureId(Arc<u64>);

impl Default for FutureId {
    fn default() -> Self {
        Self(Arc::new(unique_number()))
    }
}

/// How the scope of a span was set.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum SetBy {
    /// By outer spans or sessions.
    Outside,
    /// By the span's own fields.
    Fields,
    /// By `set_*` functions that were called in the span.
    Functions,
}

/// A future has adopted a span.
#[derive(Clone)]
pub(crate) struct Adoption {
    /// The scope of the future.
    pub(crate) scope: Arc<Scope>,
    /// The scope of the span at that time. Values that are set on the span later, outside the future, don't apply
    /// inside.
    pub(crate) own: Option<Arc<Scope>>,
    pub(crate) set_by: SetBy,
    /// The scope that applies inside the span.
    pub(crate) inside: Arc<Scope>,
    /// The values that were set inside the span, in this future.
    pub(crate) set: Session,
    /// Upgrades as long as the future exists.
    pub(crate) future: Weak<u64>,
}

impl Adoption {
    pub(crate) fn new(
        future: &FutureId,
        scope: Arc<Scope>,
        own: Option<Arc<Scope>>,
        set_by: SetBy,
        inside: Arc<Scope>,
    ) -> Self {
        Self {
            scope,
            own,
            set_by,
            inside,
            set: Session::default(),
            future: Arc::downgrade(&future.0),
        }
    }
}

/// False if a span is neither tracked nor adopted; true if it may be.
#[inline(always)]
pub(crate) fn may_track(span: SpanKey) -> bool {
    TRACKED.may_have(span)
}

/// Tracks a span until the guard is dropped. For an unexported session span, `linked` is the span to link spans
/// directly inside to.
pub(crate) fn track(span: SpanKey, scope: Arc<Scope>, linked: Option<SpanContext>) -> TrackedGuard {
    let tracked = TrackedSpan {
        scope: Some(scope),
        linked,
        ..TrackedSpan::default()
    };
    insert(span, tracked);
    TrackedGuard(span)
}

/// The span to link spans directly inside an unexported session span to. `None`: the span is exported or filtered out.
pub(crate) fn linked(span: SpanKey) -> Option<SpanContext> {
    TRACKED.read(span, |it| it.linked.clone())
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

/// Records that a future adopts a span. Keep the guard of the first future, and forget the others.
pub(crate) fn adopt(
    span: SpanKey,
    future: &FutureId,
    adoption: Adoption,
    is_starting: bool,
) -> TrackedGuard {
    let adopted = TrackedSpan {
        adoptions: BTreeMap::from([(*future.0, adoption)]),
        started_in: is_starting.then_some(*future.0),
        ..TrackedSpan::default()
    };
    insert(span, adopted);
    TrackedGuard(span)
}

/// How a future has adopted a span.
pub(crate) fn adoption(span: SpanKey, future: &FutureId) -> Option<Adoption> {
    TRACKED.read(span, |it| it.adoptions.get(&*future.0).cloned())
}

/// How other futures have adopted a span.
pub(crate) fn other_adoptions(span: SpanKey, future: &FutureId) -> Vec<Adoption> {
    let is_other = |it: &(&u64, &Adoption)| *it.0 != *future.0;
    let others = |it: &TrackedSpan| {
        let others = it.adoptions.iter().filter(is_other);
        Some(others.map(|it| it.1.clone()).collect())
    };
    TRACKED.read(span, others).unwrap_or_default()
}

/// Whether a span started in a future that adopted it. The span is then exported with the session of this future,
/// unless it is entered in another session.
pub(crate) fn is_exported(span: SpanKey) -> bool {
    TRACKED.read(span, |it| it.started_in).is_some()
}

/// Whether a span started in this future.
pub(crate) fn started_in(span: SpanKey, future: &FutureId) -> bool {
    TRACKED.read(span, |it| it.started_in) == Some(*future.0)
}

/// Replaces the scope of a span, or the adoption by one future.
fn insert(span: SpanKey, tracked: TrackedSpan) {
    set_used();
    TRACKED.insert_or(span, tracked, |there, mut new| {
        if new.scope.is_some() {
            std::mem::swap(&mut there.scope, &mut new.scope);
        }
        there.started_in = there.started_in.or(new.started_in);
        let Some((future, adoption)) = new.adoptions.pop_first() else {
            return Some(new);
        };
        // Keep the adoptions of all futures while the span starts: `other_adoptions` must find futures that have
        // entered the span meanwhile.
        let is_starting = new.started_in.is_some();
        if there.adoptions.len() >= there.most && !is_starting {
            let all = std::mem::take(&mut there.adoptions).into_iter();
            (there.adoptions, new.adoptions) = all.partition(|it| it.1.future.strong_count() > 0);
            there.most = 2 * there.adoptions.len();
        }
        let replaced = there.adoptions.insert(future, adoption);
        new.adoptions.extend(replaced.map(|it| (future, it)));
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
        let key = |(layer, span)| SpanKey {
            layer: LayerNumber(layer),
            span,
        };
        let [one, other] = [(0, 1 << 32 | 5), (1, 5)].map(key);
        let hash = |key: SpanKey| key.span ^ key.layer.0.rotate_left(32);
        assert_eq!(hash(one), hash(other));
        let (first, second) = (Scope::empty(), Scope::empty());
        let one_tracked = track(one, first.clone(), None);
        assert!(tracked_scope(other).is_none());
        let other_tracked = track(other, second.clone(), None);
        for (span, scope) in [(one, &first), (other, &second)] {
            assert!(Arc::ptr_eq(&tracked_scope(span).unwrap(), scope));
        }
        drop(other_tracked);
        assert!(tracked_scope(other).is_none() && tracked_scope(one).is_some() && may_track(one));
        drop(one_tracked);
        assert!(tracked_scope(one).is_none());
    }
}
