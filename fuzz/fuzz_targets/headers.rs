//! Headers that mean no good: see `tests/support/hostile.rs`.
//!
//! `cargo +nightly fuzz run headers -- -dict=fuzz/headers.dict`
#![no_main]

#[path = "../../tests/support/hostile.rs"]
mod hostile;

use libfuzzer_sys::fuzz_target;

fuzz_target!(
    init: {
        let (name, value) = hostile::ENVIRONMENT;
        // SAFETY: there is no other thread yet.
        unsafe { std::env::set_var(name, value) };
    },
    |file: &[u8]| hostile::check(&hostile::parsed(file))
);
