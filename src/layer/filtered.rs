//! `SessionLayer::wrap_filtered`: openers that are filtered out for the OpenTelemetry layer still set the session for
//! their descendants.
//!
//! Two halves: the wrapped layer with the given filter, and a layer that tracks the openers that this filter disables.
//! The second half has a filter of its own, because one without a filter would switch off the level filter of the whole
//! subscriber.

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

/// Enables openers of every level, and no events.
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

/// Tracks the openers that the OpenTelemetry layer doesn't know.
#[derive(Debug)]
struct FilteredOutOpeners(Arc<LayerState>);

impl<S> Layer<S> for FilteredOutOpeners
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    fn on_new_span(&self, attrs: &Attributes<'_>, id: &Id, ctx: Context<'_, S>) {
        // An implicit opener that opens nothing, because the outer session was set explicitly, isn't tracked.
        let _ignored = self.0.track_opener(attrs, id, &ctx);
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

/// Skips the callbacks for untracked spans. The filtered layer inside would look each of them up in the registry, to see
/// whether its filter enabled it.
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
        if tracked::is_any_entered() && self.may_be_tracked(id) {
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
