//! Warnings about mistakes in the setup or in values, each emitted once. None contains an id.
//!
//! Most mistakes are found where no event may be emitted: inside `on_new_span`, where the per-layer filters are in the
//! middle of a decision, or under a span's lock. There [`defer`] the message. The layer calls [`flush`] in its next
//! callback that may emit events. Outside callbacks, [`emit`] the message at once.

use crate::base::error::{Error, ErrorKind};
use crate::base::sync::Mutex;
use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashSet;
use std::hash::Hash;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LazyLock, PoisonError};
use tracing::callsite::{DefaultCallsite, Identifier};
use tracing::field::{FieldSet, Value};
use tracing::metadata::Kind;
use tracing::{Dispatch, Event, Level, Metadata, dispatcher};

/// The text of a warning. This file makes all of them: `tests/troubleshooting.rs` compares its literals with the
/// tables of the guide.
pub(crate) type Message = Cow<'static, str>;

pub(crate) const NO_PROVIDER: Message = Cow::Borrowed(
    "spans are not marked: the OpenTelemetry layer's tracer does not come from a \
     SessionTracerProvider (use SessionTracerProvider::new(provider).tracer(\"..\"))",
);
pub(crate) const NO_LAYER: Message = Cow::Borrowed(
    "what session! and user! say is not heard: the subscriber has no SessionLayer (use \
     SessionLayer::new().wrap(otel_layer))",
);
pub(crate) const BESIDE: Message = Cow::Borrowed(
    "spans are not marked: the SessionLayer stands beside the OpenTelemetry layer, not around it \
     (use SessionLayer::new().wrap(otel_layer) in place of both)",
);
pub(crate) const TWO_LAYERS: Message = Cow::Borrowed(
    "there are two SessionLayers on the subscriber (keep the one that is around the OpenTelemetry \
     layer, and no other)",
);
pub(crate) const NO_ACTIVATION: Message = Cow::Borrowed(
    "the OpenTelemetry layer was made with with_context_activation(false): Session values and \
     current_session() do not reach into its spans (leave context activation on)",
);
pub(crate) const SPAN_FILTERED: Message = Cow::Borrowed(
    "what session! or user! says is not in force, as a filter disables its span (let the span pass, \
     or say it with a Session, which needs no span)",
);
pub(crate) const TURN_FILTERED: Message = Cow::Borrowed(
    "the turns of a Conversation are not traced, as a filter disables their spans \
     (let the target tracing_session pass at the level INFO, or give Conversation::turn a closure that \
     makes a span of your own)",
);
pub(crate) const NO_PROPAGATOR: Message = Cow::Borrowed(
    "no propagator is set, so nothing goes into headers or comes out of them \
     (use opentelemetry::global::set_text_map_propagator(propagator_from_env()?))",
);
pub(crate) const BAGGAGE_TOO_LARGE: Message = Cow::Borrowed(
    "header `baggage` does not hold all of the baggage: left out is what is over 64 members or \
     8192 bytes",
);
pub(crate) const GUARD_DROPPED: Message = Cow::Borrowed(
    "no span is exported, as the guard of the set-up was dropped before the first one \
     (keep it until the end of main: `let _telemetry = ..`, as `let _ = ..` drops it at once)",
);
/// A function that was given to a method of `SessionSampler` panicked.
#[cfg(feature = "sampler")]
pub(crate) fn choice_panicked(method: &str) -> Message {
    let message = format!(
        "the function given to SessionSampler::{method} panicked, so the session is decided on as \
         any other"
    );
    message.into()
}

/// The file and line of a span's callsite.
fn location(span: &Metadata<'_>) -> String {
    let (file, line) = (span.file().unwrap_or("?"), span.line().unwrap_or(0));
    format!("{file}:{line}")
}

/// A field of an opener contains no valid id, or no valid tags.
pub(crate) fn field_ignored(span: &Metadata<'_>, field: &str, error: ErrorKind) {
    let noun = if field == "tags" { "tag" } else { "id" };
    let (name, at, error) = (span.name(), location(span), Error::of(noun, error));
    defer(format!(
        "field `{field}` of span `{name}` at {at} is ignored: {error}"
    ));
}

/// An id was recorded with `?`, and contains the name of the value's type.
pub(crate) fn field_names_type(span: &Metadata<'_>, field: &str) {
    let (name, at) = (span.name(), location(span));
    defer(format!(
        "field `{field}` of span `{name}` at {at} contains the name of a type, because it was recorded with `?`: the \
         id is used as written (use `%`, which writes the value with Display)"
    ));
}

/// Values of a session are dropped, because there are too many. Called under locks, so it takes none.
pub(crate) fn too_many_details() {
    static IS_REPORTED: AtomicBool = AtomicBool::new(false);
    if !IS_REPORTED.swap(true, Ordering::Relaxed) {
        defer(
            "a session has more than 128 tags, metadata keys or attributes, so the further ones are dropped (set a \
             value that changes under one key, or record it on the span that it is about)",
        );
    }
}

/// A span that is an opener only by the default name inherits a session that was set explicitly.
pub(crate) fn implicit_opener_ignored(span: &Metadata<'_>) {
    let (name, at) = (span.name(), location(span));
    defer(format!(
        "the field `id` of span `{name}` at {at} is ignored, because the span inherits a session \
         that was set explicitly, and the default name `{name}` never replaces such a session (to let these \
         spans set the session, use SessionLayer::new().with_session_span(\"{name}\"))"
    ));
}

/// A future of another process's trace adopts a span that was created before, in a trace of its own.
pub(crate) fn span_before_its_trace(span: &'static Metadata<'static>) {
    if is_first(&REPORTED, Mistake::EarlySpan(span.callsite(), "trace")) {
        let (name, at) = (span.name(), location(span));
        defer(format!(
            "span `{name}` at {at} was created before the trace in the headers was known, so it is in the session of the \
             caller, and not in the trace (create the span inside the future that runs `with_propagated`)"
        ));
    }
}

/// A span that a future has adopted is entered outside of every session.
pub(crate) fn adopted_span_outside(span: &'static Metadata<'static>) {
    if is_first(&REPORTED, Mistake::EarlySpan(span.callsite(), "task")) {
        let (name, at) = (span.name(), location(span));
        defer(format!(
            "span `{name}` at {at} was created before its session was attached, and is entered outside the session now: \
             spans inside are in no session (create the span in the session, or attach the session to the other task \
             too, with `in_session`)"
        ));
    }
}

/// An attribute that an author set with OpenTelemetry's API contains no valid id.
pub(crate) fn own_attribute_ignored(key: &'static str, error: ErrorKind) {
    if is_first(&REPORTED, Mistake::OwnAttribute(key, error)) {
        let error = Error::from(error);
        defer(format!(
            "an attribute `{key}` set on a span is ignored: {error}"
        ));
    }
}

/// An id is recorded or set on a span that has started with another one.
pub(crate) fn id_kept(span: &'static Metadata<'static>, key: &'static str) {
    if is_first(&REPORTED, Mistake::KeptId(span.callsite(), key)) {
        let (name, at) = (span.name(), location(span));
        defer(format!(
            "span `{name}` at {at} has started with another `{key}` and is exported with that one: \
             the new one reaches the spans below only (declare the field Empty, and record it once, instead \
             of starting with a placeholder)"
        ));
    }
}

/// A header contains no valid id, or several that differ.
pub(crate) fn header_ignored(header: &str, what: &str, error: ErrorKind) -> Message {
    let error = Error::from(error);
    format!("header `{header}` brings {what} that is ignored: {error}").into()
}

pub(crate) fn header_not_ascii(header: &str) -> Message {
    format!(
        "header `{header}` cannot carry the session's id, which is not ASCII: it is not sent (use \
         with_percent_encoded_headers, or W3C baggage)"
    )
    .into()
}

#[cfg(feature = "sampler")]
pub(crate) fn not_a_ratio(ratio: f64) -> Message {
    let share = if ratio > 1.0 { "every" } else { "no" };
    format!(
        "the ratio {ratio} of a SessionSampler is not between 0 and 1: it keeps {share} session"
    )
    .into()
}

#[cfg(feature = "otlp")]
pub(crate) fn directive_ignored(directive: &str) -> Message {
    format!("RUST_LOG: `{directive}` is ignored: not of the form target=level").into()
}

#[cfg(feature = "otlp")]
pub(crate) fn not_reached(address: &str, cause: &dyn std::error::Error) -> Message {
    format!("no spans reach {address}: {cause}").into()
}

/// The keys of the mistakes that were reported, at most [`MOST_REPORTED`].
pub(crate) type Once<K> = Mutex<HashSet<K>>;

/// The most mistakes that are reported once, of a layer or of the process, and the most messages that a thread defers.
/// Further mistakes are not reported. Callsites and the configuration bound their number, and an application could
/// configure new names again and again.
const MOST_REPORTED: usize = 1_000;

/// A mistake that is reported once per process.
#[derive(PartialEq, Eq, Hash)]
enum Mistake {
    OwnAttribute(&'static str, ErrorKind),
    KeptId(Identifier, &'static str),
    EarlySpan(Identifier, &'static str),
    Message(Message),
}

/// The mistakes that were reported once per process. The functions of this file add to it and read it. Empty until the
/// first one.
static REPORTED: LazyLock<Once<Mistake>> = LazyLock::new(Once::default);

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
        dispatch_event(dispatch, &message);
    }
}

/// Emits `message` at once: outside callbacks. False if no subscriber takes it.
pub(crate) fn emit(message: &Message) -> bool {
    dispatcher::get_default(|dispatch| dispatch_event(dispatch, message))
}

/// The same, to standard error if no subscriber takes it.
pub(crate) fn emit_or_print(message: &Message) {
    if !emit(message) {
        print(message);
    }
}

/// Writes a line to standard error.
pub(crate) fn print(line: &str) {
    // `eprintln!` would panic if standard error is closed.
    let _closed = writeln!(io::stderr(), "tracing-session: {line}");
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

/// Inside a callback `tracing`'s macros find no subscriber, so this makes the event by hand.
fn dispatch_event(dispatch: &Dispatch, message: &Message) -> bool {
    let fields = METADATA.fields();
    let field = fields.field("message");
    let Some(field) = field.filter(|_| dispatch.enabled(&METADATA)) else {
        return false;
    };
    let message = format!("tracing-session: {message}");
    let values = [(&field, Some(&message as &dyn Value))];
    dispatch.event(&Event::new(&METADATA, &fields.value_set(&values)));
    true
}

/// Identifies the event. Never registered: [`dispatch_event`] asks `enabled` each time, a few times per process.
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
