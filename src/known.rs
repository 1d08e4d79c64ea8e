//! The spans of `tracing` whose scope is attached whenever they are entered, by their ids: the OpenTelemetry
//! layer does not know them, because a filter disables them for that layer or because there is no such layer.
//!
//! Hardly any span is among them, and every span is looked up when it is entered and left: that costs one
//! atomic load.

use crate::scope::Scope;
use crate::shards::Shards;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// A span of `tracing`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    /// The address of what a layer shares: subscribers number their spans alike.
    pub(crate) layer: usize,
    pub(crate) span: u64,
}

/// Keys of two layers may meet in a hash, and are two all the same.
impl Hash for Key {
    #[inline]
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hasher.write_u64(self.span ^ (self.layer as u64).rotate_left(32));
    }
}

static TRACKED: Shards<Key, Arc<Scope>> = Shards::new();

/// False if a span is not tracked; true if it may be.
#[inline(always)]
pub(crate) fn may_track(span: Key) -> bool {
    TRACKED.may_have(span)
}

/// Tracks a span, as long as the guard lives.
pub(crate) fn track(span: Key, scope: Arc<Scope>) -> Tracked {
    TRACKED.insert(span, scope);
    Tracked(span)
}

/// Gives a tracked span another scope.
pub(crate) fn replace(span: Key, scope: Arc<Scope>) {
    TRACKED.insert(span, scope);
}

pub(crate) fn scope_of(span: Key) -> Option<Arc<Scope>> {
    TRACKED.read(span, |scope| Some(scope.clone()))
}

/// Ends the tracking of a span when it is dropped, with the span's extensions.
#[derive(Debug)]
#[must_use]
pub(crate) struct Tracked(Key);

impl Drop for Tracked {
    fn drop(&mut self) {
        TRACKED.remove(self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_whose_hashes_are_equal_are_both_tracked() {
        let [one, other] = [(0, 1 << 32 | 5), (1, 5)].map(|(layer, span)| Key { layer, span });
        let hash = |key: Key| key.span ^ (key.layer as u64).rotate_left(32);
        assert_eq!(hash(one), hash(other));
        let (first, second) = (Scope::empty(), Scope::empty());
        let one_tracked = track(one, first.clone());
        assert!(scope_of(other).is_none());
        let other_tracked = track(other, second.clone());
        for (span, scope) in [(one, &first), (other, &second)] {
            assert!(Arc::ptr_eq(&scope_of(span).unwrap(), scope));
        }
        drop(other_tracked);
        assert!(scope_of(other).is_none() && scope_of(one).is_some() && may_track(one));
        drop(one_tracked);
        assert!(scope_of(one).is_none());
    }
}
