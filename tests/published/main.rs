//! What users rely on when they upgrade: the public items, the auto traits and the oldest Rust.

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
