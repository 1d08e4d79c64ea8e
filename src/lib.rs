// For docs.rs, which has no files beside the page. Of two definitions of a link the first one holds.
#![doc = "
[picture]: https://docs.rs/crate/tracing-session/latest/source/docs/phoenix-sessions.png
[existing_code]: https://docs.rs/crate/tracing-session/latest/source/examples/existing_code.rs
[logs]: https://docs.rs/crate/tracing-session/latest/source/examples/logs.rs
[sampling]: https://docs.rs/crate/tracing-session/latest/source/docs/sampling.md
[scaling]: https://docs.rs/crate/tracing-session/latest/source/docs/scaling.md
[reliability]: https://docs.rs/crate/tracing-session/latest/source/docs/reliability.md
[benches]: https://docs.rs/crate/tracing-session/latest/source/benches/README.md
[mit]: https://docs.rs/crate/tracing-session/latest/source/LICENSE-MIT
[apache]: https://docs.rs/crate/tracing-session/latest/source/LICENSE-APACHE
[security]: https://docs.rs/crate/tracing-session/latest/source/SECURITY.md
[guide]: crate::guide
[troubleshooting]: crate::guide::troubleshooting
"]
// Some of its examples need features, and have to stand there as they are to be copied.
#![cfg_attr(
    any(
        all(
            feature = "fmt",
            feature = "hash",
            feature = "logs",
            feature = "otlp",
            feature = "sampler"
        ),
        not(doctest)
    ),
    doc = include_str!("../README.md")
)]
//!
//! # How it works
//!
//! OpenTelemetry's `Context` is the carrier: child spans, spans made without `tracing` and samplers
//! read it anyway.
//!
//! 1. [`SessionLayer`] watches `tracing` for spans that say a session or user. For such a span it
//!    attaches a `Context` with the new scope while the OpenTelemetry layer makes the span. What is
//!    below inherits the scope with the `Context`, and costs nothing.
//! 2. [`SessionTracerProvider`] wraps the provider. Its spans look up the scope of their parent's
//!    `Context` when they start, and write its values when they end: once for each key.
//!
//! Sampling, log records and conversations stand on the same two: a sampler and a log processor read the
//! scope from the `Context`, and the span of a turn is made in one.
//!
//! Where a span's `Context` could not be given the scope, because its parent was set from outside or
//! because the scope came after the span had started, the scope is found by the span's id instead.
//! In the first case it is attached when the span is entered, so that those below inherit as ever.
//!
//! # In libraries, in applications
//!
//! A library says sessions ([`Session`], [`session!`], [`user!`]) and leaves the set-up to the
//! application. Without a subscriber nothing breaks, and [`Session`] values still scope: a plain
//! OpenTelemetry span carries them, and [`current_session`] answers.

#![cfg_attr(docsrs, feature(doc_cfg))]
#![doc(test(attr(deny(warnings), allow(dead_code, unused_variables))))]

mod around;
mod attach;
mod attributes;
mod b3;
mod baggage;
mod carrier;
mod check;
#[cfg(feature = "sampler")]
mod consistent;
mod conversation;
mod conversation_state;
mod current;
mod details;
mod diagnostic;
mod dialect;
mod env;
mod error;
#[cfg(any(feature = "fmt", feature = "logs"))]
mod events;
mod fields;
mod filtered;
#[cfg(feature = "fmt")]
#[cfg_attr(docsrs, doc(cfg(feature = "fmt")))]
pub mod fmt;
mod format;
mod given;
pub mod guide;
mod handover;
mod heard;
mod held;
mod here;
#[cfg(any(feature = "reqwest", feature = "tower"))]
mod hosts;
mod in_force;
mod inbound;
mod inherited;
mod jaeger;
mod known;
mod layer;
mod lifecycle;
mod link;
#[cfg(feature = "logs")]
mod logs;
mod looks;
mod macros;
mod metadata;
pub mod openinference;
mod opening;
#[cfg(feature = "otlp")]
#[cfg_attr(docsrs, doc(cfg(feature = "otlp")))]
pub mod otlp;
mod privacy;
mod processor;
mod propagator;
mod received;
mod recorded;
#[cfg(feature = "reqwest")]
#[cfg_attr(docsrs, doc(cfg(feature = "reqwest")))]
pub mod reqwest;
#[cfg(feature = "sampler")]
mod sampler;
mod scope;
mod session;
mod shards;
mod span;
mod sync;
mod text;
#[cfg(feature = "tower")]
#[cfg_attr(docsrs, doc(cfg(feature = "tower")))]
pub mod tower;
mod tracer;
mod tracking;
mod turn;
mod watched;

pub use around::AroundLayer;
pub use attach::{InSession, SessionGuard, WithSession};
pub use carrier::{
    Carrier, PropagatedContext, TraceHeaders, WithPropagated, extract_context, extract_session_id,
    inject_context, propagated_context,
};
pub use conversation::Conversation;
pub use conversation_state::ConversationState;
pub use current::{
    current_session, current_session_id, mark_trace, new_session, set_session_id, set_user_id,
};
pub use details::Part;
pub use dialect::Dialect;
pub use env::propagator_from_env;
pub use error::Error;
pub use filtered::FilteredSessionLayer;
pub use inbound::InboundPolicy;
pub use layer::SessionLayer;
pub use link::{link_context, parent_context};
#[cfg(feature = "logs")]
#[cfg_attr(docsrs, doc(cfg(feature = "logs")))]
pub use logs::SessionLogProcessor;
pub use opening::SpanSession;
pub use privacy::{IdPolicy, Privacy};
pub use processor::SessionSpanProcessor;
pub use propagator::{SESSION_HEADER_NAME, SessionPropagator};
#[cfg(feature = "sampler")]
#[cfg_attr(docsrs, doc(cfg(feature = "sampler")))]
pub use sampler::SessionSampler;
pub use session::Session;
pub use span::SessionSpan;
pub use tracer::{SessionTracer, SessionTracerProvider};
pub use turn::{Turn, TurnSpan};

#[doc(hidden)]
pub use macros::__private;
