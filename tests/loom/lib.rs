//! What threads share and change, in every order in which they can take turns: models for
//! [loom](https://docs.rs/loom), of the library's own files.
//!
//! What is not here is not changed by more than one thread, or lives in OpenTelemetry's `Context` and in thread
//! locals, of which loom knows nothing. `docs/reliability.md` lists all of it.
#![cfg(test)]
#![allow(dead_code, unused_imports, reason = "a part of each file is used")]

#[path = "../../src"]
mod library {
    pub(crate) mod base {
        pub(crate) mod diagnostic;
        pub(crate) mod error;
        pub(crate) mod setup;
        pub(crate) mod shards;

        pub(crate) use crate::sync;
    }
    pub(crate) mod export;
    pub(crate) mod scope;
    pub(crate) mod session;
}

mod models;
mod sync;

// What the library's files call `crate`.
use library::*;
