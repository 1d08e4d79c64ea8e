//! How the layer reaches the tracer, and a span inside a `Context`.
//!
//! Between the two stands the OpenTelemetry layer, which knows neither, and whose data is private.
//!
//! - To the tracer, for the span being made: [`offer`]. The tracer takes the offer when the layer
//!   asks it for a builder, and leaves a mark among the builder's attributes. The mark goes with
//!   the builder wherever the span is started: by another thread, below another parent, or when it
//!   is closed without ever having been entered. There the tracer takes the mark out again.
//! - To a span that has been started: [`ask`]. A `Context` hides the type of its span, so the
//!   errand waits in a thread local while a call that does nothing on any other span knocks.

use crate::known::{self, Key, Remembered};
use crate::scope::Scope;
use crate::session::Session;
use opentelemetry::trace::{Status, TraceContextExt};
use opentelemetry::{Context, Key as Name, KeyValue, Value};
use std::cell::{Cell, RefCell};
use std::sync::Arc;
use tracing::field::FieldSet;

/// What the tracer has to know of a span that the layer is making.
pub(crate) struct Handover {
    /// What the span says, if it opens a scope.
    pub(crate) opened: Option<Opened>,
    /// The scope around the span if the parent that it is started under has none.
    pub(crate) otherwise: Option<Arc<Scope>>,
}

/// A scope that a span opens.
#[derive(Clone)]
pub(crate) struct Opened {
    /// The scope as it is if the span is started under the `Context` that it was made in.
    pub(crate) scope: Arc<Scope>,
    pub(crate) opening: Opening,
}

/// How the fields of a span that opens a scope are exported.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Opening {
    /// The span opens a scope: what its fields say is in the scope already.
    pub(crate) opens: bool,
    /// Its field `id` is the session's or the user's, and is exported as such.
    pub(crate) names_id: bool,
    /// It is the root of a trace of its own.
    pub(crate) is_root: bool,
    /// It has fields for metadata or tags among these, which are exported as such.
    pub(crate) details: Option<&'static FieldSet>,
}

thread_local! {
    /// The layer of the span whose handover is on offer on this thread, or one of these.
    static OFFERED: Cell<usize> = const { Cell::new(NOTHING) };
    /// The span.
    static OFFERED_SPAN: Cell<u64> = const { Cell::new(0) };
}

const NOTHING: usize = 0;
/// There is none, and a span is being started. No layer has such an address.
const STARTING: usize = 1;

/// The name of both attributes that are the mark: the layer, and the span. A static, so that there is
/// one address to know it by: no attribute of anybody else's can be taken for it, whatever its name.
static MARK: &str = "tracing_session.handover";

/// Offers a handover to the next builder that is made on this thread, until the offer is dropped.
pub(crate) fn offer(span: Key, handover: Handover) -> Offer {
    Offer {
        span,
        pending: Some(known::pending(span, handover)),
        outer: Key {
            layer: OFFERED.replace(span.layer),
            span: OFFERED_SPAN.replace(span.span),
        },
    }
}

pub(crate) struct Offer {
    span: Key,
    pending: Option<Remembered>,
    outer: Key,
}

impl Offer {
    /// The pending handover if a builder took it. `None`: the span has no builder of ours.
    pub(crate) fn taken(mut self) -> Option<Remembered> {
        if OFFERED.get() == self.span.layer && OFFERED_SPAN.get() == self.span.span {
            return None;
        }
        self.pending.take()
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        OFFERED.set(self.outer.layer);
        OFFERED_SPAN.set(self.outer.span);
    }
}

/// Takes the handover on offer, as the mark that stands for it in a builder.
#[inline]
pub(crate) fn take_offer() -> Option<[KeyValue; 2]> {
    match OFFERED.get() {
        NOTHING | STARTING => None,
        layer => {
            OFFERED.set(NOTHING);
            let mark = |number: i64| KeyValue::new(Name::from_static_str(MARK), number);
            Some([mark(layer as i64), mark(OFFERED_SPAN.get() as i64)])
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

pub(crate) struct Starting(usize);

impl Drop for Starting {
    #[inline]
    fn drop(&mut self) {
        OFFERED.set(self.0);
    }
}

/// Takes the mark, if there is one, out of a builder's attributes, and gives what it stands for.
#[inline]
pub(crate) fn take_marked(attributes: &mut Vec<KeyValue>) -> Option<(Key, Handover)> {
    // The tracer makes the builder, so its mark comes first.
    let first = attributes.first()?;
    if !std::ptr::eq(first.key.as_str(), MARK) {
        return None;
    }
    let span = match attributes.as_slice() {
        [layer, span, ..] => match (&layer.value, &span.value) {
            (Value::I64(layer), Value::I64(span)) => Key {
                layer: *layer as usize,
                span: *span as u64,
            },
            _ => return None,
        },
        _ => return None,
    };
    attributes.drain(..2);
    Some((span, known::take_pending(span)?))
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
