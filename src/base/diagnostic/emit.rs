//! How a warning reaches the developer: as an event of `tracing`, and otherwise on standard error. Each is emitted once.
//!
//! Most mistakes are found where no event may be emitted: inside `on_new_span`, where the per-layer filters are in the
//! middle of a decision, or under a span's lock. There [`defer`] the message. The layer calls [`flush`] in its next
//! callback that may emit events. Outside callbacks, [`emit`] the message at once.
//!
//! A filter such as `RUST_LOG=my_app=debug` hides our target, and then nothing would report a mistake in the setup. So a
//! message [about the setup](Message::of_setup) is written to standard error if no layer has formatted its event.

use crate::base::error::{ErrorKind, variable};
use crate::base::sync::Mutex;
use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::fmt;
use std::hash::Hash;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LazyLock, PoisonError};
use tracing::callsite::{DefaultCallsite, Identifier};
use tracing::field::{self, FieldSet, Value};
use tracing::metadata::Kind;
use tracing::{Dispatch, Event, Level, Metadata, dispatcher};

/// The text of a warning.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Message {
    text: Cow<'static, str>,
    is_about_setup: bool,
}

impl Message {
    /// A mistake in a value: an event only.
    pub(crate) const fn of_value(text: &'static str) -> Self {
        Self {
            text: Cow::Borrowed(text),
            is_about_setup: false,
        }
    }

    /// A mistake in the setup: written to standard error if no layer shows it.
    pub(crate) const fn of_setup(text: &'static str) -> Self {
        Self::of_value(text).about_setup()
    }

    pub(crate) const fn about_setup(mut self) -> Self {
        self.is_about_setup = true;
        self
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A mistake in a value.
impl From<String> for Message {
    fn from(text: String) -> Self {
        Self {
            text: text.into(),
            is_about_setup: false,
        }
    }
}

/// The keys of the mistakes that were reported, at most [`MOST_REPORTED`].
pub(crate) type Once<K> = Mutex<HashSet<K>>;

/// The most mistakes that are reported once, of a layer or of the process, and the most messages that a thread defers.
/// Further mistakes are not reported. Callsites and the configuration bound their number, and an application could
/// configure new names again and again.
const MOST_REPORTED: usize = 1_000;

/// A mistake that is reported once per process.
#[derive(PartialEq, Eq, Hash)]
pub(crate) enum Mistake {
    OwnAttribute(&'static str, ErrorKind),
    KeptId(Identifier, &'static str),
    EarlySpan(Identifier, &'static str),
    OverLimit(&'static str),
    Message(Message),
    /// It was written to standard error.
    Printed(Message),
}

/// The mistakes that were reported once per process. The functions of this file and of `diagnostic.rs` add to it. Empty
/// until the first one.
pub(crate) static REPORTED: LazyLock<Once<Mistake>> = LazyLock::new(Once::default);

/// Whether this mistake is reported for the first time. It counts as reported afterwards.
pub(crate) fn is_first<K: Eq + Hash>(reported: &Once<K>, key: K) -> bool {
    let mut reported = reported.lock().unwrap_or_else(PoisonError::into_inner);
    reported.len() < MOST_REPORTED && reported.insert(key)
}

/// Whether a thread has deferred a message in this process. [`defer`] sets it, and [`has_deferred`] reads it in hot callbacks,
/// so that a process without mistakes doesn't touch the thread-local.
static ANY_DEFERRED: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// This thread's deferred messages. [`defer`] adds to them, [`flush`] empties them.
    static DEFERRED: RefCell<Vec<Message>> = const { RefCell::new(Vec::new()) };
}

/// Keeps `message` until this thread's next [`flush`].
pub(crate) fn defer(message: impl Into<Message>) {
    let message = message.into();
    let add = |deferred: &RefCell<Vec<Message>>| {
        let mut deferred = deferred.borrow_mut();
        // Without a layer no code flushes, so repeated messages would pile up.
        if deferred.len() < MOST_REPORTED && !deferred.contains(&message) {
            deferred.push(message);
        }
    };
    // An error means that the thread is exiting: there is no next callback.
    if DEFERRED.try_with(add).is_ok() {
        ANY_DEFERRED.store(true, Ordering::Relaxed);
    }
}

/// Whether this thread has deferred messages.
#[inline]
pub(crate) fn has_deferred() -> bool {
    #[cold]
    fn has_thread_deferred() -> bool {
        let has_any = |deferred: &RefCell<Vec<Message>>| !deferred.borrow().is_empty();
        DEFERRED.try_with(has_any).unwrap_or(false)
    }
    ANY_DEFERRED.load(Ordering::Relaxed) && has_thread_deferred()
}

/// Emits this thread's deferred messages. Call it with no lock held, in callbacks about spans that exist already: an
/// event in `on_new_span` or `enabled` would disturb the per-layer filters.
pub(crate) fn flush(dispatch: &Dispatch) {
    // Taken first, because a subscriber that gets the event may defer the next message.
    let deferred = DEFERRED.try_with(RefCell::take).unwrap_or_default();
    for message in deferred {
        emit_to(dispatch, &message);
    }
}

/// Emits `message` at once, to the current subscriber: outside callbacks.
pub(crate) fn emit(message: &Message) {
    dispatcher::get_default(|dispatch| emit_to(dispatch, message));
}

/// Defers `message` unless it was deferred or emitted once before.
#[cfg(feature = "sampler")]
pub(crate) fn defer_once(message: Message) {
    if is_first(&REPORTED, Mistake::Message(message.clone())) {
        defer(message);
    }
}

/// Emits `message` unless it was emitted with this function before.
pub(crate) fn emit_once(message: Message) {
    if is_first(&REPORTED, Mistake::Message(message.clone())) {
        emit(&message);
    }
}

/// Whether warnings are turned off, as terminal user interfaces do.
pub(crate) fn is_off() -> bool {
    static IS_OFF: LazyLock<bool> = LazyLock::new(|| {
        let value = variable("TRACING_SESSION_DIAGNOSTICS").ok().flatten();
        value.is_some_and(|it| it.trim().eq_ignore_ascii_case("off"))
    });
    *IS_OFF
}

/// Emits `message` at once: outside callbacks.
pub(crate) fn emit_to(dispatch: &Dispatch, message: &Message) {
    if is_off() || dispatch_event(dispatch, &message.text) || !message.is_about_setup {
        return;
    }
    if is_first(&REPORTED, Mistake::Printed(message.clone())) {
        print(&message.text);
    }
}

/// Writes a line to standard error.
pub(crate) fn print(line: &str) {
    let line = format!("tracing-session: {line}\n");
    // `eprintln!` would panic if standard error is closed.
    let _closed = io::stderr().write_all(line.as_bytes());
}

/// Emits an event, and returns whether a layer has shown it. Inside a callback `tracing`'s macros find no subscriber, so
/// this makes the event by hand.
fn dispatch_event(dispatch: &Dispatch, text: &str) -> bool {
    let fields = METADATA.fields();
    let field = fields.field("message");
    // Whether an event is enabled doesn't tell whether it is shown: the filter of one layer hides it from that layer only.
    let Some(field) = field.filter(|_| dispatch.enabled(&METADATA)) else {
        return false;
    };
    let text = Text {
        text,
        is_shown: Cell::new(false),
    };
    let message = field::display(&text);
    let values = [(&field, Some(&message as &dyn Value))];
    // A root event, because the OpenTelemetry layer would add any other to the current span, so it would format the text.
    // And a layer that prints the current spans would print the ids in their fields.
    dispatch.event(&Event::new_child_of(
        None,
        &METADATA,
        &fields.value_set(&values),
    ));
    text.is_shown.get()
}

/// The text of an event, which notes whether it was formatted.
struct Text<'a> {
    text: &'a str,
    is_shown: Cell<bool>,
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.is_shown.set(true);
        f.write_str(self.text)
    }
}

/// Identifies the event. Never registered: [`dispatch_event`] calls `enabled` each time, a few times per process.
static CALLSITE: DefaultCallsite = DefaultCallsite::new(&METADATA);

static METADATA: Metadata<'static> = Metadata::new(
    "diagnostic",
    "tracing_session",
    Level::WARN,
    None,
    None,
    Some("tracing_session"),
    FieldSet::new(&["message"], Identifier(&CALLSITE)),
    Kind::EVENT,
);

#[cfg(test)]
mod tests {
    use super::*;
    use std::hash::Hasher;
    use std::panic::catch_unwind;

    #[derive(PartialEq, Eq)]
    struct Key(u8);

    impl Hash for Key {
        fn hash<H: Hasher>(&self, state: &mut H) {
            assert_ne!(self.0, 0, "under the lock");
            self.0.hash(state);
        }
    }

    #[test]
    fn mistakes_are_reported_once_after_a_panic_under_the_lock() {
        let reported = Once::default();
        assert!(is_first(&reported, Key(1)));
        assert!(catch_unwind(|| is_first(&reported, Key(0))).is_err());
        assert!(!is_first(&reported, Key(1)));
        assert!(is_first(&reported, Key(2)));
    }

    #[test]
    fn reported_and_deferred_mistakes_are_bounded() {
        let reported = Once::default();
        let first = (0..10_000).filter(|it| is_first(&reported, *it)).count();
        assert_eq!(first, MOST_REPORTED);
        (0..10_000).for_each(|it| defer(format!("mistake {it}")));
        assert_eq!(DEFERRED.take().len(), MOST_REPORTED);
    }
}
