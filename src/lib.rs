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

mod attach;
mod conversation;
mod current;
mod diagnostic;
mod error;
#[cfg(feature = "fmt")]
#[cfg_attr(docsrs, doc(cfg(feature = "fmt")))]
pub mod fmt;
mod format;
pub mod guide;
mod handover;
mod here;
mod known;
mod layer;
#[cfg(feature = "logs")]
mod logs;
mod macros;
pub mod openinference;
#[cfg(feature = "otlp")]
#[cfg_attr(docsrs, doc(cfg(feature = "otlp")))]
pub mod otlp;
mod processor;
mod propagation;
#[cfg(feature = "reqwest")]
#[cfg_attr(docsrs, doc(cfg(feature = "reqwest")))]
pub mod reqwest;
#[cfg(feature = "sampler")]
mod sampler;
mod scope;
mod session;
mod shards;
mod sync;
#[cfg(feature = "tower")]
#[cfg_attr(docsrs, doc(cfg(feature = "tower")))]
pub mod tower;
mod tracer;

pub use attach::{InSession, SessionGuard, WithSession};
pub use conversation::Conversation;
pub use conversation::link::{link_context, parent_context};
pub use conversation::state::ConversationState;
pub use conversation::turn::{Turn, TurnSpan};
pub use current::{
    current_session, current_session_id, mark_trace, new_session, set_session_id, set_user_id,
};
pub use error::Error;
pub use format::dialect::Dialect;
pub use format::exporter::SessionExporter;
pub use format::privacy::{IdPolicy, Privacy};
pub use layer::SessionLayer;
pub use layer::around::AroundLayer;
pub use layer::filtered::FilteredSessionLayer;
pub use layer::opening::SpanSession;
#[cfg(feature = "logs")]
#[cfg_attr(docsrs, doc(cfg(feature = "logs")))]
pub use logs::SessionLogProcessor;
pub use processor::SessionSpanProcessor;
pub use propagation::carrier::{Carrier, TraceHeaders};
pub use propagation::env::propagator_from_env;
pub use propagation::inbound::InboundPolicy;
pub use propagation::propagated::{
    PropagatedContext, WithPropagated, extract_context, extract_session_id, inject_context,
    propagated_context,
};
pub use propagation::propagator::{SESSION_HEADER_NAME, SessionPropagator};
#[cfg(feature = "sampler")]
#[cfg_attr(docsrs, doc(cfg(feature = "sampler")))]
pub use sampler::SessionSampler;
pub use session::Session;
pub use session::details::Part;
pub use tracer::span::SessionSpan;
pub use tracer::{SessionTracer, SessionTracerProvider};

#[doc(hidden)]
pub use macros::__private;
