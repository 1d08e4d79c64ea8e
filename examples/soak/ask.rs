//! A client's request.

use crate::want::OF;
use serde::{Deserialize, Serialize};
use tracing_session::{Error, Session, conversation::ConversationState};

/// One turn of a conversation.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Ask {
    /// The seed of all random choices in the service.
    pub(crate) number: u64,
    pub(crate) session: String,
    pub(crate) user: String,
    pub(crate) way: Way,
    pub(crate) fault: Fault,
    pub(crate) words: u32,
    /// The result of the previous turn.
    pub(crate) state: Option<ConversationState>,
}

impl Ask {
    pub(crate) fn session(&self) -> Result<Session, Error> {
        Session::new(&self.session)?
            .with_user(&self.user)?
            .with_metadata(OF, self.session.as_str())
    }
}

/// The way in which a handler sets its session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Way {
    /// Not at all.
    #[default]
    Nothing,
    /// A `Session` around the stream of the answer.
    Value,
    /// `session!`.
    Macro,
    /// Spans named `session` and `user`.
    Named,
    /// Fields `session.id` and `user.id`.
    Fields,
    /// The same, recorded when they are known.
    Late,
    /// `set_session_id`, `set_user_id` and `mark_trace`.
    Bound,
    /// `session!` with an explicit parent, or with `set_parent`.
    Parent,
    /// Guards on any thread, never across an `.await`.
    Guard,
    /// A session inside another.
    Nested,
    /// None inside another.
    Cleared,
    /// A turn of a `Conversation`, whose state the client keeps.
    Turn,
    /// A header of the request, and `user!`.
    Header,
    /// The same with an invalid id.
    Hostile,
    /// Spans that a filter disables.
    Hidden,
    /// A header of a request that another service makes.
    Call,
}

impl Way {
    /// The ways that a client may use with every service.
    pub(crate) const ALL: [Self; 14] = {
        use Way::*;
        [
            Nothing, Value, Macro, Named, Fields, Late, Bound, Parent, Guard, Nested, Cleared,
            Turn, Header, Hostile,
        ]
    };

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Value => "value",
            Self::Macro => "macro",
            Self::Named => "named",
            Self::Fields => "fields",
            Self::Late => "late",
            Self::Bound => "bound",
            Self::Parent => "parent",
            Self::Guard => "guard",
            Self::Nested => "nested",
            Self::Cleared => "cleared",
            Self::Turn => "turn",
            Self::Header => "header",
            Self::Hostile => "hostile",
            Self::Hidden => "hidden",
            Self::Call => "call",
        }
    }
}

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Fault {
    Nothing,
    /// The client disconnects before the answer, or while it streams.
    HangsUp,
    /// The service panics somewhere.
    Panics,
    /// A task is aborted somewhere.
    Aborts,
    /// The body of the request isn't a question.
    BadState,
}

/// Pseudo-random numbers, the same on every run (SplitMix64).
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut it = self.0;
        it = (it ^ (it >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        it = (it ^ (it >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        it ^ (it >> 31)
    }

    /// Less than `sides`.
    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.next() % sides
    }
}
