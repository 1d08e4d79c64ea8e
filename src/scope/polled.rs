//! Sessions of futures, and spans that were created before the session was attached.
//!
//! `future.instrument(span).in_session(session)` creates the span before the session is attached. Whenever the span is
//! entered, the OpenTelemetry layer activates the span's own `Context`, which has no session. So the layer *adopts* a
//! span that was created in no session: it attaches the session again inside the span, until the span is exited. The
//! span's own scope doesn't change. The span is exported with the session if this enter starts the span.
//!
//! Only a future that is being polled adopts spans, and only spans that it enters directly. If a closure adopted spans
//! too, it would adopt those of other tasks when it blocks on a runtime.

use crate::scope::Scope;
use crate::scope::context::{self, Poll};
use crate::scope::thread::{self, Attached, LeftSpans};
use crate::scope::tracking::{self, SetBy, SpanKey};
use crate::session::keys::Part;
use crate::session::{IdKind, Session, details};
use opentelemetry::trace::{TraceContextExt, TraceId};
use std::cell::Cell;
use std::sync::Arc;

/// The scope of a future that is being polled.
#[derive(Clone)]
pub(crate) struct PolledScope {
    pub(crate) scope: Arc<Scope>,
    pub(crate) poll: Poll,
    /// The trace of the future's parent, if this is a span of another process.
    pub(crate) remote_trace: Option<TraceId>,
}

impl PolledScope {
    /// The scope of the future that directly enters a span now. `None`: another span or session is between the future
    /// and the span.
    pub(crate) fn current() -> Option<Self> {
        thread::map_current(|cx| {
            let (scope, poll) = context::poll_of(cx)?;
            let span = cx.span();
            let span = span.span_context();
            Some(Self {
                scope: scope.clone(),
                poll: poll.clone(),
                remote_trace: span.is_remote().then(|| span.trace_id()),
            })
        })
        .flatten()
    }

    /// Whether the future adopts a span with the scope `own`: the span was created in no session, or in the scope that
    /// the future's session replaced. It doesn't adopt a span of another user, because a future may drop the work of
    /// other users, nor a span on which an exact session was set.
    pub(crate) fn adopts(&self, own: Option<&Arc<Scope>>, set_by: SetBy) -> bool {
        let Some(own) = own else { return true };
        if Arc::ptr_eq(own, &self.scope) {
            return false;
        }
        let user = |scope: &Scope| scope.with_values(|it| it.user_id.clone());
        let has_other_user = || {
            let (own, here) = (own.id_unless_default(IdKind::User), user(&self.scope));
            own.is_some() && here.is_some() && own != here
        };
        let id = own.id_unless_default(IdKind::Session);
        let is_in_no_session = || id.is_none() && !has_other_user();
        match set_by {
            SetBy::Outside => self.has_replaced(own) || is_in_no_session(),
            SetBy::Fields => is_in_no_session(),
            SetBy::Functions => !own.is_exact() && is_in_no_session(),
        }
    }

    fn has_replaced(&self, own: &Arc<Scope>) -> bool {
        let replaced = self.poll.replaced.as_ref();
        replaced.is_some_and(|it| Arc::ptr_eq(it, own))
    }

    /// The scope that applies inside an adopted span.
    pub(crate) fn inside(&self, own: Option<&Arc<Scope>>, set_by: SetBy) -> Arc<Scope> {
        // A session that the future has replaced doesn't apply. A user without a session may apply, because a future
        // inherits nothing from the place where it is dropped.
        let is_replaced = |own: &Arc<Scope>| self.has_replaced(own) && own.id().is_some();
        let own = own.filter(|own| set_by != SetBy::Outside || !is_replaced(own));
        let Some(own) = own else {
            return self.scope.clone();
        };
        let own_values = own.to_session();
        let kept = match set_by {
            SetBy::Functions => Session {
                id: None,
                ..own_values
            },
            SetBy::Fields | SetBy::Outside => self.kept_of(&own_values),
        };
        let inside = match kept.is_empty() {
            true => self.scope.clone(),
            false => Scope::nested(Some(self.scope.clone()), &kept),
        };
        match set_by != SetBy::Outside && own.opener().is_some() {
            true => own.moved_into(Some(inside)),
            false => inside,
        }
    }

    /// The values of a span's own scope that still apply inside it: those that the future's session doesn't have.
    fn kept_of(&self, own: &Session) -> Session {
        self.scope.with_values(|values| {
            let lacks_user = values.user_id.is_none() && !self.poll.shadows.have(Part::User);
            let details = own.details.as_ref().map(|own| {
                let shadows = self.poll.shadows;
                details::merged(Some(own), values.details.as_ref(), shadows)
            });
            Session {
                user_id: own.user_id.clone().filter(|_| lacks_user),
                details: details
                    .flatten()
                    .filter(|it| values.details.as_ref() != Some(it)),
                ..Session::default()
            }
        })
    }

    /// Attaches the scope of an adopted span inside the span, which is the current one.
    pub(crate) fn attach_inside(&self, adopted: Arc<Scope>) -> Attached {
        thread::attach_changed(|cx| context::adopted(cx, adopted, self.poll.clone()))
    }
}

/// The futures that are being polled on a thread, in a session or in a context from headers.
struct Polled {
    /// How many futures are being polled or dropped.
    count: Cell<u32>,
    /// The last span that the innermost future entered directly, in this poll or the last one, if the future doesn't
    /// adopt this span.
    last: Cell<SpanKey>,
    /// This span is entered, so the future adopts no spans inside it.
    is_inside: Cell<bool>,
}

thread_local! {
    /// [`Polling`] writes it. The layer reads and writes it whenever a span is entered or exited.
    static POLLED: Polled = const {
        Polled {
            count: Cell::new(0),
            last: Cell::new(SpanKey::NONE),
            is_inside: Cell::new(false),
        }
    };
}

/// Whether a future may adopt the span that is being entered: a cheap check before the one of the current `Context`.
#[inline(always)]
pub(crate) fn may_adopt() -> bool {
    POLLED.with(|it| it.count.get() > 0 && !it.is_inside.get())
}

/// A span is entered directly inside a future. True if the future entered the same span in its last poll: the layer
/// does nothing more for it.
#[inline(always)]
pub(crate) fn entered_again(span: SpanKey) -> bool {
    let is_last = POLLED.with(|it| it.last.get() == span);
    if is_last {
        entered(span);
    }
    is_last
}

/// A span was entered directly inside a future that doesn't adopt it.
#[inline(always)]
pub(crate) fn entered(span: SpanKey) {
    POLLED.with(|it| {
        it.last.set(span);
        it.is_inside.set(true);
    });
}

/// A span is exited.
#[inline(always)]
pub(crate) fn exited(span: SpanKey) {
    POLLED.with(|it| {
        if it.last.get() == span {
            it.is_inside.set(false);
        }
    });
}

/// Keeps the session of a future current while the future is polled or dropped.
pub(crate) struct Polling<'a> {
    _attached: Attached,
    /// The spans that are entered where a detached future is polled. They are left during the poll.
    left: Option<LeftSpans>,
    /// The last span of the future.
    last: &'a mut SpanKey,
    /// The last span of the outer future.
    outer: SpanKey,
}

impl<'a> Polling<'a> {
    /// `last`: the last span that the future entered and didn't adopt.
    pub(crate) fn new(attached: Attached, last: &'a mut SpanKey) -> Self {
        tracking::set_used();
        Self {
            outer: start(1, *last),
            last,
            left: None,
            _attached: attached,
        }
    }

    /// Makes nothing current, for detached work.
    pub(crate) fn detached(last: &'a mut SpanKey) -> Self {
        let mut polling = Self::new(thread::attach_changed(thread::outside), last);
        polling.left = Some(LeftSpans::new());
        polling
    }
}

impl Drop for Polling<'_> {
    fn drop(&mut self) {
        *self.last = start(-1, self.outer);
    }
}

/// Makes another future the innermost one. `more`: 1 at the start of a poll, -1 at its end. Returns the last span of
/// the previous one.
fn start(more: i32, last: SpanKey) -> SpanKey {
    POLLED.with(|it| {
        it.count.set(it.count.get().wrapping_add_signed(more));
        it.is_inside.set(false);
        it.last.replace(last)
    })
}
