// Shared code of the samples in `src/guide/outliving.md`. They `include!` this file, so it has no inner comments.

use opentelemetry::trace::{SpanId, TracerProvider};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use std::sync::LazyLock;
use std::thread;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::yield_now;
use tracing::subscriber::{NoSubscriber, with_default};
use tracing::{Instrument, info_span};
use tracing_session::{
    InSession, Session, SessionLayer, SessionTracerProvider, propagator_from_env,
};
use tracing_subscriber::prelude::*;

static EXPORTER: LazyLock<InMemorySpanExporter> = LazyLock::new(|| {
    opentelemetry::global::set_text_map_propagator(propagator_from_env().unwrap());
    let exporter = InMemorySpanExporter::default();
    let sdk = SdkTracerProvider::builder()
        .with_simple_exporter(exporter.clone())
        .build();
    let otel =
        tracing_opentelemetry::layer().with_tracer(SessionTracerProvider::new(sdk).tracer("guide"));
    tracing_subscriber::registry()
        .with(SessionLayer::new().wrap(otel))
        .init();
    exporter
});

/// Runs a sample, in an application that exports its spans.
pub fn run(sample: impl Future<Output = ()>) {
    LazyLock::force(&EXPORTER);
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build().unwrap().block_on(sample);
}

/// Serves HTTP on a thread that exports no spans. Returns the address.
pub fn serve() -> String {
    let (sender, address) = std::sync::mpsc::channel();
    let server = async move {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        sender.send(format!("http://{address}")).unwrap();
        axum::serve(listener, axum::Router::new()).await.unwrap();
    };
    thread::spawn(|| with_default(NoSubscriber::new(), || run(server)));
    address.recv().unwrap()
}

/// Handles a request of the session `chat-1`, and then one of `chat-2`, each in a span. Forgets the spans of earlier ones.
pub async fn requests(handle: impl AsyncFn()) {
    EXPORTER.reset();
    for id in ["chat-1", "chat-2"] {
        let request = async { handle().instrument(info_span!("request")).await };
        request.in_session(Session::new(id).unwrap()).await;
        // The tasks that it spawned run.
        for _ in 0..10 {
            yield_now().await;
        }
    }
}

/// Waits until this many spans with this name are exported.
pub async fn exported(name: &str, count: usize) {
    for _ in 0..1_000 {
        if spans(name).count() == count {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("{count} spans {name} are not exported");
}

/// The session of each exported span with this name, in the order in which the spans ended.
pub fn sessions(name: &str) -> Vec<String> {
    let id = |span: SpanData| {
        let mut attributes = span.attributes.into_iter();
        let id = attributes.find(|it| it.key.as_str() == "session.id");
        id.map_or("none".to_owned(), |it| it.value.to_string())
    };
    spans(name).map(id).collect()
}

/// The name of each exported span's parent.
pub fn parents(name: &str) -> Vec<String> {
    let all: Vec<_> = EXPORTER.get_finished_spans().unwrap();
    let parent = |span: SpanData| {
        let id = span.parent_span_id;
        let parent = all.iter().find(|it| it.span_context.span_id() == id);
        match parent {
            _ if id == SpanId::INVALID => "none".to_owned(),
            Some(parent) => parent.name.to_string(),
            None => "open".to_owned(),
        }
    };
    spans(name).map(parent).collect()
}

/// How many links each exported span has.
pub fn links(name: &str) -> Vec<usize> {
    spans(name).map(|span| span.links.len()).collect()
}

fn spans(name: &str) -> impl Iterator<Item = SpanData> {
    let spans = EXPORTER.get_finished_spans().unwrap();
    spans.into_iter().filter(move |it| it.name == name)
}
