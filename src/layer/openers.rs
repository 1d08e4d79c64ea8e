//! Openers, the spans whose fields set a session or user, and their scopes.

use crate::base::diagnostic;
use crate::base::diagnostic::Once;
use crate::export::OpenerFields;
use crate::layer::fields::{FieldMistake, FieldVisitor, Names, OpenerCallsite};
use crate::scope::bridge::PendingSpan;
use crate::scope::opener::Opener;
use crate::scope::thread::Attached;
use crate::scope::{Scope, is_in_turn, thread};
use crate::session::keys::Parts;
use crate::session::{Id, Session, details};
use opentelemetry::Context as OtelContext;
use std::sync::Arc;
use tracing::Metadata;
use tracing::callsite::Identifier;
use tracing::field::Field;
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Record};

/// Which spans are openers, and how they open a scope.
#[derive(Debug)]
pub(crate) struct Openers {
    pub(crate) names: Names,
    /// `wrap_filtered` enables openers up to this level or the level of its filter, whichever is more verbose.
    pub(crate) level: LevelFilter,
    /// A span whose fields set a session id starts a trace.
    pub(crate) root_turns: bool,
    /// Session spans are in no trace: they only set the session.
    pub(crate) unexported_session_spans: bool,
    /// The fields whose mistakes were reported.
    reported: Once<(Identifier, usize, FieldMistake)>,
    /// The callsites of ignored implicit openers that were reported.
    reported_implicit: Once<Identifier>,
}

impl Default for Openers {
    fn default() -> Self {
        Self {
            names: Names::default(),
            level: LevelFilter::OFF,
            root_turns: false,
            unexported_session_spans: false,
            reported: Once::default(),
            reported_implicit: Once::default(),
        }
    }
}

impl Openers {
    /// Reads the values that the fields of a new span set. If a macro with a `Session` creates the span, adds the
    /// values of this session, and returns the `Context` that the macro was called in.
    pub(crate) fn read(
        &self,
        callsite: &OpenerCallsite,
        span: &Attributes<'_>,
    ) -> (Session, Option<OtelContext>) {
        let mut visitor = self.visitor(span.metadata(), callsite);
        span.record(&mut visitor);
        let set = visitor.set;
        let passed = callsite
            .fields
            .is_of_macro
            .then(|| passed_to(&set))
            .flatten();
        let Some((passed, outer)) = passed else {
            return (set, None);
        };
        // A field `user.id` in the macro replaces the user of the passed session.
        let inner = set.details.as_ref();
        let session = Session {
            cleared: passed.cleared,
            is_exact: passed.is_exact,
            details: details::merged(passed.details.as_ref(), inner, Parts::default()),
            ..set
        };
        (session, Some(outer))
    }

    /// Opens the scope of a new span inside `outer`. `set`: the values of its fields. `None`: the span is an opener
    /// only because of its default name, and the session was set explicitly.
    pub(crate) fn open(
        &self,
        fields: OpenerFields,
        span: &'static Metadata<'static>,
        mut set: Session,
        outer: Option<Arc<Scope>>,
    ) -> Option<PendingSpan> {
        if fields.is_implicit {
            let explicit = outer.as_ref().and_then(|it| it.id());
            if let Some(explicit) = explicit.filter(|id| !id.is_replaceable()) {
                if set.id.as_ref() == Some(&explicit) {
                    set.id = Some(explicit);
                } else if set.id.as_ref().is_none_or(Id::is_replaceable) {
                    if diagnostic::is_first(&self.reported_implicit, span.callsite()) {
                        diagnostic::implicit_opener_ignored(span);
                    }
                    return None;
                }
            }
        }
        let is_turn = self.root_turns && set.id.is_some();
        let is_root = is_turn && !is_in_turn(outer.as_deref(), set.id.as_ref());
        let is_exported = !(self.unexported_session_spans && fields.are_of_session_span());
        let metadata = Some(span);
        let opener = Opener::new(set, OpenerFields { metadata, ..fields });
        let scope = Scope::opened(outer, &opener, is_turn);
        Some(PendingSpan {
            scope,
            is_root,
            is_exported,
        })
    }

    /// Records later values of the fields of an opener.
    pub(crate) fn record(
        &self,
        callsite: &OpenerCallsite,
        span: &'static Metadata<'static>,
        opener: &Opener,
        record: &Record<'_>,
    ) {
        let mut visitor = self.visitor(span, callsite);
        record.record(&mut visitor);
        let mut recorded = visitor.set;
        let is_explicit = |id: &Id| !id.is_replaceable();
        if !recorded.id.as_ref().is_some_and(is_explicit)
            && opener.with_values(|set| set.id.as_ref().is_some_and(is_explicit))
        {
            recorded.id = None;
        }
        opener.warn_of_kept_ids(&recorded);
        opener.record(recorded);
    }

    /// Reports each mistake in a field once.
    fn visitor<'a>(
        &self,
        span: &'static Metadata<'static>,
        callsite: &'a OpenerCallsite,
    ) -> FieldVisitor<'a, impl FnMut(&Field, FieldMistake)> {
        FieldVisitor {
            callsite,
            set: Session::default(),
            on_mistake: |field: &Field, mistake| {
                let key = (span.callsite(), field.index(), mistake);
                if !diagnostic::is_first(&self.reported, key) {
                    return;
                }
                match mistake {
                    FieldMistake::Invalid(error) => {
                        diagnostic::field_ignored(span, field.name(), error);
                    }
                    FieldMistake::NamesType => diagnostic::field_names_type(span, field.name()),
                }
            },
        }
    }
}

/// The session passed to `session!`, while the macro creates its span. The span's fields contain only its ids.
///
/// It is in the current `Context`. A field of the macro may create other spans, or await while other tasks call the
/// macro on this thread. So a span uses the session with the span's ids.
#[derive(Clone)]
struct MacroSession {
    session: Session,
    /// The `OtelContext` that the macro was called in.
    outer: OtelContext,
}

/// Passes `session` to the span that the macro creates, until the guard is dropped.
pub(crate) fn pass(session: &Session) -> Attached {
    thread::attach_changed(|cx| {
        cx.with_value(MacroSession {
            session: session.clone(),
            outer: cx.clone(),
        })
    })
}

/// Finds the session that was passed to the macro, and the `Context` that the macro was called in. `set`: the values of
/// the span's fields.
fn passed_to(set: &Session) -> Option<(Session, OtelContext)> {
    let all = thread::map_current(|cx| {
        let innermost = cx.get::<MacroSession>()?;
        let outer = |passed: &MacroSession| passed.outer.get::<MacroSession>().cloned();
        let all = std::iter::successors(Some(innermost.clone()), outer);
        Some(all.filter(|it| it.session.id == set.id).collect::<Vec<_>>())
    })??;
    let is_exact = |passed: &&MacroSession| passed.session.user_id == set.user_id;
    // A field `user.id` of the macro replaces the user of the session.
    let found = only(all.iter().filter(is_exact)).or_else(|| only(all.iter()))?;
    Some((found.session.clone(), found.outer.clone()))
}

/// Returns the session if all are equal. Different ones may belong to other tasks, so use none of them.
fn only<'a>(mut passed: impl Iterator<Item = &'a MacroSession>) -> Option<&'a MacroSession> {
    let first = passed.next()?;
    passed
        .all(|passed| passed.session == first.session)
        .then_some(first)
}
