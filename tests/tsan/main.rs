//! The tests of `concurrency`, by themselves.

#[path = "../concurrency.rs"]
mod concurrency;
#[path = "../support/mod.rs"]
mod support;
