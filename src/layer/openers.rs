//! Spans open scopes: what both layers do when a span says a session or user.

use crate::base::diagnostic::Once;
use crate::base::error::ErrorKind;
use crate::base::setup::{AROUND, BESIDE, SetupCheck};
use crate::base::thread_context::Attached;
use crate::base::{diagnostic, setup, thread_context};
use crate::layer::fields::{CallsiteFields, FieldVisitor, Names, ParsedField};
use crate::layer::tracked::{Key, TrackedGuard};
use crate::layer::{fields, tracked};
use crate::scope::bridge::{PendingGuard, PendingSpan};
use crate::scope::opener::Opener;
use crate::scope::{Scope, is_in_turn};
use crate::session::details::Parts;
use crate::session::{Id, Session, details};
use opentelemetry::Context as OtelContext;
use opentelemetry::Context;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use tracing::callsite::Identifier;
use tracing::dispatcher::WeakDispatch;
use tracing::field::Field;
use tracing::span::Id as SpanId;
use tracing::span::{Attributes, Record};
use tracing::{Dispatch, Metadata, Subscriber};
use tracing_opentelemetry::get_otel_context;
use tracing_subscriber::layer::Context as LayerContext;
use tracing_subscriber::registry::LookupSpan;

/// What a `SessionLayer` was configured to, shared by the layers that it is made into.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub(crate) names: Names,
    /// A span that says a session's id begins a trace.
    pub(crate) root_turns: bool,
    pub(crate) check: SetupCheck<AROUND>,
    /// Is there an OpenTelemetry layer beside this layer?
    pub(crate) beside: SetupCheck<BESIDE>,
    dispatch: OnceLock<WeakDispatch>,
    reach: OnceLock<SubscriberAccess>,
    /// There is another `SessionLayer` on the subscriber.
    pub(crate) is_one_of_two: AtomicBool,
    reported: Once<(Identifier, usize, ErrorKind)>,
    /// The callsites of implicit openers that were reported because they are ignored.
    reported_implicit: Once<Identifier>,
}

/// The session of a span whose fields set a session or user. It is in the span's extensions, for other layers.
///
/// Layers that you add after the [`SessionLayer`](crate::SessionLayer) can read it.
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
    pub(crate) fn tracked(key: Key, scope: Arc<Scope>, opened: Option<Arc<Scope>>) -> Self {
        Self {
            _tracked: Some(tracked::track(key, scope.clone())),
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

impl Shared {
    /// What the fields of a new span set, and the session passed to the macro that makes it. And the `Context`
    /// that this macro was called in.
    pub(crate) fn read(
        &self,
        roles: CallsiteFields,
        span: &Attributes<'_>,
    ) -> (Session, Option<OtelContext>) {
        let mut set = Session::default();
        let read = |heard: ParsedField| heard.set(&mut set);
        span.record(&mut self.reading(span.metadata(), roles, read));
        let Some((passed, outer)) = passed_to(span.metadata(), &set) else {
            return (set, None);
        };
        // A field `user.id` beside the session stands for its user.
        let session = Session {
            cleared: passed.cleared,
            details: details::merged(
                passed.details.as_ref(),
                set.details.as_ref(),
                Parts::default(),
            ),
            ..set
        };
        (session, Some(outer))
    }

    /// The scope that a new span with these roles opens inside `outer`, whose fields set `set`. `None`: only
    /// the span's name makes it an opener, and the session was set explicitly.
    pub(crate) fn open(
        &self,
        roles: CallsiteFields,
        span: &'static Metadata<'static>,
        mut set: Session,
        outer: Option<Arc<Scope>>,
    ) -> Option<PendingSpan> {
        if roles.is_implicit {
            let explicit = outer.as_ref().and_then(|it| it.id());
            if let Some(explicit) = explicit.filter(|id| !id.is_replaceable()) {
                if set.id.as_ref() == Some(&explicit) {
                    set.id = Some(explicit);
                } else if set.id.as_ref().is_none_or(Id::is_replaceable) {
                    if diagnostic::is_first(&self.reported_implicit, span.callsite()) {
                        diagnostic::implicit_opener_ignored(span);
                    }
                    return None;
                }
            }
        }
        let is_turn = self.root_turns && set.id.is_some();
        let is_root = is_turn && !is_in_turn(outer.as_deref(), set.id.as_ref());
        let opener = Opener::new(set, roles.opener_fields(span));
        let scope = Scope::opened(outer, &opener, is_turn);
        Some(PendingSpan { scope, is_root })
    }

    /// Tells a scope what is recorded on the span that opened it.
    pub(crate) fn record<S>(&self, id: &SpanId, record: &Record<'_>, ctx: &LayerContext<'_, S>)
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        let Some(span) = ctx.span(id) else { return };
        let roles = self.names.roles(span.metadata());
        if !roles.open() {
            return;
        }
        // Recording runs the application's `Debug`: not under the lock of the extensions.
        let opened = |span: &SessionExtension| span.opened.clone();
        let opened = span.extensions().get::<SessionExtension>().and_then(opened);
        if let Some(opener) = opened.as_ref().and_then(|it| it.opener()) {
            let mut recorded = Session::default();
            let heard = |heard: ParsedField| heard.set(&mut recorded);
            record.record(&mut self.reading(span.metadata(), roles, heard));
            let is_explicit = |id: &Id| !id.is_replaceable();
            if !recorded.id.as_ref().is_some_and(is_explicit)
                && opener.with_values(|set| set.id.as_ref().is_some_and(is_explicit))
            {
                recorded.id = None;
            }
            opener.warn_of_kept_ids(&recorded);
            opener.record(recorded);
        }
    }

    /// Reads a span's fields, and reports what is refused.
    fn reading<'a>(
        &'a self,
        span: &'static Metadata<'static>,
        roles: CallsiteFields,
        mut said: impl FnMut(ParsedField) + 'a,
    ) -> FieldVisitor<'a, impl FnMut(&Field, Result<ParsedField, ErrorKind>) + 'a> {
        let each = move |field: &Field, heard| match heard {
            Ok(heard) => said(heard),
            Err(error) => {
                if diagnostic::is_first(&self.reported, (span.callsite(), field.index(), error)) {
                    diagnostic::field_ignored(span, field.name(), error);
                }
            }
        };
        FieldVisitor {
            names: &self.names,
            span,
            roles,
            each,
        }
    }

    /// The layer is on top of a subscriber of type `S`.
    pub(crate) fn on_layer<S>(&self)
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        setup::layer_added(|dispatch| dispatch.downcast_ref::<Shared>().is_some());
        let _already = self.reach.set(SubscriberAccess::new::<S>());
    }

    /// The subscriber has become a dispatcher, which the layer speaks through.
    pub(crate) fn on_register_dispatch(&self, dispatch: &Dispatch) {
        let _already = self.dispatch.set(dispatch.downgrade());
        // Of two, one is found by both.
        let found = dispatch.downcast_ref::<Self>();
        if let Some(other) = found.filter(|found| !std::ptr::eq(*found, self)) {
            self.is_one_of_two.store(true, Ordering::Relaxed);
            other.is_one_of_two.store(true, Ordering::Relaxed);
        }
    }

    pub(crate) fn upgrade(&self) -> Option<Dispatch> {
        self.dispatch.get()?.upgrade()
    }

    /// The `Context` of a span that the OpenTelemetry layer knows. Starts the span.
    pub(crate) fn otel_context(&self, id: &SpanId) -> Option<OtelContext> {
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

    /// A span of the subscriber that the layer is on.
    #[inline]
    pub(crate) fn key(&self, span: &SpanId) -> Key {
        Key {
            layer: std::ptr::from_ref(self).addr(),
            span: span.into_u64(),
        }
    }

    /// The scope in force in a span, whether a filter hides it or not.
    pub(crate) fn scope_of_span(&self, id: &SpanId) -> Option<Arc<Scope>> {
        let dispatch = self.upgrade()?;
        let mut found = None;
        self.ancestors(&dispatch, id, &mut |id, tracked| {
            // The OpenTelemetry layer starts a span of which a child is made: so may we. What the
            // extensions hold of an exported span is older than what may be bound to it.
            found = match get_otel_context(id, &dispatch) {
                Some(cx) => Some(Scope::of(&cx)),
                None => tracked.map(Some),
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
            (reach.rescope)(dispatch, id, self.key(id), scope);
        }
    }
}

/// Gives true to go on.
pub(crate) type Visit<'a> = &'a mut dyn FnMut(&SpanId, Option<Arc<Scope>>) -> bool;

/// Lets code that has only a dispatcher reach spans: the functions know the subscriber's type.
#[derive(Debug)]
struct SubscriberAccess {
    ancestors: fn(&Dispatch, &SpanId, Visit<'_>),
    rescope: fn(&Dispatch, &SpanId, Key, &Arc<Scope>),
}

impl SubscriberAccess {
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
            rescope: |dispatch, id, key, scope| {
                let found = dispatch.downcast_ref::<S>().and_then(|it| it.span(id));
                let Some(span) = found else { return };
                let mut extensions = span.extensions_mut();
                if let Some(in_span) = extensions.get_mut::<SessionExtension>() {
                    tracked::replace(key, scope.clone());
                    in_span.scope = scope.clone();
                } else {
                    extensions.insert(SessionExtension::tracked(key, scope.clone(), None));
                }
            },
        }
    }
}

#[derive(Clone)]
struct MacroSession {
    session: Session,
    /// The `Context` that the macro was called in.
    outer: Context,
}

/// Passes `session` to the span that is created while the guard lives.
pub(crate) fn pass(session: &Session) -> Attached {
    thread_context::attach_changed(|cx| {
        cx.with_value(MacroSession {
            session: session.clone(),
            outer: cx.clone(),
        })
    })
}

/// The session passed to the macro that creates this span, whose fields set `set`. And the `Context` that the
/// macro was called in.
pub(crate) fn passed_to(span: &Metadata<'_>, set: &Session) -> Option<(Session, Context)> {
    if !fields::is_of_macro(span) {
        return None;
    }
    let all = thread_context::map(|cx| {
        let innermost = cx.get::<MacroSession>()?;
        let outer = |given: &MacroSession| given.outer.get::<MacroSession>().cloned();
        let all = std::iter::successors(Some(innermost.clone()), outer);
        Some(all.filter(|it| it.session.id == set.id).collect::<Vec<_>>())
    })??;
    let is_exact = |given: &&MacroSession| given.session.user_id == set.user_id;
    // A field `user.id` beside the session stands for its user.
    let found = only(all.iter().filter(is_exact)).or_else(|| only(all.iter()))?;
    Some((found.session.clone(), found.outer.clone()))
}

/// Ambiguous sessions could belong to other tasks: then none.
fn only<'a>(mut given: impl Iterator<Item = &'a MacroSession>) -> Option<&'a MacroSession> {
    let first = given.next()?;
    given
        .all(|given| given.session == first.session)
        .then_some(first)
}
