//! The tracer provider and its tracer: each span starts in the scope of its parent `Context`.

pub(crate) mod attributes;
pub(crate) mod span;

pub use self::span::SessionSpan;

use crate::base::setup;
use crate::export::privacy::Privacy;
use crate::export::{self, Redaction};
use crate::scope::bridge::PendingSpan;
use crate::scope::context::CurrentScope;
use crate::scope::polled::PolledScope;
use crate::scope::{Scope, bridge, is_in_turn};
use crate::tracer::attributes::SpanAttributes;
use opentelemetry::baggage::{Baggage, BaggageExt, BaggageMetadata};
use opentelemetry::trace::{Link, SpanBuilder, TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Context, InstrumentationScope, Key as Name, StringValue};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::SdkTracerProvider;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

/// Wraps a tracer provider, so that its spans are exported with their session.
///
/// It covers every span of every tracer of this provider: the spans of `tracing`, and spans that a library
/// creates with OpenTelemetry's own API. A span reads the session that applies where it starts. When it
/// ends, it appends `session.id`, `user.id` and the session's other values, so it includes values that are
/// recorded in between.
///
/// # Your own attributes
///
/// An attribute that you set on a span stays where you put it, so samplers and span processors see it. If
/// its key is one of the session's, your attribute wins on this span, and the session's value isn't added. This
/// holds for `metadata` and `tag.tags` too: the crate doesn't merge them with the session's. Descendants still
/// inherit the session's value. The crate doesn't see attributes that samplers and span processors add.
///
/// There are three exceptions:
///
/// - On a span whose fields set a session or user, the fields `session.id`, `user.id`, `id` (on a span named
///   `session`), `tags` and `metadata.<key>` are instructions for this crate. It exports their values under the
///   session's keys. An id is exported once: it is written when the span starts, if the fields have set it by
///   then, and otherwise when the span ends. A span that started with an id keeps it. An id that is recorded later
///   reaches the descendants only, and one warning names the span.
/// - A value of `session.id` or `user.id` that isn't an id gives way to the inherited id. Where no id applies, an
///   invalid value of a field is exported as it was written, unless it is blank or a placeholder such as `None`.
/// - Attributes named `session` and `user` are [renamed](Self::without_renaming_plain_attributes) in a session.
///
/// # Cost
///
/// About 40 ns per span with a session and a user. Their text is shared with the session, so only tags allocate.
///
/// ```
/// use opentelemetry::trace::TracerProvider;
/// use opentelemetry_sdk::trace::SdkTracerProvider;
/// use tracing_session::SessionTracerProvider;
///
/// let provider = SessionTracerProvider::new(SdkTracerProvider::builder().build());
/// opentelemetry::global::set_tracer_provider(provider.clone());
/// let tracer = provider.tracer("chat");
/// # drop(tracer);
/// provider.shutdown()?;
/// # Ok::<(), opentelemetry_sdk::error::OTelSdkError>(())
/// ```
#[derive(Clone, Debug)]
pub struct SessionTracerProvider<P = SdkTracerProvider> {
    inner: P,
    redaction: Option<Arc<Redaction>>,
    /// Attributes named `session` and `user`, beside an id.
    renames_plain: bool,
}

impl<P> SessionTracerProvider<P> {
    /// Wraps `provider`.
    ///
    /// ```
    /// # use opentelemetry_sdk::trace::SdkTracerProvider;
    /// # use tracing_session::SessionTracerProvider;
    /// let provider = SessionTracerProvider::new(SdkTracerProvider::default());
    /// ```
    #[must_use = "only spans of this provider's tracers have a session: `let provider = SessionTracerProvider::new(...)`"]
    pub fn new(provider: P) -> Self {
        setup::begin();
        Self {
            inner: provider,
            redaction: None,
            renames_plain: true,
        }
    }

    /// The ids and metadata that are redacted on spans of this provider. Default: none.
    ///
    /// ```
    /// # use opentelemetry_sdk::trace::SdkTracerProvider;
    /// # use tracing_session::{Privacy, SessionTracerProvider, export::IdPolicy};
    /// let provider = SessionTracerProvider::new(SdkTracerProvider::default())
    ///     .with_privacy(Privacy::new().with_user_ids(IdPolicy::omitted()));
    /// ```
    #[must_use = "it returns the changed provider: `let provider = provider.with_privacy(...)`"]
    pub fn with_privacy(mut self, privacy: Privacy) -> Self {
        self.redaction = Redaction::of(privacy);
        self
    }

    /// Leaves attributes named `session` and `user` as they are. Default: on spans with a session or user they are
    /// exported as `session.name` and `user.name`.
    ///
    /// Phoenix stores attributes nested by the dots in their keys, where `session` and `session.id`
    /// can't both exist: it loses the session.
    ///
    /// The provider renames an attribute if the session is known when you set the attribute.
    /// [`SessionExporter`](crate::SessionExporter::without_renaming_plain_attributes) renames the others too.
    ///
    /// ```
    /// # use opentelemetry_sdk::trace::SdkTracerProvider;
    /// # use tracing_session::SessionTracerProvider;
    /// let provider = SessionTracerProvider::new(SdkTracerProvider::default())
    ///     .without_renaming_plain_attributes();
    /// ```
    #[must_use = "it returns the changed provider: `let provider = ...`"]
    pub fn without_renaming_plain_attributes(mut self) -> Self {
        self.renames_plain = false;
        self
    }

    /// The provider inside.
    ///
    /// ```
    /// # use opentelemetry_sdk::trace::SdkTracerProvider;
    /// # use tracing_session::SessionTracerProvider;
    /// let provider = SessionTracerProvider::new(SdkTracerProvider::default());
    /// let sdk: &SdkTracerProvider = provider.inner();
    /// ```
    pub fn inner(&self) -> &P {
        &self.inner
    }
}

impl SessionTracerProvider<SdkTracerProvider> {
    /// Exports what has ended. See [`SdkTracerProvider::force_flush`].
    ///
    /// # Errors
    ///
    /// Those of the span processors.
    ///
    /// ```
    /// # use opentelemetry_sdk::trace::SdkTracerProvider;
    /// # use tracing_session::SessionTracerProvider;
    /// SessionTracerProvider::new(SdkTracerProvider::default()).force_flush()?;
    /// # Ok::<(), opentelemetry_sdk::error::OTelSdkError>(())
    /// ```
    pub fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    /// Exports what has ended, and stops. See [`SdkTracerProvider::shutdown`].
    ///
    /// # Errors
    ///
    /// Those of the span processors, and when the provider was shut down before. To see whether the last
    /// spans could be exported, call [`force_flush`](Self::force_flush) first.
    ///
    /// ```
    /// # use opentelemetry_sdk::trace::SdkTracerProvider;
    /// # use tracing_session::SessionTracerProvider;
    /// SessionTracerProvider::new(SdkTracerProvider::default()).shutdown()?;
    /// # Ok::<(), opentelemetry_sdk::error::OTelSdkError>(())
    /// ```
    pub fn shutdown(&self) -> OTelSdkResult {
        self.inner.shutdown()
    }

    /// [`shutdown`](Self::shutdown) that gives up after `timeout`.
    ///
    /// # Errors
    ///
    /// As for [`shutdown`](Self::shutdown), and when the time is over.
    ///
    /// ```
    /// # use opentelemetry_sdk::trace::SdkTracerProvider;
    /// # use tracing_session::SessionTracerProvider;
    /// # use std::time::Duration;
    /// let provider = SessionTracerProvider::new(SdkTracerProvider::default());
    /// provider.shutdown_with_timeout(Duration::from_secs(5))?;
    /// # Ok::<(), opentelemetry_sdk::error::OTelSdkError>(())
    /// ```
    pub fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }
}

impl<P: TracerProvider> TracerProvider for SessionTracerProvider<P> {
    type Tracer = SessionTracer<P::Tracer>;

    fn tracer_with_scope(&self, scope: InstrumentationScope) -> Self::Tracer {
        SessionTracer {
            inner: self.inner.tracer_with_scope(scope),
            redaction: self.redaction.clone(),
            renames_plain: self.renames_plain,
        }
    }
}

/// A tracer of a [`SessionTracerProvider`].
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
    inner: T,
    redaction: Option<Arc<Redaction>>,
    renames_plain: bool,
}

impl<T: Tracer> Tracer for SessionTracer<T> {
    type Span = SessionSpan<T::Span>;

    /// Called by the OpenTelemetry layer for each span that it makes.
    fn span_builder<N>(&self, name: N) -> SpanBuilder
    where
        N: Into<Cow<'static, str>>,
    {
        // The OpenTelemetry layer adds about eight attributes, two more at the end, and then come ours. Room for all
        // of them costs less than growing.
        const ROOM: usize = 16;
        let mut attributes = Vec::with_capacity(ROOM);
        if let Some(ticket) = bridge::take_ticket() {
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
        if let Some(future) = bridge::take_scope() {
            return self.start_in_future(builder, parent, opened, &future);
        }
        match opened {
            Some(opened) => self.start_opener(builder, parent, opened),
            None => self.start_other(builder, parent),
        }
    }
}

impl<T: Tracer> SessionTracer<T> {
    /// Starts a span that is no opener.
    #[inline(always)]
    fn start_other(&self, mut builder: SpanBuilder, parent: &Context) -> SessionSpan<T::Span> {
        match CurrentScope::under(parent) {
            CurrentScope::BySpanId(scope) => self.start_with_scope_by_id(builder, parent, scope),
            CurrentScope::EntryOfTurn(scope) => {
                let own = self.attributes(&mut builder, Some(scope.clone()), false);
                self.start_root(builder, parent, &scope, None, own)
            }
            around => {
                let own = self.attributes(&mut builder, around.scope(), false);
                self.start(builder, parent, None, own)
            }
        }
    }

    /// Starts a span when it is entered in a future. If the future adopts the span, the sampler receives the session of the
    /// future.
    #[cold]
    fn start_in_future(
        &self,
        mut builder: SpanBuilder,
        parent: &Context,
        opened: Option<PendingSpan>,
        future: &PolledScope,
    ) -> SessionSpan<T::Span> {
        let around = CurrentScope::under(parent);
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
        if !future.adopts(own.as_ref()) {
            return match opened {
                Some(opened) => self.start_opener(builder, parent, opened),
                None => self.start_other(builder, parent),
            };
        }
        let scope = future.inside(own.as_ref());
        let mut attributes = self.attributes(&mut builder, Some(scope.clone()), opened.is_some());
        attributes.set_adopted(own);
        let entered = scope.entered(parent);
        self.start(builder, &entered, scope_by_id, attributes)
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
        let PendingSpan { mut scope, is_root } = opened;
        let mut is_root = is_root || starts_trace;
        let (mut entered, mut scope_by_id) = (None, None);
        if !around.is_entry(&scope) {
            // `set_parent` replaced the parent `Context`, and with it the outer scope.
            let around = around.scope();
            is_root &= starts_trace || !is_in_turn(around.as_deref(), scope.id().as_ref());
            scope = scope.moved_into(around);
            // Samplers and span processors read the scope from the `Context`.
            entered = Some(scope.clone().entered(parent));
            scope_by_id = Some(scope.clone());
        }
        let own = self.attributes(&mut builder, Some(scope.clone()), true);
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
        let own = self.attributes(&mut builder, Some(scope.clone()), false);
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
        scope: Option<Arc<Scope>>,
        is_opener: bool,
    ) -> SpanAttributes {
        SpanAttributes::start(
            builder,
            scope,
            is_opener,
            self.redaction.as_ref(),
            self.renames_plain,
        )
    }

    /// Starts a span. `scope_by_id`: its scope, if the `Context` of the span has no entry with it.
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
/// It has no span, because `Sampler::ParentBased` takes an invalid span for a parent that isn't sampled. Of `parent` it
/// has the scope and the baggage, for samplers. Descendants inherit all of `parent`: the OpenTelemetry layer makes the
/// `Context` of the span from `parent`.
#[inline(never)]
fn rooted(builder: &mut SpanBuilder, parent: &Context, scope: &Arc<Scope>) -> Context {
    let span = parent.span().span_context().clone();
    if span.is_valid() {
        let links = builder.links.get_or_insert_default();
        links.push(Link::with_context(span));
    }
    let mut root = Context::new();
    let baggage = parent.baggage();
    if !baggage.is_empty() {
        let member = |(key, (value, metadata)): (&Name, &(StringValue, BaggageMetadata))| {
            (key.clone(), (value.clone(), metadata.clone()))
        };
        root = root.with_baggage(baggage.iter().map(member).collect::<Baggage>());
    }
    scope.clone().entered(&root)
}
