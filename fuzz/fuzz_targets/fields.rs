//! Fields and attributes of spans: see `tests/hostile/fields.rs`.
#![no_main]

#[path = "../../tests/hostile/fields.rs"]
mod fields;
#[path = "../../tests/support/mod.rs"]
mod support;

libfuzzer_sys::fuzz_target!(|file: &[u8]| fields::check(file));
