//! The ids that are recorded on a span when it is there already, while others read them.

use crate::session::Id;
use crate::sync::atomic::{AtomicU32, Ordering, fence};
use crate::sync::{Mutex, MutexGuard, OnceLock, RwLock};
use std::sync::PoisonError;

/// Hardly any span has such, so it is made when the first comes.
#[derive(Default)]
pub(crate) struct Recorded(OnceLock<Box<Ids>>);

#[derive(Default)]
struct Ids {
    id: Latest,
    user_id: Latest,
    /// Odd while something is being recorded, and another number afterwards.
    version: AtomicU32,
    /// By one thread at a time.
    recording: Mutex<()>,
}

/// What was recorded last.
#[derive(Default)]
struct Latest {
    first: OnceLock<Id>,
    /// Fields are hardly ever recorded twice: until then, reading takes no lock.
    later: OnceLock<RwLock<Id>>,
}

impl Recorded {
    #[inline]
    pub(crate) fn is_none(&self) -> bool {
        self.0.get().is_none()
    }

    pub(crate) fn id(&self) -> Option<Id> {
        self.0.get()?.id.get()
    }

    pub(crate) fn user_id(&self) -> Option<Id> {
        self.0.get()?.user_id.get()
    }

    /// Records what was said at once.
    pub(crate) fn record(&self, id: Option<Id>, user_id: Option<Id>) {
        let ids = self.0.get_or_init(Box::default);
        let _alone = ids.alone();
        ids.version.fetch_add(1, Ordering::Relaxed);
        // Whoever sees any of what follows, sees the odd number too.
        fence(Ordering::Release);
        if let Some(id) = id {
            ids.id.set(id);
        }
        if let Some(user_id) = user_id {
            ids.user_id.set(user_id);
        }
        ids.version.fetch_add(1, Ordering::Release);
    }

    /// What `look` sees of these while nothing is recorded: both ids as they were at one moment.
    #[inline]
    pub(crate) fn at_one_moment<T>(&self, look: impl Fn() -> T) -> T {
        let before = self.version();
        let seen = look();
        fence(Ordering::Acquire);
        if before % 2 == 0 && self.version() == before {
            return seen;
        }
        self.alone(look)
    }

    #[inline]
    fn version(&self) -> u32 {
        self.0
            .get()
            .map_or(0, |ids| ids.version.load(Ordering::Acquire))
    }

    #[cold]
    fn alone<T>(&self, look: impl Fn() -> T) -> T {
        let _alone = self.0.get_or_init(Box::default).alone();
        look()
    }
}

impl Ids {
    fn alone(&self) -> MutexGuard<'_, ()> {
        let recording = self.recording.lock();
        recording.unwrap_or_else(PoisonError::into_inner)
    }
}

impl Latest {
    fn get(&self) -> Option<Id> {
        match self.later.get() {
            None => self.first.get().cloned(),
            Some(later) => Some(later.read().unwrap_or_else(PoisonError::into_inner).clone()),
        }
    }

    fn set(&self, id: Id) {
        if let Err(id) = self.first.set(id) {
            let later = self.later.get_or_init(|| RwLock::new(id.clone()));
            *later.write().unwrap_or_else(PoisonError::into_inner) = id;
        }
    }
}
