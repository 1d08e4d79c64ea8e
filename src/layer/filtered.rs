//! `SessionLayer::wrap_filtered`: spans that a filter hides from the OpenTelemetry layer, and that open
//! a scope all the same.
//!
//! A layer without a filter beside a filtered one would switch off the level filter of the whole
//! subscriber. So the half that follows the hidden spans has a filter of its own.

use crate::layer::openers::Shared;
use crate::layer::wrapped::WrappedLayer;
use crate::layer::{reached, tracked};
use std::any::TypeId;
use std::sync::Arc;
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Dispatch, Event, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, Filter};
use tracing_subscriber::registry::LookupSpan;

/// See [`SessionLayer::wrap_filtered`](crate::SessionLayer::wrap_filtered).
pub(crate) fn wrap_filtered<S, L, F>(shared: Arc<Shared>, otel: L, filter: F) -> impl Layer<S>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    L: Layer<S>,
    F: Filter<S> + 'static,
{
    shared.beside.finish(None);
    let exported = WrappedLayer::new(shared.clone(), otel).with_filter(filter);
    let filtered_out = FilteredOutOpeners(shared.clone()).with_filter(OpenersOnly(shared.clone()));
    // The layer that is joined last is called last: it sees which spans the other one has received.
    exported.and_then(TrackedOnly {
        inner: filtered_out,
        shared,
    })
}

/// Lets through the spans that open a scope, whatever their level, and no event.
#[derive(Debug)]
struct OpenersOnly(Arc<Shared>);

impl<S> Filter<S> for OpenersOnly {
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

/// Follows the spans that [`OpenersOnly`] lets through and the OpenTelemetry layer does not know.
#[derive(Debug)]
struct FilteredOutOpeners(Arc<Shared>);

impl<S> Layer<S> for FilteredOutOpeners
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    fn on_new_span(&self, attrs: &Attributes<'_>, id: &Id, ctx: Context<'_, S>) {
        // A span that opens nothing, because the session around it was set explicitly, is left alone.
        let _not_opened = self.0.track_opener(attrs, id, &ctx);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, ctx: Context<'_, S>) {
        self.0.record(id, values, &ctx);
        self.0.flush_diagnostics();
    }

    fn on_enter(&self, id: &Id, _: Context<'_, S>) {
        self.0.enter_if_tracked(id);
    }

    fn on_exit(&self, id: &Id, _: Context<'_, S>) {
        self.0.track_exit(id);
    }

    fn on_close(&self, _: Id, _: Context<'_, S>) {
        self.0.flush_diagnostics();
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
struct TrackedOnly<L> {
    inner: L,
    shared: Arc<Shared>,
}

impl<L> TrackedOnly<L> {
    fn may_be_tracked(&self, id: &Id) -> bool {
        tracked::may_track(self.shared.key(id))
    }
}

impl<S, L> Layer<S> for TrackedOnly<L>
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
        if self.may_be_tracked(id) {
            self.inner.on_record(id, values, ctx);
        }
    }

    fn on_enter(&self, id: &Id, ctx: Context<'_, S>) {
        if self.may_be_tracked(id) {
            self.inner.on_enter(id, ctx);
        }
    }

    fn on_exit(&self, id: &Id, ctx: Context<'_, S>) {
        if tracked::is_inside() && self.may_be_tracked(id) {
            self.inner.on_exit(id, ctx);
        }
    }

    fn on_close(&self, id: Id, ctx: Context<'_, S>) {
        if self.may_be_tracked(&id) {
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
