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
pub(crate) fn attribute(key: &'static str, id: Id) -> KeyValue {
    KeyValue::new(Key::from_static_str(key), id.into_shared())
}

/// The lengths of a few names: enough to tell of nearly every other name that it is none of them.
///
/// It is asked at each field and attribute of each span, so it compares no text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lengths(u64);

impl Lengths {
    pub(crate) const fn of(names: &[&str]) -> Self {
        let mut lengths = Self(0);
        let mut at = 0;
        while at < names.len() {
            lengths = lengths.and(names[at]);
            at += 1;
        }
        lengths
    }

    pub(crate) const fn and(self, name: &str) -> Self {
        Self(self.0 | Self::bit(name))
    }

    #[inline]
    pub(crate) const fn may_be(self, name: &str) -> bool {
        self.0 & Self::bit(name) != 0
    }

    /// Lengths that differ by 64 share a bit.
    #[inline]
    const fn bit(name: &str) -> u64 {
        1_u64.wrapping_shl(name.len() as u32)
    }
}
