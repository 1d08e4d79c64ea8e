//! Many sessions at once: each line has its own.

use opentelemetry::trace::TracerProvider;
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::{LogBatch, LogExporter, SdkLoggerProvider};
use opentelemetry_sdk::trace::SdkTracerProvider;
use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::yield_now;
use tracing::{Dispatch, Instrument, info, info_span};
use tracing_session::fmt::with_session;
use tracing_session::{
    InSession, Session, SessionLayer, SessionTracerProvider, processors::SessionLogProcessor,
    session,
};
use tracing_subscriber::fmt;
use tracing_subscriber::prelude::*;

const SESSIONS: usize = 1_000;
const LINES: usize = 100;

/// How often a line of this number carried this session.
type Seen = Arc<Mutex<HashMap<(String, Option<String>), usize>>>;

#[derive(Clone, Debug, Default)]
struct Count(Seen);

impl Count {
    fn add(&self, number: String, session: Option<String>) {
        *self.0.lock().unwrap().entry((number, session)).or_default() += 1;
    }

    /// Each session has all its lines, and no line has another.
    fn is_right(&self) {
        let seen = self.0.lock().unwrap();
        for number in 0..SESSIONS {
            let line = (number.to_string(), Some(format!("chat-{number}")));
            assert_eq!(seen.get(&line), Some(&LINES), "{number}");
        }
        assert_eq!(seen.len(), SESSIONS);
    }
}

impl LogExporter for Count {
    async fn export(&self, batch: LogBatch<'_>) -> OTelSdkResult {
        for (record, _) in batch.iter() {
            let of = |key: &str| {
                let mut found = record
                    .attributes_iter()
                    .filter(|(it, _)| it.as_str() == key);
                let value = found.next().map(|(_, value)| crate::logs::text(value));
                assert!(found.next().is_none(), "{key} is there twice");
                value
            };
            self.add(of("number").unwrap(), of("session.id"));
        }
        Ok(())
    }
}

/// A line of JSON for each write.
impl io::Write for Count {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let json: serde_json::Value = serde_json::from_slice(line).unwrap();
        let id = json["session.id"].as_str().map(str::to_owned);
        self.add(json["fields"]["number"].to_string(), id);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One session: tasks that take turns at every line, spans, and work on other threads.
async fn converse(number: usize) {
    let work = async move {
        for line in 0..LINES {
            if line % 10 == 0 {
                let below = async { info!(number, "below") };
                below.instrument(info_span!("below")).await;
            } else if line % 50 == 1 {
                let here = tracing_session::current_session().unwrap();
                let blocking = move || here.in_scope(|| info!(number, "blocking"));
                tokio::task::spawn_blocking(blocking).await.unwrap();
            } else {
                info!(number, "line");
            }
            yield_now().await;
        }
    };
    let id = format!("chat-{number}");
    match number % 3 {
        0 => work.instrument(session!(id)).await,
        1 => work.in_session(Session::new(id).unwrap()).await,
        _ => {
            let span = info_span!("request", session.id = tracing::field::Empty);
            span.record("session.id", id);
            work.instrument(span).await;
        }
    }
}

#[test]
fn each_of_100_000_lines_has_its_own_session() {
    let (records, lines) = (Count::default(), Count::default());
    let logs = SdkLoggerProvider::builder()
        .with_log_processor(SessionLogProcessor::new())
        .with_simple_exporter(records.clone())
        .build();
    let provider = SessionTracerProvider::new(SdkTracerProvider::default());
    let otel = tracing_opentelemetry::layer().with_tracer(provider.tracer("app"));
    let writer = lines.clone();
    let dispatch = Dispatch::new(
        tracing_subscriber::registry()
            .with(SessionLayer::new().wrap(otel))
            .with(OpenTelemetryTracingBridge::new(&logs))
            .with(
                fmt::layer()
                    .json()
                    .with_writer(move || writer.clone())
                    .map_event_format(with_session),
            ),
    );
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .on_thread_start(move || std::mem::forget(tracing::dispatcher::set_default(&dispatch)))
        .build()
        .unwrap();
    runtime.block_on(async {
        let all: Vec<_> = (0..SESSIONS).map(|it| tokio::spawn(converse(it))).collect();
        for task in all {
            task.await.unwrap();
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(10));
    records.is_right();
    lines.is_right();
}
