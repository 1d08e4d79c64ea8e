//! Which attributes of a span are held back: those that are written from its scope too, and those that
//! are not to be seen.

use crate::diagnostic;
use crate::format::attributes::{
    Glance, ID, METADATA_FIELD, PLAIN_SESSION, PLAIN_USER, SESSION_ID, USER_ID,
};
use crate::format::{self, Format};
use crate::handover::Opening;
use crate::layer::fields;
use crate::scope::{Role, Scope};
use crate::session::details::{self, Details, Part};
use crate::session::text::{repeats, unquoted};
use crate::session::{Id, Session};
use crate::tracer::held::Held;
use opentelemetry::trace::Span;
use opentelemetry::{Key, KeyValue, Value};
use std::sync::Arc;
use tracing::field::FieldSet;

/// What a span does with attributes that are written from its scope.
pub(crate) struct SpanAttributes {
    /// The span opens a scope: what its fields say is in the scope already.
    opens: bool,
    /// Its field `id` is the session's or the user's.
    names_id: bool,
    watched: Watched,
    held: Option<Box<Held>>,
}

/// Attributes that are not passed on as they come.
#[derive(Clone, Copy)]
pub(crate) enum Reserved {
    /// An id, under this key.
    Id(Role, &'static str),
    /// A key of OpenInference that the span's scope has a value for.
    Detail,
    /// The same, where it has none.
    Alone,
    /// Another key that is written from the scope, or a value that is not to be seen.
    Other,
    PlainSession,
    PlainUser,
    /// A field that opens the scope: it is in the scope, by the layer.
    Said,
}

/// Which attributes are looked at.
#[derive(Clone, Copy, PartialEq)]
enum Watched {
    /// Those with a key that is ours.
    Keys,
    /// And entries of metadata, each by itself.
    Entries,
    All,
}

const OURS: Glance = Glance::of(&[SESSION_ID, USER_ID, PLAIN_SESSION, PLAIN_USER, ID])
    .and_all(Glance::of(&details::KEYS));

impl SpanAttributes {
    #[inline(always)]
    pub(crate) fn new(
        opening: Opening,
        format: Option<&Arc<Format>>,
        scope: Option<&Scope>,
    ) -> Self {
        let mut attributes = Self {
            opens: opening.opens,
            names_id: opening.names_id,
            watched: Watched::Keys,
            held: None,
        };
        if format.is_some() || opening.details.is_some() {
            attributes.watch_all(format, opening.details);
        } else if let Some(scope) = scope.filter(|scope| !scope.details().are_none()) {
            attributes.watched = watched_in(scope);
        }
        attributes
    }

    #[cold]
    fn watch_all(&mut self, format: Option<&Arc<Format>>, fields: Option<&'static FieldSet>) {
        self.watched = Watched::All;
        let held = self.held();
        held.format = format.cloned();
        held.fields = fields;
    }

    /// Takes what is reserved out of the attributes that the span starts with.
    #[inline]
    pub(crate) fn take_reserved(&mut self, given: &mut Vec<KeyValue>, scope: Option<&Scope>) {
        let may_be = |attribute: &KeyValue| OURS.may_be(attribute.key.as_str());
        if self.watched != Watched::Keys || given.iter().any(may_be) {
            self.take(given, scope);
        }
    }

    #[inline(never)]
    fn take(&mut self, given: &mut Vec<KeyValue>, scope: Option<&Scope>) {
        let mut keys = given.iter().map(|attribute| attribute.key.as_str());
        let first = match self.watched {
            Watched::Keys => keys.position(|key| OURS.may_be(key)),
            Watched::Entries => keys.position(is_ours_or_entry),
            Watched::All => Some(0),
        };
        let Some(first) = first else { return };
        let mut kept = first;
        for at in first..given.len() {
            if let Some(reserved) = self.reserved(&given[at], scope) {
                let value = std::mem::replace(&mut given[at].value, Value::Bool(false));
                self.hold_value(reserved, &given[at].key, value, scope);
            } else {
                if kept < at {
                    given.swap(kept, at);
                }
                kept += 1;
            }
        }
        given.truncate(kept);
    }

    /// False if the attribute is certainly to be passed on.
    #[inline(always)]
    pub(crate) fn may_hold(&self, attribute: &KeyValue) -> bool {
        self.watched != Watched::Keys || OURS.may_be(attribute.key.as_str())
    }

    /// Holds an attribute back.
    pub(crate) fn hold(&mut self, reserved: Reserved, given: KeyValue, scope: Option<&Scope>) {
        self.hold_value(reserved, &given.key, given.value, scope);
    }

    fn hold_value(&mut self, reserved: Reserved, key: &Key, value: Value, scope: Option<&Scope>) {
        match reserved {
            Reserved::Said => {}
            Reserved::Id(role, key) => self.hold_own(key, role, &value, scope),
            Reserved::PlainSession => self.held().plain_session = Some(value),
            Reserved::PlainUser => self.held().plain_user = Some(value),
            Reserved::Alone => drop(self.held().alone.insert(key.clone(), value)),
            Reserved::Detail => self.held().set_detail(key, value),
            Reserved::Other => drop(self.held().others.insert(key.clone(), value)),
        }
        self.remember_ids(scope);
    }

    /// What an attribute is, if it is not to be passed on.
    #[inline(always)]
    pub(crate) fn reserved(&self, attribute: &KeyValue, scope: Option<&Scope>) -> Option<Reserved> {
        let key = attribute.key.as_str();
        let may_be_ours = match self.watched {
            Watched::Keys => OURS.may_be(key),
            Watched::Entries => is_ours_or_entry(key),
            Watched::All => true,
        };
        if may_be_ours {
            self.look_up(attribute, scope)
        } else {
            None
        }
    }

    #[inline(never)]
    fn look_up(&self, attribute: &KeyValue, scope: Option<&Scope>) -> Option<Reserved> {
        match attribute.key.as_str() {
            SESSION_ID => Some(Reserved::Id(Role::Session, SESSION_ID)),
            USER_ID => Some(Reserved::Id(Role::User, USER_ID)),
            PLAIN_SESSION if self.renames_plain() => Some(Reserved::PlainSession),
            PLAIN_USER if self.renames_plain() => Some(Reserved::PlainUser),
            ID if self.names_id => Some(Reserved::Said),
            key if fields::is_detail(key) && self.names(key) => Some(Reserved::Said),
            key if self.watched == Watched::Keys => {
                details::KEYS.contains(&key).then_some(Reserved::Alone)
            }
            key => self.look_up_details(key, &attribute.value, scope),
        }
    }

    fn look_up_details(&self, key: &str, value: &Value, scope: Option<&Scope>) -> Option<Reserved> {
        // Phoenix does not see an entry by itself beside the others.
        if details::KEYS.contains(&key) || key.starts_with(METADATA_FIELD) {
            return Some(Reserved::Detail);
        }
        let is_said = |said: Arc<Details>| said.attributes.iter().any(|it| it.key.as_str() == key);
        // The id may become known later.
        let may_be_hidden = |format: &Format| {
            let may_be_id = self.opens || matches!(value, Value::String(_));
            may_be_id && format.privacy.hides_ids()
        };
        let is_other = scope
            .and_then(|scope| scope.details().get())
            .is_some_and(is_said)
            || self
                .format()
                .is_some_and(|it| it.minds(key) || may_be_hidden(it));
        is_other.then_some(Reserved::Other)
    }

    fn renames_plain(&self) -> bool {
        self.format().is_none_or(|format| format.renames_plain)
    }

    fn format(&self) -> Option<&Format> {
        self.held.as_ref()?.format.as_deref()
    }

    /// Another scope is set inside the one that the span's fields opened: what is recorded from now
    /// on is still of the fields.
    pub(crate) fn keep_opened(&mut self, scope: Option<Arc<Scope>>) {
        self.remember_ids(scope.as_deref());
        if self.opens {
            let opened = &mut self.held().opened;
            *opened = opened.take().or(scope);
        }
    }

    /// An id that is to be hidden is so on the whole span, even if another takes its place.
    #[inline(always)]
    fn remember_ids(&mut self, scope: Option<&Scope>) {
        if self
            .format()
            .is_some_and(|format| format.privacy.hides_ids())
        {
            self.held().remember_ids(scope);
        }
    }

    fn opened<'a>(&'a self, scope: Option<&'a Scope>) -> Option<&'a Scope> {
        let kept = self.held.as_ref().and_then(|held| held.opened.as_deref());
        kept.or(scope).filter(|_| self.opens)
    }

    fn hold_own(&mut self, key: &'static str, role: Role, value: &Value, scope: Option<&Scope>) {
        let text = value.as_str();
        let said = self.opened(scope).and_then(|opened| opened.get(role));
        let own = if repeats(&text, said.as_ref()) {
            None
        } else {
            // A field that was recorded with `?` has quotes, in which a blank would pass for an id.
            let field = unquoted(&text).filter(|_| self.opens);
            match Id::new(field.as_deref().unwrap_or(&text)).and_then(|_| Id::new(&text)) {
                Ok(id) => Some(id),
                Err(error) => {
                    // Of a field the layer has told already, with its place in the code.
                    if !self.opens {
                        diagnostic::own_attribute_ignored(key, error);
                    }
                    return;
                }
            }
        };
        if own.is_some() || self.held.is_some() {
            let held = self.held();
            match role {
                Role::Session => held.own.id = own,
                Role::User => held.own.user_id = own,
            }
        }
    }

    /// Whether the span has this field, which is for metadata or tags.
    fn names(&self, detail: &str) -> bool {
        let fields = self.held.as_ref().and_then(|held| held.fields);
        fields.is_some_and(|fields| fields.field(detail).is_some())
    }

    fn held(&mut self) -> &mut Held {
        self.held.get_or_insert_default()
    }

    /// Keeps of `session` what the span has no value for.
    pub(crate) fn mark(&mut self, session: Session, scope: Option<&Scope>) {
        let held = self.held();
        let present = held.resolve(scope);
        // Not what another conversation says, or one with another user.
        let agrees = |present: &Option<Id>, said: &Option<Id>| present.is_none() || present == said;
        let agree = agrees(&present.id, &session.id) && agrees(&present.user_id, &session.user_id);
        // A second mark takes nothing back.
        let is_first = held.marked.id.is_none() && held.marked.user_id.is_none();
        if agree && (is_first || session.details.is_some()) {
            held.marked.details = markable(session.details);
        }
        if held.marked.details.is_some() {
            for (key, value) in std::mem::take(&mut held.alone) {
                held.set_detail(&key, value);
            }
            self.watched = Watched::All;
        }
        let held = self.held();
        if present.id.is_none() {
            held.marked.id = session.id;
        }
        if present.user_id.is_none() {
            held.marked.user_id = session.user_id;
        }
    }

    /// Writes what the span is exported with.
    #[inline]
    pub(crate) fn write(&mut self, scope: Option<&Scope>, span: &mut impl Span) {
        if self.watched != Watched::Keys || self.held.is_some() {
            self.write_more(scope, span);
        } else if let Some(scope) = scope {
            if span.is_recording() {
                format::write_ids(scope, &mut |it| span.set_attribute(it));
            }
        }
    }

    #[inline(never)]
    fn write_more(&mut self, scope: Option<&Scope>, span: &mut impl Span) {
        let held = self.held.take();
        if !span.is_recording() {
            return;
        }
        if let Some(held) = held {
            held.write(scope, span);
        } else if let Some(scope) = scope {
            format::write_as_usual(scope, &mut |it| span.set_attribute(it));
        }
    }
}

#[inline(always)]
fn is_ours_or_entry(key: &str) -> bool {
    // Nine bytes of a known length are compared at once.
    let start = key.as_bytes().first_chunk::<{ METADATA_FIELD.len() }>();
    OURS.may_be(key) || start.is_some_and(|start| start == METADATA_FIELD.as_bytes())
}

/// All but attributes of one's own: whether the span has some of these names by now, nobody knows.
fn markable(mut details: Option<Arc<Details>>) -> Option<Arc<Details>> {
    if details.as_ref().is_some_and(|it| !it.attributes.is_empty()) {
        Details::change(&mut details, |it| it.forget(Part::Attributes));
    }
    details.filter(|details| !details.is_empty())
}

#[cold]
fn watched_in(scope: &Scope) -> Watched {
    if scope.details().have_attributes() {
        Watched::All
    } else {
        Watched::Entries
    }
}
