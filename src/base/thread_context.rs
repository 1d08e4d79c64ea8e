//! OpenTelemetry's current `Context`, safe during thread exit.
//!
//! OpenTelemetry keeps it in a thread-local. Asking for it panics after its destructor has run, while the thread exits. A
//! panic in the destructor of another thread-local aborts the process. So all code that may run there uses this module,
//! which returns nothing then.

use opentelemetry::{Context, ContextGuard};
use std::panic::catch_unwind;

thread_local! {
    /// Whether OpenTelemetry's thread-local existed on the first use of this module. That use writes it, and it can't be
    /// read any more when the thread exits: it is dropped before OpenTelemetry's, because thread-locals are dropped in
    /// the reverse order of their first use.
    static SENTINEL: Sentinel = Sentinel(catch_unwind(|| Context::map_current(|_| ())).is_ok());
}

struct Sentinel(bool);

/// A thread-local without a destructor could be read until the very end.
impl Drop for Sentinel {
    fn drop(&mut self) {}
}

/// Whether OpenTelemetry's current `Context` can be asked for.
#[inline]
fn is_there() -> bool {
    SENTINEL.try_with(|it| it.0).unwrap_or(false)
}

/// Calls `f` with the current `Context`. `None` if the thread is exiting.
#[inline]
pub(crate) fn map<T>(f: impl FnOnce(&Context) -> T) -> Option<T> {
    is_there().then(|| Context::map_current(f))
}

/// The current `Context`, or an empty one.
pub(crate) fn get() -> Context {
    map(Context::clone).unwrap_or_default()
}

/// Makes `cx` the current one.
pub(crate) fn attach(cx: Context) -> Attached {
    Attached(is_there().then(|| cx.attach()))
}

/// Makes the `Context` that `change` returns for the current one the current one.
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
