//! The spans of `tracing`, as the layers see them: the session in their extensions, the map of tracked spans, and
//! access to spans with a dispatcher alone.
//!
//! Locks: never hold the extensions of two spans, and none while foreign code runs (a field's `Debug`, the start of an
//! OpenTelemetry span): the OpenTelemetry layer locks extensions in its own order.

use crate::base::setup::{AROUND, BESIDE, FoundTracer, SetupCheck};
use crate::base::shards::Shards;
use crate::base::{diagnostic, setup};
use crate::layer::openers::Openers;
use crate::scope::Scope;
use crate::scope::bridge::PendingGuard;
use crate::session::Session;
use opentelemetry::Context as OtelContext;
use std::any::TypeId;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use tracing::dispatcher::WeakDispatch;
use tracing::span::{Id, Record};
use tracing::{Dispatch, Subscriber};
use tracing_opentelemetry::get_otel_context;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// The session of a span whose fields set a session or user. It is in the span's extensions, for other layers.
///
/// Layers that you add after the [`SessionLayer`](crate::SessionLayer) can read it. A span that the OpenTelemetry layer
/// doesn't receive has it too if it is in a session, with the session that it inherits.
///
/// ```
/// use tracing::span::{Attributes, Id};
/// use tracing_session::layer::SessionExtension;
/// use tracing_subscriber::layer::{Context, Layer};
/// use tracing_subscriber::registry::LookupSpan;
///
/// struct Audit;
///
/// impl<S> Layer<S> for Audit
/// where
///     S: tracing::Subscriber + for<'span> LookupSpan<'span>,
/// {
///     fn on_new_span(&self, _: &Attributes<'_>, id: &Id, ctx: Context<'_, S>) {
///         let Some(span) = ctx.span(id) else { return };
///         if let Some(opened) = span.extensions().get::<SessionExtension>() {
///             let session = opened.session();
///             // ...
///         }
///     }
/// }
/// ```
pub struct SessionExtension {
    pub(crate) scope: Arc<Scope>,
    /// The scope that the span's own fields opened, where fields are recorded.
    pub(crate) opened: Option<Arc<Scope>>,
    /// The tracer below the OpenTelemetry layer has the ticket of the span.
    pub(crate) pending: Option<PendingGuard>,
    /// The layer itself attaches the scope when the span is entered.
    pub(crate) _tracked: Option<TrackedGuard>,
}

impl Drop for SessionExtension {
    fn drop(&mut self) {
        if let Some(opened) = &self.opened {
            opened.close();
        }
    }
}

impl SessionExtension {
    /// The values that the span's fields have set by now, and the values that it inherited when it was created.
    ///
    /// It doesn't contain values that [`set_session_id`](crate::set_session_id) or `set_parent` set later. Inside the
    /// span, use [`current_session`](crate::current_session).
    ///
    /// ```
    /// # use tracing_session::layer::SessionExtension;
    /// fn user(opened: &SessionExtension) -> Option<String> {
    ///     opened.session().user_id().map(str::to_owned)
    /// }
    /// ```
    pub fn session(&self) -> Session {
        self.scope.to_session()
    }

    /// The session of a span that the OpenTelemetry layer doesn't know.
    pub(crate) fn tracked(key: SpanKey, scope: Arc<Scope>, opened: Option<Arc<Scope>>) -> Self {
        Self {
            _tracked: Some(track(key, scope.clone())),
            opened,
            scope,
            pending: None,
        }
    }
}

impl fmt::Debug for SessionExtension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SessionExtension")
            .field(&self.session())
            .finish()
    }
}

/// A span of `tracing`, by its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SpanKey {
    /// The address of the layer's state: all subscribers count their spans from 1.
    pub(crate) layer: usize,
    pub(crate) span: u64,
}

/// SpanKeys of two layers may meet in a hash, and are two all the same.
impl Hash for SpanKey {
    #[inline]
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hasher.write_u64(self.span ^ (self.layer as u64).rotate_left(32));
    }
}

/// The scopes of tracked spans, by `tracing`'s span ids: they are attached whenever the span is entered, because the
/// OpenTelemetry layer doesn't know the span. Written when such a span is created or `set_*` is called in it, read when
/// a span is entered or left: one atomic load where it is empty. Empty if there is an OpenTelemetry layer, and no span in
/// a session is filtered out for it.
static TRACKED: Shards<SpanKey, Arc<Scope>> = Shards::new();

/// False if a span is not tracked; true if it may be.
#[inline(always)]
pub(crate) fn may_track(span: SpanKey) -> bool {
    TRACKED.may_have(span)
}

/// Tracks a span, as long as the guard lives.
pub(crate) fn track(span: SpanKey, scope: Arc<Scope>) -> TrackedGuard {
    TRACKED.insert(span, scope);
    TrackedGuard(span)
}

/// Gives a tracked span another scope.
pub(crate) fn replace_tracked(span: SpanKey, scope: Arc<Scope>) {
    TRACKED.insert(span, scope);
}

pub(crate) fn tracked_scope(span: SpanKey) -> Option<Arc<Scope>> {
    TRACKED.read(span, |scope| Some(scope.clone()))
}

/// Ends the tracking of a span when it is dropped, with the span's extensions.
#[derive(Debug)]
#[must_use]
pub(crate) struct TrackedGuard(SpanKey);

impl Drop for TrackedGuard {
    fn drop(&mut self) {
        TRACKED.remove(self.0);
    }
}

/// The state that the layers made of one `SessionLayer` share.
#[derive(Debug, Default)]
pub(crate) struct LayerState {
    pub(crate) openers: Openers,
    pub(crate) subscriber: SubscriberHandle,
    pub(crate) setup: SetupChecks,
}

/// The setup checks of one layer.
#[derive(Debug, Default)]
pub(crate) struct SetupChecks {
    /// Does the wrapped layer receive the spans, and is the tracer ours?
    pub(crate) wrapped: SetupCheck<AROUND>,
    pub(crate) tracer: FoundTracer,
    /// Is there an OpenTelemetry layer beside this layer?
    pub(crate) beside: SetupCheck<BESIDE>,
    /// There is another `SessionLayer` on the subscriber.
    pub(crate) is_one_of_two: AtomicBool,
}

impl LayerState {
    /// The state of the layer on a subscriber.
    pub(crate) fn of(dispatch: &Dispatch) -> Option<&Self> {
        dispatch.downcast_ref::<Self>()
    }

    /// The answer of the layer with this state to a search by type: for [`LayerState::of`], and for the layer itself.
    pub(crate) fn find<L: 'static>(&self, id: TypeId, layer: &L) -> Option<*const ()> {
        if id == TypeId::of::<L>() {
            Some(std::ptr::from_ref(layer).cast())
        } else if id == TypeId::of::<Self>() {
            Some(std::ptr::from_ref(self).cast())
        } else {
            None
        }
    }

    /// The layer is on top of a subscriber of type `S`.
    pub(crate) fn on_layer<S>(&self)
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        setup::layer_added(|dispatch| Self::of(dispatch).is_some());
        let _already = self.subscriber.access.set(SpanAccess::new::<S>());
    }

    /// The subscriber has a dispatcher now.
    pub(crate) fn on_register_dispatch(&self, dispatch: &Dispatch) {
        let _already = self.subscriber.dispatch.set(dispatch.downgrade());
        // If there are two layers, both find the same one of them.
        let found = Self::of(dispatch).filter(|found| !std::ptr::eq(*found, self));
        if let Some(other) = found {
            for state in [self, other] {
                state.setup.is_one_of_two.store(true, Ordering::Relaxed);
            }
        }
    }

    /// Records later values of an opener's fields. False if the span is no opener.
    pub(crate) fn record<S>(&self, id: &Id, record: &Record<'_>, ctx: &Context<'_, S>) -> bool
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        let Some(span) = ctx.span(id) else {
            return false;
        };
        let Some(fields) = self.openers.names.opener_fields(span.metadata()) else {
            return false;
        };
        // Recording runs the application's `Debug`: not under the lock of the extensions.
        let opened = |span: &SessionExtension| span.opened.clone();
        let opened = span.extensions().get::<SessionExtension>().and_then(opened);
        let opener = opened.as_ref().and_then(|it| it.opener());
        if let Some(opener) = opener {
            self.openers.record(fields, span.metadata(), opener, record);
        }
        opener.is_some()
    }

    /// Identifies a span. Subscribers count their spans from 1, so the layer's address is part of the key.
    #[inline]
    pub(crate) fn key(&self, span: &Id) -> SpanKey {
        SpanKey {
            layer: std::ptr::from_ref(self).addr(),
            span: span.into_u64(),
        }
    }

    /// Gives a span another scope: in its extensions, and where it is tracked.
    pub(crate) fn replace_scope(&self, dispatch: &Dispatch, id: &Id, scope: &Arc<Scope>) {
        if let Some(access) = self.subscriber.access.get() {
            (access.replace_scope)(dispatch, id, self.key(id), scope);
        }
    }
}

/// The subscriber that a layer is on.
#[derive(Debug, Default)]
pub(crate) struct SubscriberHandle {
    dispatch: OnceLock<WeakDispatch>,
    access: OnceLock<SpanAccess>,
}

impl SubscriberHandle {
    pub(crate) fn upgrade(&self) -> Option<Dispatch> {
        self.dispatch.get()?.upgrade()
    }

    /// The `Context` of a span that the OpenTelemetry layer knows. Starts the span.
    pub(crate) fn otel_context(&self, id: &Id) -> Option<OtelContext> {
        get_otel_context(id, &self.upgrade()?)
    }

    #[inline]
    pub(crate) fn flush_diagnostics(&self) {
        if diagnostic::has_deferred() {
            if let Some(dispatch) = self.upgrade() {
                diagnostic::flush(&dispatch);
            }
        }
    }

    /// The scope that applies in a span, also if it is filtered out.
    pub(crate) fn scope_of(&self, id: &Id) -> Option<Arc<Scope>> {
        let dispatch = self.upgrade()?;
        // A child with an explicit parent starts the parent, so this may start it too. The map by span id may have a
        // newer scope than the extensions.
        if let Some(cx) = get_otel_context(id, &dispatch) {
            return Scope::of(&cx);
        }
        let mut found = None;
        self.ancestors(&dispatch, id, &mut |_, in_span| {
            found = in_span;
            false
        });
        found
    }

    /// Calls `visit` for a span and then for each ancestor, with the scope in its extensions, until it returns false.
    pub(crate) fn ancestors(&self, dispatch: &Dispatch, id: &Id, visit: Visit<'_>) {
        if let Some(access) = self.access.get() {
            (access.ancestors)(dispatch, id, visit);
        }
    }
}

/// Returns whether to go on with the parent.
pub(crate) type Visit<'a> = &'a mut dyn FnMut(&Id, Option<Arc<Scope>>) -> bool;

/// Functions that know the type of the subscriber, for code that has only a dispatcher.
#[derive(Debug)]
struct SpanAccess {
    ancestors: fn(&Dispatch, &Id, Visit<'_>),
    replace_scope: fn(&Dispatch, &Id, SpanKey, &Arc<Scope>),
}

impl SpanAccess {
    fn new<S>() -> Self
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        Self {
            ancestors: |dispatch, id, visit| {
                let mut next = dispatch.downcast_ref::<S>().and_then(|it| it.span(id));
                while let Some(span) = next {
                    let in_span = |in_span: &SessionExtension| in_span.scope.clone();
                    let scope = span.extensions().get::<SessionExtension>().map(in_span);
                    if !visit(&span.id(), scope) {
                        return;
                    }
                    next = span.parent();
                }
            },
            replace_scope: |dispatch, id, key, scope| {
                let found = dispatch.downcast_ref::<S>().and_then(|it| it.span(id));
                let Some(span) = found else { return };
                let mut extensions = span.extensions_mut();
                let Some(extension) = extensions.get_mut::<SessionExtension>() else {
                    extensions.insert(SessionExtension::tracked(key, scope.clone(), None));
                    return;
                };
                let replaced = std::mem::replace(&mut extension.scope, scope.clone());
                // Dropped after the lock is released.
                drop(extensions);
                drop(replaced);
                replace_tracked(key, scope.clone());
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_whose_hashes_are_equal_are_both_tracked() {
        let [one, other] = [(0, 1 << 32 | 5), (1, 5)].map(|(layer, span)| SpanKey { layer, span });
        let hash = |key: SpanKey| key.span ^ (key.layer as u64).rotate_left(32);
        assert_eq!(hash(one), hash(other));
        let (first, second) = (Scope::empty(), Scope::empty());
        let one_tracked = track(one, first.clone());
        assert!(tracked_scope(other).is_none());
        let other_tracked = track(other, second.clone());
        for (span, scope) in [(one, &first), (other, &second)] {
            assert!(Arc::ptr_eq(&tracked_scope(span).unwrap(), scope));
        }
        drop(other_tracked);
        assert!(tracked_scope(other).is_none() && tracked_scope(one).is_some() && may_track(one));
        drop(one_tracked);
        assert!(tracked_scope(one).is_none());
    }
}
