//! The span wrapper: when a span ends, it writes the attributes of its scope that it lacks.

use crate::base::shards::unique_number;
use crate::scope::bridge::SpanCommand;
use crate::scope::{Scope, bridge, context};
use crate::tracer::attributes::SpanAttributes;
use opentelemetry::KeyValue;
use opentelemetry::trace::{Span, SpanContext, Status};
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

/// A span of a [`SessionTracer`](crate::tracer::SessionTracer). When it ends, it appends the attributes of its session.
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
    /// Its number among the spans with its id in the map by span id, or 0: it isn't there. It is removed from there when
    /// it is dropped.
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
            SpanCommand::Mark(session, was_marked) => was_marked.set(self.own.mark(session)),
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
        if self.inner.is_recording() {
            self.own.end(&mut self.inner);
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
        // Where telemetry is suppressed, spans have no id, and their descendants aren't exported.
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

/// Without attributes: an id may be among them.
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
