//! The attributes of one span: those that its author sets, and those that it inherits from its scope.
//!
//! An author's attribute stays in its place, so that samplers and span processors see it. The fields of an opener are not
//! exported themselves: an id is written once under its key, when the span starts if a field has set it, and otherwise when
//! the span ends. Metadata and tags are written when the span ends.

use crate::base::diagnostic;
use crate::base::error::ErrorKind;
use crate::export;
use crate::export::{OpenerFields, Redaction};
use crate::scope::opener::Opener;
use crate::scope::{Scope, bridge};
use crate::session::id::{has_id, is_id, is_invalid, plain_text};
use crate::session::keys::{
    self, ID, OURS, PLAIN_SESSION, PLAIN_SESSION_RENAMED, PLAIN_USER, PLAIN_USER_RENAMED, Part,
    Parts, SESSION_ID, USER_HASH, USER_ID, VALUE_KEYS,
};
use crate::session::{Id, IdKind, Session};
use crate::tracer::coverage::{Counted, Ending};
use opentelemetry::trace::{Span, SpanBuilder};
use opentelemetry::{Key, KeyValue, Value};
use std::sync::Arc;

/// Small, because a span is moved several times until it is in its place.
pub(crate) struct SpanAttributes {
    /// The scope that the span is in.
    pub(super) scope: Option<Arc<Scope>>,
    /// If the span is an opener: its fields set values of its scope.
    pub(super) opener: Option<Arc<Opener>>,
    redaction: Option<Arc<Redaction>>,
    renames_plain: bool,
    /// The scope has keys that the application chose, which no key filter contains.
    checks_every_key: bool,
    /// The ids that the span has already.
    pub(super) ids: Parts,
    /// The kind of id in the field `id` of this span, if values are redacted.
    id_field_kind: Option<IdKind>,
    pub(super) counted: Option<Counted>,
    pub(super) more: Option<Box<More>>,
}

/// The parts that few spans have.
#[derive(Default)]
pub(super) struct More {
    /// The keys of the scope that the span has already, except ids. Each once, however often they are set, and no other
    /// keys: a span may live long.
    keys: Vec<Key>,
    /// The values of a `mark_trace` in a descendant.
    pub(super) marked: Session,
    /// `mark_trace` has marked the ancestors of the span too.
    pub(super) with_ancestors: bool,
    /// Fields whose value isn't an id, by kind. They are exported if the span ends without an id.
    invalid: [Option<KeyValue>; 2],
    /// A future has adopted the span.
    pub(super) adopted: Option<Adopted>,
}

/// A future has adopted the span: see `scope/polled.rs`.
pub(super) struct Adopted {
    /// The scope that the span has outside the future.
    pub(super) own: Option<Arc<Scope>>,
    /// The session inside the future in which the span was entered first.
    pub(super) first: Session,
    /// Another user has entered the span in the same session.
    pub(super) has_two_users: bool,
}

/// The key of an attribute that is being removed. A static, because it is recognised by its address.
static REMOVED: &str = "tracing_session.removed";

/// The form of a field that holds an id.
#[derive(PartialEq)]
enum Form {
    /// The form in which the id is exported.
    Exported,
    /// Another type, with spaces or quotes, or not redacted.
    Other,
}

impl SpanAttributes {
    /// Checks the attributes that a span starts with: redacts them, and writes the ids that the fields of an
    /// opener have set by now, because samplers see them.
    #[inline(always)]
    pub(crate) fn start(
        builder: &mut SpanBuilder,
        scope: Option<Arc<Scope>>,
        is_opener: bool,
        redaction: Option<&Arc<Redaction>>,
        renames_plain: bool,
    ) -> Self {
        let opener = scope.as_ref().filter(|_| is_opener);
        let opener = opener.and_then(|it| it.opener());
        let has_attributes = scope.as_ref().is_some_and(|it| it.has_attributes());
        let mut own = Self {
            opener: opener.cloned(),
            redaction: redaction.cloned(),
            renames_plain,
            checks_every_key: has_attributes,
            ids: Parts::default(),
            id_field_kind: None,
            counted: None,
            more: None,
            scope,
        };
        let is_ours = |it: &KeyValue| OURS.may_match(it.key.as_str());
        let any = match redaction {
            Some(redaction) => own.redact_builder(builder, redaction),
            None if is_opener => false,
            None => (builder.attributes.as_deref()).is_some_and(|all| all.iter().any(is_ours)),
        };
        if any || is_opener || has_attributes {
            own.check_builder(builder);
        }
        own
    }

    /// Redacts events and links. False if no attribute matters.
    #[inline(always)]
    fn redact_builder(&mut self, builder: &mut SpanBuilder, redaction: &Redaction) -> bool {
        redaction.redact_builder(builder);
        let attributes = builder.attributes.get_or_insert_default();
        let marked = export::take_id_field_marker(attributes);
        self.id_field_kind = marked.or_else(|| keys::id_field_kind(&builder.name));
        keys::any_may_matter(attributes)
    }

    #[inline(never)]
    fn check_builder(&mut self, builder: &mut SpanBuilder) {
        let opener = self.opener.clone();
        self.checks_every_key |= opener.as_ref().is_some_and(|it| it.fields.have_details());
        let attributes = builder.attributes.get_or_insert_default();
        let mut rewritten = Parts::default();
        // From the last to the first, because the last value of a field counts.
        let (mut end, mut any_removed) = (attributes.len(), false);
        while let Some(at) = attributes[..end]
            .iter()
            .rposition(|it| self.may_matter(&it.key))
        {
            end = at;
            let attribute = &mut attributes[at];
            let field = self.id_field(attribute.key.as_str());
            let is_kept = match field.map(|kind| (kind, self.recorded(kind, attribute))) {
                // A value that was recorded before the last one.
                Some((kind, _)) if self.ids.have(kind.part()) => false,
                Some((kind, Some(form))) => {
                    self.ids = self.ids.with(kind.part());
                    if form == Form::Other {
                        rewritten = rewritten.with(kind.part());
                    }
                    // The exporter recognises the values of the session by the address of the key.
                    attribute.key = Key::from_static_str(kind.key());
                    form == Form::Exported
                }
                _ => self.admit(attribute),
            };
            if !is_kept {
                attribute.key = Key::from_static_str(REMOVED);
                any_removed = true;
            }
        }
        if any_removed {
            // Remove all at once, because there can be very many.
            attributes.retain(|it| !std::ptr::eq(it.key.as_str(), REMOVED));
        }
        let Some(opener) = opener else { return };
        opener.with_values(|set| {
            for kind in IdKind::BOTH {
                let Some(id) = kind.id(set) else { continue };
                if rewritten.have(kind.part()) || !self.ids.have(kind.part()) {
                    self.ids = self.ids.with(kind.part());
                    attributes.extend(export::encode_id(kind, id, self.redaction.as_ref()));
                }
            }
        });
        opener.start_with(self.ids);
    }

    /// False if an attribute with this key certainly stays unchanged, and the scope has no such key.
    #[inline(always)]
    pub(crate) fn may_matter(&self, key: &Key) -> bool {
        self.checks_every_key
            || match &self.redaction {
                None => OURS.may_match(key.as_str()),
                Some(_) => keys::may_matter(key.as_str()),
            }
    }

    /// Whether an attribute stays on the span. It may be redacted or renamed.
    #[inline(never)]
    pub(crate) fn admit(&mut self, attribute: &mut KeyValue) -> bool {
        let key = attribute.key.as_str();
        let kind = match key {
            SESSION_ID => Some(IdKind::Session),
            USER_ID => Some(IdKind::User),
            _ => None,
        };
        if let Some(kind) = kind {
            return self.admit_id(kind, attribute) && self.redact(attribute);
        }
        if let Some(kind) = self.fields().and_then(|it| it.id).filter(|_| key == ID) {
            return self.consume(kind, attribute);
        }
        let renamed = self.renamed(&attribute.key);
        let is_detail = self.fields().is_some_and(|it| it.have_detail(key));
        if is_detail || !self.redact(attribute) {
            return false;
        }
        if let Some(renamed) = renamed {
            attribute.key = Key::from_static_str(renamed);
        }
        let key = attribute.key.as_str();
        if VALUE_KEYS.contains(&key) || key == USER_HASH || self.scope_has_attribute(key) {
            self.add_key(&attribute.key);
        }
        true
    }

    /// Remembers that the span has an attribute with this key.
    pub(super) fn add_key(&mut self, key: &Key) {
        if !self.has(key.as_str()) {
            self.more().keys.push(key.clone());
        }
    }

    pub(super) fn scope_has_attribute(&self, key: &str) -> bool {
        self.scope.as_ref().is_some_and(|it| it.has_attribute(key))
    }

    /// Whether `session.id` or `user.id` stays: a field of the opener is consumed, and an invalid id gives way to the
    /// inherited one.
    fn admit_id(&mut self, kind: IdKind, attribute: &KeyValue) -> bool {
        let text = attribute.value.as_str();
        if self.id_field(attribute.key.as_str()).is_some() {
            // A valid id that wasn't recorded is the author's, set with OpenTelemetry's API.
            let is_recorded = bridge::is_recording() || self.recorded(kind, attribute).is_some();
            if is_recorded || !has_id(&text) {
                return self.consume(kind, attribute);
            }
        } else if !has_id(&text) && self.scope_has(&[kind]) {
            let error = Id::check(&plain_text(&text)).err();
            let error = error.unwrap_or(ErrorKind::Placeholder);
            diagnostic::own_attribute_ignored(kind.key(), error);
            return false;
        }
        self.ids = self.ids.with(kind.part());
        true
    }

    /// Consumes a field of the opener. An invalid value is kept for the end.
    fn consume(&mut self, kind: IdKind, attribute: &KeyValue) -> bool {
        if self.recorded(kind, attribute).is_none() && is_invalid(&attribute.value.as_str()) {
            self.more().invalid[kind as usize] = Some(attribute.clone());
        }
        false
    }

    /// The form of the last value that was recorded in a field of the opener. `None`: it is another value.
    #[inline(always)]
    fn recorded(&self, kind: IdKind, attribute: &KeyValue) -> Option<Form> {
        let opener = self.opener.as_ref()?;
        let is_text = self.redaction.is_none() && matches!(attribute.value, Value::String(_));
        let text = attribute.value.as_str();
        opener.with_values(|set| match kind.text(set)? {
            id if is_text && text == id => Some(Form::Exported),
            id => is_id(&text, id).then_some(Form::Other),
        })
    }

    /// The kind of id of `session.id` or `user.id`, if it is a field of the opener.
    fn id_field(&self, key: &str) -> Option<IdKind> {
        let fields = self.fields()?;
        let kind = match key {
            SESSION_ID => IdKind::Session,
            USER_ID => IdKind::User,
            _ => return None,
        };
        fields.own_keys.have(kind.part()).then_some(kind)
    }

    fn redact(&self, attribute: &mut KeyValue) -> bool {
        let redaction = self.redaction.as_ref();
        redaction.is_none_or(|it| it.redact(attribute, self.id_field_kind))
    }

    /// Redacts the attributes of an event or a link.
    pub(crate) fn redact_others(&self, attributes: &mut Vec<KeyValue>) {
        if let Some(redaction) = &self.redaction {
            redaction.redact_all(attributes);
        }
    }

    /// The key under which a plain attribute is exported: beside an id, or where the span may get one.
    fn renamed(&self, key: &Key) -> Option<&'static str> {
        let renamed = match key.as_str() {
            PLAIN_SESSION => PLAIN_SESSION_RENAMED,
            PLAIN_USER => PLAIN_USER_RENAMED,
            _ => return None,
        };
        let is_beside_id = self.opener.is_some() || self.scope_has(&IdKind::BOTH);
        (self.renames_plain && is_beside_id).then_some(renamed)
    }

    /// Whether the scope has one of these ids.
    fn scope_has(&self, roles: &[IdKind]) -> bool {
        let has = |values: &Session| roles.iter().any(|kind| kind.id(values).is_some());
        self.scope.as_ref().is_some_and(|it| it.with_values(has))
    }

    fn fields(&self) -> Option<&OpenerFields> {
        Some(&self.opener.as_ref()?.fields)
    }

    pub(super) fn more(&mut self) -> &mut More {
        self.more.get_or_insert_default()
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

    pub(super) fn scope_values(&self) -> Session {
        let scope = self.scope.as_ref();
        scope.map(|it| it.to_session()).unwrap_or_default()
    }

    /// How the span ends, for coverage.
    #[inline]
    pub(super) fn ending(&self, is_recording: bool) -> Ending {
        if !is_recording {
            return Ending::NotSampled;
        }
        let scope = self.scope.as_ref();
        let is_marked = |more: &More| more.marked.id.is_some();
        let has_id = scope.is_some_and(|it| it.with_values(|values| values.id.is_some()));
        if has_id || self.ids.have(Part::Session) || self.more.as_deref().is_some_and(is_marked) {
            let is_other =
                |it: &Arc<Scope>| it.inherited_id().is_some_and(|id| Some(id) != it.id());
            let replaces = self.opener.is_some() && scope.is_some_and(is_other);
            return Ending::InSession { replaces };
        }
        match scope.is_some_and(|it| it.open_parts().have(Part::Session)) {
            true => Ending::BeforeRecord,
            false => Ending::InNone,
        }
    }

    /// Writes the attributes that the span lacks.
    #[inline]
    pub(crate) fn end(&self, span: &mut impl Span) {
        let mut write = |attribute| span.set_attribute(attribute);
        match (&self.more, &self.scope) {
            (None, None) => {}
            (None, Some(scope)) if self.ids.is_empty() => {
                scope.with_values(|it| export::encode(it, self.redaction.as_ref(), &mut write));
            }
            (None, Some(scope)) => scope.with_values(|values| self.write(values, &mut write)),
            (Some(more), _) => {
                let mut values = self.scope_values();
                if self.agrees(&values, &more.marked) {
                    values = values.or(more.marked.clone());
                }
                self.write(&values, &mut write);
                self.write_invalid(more, &values, &mut write);
            }
        }
    }

    #[inline(never)]
    fn write(&self, values: &Session, write: &mut impl FnMut(KeyValue)) {
        let is_written = |kind: IdKind| self.ids.have(kind.part()) || kind.id(values).is_none();
        if values.details.is_none() && IdKind::BOTH.into_iter().all(is_written) {
            return;
        }
        export::encode(values, self.redaction.as_ref(), &mut |attribute| {
            if !self.has(attribute.key.as_str()) {
                write(attribute);
            }
        });
    }

    fn write_invalid(&self, more: &More, values: &Session, write: &mut impl FnMut(KeyValue)) {
        for (kind, invalid) in IdKind::BOTH.into_iter().zip(&more.invalid) {
            let lacks_id = kind.id(values).is_none() && !self.has(kind.key());
            if let Some(mut attribute) = invalid.clone().filter(|_| lacks_id) {
                if self.redact(&mut attribute) {
                    write(attribute);
                }
            }
        }
    }
}
