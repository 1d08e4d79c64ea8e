//! The current scope, and the `Context` that carries it.
//!
//! OpenTelemetry's [`Context`] is the carrier: child spans, samplers, log processors and propagators all
//! read it. [`Scope::of`] is the one answer to "which scope applies under this `Context`". It looks in
//! three places:
//!
//! - an [`Entry`] in the `Context`, put there by [`attach`] and inherited with the `Context`;
//! - [`SCOPES_BY_SPAN_ID`], the map from OpenTelemetry span id to scope, for a span whose own `Context` has no entry: its
//!   parent was replaced (`set_parent`), or the scope was set when the span had started already. A span
//!   that is started under such a `Context` has no entry either, so it is in the map too;
//! - [`DEFAULT`], the default session of the process, where there is neither.
//!
//! [`attach`]: Scope::attach

use crate::base::shards::Shards;
use crate::base::thread_context::{self, Attached};
use crate::scope::Scope;
use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceId};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

impl Scope {
    /// The scope that applies under `cx`.
    pub(crate) fn of(cx: &Context) -> Option<Arc<Scope>> {
        CurrentScope::under(cx).scope()
    }

    /// The current scope.
    pub(crate) fn current() -> Option<Arc<Scope>> {
        thread_context::map(Scope::of).flatten()
    }

    /// The default session of the process.
    #[inline]
    pub(crate) fn global_default() -> Option<Arc<Scope>> {
        DEFAULT.get().cloned()
    }

    /// Makes this the default session of the process. False if there is one already.
    pub(crate) fn set_global_default(self: Arc<Self>) -> bool {
        DEFAULT.set(self).is_ok()
    }

    /// `cx` with this scope.
    pub(crate) fn entered(self: Arc<Self>, cx: &Context) -> Context {
        let entry = cx.get::<Entry>();
        let begins = entry.and_then(|it| it.starts_trace_under(cx.span().span_context().span_id()));
        self.entered_to_start_a_trace(cx, begins.cloned())
    }

    /// `cx` with this scope, under which spans are roots of traces as long as `begins` is true.
    pub(crate) fn entered_to_start_a_trace(
        self: Arc<Self>,
        cx: &Context,
        begins: Option<Arc<AtomicBool>>,
    ) -> Context {
        cx.with_value(Entry {
            scope: self,
            under: cx.span().span_context().span_id(),
            starts_trace: begins,
        })
    }

    /// Puts this scope in force on this thread, until the guard is dropped.
    pub(crate) fn attach(self: Arc<Self>) -> Attached {
        thread_context::attach_changed(|cx| self.entered(cx))
    }
}

/// The scope in force under a `Context`, by where it was found.
pub(crate) enum CurrentScope {
    None,
    /// It is the entry of the `Context`, and so that of every `Context` made from it. Or it is the default
    /// session of the process, which every `Context` has.
    Entry(Arc<Scope>),
    /// The same, and a span that is started under the `Context` is the root of a trace.
    EntryOfTurn(Arc<Scope>),
    /// It is bound to the span of the `Context`.
    BySpanId(Arc<Scope>),
}

impl CurrentScope {
    #[inline(always)]
    pub(crate) fn under(cx: &Context) -> Self {
        let entry = cx.get::<Entry>();
        let span = cx.span();
        let span = span.span_context();
        if let Some(scope) = scope_by_span_id(span) {
            let is_entry =
                |entry: &Entry| entry.under == span.span_id() || Arc::ptr_eq(&entry.scope, &scope);
            if !entry.is_some_and(is_entry) {
                return Self::BySpanId(scope);
            }
        }
        match entry {
            None => Scope::global_default().map_or(Self::None, Self::Entry),
            Some(entry) if entry.starts_trace_under(span.span_id()).is_some() => {
                Self::EntryOfTurn(entry.scope.clone())
            }
            Some(entry) => Self::Entry(entry.scope.clone()),
        }
    }

    #[inline]
    pub(crate) fn scope(self) -> Option<Arc<Scope>> {
        match self {
            Self::None => None,
            Self::Entry(scope) | Self::EntryOfTurn(scope) | Self::BySpanId(scope) => Some(scope),
        }
    }
}

/// A scope in a `Context`.
struct Entry {
    scope: Arc<Scope>,
    /// The span that was current where the scope was attached, if it was attached inside it. Under
    /// that span the entry is the inner one, whatever is bound to the span; under a span below it,
    /// the entry was inherited, and what is bound to that span is the inner one.
    under: SpanId,
    /// True while a turn is being started: under that span, and not further down, it is a root.
    starts_trace: Option<Arc<AtomicBool>>,
}

impl Entry {
    #[inline]
    fn starts_trace_under(&self, span: SpanId) -> Option<&Arc<AtomicBool>> {
        let begins = self.starts_trace.as_ref()?;
        (self.under == span && begins.load(Ordering::Relaxed)).then_some(begins)
    }
}

/// Whether a scope was attached inside the span of `cx`: it stands before whatever is bound there.
pub(crate) fn is_inside_span(cx: &Context) -> bool {
    let span = cx.span().span_context().span_id();
    span != SpanId::INVALID && cx.get::<Entry>().is_some_and(|entry| entry.under == span)
}

/// The scope that headers extracted_scope into `cx`, which was extracted from them on top of `outer`.
pub(crate) fn extracted_scope(cx: &Context, outer: &Context) -> Option<Arc<Scope>> {
    let entry = cx.get::<Entry>()?;
    let is_new = Scope::of(outer).is_none_or(|outer| !Arc::ptr_eq(&outer, &entry.scope));
    is_new.then(|| entry.scope.clone())
}

/// `cx`, which was extracted from headers on top of `outer`, with the scope that applies under `outer`: even
/// headers without a session can replace the span it is found by.
pub(crate) fn with_outer_scope(cx: Context, outer: &Context) -> Context {
    let scope = Scope::of(outer);
    if Scope::of(&cx).as_ref().map(Arc::as_ptr) == scope.as_ref().map(Arc::as_ptr) {
        return cx;
    }
    let under = match (CurrentScope::under(outer), outer.get::<Entry>()) {
        (CurrentScope::Entry(_) | CurrentScope::EntryOfTurn(_), Some(entry)) => entry.under,
        // The scope of a span: it gives way to a scope that is set on the span later.
        _ => SpanId::INVALID,
    };
    cx.with_value(Entry {
        scope: scope.unwrap_or_else(Scope::empty),
        under,
        starts_trace: None,
    })
}

/// The default session of the process. Written once, by [`Scope::set_global_default`].
static DEFAULT: OnceLock<Arc<Scope>> = OnceLock::new();

/// Scopes of spans by span id, each with its trace id to tell a chance meeting of ids.
static SCOPES_BY_SPAN_ID: Shards<u64, (TraceId, Arc<Scope>)> = Shards::new();

fn key(span: SpanId) -> u64 {
    u64::from_ne_bytes(span.to_bytes())
}

/// Binds `scope` to a span, until [`unbind`].
pub(crate) fn set_scope_by_span_id(span: &SpanContext, scope: Arc<Scope>) {
    SCOPES_BY_SPAN_ID.insert(key(span.span_id()), (span.trace_id(), scope));
}

pub(crate) fn remove_scope_by_span_id(span: &SpanContext) {
    SCOPES_BY_SPAN_ID.remove_if(key(span.span_id()), |(trace, _)| *trace == span.trace_id());
}

/// A span context that came from outside is not asked for, even if the id is that of a span here:
/// the sender may be anybody, and what may come in with a request is not for us to decide.
#[inline]
fn scope_by_span_id(span: &SpanContext) -> Option<Arc<Scope>> {
    SCOPES_BY_SPAN_ID.read(key(span.span_id()), |(trace, scope)| {
        (*trace == span.trace_id() && !span.is_remote()).then(|| scope.clone())
    })
}
