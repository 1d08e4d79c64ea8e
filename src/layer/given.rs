//! The session that `session!` was given, while the macro creates its span: fields can hold its ids, and nothing
//! else of it.
//!
//! It travels in the current `Context`, beside the scope. A field of the macro may make spans of its own, or
//! await: these spans see the `Context` too. So a span takes the session only if a macro made it, with the
//! same id.

use crate::here::{self, Attached};
use crate::layer::fields;
use crate::session::Session;
use opentelemetry::Context;
use tracing::Metadata;

struct Given {
    session: Session,
    /// The `Context` that the macro was called in.
    outer: Context,
}

/// Passes `session` to the span that is created while the guard lives.
pub(crate) fn pass(session: &Session) -> Attached {
    here::attach_changed(|cx| {
        cx.with_value(Given {
            session: session.clone(),
            outer: cx.clone(),
        })
    })
}

/// The session passed to the macro that creates this span, whose fields set `set`. And the `Context` that the
/// macro was called in.
pub(crate) fn passed_to(span: &Metadata<'_>, set: &Session) -> Option<(Session, Context)> {
    if !fields::is_of_macro(span) {
        return None;
    }
    let passed = |cx: &Context| {
        let given = cx.get::<Given>().filter(|it| it.session.id == set.id)?;
        Some((given.session.clone(), given.outer.clone()))
    };
    here::map(passed).flatten()
}
