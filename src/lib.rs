//! Say a session or user once on a `tracing` span: every span below it carries it.

#![cfg_attr(docsrs, feature(doc_cfg))]
#![doc(test(attr(deny(warnings), allow(unused_variables))))]

mod around;
mod attach;
mod attributes;
mod current;
mod diagnostic;
mod error;
mod fields;
mod handover;
mod layer;
mod macros;
mod opening;
mod scope;
mod session;
mod shards;
mod span;
mod tracer;
mod tracking;

pub use around::AroundLayer;
pub use attach::{InSession, SessionGuard, WithSession};
pub use current::{
    current_session, current_session_id, mark_trace, new_session, set_session_id, set_user_id,
};
pub use error::Error;
pub use layer::{FilteredSessionLayer, SessionLayer};
pub use opening::SpanSession;
pub use session::Session;
pub use span::SessionSpan;
pub use tracer::{SessionTracer, SessionTracerProvider};

#[doc(hidden)]
pub use macros::__private;
