//! What users rely on when they upgrade, and what they read: the public items, the auto traits, the oldest Rust and the words.

#[cfg(all(
    feature = "logs",
    feature = "otlp",
    feature = "reqwest",
    feature = "sampler",
    feature = "tower"
))]
mod auto_traits;
mod compile_errors;
mod layers;
mod public_api;
mod rust_version;
mod words;
