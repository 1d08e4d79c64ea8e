//! Whether anybody hears what is said outside the callbacks of a layer: by `session!`, `user!`, and
//! the turns of a conversation.

use crate::diagnostic::{self, Message, NO_LAYER, SPAN_FILTERED, TURN_FILTERED};
use crate::layer::opening::Shared;
use std::sync::atomic::{AtomicBool, Ordering};
use tracing::{Dispatch, Span, dispatcher};

/// There is a `SessionLayer` on a subscriber.
static LAYER: AtomicBool = AtomicBool::new(false);
/// Somebody has begun to set this crate up: there is something else of it that is of no use to a library.
static SET_UP: AtomicBool = AtomicBool::new(false);

pub(crate) fn layer_is_there() {
    LAYER.store(true, Ordering::Relaxed);
}

pub(crate) fn set_up_begins() {
    SET_UP.store(true, Ordering::Relaxed);
}

#[inline]
pub(crate) fn is_layer_there() -> bool {
    LAYER.load(Ordering::Relaxed)
}

/// The span of a macro is disabled, or there is no layer that knows it.
#[cold]
pub(crate) fn not_heard(span: &Span) {
    static FILTERED: AtomicBool = AtomicBool::new(false);
    static NO_LAYER_SAID: AtomicBool = AtomicBool::new(false);
    if span.is_disabled() {
        tell_of_filter(&FILTERED, &SPAN_FILTERED);
    } else if SET_UP.load(Ordering::Relaxed) && !NO_LAYER_SAID.swap(true, Ordering::Relaxed) {
        diagnostic::tell(&NO_LAYER);
    }
}

/// The span of a turn is disabled.
pub(crate) fn turn_not_heard() {
    static SAID: AtomicBool = AtomicBool::new(false);
    tell_of_filter(&SAID, &TURN_FILTERED);
}

/// Once. Where there is no layer of ours, nobody expects a span.
fn tell_of_filter(said: &AtomicBool, message: &Message) {
    let is_ours = |dispatch: &Dispatch| dispatch.downcast_ref::<Shared>().is_some();
    if !said.load(Ordering::Relaxed)
        && dispatcher::get_default(is_ours)
        && !said.swap(true, Ordering::Relaxed)
    {
        // A filter that disables such spans is often one that lets no warning of ours pass either.
        diagnostic::tell_or_print(message);
    }
}
