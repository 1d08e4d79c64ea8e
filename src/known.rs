//! What is remembered of a few spans of `tracing` while they live, by their ids.
//!
//! Hardly any span is among them, and every span is asked for when it is entered and left: that costs
//! one atomic load.

use crate::handover::Handover;
use crate::scope::Scope;
use crate::shards::Shards;
use std::sync::Arc;

/// A span of `tracing`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    /// The address of what a layer shares: subscribers number their spans alike.
    pub(crate) layer: usize,
    pub(crate) span: u64,
}

impl Key {
    /// Never 0. Spans of two layers may meet in a number: then the later one takes it over, and the
    /// earlier does without. Neither is taken for the other.
    #[inline]
    pub(crate) fn number(self) -> u64 {
        self.span ^ (self.layer as u64).rotate_left(32) | 1 << 63
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

static KNOWN: Shards<(Key, Known)> = Shards::new();

/// False if nothing is known of a span.
#[inline(always)]
pub(crate) fn may_know(span: Key) -> bool {
    KNOWN.may_have(span.number())
}

/// Keeps what the tracer has to know, until it takes it.
pub(crate) fn pending(span: Key, handover: Handover) -> Remembered {
    KNOWN.insert(span.number(), (span, Known::Pending(handover)));
    Remembered(span)
}

pub(crate) fn take_pending(number: u64) -> Option<(Key, Handover)> {
    let taken = KNOWN.remove_if(number, |(_, known)| matches!(known, Known::Pending(_)));
    match taken? {
        (span, Known::Pending(handover)) => Some((span, handover)),
        _ => None,
    }
}

/// The span has to be [`Remembered`].
pub(crate) fn track(span: Key, scope: Arc<Scope>, hidden: bool) {
    let tracked = Tracked { scope, hidden };
    KNOWN.insert(span.number(), (span, Known::Tracked(tracked)));
}

pub(crate) fn tracked(span: Key) -> Option<Tracked> {
    KNOWN.read(span.number(), |(key, known)| match known {
        Known::Tracked(tracked) if *key == span => Some(tracked.clone()),
        _ => None,
    })
}

/// Has what is known of a span forgotten when it is dropped, with the span's extensions.
#[must_use]
pub(crate) struct Remembered(pub(crate) Key);

impl Drop for Remembered {
    fn drop(&mut self) {
        KNOWN.remove_if(self.0.number(), |(key, _)| *key == self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scope::Values;

    #[test]
    fn spans_that_meet_in_a_number_are_not_taken_for_each_other() {
        let (one, other) = (1 << 32 | 5, 5);
        let one = Key {
            layer: 0,
            span: one,
        };
        let other = Key {
            layer: 1,
            span: other,
        };
        assert_eq!(one.number(), other.number());
        let remembered = Remembered(one);
        track(one, Scope::nested(None, Values::default()), true);
        assert!(tracked(other).is_none());
        drop(Remembered(other));
        assert!(tracked(one).is_some());
        drop(remembered);
        assert!(tracked(one).is_none());
    }
}
