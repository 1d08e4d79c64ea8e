//! What stays allocated, and what is allocated at all: tests with an allocator that counts.

mod allocator;
#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod chains;
mod growth;
#[cfg(feature = "http")]
mod hostile;
mod spans;
