// docs.rs doesn't serve files beside the page, so the README's relative links point to its source view there.
// Markdown uses the first definition of a link.
#![doc = "
[picture]: https://docs.rs/crate/tracing-session/latest/source/docs/phoenix-sessions.png
[existing_code]: https://docs.rs/crate/tracing-session/latest/source/examples/existing_code.rs
[logs]: https://docs.rs/crate/tracing-session/latest/source/examples/logs.rs
[sampling]: https://docs.rs/crate/tracing-session/latest/source/docs/sampling.md
[scaling]: https://docs.rs/crate/tracing-session/latest/source/docs/scaling.md
[reliability]: https://docs.rs/crate/tracing-session/latest/source/docs/reliability.md
[architecture]: https://docs.rs/crate/tracing-session/latest/source/docs/architecture.md
[benches]: https://docs.rs/crate/tracing-session/latest/source/benches/README.md
[mit]: https://docs.rs/crate/tracing-session/latest/source/LICENSE-MIT
[apache]: https://docs.rs/crate/tracing-session/latest/source/LICENSE-APACHE
[security]: https://docs.rs/crate/tracing-session/latest/source/SECURITY.md
[guide]: crate::guide
[adopting]: crate::guide::adopting
[outliving]: crate::guide::outliving
[troubleshooting]: crate::guide::troubleshooting
"]
// Some of the README's examples need features. They show no `cfg`, so that users can copy them.
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
//! OpenTelemetry's `Context` carries the session, because child spans, plain OpenTelemetry spans, samplers, log
//! processors and propagators read the `Context` anyway.
//!
//! 1. [`SessionLayer`] finds *openers*: `tracing` spans whose fields set a session or user. For each opener it makes
//!    a *scope*, a snapshot of all values that apply there. It attaches a `Context` with this scope while the
//!    OpenTelemetry layer creates the span. The OpenTelemetry layer takes the current `Context` as the parent, so
//!    descendants inherit the scope.
//! 2. [`SessionTracerProvider`] wraps the tracer provider. Its spans read the scope from their parent `Context` when
//!    they start. They add the missing attributes when they end, so values that are recorded later are included. An
//!    opener has its ids as attributes from the start, so that samplers see them.
//! 3. [`SessionExporter`] maps the attributes of ended spans to the keys of other backends, off the hot path.
//!
//! In four cases the `Context` can't carry the session. For these, the crate keeps maps by span id:
//!
//! - `set_parent` replaces the parent `Context` of an opener before the opener starts.
//! - The session is set on a span that has already started ([`Session::set_on_current_span`]).
//! - The span is filtered out ([`SessionLayer::wrap_filtered`]).
//! - The span is older than the session of the future that enters it ([`InSession::in_session`]).
//!
//! If neither the `Context` nor a map has a scope, the [default session](Session::set_global_default) of the process
//! applies.
//!
//! [The architecture page][architecture] follows a session through the source, file by file.
//!
//! # In libraries, in applications
//!
//! A library may set sessions, with [`Session`], [`session!`] or [`user!`]. Only the application sets up the layer
//! and the provider, and sets the default session. Without a subscriber nothing breaks, and [`Session`] values still
//! work: plain OpenTelemetry spans inherit the session, and [`current_session`] returns it.

#![cfg_attr(docsrs, feature(doc_cfg))]
#![doc(test(attr(deny(warnings), allow(dead_code, unused_variables))))]

// Each module imports only from the modules before it in this list: base, session, export, scope, tracer, layer,
// current, propagation, conversation, integrations. `tests/published/layers.rs` checks it.
mod base {
    pub(crate) mod diagnostic;
    pub(crate) mod error;
    pub(crate) mod setup;
    pub(crate) mod shards;

    /// Locks and atomics of data that threads share. `tests/loom/` replaces them with loom's, to try every order of
    /// threads.
    pub(crate) mod sync {
        pub(crate) use std::sync::{Mutex, MutexGuard, OnceLock, RwLock, atomic};
    }
}

pub mod session;

pub mod export;

mod scope;

pub mod tracer;

pub mod layer;

pub mod current;

pub mod propagation {
    //! Carries sessions in the headers of requests and messages, with layers for HTTP servers and clients.

    #[cfg(any(feature = "reqwest", feature = "tower"))]
    pub(crate) mod clients;
    mod environment;
    mod extraction;
    pub(crate) mod functions;
    pub(crate) mod headers;
    mod propagated;
    pub(crate) mod propagator;
    #[cfg(feature = "tower")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tower")))]
    pub mod tower;

    #[cfg(feature = "reqwest")]
    #[cfg_attr(docsrs, doc(cfg(feature = "reqwest")))]
    pub use clients::reqwest;
    pub use functions::{extract_context, extract_session_id, inject_context};
    pub use headers::{Carrier, InboundPolicy, TraceHeaders};
    pub use propagated::{IntoPropagated, PropagatedContext, WithPropagated, propagated_context};
    pub use propagator::SESSION_HEADER_NAME;
}

pub mod conversation;

mod integrations {
    #[cfg(feature = "fmt")]
    pub mod fmt;
    pub mod openinference;
    #[cfg(feature = "otlp")]
    pub mod otlp;
    pub(crate) mod processors;
    #[cfg(feature = "sampler")]
    pub(crate) mod sampler;
    #[cfg(feature = "testing")]
    pub mod testing;
}

pub mod processors {
    //! Processors that add the session to log records, and to spans of a provider that you can't wrap.

    pub use crate::integrations::processors::SessionSpanProcessor;
    #[cfg(feature = "logs")]
    #[cfg_attr(docsrs, doc(cfg(feature = "logs")))]
    pub use crate::integrations::processors::logs::SessionLogProcessor;
}

#[doc(inline)]
pub use base::error::Error;
#[doc(inline)]
pub use conversation::Conversation;
#[doc(inline)]
pub use current::{
    InSession, current_session, current_session_id, mark_trace, new_session, set_session_id,
    set_user_id,
};
#[doc(inline)]
pub use export::{Dialect, Privacy, SessionExporter};
#[cfg(feature = "fmt")]
#[cfg_attr(docsrs, doc(cfg(feature = "fmt")))]
#[doc(inline)]
pub use integrations::fmt;
#[doc(inline)]
pub use integrations::openinference;
#[cfg(feature = "otlp")]
#[cfg_attr(docsrs, doc(cfg(feature = "otlp")))]
#[doc(inline)]
pub use integrations::otlp;
#[cfg(feature = "sampler")]
#[cfg_attr(docsrs, doc(cfg(feature = "sampler")))]
pub use integrations::sampler::SessionSampler;
#[cfg(feature = "testing")]
#[cfg_attr(docsrs, doc(cfg(feature = "testing")))]
#[doc(inline)]
pub use integrations::testing;
#[doc(inline)]
pub use layer::SessionLayer;
#[doc(inline)]
pub use propagation::functions::propagator_from_env;
#[doc(inline)]
pub use propagation::propagator::SessionPropagator;
#[doc(inline)]
pub use session::Session;
#[doc(inline)]
pub use tracer::SessionTracerProvider;

#[doc(hidden)]
pub use current::macros::__private;

#[doc = include_str!("guide/introduction.md")]
// Links and examples that need a feature work only with this feature.
#[cfg_attr(
    not(all(
        feature = "fmt",
        feature = "hash",
        feature = "logs",
        feature = "otlp",
        feature = "sampler",
        feature = "tower"
    )),
    allow(rustdoc::broken_intra_doc_links)
)]
pub mod guide {
    #[cfg_attr(any(feature = "otlp", not(doctest)), doc = include_str!("guide/set_up.md"))]
    pub mod set_up {}

    #[doc = include_str!("guide/adopting.md")]
    #[doc = "```diff"]
    #[doc = include_str!("guide/adopt.diff")]
    #[doc = "```"]
    pub mod adopting {}

    #[cfg_attr(any(feature = "tower", not(doctest)), doc = include_str!("guide/servers.md"))]
    pub mod servers {}

    #[cfg_attr(any(feature = "tower", not(doctest)), doc = include_str!("guide/outliving.md"))]
    pub mod outliving {}

    #[cfg_attr(any(feature = "otlp", not(doctest)), doc = include_str!("guide/backends.md"))]
    pub mod backends {}

    #[cfg_attr(
        any(
            all(
                feature = "fmt",
                feature = "hash",
                feature = "logs",
                feature = "sampler"
            ),
            not(doctest)
        ),
        doc = include_str!("guide/production.md")
    )]
    pub mod production {}

    #[doc = include_str!("guide/testing.md")]
    pub mod testing {}

    #[doc = include_str!("guide/troubleshooting.md")]
    pub mod troubleshooting {}
}
