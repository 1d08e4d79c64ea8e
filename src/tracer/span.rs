//! The span wrapper. When a span ends, it writes the attributes that it inherits from its scope. Until then, it executes span
//! commands (`scope/bridge.rs`): set a session on it, mark it, enter it in another future.

use crate::base::shards::unique_number;
use crate::scope::bridge::SpanCommand;
use crate::scope::{Scope, bridge, context};
use crate::session::{IdKind, Session};
use crate::tracer::attributes::{Adopted, SpanAttributes};
use opentelemetry::KeyValue;
use opentelemetry::trace::{Span, SpanContext, Status};
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

/// A span of a [`SessionTracer`](crate::tracer::SessionTracer). When it ends, it adds the attributes of its session.
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
    /// The number of this span among the spans with its id in the map by span id, or 0 if the span isn't in the map. Dropping
    /// the span removes it from the map.
    number: u32,
    ended: bool,
    own: SpanAttributes,
}

impl<S: Span> SessionSpan<S> {
    #[inline]
    pub(crate) fn new(inner: S, scope_by_id: Option<Arc<Scope>>, own: SpanAttributes) -> Self {
        let number = add_new(inner.span_context(), scope_by_id);
        Self {
            inner,
            number,
            ended: false,
            own,
        }
    }

    fn run(&mut self, command: SpanCommand) {
        match command {
            SpanCommand::SetSession(session) => {
                let scope = self.own.bind(&session);
                self.number = add_by_id(self.inner.span_context(), self.number, Some(scope));
            }
            SpanCommand::Mark(session, flag) => flag.set(self.own.mark(session, flag.get())),
            SpanCommand::EnterIn(session) => self.own.enter_in(&session),
            SpanCommand::SetInside(session) => self.own.set_inside(&session),
            SpanCommand::Ping => {}
        }
    }

    #[inline(never)]
    fn set_own(&mut self, mut attribute: KeyValue) {
        if self.own.admit(&mut attribute) {
            self.inner.set_attribute(attribute);
        }
    }

    #[inline(always)]
    fn write(&mut self) {
        if !self.ended {
            self.write_first();
        }
    }

    #[inline(never)]
    fn write_first(&mut self) {
        self.ended = true;
        let is_recording = self.inner.is_recording();
        if is_recording {
            self.own.end(&mut self.inner);
        }
        // Suppressed spans have no id.
        if let Some(counted) = (self.own.counted).filter(|_| self.inner.span_context().is_valid()) {
            let reason = counted.end(&self.own.ending(is_recording));
            reason
                .into_iter()
                .for_each(|it| self.inner.set_attribute(it));
        }
    }
}

/// Adds a new span to the map by span id if it has a scope there, or if another span may have its id. Returns its number there.
#[inline]
fn add_new(span: &SpanContext, scope: Option<Arc<Scope>>) -> u32 {
    match scope.is_some() || context::is_counted(span) {
        true => add_by_id(span, 0, scope),
        false => 0,
    }
}

#[cold]
fn add_by_id(span: &SpanContext, number: u32, scope: Option<Arc<Scope>>) -> u32 {
    match scope {
        Some(scope) if !context::is_counted(span) => {
            context::set_scope_by_span_id(span, scope);
            ONLY
        }
        // If telemetry is suppressed, spans have no id, and their descendants aren't exported.
        _ if !span.is_valid() => 0,
        scope => {
            let number = if number == 0 { new_number() } else { number };
            context::set_counted_span(span, number, scope);
            number
        }
    }
}

/// The number of a span whose id isn't counted: it is the only one with its id.
const ONLY: u32 = 1;

fn new_number() -> u32 {
    (unique_number() as u32).max(ONLY + 1)
}

impl<S: Span> Span for SessionSpan<S> {
    fn add_event_with_timestamp<T>(
        &mut self,
        name: T,
        timestamp: SystemTime,
        mut attributes: Vec<KeyValue>,
    ) where
        T: Into<Cow<'static, str>>,
    {
        self.own.redact_others(&mut attributes);
        self.inner
            .add_event_with_timestamp(name, timestamp, attributes);
    }

    fn span_context(&self) -> &SpanContext {
        self.inner.span_context()
    }

    fn is_recording(&self) -> bool {
        self.inner.is_recording()
    }

    #[inline]
    fn set_attribute(&mut self, attribute: KeyValue) {
        if self.own.may_matter(&attribute.key) {
            self.set_own(attribute);
        } else {
            self.inner.set_attribute(attribute);
        }
    }

    #[inline]
    fn set_status(&mut self, status: Status) {
        if status != Status::Unset {
            self.inner.set_status(status);
        } else if let Some(command) = bridge::take_command() {
            self.run(command);
        }
    }

    fn update_name<T>(&mut self, new_name: T)
    where
        T: Into<Cow<'static, str>>,
    {
        self.inner.update_name(new_name);
    }

    fn add_link(&mut self, span_context: SpanContext, mut attributes: Vec<KeyValue>) {
        self.own.redact_others(&mut attributes);
        self.inner.add_link(span_context, attributes);
    }

    fn end_with_timestamp(&mut self, timestamp: SystemTime) {
        self.write();
        self.inner.end_with_timestamp(timestamp);
    }
}

/// Omits attributes, because they may contain an id.
impl<S: Span> fmt::Debug for SessionSpan<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionSpan")
            .field("span_context", self.span_context())
            .finish_non_exhaustive()
    }
}

impl<S: Span> Drop for SessionSpan<S> {
    fn drop(&mut self) {
        // The inner span ends when it is dropped, right after this.
        self.write();
        match self.number {
            0 => {}
            ONLY => context::remove_scope_by_span_id(self.inner.span_context()),
            number => context::remove_counted_span(self.inner.span_context(), number),
        }
    }
}

/// The commands to a started span.
impl SpanAttributes {
    /// Sets a session on the started span. Returns the new scope.
    pub(crate) fn bind(&mut self, session: &Session) -> Arc<Scope> {
        if let Some(opener) = &self.opener {
            opener.warn_of_kept_ids(session);
        }
        // The session is set outside the future that has adopted the span, so the span isn't exported with the future's
        // session any more.
        self.end_adoption();
        let scope = Scope::nested(self.scope.clone(), session);
        // The span may already have attributes with the new keys. This crate can't know which, so it writes none of them.
        for attribute in session.details.iter().flat_map(|it| &it.attributes) {
            let key = &attribute.key;
            if scope.has_attribute(key.as_str()) && !self.scope_has_attribute(key.as_str()) {
                self.add_key(key);
            }
        }
        self.scope = Some(scope.clone());
        scope
    }

    fn end_adoption(&mut self) {
        let adopted = self.more.as_mut().and_then(|more| more.adopted.take());
        if let Some(Adopted { own, .. }) = adopted {
            self.scope = own;
        }
    }

    /// Called when the span is entered in another session. The span keeps its adopted session if the id is the same, and the
    /// user too if the user id is the same.
    pub(crate) fn enter_in(&mut self, session: &Session) {
        let adopted = self.more.as_mut().and_then(|more| more.adopted.as_mut());
        let Some(adopted) = adopted else { return };
        if adopted.first.id != session.id {
            self.end_adoption();
        } else if adopted.first.user_id != session.user_id {
            adopted.has_two_users = true;
            let id = Session {
                id: session.id.clone(),
                ..Session::default()
            };
            self.scope = Some(Scope::nested(adopted.own.clone(), &id));
        }
    }

    /// Sets a session inside the future in which the span started.
    pub(crate) fn set_inside(&mut self, session: &Session) {
        let adopted = self.more.as_mut().and_then(|more| more.adopted.as_mut());
        if let Some(adopted) = adopted.filter(|it| !it.has_two_users) {
            adopted.first = session.inside(&adopted.first);
            self.scope = Some(Scope::nested(self.scope.take(), session));
        }
    }

    /// The span is adopted, and `own` is the scope that it has outside the future.
    pub(crate) fn set_adopted(&mut self, own: Option<Arc<Scope>>) {
        let first = self.scope_values();
        self.more().adopted = Some(Adopted {
            own,
            first,
            has_two_users: false,
        });
    }

    /// Marks the span with the values of `session` that it lacks, unless it has another session or user. True if the span and
    /// its ancestors were marked with these ids before.
    pub(crate) fn mark(&mut self, session: Session, with_ancestors: bool) -> bool {
        let marked = self.more().marked.clone();
        let were_ancestors = std::mem::replace(&mut self.more().with_ancestors, with_ancestors);
        let was_marked = |kind: IdKind| !kind.differs(&session, &marked);
        if IdKind::BOTH.into_iter().all(was_marked) {
            self.more().with_ancestors |= were_ancestors;
            return were_ancestors;
        }
        let present = self.scope_values().or(marked.clone());
        if self.agrees(&present, &session) {
            self.more().marked = match marked == Session::default() {
                // This crate doesn't know which other keys the span has.
                true => session.without_attributes(),
                // A second mark adds no more than the user of the same session.
                false if marked.id == session.id => Session {
                    user_id: marked.user_id.or(session.user_id),
                    ..marked
                },
                false => marked,
            };
        }
        false
    }

    /// Whether the mark's session and user agree with the span's. Checked again when the span ends, because its ids may have
    /// been set since.
    pub(super) fn agrees(&self, present: &Session, mark: &Session) -> bool {
        IdKind::BOTH.into_iter().all(|kind| {
            let opener = self.opener.as_ref().filter(|it| !it.has_kept_id());
            let own = match opener {
                _ if !self.ids.have(kind.part()) => kind.id(present).clone(),
                Some(opener) => match opener.with_values(|set| kind.id(set).clone()) {
                    None => return false,
                    own => own,
                },
                // This crate doesn't know the value of an attribute that the author set.
                None => return false,
            };
            own.is_none() || own == *kind.id(mark)
        })
    }
}
