//! OpenTelemetry's current `Context`, safe during thread exit.
//!
//! OpenTelemetry keeps it in a thread-local. Asking for it panics after its destructor has run, while the thread exits. A
//! panic in the destructor of another thread-local aborts the process. So all code that may run there uses this module,
//! which returns nothing then.

use opentelemetry::{Context, ContextGuard};
use std::cell::Cell;
use std::panic::catch_unwind;

thread_local! {
    /// Dropped before OpenTelemetry's thread-local, because thread-locals are dropped in the reverse order of their first
    /// use. Created on the first use of this module, and then only read.
    static SENTINEL: Sentinel = Sentinel(catch_unwind(|| Context::map_current(|_| ())).is_ok());
    /// Whether the sentinel exists. Has no destructor, so it is cheap to read, and can be read during thread exit.
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
