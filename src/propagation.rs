//! The session between services: written into headers and read from them, taken or refused.

pub(crate) mod baggage;
pub(crate) mod carrier;
pub(crate) mod env;
#[cfg(any(feature = "reqwest", feature = "tower"))]
pub(crate) mod hosts;
pub(crate) mod inbound;
pub(crate) mod propagated;
pub(crate) mod propagator;
pub(crate) mod received;
pub(crate) mod span_headers;
