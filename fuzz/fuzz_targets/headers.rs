//! Headers of a call: see `tests/hostile/headers.rs`.
#![no_main]

#[path = "../../tests/hostile/headers.rs"]
mod headers;

libfuzzer_sys::fuzz_target!(
    init: {
        let (name, value) = headers::ENVIRONMENT;
        // SAFETY: there is no other thread yet.
        unsafe { std::env::set_var(name, value) };
    },
    |file: &[u8]| headers::check_file(file)
);
