//! `wrap_filtered`: filters the OpenTelemetry layer, and still lets filtered-out openers set a session.

/// The callbacks that a layer with the fields `inner` and `state` forwards unchanged.
macro_rules! forward_to_inner {
    ($subscriber:ty) => {
        fn register_callsite(
            &self,
            metadata: &'static tracing::Metadata<'static>,
        ) -> tracing::subscriber::Interest {
            self.inner.register_callsite(metadata)
        }

        fn enabled(&self, metadata: &tracing::Metadata<'_>, ctx: Context<'_, $subscriber>) -> bool {
            self.inner.enabled(metadata, ctx)
        }

        fn max_level_hint(&self) -> Option<tracing::level_filters::LevelFilter> {
            self.inner.max_level_hint()
        }

        fn on_follows_from(&self, id: &Id, follows: &Id, ctx: Context<'_, $subscriber>) {
            self.inner.on_follows_from(id, follows, ctx);
        }

        fn event_enabled(&self, event: &tracing::Event<'_>, ctx: Context<'_, $subscriber>) -> bool {
            self.inner.event_enabled(event, ctx)
        }

        fn on_event(&self, event: &tracing::Event<'_>, ctx: Context<'_, $subscriber>) {
            self.inner.on_event(event, ctx);
        }

        fn on_id_change(&self, old: &Id, new: &Id, ctx: Context<'_, $subscriber>) {
            self.inner.on_id_change(old, new, ctx);
        }

        // `Layered` and `Filtered` search the inner layers for markers. Without this method the markers would be
        // missing, and the filters of the whole subscriber would change. SAFETY: the pointers are to `self`, to its
        // state, or valid as long as `inner` is by its own contract. All three live as long as `self`.
        #[allow(unsafe_code)]
        unsafe fn downcast_raw(&self, id: std::any::TypeId) -> Option<*const ()> {
            let found = self.state.find(id, self);
            found.or_else(|| unsafe { self.inner.downcast_raw(id) })
        }
    };
}

use crate::base::setup::TracerKind;
use crate::layer::spans::{LayerState, is_none};
use crate::layer::wrapped::WrappedLayer;
use crate::scope::bridge;
use std::sync::Arc;
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id};
use tracing::subscriber::Interest;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, Filter};
use tracing_subscriber::registry::LookupSpan;

/// See [`SessionLayer::wrap_filtered`](crate::SessionLayer::wrap_filtered).
///
/// The inner layer has two halves. The first one is the OpenTelemetry layer with the given filter. The second one is
/// empty and exists only for its filter, which enables openers that the given filter disables.
pub(crate) fn wrap_filtered<S, L, F>(state: Arc<LayerState>, otel: L, filter: F) -> impl Layer<S>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    L: Layer<S>,
    F: Filter<S> + Send + Sync + 'static,
{
    if is_none(&otel) {
        state.setup.tracer.found(TracerKind::NoLayer);
    }
    let given: GivenFilter<S> = Arc::new(filter);
    let exported = otel.and_then(Received { is_enabled: true });
    let openers = Received { is_enabled: false }.with_filter(OpenerFilter {
        state: state.clone(),
        given: given.clone(),
    });
    let openers = OpenerHalf {
        inner: openers,
        state: state.clone(),
    };
    WrappedLayer {
        // `and_then` calls the second half last.
        inner: exported.with_filter(given).and_then(openers),
        state,
        is_filtered: true,
    }
}

/// The filter that `wrap_filtered` is called with. Both halves share it.
type GivenFilter<S> = Arc<dyn Filter<S> + Send + Sync>;

/// Enables openers that the given filter disables, up to a level, and no other spans or events.
struct OpenerFilter<S> {
    state: Arc<LayerState>,
    given: GivenFilter<S>,
}

impl<S> OpenerFilter<S> {
    fn enables(&self, metadata: &Metadata<'_>) -> bool {
        let openers = &self.state.openers;
        metadata.is_span()
            && openers.names.opener_callsite(metadata).is_some()
            && self
                .max_level_hint()
                .is_none_or(|max| *metadata.level() <= max)
    }
}

impl<S> Filter<S> for OpenerFilter<S> {
    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        self.enables(metadata)
    }

    /// For all other callsites, returns the interest of the given filter, so that `tracing` caches the combined
    /// interest as if this filter weren't there.
    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.enables(metadata) {
            Interest::always()
        } else {
            self.given.callsite_enabled(metadata)
        }
    }

    /// Without a hint, or with a higher one, this filter would enable the levels above for the whole subscriber.
    fn max_level_hint(&self) -> Option<LevelFilter> {
        let given = self.given.max_level_hint()?;
        Some(given.max(self.state.openers.level))
    }
}

/// Reports to the wrapper whether the given filter has enabled a new span.
struct Received {
    is_enabled: bool,
}

impl<S: Subscriber> Layer<S> for Received {
    fn on_new_span(&self, _: &Attributes<'_>, _: &Id, _: Context<'_, S>) {
        bridge::receive(self.is_enabled);
    }
}

/// The second half of `wrap_filtered`. It doesn't forward callbacks such as `on_enter`, because for each one the
/// filtered layer would look up the span in the registry, to find out whether its filter enabled the span.
struct OpenerHalf<L> {
    inner: L,
    state: Arc<LayerState>,
}

impl<S, L> Layer<S> for OpenerHalf<L>
where
    S: Subscriber,
    L: Layer<S>,
{
    fn on_layer(&mut self, subscriber: &mut S) {
        self.inner.on_layer(subscriber);
    }

    fn on_new_span(&self, attrs: &Attributes<'_>, id: &Id, ctx: Context<'_, S>) {
        self.inner.on_new_span(attrs, id, ctx);
    }

    forward_to_inner!(S);
}
