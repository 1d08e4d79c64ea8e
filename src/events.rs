//! The scope in force where an event is written, asked for by whoever writes it.
//!
//! While a subscriber that is no more than a thread's default is at work, `tracing` tells nobody
//! which one it is: the default session could not be found. So the layer notes it beforehand.

use crate::layer::opening;
use crate::scope::Scope;
use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use tracing::subscriber::NoSubscriber;
use tracing::{Dispatch, dispatcher};

thread_local! {
    /// Of the subscriber that was last given an event on this thread.
    static DEFAULT: RefCell<Weak<Scope>> = const { RefCell::new(Weak::new()) };
}

/// There is a default session somewhere. Where nobody has one, nobody pays for it.
static EVER: AtomicBool = AtomicBool::new(false);

/// An event is about to be written by a subscriber that has this default session.
#[inline]
pub(crate) fn before(default: Option<&Arc<Scope>>) {
    if default.is_some() || EVER.load(Ordering::Relaxed) {
        note(default);
    }
}

#[cold]
fn note(default: Option<&Arc<Scope>>) {
    EVER.store(true, Ordering::Relaxed);
    let default = default.map(Arc::downgrade).unwrap_or_default();
    // While the thread ends there is nowhere to note it.
    let _ = DEFAULT.try_with(|it| it.replace(default));
}

/// The scope in force where an event or a log record is written.
#[inline]
pub(crate) fn scope() -> Option<Arc<Scope>> {
    opening::current_scope().or_else(|| {
        if EVER.load(Ordering::Relaxed) {
            noted()
        } else {
            None
        }
    })
}

#[cold]
fn noted() -> Option<Arc<Scope>> {
    // A subscriber that is known has been asked.
    if !dispatcher::get_default(Dispatch::is::<NoSubscriber>) {
        return None;
    }
    let noted = DEFAULT.try_with(|it| it.borrow().upgrade());
    noted.ok().flatten()
}
