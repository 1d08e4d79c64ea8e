//! The texts of all warnings about mistakes in the setup or in values. None contains an id.
//!
//! `tests/troubleshooting.rs` compares the literals of this file with the tables of the guide. How a warning reaches the
//! developer is in `diagnostic/emit.rs`.

mod emit;

#[cfg(feature = "sampler")]
pub(crate) use emit::defer_once;
#[cfg(feature = "otlp")]
pub(crate) use emit::emit_to;
pub(crate) use emit::{
    Message, Once, defer, emit, emit_once, flush, has_deferred, is_first, is_off, print,
};

use crate::base::error::{Error, ErrorKind, RECORD_LATER};
use emit::{Mistake, REPORTED};
use std::sync::atomic::{AtomicBool, Ordering};
use tracing::Metadata;

pub(crate) const NO_PROVIDER: Message = Message::of_setup(
    "spans are exported without their session because the OpenTelemetry layer's tracer does not come from a \
     `SessionTracerProvider`: use `SessionTracerProvider::new(provider).tracer(\"..\")`",
);
pub(crate) const NO_LAYER: Message = Message::of_setup(
    "the macros `session!` and `user!` have no effect because the subscriber has no `SessionLayer`: use \
     `SessionLayer::new().wrap(otel_layer)`",
);
pub(crate) const BESIDE: Message = Message::of_setup(
    "spans are exported without their session because the `SessionLayer` is beside the OpenTelemetry layer, not \
     around it: use `SessionLayer::new().wrap(otel_layer)` in place of both",
);
pub(crate) const TWO_LAYERS: Message = Message::of_setup(
    "the subscriber has two `SessionLayer`s, and the second one reads the same spans again: keep the one around the \
     OpenTelemetry layer, and remove the other",
);
pub(crate) const NO_ACTIVATION: Message = Message::of_setup(
    "attached sessions and `current_session()` have no effect inside spans because the OpenTelemetry layer was made \
     with `with_context_activation(false)`: leave context activation on",
);
pub(crate) const SPAN_FILTERED: Message = Message::of_setup(
    "the macros `session!` and `user!` have no effect where a filter disables their span: enable the span's target \
     and level, or use a `Session` value, which needs no span",
);
pub(crate) const TURN_FILTERED: Message = Message::of_setup(
    "the turns of a `Conversation` are not exported because a filter disables their spans: enable the target \
     `tracing_session` at the level INFO, or give `Conversation::turn` a closure that creates a span of your own",
);
pub(crate) const NO_PROPAGATOR: Message = Message::of_setup(
    "headers carry no trace and no session because no propagator is set: call \
     `opentelemetry::global::set_text_map_propagator(propagator_from_env()?)`",
);
pub(crate) const GUARD_DROPPED: Message = Message::of_setup(
    "no span is exported because the telemetry guard was dropped before the first span: keep it until the end of \
     `main` with `let _telemetry = ...` (`let _ = ...` drops it at once)",
);
pub(crate) const BAGGAGE_TOO_LARGE: Message = Message::of_value(
    "header `baggage` is incomplete because baggage is limited to 64 members and 8192 bytes: put less into the \
     baggage",
);

/// A function that was passed to a method of `SessionSampler` panicked.
#[cfg(feature = "sampler")]
pub(crate) fn choice_panicked(method: &str) -> Message {
    let message = format!(
        "the function passed to `SessionSampler::{method}` panicked, which counts as false: fix the panic, and return \
         false if the function cannot tell"
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
    let later = match error {
        ErrorKind::Placeholder => RECORD_LATER,
        _ => "",
    };
    let (name, at, error) = (span.name(), location(span), Error::of(noun, error));
    defer(format!(
        "field `{field}` of span `{name}` at {at} is ignored: {error}{later}"
    ));
}

/// An id was recorded with `?`, and contains the name of the value's type.
pub(crate) fn field_names_type(span: &Metadata<'_>, field: &str) {
    let (name, at) = (span.name(), location(span));
    defer(format!(
        "field `{field}` of span `{name}` at {at} contains the name of a type because `?` records a value with \
         Debug, and the id is exported like that: use `%`, which records the value with Display"
    ));
}

/// Values of a session are dropped, because there are too many. Called under locks, so it takes none.
pub(crate) fn too_many_details() {
    static IS_REPORTED: AtomicBool = AtomicBool::new(false);
    if !IS_REPORTED.swap(true, Ordering::Relaxed) {
        defer(Message::of_value(
            "a session has more than 128 tags, metadata keys or attributes, so the last ones are dropped: use one \
             metadata key for a value that changes, or set the value as an attribute of the current span",
        ));
    }
}

/// No session was set in this process, and a span has a field that may contain one.
pub(crate) fn no_session_set(span: &Metadata<'_>, field: &str, noun: &str) -> Message {
    let (name, at) = (span.name(), location(span));
    let text = format!(
        "no session was set, but span `{name}` at {at} has a field `{field}`: if it identifies the {noun}, use \
         `SessionLayer::new().with_{noun}_field(\"{field}\")`; otherwise ignore this"
    );
    Message::from(text).about_setup()
}

/// A span that is an opener only by the default name inherits a session that was set explicitly.
pub(crate) fn implicit_opener_ignored(span: &Metadata<'_>) {
    let (name, at) = (span.name(), location(span));
    defer(format!(
        "the field `id` of span `{name}` at {at} is ignored because your code already set a session, and a \
         span named `{name}` does not replace it by default: if these spans set your session, use \
         `SessionLayer::new().with_session_span(\"{name}\")`"
    ));
}

/// A future of another process's trace adopts a span that was created before, in a trace of its own.
pub(crate) fn span_before_its_trace(span: &'static Metadata<'static>) {
    if is_first(&REPORTED, Mistake::EarlySpan(span.callsite(), "trace")) {
        let (name, at) = (span.name(), location(span));
        defer(format!(
            "span `{name}` at {at} was created before the headers were read, so it is in the caller's session, but \
             not in the caller's trace: create the span inside the future that runs `with_propagated`"
        ));
    }
}

/// A span that a future has adopted is entered outside of every session.
pub(crate) fn adopted_span_outside(span: &'static Metadata<'static>) {
    if is_first(&REPORTED, Mistake::EarlySpan(span.callsite(), "task")) {
        let (name, at) = (span.name(), location(span));
        defer(format!(
            "span `{name}` at {at} was created before its session was attached, and is entered outside the session \
             now, so its new child spans are in no session: create the span in the session, or call `in_session` \
             on the spawned task too"
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
            "span `{name}` at {at} started with another `{key}` and is exported with it, so only its descendants get \
             the new value: declare the field Empty and record it once, instead of starting with a placeholder"
        ));
    }
}

/// An id has more characters than the backend accepts under a key.
pub(crate) fn over_limit(key: &'static str, characters: usize, reaction: &str) -> Option<Message> {
    let text = || {
        format!(
            "an id in `{key}` has more than {characters} characters, so {reaction}: use shorter ids, or export hashes of \
             them with `IdPolicy::hashed`"
        )
    };
    is_first(&REPORTED, Mistake::OverLimit(key)).then(|| Message::from(text()).about_setup())
}

/// A header contains no valid id, or several that differ.
pub(crate) fn header_ignored(header: &str, what: &str, error: ErrorKind) -> Message {
    let error = Error::from(error);
    format!("header `{header}` contains {what} that is ignored: {error}").into()
}

pub(crate) fn header_not_ascii(header: &str) -> Message {
    format!(
        "header `{header}` is not sent because the session id is not ASCII: use `with_percent_encoded_headers`, or \
         W3C baggage only"
    )
    .into()
}

#[cfg(feature = "sampler")]
pub(crate) fn not_a_ratio(ratio: f64) -> Message {
    let share = if ratio > 1.0 { "every" } else { "no" };
    format!(
        "the ratio {ratio} of a `SessionSampler` is not between 0 and 1, so it keeps {share} session: write 0.1 for \
         one session in ten"
    )
    .into()
}

#[cfg(feature = "otlp")]
pub(crate) const LAYER_NOT_ADDED: Message = Message::of_setup(
    "no span was exported because the layer that `build()` returned is on no subscriber: use \
     `tracing_subscriber::registry().with(layer).init()`",
);
#[cfg(feature = "otlp")]
pub(crate) const NO_SPAN_REACHED: Message = Message::of_setup(
    "no span was exported because none reached the OpenTelemetry layer: enable the target and level of your spans in \
     the subscriber's filter (spans of `info_span!` and `#[instrument]` have the level INFO), and create a span in \
     each session",
);
#[cfg(feature = "otlp")]
pub(crate) const NOT_IN_TIME: Message = Message::of_setup(
    "the last spans may be lost because they could not be sent in time: check that the backend answers",
);

/// `RUST_LOG` enables no span of the level INFO.
#[cfg(feature = "otlp")]
pub(crate) fn levels_too_low(levels: &str) -> Message {
    let text = format!(
        "spans of the level INFO are not exported because RUST_LOG is `{levels}`, and `info_span!` and `#[instrument]` \
         create spans of this level: use `RUST_LOG=info`, or `RUST_LOG={levels},my_app=info`"
    );
    Message::from(text).about_setup()
}

#[cfg(feature = "otlp")]
pub(crate) fn directive_ignored(directive: &str) -> Message {
    let text = format!(
        "RUST_LOG: `{directive}` is ignored because it is not of the form `target=level`: use such directives, or \
         `build()` and an `EnvFilter`"
    );
    Message::from(text).about_setup()
}

#[cfg(feature = "otlp")]
pub(crate) fn not_reached(address: &str, cause: &str) -> Message {
    let text = format!(
        "no spans reach {address} ({cause}): start the backend, or set its address with OTEL_EXPORTER_OTLP_ENDPOINT or \
         `with_endpoint`"
    );
    Message::from(text).about_setup()
}

#[cfg(feature = "otlp")]
pub(crate) fn refused(address: &str, cause: &str) -> Message {
    let text = format!(
        "the backend at {address} refuses the spans ({cause}): check the path of the endpoint, and the key that \
         `with_api_key` or `with_header` sends"
    );
    Message::from(text).about_setup()
}
