//! Faults in a service, on purpose or not.

use std::panic;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::sleep;

static ABORTED: AtomicU64 = AtomicU64::new(0);
static PANICS: AtomicU64 = AtomicU64::new(0);
static ACCIDENTS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// The payload of a panic on purpose.
struct OnPurpose;

pub(crate) fn panic() {
    panic::panic_any(OnPurpose);
}

/// Aborts a task after a while, unless it has ended.
pub(crate) async fn abort(task: &JoinHandle<()>, after: Duration) {
    sleep(after).await;
    if !task.is_finished() {
        task.abort();
        ABORTED.fetch_add(1, Ordering::Relaxed);
    }
}

pub(crate) fn aborted() -> u64 {
    ABORTED.load(Ordering::Relaxed)
}

/// The number of panics on purpose, and the messages of the others.
pub(crate) fn panics() -> (u64, Vec<String>) {
    let accidents = ACCIDENTS.lock().map(|it| it.clone()).unwrap_or_default();
    (PANICS.load(Ordering::Relaxed), accidents)
}

/// Distinguishes the two from now on.
pub(crate) fn watch() {
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        if panic.payload().is::<OnPurpose>() {
            PANICS.fetch_add(1, Ordering::Relaxed);
            return;
        }
        if let Ok(mut accidents) = ACCIDENTS.lock() {
            accidents.push(panic.to_string());
        }
        usual(panic);
    }));
}
