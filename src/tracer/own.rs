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
use crate::session::Role;
use crate::session::text::{id_text, is_invalid};
use crate::session::{Id, Session};
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

/// What hardly any span has.
#[derive(Default)]
struct More {
    /// The keys of the scope that the span has already.
    keys: Vec<Key>,
    /// The span is an opener.
    fields: Option<OpenerFields>,
    /// The ids that its fields had set when it started.
    started_with: Session,
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
        let more = fields.map(|fields| More {
            fields: Some(fields),
            ..More::default()
        });
        Self {
            renames_plain,
            looks_at_all: has_details || scope.is_some_and(Scope::has_attributes),
            redaction: redaction.cloned(),
            named: None,
            more: more.map(Box::new),
        }
    }

    /// False if an attribute with this key certainly stays where it is, and is none of the scope's.
    #[inline(always)]
    pub(crate) fn may_matter(&self, key: &Key) -> bool {
        match &self.redaction {
            None => self.looks_at_all || OURS.may_be(key.as_str()),
            Some(redaction) => self.looks_at_all || redaction.may_matter(key.as_str()),
        }
    }

    /// Looks through the attributes that the span starts with, redacts them, and writes the ids that the fields of
    /// an opener have set by now: samplers see them.
    #[inline(always)]
    pub(crate) fn start(&mut self, builder: &mut SpanBuilder, scope: Option<&Scope>) {
        let attributes = builder.attributes.get_or_insert_default();
        if self.redaction.is_some() {
            self.named =
                redaction::take_named(attributes).or_else(|| redaction::named(&builder.name));
        }
        if let Some(fields) = self.fields().cloned() {
            self.consume_fields(attributes, &fields);
        }
        if attributes.iter().any(|it| self.may_matter(&it.key)) {
            self.look_at_each(attributes, scope);
        }
        if let Some(redaction) = &self.redaction {
            redaction.redact_builder(builder, self.named);
        }
        if self.fields().is_some() {
            self.write_first(builder.attributes.get_or_insert_default());
        }
    }

    #[inline(never)]
    fn look_at_each(&mut self, attributes: &mut Vec<KeyValue>, scope: Option<&Scope>) {
        attributes.retain_mut(|it| !self.may_matter(&it.key) || self.keeps(it, scope));
    }

    /// Takes the fields of an opener that hold an id away.
    #[inline(never)]
    fn consume_fields(&mut self, attributes: &mut Vec<KeyValue>, fields: &OpenerFields) {
        let mut ids = fields.opener.values();
        ids.details = None;
        for role in Role::BOTH.into_iter().filter(|role| fields.hold(*role)) {
            let (key, id) = (role.key(), role.text(&ids));
            // The builder has each value that was recorded. Only one that the author set with OpenTelemetry's
            // API can come after the last of them, which is the id.
            let is_id = |it: &KeyValue| it.key.as_str() == key && id_text(&it.value).is_some();
            let last = attributes.iter().rposition(is_id);
            let own = last.filter(|at| id_text(&attributes[*at].value).as_deref() != id);
            let mut at = 0..;
            attributes.retain(|it| {
                let is_own = at.next() == own;
                it.key.as_str() != key || is_own || self.consumes(role, it)
            });
        }
        self.more().started_with = ids;
    }

    #[inline(never)]
    fn write_first(&mut self, attributes: &mut Vec<KeyValue>) {
        let ids = self.more().started_with.clone();
        self.write(&ids, &mut |attribute| attributes.push(attribute));
        let set = Role::BOTH
            .into_iter()
            .filter(|role| role.id(&ids).is_some());
        let keys = set.map(|role| Key::from_static_str(role.key()));
        self.more().keys.extend(keys);
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

    /// Whether an attribute stays on the span. If it does, its key is the author's.
    #[inline(never)]
    pub(crate) fn keeps(&mut self, attribute: &mut KeyValue, scope: Option<&Scope>) -> bool {
        match attribute.key.as_str() {
            SESSION_ID if !self.keeps_id(Role::Session, attribute, scope) => return false,
            USER_ID if !self.keeps_id(Role::User, attribute, scope) => return false,
            ID => {
                if let Some(role) = self.fields().and_then(|it| it.ids.id) {
                    return self.consumes(role, attribute);
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
        let id = id_text(&attribute.value);
        if let Some(fields) = self.fields().filter(|fields| fields.hold(role)) {
            // Set by the author with OpenTelemetry's API, rather than recorded.
            let is_own = id.is_some() && id.as_deref() != role.text(&fields.opener.values());
            return is_own || self.consumes(role, attribute);
        }
        let (None, Some(scope)) = (id, scope) else {
            return true;
        };
        if let Err(error) = Id::new(&attribute.value.as_str()) {
            diagnostic::own_attribute_ignored(role.key(), error);
        }
        scope.with_values(|values| role.id(values).is_none())
    }

    /// Takes a field of an opener away. False: it does not stay.
    fn consumes(&mut self, role: Role, attribute: &KeyValue) -> bool {
        if let Some(fields) = self.fields() {
            self.warn_of_change(role, &fields.opener.values());
        }
        if is_invalid(&attribute.value) {
            self.more().invalid.push((role, attribute.clone()));
        }
        false
    }

    /// Tells the author where an id is set that the span is not exported with: it has started with another.
    fn warn_of_change(&self, role: Role, set: &Session) {
        let Some(More {
            fields: Some(fields),
            started_with,
            ..
        }) = self.more.as_deref()
        else {
            return;
        };
        let (first, last) = (role.id(started_with), role.id(set));
        if first.is_some() && last.is_some() && first != last {
            diagnostic::id_kept(fields.metadata, role.key());
        }
    }

    /// Takes note of a session that is set on the span, which has started.
    pub(crate) fn bind(&mut self, session: &Session) {
        for role in Role::BOTH {
            self.warn_of_change(role, session);
        }
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
    pub(crate) fn has(&self, key: &str) -> bool {
        let is_it = |own: &str| own == key || own == USER_ID && key == USER_HASH;
        let mut keys = self.more.iter().flat_map(|more| &more.keys);
        keys.any(|own| is_it(own.as_str()))
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
        let present = scope
            .map(Scope::to_session)
            .unwrap_or_default()
            .or(marked.clone());
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

    /// Adds what is missing on the span.
    #[inline]
    pub(crate) fn end(&self, scope: Option<&Scope>, span: &mut impl Span) {
        let mut write = |attribute| span.set_attribute(attribute);
        match (&self.more, scope) {
            (Some(more), scope) => self.end_with(more, scope, &mut write),
            (None, Some(scope)) => scope.with_values(|values| self.write(values, &mut write)),
            (None, None) => {}
        }
    }

    #[cold]
    fn end_with(&self, more: &More, scope: Option<&Scope>, write: &mut impl FnMut(KeyValue)) {
        let values = scope.map(Scope::to_session).unwrap_or_default();
        let values = values.or(more.marked.clone());
        self.write(&values, write);
        for role in Role::BOTH
            .into_iter()
            .filter(|role| role.id(&values).is_none())
        {
            let mut invalid = more.invalid.iter().filter(|(of, _)| *of == role);
            if let Some((_, attribute)) = invalid.next_back().filter(|_| !self.has(role.key())) {
                let mut attribute = attribute.clone();
                if self.redact(&mut attribute) {
                    write(attribute);
                }
            }
        }
    }

    #[inline(always)]
    fn write(&self, values: &Session, write: &mut impl FnMut(KeyValue)) {
        format::write_values(values, self.redaction.as_ref(), &mut |attribute| {
            if self.more.is_none() || !self.has(attribute.key.as_str()) {
                write(attribute);
            }
        });
    }
}
