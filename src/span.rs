//! Scopes are written on spans: when a span ends, once for each key, in one place.

use crate::attributes::{self, Glance, ID, PLAIN_SESSION, PLAIN_USER, SESSION_ID, USER_ID};
use crate::diagnostic;
use crate::fields::unquoted;
use crate::handover::{self, Errand, Opening};
use crate::scope::{self, Role, Scope};
use crate::session::{Id, Session};
use opentelemetry::trace::{Span, SpanContext, Status};
use opentelemetry::{Key, KeyValue, Value};
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

/// A span of a [`SessionTracer`](crate::SessionTracer): it writes the session that it is in when
/// it ends.
///
/// ```
/// use opentelemetry::trace::{Span, Tracer, TracerProvider};
/// # use opentelemetry_sdk::trace::SdkTracerProvider;
/// # use tracing_session::SessionTracerProvider;
/// let tracer = SessionTracerProvider::new(SdkTracerProvider::default()).tracer("library");
/// let mut span = tracer.start("made without tracing");
/// span.end();
/// ```
pub struct SessionSpan<S: Span> {
    inner: S,
    scope: Option<Arc<Scope>>,
    /// The scope is found by the span's id, until the span is dropped.
    bound: bool,
    ended: bool,
    attributes: SpanAttributes,
}

impl<S: Span> SessionSpan<S> {
    #[inline]
    pub(crate) fn new(
        inner: S,
        scope: Option<Arc<Scope>>,
        bound: bool,
        attributes: SpanAttributes,
    ) -> Self {
        Self {
            bound: bound && bind(inner.span_context(), &scope),
            inner,
            scope,
            ended: false,
            attributes,
        }
    }

    fn run(&mut self, errand: Errand) {
        match errand {
            Errand::Bind(session) => {
                let outer = self.scope.take();
                self.scope = Some(Scope::nested(outer.clone(), (&session).into()));
                self.attributes.keep_opened(outer);
                self.bound = bind(self.inner.span_context(), &self.scope);
            }
            Errand::Mark(session) => self.attributes.mark(session, self.scope.as_deref()),
        }
    }

    fn set_reserved(&mut self, attribute: KeyValue) {
        match self.attributes.reserved(&attribute.key) {
            None => self.inner.set_attribute(attribute),
            Some(reserved) => {
                let scope = self.scope.as_deref();
                self.attributes.hold(reserved, attribute.value, scope);
            }
        }
    }

    fn write(&mut self) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        if let Some(held) = self.attributes.held.take() {
            held.write(self.scope.as_deref(), &mut self.inner);
        } else if let Some(scope) = &self.scope {
            if self.inner.is_recording() {
                write(SESSION_ID, scope.id(), &mut self.inner);
                write(USER_ID, scope.user_id(), &mut self.inner);
            }
        }
    }
}

/// Lets a scope be found by the span's id. Where telemetry is suppressed spans have no id, and
/// nothing below them is exported.
#[cold]
fn bind(span: &SpanContext, scope: &Option<Arc<Scope>>) -> bool {
    match scope {
        Some(scope) if span.is_valid() => {
            scope::bind(span, scope.clone());
            true
        }
        _ => false,
    }
}

impl<S: Span> Span for SessionSpan<S> {
    fn add_event_with_timestamp<T>(
        &mut self,
        name: T,
        timestamp: SystemTime,
        attributes: Vec<KeyValue>,
    ) where
        T: Into<Cow<'static, str>>,
    {
        self.inner
            .add_event_with_timestamp(name, timestamp, attributes);
    }

    fn span_context(&self) -> &SpanContext {
        self.inner.span_context()
    }

    fn is_recording(&self) -> bool {
        self.inner.is_recording()
    }

    fn set_attribute(&mut self, attribute: KeyValue) {
        if RESERVED.may_be(attribute.key.as_str()) {
            self.set_reserved(attribute);
        } else {
            self.inner.set_attribute(attribute);
        }
    }

    fn set_status(&mut self, status: Status) {
        if status != Status::Unset {
            self.inner.set_status(status);
        } else if let Some(errand) = handover::errand() {
            self.run(errand);
        }
    }

    fn update_name<T>(&mut self, new_name: T)
    where
        T: Into<Cow<'static, str>>,
    {
        self.inner.update_name(new_name);
    }

    fn add_link(&mut self, span_context: SpanContext, attributes: Vec<KeyValue>) {
        self.inner.add_link(span_context, attributes);
    }

    fn end_with_timestamp(&mut self, timestamp: SystemTime) {
        self.write();
        self.inner.end_with_timestamp(timestamp);
    }
}

/// Attributes stay out of it: an id may be among them.
impl<S: Span> fmt::Debug for SessionSpan<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionSpan")
            .field("span_context", self.span_context())
            .finish_non_exhaustive()
    }
}

impl<S: Span> Drop for SessionSpan<S> {
    fn drop(&mut self) {
        // A span that nobody ended ends itself when it is dropped, right after this.
        self.write();
        if self.bound {
            scope::unbind(self.inner.span_context());
        }
    }
}

/// The attributes of a span that are ours to write, held back until it ends.
pub(crate) struct SpanAttributes {
    opening: Opening,
    renames_plain: bool,
    held: Option<Box<Held>>,
}

/// Only for spans that have any of this.
#[derive(Default)]
struct Held {
    /// Set on this span by its author.
    own: Session,
    /// Set from below, by `mark_trace`.
    marked: Session,
    plain_session: Option<Value>,
    plain_user: Option<Value>,
    /// The scope that the span's fields opened, where another was set inside it.
    opened: Option<Arc<Scope>>,
}

/// Attributes that are not passed on as they come.
#[derive(Clone, Copy)]
pub(crate) enum Reserved {
    SessionId,
    UserId,
    PlainSession,
    PlainUser,
    Id,
}

const RESERVED: Glance = Glance::of(&[SESSION_ID, USER_ID, PLAIN_SESSION, PLAIN_USER, ID]);

impl SpanAttributes {
    pub(crate) fn new(opening: Opening, renames_plain: bool) -> Self {
        Self {
            opening,
            renames_plain,
            held: None,
        }
    }

    /// Takes what is reserved out of the attributes that the span starts with.
    #[inline]
    pub(crate) fn take_reserved(&mut self, given: &mut Vec<KeyValue>, scope: Option<&Scope>) {
        let is_reserved = |attribute: &KeyValue| self.reserved(&attribute.key).is_some();
        if let Some(first) = given.iter().position(is_reserved) {
            self.take_from(first, given, scope);
        }
    }

    #[cold]
    fn take_from(&mut self, first: usize, given: &mut Vec<KeyValue>, scope: Option<&Scope>) {
        let mut kept = first;
        for at in first..given.len() {
            if let Some(reserved) = self.reserved(&given[at].key) {
                let value = std::mem::replace(&mut given[at].value, Value::Bool(false));
                self.hold(reserved, value, scope);
            } else {
                given.swap(kept, at);
                kept += 1;
            }
        }
        given.truncate(kept);
    }

    #[inline(always)]
    fn reserved(&self, key: &Key) -> Option<Reserved> {
        if RESERVED.may_be(key.as_str()) {
            self.look_up(key)
        } else {
            None
        }
    }

    #[inline(never)]
    fn look_up(&self, key: &Key) -> Option<Reserved> {
        match key.as_str() {
            SESSION_ID => Some(Reserved::SessionId),
            USER_ID => Some(Reserved::UserId),
            PLAIN_SESSION if self.renames_plain => Some(Reserved::PlainSession),
            PLAIN_USER if self.renames_plain => Some(Reserved::PlainUser),
            ID if self.opening.names_id => Some(Reserved::Id),
            _ => None,
        }
    }

    fn hold(&mut self, reserved: Reserved, value: Value, scope: Option<&Scope>) {
        match reserved {
            // It is in the scope, by the layer.
            Reserved::Id => {}
            Reserved::SessionId => self.hold_own(SESSION_ID, Role::Session, &value, scope),
            Reserved::UserId => self.hold_own(USER_ID, Role::User, &value, scope),
            Reserved::PlainSession => self.held().plain_session = Some(value),
            Reserved::PlainUser => self.held().plain_user = Some(value),
        }
    }

    /// Another scope is set inside the one that the span's fields opened: what is recorded from now
    /// on is still of the fields.
    fn keep_opened(&mut self, scope: Option<Arc<Scope>>) {
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
    fn mark(&mut self, session: Session, scope: Option<&Scope>) {
        let held = self.held();
        let present = held.resolve(scope);
        if present.id.is_none() {
            held.marked.id = session.id;
        }
        if present.user_id.is_none() {
            held.marked.user_id = session.user_id;
        }
    }
}

impl Held {
    /// The values that the span would be exported with now.
    fn resolve(&self, scope: Option<&Scope>) -> Session {
        let inherited = scope.map(Scope::to_session).unwrap_or_default();
        self.own.clone().or(inherited).or(self.marked.clone())
    }

    #[cold]
    fn write(self, scope: Option<&Scope>, span: &mut impl Span) {
        let values = self.resolve(scope);
        let beside = !values.is_empty();
        write(SESSION_ID, values.id, span);
        write(USER_ID, values.user_id, span);
        let mut plain = |value: Option<Value>, key, renamed| {
            if let Some(value) = value {
                span.set_attribute(KeyValue::new(if beside { renamed } else { key }, value));
            }
        };
        plain(
            self.plain_session,
            PLAIN_SESSION,
            attributes::PLAIN_SESSION_RENAMED,
        );
        plain(self.plain_user, PLAIN_USER, attributes::PLAIN_USER_RENAMED);
    }
}

#[inline(always)]
fn write(key: &'static str, id: Option<Id>, span: &mut impl Span) {
    if let Some(id) = id {
        span.set_attribute(attributes::attribute(key, id));
    }
}

/// Whether an attribute only repeats what the span's field said.
fn repeats(text: &str, said: Option<&Id>) -> bool {
    let Some(said) = said else { return false };
    // The OpenTelemetry layer exports a field recorded with `?` in its quotes, and untrimmed.
    said.as_str() == text
        || Id::new(text).is_ok_and(|id| id == *said)
        || unquoted(text).is_some_and(|text| Id::new(&text).is_ok_and(|id| id == *said))
}
