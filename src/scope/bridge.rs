//! How the layer reaches the tracer, and a span inside a `Context`.
//!
//! Between the two stands the OpenTelemetry layer, which knows neither, and whose data is private.
//!
//! - To the tracer, for the span that the layer is creating: [`offer_ticket`] for a pending span. The tracer takes its
//!   ticket when the OpenTelemetry layer asks it for a builder, and leaves the ticket among the builder's
//!   attributes. The ticket travels with the builder wherever the span is started: by another thread, with
//!   another parent, or when it is closed without ever having been entered.
//! - To a span that has been started: [`send`]. A `Context` hides the type of its span, so the
//!   errand waits in a thread local while a call that does nothing on any other span knocks.

use crate::base::shards::Shards;
use crate::scope::Scope;
use crate::session::Session;
use opentelemetry::trace::{Status, TraceContextExt};
use opentelemetry::{Context, Key as Name, KeyValue, Value};
use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A scope that a span opens.
#[derive(Clone)]
pub(crate) struct PendingSpan {
    /// The scope as it is if the span is started under the `Context` that it was made in.
    pub(crate) scope: Arc<Scope>,
    /// The span is the root of a trace of its own.
    pub(crate) is_root: bool,
}

/// The ticket of a pending span.
type Ticket = u64;

thread_local! {
    /// The ticket on offer on this thread, or one of these.
    static OFFERED_TICKET: Cell<Ticket> = const { Cell::new(NOTHING) };
}

const NOTHING: Ticket = 0;
/// There is none, and a span is being started. No ticket has this number.
const STARTING: Ticket = Ticket::MAX;

/// The last ticket.
static LAST_TICKET: AtomicU64 = AtomicU64::new(NOTHING);

/// The openers that the layer has created and the tracer has not started yet.
static PENDING_SPANS: Shards<Ticket, PendingSpan> = Shards::new();

/// The name of the attribute that is the ticket. A static, so that there is one address to know it by: no
/// attribute of anybody else's can be taken for it, whatever its name.
static TICKET_KEY: &str = "tracing_session.ticket";

/// Offers a pending span to the next builder that is made on this thread, until the offer is dropped.
pub(crate) fn offer_ticket(opened: PendingSpan) -> OfferedTicket {
    let ticket = LAST_TICKET.fetch_add(1, Ordering::Relaxed) + 1;
    PENDING_SPANS.insert(ticket, opened);
    OfferedTicket {
        pending: Some(PendingGuard(ticket)),
        ticket,
        outer: OFFERED_TICKET.replace(ticket),
    }
}

pub(crate) struct OfferedTicket {
    pending: Option<PendingGuard>,
    ticket: Ticket,
    outer: Ticket,
}

impl OfferedTicket {
    /// The pending span if a builder has its ticket. `None`: the span has no builder of ours.
    pub(crate) fn taken(mut self) -> Option<PendingGuard> {
        if OFFERED_TICKET.get() == self.ticket {
            return None;
        }
        self.pending.take()
    }
}

impl Drop for OfferedTicket {
    fn drop(&mut self) {
        OFFERED_TICKET.set(self.outer);
    }
}

/// Has a pending span forgotten when it is dropped, with the extensions of the `tracing` span.
#[derive(Debug)]
pub(crate) struct PendingGuard(Ticket);

impl Drop for PendingGuard {
    fn drop(&mut self) {
        PENDING_SPANS.remove(self.0);
    }
}

/// Takes the ticket on offer, as an attribute of a builder.
#[inline]
pub(crate) fn take_ticket() -> Option<KeyValue> {
    match OFFERED_TICKET.get() {
        NOTHING | STARTING => None,
        ticket => {
            OFFERED_TICKET.set(NOTHING);
            Some(KeyValue::new(
                Name::from_static_str(TICKET_KEY),
                ticket as i64,
            ))
        }
    }
}

/// A span is started while this lives: samplers and processors run. They may make spans of their own,
/// for which the offer is not meant, and must not reach the span, which the OpenTelemetry layer has
/// locked.
#[inline]
pub(crate) fn starting() -> Starting {
    Starting(OFFERED_TICKET.replace(STARTING))
}

#[inline]
pub(crate) fn is_starting() -> bool {
    OFFERED_TICKET.get() == STARTING
}

pub(crate) struct Starting(Ticket);

impl Drop for Starting {
    #[inline]
    fn drop(&mut self) {
        OFFERED_TICKET.set(self.0);
    }
}

/// Takes the ticket, if there is one, out of a builder's attributes, and gives the pending span.
#[inline]
pub(crate) fn take_pending(attributes: &mut Vec<KeyValue>) -> Option<PendingSpan> {
    // The tracer makes the builder, so its ticket comes first.
    let first = attributes.first()?;
    if !std::ptr::eq(first.key.as_str(), TICKET_KEY) {
        return None;
    }
    match attributes.remove(0).value {
        Value::I64(ticket) => PENDING_SPANS.remove(ticket as Ticket),
        _ => None,
    }
}

/// What a started span can be asked to do.
pub(crate) enum SpanCommand {
    /// To open a scope from now on, inside the one that it is in.
    SetSession(Session),
    /// To carry what it has no value of its own for.
    Mark(Session),
    /// Nothing: whether it hears is what is asked.
    Ping,
}

thread_local! {
    static HAS_COMMAND: Cell<bool> = const { Cell::new(false) };
    static COMMAND: RefCell<Option<SpanCommand>> = const { RefCell::new(None) };
}

/// Asks the span of `cx`. False if it is not a span of ours.
pub(crate) fn send(cx: &Context, command: SpanCommand) -> bool {
    // A span that does not know us is foreign code, which may panic, or ask another span.
    let _asking = Asking {
        outer: swap(Some(command)),
        was_waiting: HAS_COMMAND.replace(true),
    };
    // `Unset` is the lowest status, so setting it changes nothing in a span that does not know us.
    cx.span().set_status(Status::Unset);
    COMMAND
        .try_with(|it| it.borrow().is_none())
        .unwrap_or(false)
}

struct Asking {
    outer: Option<SpanCommand>,
    was_waiting: bool,
}

impl Drop for Asking {
    fn drop(&mut self) {
        HAS_COMMAND.set(self.was_waiting);
        swap(self.outer.take());
    }
}

/// Whether the span of `cx` is one of ours.
pub(crate) fn is_ours(cx: &Context) -> bool {
    send(cx, SpanCommand::Ping)
}

/// The errand that waits for the span whose status is being set to `Unset`.
#[inline]
pub(crate) fn take_command() -> Option<SpanCommand> {
    if HAS_COMMAND.get() { waiting() } else { None }
}

#[cold]
fn waiting() -> Option<SpanCommand> {
    swap(None)
}

fn swap(command: Option<SpanCommand>) -> Option<SpanCommand> {
    // While the thread ends there is nowhere to leave it.
    COMMAND.try_with(|it| it.replace(command)).ok().flatten()
}
