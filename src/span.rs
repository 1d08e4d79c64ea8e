//! Scopes are written on spans: when a span ends, once for each key, in one place.

use crate::attributes::{self, ID, PLAIN_SESSION, PLAIN_USER, SESSION_ID, USER_ID};
use crate::diagnostic;
use crate::fields::unquoted;
use crate::handover::{self, Errand};
use crate::scope::{self, Scope};
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
    pub(crate) fn new(
        inner: S,
        scope: Option<Arc<Scope>>,
        bound: bool,
        attributes: SpanAttributes,
    ) -> Self {
        let mut span = Self {
            inner,
            scope,
            bound: false,
            ended: false,
            attributes,
        };
        if bound {
            span.bind();
        }
        span
    }

    fn bind(&mut self) {
        // Where telemetry is suppressed spans have no id, and nothing below them is exported.
        let span = self.inner.span_context();
        if let Some(scope) = self.scope.clone().filter(|_| span.is_valid()) {
            scope::bind(span, scope);
            self.bound = true;
        }
    }

    fn run(&mut self, errand: Errand) {
        match errand {
            Errand::Bind(session) => {
                let inner = Scope::nested(self.scope.take(), (&session).into());
                self.scope = Some(inner);
                self.bind();
            }
            Errand::Mark(session) => self.attributes.mark(session, self.scope.as_deref()),
        }
    }

    fn write(&mut self) {
        if std::mem::replace(&mut self.ended, true) || !self.inner.is_recording() {
            return;
        }
        let Self {
            inner,
            scope,
            attributes,
            ..
        } = self;
        attributes.write(scope.as_deref(), |attribute| inner.set_attribute(attribute));
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
        match self.attributes.reserved(&attribute.key) {
            None => self.inner.set_attribute(attribute),
            Some(reserved) => {
                self.attributes
                    .hold(reserved, attribute.value, self.scope.as_deref())
            }
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

/// What the span's own fields say.
#[derive(Clone, Copy, Default)]
pub(crate) struct Opening {
    /// The span opens a scope: its fields are in the scope already.
    pub(crate) opens: bool,
    /// Its field `id` is the session's or the user's.
    pub(crate) names_id: bool,
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

impl SpanAttributes {
    pub(crate) fn new(opening: Opening, renames_plain: bool) -> Self {
        Self {
            opening,
            renames_plain,
            held: None,
        }
    }

    /// Takes what is reserved out of the attributes that the span starts with.
    pub(crate) fn take_reserved(&mut self, given: &mut Vec<KeyValue>, scope: Option<&Scope>) {
        if given
            .iter()
            .all(|attribute| self.reserved(&attribute.key).is_none())
        {
            return;
        }
        for attribute in std::mem::take(given) {
            match self.reserved(&attribute.key) {
                None => given.push(attribute),
                Some(reserved) => self.hold(reserved, attribute.value, scope),
            }
        }
    }

    fn reserved(&self, key: &Key) -> Option<Reserved> {
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
            Reserved::SessionId => {
                let said = scope.filter(|_| self.opening.opens).and_then(Scope::id);
                if let Some(own) = own_id(SESSION_ID, &value, said) {
                    self.held().own.id = own;
                }
            }
            Reserved::UserId => {
                let said = scope
                    .filter(|_| self.opening.opens)
                    .and_then(Scope::user_id);
                if let Some(own) = own_id(USER_ID, &value, said) {
                    self.held().own.user_id = own;
                }
            }
            Reserved::PlainSession => self.held().plain_session = Some(value),
            Reserved::PlainUser => self.held().plain_user = Some(value),
        }
    }

    fn held(&mut self) -> &mut Held {
        self.held.get_or_insert_default()
    }

    /// Keeps of `session` what the span has no value for.
    fn mark(&mut self, session: Session, scope: Option<&Scope>) {
        let present = self.resolve(scope);
        let held = self.held();
        if present.id.is_none() {
            held.marked.id = session.id;
        }
        if present.user_id.is_none() {
            held.marked.user_id = session.user_id;
        }
    }

    /// The values that the span would be exported with now.
    fn resolve(&self, scope: Option<&Scope>) -> Session {
        let inherited = scope.map(Scope::to_session).unwrap_or_default();
        let Some(held) = &self.held else {
            return inherited;
        };
        let own = held.own.clone().or(inherited);
        own.or(held.marked.clone())
    }

    fn write(&mut self, scope: Option<&Scope>, mut set: impl FnMut(KeyValue)) {
        let values = self.resolve(scope);
        if let Some(id) = &values.id {
            set(attributes::attribute(SESSION_ID, id));
        }
        if let Some(user_id) = &values.user_id {
            set(attributes::attribute(USER_ID, user_id));
        }
        if let Some(held) = self.held.take() {
            let beside = !values.is_empty();
            let mut plain = |value: Option<Value>, key, renamed| {
                if let Some(value) = value {
                    set(KeyValue::new(if beside { renamed } else { key }, value));
                }
            };
            plain(
                held.plain_session,
                PLAIN_SESSION,
                attributes::PLAIN_SESSION_RENAMED,
            );
            plain(held.plain_user, PLAIN_USER, attributes::PLAIN_USER_RENAMED);
        }
    }
}

/// What an attribute with a reserved key makes of the span's own id: `Some(None)` where it only
/// repeats what the span's field said, `None` where it is no id.
fn own_id(key: &'static str, value: &Value, said: Option<Id>) -> Option<Option<Id>> {
    let text = value.as_str();
    match Id::new(&text) {
        Ok(id) if said.as_ref() == Some(&id) => Some(None),
        Ok(id) => {
            // The OpenTelemetry layer exports a field recorded with `?` in its quotes.
            let repeats = said.is_some_and(|said| {
                unquoted(&text).is_some_and(|text| Id::new(&text).is_ok_and(|id| id == said))
            });
            Some((!repeats).then_some(id))
        }
        Err(error) => {
            diagnostic::own_attribute_ignored(key, error);
            None
        }
    }
}
