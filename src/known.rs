//! What is remembered of a few spans of `tracing` while they live, by their ids.
//!
//! Hardly any span is among them, and every span is asked for when it is entered and left: that costs
//! one atomic load.

use crate::handover::Handover;
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

enum Known {
    /// The span has been made, and not started.
    Pending(Handover),
    Tracked(Tracked),
}

/// A span whose `Context` does not have its scope. The scope is attached when the span is entered,
/// so that those below inherit it with the `Context` as ever.
#[derive(Clone)]
pub(crate) struct Tracked {
    pub(crate) scope: Arc<Scope>,
    /// The OpenTelemetry layer does not know the span.
    pub(crate) hidden: bool,
}

static KNOWN: Shards<Key, Known> = Shards::new();

/// False if nothing is known of a span.
#[inline(always)]
pub(crate) fn may_know(span: Key) -> bool {
    KNOWN.may_have(span)
}

/// Keeps what the tracer has to know, until it takes it.
pub(crate) fn pending(span: Key, handover: Handover) -> Remembered {
    KNOWN.insert(span, Known::Pending(handover));
    Remembered(span)
}

pub(crate) fn take_pending(span: Key) -> Option<Handover> {
    match KNOWN.remove_if(span, |known| matches!(known, Known::Pending(_)))? {
        Known::Pending(handover) => Some(handover),
        Known::Tracked(_) => None,
    }
}

/// The span has to be [`Remembered`].
pub(crate) fn track(span: Key, scope: Arc<Scope>, hidden: bool) {
    KNOWN.insert(span, Known::Tracked(Tracked { scope, hidden }));
}

pub(crate) fn tracked(span: Key) -> Option<Tracked> {
    KNOWN.read(span, |known| match known {
        Known::Tracked(tracked) => Some(tracked.clone()),
        Known::Pending(_) => None,
    })
}

/// Has what is known of a span forgotten when it is dropped, with the span's extensions.
#[must_use]
pub(crate) struct Remembered(pub(crate) Key);

impl Drop for Remembered {
    fn drop(&mut self) {
        KNOWN.remove(self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scope::Values;

    #[test]
    fn spans_that_meet_in_a_hash_are_both_known() {
        let [one, other] = [(0, 1 << 32 | 5), (1, 5)].map(|(layer, span)| Key { layer, span });
        let hash = |key: Key| key.span ^ (key.layer as u64).rotate_left(32);
        assert_eq!(hash(one), hash(other));
        let scope = || Scope::nested(None, Values::default());
        let remembered = [one, other].map(Remembered);
        let (first, second) = (scope(), scope());
        track(one, first.clone(), true);
        assert!(tracked(other).is_none());
        track(other, second.clone(), true);
        for (span, scope) in [(one, &first), (other, &second)] {
            assert!(Arc::ptr_eq(&tracked(span).unwrap().scope, scope));
        }
        let [one_remembered, other_remembered] = remembered;
        drop(other_remembered);
        assert!(tracked(other).is_none() && tracked(one).is_some() && may_know(one));
        drop(one_remembered);
        assert!(tracked(one).is_none());
    }

    #[test]
    fn handovers_of_spans_that_meet_in_a_hash_are_not_exchanged() {
        let [one, other] = [(2, 1 << 33 | 1 << 32 | 7), (3, 2 << 32 | 1 << 33 | 7)];
        let [one, other] = [one, other].map(|(layer, span)| Key { layer, span });
        let scope = || Scope::nested(None, Values::default());
        let handover = |scope: &Arc<Scope>| Handover {
            opened: None,
            otherwise: Some(scope.clone()),
        };
        let (first, second) = (scope(), scope());
        let _remembered = (
            pending(one, handover(&first)),
            pending(other, handover(&second)),
        );
        for (span, scope) in [(one, &first), (other, &second)] {
            let taken = take_pending(span).and_then(|told| told.otherwise);
            assert!(taken.is_some_and(|taken| Arc::ptr_eq(&taken, scope)));
        }
        assert!(take_pending(one).is_none());
    }
}
