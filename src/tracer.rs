//! The tracer: gives each span that it starts the scope that the span is in.

use crate::handover::{self, Handover};
use crate::scope::Scope;
use crate::span::{Opening, SessionSpan, SpanAttributes};
use opentelemetry::trace::{SpanBuilder, Tracer, TracerProvider};
use opentelemetry::{Context, InstrumentationScope};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::SdkTracerProvider;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

/// Wraps a tracer provider, so that its spans carry the session that they are in.
///
/// Every span of every tracer of this provider is covered: those that `tracing` makes, and those
/// that a library makes with OpenTelemetry's own API. A span takes the scope that is in force
/// where it starts, and writes `session.id` and `user.id` when it ends, so that what becomes known
/// in between is written too. An attribute `session.id` or `user.id` that the span's author set
/// wins on that span; what samplers and span processors add passes the wrapper by.
///
/// Cost: two attributes, whose text is shared with the session, and no allocation.
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
    pub fn new(provider: P) -> Self {
        Self {
            inner: provider,
            renames_plain: true,
        }
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
    pub fn with_plain_attributes_renamed(self, renamed: bool) -> Self {
        Self {
            renames_plain: renamed,
            ..self
        }
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
    /// Those of the span processors, and when the provider was shut down before.
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
    renames_plain: bool,
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
        attributes.extend(handover::take_offer());
        let mut builder = self.inner.span_builder(name);
        attributes.append(&mut builder.attributes.take().unwrap_or_default());
        builder.attributes = Some(attributes);
        builder
    }

    fn build_with_context(&self, mut builder: SpanBuilder, parent: &Context) -> Self::Span {
        let handover = builder.attributes.as_mut().and_then(handover::take_marked);
        let start = Start::new(handover, parent);
        let mut attributes = SpanAttributes::new(start.opened, self.renames_plain);
        if let Some(given) = &mut builder.attributes {
            attributes.take_reserved(given, start.scope.as_deref());
        }
        // What the tracer inside does may make spans of its own: samplers and processors run there.
        let inner = handover::without_offer(|| match &start.shown {
            Some(shown) => self.inner.build_with_context(builder, shown),
            None => self.inner.build_with_context(builder, parent),
        });
        SessionSpan::new(inner, start.scope, start.bound, attributes)
    }
}

/// What a span takes over from its parent and from the layer when it starts.
struct Start {
    scope: Option<Arc<Scope>>,
    /// The spans below would not find the scope in the `Context` that they inherit.
    bound: bool,
    /// For samplers and processors: the parent's `Context` with the scope, where it is another.
    shown: Option<Context>,
    opened: Opening,
}

impl Start {
    fn new(handover: Option<Handover>, parent: &Context) -> Self {
        let around = Scope::of(parent);
        let Some(Handover { opened, otherwise }) = handover else {
            return Self {
                bound: !is_inherited(&around, parent),
                scope: around,
                shown: None,
                opened: Opening::default(),
            };
        };
        let (scope, opened) = match opened {
            Some(opened) => {
                let opening = Opening {
                    opens: true,
                    names_id: opened.names_id,
                };
                // Otherwise the parent was set from outside, and its scope is the outer one.
                let scope = if opened.scope.is_entry_of(parent) {
                    opened.scope
                } else {
                    Scope::nested(around.or(otherwise), opened.values)
                };
                (Some(scope), opening)
            }
            None => (around.or(otherwise), Opening::default()),
        };
        let bound = !is_inherited(&scope, parent);
        Self {
            shown: scope
                .clone()
                .filter(|_| bound)
                .map(|scope| scope.entered(parent)),
            scope,
            bound,
            opened,
        }
    }
}

fn is_inherited(scope: &Option<Arc<Scope>>, parent: &Context) -> bool {
    scope.as_ref().is_none_or(|scope| scope.is_entry_of(parent))
}
