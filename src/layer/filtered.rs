//! `SessionLayer::with_filter`: spans that a filter hides from the OpenTelemetry layer, and that open
//! a scope all the same.
//!
//! A layer without a filter beside a filtered one would switch off the level filter of the whole
//! subscriber. So the half that follows the hidden spans has a filter of its own.

use crate::known;
use crate::layer::around::AroundLayer;
use crate::layer::opening::Shared;
use crate::layer::reached;
use crate::layer::tracking;
use std::any::TypeId;
use std::sync::Arc;
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Dispatch, Event, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, Filter};
use tracing_subscriber::registry::LookupSpan;

/// A [`SessionLayer`](crate::SessionLayer) with a filter for the OpenTelemetry layer: see
/// [`SessionLayer::with_filter`](crate::SessionLayer::with_filter).
///
/// ```
/// use tracing_session::{FilteredSessionLayer, SessionLayer};
/// use tracing_subscriber::filter::LevelFilter;
///
/// let layer: FilteredSessionLayer<LevelFilter> = SessionLayer::new().with_filter(LevelFilter::INFO);
/// ```
#[derive(Debug)]
pub struct FilteredSessionLayer<F> {
    shared: Arc<Shared>,
    filter: F,
}

impl<F> FilteredSessionLayer<F> {
    pub(crate) fn new(shared: Arc<Shared>, filter: F) -> Self {
        Self { shared, filter }
    }

    /// The OpenTelemetry layer with the filter and this layer around it: see
    /// [`SessionLayer::around`](crate::SessionLayer::around).
    ///
    /// ```
    /// # use opentelemetry::trace::TracerProvider;
    /// # use opentelemetry_sdk::trace::SdkTracerProvider;
    /// # use tracing_session::{SessionLayer, SessionTracerProvider};
    /// # use tracing_subscriber::prelude::*;
    /// # use tracing_subscriber::filter::LevelFilter;
    /// # let provider = SessionTracerProvider::new(SdkTracerProvider::default());
    /// let otel = tracing_opentelemetry::layer().with_tracer(provider.tracer("chat"));
    /// let layer = SessionLayer::new().with_filter(LevelFilter::INFO).around(otel);
    /// let subscriber = tracing_subscriber::registry().with(layer);
    /// # drop(subscriber);
    /// ```
    pub fn around<S, L>(self, otel: L) -> impl Layer<S>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
        L: Layer<S>,
        F: Filter<S> + 'static,
    {
        let shared = self.shared;
        shared.beside.finish(None);
        let visible = AroundLayer::new(shared.clone(), otel).with_filter(self.filter);
        let hidden = HiddenSpans(shared.clone()).with_filter(Openers(shared.clone()));
        // The half that is joined last is called last: it sees what the other has taken.
        visible.and_then(OnlyKnown {
            inner: hidden,
            shared,
        })
    }
}

/// Lets through the spans that open a scope, whatever their level, and no event.
#[derive(Debug)]
struct Openers(Arc<Shared>);

impl<S> Filter<S> for Openers {
    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        metadata.is_span() && self.0.names.open(metadata)
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        if metadata.is_span() && self.0.names.open(metadata) {
            Interest::always()
        } else {
            Interest::never()
        }
    }
}

/// Follows the spans that [`Openers`] lets through and the OpenTelemetry layer does not know.
#[derive(Debug)]
struct HiddenSpans(Arc<Shared>);

impl<S> Layer<S> for HiddenSpans
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    fn on_new_span(&self, attrs: &Attributes<'_>, id: &Id, ctx: Context<'_, S>) {
        // A span that opens nothing, because the session around it was set explicitly, is left alone.
        let _not_opened = self.0.track_opener(attrs, id, &ctx);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, ctx: Context<'_, S>) {
        self.0.record(id, values, &ctx);
        self.0.say_waiting();
    }

    fn on_enter(&self, id: &Id, _: Context<'_, S>) {
        self.0.enter_hidden(id);
    }

    fn on_exit(&self, id: &Id, _: Context<'_, S>) {
        self.0.track_exit(id);
    }

    fn on_close(&self, _: Id, _: Context<'_, S>) {
        self.0.say_waiting();
    }

    // SAFETY: the pointers are to `self` and to what it owns, so they live as long as it does.
    #[allow(unsafe_code)]
    unsafe fn downcast_raw(&self, id: TypeId) -> Option<*const ()> {
        reached(id, self, &self.0)
    }
}

/// Keeps the callbacks of all other spans from the filtered layer inside, which would look each span
/// up in the registry to see whether its filter let it through. It forwards everything else.
#[derive(Debug)]
struct OnlyKnown<L> {
    inner: L,
    shared: Arc<Shared>,
}

impl<L> OnlyKnown<L> {
    fn may_know(&self, id: &Id) -> bool {
        known::may_track(self.shared.key(id))
    }
}

impl<S, L> Layer<S> for OnlyKnown<L>
where
    S: Subscriber,
    L: Layer<S>,
{
    fn on_register_dispatch(&self, dispatch: &Dispatch) {
        self.inner.on_register_dispatch(dispatch);
    }

    fn on_layer(&mut self, subscriber: &mut S) {
        self.inner.on_layer(subscriber);
    }

    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        self.inner.register_callsite(metadata)
    }

    fn enabled(&self, metadata: &Metadata<'_>, ctx: Context<'_, S>) -> bool {
        self.inner.enabled(metadata, ctx)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        self.inner.max_level_hint()
    }

    fn on_new_span(&self, attrs: &Attributes<'_>, id: &Id, ctx: Context<'_, S>) {
        self.inner.on_new_span(attrs, id, ctx);
    }

    fn event_enabled(&self, event: &Event<'_>, ctx: Context<'_, S>) -> bool {
        self.inner.event_enabled(event, ctx)
    }

    fn on_event(&self, event: &Event<'_>, ctx: Context<'_, S>) {
        self.inner.on_event(event, ctx);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, ctx: Context<'_, S>) {
        if self.may_know(id) {
            self.inner.on_record(id, values, ctx);
        }
    }

    fn on_enter(&self, id: &Id, ctx: Context<'_, S>) {
        if self.may_know(id) {
            self.inner.on_enter(id, ctx);
        }
    }

    fn on_exit(&self, id: &Id, ctx: Context<'_, S>) {
        if tracking::is_inside() && self.may_know(id) {
            self.inner.on_exit(id, ctx);
        }
    }

    fn on_close(&self, id: Id, ctx: Context<'_, S>) {
        if self.may_know(&id) {
            self.inner.on_close(id, ctx);
        }
    }

    // SAFETY: the pointers are those of the layer inside, which are valid by its own promise, as
    // long as it lives: that is as long as `self` does.
    #[allow(unsafe_code)]
    unsafe fn downcast_raw(&self, id: TypeId) -> Option<*const ()> {
        unsafe { self.inner.downcast_raw(id) }
    }
}
