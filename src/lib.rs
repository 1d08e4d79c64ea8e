// docs.rs doesn't serve files beside the page, so the README's relative links point to its source view there.
// Markdown uses the first definition of a link.
#![doc = "
[architecture]: https://docs.rs/crate/tracing-session/latest/source/docs/architecture.md
[reliability]: https://docs.rs/crate/tracing-session/latest/source/docs/reliability.md
[scaling]: https://docs.rs/crate/tracing-session/latest/source/docs/scaling.md
[benches]: https://docs.rs/crate/tracing-session/latest/source/benches/README.md
[security]: https://docs.rs/crate/tracing-session/latest/source/SECURITY.md
[contributing]: https://docs.rs/crate/tracing-session/latest/source/CONTRIBUTING.md
[mit]: https://docs.rs/crate/tracing-session/latest/source/LICENSE-MIT
[apache]: https://docs.rs/crate/tracing-session/latest/source/LICENSE-APACHE
[guide]: crate::guide
[adopting]: crate::guide::adopting
[phoenix]: crate::guide::backends#phoenix
[rules]: crate::guide::rules
[values]: crate::guide::values
[conversations]: crate::guide::conversations
[propagation]: crate::guide::propagation
[dialects]: crate::guide::dialects
[troubleshooting]: crate::guide::troubleshooting
"]
// The picture itself, because docs.rs serves no images of a crate. `.ci/run` compares it with the file.
#![cfg_attr(doc, doc = concat!("[picture]: data:image/webp;base64,", include_str!("guide/conversation.webp.base64")))]
// The program needs `otlp`. It has no hidden lines, which would be visible on the repository's page.
#![cfg_attr(any(feature = "otlp", not(doctest)), doc = include_str!("../README.md"))]
//!
//! # In libraries, in applications
//!
//! A library may set sessions, with [`Session`], [`session!`] or [`user!`]. Only the application sets up the layer
//! and the provider, and calls [`Session::set_global_default`]. Without a subscriber nothing breaks, and [`Session`]
//! values still work: [`current_session`] returns the session. Spans created with OpenTelemetry's API inherit the
//! session.

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

    #[doc = include_str!("guide/how_it_works.md")]
    pub mod how_it_works {}

    #[doc = include_str!("guide/rules.md")]
    pub mod rules {}

    #[doc = include_str!("guide/values.md")]
    pub mod values {}

    #[doc = include_str!("guide/conversations.md")]
    pub mod conversations {}

    #[doc = include_str!("guide/propagation.md")]
    pub mod propagation {}

    #[cfg_attr(any(all(feature = "fmt", feature = "logs"), not(doctest)), doc = include_str!("guide/logs.md"))]
    pub mod logs {}

    #[cfg_attr(any(feature = "hash", not(doctest)), doc = include_str!("guide/dialects.md"))]
    pub mod dialects {}

    #[cfg_attr(any(feature = "sampler", not(doctest)), doc = include_str!("guide/sampling.md"))]
    pub mod sampling {}

    #[doc = include_str!("guide/limits.md")]
    pub mod limits {}

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

    #[doc = include_str!("guide/production.md")]
    pub mod production {}

    #[cfg_attr(any(feature = "testing", not(doctest)), doc = include_str!("guide/testing.md"))]
    pub mod testing {}

    #[doc = include_str!("guide/faq.md")]
    pub mod faq {}

    #[doc = include_str!("guide/troubleshooting.md")]
    pub mod troubleshooting {}
}
