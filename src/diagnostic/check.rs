//! Whether the set-up is right: looked at while the first spans are entered, and never again.

use crate::diagnostic::{self, Message};
use crate::sync::atomic::{AtomicBool, AtomicU8, Ordering};

/// How far the set-up has been checked.
#[derive(Debug)]
pub(crate) struct Check {
    state: AtomicU8,
    /// The OpenTelemetry layer was seen not to activate the `Context` of a span that was entered.
    activation_is_off: AtomicBool,
}

/// The tracer is right, as far as can be told of a span that says nothing. The rest is seen when the
/// first one opens a scope.
const WAITS: u8 = 0;
/// The set-up is right, or what is wrong was said.
const DONE: u8 = 1;
/// So many more spans that open a scope are looked at when they are entered. One that a filter
/// hides from the OpenTelemetry layer proves nothing.
const TRIES: u8 = DONE + 8;
/// From here down to [`TRIES`] no span has been seen of which anything could be told: any span is
/// looked at.
const NEW: u8 = 200;
/// The guard of the set-up was dropped before the first span.
const ENDED: u8 = u8::MAX - 1;
/// There is nothing inside: `Option::None` stands for the OpenTelemetry layer.
const ALONE: u8 = u8::MAX;

/// What there is to do when a span is entered.
pub(crate) enum Due {
    Nothing,
    /// To look at it if it opens a scope.
    Opener,
    /// To look at it, whatever it is.
    Any,
    Alone,
}

impl Default for Check {
    fn default() -> Self {
        Self {
            state: AtomicU8::new(NEW),
            activation_is_off: AtomicBool::new(false),
        }
    }
}

impl Check {
    #[inline]
    pub(crate) fn is_due(&self) -> bool {
        self.state.load(Ordering::Relaxed) > DONE
    }

    #[inline]
    pub(crate) fn is_alone(&self) -> bool {
        self.state.load(Ordering::Relaxed) == ALONE
    }

    pub(crate) fn set_alone(&self) {
        self.state.store(ALONE, Ordering::Relaxed);
    }

    pub(crate) fn due(&self) -> Due {
        match self.state.load(Ordering::Relaxed) {
            WAITS | DONE => Due::Nothing,
            ALONE => Due::Alone,
            ENDED => {
                self.done(Some(diagnostic::GUARD_DROPPED));
                Due::Nothing
            }
            2..=TRIES => Due::Opener,
            _ => Due::Any,
        }
    }

    /// A span that opens a scope has been made.
    pub(crate) fn opener_made(&self) {
        self.change(|it| (it == WAITS).then_some(TRIES));
    }

    /// The tracer is ours.
    pub(crate) fn is_ours(&self) {
        self.change(|it| (TRIES < it && it <= NEW).then_some(WAITS));
    }

    /// Nothing can be told of a span: the OpenTelemetry layer does not know it.
    pub(crate) fn is_hidden(&self) {
        self.change(|it| match it {
            WAITS | DONE | ENDED | ALONE => None,
            // Behind `reload::Layer` nothing will ever be told.
            it if it == TRIES + 1 => Some(WAITS),
            it => Some(it - 1),
        });
    }

    /// All is seen. `wrong` is said at the next chance.
    pub(crate) fn done(&self, wrong: Option<Message>) {
        // Two threads may have looked at once.
        let is_first = self.state.swap(DONE, Ordering::Relaxed) != DONE;
        if let Some(wrong) = wrong.filter(|_| is_first) {
            diagnostic::wait(wrong);
        }
    }

    /// The OpenTelemetry layer doesn't activate `Context`s.
    pub(crate) fn no_activation(&self) {
        self.activation_is_off.store(true, Ordering::Relaxed);
        self.done(Some(diagnostic::NO_ACTIVATION));
    }

    pub(crate) fn is_activation_on(&self) -> bool {
        !self.activation_is_off.load(Ordering::Relaxed)
    }

    /// Nothing is exported any more.
    #[cfg(feature = "otlp")]
    pub(crate) fn guard_dropped(&self) {
        self.change(|it| (it == NEW).then_some(ENDED));
    }

    fn change(&self, to: impl FnMut(u8) -> Option<u8>) {
        let _unchanged = self
            .state
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(check: &Check) -> &'static str {
        match check.due() {
            Due::Nothing => "nothing",
            Due::Opener => "opener",
            Due::Any => "any",
            Due::Alone => "alone",
        }
    }

    #[test]
    fn any_span_is_looked_at_until_one_has_our_tracer_and_then_those_that_open_a_scope() {
        let check = Check::default();
        check.opener_made();
        assert_eq!((check.is_due(), due(&check)), (true, "any"));
        check.is_ours();
        assert_eq!((check.is_due(), due(&check)), (false, "nothing"));
        check.opener_made();
        assert_eq!((check.is_due(), due(&check)), (true, "opener"));
        // The tracer proves nothing of what opens a scope.
        check.is_ours();
        assert_eq!(due(&check), "opener");
        check.done(None);
        for change in [Check::opener_made, Check::is_ours, Check::is_hidden] {
            change(&check);
            assert_eq!((check.is_due(), due(&check)), (false, "nothing"));
        }
    }

    #[test]
    fn hidden_spans_prove_nothing_and_are_not_looked_at_for_ever() {
        let check = Check::default();
        let looks = |check: &Check| {
            let looks = (0..).take_while(|_| {
                let is_due = check.is_due() && !matches!(check.due(), Due::Nothing);
                check.is_hidden();
                is_due
            });
            looks.count()
        };
        assert_eq!(looks(&check), usize::from(NEW - TRIES));
        check.opener_made();
        assert_eq!(looks(&check), 8);
        check.opener_made();
        assert!(!check.is_due());
    }

    #[test]
    fn where_nothing_is_inside_it_stays_so() {
        let check = Check::default();
        check.set_alone();
        for change in [Check::opener_made, Check::is_ours, Check::is_hidden] {
            change(&check);
            assert_eq!((check.is_alone(), due(&check)), (true, "alone"));
        }
    }
}
