//! The tracer: how each span starts in the scope of its parent `Context`.

use crate::export::{self, Redaction};
use crate::scope::bridge::PendingSpan;
use crate::scope::context::CurrentScope;
use crate::scope::polled::PolledScope;
use crate::scope::tracking::SetBy;
use crate::scope::{Scope, bridge, context, is_in_turn, thread};
use crate::tracer::attributes::SpanAttributes;
use crate::tracer::coverage::TracerCounters;
use crate::tracer::span::SessionSpan;
use opentelemetry::Context;
use opentelemetry::trace::{Link, SpanBuilder, Tracer};
use std::borrow::Cow;
use std::sync::Arc;

/// A tracer of a [`SessionTracerProvider`](crate::SessionTracerProvider).
///
/// ```
/// use opentelemetry::trace::{Tracer, TracerProvider};
/// # use opentelemetry_sdk::trace::SdkTracerProvider;
/// # use tracing_session::{Session, SessionTracerProvider};
/// let provider = SessionTracerProvider::new(SdkTracerProvider::default());
/// let tracer = provider.tracer("library");
/// Session::new("chat-42")?.in_scope(|| tracer.in_span("carries the session", |_cx| {}));
/// # Ok::<(), tracing_session::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct SessionTracer<T> {
    pub(super) inner: T,
    pub(super) redaction: Option<Arc<Redaction>>,
    pub(super) renames_plain: bool,
    pub(super) coverage: Option<Arc<TracerCounters>>,
}

impl<T: Tracer> Tracer for SessionTracer<T> {
    type Span = SessionSpan<T::Span>;

    /// Called by the OpenTelemetry layer for each span that it makes.
    fn span_builder<N>(&self, name: N) -> SpanBuilder
    where
        N: Into<Cow<'static, str>>,
    {
        // The OpenTelemetry layer adds about eight attributes when the span starts and two when it ends, and this crate adds
        // more. Reserving room for all of them costs less than growing.
        const ROOM: usize = 16;
        let mut attributes = Vec::with_capacity(ROOM);
        if let Some(ticket) = bridge::take_ticket(self.coverage.is_some()) {
            attributes.push(ticket);
        }
        let name = name.into();
        if self.redaction.is_some() {
            attributes.extend(export::id_field_marker(&name));
        }
        let mut builder = self.inner.span_builder(name);
        if let Some(given) = builder.attributes.take() {
            attributes.extend(given);
        }
        builder.attributes = Some(attributes);
        builder
    }

    fn build_with_context(&self, mut builder: SpanBuilder, parent: &Context) -> Self::Span {
        let opened = builder.attributes.as_mut().and_then(bridge::take_pending);
        if opened.as_ref().is_some_and(|it| !it.is_exported) {
            return self.start_unexported(builder);
        }
        if bridge::is_entering() {
            return self.start_in_future(builder, parent, opened);
        }
        if let Some(opened) = opened {
            return self.start_opener(builder, parent, opened);
        }
        match CurrentScope::under(parent) {
            CurrentScope::BySpanId(scope) => self.start_with_scope_by_id(builder, parent, scope),
            CurrentScope::EntryOfTurn(scope) => {
                let own = self.attributes(&mut builder, parent, Some(scope.clone()), false);
                self.start_root(builder, parent, &scope, None, own)
            }
            around => {
                let own = self.attributes(&mut builder, parent, around.scope(), false);
                self.start(builder, parent, None, own)
            }
        }
    }
}

impl<T: Tracer> SessionTracer<T> {
    /// Starts a span when it is entered in a future. If the future adopts the span, the sampler receives the session of the
    /// future.
    #[cold]
    fn start_in_future(
        &self,
        mut builder: SpanBuilder,
        parent: &Context,
        opened: Option<PendingSpan>,
    ) -> SessionSpan<T::Span> {
        let around = CurrentScope::under(parent);
        let is_root = matches!(around, CurrentScope::EntryOfTurn(_));
        let (own, scope_by_id) = match (&opened, around) {
            (Some(opened), around) if around.is_entry(&opened.scope) => {
                (Some(opened.scope.clone()), None)
            }
            (Some(opened), around) => {
                let moved = Some(opened.scope.moved_into(around.scope()));
                (moved.clone(), moved)
            }
            (None, CurrentScope::BySpanId(scope)) => (Some(scope.clone()), Some(scope)),
            (None, around) => (around.scope(), None),
        };
        let set_by = match &opened {
            Some(_) => SetBy::Fields,
            None => SetBy::Outside,
        };
        bridge::take_entering();
        let future = PolledScope::current().filter(|it| it.adopts(own.as_ref(), set_by));
        let Some(future) = future else {
            return match opened {
                Some(opened) => self.start_opener(builder, parent, opened),
                None => self.build_with_context(builder, parent),
            };
        };
        let scope = future.inside(own.as_ref(), set_by);
        let mut attributes =
            self.attributes(&mut builder, parent, Some(scope.clone()), opened.is_some());
        attributes.set_adopted(own);
        if is_root {
            return self.start_root(builder, parent, &scope, scope_by_id, attributes);
        }
        let entered = scope.entered(parent);
        self.start(builder, &entered, scope_by_id, attributes)
    }

    /// Starts a session span that isn't exported.
    #[cold]
    fn start_unexported(&self, mut builder: SpanBuilder) -> SessionSpan<T::Span> {
        let own = SpanAttributes::start(
            &mut builder,
            None,
            false,
            self.redaction.as_ref(),
            self.renames_plain,
        );
        let nowhere = Context::new().with_telemetry_suppressed();
        self.start(builder, &nowhere, None, own)
    }

    /// Starts an opener.
    #[cold]
    fn start_opener(
        &self,
        mut builder: SpanBuilder,
        parent: &Context,
        opened: PendingSpan,
    ) -> SessionSpan<T::Span> {
        let around = CurrentScope::under(parent);
        let starts_trace = matches!(around, CurrentScope::EntryOfTurn(_));
        let PendingSpan {
            mut scope, is_root, ..
        } = opened;
        let mut is_root = is_root || starts_trace;
        let (mut entered, mut scope_by_id) = (None, None);
        if !around.is_entry(&scope) {
            // `set_parent` replaced the parent `Context`, and with it the outer scope, or the layer couldn't attach the parent.
            let around = around.scope();
            is_root &= starts_trace || !is_in_turn(around.as_deref(), scope.id().as_ref());
            scope = scope.moved_into(around);
            // Samplers and span processors read the scope from the `Context`.
            entered = Some(scope.clone().entered(parent));
            scope_by_id = Some(scope.clone());
        }
        let own = self.attributes(&mut builder, parent, Some(scope.clone()), true);
        match is_root {
            true => self.start_root(builder, parent, &scope, scope_by_id, own),
            false => self.start(
                builder,
                entered.as_ref().unwrap_or(parent),
                scope_by_id,
                own,
            ),
        }
    }

    /// Starts a child of a span whose scope is in the map by span id. The map gets the scope of the child too.
    #[cold]
    fn start_with_scope_by_id(
        &self,
        mut builder: SpanBuilder,
        parent: &Context,
        scope: Arc<Scope>,
    ) -> SessionSpan<T::Span> {
        let own = self.attributes(&mut builder, parent, Some(scope.clone()), false);
        self.start(builder, parent, Some(scope), own)
    }

    /// Starts the root of a trace, linked to the span that would be its parent.
    #[cold]
    fn start_root(
        &self,
        mut builder: SpanBuilder,
        parent: &Context,
        scope: &Arc<Scope>,
        scope_by_id: Option<Arc<Scope>>,
        own: SpanAttributes,
    ) -> SessionSpan<T::Span> {
        if parent.is_telemetry_suppressed() {
            return self.start(builder, parent, scope_by_id, own);
        }
        let root = rooted(&mut builder, parent, scope);
        self.start(builder, &root, scope_by_id, own)
    }

    /// Checks the attributes of a builder.
    #[inline(always)]
    fn attributes(
        &self,
        builder: &mut SpanBuilder,
        parent: &Context,
        scope: Option<Arc<Scope>>,
        is_opener: bool,
    ) -> SpanAttributes {
        let counted = self.coverage.as_deref();
        let counted = counted.map(|it| it.begin(builder, parent, scope.as_deref()));
        let redaction = self.redaction.as_ref();
        let mut own =
            SpanAttributes::start(builder, scope, is_opener, redaction, self.renames_plain);
        own.counted = counted;
        own
    }

    /// Starts a span. `scope_by_id` is its scope, if the `Context` of the span has no entry with this scope.
    #[inline(always)]
    fn start(
        &self,
        builder: SpanBuilder,
        parent: &Context,
        scope_by_id: Option<Arc<Scope>>,
        own: SpanAttributes,
    ) -> SessionSpan<T::Span> {
        let _starting = bridge::starting();
        let inner = self.inner.build_with_context(builder, parent);
        SessionSpan::new(inner, scope_by_id, own)
    }
}

/// The `Context` to start a root under, with a link to the span that would be the parent.
///
/// It has no span, because `Sampler::ParentBased` treats an invalid span as a parent that isn't sampled. It has the scope and
/// the baggage of `parent`, for samplers. Descendants inherit all of `parent`, because the OpenTelemetry layer makes the
/// `Context` of the span from `parent`.
#[inline(never)]
fn rooted(builder: &mut SpanBuilder, parent: &Context, scope: &Arc<Scope>) -> Context {
    let span = context::linked(parent);
    if span.is_valid() {
        let links = builder.links.get_or_insert_default();
        links.push(Link::with_context(span));
    }
    scope.clone().entered(&thread::without_span(parent))
}
