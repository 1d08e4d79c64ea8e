//! What is hidden leaves the process nowhere: read in the bytes that are sent.

mod hashes;
mod headers;
mod ids;
mod keys;
mod logs;
mod metadata;

use crate::support::Diagnostics;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value;
use opentelemetry_sdk::trace::SdkTracerProvider;
use prost::Message;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use tracing::level_filters::LevelFilter;
use tracing::{Dispatch, Span, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_session::{
    Dialect, Privacy, Session, SessionExporter, SessionLayer, SessionTracerProvider,
    export::IdPolicy, mark_trace,
};
use tracing_subscriber::prelude::*;

const KEY: &str = "at-least-sixteen-bytes";
const USER: &str = "user-7f3a";
/// `printf user-7f3a | openssl dgst -sha256 -hmac at-least-sixteen-bytes`, and so on.
const USER_HASH: &str = "1287a1e57ce1a3be482bc321d9f9ee4f44853f38827716bba1a24f6d2baf571d";
const CHAT: &str = "conv-9c1b";
const CHAT_HASH: &str = "69cf6d2dc5f498fa22480c26d8748cddc8c167f7a2f6262c47c34b2c9b4a4407";
const NUMBER: i64 = 70_071_007;
const NUMBER_HASH: &str = "b1eae9a15f689d228770af2f0c494bbac218cf7e4c7a4adda860d3cef613c55f";
const EMAIL: &str = "secret@example.org";
const EMAIL_HASH: &str = "3404fca71d0c666c459d6a3a74bba74c523f09d054fd2afe5c96a06d34d6f92a";

fn hashed() -> IdPolicy {
    IdPolicy::hashed(KEY).unwrap()
}

/// Keys that the application adds, because it writes ids under them.
const USER_KEYS: [&str; 4] = ["who", "late", "enduser.id", "user"];
const SESSION_KEYS: [&str; 3] = ["chat", "thread", "session"];

fn both(policy: IdPolicy) -> Privacy {
    let privacy = Privacy::new();
    let privacy = USER_KEYS.into_iter().fold(privacy, Privacy::with_user_key);
    let privacy = SESSION_KEYS
        .into_iter()
        .fold(privacy, Privacy::with_session_key);
    privacy
        .with_user_ids(policy.clone())
        .with_session_ids(policy.clone())
        .with_metadata(["email", "number"], policy)
}

fn conversation() -> Session {
    Session::new(CHAT).unwrap().with_user(USER).unwrap()
}

/// An OTLP receiver that keeps the bodies of requests as they come.
struct Receiver {
    address: SocketAddr,
    bodies: Arc<Mutex<Vec<Vec<u8>>>>,
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Receiver {
    fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let bodies = Arc::new(Mutex::new(Vec::new()));
        let stopped = Arc::new(AtomicBool::new(false));
        let (all, stop) = (bodies.clone(), stopped.clone());
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                all.lock().unwrap().push(receive(stream.unwrap()));
            }
        });
        Self {
            address,
            bodies,
            stopped,
            thread: Some(thread),
        }
    }
}

/// The body of one request.
fn receive(stream: TcpStream) -> Vec<u8> {
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let line = line.trim().to_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    reader.into_inner().write_all(answer.as_bytes()).unwrap();
    body
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        let _woken = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// What an application sent, and what it said of mistakes.
struct Sent {
    bytes: Vec<u8>,
    said: Vec<String>,
}

type Work<'a> = dyn Fn(&SessionTracerProvider<SdkTracerProvider>) + 'a;

/// What is sent of `work`, over the real protocol.
fn sent(
    privacy: Privacy,
    dialect: Dialect,
    layer: impl Fn(SessionLayer) -> SessionLayer,
    work: &Work<'_>,
) -> Sent {
    let receiver = Receiver::start();
    let exporter = SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(format!("http://{}/v1/traces", receiver.address))
        .build()
        .unwrap();
    let exporter = SessionExporter::new(exporter).with_dialect(dialect);
    let sdk = SdkTracerProvider::builder().with_batch_exporter(exporter);
    let provider = SessionTracerProvider::new(sdk.build()).with_privacy(privacy);
    let otel = tracing_opentelemetry::layer().with_tracer(provider.tracer("app"));
    let diagnostics = Diagnostics::default();
    let layer = layer(SessionLayer::new().with_user_field("customer"));
    let layer = layer
        .with_opener_level(tracing::Level::DEBUG)
        .wrap_filtered(otel, LevelFilter::INFO);
    let subscriber = tracing_subscriber::registry().with(layer);
    let dispatch = Dispatch::new(subscriber.with(diagnostics.clone()));
    tracing::dispatcher::with_default(&dispatch, || work(&provider));
    provider.force_flush().unwrap();
    provider.shutdown().unwrap();
    let bytes = receiver.bodies.lock().unwrap().concat();
    assert!(!bytes.is_empty(), "nothing was sent");
    Sent {
        bytes,
        said: diagnostics.messages(),
    }
}

impl Sent {
    fn has(&self, text: &str) -> bool {
        let has = |bytes: &[u8]| bytes.windows(text.len()).any(|it| it == text.as_bytes());
        has(&self.bytes) || self.said.iter().any(|said| has(said.as_bytes()))
    }

    /// The values of the attributes of all spans, by key.
    fn attributes(&self) -> Vec<(String, any_value::Value)> {
        let request = ExportTraceServiceRequest::decode(self.bytes.as_slice()).unwrap();
        let scopes = request.resource_spans.into_iter();
        let spans = scopes.flat_map(|it| it.scope_spans).flat_map(|it| it.spans);
        let attributes = spans.flat_map(|span| span.attributes);
        attributes
            .filter_map(|it| Some((it.key, it.value?.value?)))
            .collect()
    }

    fn texts(&self, key: &str) -> Vec<String> {
        let all = self.attributes().into_iter().filter(|(it, _)| it == key);
        let texts = all.map(|(_, value)| match value {
            any_value::Value::StringValue(text) => text,
            other => format!("{other:?}"),
        });
        texts.collect()
    }

    fn has_number(&self) -> bool {
        let is_number = |value| value == any_value::Value::IntValue(NUMBER);
        self.has(&NUMBER.to_string()) || self.attributes().into_iter().any(|(_, it)| is_number(it))
    }
}

fn below() {
    info_span!("below").in_scope(|| {});
}

fn set_own(span: &Span, own: &[(&'static str, &'static str)]) {
    for (key, value) in own {
        span.set_attribute(*key, *value);
    }
}

fn mark() {
    mark_trace().unwrap();
}
