//! Attributes of a span that are written from its scope, held back when its author sets them too.
//!
//! The SDK's spans only append, so what is exported is decided once, when the span ends: the
//! author's own value wins on the span, metadata and tags are joined with it, and no key is written
//! twice.

use crate::attributes::{
    self, Glance, ID, METADATA, METADATA_FIELD, PLAIN_SESSION, PLAIN_USER, PROMPT_TEMPLATE,
    PROMPT_TEMPLATE_VARIABLES, PROMPT_TEMPLATE_VERSION, SESSION_ID, TAGS, USER_ID,
};
use crate::details::{self, Details};
use crate::diagnostic;
use crate::fields;
use crate::format::{self, Format};
use crate::handover::Opening;
use crate::scope::{Role, Scope};
use crate::session::{Id, Session};
use crate::text::{repeats, unquoted};
use opentelemetry::trace::Span;
use opentelemetry::{Array, Key, KeyValue, Value};
use serde_json::Value as Json;
use std::sync::Arc;

/// What a span does with attributes that are written from its scope.
pub(crate) struct SpanAttributes {
    opening: Opening,
    /// Where there is none, the usual one.
    format: Option<Arc<Format>>,
    watched: Watched,
    held: Option<Box<Held>>,
}

/// Only for spans that have any of this.
#[derive(Default)]
struct Held {
    /// Set on this span by its author.
    own: Session,
    /// The same, of what is not known to `Session`.
    others: Vec<KeyValue>,
    /// Set from below, by `mark_trace`.
    marked: Session,
    plain_session: Option<Value>,
    plain_user: Option<Value>,
    /// The scope that the span's fields opened, where another was set inside it.
    opened: Option<Arc<Scope>>,
}

/// Attributes that are not passed on as they come.
#[derive(Clone, Copy)]
enum Reserved {
    /// An id, under this key.
    Id(Role, &'static str),
    /// A key of OpenInference that the span's scope has a value for.
    Detail,
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
    Ids,
    IdsAndDetails,
    All,
}

const IDS: Glance = Glance::of(&[SESSION_ID, USER_ID, PLAIN_SESSION, PLAIN_USER, ID]);
const IDS_AND_DETAILS: Glance = IDS.and_all(Glance::of(&details::KEYS));

impl SpanAttributes {
    #[inline]
    pub(crate) fn new(
        opening: Opening,
        format: Option<&Arc<Format>>,
        scope: Option<&Scope>,
    ) -> Self {
        let watched = match scope {
            _ if format.is_some() || opening.names_details => Watched::All,
            Some(scope) if !scope.details().are_none() => watched_in(scope),
            _ => Watched::Ids,
        };
        Self {
            opening,
            format: format.cloned(),
            watched,
            held: None,
        }
    }

    /// Takes what is reserved out of the attributes that the span starts with.
    #[inline]
    pub(crate) fn take_reserved(&mut self, given: &mut Vec<KeyValue>, scope: Option<&Scope>) {
        let may_be_id = |attribute: &KeyValue| IDS.may_be(attribute.key.as_str());
        if self.watched != Watched::Ids || given.iter().any(may_be_id) {
            self.take(given, scope);
        }
    }

    #[inline(never)]
    fn take(&mut self, given: &mut Vec<KeyValue>, scope: Option<&Scope>) {
        let mut keys = given.iter().map(|attribute| attribute.key.as_str());
        let first = match self.watched {
            Watched::Ids => keys.position(|key| IDS.may_be(key)),
            Watched::IdsAndDetails => keys.position(is_detail),
            Watched::All => Some(0),
        };
        let Some(first) = first else { return };
        let mut kept = first;
        for at in first..given.len() {
            if let Some(reserved) = self.reserved(&given[at], scope) {
                let value = std::mem::replace(&mut given[at].value, Value::Bool(false));
                self.hold(reserved, &given[at].key, value, scope);
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
        match self.watched {
            Watched::Ids => IDS.may_be(attribute.key.as_str()),
            _ => self.may_hold_detail(attribute.key.as_str()),
        }
    }

    #[inline(never)]
    fn may_hold_detail(&self, key: &str) -> bool {
        self.watched == Watched::All || is_detail(key)
    }

    /// Holds an attribute back, or gives it again.
    #[inline(never)]
    pub(crate) fn set(&mut self, attribute: KeyValue, scope: Option<&Scope>) -> Option<KeyValue> {
        match self.reserved(&attribute, scope) {
            None => Some(attribute),
            Some(reserved) => {
                self.hold(reserved, &attribute.key, attribute.value, scope);
                None
            }
        }
    }

    fn hold(&mut self, reserved: Reserved, key: &Key, value: Value, scope: Option<&Scope>) {
        match reserved {
            Reserved::Said => {}
            Reserved::Id(role, key) => self.hold_own(key, role, &value, scope),
            Reserved::PlainSession => self.held().plain_session = Some(value),
            Reserved::PlainUser => self.held().plain_user = Some(value),
            Reserved::Detail => self.held().set_detail(key, value),
            Reserved::Other => self.held().set_other(KeyValue::new(key.clone(), value)),
        }
    }

    #[inline(always)]
    fn reserved(&self, attribute: &KeyValue, scope: Option<&Scope>) -> Option<Reserved> {
        if self.may_hold(attribute) {
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
            ID if self.opening.names_id => Some(Reserved::Said),
            key if self.opening.names_details && fields::is_detail(key) => Some(Reserved::Said),
            _ if self.watched == Watched::Ids => None,
            key => self.look_up_details(key, &attribute.value, scope),
        }
    }

    fn look_up_details(&self, key: &str, value: &Value, scope: Option<&Scope>) -> Option<Reserved> {
        if let Some((role, key)) = self.format.as_ref().and_then(|format| format.role(key)) {
            return Some(Reserved::Id(role, key));
        }
        // Phoenix does not see an entry by itself beside the others.
        if details::KEYS.contains(&key) || key.starts_with(METADATA_FIELD) {
            return Some(Reserved::Detail);
        }
        let is_said = |said: Arc<Details>| said.attributes.iter().any(|it| it.key.as_str() == key);
        let is_hidden = |format: &Format| {
            let may_be_id = self.opening.opens || matches!(value, Value::String(_));
            may_be_id && scope.is_some_and(|scope| format.hides(value, scope))
        };
        let is_other = scope
            .and_then(|scope| scope.details().get())
            .is_some_and(is_said)
            || self
                .format
                .as_ref()
                .is_some_and(|it| it.minds(key) || is_hidden(it));
        is_other.then_some(Reserved::Other)
    }

    fn renames_plain(&self) -> bool {
        self.format
            .as_ref()
            .is_none_or(|format| format.renames_plain)
    }

    /// Another scope is set inside the one that the span's fields opened: what is recorded from now
    /// on is still of the fields.
    pub(crate) fn keep_opened(&mut self, scope: Option<Arc<Scope>>) {
        if self.opening.opens {
            let opened = &mut self.held().opened;
            *opened = opened.take().or(scope);
        }
    }

    fn opened<'a>(&'a self, scope: Option<&'a Scope>) -> Option<&'a Scope> {
        let kept = self.held.as_ref().and_then(|held| held.opened.as_deref());
        kept.or(scope).filter(|_| self.opening.opens)
    }

    fn hold_own(&mut self, key: &'static str, role: Role, value: &Value, scope: Option<&Scope>) {
        let text = value.as_str();
        let said = self.opened(scope).and_then(|opened| opened.get(role));
        let own = if repeats(&text, said.as_ref()) {
            None
        } else {
            match Id::new(&text) {
                Ok(id) => Some(id),
                Err(error) => {
                    // Of a field the layer has told already, with its place in the code.
                    if !self.opening.opens {
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

    fn held(&mut self) -> &mut Held {
        self.held.get_or_insert_default()
    }

    /// Keeps of `session` what the span has no value for.
    pub(crate) fn mark(&mut self, session: Session, scope: Option<&Scope>) {
        let held = self.held();
        let present = held.resolve(scope);
        if present.id.is_none() {
            held.marked.id = session.id;
        }
        if present.user_id.is_none() {
            held.marked.user_id = session.user_id;
        }
        held.marked.details = session.details;
    }

    /// Writes what the span is exported with.
    #[inline]
    pub(crate) fn write(&mut self, scope: Option<&Scope>, span: &mut impl Span) {
        if self.watched != Watched::Ids || self.held.is_some() {
            self.write_more(scope, span);
        } else if let Some(scope) = scope {
            if span.is_recording() {
                format::write_ids(scope, &mut |it| span.set_attribute(it));
            }
        }
    }

    #[inline(never)]
    fn write_more(&mut self, scope: Option<&Scope>, span: &mut impl Span) {
        if let Some(held) = self.held.take() {
            held.write(scope, self.format.as_ref(), span);
        } else if let Some(scope) = scope {
            if span.is_recording() {
                format::write_scope(scope, self.format.as_ref(), &mut |it| {
                    span.set_attribute(it)
                });
            }
        }
    }
}

#[inline(always)]
fn is_detail(key: &str) -> bool {
    // Nine bytes of a known length are compared at once.
    let start = key.as_bytes().first_chunk::<{ METADATA_FIELD.len() }>();
    IDS_AND_DETAILS.may_be(key) || start.is_some_and(|start| start == METADATA_FIELD.as_bytes())
}

#[cold]
fn watched_in(scope: &Scope) -> Watched {
    if scope.details().have_attributes() {
        Watched::All
    } else {
        Watched::IdsAndDetails
    }
}

impl Held {
    fn set_detail(&mut self, key: &Key, value: Value) {
        let set = |own: &mut Details| own.set_own(key.as_str(), &value);
        if !Details::change_if(&mut self.own.details, set) {
            self.set_other(KeyValue::new(key.clone(), value));
        }
    }

    fn set_other(&mut self, attribute: KeyValue) {
        self.others.retain(|other| other.key != attribute.key);
        self.others.push(attribute);
    }

    /// The values that the span would be exported with now.
    fn resolve(&self, scope: Option<&Scope>) -> Session {
        let inherited = scope.map(Scope::to_session).unwrap_or_default();
        self.own.clone().or(inherited).or(self.marked.clone())
    }

    #[cold]
    fn write(self, scope: Option<&Scope>, format: Option<&Arc<Format>>, span: &mut impl Span) {
        let values = self.resolve(scope);
        let beside = values.id.is_some() || values.user_id.is_some();
        let plain = [
            (
                self.plain_session,
                PLAIN_SESSION,
                attributes::PLAIN_SESSION_RENAMED,
            ),
            (self.plain_user, PLAIN_USER, attributes::PLAIN_USER_RENAMED),
        ];
        let mut own = self.others;
        for (value, key, renamed) in plain {
            own.extend(value.map(|it| KeyValue::new(if beside { renamed } else { key }, it)));
        }
        let keys: Vec<_> = own.iter().map(|attribute| attribute.key.clone()).collect();
        let mut write = |attribute: KeyValue| {
            if !keys.contains(&attribute.key) {
                span.set_attribute(attribute);
            }
        };
        format::write_values(&values, format, &mut write);
        for attribute in own {
            let shown = match format {
                None => Some(attribute),
                Some(format) => format.show(attribute, &values),
            };
            if let Some(attribute) = shown {
                span.set_attribute(attribute);
            }
        }
    }
}

impl Details {
    /// What the author of a span set under a key of OpenInference. False if it is not in its form.
    fn set_own(&mut self, key: &str, value: &Value) -> bool {
        let object = || match serde_json::from_str(&value.as_str()) {
            Ok(Json::Object(object)) => Some(object),
            _ => None,
        };
        match (key, value) {
            (METADATA, _) => {
                let Some(object) = object() else { return false };
                for (key, value) in object {
                    self.set_metadata(&key, value);
                }
            }
            (TAGS, Value::Array(Array::String(tags))) => self.tags.clone_from(tags),
            (PROMPT_TEMPLATE, Value::String(text)) => self.template = Some(text.clone()),
            (PROMPT_TEMPLATE_VERSION, Value::String(text)) => {
                self.template_version = Some(text.clone());
            }
            (PROMPT_TEMPLATE_VARIABLES, _) => {
                let Some(object) = object() else { return false };
                self.template_variables = Some(object.into());
            }
            (key, value) => {
                let Some(key) = key.strip_prefix(METADATA_FIELD) else {
                    return false;
                };
                let Some(value) = json(value) else {
                    return false;
                };
                self.set_metadata(key, value);
            }
        }
        true
    }
}

fn json(value: &Value) -> Option<Json> {
    Some(match value {
        Value::Bool(value) => (*value).into(),
        Value::I64(value) => (*value).into(),
        Value::F64(value) => (*value).into(),
        Value::String(value) => match unquoted(value.as_str()) {
            Some(text) => text.into(),
            None => value.as_str().into(),
        },
        _ => return None,
    })
}
