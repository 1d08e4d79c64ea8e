//! Mistakes that people make when they adopt the crate, each planted in a small application of its own process. What the
//! application prints names the mistake, its place in the code, and the cure. A correct application prints nothing of that kind.

use crate::support::{output_alone, session};
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};
use tracing::{Instrument, Span, info_span, instrument};
use tracing_session::{
    Dialect, InSession, Session, SessionExporter, SessionLayer, SessionTracerProvider, session,
};
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::{fmt, prelude::*};

/// An application, and the texts that it has to print.
struct Mistake {
    name: &'static str,
    application: fn(),
    /// `HERE` is the line of the application that is marked with a comment.
    named: &'static [&'static str],
}

const MISTAKES: &[Mistake] = &[
    Mistake {
        name: "a task is spawned without the span",
        application: || {
            block_on(async {
                let save = async { info_span!("save").in_scope(|| {}) }; // spawned task
                let request = async { tokio::spawn(save).await.unwrap() };
                request.in_session(session("secret-1")).await;
            });
        },
        named: &["// spawned task", "in_current_span()"],
    },
    Mistake {
        name: "a blocking closure is spawned without the span",
        application: || {
            block_on(async {
                let query = || info_span!("query").in_scope(|| {}); // blocking closure
                let request = async { tokio::task::spawn_blocking(query).await.unwrap() };
                request.in_session(session("secret-1")).await;
            });
        },
        named: &["// blocking closure", "In `spawn_blocking`, enter the span"],
    },
    Mistake {
        name: "RUST_LOG disables the spans",
        application: || {
            let pipeline = tracing_session::otlp::pipeline("app");
            let _telemetry = pipeline.with_endpoint("http://127.0.0.1:9").install();
            session("secret-1").in_scope(|| info_span!("answer").in_scope(|| {}));
        },
        named: &["RUST_LOG", "info"],
    },
    Mistake {
        name: "the layer is beside the OpenTelemetry layer",
        application: || {
            let provider = provider();
            let otel = tracing_opentelemetry::layer().with_tracer(provider.tracer("app"));
            let subscriber = tracing_subscriber::registry().with(otel);
            subscriber.with(SessionLayer::new()).with(hidden()).init();
            session!("secret-1").in_scope(|| info_span!("answer").in_scope(|| {}));
        },
        named: &["SessionLayer::new().wrap(otel_layer)"],
    },
    Mistake {
        name: "the provider is not wrapped",
        application: || {
            let provider = sdk();
            let otel = tracing_opentelemetry::layer().with_tracer(provider.tracer("app"));
            let otel = SessionLayer::new().wrap(otel);
            tracing_subscriber::registry()
                .with(otel)
                .with(hidden())
                .init();
            session!("secret-1").in_scope(|| info_span!("answer").in_scope(|| {}));
        },
        named: &["SessionTracerProvider::new(provider)"],
    },
    Mistake {
        name: "a root inside the session",
        application: || {
            run(|| {
                session("secret-1").in_scope(|| {
                    info_span!(parent: None, "root").in_scope(|| {}); // root inside
                })
            });
        },
        named: &["// root inside", "`parent: None`", "Remove it"],
    },
    Mistake {
        name: "a span that is older than its session",
        application: || {
            run(|| {
                let span = info_span!("request"); // older span
                session("secret-1").in_scope(|| span.in_scope(|| {}));
            });
        },
        named: &["// older span", "Create them in the session"],
    },
    Mistake {
        name: "the guard is not kept",
        application: || {
            let pipeline = tracing_session::otlp::pipeline("app");
            let _ = pipeline.with_endpoint("http://127.0.0.1:9").install();
            session("secret-1").in_scope(|| info_span!("answer").in_scope(|| {}));
        },
        named: &["let _telemetry"],
    },
    Mistake {
        name: "a library has an id of its own",
        application: || {
            run(|| {
                session("secret-1").in_scope(|| {
                    info_span!("connect", session.id = "secret-2").in_scope(|| {}); // library
                })
            });
        },
        named: &["// library", "with_opener_filter"],
    },
    Mistake {
        name: "an id is too long for the backend",
        application: || {
            let exporter = SessionExporter::new(InMemorySpanExporter::default());
            let exporter = exporter.with_dialect(Dialect::LANGFUSE);
            let sdk = SdkTracerProvider::builder()
                .with_simple_exporter(exporter)
                .build();
            let otel = tracing_opentelemetry::layer()
                .with_tracer(SessionTracerProvider::new(sdk).tracer("app"));
            let otel = SessionLayer::new().wrap(otel);
            tracing_subscriber::registry()
                .with(otel)
                .with(lines())
                .init();
            session(&"x".repeat(201)).in_scope(|| info_span!("answer").in_scope(|| {}));
        },
        named: &["Langfuse", "200"],
    },
    Mistake {
        name: "another provider is the global one",
        application: || {
            run(|| {
                opentelemetry::global::set_tracer_provider(sdk());
                session!("secret-1").in_scope(|| {});
            });
        },
        named: &["global::set_tracer_provider"],
    },
    Mistake {
        name: "fields of another name",
        application: || {
            run(|| {
                for _ in 0..8 {
                    info_span!("turn", conversation_id = "secret-1").in_scope(|| {}); // other field
                }
            });
        },
        named: &["// other field", "with_session_field"],
    },
];

fn sdk() -> SdkTracerProvider {
    let exporter = InMemorySpanExporter::default();
    SdkTracerProvider::builder()
        .with_simple_exporter(exporter)
        .build()
}

fn provider() -> SessionTracerProvider {
    SessionTracerProvider::new(sdk())
}

/// Runs an application that is set up correctly.
fn run(application: impl FnOnce()) {
    let provider = provider();
    let otel = tracing_opentelemetry::layer().with_tracer(provider.tracer("app"));
    let otel = SessionLayer::new().wrap(otel);
    tracing_subscriber::registry()
        .with(otel)
        .with(lines())
        .init();
    application();
    provider.shutdown().unwrap();
}

fn block_on(application: impl Future<Output = ()>) {
    run(|| {
        tokio::runtime::Runtime::new()
            .unwrap()
            .block_on(application)
    });
}

/// Log lines of the application.
fn lines<S: tracing::Subscriber + for<'span> tracing_subscriber::registry::LookupSpan<'span>>()
-> impl tracing_subscriber::Layer<S> {
    fmt::layer().with_writer(std::io::stderr)
}

/// Log lines of the application alone.
fn hidden<S: tracing::Subscriber + for<'span> tracing_subscriber::registry::LookupSpan<'span>>()
-> impl tracing_subscriber::Layer<S> {
    lines().with_filter(EnvFilter::new("main=debug"))
}

/// The file and line of a comment in this file.
fn place(comment: &str) -> String {
    let line = include_str!("planted.rs")
        .lines()
        .position(|line| line.ends_with(comment));
    format!("{}:{}", file!(), line.expect(comment) + 1)
}

#[test]
fn mistake_is_named_with_its_place_and_the_cure() {
    let test = test_name!();
    for Mistake {
        name,
        application,
        named,
    } in MISTAKES
    {
        let variables = [
            ("MISTAKE", *name),
            ("TRACING_SESSION_COVERAGE", "1"),
            (
                "RUST_LOG",
                if name.starts_with("RUST_LOG") {
                    "warn"
                } else {
                    "info"
                },
            ),
        ];
        let Some(printed) = output_alone(test, &variables) else {
            if std::env::var("MISTAKE").unwrap() == *name {
                application();
            }
            continue;
        };
        for text in *named {
            let text = match text.starts_with("// ") {
                true => place(text),
                false => (*text).to_owned(),
            };
            assert!(printed.contains(&text), "{name}: no `{text}` in\n{printed}");
        }
        assert!(!printed.contains("secret"), "{name}:\n{printed}");
    }
}

/// A look-up is no login: a span named `user` sets nothing.
#[instrument]
async fn user(id: u64) {
    tokio::task::yield_now().await;
}

/// All ways to set a session, and tasks that inherit it.
async fn answer() {
    user(7).await;
    tokio::spawn(user(8).in_current_span()).await.unwrap();
    let span = Span::current();
    let query = move || span.in_scope(|| info_span!("query").in_scope(|| {}));
    tokio::task::spawn_blocking(query).await.unwrap();
}

#[test]
fn correct_application_gets_no_warning() {
    let variables = [("TRACING_SESSION_COVERAGE", "1"), ("RUST_LOG", "info")];
    let Some(printed) = output_alone(test_name!(), &variables) else {
        return block_on(async {
            let inner = async { answer().instrument(info_span!("answer")).await };
            inner
                .in_session(session("chat-1").with_user("u-7").unwrap())
                .await;
            user(9)
                .instrument(info_span!("answer"))
                .in_session(session("chat-2"))
                .await;
            answer()
                .instrument(session!("chat-3", conversation_id = "chat-3"))
                .await;
            answer()
                .instrument(info_span!("session", id = "chat-4"))
                .await;
            answer()
                .instrument(info_span!("turn", session.id = "chat-5"))
                .await;
            let nested = Session::new("chat-6").unwrap();
            nested.in_scope(|| nested.in_scope(|| info_span!("nested").in_scope(|| {})));
        });
    };
    assert!(printed.contains("100 % of "), "{printed}");
    let warnings = ["WARN", "tracing-session: "].map(|text| printed.matches(text).count());
    assert_eq!(warnings, [0, 1], "{printed}");
    assert!(!printed.contains("spans had a session.\n\n"), "{printed}");
}
