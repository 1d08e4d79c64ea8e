//! `SessionLayer::wrap_filtered`: spans that a filter hides from the OpenTelemetry layer, and that open
//! a scope all the same.
//!
//! A layer without a filter beside a filtered one would switch off the level filter of the whole
//! subscriber. So the half that follows the hidden spans has a filter of its own.

use crate::layer::spans::LayerState;
use crate::layer::wrapped::WrappedLayer;
use crate::layer::{spans, tracked};
use std::sync::Arc;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Dispatch, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, Filter};
use tracing_subscriber::registry::LookupSpan;

/// See [`SessionLayer::wrap_filtered`](crate::SessionLayer::wrap_filtered).
pub(crate) fn wrap_filtered<S, L, F>(state: Arc<LayerState>, otel: L, filter: F) -> impl Layer<S>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    L: Layer<S>,
    F: Filter<S> + 'static,
{
    state.setup.beside.finish(None);
    let exported = WrappedLayer::new(state.clone(), otel).with_filter(filter);
    let filtered_out = FilteredOutOpeners(state.clone()).with_filter(OpenersOnly(state.clone()));
    // The layer that is joined last is called last: it sees which spans the other one has received.
    exported.and_then(TrackedOnly {
        inner: filtered_out,
        state,
    })
}

/// Lets through the spans that open a scope, whatever their level, and no event.
#[derive(Debug)]
struct OpenersOnly(Arc<LayerState>);

impl<S> Filter<S> for OpenersOnly {
    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        metadata.is_span() && self.0.openers.names.opener_fields(metadata).is_some()
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        if metadata.is_span() && self.0.openers.names.opener_fields(metadata).is_some() {
            Interest::always()
        } else {
            Interest::never()
        }
    }
}

/// Follows the spans that [`OpenersOnly`] lets through and the OpenTelemetry layer does not know.
#[derive(Debug)]
struct FilteredOutOpeners(Arc<LayerState>);

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
        self.0.subscriber.flush_diagnostics();
    }

    fn on_enter(&self, id: &Id, _: Context<'_, S>) {
        self.0.enter_if_tracked(id);
    }

    fn on_exit(&self, id: &Id, _: Context<'_, S>) {
        self.0.track_exit(id);
    }

    fn on_close(&self, _: Id, _: Context<'_, S>) {
        self.0.subscriber.flush_diagnostics();
    }
}

/// Keeps the callbacks of all other spans from the filtered layer inside, which would look each span
/// up in the registry to see whether its filter let it through. It forwards everything else.
#[derive(Debug)]
struct TrackedOnly<L> {
    inner: L,
    state: Arc<LayerState>,
}

impl<L> TrackedOnly<L> {
    fn may_be_tracked(&self, id: &Id) -> bool {
        spans::may_track(self.state.key(id))
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

    fn on_new_span(&self, attrs: &Attributes<'_>, id: &Id, ctx: Context<'_, S>) {
        self.inner.on_new_span(attrs, id, ctx);
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

    forward_to_inner!(S);
}
