//! The session that `session!` was given, while the macro creates its span: fields can hold its ids, and nothing
//! else of it.
//!
//! It travels in the current `Context`, beside the scope. A field of the macro may make spans of its own, or
//! await, while other tasks call the macro on this thread: so a span takes the session that has its ids.

use crate::here::{self, Attached};
use crate::layer::fields;
use crate::session::Session;
use opentelemetry::Context;
use tracing::Metadata;

#[derive(Clone)]
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
    let all = here::map(|cx| {
        let innermost = cx.get::<Given>()?;
        let outer = |given: &Given| given.outer.get::<Given>().cloned();
        let all = std::iter::successors(Some(innermost.clone()), outer);
        Some(all.filter(|it| it.session.id == set.id).collect::<Vec<_>>())
    })??;
    let is_exact = |given: &&Given| given.session.user_id == set.user_id;
    // A field `user.id` beside the session stands for its user.
    let found = only(all.iter().filter(is_exact)).or_else(|| only(all.iter()))?;
    Some((found.session.clone(), found.outer.clone()))
}

/// Ambiguous sessions could belong to other tasks: then none.
fn only<'a>(mut given: impl Iterator<Item = &'a Given>) -> Option<&'a Given> {
    let first = given.next()?;
    given
        .all(|given| given.session == first.session)
        .then_some(first)
}
