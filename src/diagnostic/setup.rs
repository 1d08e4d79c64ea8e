//! The setup check: is the setup complete? The layers check it while the first spans are entered, and never again.
//! `session!`, `user!` and the turns of a conversation check whether a layer receives their spans.

use crate::diagnostic::{self, GUARD_DROPPED, Message, NO_LAYER, SPAN_FILTERED, TURN_FILTERED};
use crate::layer::opening::Shared;
use crate::sync::atomic::AtomicU8;
use std::sync::atomic::{AtomicBool, Ordering};
use tracing::{Dispatch, Span, dispatcher};

/// The state of a check that begins with `START`: one of these constants, or the number of spans that are still
/// looked at, added to the constant below it.
#[derive(Debug)]
pub(crate) struct Check<const START: u8>(AtomicU8);

/// The check is over: the OpenTelemetry layer doesn't activate `Context`s.
const NO_ACTIVATION: u8 = 0;
/// Other spans than openers prove nothing more. The check goes on when the next opener is created.
const IDLE: u8 = 1;
/// The check is over: the setup is complete, or a diagnostic was emitted.
const DONE: u8 = 2;
/// So many more openers are looked at when they are entered. An opener that is filtered out proves nothing.
const OPENERS: u8 = DONE + 8;
/// The start of a layer without an OpenTelemetry layer inside: is there one beside it?
pub(crate) const BESIDE: u8 = OPENERS + 8;
/// The start of a layer around the OpenTelemetry layer: no span has proved anything yet, so any span is looked at.
pub(crate) const ANY: u8 = 200;
/// The telemetry guard was dropped before the first span.
const ENDED: u8 = ANY + 1;
/// `Option::None` stands for the OpenTelemetry layer inside.
const ALONE: u8 = ANY + 2;

impl<const START: u8> Default for Check<START> {
    fn default() -> Self {
        Self(AtomicU8::new(START))
    }
}

impl<const START: u8> Check<START> {
    #[inline]
    pub(crate) fn is_due(&self) -> bool {
        self.state() > DONE
    }

    #[inline]
    pub(crate) fn is_alone(&self) -> bool {
        self.state() == ALONE
    }

    pub(crate) fn is_activation_on(&self) -> bool {
        self.state() != NO_ACTIVATION
    }

    pub(crate) fn set_alone(&self) {
        self.0.store(ALONE, Ordering::Relaxed);
    }

    /// Nothing is exported any more.
    #[cfg(feature = "otlp")]
    pub(crate) fn guard_dropped(&self) {
        self.change(|it| (it == ANY).then_some(ENDED));
    }

    /// Whether to look at a span that is entered.
    pub(crate) fn looks_at(&self, is_opener: bool) -> bool {
        match self.state() {
            ENDED => {
                self.done(Some(GUARD_DROPPED));
                false
            }
            state => state > OPENERS || is_opener && state > DONE,
        }
    }

    pub(crate) fn opener_created(&self) {
        self.change(|it| (it == IDLE).then_some(OPENERS));
    }

    /// The tracer and the activation are right, as far as a span shows that is no opener.
    pub(crate) fn tracer_is_ours(&self) {
        self.change(|it| (OPENERS < it && it <= ANY).then_some(IDLE));
    }

    /// A span proves nothing: the OpenTelemetry layer doesn't know it.
    pub(crate) fn missed(&self) {
        self.change(|it| match it {
            ..=DONE | ENDED | ALONE => None,
            // Behind `reload::Layer` no span ever proves anything.
            it if it == OPENERS + 1 => Some(IDLE),
            it => Some(it - 1),
        });
    }

    /// Ends the check, and defers the diagnostic `wrong` unless the check was over before.
    pub(crate) fn done(&self, wrong: Option<Message>) {
        let is_inactive = wrong == Some(diagnostic::NO_ACTIVATION);
        let end = if is_inactive { NO_ACTIVATION } else { DONE };
        let is_first = self.change(|it| (!matches!(it, NO_ACTIVATION | DONE)).then_some(end));
        if let Some(wrong) = wrong.filter(|_| is_first) {
            diagnostic::wait(wrong);
        }
    }

    #[inline]
    fn state(&self) -> u8 {
        self.0.load(Ordering::Relaxed)
    }

    fn change(&self, to: impl FnMut(u8) -> Option<u8>) -> bool {
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, to)
            .is_ok()
    }
}

/// There is a `SessionLayer` on a subscriber.
static LAYER: AtomicBool = AtomicBool::new(false);
/// The application uses a part of this crate that is of no use to a library.
static SETUP: AtomicBool = AtomicBool::new(false);

pub(crate) fn layer_is_there() {
    LAYER.store(true, Ordering::Relaxed);
}

pub(crate) fn begins() {
    SETUP.store(true, Ordering::Relaxed);
}

/// Checks the span of a macro.
#[inline]
pub fn checked(span: Span) -> Span {
    if span.is_disabled() || !LAYER.load(Ordering::Relaxed) {
        span_is_lost(&span);
    }
    span
}

#[cold]
fn span_is_lost(span: &Span) {
    static FILTERED_TOLD: AtomicBool = AtomicBool::new(false);
    static NO_LAYER_TOLD: AtomicBool = AtomicBool::new(false);
    if span.is_disabled() {
        tell_of_filter(&FILTERED_TOLD, &SPAN_FILTERED);
    } else if SETUP.load(Ordering::Relaxed) && !NO_LAYER_TOLD.swap(true, Ordering::Relaxed) {
        diagnostic::tell(&NO_LAYER);
    }
}

/// Checks the span of a turn.
pub(crate) fn check_turn(span: &Span) {
    static TOLD: AtomicBool = AtomicBool::new(false);
    if span.is_disabled() {
        tell_of_filter(&TOLD, &TURN_FILTERED);
    }
}

/// Emitted once, and only if a `SessionLayer` is on the subscriber.
fn tell_of_filter(told: &AtomicBool, message: &Message) {
    let has_layer = |dispatch: &Dispatch| dispatch.downcast_ref::<Shared>().is_some();
    if !told.load(Ordering::Relaxed)
        && dispatcher::get_default(has_layer)
        && !told.swap(true, Ordering::Relaxed)
    {
        // A filter that disables such spans often disables this crate's warnings too.
        diagnostic::tell_or_print(message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is looked at: nothing, openers, or any span.
    fn looks(check: &Check<ANY>) -> &'static str {
        match (check.looks_at(true), check.looks_at(false)) {
            (false, _) => "nothing",
            (true, false) => "opener",
            (true, true) => "any",
        }
    }

    #[test]
    fn any_span_is_looked_at_until_one_has_our_tracer_and_then_openers() {
        let check = Check::<ANY>::default();
        check.opener_created();
        assert_eq!((check.is_due(), looks(&check)), (true, "any"));
        check.tracer_is_ours();
        assert_eq!((check.is_due(), looks(&check)), (false, "nothing"));
        check.opener_created();
        assert_eq!((check.is_due(), looks(&check)), (true, "opener"));
        // The tracer proves nothing about openers.
        check.tracer_is_ours();
        assert_eq!(looks(&check), "opener");
        check.done(None);
        for change in [Check::opener_created, Check::tracer_is_ours, Check::missed] {
            change(&check);
            assert_eq!((check.is_due(), looks(&check)), (false, "nothing"));
        }
    }

    #[test]
    fn hidden_spans_prove_nothing_and_are_not_looked_at_for_ever() {
        let check = Check::<ANY>::default();
        let count = |check: &Check<ANY>| {
            let looks = (0..).take_while(|_| {
                let is_due = check.is_due() && check.looks_at(true);
                check.missed();
                is_due
            });
            looks.count()
        };
        assert_eq!(count(&check), usize::from(ANY - OPENERS));
        check.opener_created();
        assert_eq!(count(&check), 8);
        check.opener_created();
        assert!(!check.is_due());
    }

    #[test]
    fn where_nothing_is_inside_it_stays_so() {
        let check = Check::<ANY>::default();
        check.set_alone();
        for change in [Check::opener_created, Check::tracer_is_ours, Check::missed] {
            change(&check);
            assert!(check.is_alone() && check.is_due());
        }
    }

    #[test]
    fn looks_beside_are_over_after_eight_that_found_nothing() {
        let beside = Check::<BESIDE>::default();
        for _ in 0..8 {
            assert!(beside.is_due());
            beside.missed();
        }
        for _ in 0..2 {
            assert!(!beside.is_due());
            beside.missed();
        }
    }

    #[test]
    fn activation_that_is_off_stays_so_after_the_check() {
        let check = Check::<ANY>::default();
        assert!(check.is_activation_on());
        check.done(Some(diagnostic::NO_ACTIVATION));
        for change in [Check::opener_created, Check::tracer_is_ours, Check::missed] {
            change(&check);
        }
        check.done(None);
        assert!(!check.is_activation_on() && !check.is_due());
    }
}
