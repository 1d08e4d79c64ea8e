//! What threads share and change, in every order in which they can take turns: models for
//! [loom](https://docs.rs/loom), of the library's own files.
//!
//! What is not here is not changed by more than one thread, or lives in OpenTelemetry's `Context` and in thread
//! locals, of which loom knows nothing. `docs/reliability.md` lists all of it.
#![cfg(test)]
#![allow(dead_code, unused_imports, reason = "a part of each file is used")]

#[path = "../../src/attributes.rs"]
mod attributes;
#[path = "../../src/check.rs"]
mod check;
#[path = "../../src/details.rs"]
mod details;
#[path = "../../src/diagnostic.rs"]
mod diagnostic;
#[path = "../../src/dialect.rs"]
mod dialect;
#[path = "../../src/error.rs"]
mod error;
#[path = "../../src/format.rs"]
mod format;
#[path = "../../src/inherited.rs"]
mod inherited;
#[path = "../../src/looks.rs"]
mod looks;
#[path = "../../src/metadata.rs"]
mod metadata;
#[path = "../../src/privacy.rs"]
mod privacy;
#[path = "../../src/recorded.rs"]
mod recorded;
#[path = "../../src/scope.rs"]
mod scope;
#[path = "../../src/session.rs"]
mod session;
#[path = "../../src/shards.rs"]
mod shards;
#[path = "../../src/text.rs"]
mod text;

mod models;
mod sync;
