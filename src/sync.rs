//! What is shared by threads and changed is made of these. In `tests/loom/`, where every order in which
//! threads can take turns is tried, another file stands in the place of this one.

pub(crate) use std::sync::{Mutex, MutexGuard, OnceLock, RwLock, atomic};
