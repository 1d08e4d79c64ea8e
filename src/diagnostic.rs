//! What is said, once, to somebody who got something wrong. Never the value of an id.
//!
//! Most mistakes are found where nothing may be said: while a span is being made, when the
//! per-layer filters are in the middle of their decision, or under the lock of a span. So what is
//! to be said waits, on its thread, for the next callback in which the layer may speak: see
//! [`say`].

pub(crate) mod setup;

use crate::error::{Error, ErrorKind};
use crate::session::keys::TAGS_FIELD;
use crate::sync::Mutex;
use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;
use std::hash::Hash;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LazyLock, PoisonError};
use tracing::callsite::{Callsite, Identifier};
use tracing::field::{FieldSet, Value};
use tracing::metadata::Kind;
use tracing::subscriber::Interest;
use tracing::{Dispatch, Event, Level, Metadata, dispatcher};

/// What is said. Made in this file alone, which the table of `guide/troubleshooting.md` is compared with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Message(Cow<'static, str>);

pub(crate) const NO_PROVIDER: Message = text(
    "spans are not marked: the OpenTelemetry layer's tracer does not come from a \
     SessionTracerProvider (use SessionTracerProvider::new(provider).tracer(\"..\"))",
);
pub(crate) const NO_LAYER: Message = text(
    "what session! and user! say is not heard: the subscriber has no SessionLayer (use \
     SessionLayer::new().around(otel_layer))",
);
pub(crate) const BESIDE: Message = text(
    "spans are not marked: the SessionLayer stands beside the OpenTelemetry layer, not around it \
     (use SessionLayer::new().around(otel_layer) in place of both)",
);
pub(crate) const TWO_LAYERS: Message = text(
    "there are two SessionLayers on the subscriber (keep the one that is around the OpenTelemetry \
     layer, and no other)",
);
pub(crate) const NO_ACTIVATION: Message = text(
    "the OpenTelemetry layer was made with with_context_activation(false): Session values and \
     current_session() do not reach into its spans (leave context activation on)",
);
pub(crate) const SPAN_FILTERED: Message = text(
    "what session! or user! says is not in force, as a filter disables its span (let the span pass, \
     or say it with a Session, which needs no span)",
);
pub(crate) const TURN_FILTERED: Message = text(
    "the turns of a Conversation are not traced, as a filter disables their spans \
     (let the target tracing_session pass at the level INFO, or give Conversation::turn a closure that \
     makes a span of your own)",
);
pub(crate) const NO_PROPAGATOR: Message = text(
    "no propagator is set, so nothing goes into headers or comes out of them \
     (use opentelemetry::global::set_text_map_propagator(propagator_from_env()?))",
);
pub(crate) const GUARD_DROPPED: Message = text(
    "no span is exported, as the guard of the set-up was dropped before the first one \
     (keep it until the end of main: `let _telemetry = ..`, as `let _ = ..` drops it at once)",
);

#[cfg(feature = "sampler")]
pub(crate) const KEEPS_PANICKED: Message = text(
    "the function given to SessionSampler::always_keep panicked, so it kept nothing: the \
     session is decided on as any other",
);

const fn text(text: &'static str) -> Message {
    Message(Cow::Borrowed(text))
}

fn made(text: String) -> Message {
    Message(Cow::Owned(text))
}

/// A field of a span that opens a scope holds no id, or no tags.
pub(crate) fn field_ignored(span: &Metadata<'_>, field: &str, error: ErrorKind) {
    let noun = if field == TAGS_FIELD { "tag" } else { "id" };
    let error = Error::of(noun, error);
    let (file, line) = (span.file().unwrap_or("?"), span.line().unwrap_or(0));
    let name = span.name();
    wait(made(format!(
        "field `{field}` of span `{name}` at {file}:{line} is ignored: {error}"
    )));
}

/// A span that is an opener only by the default name is in a session that was set explicitly.
pub(crate) fn implicit_opener_ignored(span: &Metadata<'_>) {
    let (file, line) = (span.file().unwrap_or("?"), span.line().unwrap_or(0));
    let name = span.name();
    wait(made(format!(
        "the field `id` of span `{name}` at {file}:{line} is ignored, because the span inherits a session \
         that was set explicitly, and the default name `{name}` never replaces such a session (to let these \
         spans set the session, use SessionLayer::new().with_session_span(\"{name}\"))"
    )));
}

/// An attribute that an author set on a span, by OpenTelemetry's API, holds no id.
pub(crate) fn own_attribute_ignored(key: &'static str, error: ErrorKind) {
    static SAID: LazyLock<Once<(&str, ErrorKind)>> = LazyLock::new(Once::default);
    if SAID.first((key, error)) {
        wait(made(format!(
            "an attribute `{key}` set on a span is ignored: {error}"
        )));
    }
}

/// An id is recorded or set on a span that has started with another one.
pub(crate) fn id_kept(span: &'static Metadata<'static>, key: &'static str) {
    static REPORTED: LazyLock<Once<(Identifier, &str)>> = LazyLock::new(Once::default);
    if REPORTED.first((span.callsite(), key)) {
        let (file, line) = (span.file().unwrap_or("?"), span.line().unwrap_or(0));
        let name = span.name();
        wait(made(format!(
            "span `{name}` at {file}:{line} has started with another `{key}` and is exported with that one: \
             the new one reaches the spans below only (declare the field Empty, and record it once, instead \
             of starting with a placeholder)"
        )));
    }
}

/// What came in with a header is no id, or not the only one.
pub(crate) fn header_ignored(header: &str, what: &str, error: ErrorKind) -> Message {
    made(format!(
        "header `{header}` brings {what} that is ignored: {error}"
    ))
}

pub(crate) fn header_too_small(header: &str) -> Message {
    made(format!(
        "header `{header}` does not hold all of the baggage: left out is what is over 64 members or \
         8192 bytes"
    ))
}

pub(crate) fn header_not_ascii(header: &str) -> Message {
    made(format!(
        "header `{header}` cannot carry the session's id, which is not ASCII: it is not sent (use \
         with_percent_encoded_headers, or W3C baggage)"
    ))
}

#[cfg(feature = "sampler")]
pub(crate) fn not_a_ratio(ratio: f64) -> Message {
    let share = if ratio > 1.0 { "every" } else { "no" };
    made(format!(
        "the ratio {ratio} of a SessionSampler is not between 0 and 1: it keeps {share} session"
    ))
}

#[cfg(feature = "otlp")]
pub(crate) fn directive_ignored(directive: &str) -> Message {
    made(format!(
        "RUST_LOG: `{directive}` is ignored: not of the form target=level"
    ))
}

#[cfg(feature = "otlp")]
pub(crate) fn not_reached(address: &str, cause: &dyn std::error::Error) -> Message {
    made(format!("no spans reach {address}: {cause}"))
}

#[cfg(feature = "otlp")]
pub(crate) fn of_error(error: &Error) -> Message {
    use std::error::Error;
    made(match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    })
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tracing-session: {}", self.0)
    }
}

/// Remembers what was said. There are no more keys than there are places in the code.
pub(crate) struct Once<K>(Mutex<HashSet<K>>);

impl<K: Eq + Hash> Once<K> {
    pub(crate) fn first(&self, key: K) -> bool {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key)
    }
}

impl<K> Default for Once<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K> fmt::Debug for Once<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Once")
    }
}

/// Somebody got something wrong, once, somewhere. Where nobody ever does, no thread looks further.
static EVER: AtomicBool = AtomicBool::new(false);

thread_local! {
    static MESSAGES: RefCell<Vec<Message>> = const { RefCell::new(Vec::new()) };
}

/// Says `message` at the next chance on this thread.
pub(crate) fn wait(message: Message) {
    // Where nobody ever has the chance, it waits once.
    let add = |messages: &RefCell<Vec<Message>>| {
        let mut messages = messages.borrow_mut();
        if !messages.contains(&message) {
            messages.push(message);
        }
    };
    // An error means that the thread is ending: nobody will have the chance.
    if MESSAGES.try_with(add).is_ok() {
        EVER.store(true, Ordering::Relaxed);
    }
}

/// Whether something waits to be said on this thread.
#[inline]
pub(crate) fn waits() -> bool {
    EVER.load(Ordering::Relaxed) && waits_here()
}

#[cold]
fn waits_here() -> bool {
    let waits = |messages: &RefCell<Vec<Message>>| !messages.borrow().is_empty();
    MESSAGES.try_with(waits).unwrap_or(false)
}

/// Says what waits on this thread. To be called in callbacks about spans that are there already,
/// with no lock held.
///
/// `tracing`'s macros find no subscriber inside a callback, so the event is made by hand.
pub(crate) fn say(dispatch: &Dispatch) {
    let Ok(messages) = MESSAGES.try_with(RefCell::take) else {
        return;
    };
    for message in messages {
        event(dispatch, &message);
    }
}

/// Says `message` at once: outside callbacks. False where there is nobody to hear it.
pub(crate) fn tell(message: &Message) -> bool {
    dispatcher::get_default(|dispatch| event(dispatch, message))
}

/// The same, on standard error where there is nobody.
pub(crate) fn tell_or_print(message: &Message) {
    if !tell(message) {
        // `eprintln!` would panic where standard error is closed.
        let _closed = writeln!(io::stderr(), "{message}");
    }
}

fn event(dispatch: &Dispatch, message: &Message) -> bool {
    if !dispatch.enabled(&METADATA) {
        return false;
    }
    let message = message.to_string();
    let Some(field) = METADATA.fields().field("message") else {
        return false;
    };
    let values = [(&field, Some(&message as &dyn Value))];
    dispatch.event(&Event::new(
        &METADATA,
        &METADATA.fields().value_set(&values),
    ));
    true
}

struct Warning;

static WARNING: Warning = Warning;

static METADATA: Metadata<'static> = Metadata::new(
    "diagnostic",
    "tracing_session",
    Level::WARN,
    None,
    None,
    Some("tracing_session"),
    FieldSet::new(&["message"], Identifier(&WARNING)),
    Kind::EVENT,
);

/// Never registered: it is asked for by hand, a few times in the life of a program.
impl Callsite for Warning {
    fn set_interest(&self, _: Interest) {}

    fn metadata(&self) -> &Metadata<'_> {
        &METADATA
    }
}

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
    fn mistakes_are_said_once_after_a_panic_under_the_lock() {
        let once = Once::default();
        assert!(once.first(Key(1)));
        assert!(catch_unwind(|| once.first(Key(0))).is_err());
        assert!(!once.first(Key(1)));
        assert!(once.first(Key(2)));
    }
}
