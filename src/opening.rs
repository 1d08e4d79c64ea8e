//! Spans open scopes: what both layers do when a span says a session or user.

use crate::diagnostic::{self, Once};
use crate::error::ErrorKind;
use crate::fields::{Names, Role, Said};
use crate::handover::{Opened, Pending};
use crate::scope::{Scope, Value, Values};
use crate::session::{Id, Session};
use std::sync::atomic::AtomicU8;
use std::sync::{Arc, OnceLock};
use tracing::callsite::Identifier;
use tracing::dispatcher::{self, WeakDispatch};
use tracing::field::Field;
use tracing::span::{Attributes, Id as SpanId, Record};
use tracing::{Dispatch, Metadata, Subscriber};
use tracing_opentelemetry::get_otel_context;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::{ExtensionsMut, LookupSpan};

/// What a `SessionLayer` was configured to, shared by the layers that it is made into.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub(crate) names: Names,
    pub(crate) default: Option<Arc<Scope>>,
    dispatch: OnceLock<WeakDispatch>,
    reach: OnceLock<Reach>,
    /// How often it was looked whether there is an OpenTelemetry layer beside us.
    pub(crate) looks: AtomicU8,
    reported: Once<(Identifier, Role, ErrorKind)>,
}

/// In the extensions of a span: the scope in force in it.
pub(crate) struct InSpan {
    pub(crate) scope: Arc<Scope>,
    /// What the span's own fields say, to be told when one is recorded late.
    pub(crate) values: Values,
    /// The span is unknown to the OpenTelemetry layer, so we attach the scope when it is entered.
    pub(crate) tracked: bool,
    pub(crate) pending: Option<Pending>,
}

impl InSpan {
    /// Puts this into the extensions of a span, and beside it the [`Session`] for other layers.
    pub(crate) fn store(self, extensions: &mut ExtensionsMut<'_>) {
        extensions.replace(self.session());
        extensions.replace(self);
    }

    fn session(&self) -> Session {
        self.scope.to_session()
    }
}

impl Shared {
    /// The scope that a new span opens inside `outer`.
    pub(crate) fn open(&self, span: &Attributes<'_>, outer: Option<Arc<Scope>>) -> Opened {
        let metadata = span.metadata();
        let late = |role| match self.names.declare(metadata, role) {
            true => Value::Late(Arc::default()),
            false => Value::Unsaid,
        };
        let values = Values {
            id: late(Role::Session),
            user_id: late(Role::User),
        };
        span.record(&mut self.said(metadata, &values));
        Opened {
            scope: Scope::nested(outer.or_else(|| self.default.clone()), values.clone()),
            values,
            names_id: self.names.role(metadata, crate::attributes::ID).is_some(),
        }
    }

    /// Tells a scope what is recorded on the span that opened it.
    pub(crate) fn record<S>(&self, id: &SpanId, record: &Record<'_>, ctx: &Context<'_, S>)
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        let Some(span) = ctx.span(id) else { return };
        if !self.names.open(span.metadata()) {
            return;
        }
        // Recording runs the application's `Debug`: not under the lock of the extensions.
        let values = span
            .extensions()
            .get::<InSpan>()
            .map(|in_span| in_span.values.clone());
        if let Some(values) = values {
            record.record(&mut self.said(span.metadata(), &values));
            let mut extensions = span.extensions_mut();
            if let Some(session) = extensions
                .get_mut::<InSpan>()
                .map(|in_span| in_span.session())
            {
                extensions.replace(session);
            }
        }
    }

    fn said<'a>(
        &'a self,
        span: &'static Metadata<'static>,
        values: &'a Values,
    ) -> Said<'a, impl FnMut(&Field, Role, Result<Id, ErrorKind>) + 'a> {
        let each = move |field: &Field, role, id| {
            let value = match role {
                Role::Session => &values.id,
                Role::User => &values.user_id,
            };
            match (id, value) {
                (Ok(id), Value::Late(late)) => late.set(id),
                (Ok(_), _) => {}
                (Err(error), _) => {
                    if self.reported.first((span.callsite(), role, error)) {
                        diagnostic::field_ignored(span, field.name(), error);
                    }
                }
            }
        };
        Said {
            names: &self.names,
            span,
            each,
        }
    }

    /// The layer is on top of a subscriber of type `S`.
    pub(crate) fn on_layer<S>(&self)
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        let _already = self.reach.set(Reach::new::<S>());
    }

    /// The subscriber has become a dispatcher, which the layer speaks through.
    pub(crate) fn on_register_dispatch(&self, dispatch: &Dispatch) {
        let _already = self.dispatch.set(dispatch.downgrade());
    }

    pub(crate) fn upgrade(&self) -> Option<Dispatch> {
        self.dispatch.get()?.upgrade()
    }

    pub(crate) fn say_waiting(&self) {
        diagnostic::say_waiting(self.dispatch.get());
    }

    /// Tells the layers of one `SessionLayer` from those of others.
    pub(crate) fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// The scope in force in a span, whether a filter hides it or not.
    pub(crate) fn scope_of_span(&self, id: &SpanId) -> Option<Arc<Scope>> {
        let dispatch = self.upgrade()?;
        let mut found = None;
        self.ancestors(&dispatch, id, &mut |id, scope| {
            found = match scope {
                Some(scope) => Some(Some(scope)),
                // The OpenTelemetry layer starts a span of which a child is made: so may we.
                None => get_otel_context(id, &dispatch).map(|cx| Scope::of(&cx)),
            };
            found.is_none()
        });
        found.flatten()
    }

    /// Calls `visit` for a span and then for each one above it, with the scope in its extensions,
    /// as long as it gives true.
    pub(crate) fn ancestors(&self, dispatch: &Dispatch, id: &SpanId, visit: Visit<'_>) {
        if let Some(reach) = self.reach.get() {
            (reach.ancestors)(dispatch, id, visit);
        }
    }

    /// Puts another scope into the extensions of a span.
    pub(crate) fn rescope(&self, dispatch: &Dispatch, id: &SpanId, scope: &Arc<Scope>) {
        if let Some(reach) = self.reach.get() {
            (reach.rescope)(dispatch, id, scope);
        }
    }
}

/// Gives true to go on.
pub(crate) type Visit<'a> = &'a mut dyn FnMut(&SpanId, Option<Arc<Scope>>) -> bool;

/// Lets code that has only a dispatcher reach spans: the functions know the subscriber's type.
#[derive(Debug)]
struct Reach {
    ancestors: fn(&Dispatch, &SpanId, Visit<'_>),
    rescope: fn(&Dispatch, &SpanId, &Arc<Scope>),
}

impl Reach {
    fn new<S>() -> Self
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        Self {
            ancestors: |dispatch, id, visit| {
                let Some(subscriber) = dispatch.downcast_ref::<S>() else {
                    return;
                };
                let mut next = subscriber.span(id);
                while let Some(span) = next {
                    let in_span = |in_span: &InSpan| in_span.scope.clone();
                    let scope = span.extensions().get::<InSpan>().map(in_span);
                    if !visit(&span.id(), scope) {
                        return;
                    }
                    next = span.parent();
                }
            },
            rescope: |dispatch, id, scope| {
                let Some(subscriber) = dispatch.downcast_ref::<S>() else {
                    return;
                };
                let Some(span) = subscriber.span(id) else {
                    return;
                };
                let mut extensions = span.extensions_mut();
                let values = extensions
                    .get_mut::<InSpan>()
                    .map(|in_span| in_span.values.clone());
                let in_span = InSpan {
                    scope: scope.clone(),
                    values: values.unwrap_or_default(),
                    tracked: true,
                    pending: None,
                };
                in_span.store(&mut extensions);
            },
        }
    }
}

/// The scope in force here: the one of the `Context`, or else the subscriber's default session.
pub(crate) fn current_scope() -> Option<Arc<Scope>> {
    Scope::current().or_else(|| {
        dispatcher::get_default(|dispatch| dispatch.downcast_ref::<Shared>()?.default.clone())
    })
}
