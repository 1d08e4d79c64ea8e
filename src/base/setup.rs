//! The setup check: do the layers, the tracer and the filters fit together? A layer checks the first spans that are
//! entered, with [`SetupCheck`]. `session!`, `user!` and the turns of a conversation check whether a layer receives
//! their spans.

use crate::base::diagnostic;
use crate::base::diagnostic::{GUARD_DROPPED, Message, NO_LAYER, SPAN_FILTERED, TURN_FILTERED};
use crate::base::sync::atomic::AtomicU8;
use std::sync::OnceLock;
use std::sync::atomic::{self, Ordering};
use tracing::{Dispatch, Span, dispatcher};

/// What a layer has found out about its setup by now: a state machine, which starts in [`ANY_SPAN`].
///
/// | in the state | on | the next state is |
/// | --- | --- | --- |
/// | [`ANY_SPAN`] | `tracer_is_ours`, or `TRIES` unknown spans | [`IDLE`] |
/// | [`ANY_SPAN`], before any unknown span | `guard_dropped` | [`GUARD_WAS_DROPPED`] |
/// | [`IDLE`] | `opener_created` | [`OPENERS`] |
/// | [`OPENERS`] | [`OPENER_TRIES`] unknown openers | [`DONE`] |
/// | [`NO_ACTIVATION`] or [`DONE`] | anything | the same |
/// | any other | `finish` | [`NO_ACTIVATION`] or [`DONE`] |
///
/// Only the swap in `finish` decides who reports, so two threads never report both. The counter may be too high by
/// some spans that threads check at the same time, which only ends a state earlier.
#[derive(Debug, Default)]
pub(crate) struct SetupCheck<const TRIES: u8> {
    state: AtomicU8,
    /// The spans in this state that proved nothing, because the OpenTelemetry layer doesn't know them.
    unknown_spans: AtomicU8,
}

/// Checks every span.
const ANY_SPAN: u8 = 0;
/// Checks openers.
const OPENERS: u8 = 1;
/// The telemetry guard was dropped before the first span: the next span reports it.
const GUARD_WAS_DROPPED: u8 = 2;
/// From here on the check isn't running. Spans that are no openers can prove nothing more.
const IDLE: u8 = 3;
/// Over: the setup is complete, or a diagnostic was deferred.
const DONE: u8 = 4;
/// Over: the OpenTelemetry layer doesn't activate `Context`s.
const NO_ACTIVATION: u8 = 5;

/// The tries of a layer around the OpenTelemetry layer. Behind `reload::Layer` no span ever proves anything.
pub(crate) const AROUND: u8 = 190;
/// The tries of a layer that looks for an OpenTelemetry layer beside it.
pub(crate) const BESIDE: u8 = 8;
/// An opener that is filtered out proves nothing.
const OPENER_TRIES: u8 = 8;

impl<const TRIES: u8> SetupCheck<TRIES> {
    #[inline]
    pub(crate) fn is_running(&self) -> bool {
        self.state() < IDLE
    }

    pub(crate) fn is_activation_on(&self) -> bool {
        self.state() != NO_ACTIVATION
    }

    #[cfg(feature = "otlp")]
    pub(crate) fn guard_dropped(&self) {
        if self.unknown_spans.load(Ordering::Relaxed) == 0 {
            self.advance(ANY_SPAN, GUARD_WAS_DROPPED);
        }
    }

    /// Whether to check a span that was entered.
    pub(crate) fn should_check(&self, is_opener: bool) -> bool {
        match self.state() {
            GUARD_WAS_DROPPED => {
                self.finish(Some(GUARD_DROPPED));
                false
            }
            OPENERS => is_opener,
            state => state < IDLE,
        }
    }

    pub(crate) fn opener_created(&self) {
        if self.state() == IDLE {
            self.unknown_spans.store(0, Ordering::Relaxed);
            self.advance(IDLE, OPENERS);
        }
    }

    /// A span that is no opener has our tracer and an active `Context`. It proves nothing about openers.
    pub(crate) fn tracer_is_ours(&self) {
        self.advance(ANY_SPAN, IDLE);
    }

    /// The OpenTelemetry layer doesn't know the span that was checked.
    pub(crate) fn span_is_unknown(&self) {
        let (state, tries, next) = match self.state() {
            ANY_SPAN => (ANY_SPAN, TRIES, IDLE),
            OPENERS => (OPENERS, OPENER_TRIES, DONE),
            _ => return,
        };
        if self.unknown_spans.fetch_add(1, Ordering::Relaxed) + 1 >= tries {
            self.advance(state, next);
        }
    }

    /// Ends the check, and defers the diagnostic `mistake` unless the check was over before.
    pub(crate) fn finish(&self, mistake: Option<Message>) {
        let is_inactive = mistake == Some(diagnostic::NO_ACTIVATION);
        let end = if is_inactive { NO_ACTIVATION } else { DONE };
        let if_running = |state| (state < DONE).then_some(end);
        let swapped = (self.state).fetch_update(Ordering::Relaxed, Ordering::Relaxed, if_running);
        if let (Ok(_), Some(mistake)) = (swapped, mistake) {
            diagnostic::defer(mistake);
        }
    }

    #[inline]
    fn state(&self) -> u8 {
        self.state.load(Ordering::Relaxed)
    }

    /// Another thread may have changed the state meanwhile. Then it stays as that thread left it.
    fn advance(&self, from: u8, to: u8) {
        let relaxed = Ordering::Relaxed;
        let _changed_meanwhile = self.state.compare_exchange(from, to, relaxed, relaxed);
    }
}

/// What a layer has found out about the tracer of the layer inside.
#[derive(Debug, Default)]
pub(crate) struct FoundTracer(AtomicU8);

/// Is the tracer ours?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum TracerKind {
    /// No span has shown it yet.
    Unknown,
    Ours,
    /// The set-up is incomplete, or it has a `SessionSpanProcessor`.
    Foreign,
    /// The layer inside is `None`.
    NoLayer,
}

impl FoundTracer {
    #[inline]
    pub(crate) fn kind(&self) -> TracerKind {
        match self.0.load(Ordering::Relaxed) {
            1 => TracerKind::Ours,
            2 => TracerKind::Foreign,
            3 => TracerKind::NoLayer,
            _ => TracerKind::Unknown,
        }
    }

    #[inline]
    pub(crate) fn found(&self, kind: TracerKind) {
        if self.kind() != kind {
            self.0.store(kind as u8, Ordering::Relaxed);
        }
    }
}

/// Whether a subscriber has a `SessionLayer`. Empty until the first layer is added to a subscriber, which writes it.
/// The macros read it: that costs less than asking the subscriber.
static HAS_LAYER: OnceLock<fn(&Dispatch) -> bool> = OnceLock::new();

/// The facts about the process that the checks need: bits that are set once. Empty until the application makes a part of
/// its setup.
static FACTS: atomic::AtomicU8 = atomic::AtomicU8::new(0);

/// The application uses a part of this crate that a library doesn't use. Otherwise a missing layer is no mistake.
const HAS_SETUP: u8 = 1;
/// There is a `SessionSpanProcessor`. With it, spans carry the session without our tracer.
const HAS_PROCESSOR: u8 = 1 << 1;
/// [`NO_LAYER`], [`SPAN_FILTERED`] and [`TURN_FILTERED`] were reported.
const NO_LAYER_REPORTED: u8 = 1 << 2;
const SPAN_FILTERED_REPORTED: u8 = 1 << 3;
const TURN_FILTERED_REPORTED: u8 = 1 << 4;

#[inline]
fn has(fact: u8) -> bool {
    FACTS.load(Ordering::Relaxed) & fact != 0
}

/// Sets a fact. False if it was set before.
fn set(fact: u8) -> bool {
    FACTS.fetch_or(fact, Ordering::Relaxed) & fact == 0
}

pub(crate) fn layer_added(has_layer: fn(&Dispatch) -> bool) {
    let _is_same = HAS_LAYER.set(has_layer);
}

pub(crate) fn begin() {
    set(HAS_SETUP);
}

pub(crate) fn processor_created() {
    set(HAS_PROCESSOR | HAS_SETUP);
}

#[inline]
pub(crate) fn has_processor() -> bool {
    has(HAS_PROCESSOR)
}

/// Checks the span of a macro.
#[must_use = "the id is set only in this span: use it with `.entered()`, `.in_scope(...)` or `.instrument(...)`"]
#[inline]
pub fn checked(span: Span) -> Span {
    if span.is_disabled() || HAS_LAYER.get().is_none() {
        report_lost_span(&span);
    }
    span
}

#[cold]
fn report_lost_span(span: &Span) {
    if span.is_disabled() {
        report_filtered(SPAN_FILTERED_REPORTED, &SPAN_FILTERED);
    } else if has(HAS_SETUP) && set(NO_LAYER_REPORTED) {
        diagnostic::emit(&NO_LAYER);
    }
}

/// Checks the span of a turn.
pub(crate) fn check_turn(span: &Span) {
    if span.is_disabled() {
        report_filtered(TURN_FILTERED_REPORTED, &TURN_FILTERED);
    }
}

/// Emits `message` once, and only if the current subscriber has a `SessionLayer`.
fn report_filtered(reported: u8, message: &Message) {
    // The load comes first: with the spans filtered out, every call gets here.
    if !has(reported) && HAS_LAYER.get().is_some_and(dispatcher::get_default) && set(reported) {
        diagnostic::emit(message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Change = fn(&SetupCheck<AROUND>);

    const CHANGES: [Change; 3] = [
        SetupCheck::opener_created,
        SetupCheck::tracer_is_ours,
        SetupCheck::span_is_unknown,
    ];

    /// The spans that are checked: none, openers, or any span.
    fn checked_spans(check: &SetupCheck<AROUND>) -> &'static str {
        match (check.should_check(true), check.should_check(false)) {
            (false, _) => "none",
            (true, false) => "opener",
            (true, true) => "any",
        }
    }

    #[test]
    fn any_span_is_checked_until_one_has_our_tracer_and_then_openers() {
        let check = SetupCheck::<AROUND>::default();
        check.opener_created();
        assert_eq!((check.is_running(), checked_spans(&check)), (true, "any"));
        check.tracer_is_ours();
        assert_eq!((check.is_running(), checked_spans(&check)), (false, "none"));
        check.opener_created();
        assert_eq!(
            (check.is_running(), checked_spans(&check)),
            (true, "opener")
        );
        // The tracer proves nothing about openers.
        check.tracer_is_ours();
        assert_eq!(checked_spans(&check), "opener");
        check.finish(None);
        for change in CHANGES {
            change(&check);
            assert_eq!((check.is_running(), checked_spans(&check)), (false, "none"));
        }
    }

    #[test]
    fn spans_that_are_filtered_out_prove_nothing_and_are_not_checked_for_ever() {
        let check = SetupCheck::<AROUND>::default();
        let count = |check: &SetupCheck<AROUND>| {
            let checked = (0..).take_while(|_| {
                let is_checked = check.is_running() && check.should_check(true);
                check.span_is_unknown();
                is_checked
            });
            checked.count()
        };
        assert_eq!(count(&check), usize::from(AROUND));
        check.opener_created();
        assert_eq!(count(&check), 8);
        check.opener_created();
        assert!(!check.is_running());
    }

    #[test]
    fn check_for_a_layer_beside_ends_after_eight_spans_that_proved_nothing() {
        let beside = SetupCheck::<BESIDE>::default();
        for _ in 0..8 {
            assert!(beside.is_running());
            beside.span_is_unknown();
        }
        for _ in 0..2 {
            assert!(!beside.is_running());
            beside.span_is_unknown();
        }
    }

    #[test]
    fn activation_that_is_off_stays_so_after_the_check() {
        let check = SetupCheck::<AROUND>::default();
        assert!(check.is_activation_on());
        check.finish(Some(diagnostic::NO_ACTIVATION));
        for change in CHANGES {
            change(&check);
        }
        check.finish(None);
        assert!(!check.is_activation_on() && !check.is_running());
    }
}
