//! Which attributes a span has of its own. At the end only the missing ones are added.
//!
//! An attribute that the span's author set stays where it was put, so that samplers and processors see it.
//! Only our own syntax is consumed: the fields of an opener that hold an id, metadata or tags. The scope has
//! their values, and they are exported under the keys of the scope.

use crate::diagnostic;
use crate::format;
use crate::format::attributes::{
    ID, OURS, PLAIN_SESSION, PLAIN_SESSION_RENAMED, PLAIN_USER, PLAIN_USER_RENAMED, SESSION_ID,
    USER_HASH, USER_ID, WRITTEN,
};
use crate::format::redaction::{self, Redaction};
use crate::handover::OpenerFields;
use crate::scope::Scope;
use crate::session::details::{Part, Parts};
use crate::session::text::{id_text, is_id, is_invalid};
use crate::session::{Id, Role, Session};
use opentelemetry::trace::{Span, SpanBuilder};
use opentelemetry::{Key, KeyValue};
use std::sync::Arc;

/// Small, because each span is moved several times before it is in its place.
pub(crate) struct Own {
    renames_plain: bool,
    /// The session has attributes of the application's own: each key of the span may be one of these.
    looks_at_all: bool,
    redaction: Option<Arc<Redaction>>,
    /// The id that a field `id` of the span holds, where values are redacted.
    named: Option<Role>,
    more: Option<Box<More>>,
}

/// What few spans have.
#[derive(Default)]
struct More {
    /// The ids that the span has already.
    ids: Parts,
    /// The other keys of the scope that it has.
    keys: Vec<Key>,
    /// The span is an opener.
    fields: Option<OpenerFields>,
    /// The ids that its fields had set when it started. `None`: it has not.
    started_with: Option<Session>,
    /// The ids whose last value in the builder is known.
    settled: Parts,
    /// Set by `mark_trace` in a span below.
    marked: Session,
    /// Values under the key of an id that are no id. They are exported if the span ends without one.
    invalid: Vec<(Role, KeyValue)>,
}

impl Own {
    #[inline(always)]
    pub(crate) fn new(
        fields: Option<OpenerFields>,
        scope: Option<&Scope>,
        renames_plain: bool,
        redaction: Option<&Arc<Redaction>>,
    ) -> Self {
        let has_details = fields.as_ref().is_some_and(|it| it.has_details);
        let more = |fields| More {
            fields: Some(fields),
            ..More::default()
        };
        Self {
            renames_plain,
            looks_at_all: has_details || scope.is_some_and(Scope::has_attributes),
            redaction: redaction.cloned(),
            named: None,
            more: fields.map(more).map(Box::new),
        }
    }

    /// False if an attribute with this key certainly stays where it is, and is none of the scope's.
    #[inline(always)]
    pub(crate) fn may_matter(&self, key: &Key) -> bool {
        self.looks_at_all
            || match &self.redaction {
                None => OURS.may_be(key.as_str()),
                Some(redaction) => redaction.may_matter(key.as_str()),
            }
    }

    /// Looks through the attributes that the span starts with, redacts them, and writes the ids that the fields of
    /// an opener have set by now: samplers see them.
    #[inline(always)]
    pub(crate) fn start(&mut self, builder: &mut SpanBuilder, scope: Option<&Scope>) {
        let mut attributes = builder.attributes.iter().flatten();
        if self.more.is_some()
            || self.redaction.is_some()
            || self.looks_at_all
            || attributes.any(|it| OURS.may_be(it.key.as_str()))
        {
            self.look_at_each(builder, scope);
        }
    }

    #[inline(never)]
    fn look_at_each(&mut self, builder: &mut SpanBuilder, scope: Option<&Scope>) {
        let attributes = builder.attributes.get_or_insert_default();
        if self.redaction.is_some() {
            let named = redaction::take_named(attributes);
            self.named = named.or_else(|| redaction::named(&builder.name));
        }
        // From the last to the first: of the values of a field, the last one counts.
        for at in (0..attributes.len()).rev() {
            if self.may_matter(&attributes[at].key) && !self.keeps(&mut attributes[at], scope) {
                attributes.remove(at);
            }
        }
        if let Some(redaction) = &self.redaction {
            redaction.redact_builder(builder, self.named);
        }
        if let Some(fields) = self.fields() {
            let ids = fields.opener.with_values(Session::ids);
            let attributes = builder.attributes.get_or_insert_default();
            self.write(&ids, &mut |attribute| attributes.push(attribute));
            let more = self.more();
            for role in Role::BOTH
                .into_iter()
                .filter(|role| role.id(&ids).is_some())
            {
                more.ids = more.ids.with(role.part());
            }
            more.started_with = Some(ids);
        }
    }

    /// Whether an attribute stays on the span. If it does, its key is the author's.
    #[inline(never)]
    pub(crate) fn keeps(&mut self, attribute: &mut KeyValue, scope: Option<&Scope>) -> bool {
        match attribute.key.as_str() {
            SESSION_ID => return self.keeps_id(Role::Session, attribute, scope),
            USER_ID => return self.keeps_id(Role::User, attribute, scope),
            ID => {
                if let Some(role) = self.fields().and_then(|it| it.ids.id) {
                    self.consume(role, attribute, true);
                    return false;
                }
            }
            PLAIN_SESSION if self.renames(scope) => {
                attribute.key = Key::from_static_str(PLAIN_SESSION_RENAMED);
            }
            PLAIN_USER if self.renames(scope) => {
                attribute.key = Key::from_static_str(PLAIN_USER_RENAMED);
            }
            key if self.fields().is_some_and(|it| it.have_detail(key)) => return false,
            key if WRITTEN.contains(&key) || key == USER_HASH || self.looks_at_all => {
                self.more().keys.push(attribute.key.clone());
            }
            _ => {}
        }
        true
    }

    fn keeps_id(&mut self, role: Role, attribute: &KeyValue, scope: Option<&Scope>) -> bool {
        if let Some(fields) = self.fields().filter(|fields| fields.hold(role)) {
            let is_set =
                |set: &Session| role.text(set).is_some_and(|id| is_id(&attribute.value, id));
            let is_recorded = fields.opener.with_values(is_set);
            let has_id = is_recorded || id_text(&attribute.value).is_some();
            let more = self.more();
            // In a builder: recorded before the last value.
            let is_earlier = more.started_with.is_none() && more.settled.have(role.part());
            if has_id {
                more.settled = more.settled.with(role.part());
            }
            // Set by the author with OpenTelemetry's API, rather than recorded.
            let is_own = has_id && !is_recorded && !is_earlier;
            match is_own {
                true => more.ids = more.ids.with(role.part()),
                false => self.consume(role, attribute, !has_id),
            }
            return is_own;
        }
        let is_id = id_text(&attribute.value).is_some();
        let is_inherited = |values: &Session| role.id(values).is_some();
        if !is_id && scope.is_some_and(|scope| scope.with_values(is_inherited)) {
            if let Err(error) = Id::check(&attribute.value.as_str()) {
                diagnostic::own_attribute_ignored(role.key(), error);
            }
            return false;
        }
        self.more().ids = self.more().ids.with(role.part());
        true
    }

    /// Takes note of a field of an opener that goes.
    fn consume(&mut self, role: Role, attribute: &KeyValue, may_be_invalid: bool) {
        if let Some(fields) = self.fields() {
            fields
                .opener
                .with_values(|set| self.warn_of_change(role, set));
        }
        if may_be_invalid && is_invalid(&attribute.value) {
            self.more().invalid.push((role, attribute.clone()));
        }
    }

    /// Tells the author where an id is set that the span is not exported with: it has started with another.
    fn warn_of_change(&self, role: Role, set: &Session) {
        let more = self.more.as_ref();
        let first = more.and_then(|more| role.text(more.started_with.as_ref()?));
        let last = role.text(set);
        if let Some(fields) = self.fields().filter(|_| first.is_some() && last.is_some()) {
            if first != last {
                diagnostic::id_kept(fields.metadata, role.key());
            }
        }
    }

    /// Takes note of a session that is set on the span, which has started.
    pub(crate) fn bind(&mut self, session: &Session) {
        Role::BOTH
            .into_iter()
            .for_each(|role| self.warn_of_change(role, session));
        if let Some(details) = session.details.as_ref().filter(|_| !self.looks_at_all) {
            // The span may have attributes with these keys, and can't tell.
            let keys = details.attributes.iter().map(|it| it.key.clone());
            self.more().keys.extend(keys);
        }
    }

    /// Whether plain attributes are renamed: beside an id, and where the span may get one.
    fn renames(&self, scope: Option<&Scope>) -> bool {
        let has_id = |values: &Session| values.id.is_some() || values.user_id.is_some();
        self.renames_plain
            && (self.fields().is_some() || scope.is_some_and(|scope| scope.with_values(has_id)))
    }

    /// Whether the span has an attribute with this key.
    fn has(&self, key: &str) -> bool {
        let Some(more) = &self.more else {
            return false;
        };
        let own = more.keys.iter();
        match key {
            SESSION_ID => more.ids.have(Part::Session),
            USER_ID | USER_HASH if more.ids.have(Part::User) => true,
            key => own.map(Key::as_str).any(|own| own == key),
        }
    }

    fn fields(&self) -> Option<&OpenerFields> {
        self.more.as_ref()?.fields.as_ref()
    }

    fn more(&mut self) -> &mut More {
        self.more.get_or_insert_default()
    }

    /// Keeps of `session` what the span has no value for, if it is not in another session, or of another user.
    pub(crate) fn mark(&mut self, session: Session, scope: Option<&Scope>) {
        let marked = self.more().marked.clone();
        let present = scope.map(Scope::to_session).unwrap_or_default();
        let present = present.or(marked.clone());
        let agrees = |role: Role| {
            // The span doesn't know what its author set.
            let is_unknown = self.fields().is_none() && self.has(role.key());
            let present = role.id(&present);
            !is_unknown && (present.is_none() || present == role.id(&session))
        };
        if Role::BOTH.into_iter().all(agrees) {
            // Nor does it know which other keys it has.
            self.more().marked = marked.or(session.without_attributes());
        }
    }

    /// Redacts an attribute. False if it must not be exported.
    pub(crate) fn redact(&self, attribute: &mut KeyValue) -> bool {
        let redaction = self.redaction.as_ref();
        redaction.is_none_or(|redaction| redaction.redact(attribute, self.named))
    }

    /// Redacts the attributes of an event or a link.
    pub(crate) fn redact_others(&self, attributes: &mut Vec<KeyValue>) {
        if let Some(redaction) = &self.redaction {
            redaction.redact_all(attributes, None);
        }
    }

    /// Adds what is missing on the span.
    #[inline]
    pub(crate) fn end(&self, scope: Option<&Scope>, span: &mut impl Span) {
        let mut write = |attribute| span.set_attribute(attribute);
        match (&self.more, &self.redaction, scope) {
            (None, None, None) => {}
            (None, None, Some(scope)) => format::write_scope(scope, None, &mut write),
            _ => self.end_with_more(scope, &mut write),
        }
    }

    #[inline(never)]
    fn end_with_more(&self, scope: Option<&Scope>, write: &mut impl FnMut(KeyValue)) {
        let is_rare = |more: &&Box<More>| !more.marked.is_empty() || !more.invalid.is_empty();
        let Some(more) = self.more.as_ref().filter(is_rare) else {
            return scope.map_or((), |it| it.with_values(|values| self.write(values, write)));
        };
        let values = scope.map(Scope::to_session).unwrap_or_default();
        let values = values.or(more.marked.clone());
        self.write(&values, write);
        for role in Role::BOTH
            .into_iter()
            .filter(|role| role.id(&values).is_none())
        {
            let mut invalid = more.invalid.iter().filter(|(of, _)| *of == role);
            let invalid = invalid.next_back().filter(|_| !self.has(role.key()));
            if let Some(mut attribute) = invalid.map(|(_, attribute)| attribute.clone()) {
                if self.redact(&mut attribute) {
                    write(attribute);
                }
            }
        }
    }

    fn write(&self, values: &Session, write: &mut impl FnMut(KeyValue)) {
        format::write_values(values, self.redaction.as_ref(), &mut |attribute| {
            if !self.has(attribute.key.as_str()) {
                write(attribute);
            }
        });
    }
}
