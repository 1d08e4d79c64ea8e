//! The allocator of these tests: it counts what each thread allocates and frees.
#![allow(unsafe_code, reason = "an allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

struct Counts;

thread_local! {
    /// The bytes that this thread has allocated and not freed.
    pub static LIVE: Cell<isize> = const { Cell::new(0) };
    /// The bytes that this thread has ever allocated.
    pub static ALLOCATED: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: the system's allocator does the work. `realloc`, which is not here, calls these by default. A thread that ends
// can allocate after its locals are gone.
unsafe impl GlobalAlloc for Counts {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let size = layout.size();
        let _ = LIVE.try_with(|live| live.set(live.get() + size as isize));
        let _ = ALLOCATED.try_with(|bytes| bytes.set(bytes.get() + size));
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        let _ = LIVE.try_with(|live| live.set(live.get() - layout.size() as isize));
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTS: Counts = Counts;
