//! Variables of the environment: see `tests/hostile/settings.rs`.
#![no_main]

#[path = "../../tests/hostile/settings.rs"]
mod settings;

libfuzzer_sys::fuzz_target!(|file: &[u8]| settings::check(file));
