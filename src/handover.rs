//! How the layer reaches the tracer, and a span inside a `Context`.
//!
//! Between the two stands the OpenTelemetry layer, which knows neither, and whose data is private.
//!
//! - To the tracer, for the span that the layer is creating: [`offer`] a pending span. The tracer takes its
//!   ticket when the OpenTelemetry layer asks it for a builder, and leaves the ticket among the builder's
//!   attributes. The ticket travels with the builder wherever the span is started: by another thread, with
//!   another parent, or when it is closed without ever having been entered.
//! - To a span that has been started: [`ask`]. A `Context` hides the type of its span, so the
//!   errand waits in a thread local while a call that does nothing on any other span knocks.

use crate::scope::Scope;
use crate::session::Session;
use crate::shards::Shards;
use opentelemetry::trace::{Status, TraceContextExt};
use opentelemetry::{Context, Key as Name, KeyValue, Value};
use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A scope that a span opens.
#[derive(Clone)]
pub(crate) struct Opened {
    /// The scope as it is if the span is started under the `Context` that it was made in.
    pub(crate) scope: Arc<Scope>,
    /// The span is the root of a trace of its own.
    pub(crate) is_root: bool,
}

/// The ticket of a pending span.
type Ticket = u64;

thread_local! {
    /// The ticket on offer on this thread, or one of these.
    static OFFERED: Cell<Ticket> = const { Cell::new(NOTHING) };
}

const NOTHING: Ticket = 0;
/// There is none, and a span is being started. No ticket has this number.
const STARTING: Ticket = Ticket::MAX;

/// The last ticket.
static LAST: AtomicU64 = AtomicU64::new(NOTHING);

/// The openers that the layer has created and the tracer has not started yet.
static PENDING: Shards<Ticket, Opened> = Shards::new();

/// The name of the attribute that is the ticket. A static, so that there is one address to know it by: no
/// attribute of anybody else's can be taken for it, whatever its name.
static TICKET: &str = "tracing_session.ticket";

/// Offers a pending span to the next builder that is made on this thread, until the offer is dropped.
pub(crate) fn offer(opened: Opened) -> Offer {
    let ticket = LAST.fetch_add(1, Ordering::Relaxed) + 1;
    PENDING.insert(ticket, opened);
    Offer {
        pending: Some(Pending(ticket)),
        ticket,
        outer: OFFERED.replace(ticket),
    }
}

pub(crate) struct Offer {
    pending: Option<Pending>,
    ticket: Ticket,
    outer: Ticket,
}

impl Offer {
    /// The pending span if a builder has its ticket. `None`: the span has no builder of ours.
    pub(crate) fn taken(mut self) -> Option<Pending> {
        if OFFERED.get() == self.ticket {
            return None;
        }
        self.pending.take()
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        OFFERED.set(self.outer);
    }
}

/// Has a pending span forgotten when it is dropped, with the extensions of the `tracing` span.
#[derive(Debug)]
pub(crate) struct Pending(Ticket);

impl Drop for Pending {
    fn drop(&mut self) {
        PENDING.remove(self.0);
    }
}

/// Takes the ticket on offer, as an attribute of a builder.
#[inline]
pub(crate) fn take_offer() -> Option<KeyValue> {
    match OFFERED.get() {
        NOTHING | STARTING => None,
        ticket => {
            OFFERED.set(NOTHING);
            Some(KeyValue::new(Name::from_static_str(TICKET), ticket as i64))
        }
    }
}

/// A span is started while this lives: samplers and processors run. They may make spans of their own,
/// for which the offer is not meant, and must not reach the span, which the OpenTelemetry layer has
/// locked.
#[inline]
pub(crate) fn starting() -> Starting {
    Starting(OFFERED.replace(STARTING))
}

#[inline]
pub(crate) fn is_starting() -> bool {
    OFFERED.get() == STARTING
}

pub(crate) struct Starting(Ticket);

impl Drop for Starting {
    #[inline]
    fn drop(&mut self) {
        OFFERED.set(self.0);
    }
}

/// Takes the ticket, if there is one, out of a builder's attributes, and gives the pending span.
#[inline]
pub(crate) fn take_pending(attributes: &mut Vec<KeyValue>) -> Option<Opened> {
    // The tracer makes the builder, so its ticket comes first.
    let first = attributes.first()?;
    if !std::ptr::eq(first.key.as_str(), TICKET) {
        return None;
    }
    match attributes.remove(0).value {
        Value::I64(ticket) => PENDING.remove(ticket as Ticket),
        _ => None,
    }
}

/// What a started span can be asked to do.
pub(crate) enum Errand {
    /// To open a scope from now on, inside the one that it is in.
    Bind(Session),
    /// To carry what it has no value of its own for.
    Mark(Session),
    /// Nothing: whether it hears is what is asked.
    Nothing,
}

thread_local! {
    static WAITING: Cell<bool> = const { Cell::new(false) };
    static ERRAND: RefCell<Option<Errand>> = const { RefCell::new(None) };
}

/// Asks the span of `cx`. False if it is not a span of ours.
pub(crate) fn ask(cx: &Context, errand: Errand) -> bool {
    // A span that does not know us is foreign code, which may panic, or ask another span.
    let _asking = Asking {
        outer: swap(Some(errand)),
        was_waiting: WAITING.replace(true),
    };
    // `Unset` is the lowest status, so setting it changes nothing in a span that does not know us.
    cx.span().set_status(Status::Unset);
    ERRAND.try_with(|it| it.borrow().is_none()).unwrap_or(false)
}

struct Asking {
    outer: Option<Errand>,
    was_waiting: bool,
}

impl Drop for Asking {
    fn drop(&mut self) {
        WAITING.set(self.was_waiting);
        swap(self.outer.take());
    }
}

/// Whether the span of `cx` is one of ours.
pub(crate) fn is_ours(cx: &Context) -> bool {
    ask(cx, Errand::Nothing)
}

/// The errand that waits for the span whose status is being set to `Unset`.
#[inline]
pub(crate) fn errand() -> Option<Errand> {
    if WAITING.get() { waiting() } else { None }
}

#[cold]
fn waiting() -> Option<Errand> {
    swap(None)
}

fn swap(errand: Option<Errand>) -> Option<Errand> {
    // While the thread ends there is nowhere to leave it.
    ERRAND.try_with(|it| it.replace(errand)).ok().flatten()
}
