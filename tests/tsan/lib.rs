//! That the tool works: it has to find this.

#[cfg(test)]
mod tests {
    use std::cell::UnsafeCell;

    struct Unguarded(UnsafeCell<u32>);

    // SAFETY: there is none.
    unsafe impl Sync for Unguarded {}

    #[test]
    fn race() {
        let value = Unguarded(UnsafeCell::new(0));
        let value = &value;
        std::thread::scope(|scope| {
            for _ in 0..2 {
                // SAFETY: there is none.
                scope.spawn(move || unsafe { *value.0.get() += 1 });
            }
        });
    }
}
