//! A concurrent map for what cannot travel in a `Context`: small, and empty in most programs.

use crate::base::sync::atomic::{AtomicUsize, Ordering};
use crate::base::sync::{Mutex, MutexGuard};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;

const SHARDS: usize = 64;

/// A map from keys that hash as one random number. Looking up a key costs one atomic load where its
/// shard is empty; the lock of a shard is held for one operation of the map, and never while anything is
/// dropped.
pub(crate) struct Shards<K, V>([Shard<K, V>; SHARDS]);

/// On a cache line of its own, so that threads at work in different shards do not disturb one
/// another.
#[repr(align(128))]
struct Shard<K, V> {
    len: AtomicUsize,
    entries: Mutex<Entries<K, V>>,
}

/// Most shards have one entry at most, for which a hash map is dear.
struct Entries<K, V> {
    /// Filled where there are no others.
    first: Option<(K, V)>,
    others: HashMap<K, V, BuildHasherDefault<Unhashed>>,
}

impl<K: Copy + Eq + Hash, V> Entries<K, V> {
    fn insert(&mut self, key: K, value: V) -> Option<V> {
        match &mut self.first {
            Some(first) if first.0 == key => Some(std::mem::replace(&mut first.1, value)),
            None if self.others.is_empty() => {
                self.first = Some((key, value));
                None
            }
            _ => self.others.insert(key, value),
        }
    }

    fn get_mut(&mut self, key: K) -> Option<&mut V> {
        match &mut self.first {
            Some(first) if first.0 == key => Some(&mut first.1),
            _ => self.others.get_mut(&key),
        }
    }

    fn get(&self, key: K) -> Option<&V> {
        match &self.first {
            Some(first) if first.0 == key => Some(&first.1),
            _ if self.others.is_empty() => None,
            _ => self.others.get(&key),
        }
    }

    fn remove(&mut self, key: K) -> Option<V> {
        if let Some(first) = self.first.take_if(|first| first.0 == key) {
            return Some(first.1);
        }
        let removed = self.others.remove(&key);
        if self.others.is_empty() {
            // Its memory was for spans that met by chance.
            self.others = HashMap::default();
        }
        removed
    }

    fn len(&self) -> usize {
        self.others.len() + usize::from(self.first.is_some())
    }
}

impl<K: Copy + Eq + Hash, V> Shards<K, V> {
    pub(crate) const fn new() -> Self {
        Self([const { Shard::new() }; SHARDS])
    }

    #[cold]
    pub(crate) fn insert(&self, key: K, value: V) {
        let shard = self.shard(key);
        let _replaced = shard.update(|entries| entries.insert(key, value));
    }

    /// Inserts a value, or calls `merge` with the value that is there. It returns what is to be dropped, after the
    /// unlock.
    pub(crate) fn insert_or(&self, key: K, value: V, merge: impl FnOnce(&mut V, V) -> Option<V>) {
        let shard = self.shard(key);
        let _dropped = shard.update(|entries| match entries.get_mut(key) {
            Some(there) => merge(there, value),
            None => entries.insert(key, value),
        });
    }

    #[inline]
    pub(crate) fn remove(&self, key: K) -> Option<V> {
        let shard = self.shard(key);
        match shard.is_empty() {
            true => None,
            false => shard.remove(key),
        }
    }

    #[inline]
    pub(crate) fn remove_if(&self, key: K, condition: impl FnOnce(&mut V) -> bool) -> Option<V> {
        let shard = self.shard(key);
        if shard.is_empty() {
            return None;
        }
        shard.update(|entries| match condition(entries.get_mut(key)?) {
            true => entries.remove(key),
            false => None,
        })
    }

    /// False if the key is not there; true if it may be.
    #[inline]
    pub(crate) fn may_have(&self, key: K) -> bool {
        !self.shard(key).is_empty()
    }

    /// What `read` gives of the value. It runs under a lock, so it may not do more than look.
    #[inline]
    pub(crate) fn read<T>(&self, key: K, read: impl FnOnce(&V) -> Option<T>) -> Option<T> {
        let shard = self.shard(key);
        if shard.is_empty() {
            return None;
        }
        shard.read(key, read)
    }

    #[inline]
    fn shard(&self, key: K) -> &Shard<K, V> {
        let mut hasher = Unhashed::default();
        key.hash(&mut hasher);
        &self.0[hasher.0 as usize % SHARDS]
    }
}

impl<K: Copy + Eq + Hash, V> Shard<K, V> {
    const fn new() -> Self {
        Self {
            len: AtomicUsize::new(0),
            entries: Mutex::new(Entries {
                first: None,
                others: HashMap::with_hasher(BuildHasherDefault::new()),
            }),
        }
    }

    /// A thread that asks for a key got the key after the insertion, so `Relaxed` is enough.
    fn is_empty(&self) -> bool {
        self.len.load(Ordering::Relaxed) == 0
    }

    #[cold]
    fn read<T>(&self, key: K, read: impl FnOnce(&V) -> Option<T>) -> Option<T> {
        read(self.lock().get(key)?)
    }

    fn lock(&self) -> MutexGuard<'_, Entries<K, V>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cold]
    fn remove(&self, key: K) -> Option<V> {
        self.update(|entries| entries.remove(key))
    }

    #[inline(always)]
    fn update(&self, change: impl FnOnce(&mut Entries<K, V>) -> Option<V>) -> Option<V> {
        let mut entries = self.lock();
        let before = change(&mut entries);
        self.len.store(entries.len(), Ordering::Relaxed);
        before
    }
}

/// The keys are random, or spread like random ones: hashing them again would gain nothing.
#[derive(Default)]
struct Unhashed(u64);

impl Hasher for Unhashed {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    #[inline]
    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }

    fn finish(&self) -> u64 {
        // The shard was chosen by the low bits, so the map takes its bucket from the others.
        self.0.rotate_right(SHARDS.trailing_zeros())
    }
}

/// The last unique number. Only [`unique_number`] uses it.
static LAST_NUMBER: AtomicU64 = AtomicU64::new(0);

/// A number above 0 that no other call in this process returns: a key of a map, or of a cache.
pub(crate) fn unique_number() -> u64 {
    LAST_NUMBER.fetch_add(1, Ordering::Relaxed) + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    #[test]
    fn goes_on_after_a_panic_under_its_lock() {
        let map = Shards::new();
        map.insert(64u64, "here");
        let panics = || map.remove_if(64, |_| panic!("under the lock"));
        assert!(catch_unwind(AssertUnwindSafe(panics)).is_err());
        assert_eq!(map.read(64, |value| Some(*value)), Some("here"));
        map.insert(128, "beside");
        assert_eq!(map.remove(64), Some("here"));
        assert_eq!(map.remove(128), Some("beside"));
        assert!(!map.may_have(64));
    }

    #[test]
    fn shard_holds_what_a_hash_map_would() {
        // All in one shard, each step another mixture of them.
        let keys = [0u64, 64, 128, 192];
        let map = Shards::new();
        let mut model = HashMap::new();
        let mut random = 1u32;
        for step in 0..10_000 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let key = keys[random as usize >> 8 & 3];
            match random >> 16 & 3 {
                0 => {
                    map.insert(key, step);
                    model.insert(key, step);
                }
                1 => assert_eq!(map.remove(key), model.remove(&key)),
                2 => assert_eq!(map.remove_if(key, |_| false), None),
                _ => assert_eq!(
                    map.read(key, |value| Some(*value)),
                    model.get(&key).copied()
                ),
            }
            assert_eq!(map.may_have(0), !model.is_empty());
        }
    }
}
