//! One callsite for each form of span that an application would write.

use super::{HIDDEN, LIBRARY, session_of};
use crate::random_programs::program::{Kind, Name, SESSION, USER, Way};
use tracing::info_span;
use tracing_session::{session, user};

/// A contextual span without a given parent; a root if the given parent is none.
pub fn create(name: Name, kind: Kind, parent: Option<Option<tracing::Id>>) -> tracing::Span {
    let name = name.to_string();
    let name = name.as_str();
    macro_rules! create {
        ($span:ident!($($before:expr,)* ; $($fields:tt)*)) => {
            match (kind.hidden, parent) {
                (false, None) => $span!($($before,)* otel.name = name, $($fields)*),
                (false, Some(parent)) => {
                    $span!(parent: parent, $($before,)* otel.name = name, $($fields)*)
                }
                (true, None) => $span!(target: HIDDEN, $($before,)* otel.name = name, $($fields)*),
                (true, Some(parent)) => $span!(
                    target: HIDDEN, parent: parent, $($before,)* otel.name = name, $($fields)*
                ),
            }
        };
    }
    let [session, user, m] = kind.sets;
    match kind.way {
        Way::Plain => create!(info_span!("plain",;)),
        Way::SessionField => create!(info_span!("work",; session.id = session, metadata.m = m)),
        Way::UserField => create!(info_span!("work",; user.id = user, metadata.m = m)),
        Way::BothFields => {
            create!(info_span!("work",; session.id = session, user.id = user, metadata.m = m))
        }
        Way::Named => create!(info_span!("session",; id = session, metadata.m = m)),
        Way::NamedWithUser => {
            create!(info_span!("session",; id = session, user.id = user, metadata.m = m))
        }
        Way::SessionMacro => create!(session!(session.unwrap(),; metadata.m = m)),
        Way::UserMacro => create!(user!(user.unwrap(),; metadata.m = m)),
        Way::ValueMacro => {
            let session = session_of([kind.sets[SESSION], kind.sets[USER], None]);
            create!(session!(session,;))
        }
        Way::Debugged(None) => create!(info_span!("work",; session.id = ?None::<&str>)),
        Way::Debugged(Some(text)) if text.len() > 1 => {
            create!(info_span!("work",; session.id = text))
        }
        Way::Debugged(text) => create!(info_span!("work",; session.id = ?text)),
        Way::Library => match parent {
            None => info_span!(target: LIBRARY, "session", otel.name = name, id = 7_u64),
            Some(parent) => {
                info_span!(target: LIBRARY, parent: parent, "session", otel.name = name, id = 7_u64)
            }
        },
    }
}
