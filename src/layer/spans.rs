//! The spans of `tracing` in the layers: the session in their extensions, the state that layers share, and access to
//! spans through a dispatcher.
//!
//! Locks: never lock the extensions of two spans at once, and lock none while foreign code runs (a field's `Debug`, the
//! start of an OpenTelemetry span). The OpenTelemetry layer locks extensions in another order, so both could deadlock.

#[cfg(feature = "otlp")]
use crate::base::diagnostic::Message;
use crate::base::setup::{AROUND, BESIDE, FoundTracer, SetupCheck};
use crate::base::{diagnostic, setup};
use crate::layer::openers::Openers;
use crate::scope::Scope;
use crate::scope::bridge::PendingGuard;
use crate::scope::tracking::{self, LayerNumber, SpanKey, TrackedGuard, replace_tracked, track};
use crate::session::Session;
use opentelemetry::Context as OtelContext;
use std::any::TypeId;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use tracing::dispatcher::WeakDispatch;
use tracing::level_filters::LevelFilter;
use tracing::span::{Id, Record};
use tracing::{Dispatch, Subscriber, dispatcher};
use tracing_opentelemetry::get_otel_context;
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// The session of a span, which other layers can read from the span's extensions.
///
/// The spans whose fields set a session or user have this extension. So do spans in a session that the OpenTelemetry
/// layer doesn't receive. Add your layer to the subscriber after the [`SessionLayer`](crate::SessionLayer).
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
    /// The scope that the span's own fields opened. Fields that are recorded later change it.
    pub(crate) opened: Option<Arc<Scope>>,
    /// The tracer below the OpenTelemetry layer has the ticket of the span.
    pub(crate) pending: Option<PendingGuard>,
    /// The span is tracked: the layer attaches the scope when the span is entered.
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
    /// Returns the values that the span's fields have set so far, and the values that the span inherited.
    ///
    /// Values that [`set_session_id`](crate::set_session_id) or `set_parent` set later aren't included. Inside the
    /// span, use [`current_session`](crate::current_session).
    ///
    /// ```
    /// # use tracing_session::layer::SessionExtension;
    /// fn user(opened: &SessionExtension) -> Option<String> {
    ///     opened.session().user_id().map(str::to_owned)
    /// }
    /// ```
    pub fn session(&self) -> Session {
        self.scope.to_session().exact()
    }

    /// Whether the span is an opener that hasn't started.
    pub(crate) fn is_pending(&self) -> bool {
        self.pending.as_ref().is_some_and(PendingGuard::is_pending)
    }

    /// The extension of a tracked span.
    pub(crate) fn tracked(key: SpanKey, scope: Arc<Scope>, opened: Option<Arc<Scope>>) -> Self {
        Self {
            _tracked: Some(track(key, scope.clone(), None)),
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

/// In the extensions of a span on which a `set_*` function has set a session.
pub(crate) struct SetSpan;

/// The state that the layers made from one `SessionLayer` share.
#[derive(Debug, Default)]
pub(crate) struct LayerState {
    number: LayerNumber,
    pub(crate) openers: Openers,
    pub(crate) subscriber: SubscriberHandle,
    pub(crate) setup: SetupChecks,
    /// `Weak`s to it tell whether the layer still exists: it may be reloaded while spans are entered.
    pub(crate) exists: Arc<()>,
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

    /// Implements `downcast_raw` of the layer `layer` with this state: finds the state, for [`LayerState::of`], and the
    /// layer.
    pub(crate) fn find<L: 'static>(&self, id: TypeId, layer: &L) -> Option<*const ()> {
        if id == TypeId::of::<L>() {
            Some(std::ptr::from_ref(layer).cast())
        } else if id == TypeId::of::<Self>() {
            Some(std::ptr::from_ref(self).cast())
        } else {
            None
        }
    }

    /// The layer was added to a subscriber of type `S`.
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
        // With two layers on one subscriber, both find the same one.
        let found = Self::of(dispatch).filter(|found| !std::ptr::eq(*found, self));
        if let Some(other) = found {
            for state in [self, other] {
                state.setup.is_one_of_two.store(true, Ordering::Relaxed);
            }
        }
    }

    /// Records later values of an opener's fields. Returns false if the span isn't an opener.
    pub(crate) fn record<S>(&self, id: &Id, record: &Record<'_>, ctx: &Context<'_, S>) -> bool
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        let Some(span) = ctx.span(id) else {
            return false;
        };
        let Some(callsite) = self.openers.names.opener_callsite(span.metadata()) else {
            return false;
        };
        // Recording runs the application's `Debug`, so release the lock of the extensions first.
        let opened = |span: &SessionExtension| span.opened.clone();
        let opened = span.extensions().get::<SessionExtension>().and_then(opened);
        let opener = opened.as_ref().and_then(|it| it.opener());
        if let Some(opener) = opener {
            self.openers
                .record(&callsite, span.metadata(), opener, record);
        }
        opener.is_some()
    }

    /// Identifies a span. Subscribers count their spans from 1, so the layer's number is part of the key.
    #[inline]
    pub(crate) fn key(&self, span: &Id) -> SpanKey {
        SpanKey {
            layer: self.number,
            span: span.into_u64(),
        }
    }

    /// The `Context` of a span that the OpenTelemetry layer knows, unless it is an unexported session span. Starts the span.
    pub(crate) fn otel_context(&self, id: &Id) -> Option<OtelContext> {
        match tracking::linked(self.key(id)) {
            None => self.subscriber.otel_context(id),
            Some(_) => None,
        }
    }

    /// Records that a `set_*` function has set a session on a span.
    pub(crate) fn set_span(&self, dispatch: &Dispatch, id: &Id) {
        if let Some(access) = self.subscriber.access.get() {
            (access.set_span)(dispatch, id);
        }
    }

    /// Tracks a span in another scope, in its extensions and in the map of tracked spans.
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
        match self.dispatch.get() {
            Some(dispatch) => dispatch.upgrade(),
            None => self.find(),
        }
    }

    /// A `Vec` of layers doesn't forward `on_register_dispatch`. In callbacks that emit diagnostics, the dispatcher is
    /// often the default.
    #[cold]
    fn find(&self) -> Option<Dispatch> {
        dispatcher::get_default(|dispatch| {
            let found = &LayerState::of(dispatch)?.subscriber;
            std::ptr::eq(found, self).then(|| {
                let _already = self.dispatch.set(dispatch.downgrade());
                dispatch.clone()
            })
        })
    }

    /// The `Context` of a span that the OpenTelemetry layer knows. Starts the span.
    pub(crate) fn otel_context(&self, id: &Id) -> Option<OtelContext> {
        get_otel_context(id, &self.upgrade()?)
    }

    /// Whether the layer is on a subscriber.
    #[cfg(feature = "otlp")]
    pub(crate) fn is_added(&self) -> bool {
        self.access.get().is_some()
    }

    /// Emits `message` to this subscriber, or to the current one if this one was dropped. Call it outside callbacks.
    #[cfg(feature = "otlp")]
    pub(crate) fn emit(&self, message: &Message) {
        match self.upgrade() {
            Some(dispatch) => diagnostic::emit_to(&dispatch, message),
            None => diagnostic::emit(message),
        }
    }

    #[inline]
    pub(crate) fn flush_diagnostics(&self) {
        if diagnostic::has_deferred() {
            if let Some(dispatch) = self.upgrade() {
                diagnostic::flush(&dispatch);
            }
        }
    }

    /// Calls `visit` for a span and then for each ancestor, with the scope in its extensions, until it returns false.
    pub(crate) fn ancestors(&self, dispatch: &Dispatch, id: &Id, visit: Visit<'_>) {
        if let Some(access) = self.access.get() {
            (access.ancestors)(dispatch, id, visit);
        }
    }

    pub(crate) fn parent(&self, dispatch: &Dispatch, id: &Id) -> Option<Id> {
        let mut parent = None;
        self.ancestors(dispatch, id, &mut |it, _| {
            parent = Some(it.clone()).filter(|it| it != id);
            parent.is_none()
        });
        parent
    }
}

/// Returns whether to go on with the parent.
pub(crate) type Visit<'a> = &'a mut dyn FnMut(&Id, Option<&SessionExtension>) -> bool;

/// Functions that know the type of the subscriber, for code with only a dispatcher.
#[derive(Debug)]
struct SpanAccess {
    ancestors: fn(&Dispatch, &Id, Visit<'_>),
    replace_scope: fn(&Dispatch, &Id, SpanKey, &Arc<Scope>),
    set_span: fn(&Dispatch, &Id),
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
                    let goes_on = visit(&span.id(), span.extensions().get());
                    if !goes_on {
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
                // Drop the old scope after the lock is released.
                drop(extensions);
                drop(replaced);
                replace_tracked(key, scope.clone());
            },
            set_span: |dispatch, id| {
                let found = dispatch.downcast_ref::<S>().and_then(|it| it.span(id));
                if let Some(span) = found {
                    span.extensions_mut().replace(SetSpan);
                }
            },
        }
    }
}

/// Whether a layer is `None`, or disables everything.
pub(crate) fn is_none<S: Subscriber>(layer: &impl Layer<S>) -> bool {
    layer.max_level_hint() == Some(LevelFilter::OFF)
}
