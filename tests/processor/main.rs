//! What holds where the provider is not wrapped, and a span processor writes instead. Once a process has such a processor,
//! the setup check doesn't warn about a plain provider, so these tests have an executable of their own.

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod vercel;
mod written;
