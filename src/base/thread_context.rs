//! The current `Context` of this thread, also where there is none any more.
//!
//! OpenTelemetry keeps it in a thread local. Once that is gone, while the thread ends, it panics when it
//! is asked for, and the destructor of another thread local must not panic: that ends the process. So
//! whatever may run there asks by way of this module, and gets nothing.

use opentelemetry::{Context, ContextGuard};
use std::cell::Cell;
use std::panic::catch_unwind;

thread_local! {
    /// Thread locals go in the reverse of the order in which they were made. This one is made when that of
    /// OpenTelemetry is there, so it goes before.
    static SENTINEL: Sentinel = Sentinel(catch_unwind(|| Context::map_current(|_| ())).is_ok());
    /// Whether the sentinel is there. To look at this costs less.
    static IS_THERE: Cell<bool> = const { Cell::new(false) };
}

/// Whether OpenTelemetry's was there when this was made.
struct Sentinel(bool);

impl Drop for Sentinel {
    fn drop(&mut self) {
        IS_THERE.set(false);
    }
}

#[inline]
fn is_there() -> bool {
    IS_THERE.get() || look()
}

#[cold]
fn look() -> bool {
    let is_there = SENTINEL.try_with(|it| it.0).unwrap_or(false);
    IS_THERE.set(is_there);
    is_there
}

/// What `look` makes of the current `Context`. `None` if the thread is ending.
#[inline]
pub(crate) fn map<T>(look: impl FnOnce(&Context) -> T) -> Option<T> {
    is_there().then(|| Context::map_current(look))
}

/// The current `Context`, or an empty one.
pub(crate) fn get() -> Context {
    map(Context::clone).unwrap_or_default()
}

/// Makes `cx` the current one.
pub(crate) fn attach(cx: Context) -> Attached {
    Attached(is_there().then(|| cx.attach()))
}

/// Makes what `change` makes of the current one the current one.
pub(crate) fn attach_changed(change: impl FnOnce(&Context) -> Context) -> Attached {
    Attached(map(change).map(Context::attach))
}

/// Keeps a `Context` the current one of this thread until it is dropped.
#[derive(Debug)]
pub(crate) struct Attached(Option<ContextGuard>);

impl Drop for Attached {
    fn drop(&mut self) {
        if !is_there() {
            std::mem::forget(self.0.take());
        }
    }
}
