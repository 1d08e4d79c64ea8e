//! What a process would have of its own: a subscriber, a tracer provider, and threads. Client and server share
//! nothing but the connection.

use crate::report::Span;
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};
use std::error::Error;
use std::{io, mem};
use tokio::runtime::{self, Handle, Runtime};
use tracing::level_filters::LevelFilter;
use tracing::{Dispatch, dispatcher};
use tracing_session::{SessionLayer, SessionTracerProvider};
use tracing_subscriber::{fmt, prelude::*};

pub(crate) type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

pub(crate) struct Process {
    name: &'static str,
    runtime: Runtime,
    exporter: InMemorySpanExporter,
}

impl Process {
    pub(crate) fn start(name: &'static str) -> Outcome<Self> {
        let exporter = InMemorySpanExporter::default();
        let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone());
        let provider = SessionTracerProvider::new(provider.build());
        let otel = tracing_opentelemetry::layer().with_tracer(provider.tracer(name));
        let warnings = fmt::layer().with_writer(io::stderr);
        let subscriber = tracing_subscriber::registry()
            // Spans of `rmcp` are exported too. In an application, filter them out: the filter `info,rmcp=warn`.
            .with(LevelFilter::INFO)
            .with(SessionLayer::new().wrap(otel))
            .with(warnings.with_filter(LevelFilter::WARN));
        let dispatch = Dispatch::new(subscriber);
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            // A real process calls `init` instead.
            .on_thread_start(move || mem::forget(dispatcher::set_default(&dispatch)))
            .build()?;
        Ok(Self {
            name,
            runtime,
            exporter,
        })
    }

    pub(crate) fn handle(&self) -> &Handle {
        self.runtime.handle()
    }

    pub(crate) fn run(&self, work: impl Future<Output = Outcome> + Send + 'static) -> Outcome {
        self.runtime.block_on(self.runtime.spawn(work))?
    }

    /// The finished spans, each with the name of the process.
    pub(crate) fn take_spans(&self) -> Outcome<Vec<Span>> {
        let spans = self.exporter.get_finished_spans()?;
        self.exporter.reset();
        Ok(spans.into_iter().map(|span| (self.name, span)).collect())
    }
}
