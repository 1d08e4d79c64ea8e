//! JSON that was kept elsewhere: see `tests/hostile/state.rs`.
#![no_main]

#[path = "../../tests/hostile/state.rs"]
mod state;
#[path = "../../tests/support/mod.rs"]
mod support;

libfuzzer_sys::fuzz_target!(|file: &[u8]| state::check(file));
