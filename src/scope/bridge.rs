//! Messages from the layers to the tracer and its spans. The OpenTelemetry layer is between them: it knows neither, and
//! its span data is private.
//!
//! - A *pending span* is an opener that the layer has created and the tracer hasn't started. [`offer_ticket`] offers it
//!   to the tracer on this thread. The tracer takes the ticket when the OpenTelemetry layer calls `span_builder`, and
//!   adds it to the builder's attributes. So the ticket stays with the builder, even if the builder moves to another
//!   thread or gets another parent (`set_parent`), or if the span is closed without having been entered.
//! - A *span command* is a request to a started span. A `Context` hides the type of its span, so [`send`] puts the
//!   command into a thread-local and calls `set_status(Unset)`, which does nothing on any other span.

use crate::base::shards::{Shards, unique_number};
use crate::scope::Scope;
use crate::session::Session;
use opentelemetry::trace::{Status, TraceContextExt};
use opentelemetry::{Context, Key as Name, KeyValue, Value};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

/// An opener that the tracer hasn't started.
#[derive(Clone)]
pub(crate) struct PendingSpan {
    /// The scope that the opener has if it starts under the `Context` that it was created in.
    pub(crate) scope: Arc<Scope>,
    /// The span becomes the root of a trace.
    pub(crate) is_root: bool,
    /// False for a session span with
    /// [`with_unexported_session_spans`](crate::SessionLayer::with_unexported_session_spans).
    pub(crate) is_exported: bool,
}

/// The number of a pending span.
type Ticket = u64;

thread_local! {
    /// The ticket that is offered on this thread, or one of the values below. Three writers: the layer, while the
    /// OpenTelemetry layer creates or enters a span or records an opener's fields; the tracer, while it starts a span;
    /// and [`send`].
    static OFFERED_TICKET: Cell<Ticket> = const { Cell::new(NO_TICKET) };
}

const NO_TICKET: Ticket = 0;
// The values below mean that no ticket is offered, and tell why. Tickets count up from 1 and never reach these values.
/// A span is being started.
const STARTING: Ticket = Ticket::MAX;
/// Fields of an opener are being recorded.
const RECORDING: Ticket = Ticket::MAX - 1;
/// A command is being sent.
const SENDING: Ticket = Ticket::MAX - 2;
/// A span that isn't an opener is being created, and no layer has received it yet.
const CREATING: Ticket = Ticket::MAX - 3;
/// A span is being created, and the filter of `wrap_filtered` enables it.
const ENABLED: Ticket = Ticket::MAX - 4;
/// A span is being created, and the filter of `wrap_filtered` disables it. The span may still set a session.
const MAY_OPEN: Ticket = Ticket::MAX - 5;
/// A span that a future may adopt is being entered.
const ENTERING: Ticket = Ticket::MAX - 6;
/// Like [`CREATING`], and the span is created with `parent: None`.
const CREATING_ROOT: Ticket = Ticket::MAX - 7;

/// The pending spans. The layer adds them. The tracer removes a span when it starts, or a [`PendingGuard`] when it
/// closes without having started. Empty while no opener is pending.
static PENDING_SPANS: Shards<Ticket, PendingSpan> = Shards::new();

/// The key of the attribute that contains the ticket. A static, because the tracer recognises it by its address: an
/// attribute of the application can have the same name.
static TICKET_KEY: &str = "tracing_session.ticket";
/// The key of the attribute that marks a span as created with `parent: None`. A static for the same reason.
static ROOT_KEY: &str = "tracing_session.root";

/// Offers a pending span to the next builder that is made on this thread, until the offer is dropped.
pub(crate) fn offer_ticket(span: PendingSpan) -> OfferedTicket {
    let ticket = unique_number();
    PENDING_SPANS.insert(ticket, span);
    OfferedTicket {
        pending: Some(PendingGuard(ticket)),
        outer: OFFERED_TICKET.replace(ticket),
    }
}

/// Restores the outer offer when it is dropped. Callbacks nest: a field's `Debug` may create spans while its own span
/// is created.
pub(crate) struct OfferedTicket {
    pending: Option<PendingGuard>,
    outer: Ticket,
}

impl OfferedTicket {
    /// The guard of the pending span, if a builder has its ticket. `None`: the span is filtered out, or another tracer has made
    /// the builder.
    pub(crate) fn taken(mut self) -> Option<PendingGuard> {
        match received_by() {
            ReceivedBy::Tracer => self.pending.take(),
            _ => None,
        }
    }
}

impl Drop for OfferedTicket {
    fn drop(&mut self) {
        OFFERED_TICKET.set(self.outer);
    }
}

/// Removes a pending span when it is dropped, with the extensions of the `tracing` span.
#[derive(Debug)]
pub(crate) struct PendingGuard(Ticket);

impl PendingGuard {
    /// Whether the span hasn't started.
    pub(crate) fn is_pending(&self) -> bool {
        PENDING_SPANS.read(self.0, |_| Some(())).is_some()
    }
}

impl Drop for PendingGuard {
    fn drop(&mut self) {
        PENDING_SPANS.remove(self.0);
    }
}

/// Marks this thread as creating a span that is no opener, until the guard is dropped.
#[inline]
pub(crate) fn creating(is_root: bool) -> Marked {
    let mark = if is_root { CREATING_ROOT } else { CREATING };
    Marked(OFFERED_TICKET.replace(mark))
}

/// Tells whether the OpenTelemetry layer has received the span that is being created. Only the tracer proves it,
/// because filters, an `Option` or a `reload::Layer` may be between the two layers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReceivedBy {
    /// A tracer of this crate.
    Tracer,
    /// The filter of `wrap_filtered` enables the span.
    Filter,
    /// The filter of `wrap_filtered` disables the span, but the span may still set a session.
    OpenerFilter,
    NoLayer,
}

/// Tells whether the span was received. Call it while this thread is marked with [`creating`] or [`offer_ticket`].
#[inline]
pub(crate) fn received_by() -> ReceivedBy {
    match OFFERED_TICKET.get() {
        NO_TICKET => ReceivedBy::Tracer,
        ENABLED => ReceivedBy::Filter,
        MAY_OPEN => ReceivedBy::OpenerFilter,
        _ => ReceivedBy::NoLayer,
    }
}

/// A half of `wrap_filtered` receives the span that is being created. The first receiver counts.
#[inline]
pub(crate) fn receive(is_enabled: bool) {
    if received_by() == ReceivedBy::NoLayer {
        OFFERED_TICKET.set(if is_enabled { ENABLED } else { MAY_OPEN });
    }
}

/// Takes the offered ticket, as an attribute for a builder. For a span with `parent: None`, returns the mark of a root
/// instead, if `asks_for_roots`.
#[inline]
pub(crate) fn take_ticket(asks_for_roots: bool) -> Option<KeyValue> {
    let key = match OFFERED_TICKET.get() {
        CREATING => {
            OFFERED_TICKET.set(NO_TICKET);
            return None;
        }
        NO_TICKET | ENTERING..=STARTING => return None,
        CREATING_ROOT => asks_for_roots.then_some(ROOT_KEY),
        _ => Some(TICKET_KEY),
    };
    let ticket = OFFERED_TICKET.replace(NO_TICKET);
    key.map(|key| KeyValue::new(Name::from_static_str(key), ticket as i64))
}

/// Marks this thread as starting a span, until the guard is dropped. Samplers and span processors run meanwhile. They
/// may create spans, which must not take the ticket. They must not send commands, because the OpenTelemetry layer has
/// locked the span.
#[inline]
pub(crate) fn starting() -> Marked {
    Marked(OFFERED_TICKET.replace(STARTING))
}

/// Marks this thread as entering a span that a future may adopt, until the guard is dropped. If the span starts now, the
/// tracer takes the mark.
pub(crate) fn entering() -> Marked {
    Marked(OFFERED_TICKET.replace(ENTERING))
}

#[inline]
pub(crate) fn is_entering() -> bool {
    OFFERED_TICKET.get() == ENTERING
}

pub(crate) fn take_entering() {
    OFFERED_TICKET.set(NO_TICKET);
}

/// Marks this thread as recording fields of an opener, until the guard is dropped. If the OpenTelemetry layer sets an
/// attribute on a started span meanwhile, it comes from a field, even if another thread has recorded another value
/// since then.
pub(crate) fn recording() -> Marked {
    Marked(OFFERED_TICKET.replace(RECORDING))
}

pub(crate) fn is_recording() -> bool {
    OFFERED_TICKET.get() == RECORDING
}

#[inline]
pub(crate) fn is_starting() -> bool {
    OFFERED_TICKET.get() == STARTING
}

pub(crate) struct Marked(Ticket);

impl Drop for Marked {
    #[inline]
    fn drop(&mut self) {
        OFFERED_TICKET.set(self.0);
    }
}

/// Removes the ticket from a builder's attributes, and returns the pending span.
#[inline]
pub(crate) fn take_pending(attributes: &mut Vec<KeyValue>) -> Option<PendingSpan> {
    // The tracer adds the ticket before any other attribute.
    let first = attributes.first()?;
    if !std::ptr::eq(first.key.as_str(), TICKET_KEY) {
        return None;
    }
    match attributes.remove(0).value {
        Value::I64(ticket) => PENDING_SPANS.remove(ticket as Ticket),
        _ => None,
    }
}

/// Removes the mark of a root from a builder's attributes. True if there was one.
#[inline]
pub(crate) fn take_root_mark(attributes: &mut Vec<KeyValue>) -> bool {
    let is_mark = |it: &KeyValue| std::ptr::eq(it.key.as_str(), ROOT_KEY);
    attributes.first().is_some_and(is_mark) && {
        attributes.remove(0);
        true
    }
}

/// A request to a started span.
pub(crate) enum SpanCommand {
    /// Apply this session from now on, inside the span's scope.
    SetSession(Session),
    /// Export the values of this session that the span lacks. The flag tells the span whether its ancestors are marked
    /// too. The span sets it to true if the span was marked like this before, and to false otherwise.
    Mark(Session, Rc<Cell<bool>>),
    /// The span started in a future's session, and was entered in another future or place, where this session applies:
    /// see `scope/polled.rs`.
    EnterIn(Session),
    /// Apply this session to the span itself, inside the session of the future.
    SetInside(Session),
    /// Do nothing. The sender only checks whether the span is a span of this crate.
    Ping,
}

thread_local! {
    /// The command for the span whose status is being set to `Unset`. [`send`] writes it, and [`take_command`] takes
    /// it. Empty at all other times.
    static COMMAND: RefCell<Option<SpanCommand>> = const { RefCell::new(None) };
}

/// Sends a command to the span of `cx`. Returns false if it isn't a span of this crate.
pub(crate) fn send(cx: &Context, command: SpanCommand) -> bool {
    /// Restores the outer command: a foreign span may panic, or send a command itself.
    struct Sending(Option<SpanCommand>);

    impl Drop for Sending {
        fn drop(&mut self) {
            swap(self.0.take());
        }
    }

    let _marked = Marked(OFFERED_TICKET.replace(SENDING));
    let _sending = Sending(swap(Some(command)));
    // `Unset` is the lowest status, so setting it has no effect on other spans.
    cx.span().set_status(Status::Unset);
    let is_taken = |command: &RefCell<Option<SpanCommand>>| command.borrow().is_none();
    COMMAND.try_with(is_taken).unwrap_or(false)
}

/// Whether the span of `cx` is a span of this crate.
pub(crate) fn is_session_span(cx: &Context) -> bool {
    send(cx, SpanCommand::Ping)
}

/// Takes the command for the span whose status is being set to `Unset`. The OpenTelemetry layer sets this status on
/// every span, so read the cheap thread-local first.
#[inline]
pub(crate) fn take_command() -> Option<SpanCommand> {
    #[cold]
    fn take() -> Option<SpanCommand> {
        swap(None)
    }
    (OFFERED_TICKET.get() == SENDING).then(take).flatten()
}

fn swap(command: Option<SpanCommand>) -> Option<SpanCommand> {
    // While the thread exits there is no thread-local, so the command is dropped.
    COMMAND.try_with(|it| it.replace(command)).ok().flatten()
}
