//! Replaces `base::sync` of `src/lib.rs` with loom's types, and adds the ones that loom lacks.

pub(crate) use loom::sync::{RwLock, RwLockWriteGuard};
use std::ops::{Deref, DerefMut};
use std::sync::{self as real, LockResult, PoisonError};

/// As loom's own, but that it is made by a `const fn`: so it has loom's made when it is first locked. That one
/// says whose turn it is, and nobody waits for the other.
pub(crate) struct Mutex<T> {
    value: real::Mutex<T>,
    turn: real::OnceLock<loom::sync::Mutex<()>>,
}

pub(crate) struct MutexGuard<'a, T> {
    /// Let go first.
    value: real::MutexGuard<'a, T>,
    _turn: loom::sync::MutexGuard<'a, ()>,
}

impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self {
            value: real::Mutex::new(value),
            turn: real::OnceLock::new(),
        }
    }

    pub(crate) fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        let turn = self.turn.get_or_init(loom::sync::Mutex::default).lock();
        Ok(MutexGuard {
            _turn: turn.unwrap_or_else(PoisonError::into_inner),
            value: self.value.try_lock().expect("it is this thread's turn"),
        })
    }

    pub(crate) fn get_mut(&mut self) -> LockResult<&mut T> {
        self.value.get_mut()
    }
}

impl<T: Default> Default for Mutex<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

/// As that of `std`: who gets the value sees all that was done before it was set, and who sets it waits for
/// another who does.
#[derive(Debug)]
pub(crate) struct OnceLock<T> {
    value: real::OnceLock<T>,
    is_set: atomic::AtomicBool,
    setting: loom::sync::Mutex<()>,
}

impl<T> OnceLock<T> {
    pub(crate) fn new() -> Self {
        Self {
            value: real::OnceLock::new(),
            is_set: atomic::AtomicBool::new(false),
            setting: loom::sync::Mutex::new(()),
        }
    }

    pub(crate) fn get(&self) -> Option<&T> {
        let is_set = self.is_set.load(atomic::Ordering::Acquire);
        self.value.get().filter(|_| is_set)
    }

    pub(crate) fn set(&self, value: T) -> Result<(), T> {
        let _alone = self.setting.lock();
        let done = self.value.set(value);
        self.is_set.store(true, atomic::Ordering::Release);
        done
    }

    /// It does not look at `is_set` first: of each atomic, loom remembers the last access alone, and so would not
    /// see that the store could come before a look that another thread took earlier.
    pub(crate) fn get_or_init(&self, make: impl FnOnce() -> T) -> &T {
        let _alone = self.setting.lock();
        if let Some(value) = self.value.get() {
            return value;
        }
        let value = self.value.get_or_init(make);
        self.is_set.store(true, atomic::Ordering::Release);
        value
    }
}

impl<T> Default for OnceLock<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Clone> Clone for OnceLock<T> {
    fn clone(&self) -> Self {
        let clone = Self::new();
        if let Some(value) = self.get() {
            let _first = clone.set(value.clone());
        }
        clone
    }
}

pub(crate) mod atomic {
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
    use std::sync::OnceLock;

    /// As loom's own, but that it is made by a `const fn`. To be touched before another thread is.
    pub(crate) struct AtomicUsize(usize, OnceLock<loom::sync::atomic::AtomicUsize>);

    impl AtomicUsize {
        pub(crate) const fn new(value: usize) -> Self {
            Self(value, OnceLock::new())
        }

        fn get(&self) -> &loom::sync::atomic::AtomicUsize {
            let make = || loom::sync::atomic::AtomicUsize::new(self.0);
            self.1.get_or_init(make)
        }

        pub(crate) fn load(&self, order: Ordering) -> usize {
            self.get().load(order)
        }

        pub(crate) fn store(&self, value: usize, order: Ordering) {
            self.get().store(value, order);
        }
    }
}
