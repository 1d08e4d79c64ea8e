//! The other ways, each as good as we could make it.

use opentelemetry::baggage::BaggageExt;
use opentelemetry::trace::{Span as _, SpanBuilder, Tracer};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};
use std::borrow::Cow;
use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context as LayerContext;
use tracing_subscriber::registry::LookupSpan;

/// A tracer that pushes two ready-made attributes into each builder that it is asked for.
///
/// The vector is made large enough for all attributes of the span, which saves more than the two
/// cost: the OpenTelemetry layer makes it for those that it knows of, and it has to grow later.
pub(super) struct Pushing<T, F> {
    inner: T,
    ready: F,
}

impl<T, F> Pushing<T, F> {
    pub(super) fn new(inner: T, ready: F) -> Self {
        Self { inner, ready }
    }
}

impl<T: Tracer, F: Fn() -> Option<[KeyValue; 2]>> Tracer for Pushing<T, F> {
    type Span = T::Span;

    fn span_builder<N: Into<Cow<'static, str>>>(&self, name: N) -> SpanBuilder {
        let mut builder = self.inner.span_builder(name);
        let mut attributes = Vec::with_capacity(16);
        if let Some(ready) = (self.ready)() {
            attributes.extend(ready);
        }
        builder.attributes = Some(attributes);
        builder
    }

    fn build_with_context(&self, builder: SpanBuilder, parent: &Context) -> Self::Span {
        self.inner.build_with_context(builder, parent)
    }
}

/// Copies baggage onto spans, as the baggage processors of other languages do.
#[derive(Debug)]
pub(super) struct BaggageProcessor;

impl SpanProcessor for BaggageProcessor {
    fn on_start(&self, span: &mut Span, cx: &Context) {
        for (key, (value, _)) in cx.baggage() {
            span.set_attribute(KeyValue::new(key.clone(), value.clone()));
        }
    }

    fn on_end(&self, _span: SpanData) {}

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// Keeps two ids in the extensions of each span, taken from its fields or else from its parent, as
/// `metrics-tracing-context` does with its labels. [`Pushing`] then writes them.
///
/// It is no crate to use: what is recorded late, spans made without `tracing` and a parent from
/// elsewhere are beyond it.
pub(super) struct Inherited;

struct Ids(Arc<[KeyValue; 2]>);

thread_local! {
    /// Of the span being made, for the tracer.
    static IDS: RefCell<Option<Arc<[KeyValue; 2]>>> = const { RefCell::new(None) };
}

pub(super) fn inherited() -> Option<[KeyValue; 2]> {
    IDS.take().map(|ids| (*ids).clone())
}

impl<S> Layer<S> for Inherited
where
    S: tracing::Subscriber + for<'span> LookupSpan<'span>,
{
    fn on_new_span(&self, attrs: &Attributes<'_>, id: &Id, ctx: LayerContext<'_, S>) {
        let Some(span) = ctx.span(id) else { return };
        let mut said = Said::default();
        attrs.record(&mut said);
        let ids = match (said.session, said.user) {
            (Some(session), Some(user)) => Some(Arc::new([session, user])),
            _ => span
                .parent()
                .and_then(|parent| parent.extensions().get::<Ids>().map(|ids| ids.0.clone())),
        };
        if let Some(ids) = ids {
            span.extensions_mut().replace(Ids(ids.clone()));
            IDS.set(Some(ids));
        }
    }
}

#[derive(Default)]
struct Said {
    session: Option<KeyValue>,
    user: Option<KeyValue>,
}

impl Visit for Said {
    fn record_str(&mut self, field: &Field, value: &str) {
        let value = || Arc::<str>::from(value);
        match field.name() {
            "session.id" => self.session = Some(KeyValue::new("session.id", value())),
            "user.id" => self.user = Some(KeyValue::new("user.id", value())),
            _ => {}
        }
    }

    fn record_debug(&mut self, _field: &Field, _value: &dyn std::fmt::Debug) {}
}
