//! Which attributes a span has of its own. At the end only the missing ones are added.
//!
//! An attribute that the span's author set stays where it was put, so that samplers and processors see it.
//! Only our own syntax is consumed: the fields of an opener that hold an id, metadata or tags. The scope has
//! their values, and they are exported under the keys of the scope.

use crate::diagnostic;
use crate::error::ErrorKind;
use crate::format;
use crate::format::privacy;
use crate::format::redaction::{self, Redaction};
use crate::scope::Scope;
use crate::scope::opener::{Opener, OpenerFields};
use crate::session::details::{Part, Parts};
use crate::session::keys::{
    ID, OURS, PLAIN_SESSION, PLAIN_SESSION_RENAMED, PLAIN_USER, PLAIN_USER_RENAMED, SESSION_ID,
    USER_HASH, USER_ID, VALUE_KEYS,
};
use crate::session::text::{id_text, is_id, is_invalid};
use crate::session::{Id, IdKind, Session};
use opentelemetry::trace::{Span, SpanBuilder};
use opentelemetry::{Key, KeyValue};
use std::sync::Arc;

/// Small, because each span is moved several times before it is in its place.
pub(crate) struct Own {
    renames_plain: bool,
    /// The session has attributes of the application's own: each key of the span may be one of these.
    looks_at_all: bool,
    redaction: Option<Arc<Redaction>>,
    /// The fields of the span set values of its scope.
    opener: Option<Arc<Opener>>,
    /// The ids that the span has already.
    ids: Parts,
    /// While the span starts: the ids whose last value in the builder is known.
    settled: Option<Parts>,
    /// The id that a field `id` of the span holds, where values are redacted.
    named: Option<IdKind>,
    more: Option<Box<More>>,
}

/// What few spans have.
#[derive(Default)]
struct More {
    /// The keys of the scope that the span has already, beside ids.
    keys: Vec<Key>,
    /// The ids that the fields of an opener had set when it started.
    started_with: Session,
    /// Set by `mark_trace` in a span below.
    marked: Session,
    /// Values under the key of an id that are no id. They are exported if the span ends without one.
    invalid: Vec<(IdKind, KeyValue)>,
}

impl Own {
    #[inline(always)]
    pub(crate) fn new(
        opener: Option<&Arc<Opener>>,
        scope: Option<&Scope>,
        renames_plain: bool,
        redaction: Option<&Arc<Redaction>>,
    ) -> Self {
        Self {
            renames_plain,
            looks_at_all: opener.is_some_and(|it| it.fields.has_details)
                || scope.is_some_and(Scope::has_attributes),
            redaction: redaction.cloned(),
            opener: opener.cloned(),
            ids: Parts::default(),
            settled: None,
            named: None,
            more: None,
        }
    }

    /// False if an attribute with this key certainly stays where it is, and is none of the scope's.
    #[inline(always)]
    pub(crate) fn may_matter(&self, key: &Key) -> bool {
        self.looks_at_all
            || match &self.redaction {
                None => OURS.may_match(key.as_str()),
                Some(_) => privacy::may_matter(key.as_str()),
            }
    }

    /// Looks through the attributes that the span starts with, redacts them, and writes the ids that the fields of
    /// an opener have set by now: samplers see them.
    #[inline(always)]
    pub(crate) fn start(&mut self, builder: &mut SpanBuilder, scope: Option<&Scope>) {
        let is_ours = |it: &KeyValue| OURS.may_match(it.key.as_str());
        let any = match (&self.redaction, &builder.attributes) {
            (Some(_), _) => self.start_redacted(builder),
            (None, Some(attributes)) if self.opener.is_none() => attributes.iter().any(is_ours),
            (None, _) => false,
        };
        if any || self.opener.is_some() || self.looks_at_all {
            self.look_at_each(builder, scope);
        }
    }

    /// Redacts events and links. False if no attribute matters.
    #[inline(never)]
    fn start_redacted(&mut self, builder: &mut SpanBuilder) -> bool {
        let Some(redaction) = &self.redaction else {
            return false;
        };
        redaction.redact_builder(builder);
        let attributes = builder.attributes.get_or_insert_default();
        let named = redaction::take_id_field_marker(attributes);
        self.named = named.or_else(|| privacy::id_field_kind(&builder.name));
        privacy::any_may_matter(attributes)
    }

    #[inline(never)]
    fn look_at_each(&mut self, builder: &mut SpanBuilder, scope: Option<&Scope>) {
        let attributes = builder.attributes.get_or_insert_default();
        // From the last to the first: of the values of a field, the last one counts.
        self.settled = Some(Parts::default());
        for at in (0..attributes.len()).rev() {
            if self.may_matter(&attributes[at].key) && !self.passes(&mut attributes[at], scope) {
                attributes.remove(at);
            }
        }
        self.settled = None;
        if let Some(opener) = self.opener.clone() {
            let attributes = builder.attributes.get_or_insert_default();
            opener.with_values(|set| {
                format::encode_ids(set, self.redaction.as_ref(), &mut |attribute| {
                    if !self.has(attribute.key.as_str()) {
                        attributes.push(attribute);
                    }
                });
                for role in IdKind::BOTH
                    .into_iter()
                    .filter(|role| role.id(set).is_some())
                {
                    self.ids = self.ids.with(role.part());
                }
                if *set != opener.set {
                    self.more().started_with = set.ids();
                }
            });
        }
    }

    /// Whether an attribute stays on the span: redacted, and with a name that no id is hurt by.
    #[inline(never)]
    pub(crate) fn passes(&mut self, attribute: &mut KeyValue, scope: Option<&Scope>) -> bool {
        let renamed = match attribute.key.as_str() {
            PLAIN_SESSION if self.renames(scope) => Some(PLAIN_SESSION_RENAMED),
            PLAIN_USER if self.renames(scope) => Some(PLAIN_USER_RENAMED),
            _ => None,
        };
        let passes = self.keeps(attribute, scope)
            && match &self.redaction {
                None => true,
                Some(redaction) => redaction.redact(attribute, self.named),
            };
        if let Some(renamed) = renamed {
            attribute.key = Key::from_static_str(renamed);
        }
        passes
    }

    /// Whether an attribute is no field of ours. Then its key is the author's.
    fn keeps(&mut self, attribute: &KeyValue, scope: Option<&Scope>) -> bool {
        match attribute.key.as_str() {
            SESSION_ID => return self.keeps_id(IdKind::Session, attribute, scope),
            USER_ID => return self.keeps_id(IdKind::User, attribute, scope),
            ID => {
                if let Some(role) = self.fields().ids.id {
                    self.consume(role, attribute, true);
                    return false;
                }
            }
            key if self.fields().have_detail(key) => return false,
            key if VALUE_KEYS.contains(&key) || key == USER_HASH || self.looks_at_all => {
                self.more().keys.push(attribute.key.clone());
            }
            _ => {}
        }
        true
    }

    fn keeps_id(&mut self, role: IdKind, attribute: &KeyValue, scope: Option<&Scope>) -> bool {
        if self.fields().hold(role) {
            let text = &attribute.value.as_str();
            let is_set = |set: &Session| role.text(set).is_some_and(|id| is_id(text, id));
            let opener = self.opener.as_ref();
            let is_recorded = opener.is_some_and(|opener| opener.with_values(is_set));
            let has_id = is_recorded || id_text(text).is_some();
            // In a builder: recorded before the last value.
            let is_earlier = self
                .settled
                .is_some_and(|settled| settled.have(role.part()));
            self.settled = self
                .settled
                .filter(|_| !has_id)
                .or(self.settled.map(|it| it.with(role.part())));
            // Set by the author with OpenTelemetry's API, rather than recorded.
            let is_own = has_id && !is_recorded && !is_earlier;
            match is_own {
                true => self.ids = self.ids.with(role.part()),
                false => self.consume(role, attribute, !has_id),
            }
            return is_own;
        }
        if let (None, Some(scope)) = (id_text(&attribute.value.as_str()), scope) {
            if scope.with_values(|values| role.id(values).is_some()) {
                let error = Id::check(&attribute.value.as_str()).err();
                let error = error.unwrap_or(ErrorKind::Placeholder);
                diagnostic::own_attribute_ignored(role.key(), error);
                return false;
            }
        }
        self.ids = self.ids.with(role.part());
        true
    }

    /// Takes note of a field of an opener that goes.
    fn consume(&mut self, role: IdKind, attribute: &KeyValue, may_be_invalid: bool) {
        if let Some(opener) = self.opener.as_ref().filter(|_| self.ids.have(role.part())) {
            opener.with_values(|set| self.warn_of_change(role, set));
        }
        if may_be_invalid && is_invalid(&attribute.value.as_str()) {
            self.more().invalid.push((role, attribute.clone()));
        }
    }

    /// Tells the author where an id is set that the span is not exported with: it has started with another.
    fn warn_of_change(&self, role: IdKind, set: &Session) {
        let Some(opener) = self.opener.as_ref().filter(|_| self.ids.have(role.part())) else {
            return;
        };
        let first = self
            .more
            .as_ref()
            .and_then(|more| role.text(&more.started_with));
        let (first, last) = (first.or(role.text(&opener.set)), role.text(set));
        if let Some(span) = opener
            .fields
            .metadata
            .filter(|_| first.is_some() && last.is_some())
        {
            if first != last {
                diagnostic::id_kept(span, role.key());
            }
        }
    }

    /// Takes note of a session that is set on the span, which has started.
    pub(crate) fn bind(&mut self, session: &Session) {
        IdKind::BOTH
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
            && (self.opener.is_some() || scope.is_some_and(|scope| scope.with_values(has_id)))
    }

    /// Whether the span has an attribute with this key.
    #[inline]
    fn has(&self, key: &str) -> bool {
        match key {
            SESSION_ID => self.ids.have(Part::Session),
            USER_ID | USER_HASH if self.ids.have(Part::User) => true,
            key => {
                let mut keys = self.more.iter().flat_map(|more| &more.keys);
                keys.any(|own| own.as_str() == key)
            }
        }
    }

    fn fields(&self) -> OpenerFields {
        self.opener
            .as_ref()
            .map(|opener| opener.fields)
            .unwrap_or_default()
    }

    fn more(&mut self) -> &mut More {
        self.more.get_or_insert_default()
    }

    /// Keeps of `session` what the span has no value for, if it is not in another session, or of another user.
    pub(crate) fn mark(&mut self, session: Session, scope: Option<&Scope>) {
        let marked = self.more().marked.clone();
        let present = scope.map(Scope::to_session).unwrap_or_default();
        let present = present.or(marked.clone());
        let agrees = |role: IdKind| {
            // The span doesn't know what its author set.
            let is_unknown = self.opener.is_none() && self.ids.have(role.part());
            let present = role.id(&present);
            !is_unknown && (present.is_none() || present == role.id(&session))
        };
        if IdKind::BOTH.into_iter().all(agrees) {
            // Nor does it know which other keys it has.
            self.more().marked = marked.or(session.without_attributes());
        }
    }

    /// Redacts the attributes of an event or a link.
    pub(crate) fn redact_others(&self, attributes: &mut Vec<KeyValue>) {
        if let Some(redaction) = &self.redaction {
            redaction.redact_all(attributes);
        }
    }

    /// Adds what is missing on the span.
    #[inline]
    pub(crate) fn end(&self, scope: Option<&Scope>, span: &mut impl Span) {
        let mut write = |attribute| span.set_attribute(attribute);
        if self.more.is_none() && self.ids.is_empty() {
            if let Some(scope) = scope {
                let redaction = self.redaction.as_ref();
                scope.with_values(|values| format::encode(values, redaction, &mut write));
            }
        } else {
            self.end_with_more(scope, &mut write);
        }
    }

    #[inline(never)]
    fn end_with_more(&self, scope: Option<&Scope>, write: &mut impl FnMut(KeyValue)) {
        let is_rare = |more: &More| !more.marked.is_empty() || !more.invalid.is_empty();
        let Some(more) = self.more.as_deref().filter(|it| is_rare(it)) else {
            return scope.map_or((), |it| it.with_values(|values| self.write(values, write)));
        };
        let values = scope.map(Scope::to_session).unwrap_or_default();
        let values = values.or(more.marked.clone());
        self.write(&values, write);
        for role in IdKind::BOTH
            .into_iter()
            .filter(|role| role.id(&values).is_none())
        {
            let mut invalid = more.invalid.iter().filter(|(of, _)| *of == role);
            let invalid = invalid.next_back().filter(|_| !self.has(role.key()));
            if let Some(mut attribute) = invalid.map(|(_, attribute)| attribute.clone()) {
                let redaction = self.redaction.as_ref();
                if redaction.is_none_or(|it| it.redact(&mut attribute, self.named)) {
                    write(attribute);
                }
            }
        }
    }

    fn write(&self, values: &Session, write: &mut impl FnMut(KeyValue)) {
        let is_written = |role: IdKind| self.ids.have(role.part()) || role.id(values).is_none();
        if values.details.is_none() && IdKind::BOTH.into_iter().all(is_written) {
            return;
        }
        format::encode(values, self.redaction.as_ref(), &mut |attribute| {
            if !self.has(attribute.key.as_str()) {
                write(attribute);
            }
        });
    }
}
