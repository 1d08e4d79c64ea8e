//! A guide for people who have never used OpenTelemetry. This module contains no code.
//!
//! # What a session is
//!
//! A *span* is a piece of work with a beginning and an end. An event of `tracing`, such as `info!`, is one
//! line. A span, such as `info_span!` or a function with `#[instrument]`, lasts until the work is done.
//!
//! Spans inside one another form a tree. The whole tree is a *trace*: all the work for one request.
//!
//! A *session* is a conversation. Each question with its answer is a *turn*, and has its own trace. The traces
//! belong together because all their spans carry the same attribute, `session.id`.
//!
//! The *user* is the person who holds the conversation. The same spans carry the attribute `user.id`.
//!
//! OpenTelemetry exports spans from a program, in a format called OTLP, to a *backend* that stores and shows
//! them, such as Phoenix, Langfuse or Jaeger.
//!
//! ```text
//! session chat-42 ─┬─ trace: "What is the weather?"
//!   of user u-7    │    answer ──────────────────────  session.id=chat-42  user.id=u-7
//!                  │      search ─────                 session.id=chat-42  user.id=u-7
//!                  │      complete     ──────────────  session.id=chat-42  user.id=u-7
//!                  │
//!                  └─ trace: "And tomorrow?"
//!                       answer ──────────              session.id=chat-42  user.id=u-7
//!                         complete  ─────              session.id=chat-42  user.id=u-7
//! ```
//!
//! Nothing else makes a session: it isn't opened, closed or stored anywhere, and it may continue a year
//! later on another machine. So every span needs both attributes, also the spans of libraries that know
//! nothing about conversations. This crate adds them. You set the session once for each turn:
//!
//! ```
//! # use opentelemetry::trace::TracerProvider;
//! # use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};
//! # use tracing_session::{SessionLayer, SessionTracerProvider};
//! # use tracing_subscriber::prelude::*;
//! use tracing::instrument;
//! use tracing_session::{InSession, Session};
//!
//! #[instrument(skip_all)] // each call creates a span named `answer`
//! async fn answer(question: &str) -> String {
//!     search(question).await;
//!     complete(question).await
//! }
//! # #[instrument(skip_all)]
//! # async fn search(question: &str) {}
//! # #[instrument(skip_all)]
//! # async fn complete(question: &str) -> String { String::new() }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let exporter = InMemorySpanExporter::default();
//! # let sdk = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
//! # let provider = SessionTracerProvider::new(sdk);
//! # let otel = tracing_opentelemetry::layer().with_tracer(provider.tracer("guide"));
//! # let _default = tracing_subscriber::registry().with(SessionLayer::new().around(otel)).set_default();
//! let conversation = Session::new("chat-42")?.with_user("u-7")?;
//!
//! answer("What is the weather?").in_session(conversation.clone()).await;
//! answer("And tomorrow?").in_session(conversation).await;
//! # let spans = exporter.get_finished_spans()?;
//! # assert_eq!(spans.len(), 6);
//! # for span in &spans {
//! #     let value = |key| span.attributes.iter().find(|it| it.key.as_str() == key).map(|it| it.value.to_string());
//! #     assert_eq!((value("session.id").as_deref(), value("user.id").as_deref()), (Some("chat-42"), Some("u-7")));
//! # }
//! # let traces: std::collections::HashSet<_> = spans.iter().map(|it| it.span_context.trace_id()).collect();
//! # assert_eq!(traces.len(), 2);
//! # Ok(()) }
//! ```
//!
//! # The pages
//!
//! - [Setting up](set_up): from nothing, the parts of the set-up, and code whose spans already have ids.
//! - [Servers](servers): web servers, background jobs and streamed answers.
//! - [Backends](backends): Phoenix, Langfuse, Jaeger and the Collector.
//! - [In production](production): privacy, sampling and logs.
//! - [Testing](testing): how to test that your spans are in their session.
//! - [Troubleshooting](troubleshooting): symptoms, causes and fixes.
//!
//! Each page takes a few minutes to read. For the exact rules, see [the rules](crate#the-rules) and the
//! documentation of each item.

// What needs a feature is linked, and tried, where it is there.
#![cfg_attr(
    not(all(
        feature = "fmt",
        feature = "hash",
        feature = "logs",
        feature = "otlp",
        feature = "sampler",
        feature = "tower"
    )),
    allow(rustdoc::broken_intra_doc_links)
)]

#[cfg_attr(
    any(feature = "otlp", not(doctest)),
    doc = include_str!("guide/set_up.md")
)]
pub mod set_up {}

#[cfg_attr(
    any(feature = "tower", not(doctest)),
    doc = include_str!("guide/servers.md")
)]
pub mod servers {}

#[cfg_attr(
    any(feature = "otlp", not(doctest)),
    doc = include_str!("guide/backends.md")
)]
pub mod backends {}

#[cfg_attr(
    any(
        all(
            feature = "fmt",
            feature = "hash",
            feature = "logs",
            feature = "sampler"
        ),
        not(doctest)
    ),
    doc = include_str!("guide/production.md")
)]
pub mod production {}

#[doc = include_str!("guide/testing.md")]
pub mod testing {}

#[doc = include_str!("guide/troubleshooting.md")]
pub mod troubleshooting {}
