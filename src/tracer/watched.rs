//! Which attributes of a span are held back: those that are written from its scope too, and those that
//! are not to be seen.

use crate::diagnostic;
use crate::error::ErrorKind;
use crate::format::attributes::{
    Glance, ID, METADATA_FIELD, PLAIN_SESSION, PLAIN_USER, RESERVED, SESSION_ID, USER_HASH, USER_ID,
};
use crate::format::privacy::IdPolicy;
use crate::format::redaction::{self, Redacted, Redaction};
use crate::format::{self, Format};
use crate::handover::Opening;
use crate::layer::fields;
use crate::scope::{Role, Scope};
use crate::session::details::{self, Details, Part};
use crate::session::text::{repeats, unquoted};
use crate::session::{Id, Session};
use crate::tracer::held::Held;
use opentelemetry::trace::{Span, SpanBuilder};
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
    /// Which id the field `id` of the span contains, on a provider that redacts it.
    named: Option<Role>,
    /// Where there is none, the usual one.
    format: Option<Arc<Format>>,
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

const OURS: Glance = Glance::of(&RESERVED).and(ID);
/// The same on a provider that redacts, where a hash may be the user's.
const OURS_REDACTED: Glance = OURS.and(USER_HASH);

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
            named: None,
            format: format.cloned(),
            held: None,
        };
        let has_dialect = format.is_some_and(|format| !format.is_openinference());
        if has_dialect || opening.details.is_some() {
            attributes.watch_all(opening.details);
        } else if let Some(scope) = scope.filter(|scope| !scope.details().are_none()) {
            attributes.watched = watched_in(scope);
        }
        attributes
    }

    #[cold]
    fn watch_all(&mut self, fields: Option<&'static FieldSet>) {
        self.watched = Watched::All;
        self.held().fields = fields;
    }

    #[inline(always)]
    pub(crate) fn redaction(&self) -> Option<&Redaction> {
        self.format.as_ref()?.redaction.as_deref()
    }

    /// Redacts the attributes of a builder, before the sampler and the rules below receive them. False if the rules
    /// below need not look at the attributes.
    #[inline(always)]
    pub(crate) fn redact_builder(
        &mut self,
        redaction: &Redaction,
        builder: &mut SpanBuilder,
        scope: Option<&Scope>,
    ) -> bool {
        let marked = builder.attributes.as_mut().and_then(redaction::take_named);
        self.named = marked.or_else(|| redaction.named(&builder.name));
        let mut keep_invalid = |it: &KeyValue, error| !self.ignores_invalid(it, error);
        let any = redaction.redact_builder(builder, self.named, scope, &mut keep_invalid);
        any || self.watched != Watched::Keys
    }

    /// False if the attribute is not to be exported.
    #[cold]
    pub(crate) fn redact(&self, attribute: &mut KeyValue, scope: Option<&Scope>) -> bool {
        let Some(redaction) = self.redaction() else {
            return true;
        };
        match redaction.redact(attribute, self.named, scope) {
            Redacted::Kept => true,
            Redacted::Invalid(error) => !self.ignores_invalid(attribute, error),
            Redacted::Omitted => false,
        }
    }

    /// An attribute that was no id before it was redacted gives way to the inherited id.
    fn ignores_invalid(&self, attribute: &KeyValue, error: ErrorKind) -> bool {
        let key = match attribute.key.as_str() {
            SESSION_ID => SESSION_ID,
            USER_ID | USER_HASH => USER_ID,
            _ => return false,
        };
        if !self.opens {
            diagnostic::own_attribute_ignored(key, error);
        }
        true
    }

    /// Takes what is reserved out of the attributes that the span starts with.
    #[inline]
    pub(crate) fn take_reserved(&mut self, given: &mut Vec<KeyValue>, scope: Option<&Scope>) {
        let may_be = |attribute: &KeyValue| self.may_be_ours(attribute.key.as_str());
        if self.watched != Watched::Keys || given.iter().any(may_be) {
            self.take(given, scope);
        }
    }

    #[inline(never)]
    fn take(&mut self, given: &mut Vec<KeyValue>, scope: Option<&Scope>) {
        let mut keys = given.iter().map(|attribute| attribute.key.as_str());
        let first = match self.watched {
            Watched::Keys => keys.position(|key| self.may_be_ours(key)),
            Watched::Entries => keys.position(|key| self.may_be_ours(key) || is_entry(key)),
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

    #[inline(always)]
    fn may_be_ours(&self, key: &str) -> bool {
        match self.format {
            None => OURS.may_be(key),
            Some(_) => OURS_REDACTED.may_be(key),
        }
    }

    /// False if the attribute is certainly to be passed on as it is.
    #[inline(always)]
    pub(crate) fn may_concern(&self, attribute: &KeyValue) -> bool {
        self.watched != Watched::Keys
            || match self.redaction() {
                None => OURS.may_be(attribute.key.as_str()),
                Some(redaction) => redaction.may_concern(&attribute.key),
            }
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
    }

    /// What an attribute is, if it is not to be passed on.
    #[inline(always)]
    pub(crate) fn reserved(&self, attribute: &KeyValue, scope: Option<&Scope>) -> Option<Reserved> {
        let key = attribute.key.as_str();
        let may_be_ours = match self.watched {
            Watched::Keys => self.may_be_ours(key),
            Watched::Entries => self.may_be_ours(key) || is_entry(key),
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
            USER_HASH if self.policy(Role::User).is_some() => {
                Some(Reserved::Id(Role::User, USER_HASH))
            }
            PLAIN_SESSION if self.renames_plain() => Some(Reserved::PlainSession),
            PLAIN_USER if self.renames_plain() => Some(Reserved::PlainUser),
            ID if self.names_id => Some(Reserved::Said),
            key if fields::is_detail(key) && self.names(key) => Some(Reserved::Said),
            key if self.watched == Watched::Keys => {
                details::KEYS.contains(&key).then_some(Reserved::Alone)
            }
            key => self.look_up_details(key, scope),
        }
    }

    fn look_up_details(&self, key: &str, scope: Option<&Scope>) -> Option<Reserved> {
        if let Some((role, key)) = self.format().and_then(|format| format.role(key)) {
            return Some(Reserved::Id(role, key));
        }
        // Phoenix does not see an entry by itself beside the others.
        if details::KEYS.contains(&key) || key.starts_with(METADATA_FIELD) {
            return Some(Reserved::Detail);
        }
        let is_said = |said: Arc<Details>| said.attributes.iter().any(|it| it.key.as_str() == key);
        let is_other = scope
            .and_then(|scope| scope.details().get())
            .is_some_and(is_said)
            || self.format().is_some_and(|format| format.writes(key));
        is_other.then_some(Reserved::Other)
    }

    fn renames_plain(&self) -> bool {
        self.format().is_none_or(|format| format.renames_plain)
    }

    fn format(&self) -> Option<&Format> {
        self.format.as_deref()
    }

    /// The policy under which an id of the span's author is a hash by now.
    fn policy(&self, role: Role) -> Option<&IdPolicy> {
        let policy = self.redaction()?.policy(role);
        policy.hashes().then_some(policy)
    }

    /// Another scope is set inside the one that the span's fields opened: what is recorded from now
    /// on is still of the fields.
    pub(crate) fn keep_opened(&mut self, scope: Option<Arc<Scope>>) {
        if self.opens {
            let opened = &mut self.held().opened;
            *opened = opened.take().or(scope);
        }
    }

    fn opened<'a>(&'a self, scope: Option<&'a Scope>) -> Option<&'a Scope> {
        let kept = self.held.as_ref().and_then(|held| held.opened.as_deref());
        kept.or(scope).filter(|_| self.opens)
    }

    fn hold_own(&mut self, key: &'static str, role: Role, value: &Value, scope: Option<&Scope>) {
        let text = value.as_str();
        let said = self.opened(scope).and_then(|opened| opened.get(role));
        let own = if let Some(policy) = self.policy(role) {
            let own = policy.redacted_id(&text);
            own.filter(|own| said.is_none_or(|said| !policy.is_same(own, &said)))
        } else if repeats(&text, said.as_ref()) {
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
        let present = self.held().resolve(scope);
        // Not what another conversation says, or one with another user.
        let agrees = |present: &Option<Id>, said: &Option<Id>, role| match (present, said) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(one), Some(other)) => match self.policy(role) {
                Some(policy) => policy.is_same(one, other),
                None => one == other,
            },
        };
        let agree = agrees(&present.id, &session.id, Role::Session)
            && agrees(&present.user_id, &session.user_id, Role::User);
        let held = self.held();
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
                format::write_ids(scope, self.format.as_ref(), &mut |it| {
                    span.set_attribute(it)
                });
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
            held.write(scope, self.format.as_ref(), span);
        } else if let Some(scope) = scope {
            format::write_scope(scope, self.format.as_ref(), &mut |it| {
                span.set_attribute(it)
            });
        }
    }
}

#[inline(always)]
fn is_entry(key: &str) -> bool {
    // Nine bytes of a known length are compared at once.
    let start = key.as_bytes().first_chunk::<{ METADATA_FIELD.len() }>();
    start.is_some_and(|start| start == METADATA_FIELD.as_bytes())
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
