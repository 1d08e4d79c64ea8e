//! The tracer: gives each span that it starts the scope that the span is in.

pub(crate) mod held;
pub(crate) mod span;
pub(crate) mod watched;

use crate::format::Format;
use crate::format::dialect::Dialect;
use crate::format::privacy::Privacy;
use crate::format::redaction::{self, Redaction};
use crate::handover::{self, Handover, Opened, Opening};
use crate::known::{self, Key};
use crate::layer::heard;
use crate::scope::in_force::InForce;
use crate::scope::{Scope, is_in_turn};
use crate::tracer::span::SessionSpan;
use crate::tracer::watched::SpanAttributes;
use opentelemetry::baggage::{Baggage, BaggageExt, BaggageMetadata};
use opentelemetry::trace::{Link, SpanBuilder, TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Context, InstrumentationScope, Key as Name, StringValue};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::SdkTracerProvider;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

/// Wraps a tracer provider, so that its spans carry the session that they are in.
///
/// Every span of every tracer of this provider is covered: those that `tracing` makes, and those
/// that a library makes with OpenTelemetry's own API. A span takes the scope that is in force
/// where it starts, and writes `session.id`, `user.id` and whatever else the session says when it
/// ends, so that what becomes known in between is written too. An attribute of the same key that the
/// span's author set wins on that span, and metadata and tags are joined with it; what samplers and
/// span processors add passes the wrapper by.
///
/// Cost: an attribute for each value, whose text is shared with the session. Only tags take an
/// allocation.
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
pub struct SessionTracerProvider<P> {
    inner: P,
    /// Where there is none, the usual one.
    format: Option<Arc<Format>>,
}

impl<P> SessionTracerProvider<P> {
    /// Wraps `provider`.
    ///
    /// ```
    /// # use opentelemetry_sdk::trace::SdkTracerProvider;
    /// # use tracing_session::SessionTracerProvider;
    /// let provider = SessionTracerProvider::new(SdkTracerProvider::default());
    /// ```
    pub fn new(provider: P) -> Self {
        heard::set_up_begins();
        Self {
            inner: provider,
            format: None,
        }
    }

    /// The keys that are written. Default: [`Dialect::OPENINFERENCE`].
    ///
    /// ```
    /// # use opentelemetry_sdk::trace::SdkTracerProvider;
    /// # use tracing_session::{Dialect, SessionTracerProvider};
    /// let provider = SessionTracerProvider::new(SdkTracerProvider::default())
    ///     .with_dialect(Dialect::OPENINFERENCE.and(Dialect::LANGFUSE));
    /// ```
    pub fn with_dialect(mut self, dialect: Dialect) -> Self {
        Format::change(&mut self.format, |format| format.dialect = dialect);
        self
    }

    /// The ids and metadata that are redacted on spans of this provider. Default: none.
    ///
    /// ```
    /// # use opentelemetry_sdk::trace::SdkTracerProvider;
    /// # use tracing_session::{IdPolicy, Privacy, SessionTracerProvider};
    /// let provider = SessionTracerProvider::new(SdkTracerProvider::default())
    ///     .with_privacy(Privacy::new().with_user_ids(IdPolicy::omitted()));
    /// ```
    pub fn with_privacy(mut self, privacy: Privacy) -> Self {
        Format::redact(&mut self.format, privacy);
        self
    }

    /// Whether attributes named `session` and `user` are exported as `session.name` and
    /// `user.name` on spans that carry a session or user. Default: true.
    ///
    /// Backends store attributes nested by the dots in their keys, where `session` and
    /// `session.id` cannot both be: Phoenix then loses the session.
    ///
    /// ```
    /// # use opentelemetry_sdk::trace::SdkTracerProvider;
    /// # use tracing_session::SessionTracerProvider;
    /// let provider = SessionTracerProvider::new(SdkTracerProvider::default())
    ///     .with_plain_attributes_renamed(false);
    /// ```
    pub fn with_plain_attributes_renamed(mut self, renamed: bool) -> Self {
        Format::change(&mut self.format, |format| format.renames_plain = renamed);
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
    /// Those of the span processors, and when the provider was shut down before. Whether the last
    /// spans could be exported, [`force_flush`](Self::force_flush) tells.
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
            format: self.format.clone(),
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
    format: Option<Arc<Format>>,
}

impl<T: Tracer> Tracer for SessionTracer<T> {
    type Span = SessionSpan<T::Span>;

    /// Called by the OpenTelemetry layer for each span that it makes.
    fn span_builder<N>(&self, name: N) -> SpanBuilder
    where
        N: Into<Cow<'static, str>>,
    {
        // The layer adds about eight attributes, two more at the end, then ours: room for all of
        // them saves more than it costs.
        const ROOM: usize = 16;
        let mut attributes = Vec::with_capacity(ROOM);
        if let Some([layer, span]) = handover::take_offer() {
            attributes.push(layer);
            attributes.push(span);
        }
        let name = name.into();
        if let Some(role) = self.redaction().and_then(|it| it.named(&name)) {
            attributes.push(redaction::mark_named(role));
        }
        let mut builder = self.inner.span_builder(name);
        if let Some(given) = builder.attributes.take() {
            attributes.extend(given);
        }
        builder.attributes = Some(attributes);
        builder
    }

    fn build_with_context(&self, mut builder: SpanBuilder, parent: &Context) -> Self::Span {
        let told = builder.attributes.as_mut().and_then(handover::take_marked);
        let around = InForce::under(parent);
        if let Some((span, told)) = told {
            return self.start_handed_over(builder, parent, around, span, told);
        }
        if let InForce::EntryToTrace(scope) = around {
            return self.start_trace(builder, parent, scope);
        }
        let bound = matches!(around, InForce::Bound(_));
        let scope = around.scope();
        let attributes = self.attributes(&mut builder, scope.as_deref(), Opening::default());
        self.start(builder, parent, scope, bound, attributes)
    }
}

impl<T: Tracer> SessionTracer<T> {
    /// Starts a span of which the layer has told something.
    #[cold]
    fn start_handed_over(
        &self,
        mut builder: SpanBuilder,
        parent: &Context,
        around: InForce,
        span: Key,
        told: Handover,
    ) -> SessionSpan<T::Span> {
        let begins_trace = matches!(around, InForce::EntryToTrace(_));
        let is_entry = begins_trace || matches!(around, InForce::Entry(_));
        let around = around.scope();
        let (scope, opening) = match told.opened {
            None => (around.clone().or(told.otherwise), Opening::default()),
            // Started under the `Context` that it was made in.
            Some(Opened { scope, opening }) if is_same(&around, &scope) => (Some(scope), opening),
            // Its parent was set from outside: what is in force there is the outer scope.
            Some(Opened { scope, mut opening }) => {
                let outer = around.clone().or(told.otherwise);
                opening.is_root &= !is_in_turn(outer.as_deref(), scope.id().as_ref());
                (Some(scope.moved_into(outer)), opening)
            }
        };
        let attributes = self.attributes(&mut builder, scope.as_deref(), opening);
        // For samplers and processors, which know the span only by its `Context`.
        let (entered, root);
        let mut shown = parent;
        let mut bound = false;
        if let Some(scope) = &scope {
            bound = !(is_entry && is_same(&around, scope));
            if bound {
                entered = scope.clone().entered(parent);
                shown = &entered;
                known::track(span, scope.clone(), false);
            }
            if (begins_trace || opening.is_root) && !parent.is_telemetry_suppressed() {
                root = rooted(&mut builder, parent, scope);
                shown = &root;
            }
        }
        self.start(builder, shown, scope, bound, attributes)
    }

    /// Starts the span of a turn, of which the layer has told nothing.
    #[cold]
    fn start_trace(
        &self,
        mut builder: SpanBuilder,
        parent: &Context,
        scope: Arc<Scope>,
    ) -> SessionSpan<T::Span> {
        let attributes = self.attributes(&mut builder, Some(&scope), Opening::default());
        let root =
            (!parent.is_telemetry_suppressed()).then(|| rooted(&mut builder, parent, &scope));
        let parent = root.as_ref().unwrap_or(parent);
        self.start(builder, parent, Some(scope), false, attributes)
    }

    #[inline(always)]
    fn redaction(&self) -> Option<&Redaction> {
        self.format.as_ref()?.redaction.as_deref()
    }

    /// Redacts the attributes of a builder, and takes what is ours to write out of them.
    #[inline(always)]
    fn attributes(
        &self,
        builder: &mut SpanBuilder,
        scope: Option<&Scope>,
        opening: Opening,
    ) -> SpanAttributes {
        let mut attributes = SpanAttributes::new(opening, self.format.as_ref(), scope);
        if let Some(redaction) = self.redaction() {
            if !attributes.redact_builder(redaction, builder, scope) {
                return attributes;
            }
        }
        if let Some(given) = &mut builder.attributes {
            attributes.take_reserved(given, scope);
        }
        attributes
    }

    #[inline(always)]
    fn start(
        &self,
        builder: SpanBuilder,
        parent: &Context,
        scope: Option<Arc<Scope>>,
        bound: bool,
        attributes: SpanAttributes,
    ) -> SessionSpan<T::Span> {
        let _starting = handover::starting();
        let inner = self.inner.build_with_context(builder, parent);
        SessionSpan::new(inner, scope, bound, attributes)
    }
}

/// Makes the span that is built the root of a trace, linked to the one that would be its parent.
///
/// The `Context` to start it under has no span at all: one that is not valid would be a parent that
/// is not sampled to `Sampler::ParentBased`. So it has of `parent` only what can be asked for: the
/// scope and the baggage. What is started below the span inherits all the same: its `Context` is made of
/// `parent`, which the tracer only gets to see.
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

fn is_same(around: &Option<Arc<Scope>>, scope: &Arc<Scope>) -> bool {
    around.as_ref().is_some_and(|it| Arc::ptr_eq(it, scope))
}
