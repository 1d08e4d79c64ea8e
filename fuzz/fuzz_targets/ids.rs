//! Ids, keys and values by themselves: see `tests/hostile/ids.rs`.
#![no_main]

#[path = "../../tests/hostile/ids.rs"]
mod ids;

libfuzzer_sys::fuzz_target!(|file: &[u8]| ids::check(file));
