//! The keys that are written, and a scope as attributes.
//!
//! Source: OpenInference's semantic conventions, "Context Attributes".

use crate::session::Id;
use opentelemetry::{Key, KeyValue};

/// The conversation that a span belongs to.
pub(crate) const SESSION_ID: &str = "session.id";
/// Whom the conversation is with.
pub(crate) const USER_ID: &str = "user.id";

/// A plain attribute beside the dotted key makes Phoenix lose the session: both are one path in the
/// nested attributes that it stores.
pub(crate) const PLAIN_SESSION: &str = "session";
pub(crate) const PLAIN_SESSION_RENAMED: &str = "session.name";
pub(crate) const PLAIN_USER: &str = "user";
pub(crate) const PLAIN_USER_RENAMED: &str = "user.name";

/// The field that holds the id of a span named `session` or `user`.
pub(crate) const ID: &str = "id";

/// The id as an attribute: it shares the id's text.
pub(crate) fn attribute(key: &'static str, id: &Id) -> KeyValue {
    KeyValue::new(Key::from_static_str(key), id.to_shared())
}
