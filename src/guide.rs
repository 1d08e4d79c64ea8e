//! A guide for those who have never used OpenTelemetry. There is nothing to call in here.
//!
//! # What a session is
//!
//! A *span* is a piece of work with a beginning and an end: where an event of `tracing`, as `info!`,
//! is one line, a span, as `info_span!` or a function with `#[instrument]`, lasts until the work is
//! done.
//!
//! Spans that are made inside one another are a tree, and the whole tree is a *trace*: all that was
//! done for one request.
//!
//! A *session* is a conversation: the traces of its *turns*, each a question with its answer, belong
//! together because all their spans carry the same attribute, `session.id`.
//!
//! The *user* is who holds it, and is on the same spans as `user.id`.
//!
//! OpenTelemetry is the way in which spans leave a program, in a format that is called OTLP, for a
//! *backend* that stores and shows them: Phoenix, Langfuse, Jaeger.
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
//! Nothing else holds a session together: it is not opened, closed or stored anywhere, and may go on
//! after a year, on another machine. So both attributes have to be on every span, also on those of
//! libraries that know nothing of conversations. This crate puts them there. You say once whose turn
//! it is:
//!
//! ```
//! # use opentelemetry::trace::TracerProvider;
//! # use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};
//! # use tracing_session::{SessionLayer, SessionTracerProvider};
//! # use tracing_subscriber::prelude::*;
//! use tracing::instrument;
//! use tracing_session::{InSession, Session};
//!
//! #[instrument(skip_all)] // a span, named `answer`, each time it is called
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
//! | page | what it is about |
//! | --- | --- |
//! | [Setting up](set_up) | from nothing; what the parts are for; code that has ids in its spans already |
//! | [Servers](servers) | web servers, background jobs, streamed answers |
//! | [Backends](backends) | Phoenix, Langfuse, Jaeger, the Collector |
//! | [In production](production) | what is private, what is kept, what is logged |
//! | [Testing](testing) | that one's own spans are in the session |
//! | [Troubleshooting](troubleshooting) | from what one sees, and from what is said, to what to change |
//!
//! Each page is read in a few minutes. What the words mean exactly is in [the rules](crate#the-rules),
//! and with each item.

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
