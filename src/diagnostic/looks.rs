//! How often it is looked whether there is an OpenTelemetry layer beside ours.

use crate::sync::atomic::{AtomicU8, Ordering};

/// Counts down the looks that are left, and has a mistake said once.
#[derive(Debug)]
pub(crate) struct Looks(AtomicU8);

/// Nothing was found.
const OVER: u8 = 0;
const FOUND: u8 = 1;
/// So many looks. One at what a filter hides proves nothing.
const FIRST: u8 = FOUND + 8;

impl Looks {
    #[inline]
    pub(crate) fn are_due(&self) -> bool {
        self.0.load(Ordering::Relaxed) > FOUND
    }

    /// A look found nothing. Others may have looked at the same time.
    pub(crate) fn missed(&self) {
        let one_less = |left| match left {
            OVER | FOUND => None,
            left if left == FOUND + 1 => Some(OVER),
            left => Some(left - 1),
        };
        let _left = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less);
    }

    /// A look found what it was for, and there are to be no more. True for the first one.
    pub(crate) fn found(&self) -> bool {
        self.0.swap(FOUND, Ordering::Relaxed) != FOUND
    }
}

impl Default for Looks {
    fn default() -> Self {
        Self(AtomicU8::new(FIRST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_are_over_after_eight_that_found_nothing() {
        let looks = Looks::default();
        for _ in 0..8 {
            assert!(looks.are_due());
            looks.missed();
        }
        assert!(!looks.are_due());
        looks.missed();
        assert!(!looks.are_due());
    }

    #[test]
    fn looks_are_over_after_the_first_that_found_something() {
        let looks = Looks::default();
        looks.missed();
        assert!(looks.found() && !looks.found());
        looks.missed();
        assert!(!looks.are_due());
    }
}
