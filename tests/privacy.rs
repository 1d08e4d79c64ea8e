//! What is hidden leaves the process nowhere: read in the bytes that are sent.

mod support;

use opentelemetry::baggage::BaggageExt;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{Span as _, Tracer, TracerProvider};
use opentelemetry::{Array, Context, KeyValue, Value};
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value;
use opentelemetry_sdk::logs::{InMemoryLogExporter, SdkLoggerProvider};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};
use prost::Message;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use support::{Diagnostics, alone, values};
use tracing::field::{Empty, display};
use tracing::level_filters::LevelFilter;
use tracing::{Dispatch, Span, debug_span, info_span, instrument};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_session::{
    Dialect, IdPolicy, Privacy, Session, SessionLayer, SessionPropagator, SessionTracerProvider,
    mark_trace, session, set_session_id, set_user_id, user,
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

fn both(policy: IdPolicy) -> Privacy {
    Privacy::new()
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
    let sdk = SdkTracerProvider::builder().with_batch_exporter(exporter);
    let provider = SessionTracerProvider::new(sdk.build())
        .with_dialect(dialect)
        .with_privacy(privacy);
    let otel = tracing_opentelemetry::layer().with_tracer(provider.tracer("app"));
    let diagnostics = Diagnostics::default();
    let layer = layer(SessionLayer::new().with_user_fields(["user.id", "customer"]));
    let layer = layer.with_filter(LevelFilter::INFO).around(otel);
    let subscriber = tracing_subscriber::registry().with(layer);
    let dispatch = Dispatch::new(subscriber.with(diagnostics.clone()));
    tracing::dispatcher::with_default(&dispatch, || work(&provider));
    provider.force_flush().unwrap();
    provider.shutdown().unwrap();
    let bytes = receiver.bodies.lock().unwrap().concat();
    assert!(!bytes.is_empty(), "nothing was sent");
    Sent {
        bytes,
        said: diagnostics.said(),
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

#[instrument(fields(session.id, user.id))]
fn handle() {
    Span::current()
        .record("session.id", CHAT)
        .record("user.id", USER);
    below();
}

/// Every way in which an id gets onto spans.
const WAYS: &[(&str, &Work<'static>)] = &[
    ("session!", &|_| session!(conversation()).in_scope(below)),
    ("user!", &|_| {
        session!(CHAT).in_scope(|| user!(USER).in_scope(below))
    }),
    ("span with the field id", &|_| {
        info_span!("session", id = CHAT)
            .in_scope(|| info_span!("user", id = %USER).in_scope(below));
    }),
    ("quoted", &|_| {
        info_span!("session", id = ?CHAT)
            .in_scope(|| info_span!("user", id = ?USER).in_scope(below));
        info_span!("request", session.id = ?CHAT, user.id = ?USER).in_scope(below);
    }),
    ("with spaces", &|_| {
        info_span!("request", session.id = %format!(" {CHAT} "), user.id = ?format!("{USER}\t"))
            .in_scope(below);
    }),
    ("recorded late", &|_| handle()),
    ("recorded twice", &|_| {
        let span = info_span!("request", session.id = CHAT, user.id = USER);
        span.in_scope(below);
        span.record("session.id", "another")
            .record("user.id", "another");
    }),
    ("value", &|_| conversation().in_scope(below)),
    ("spans of OpenTelemetry", &|provider| {
        let tracer = provider.tracer("library");
        conversation().in_scope(|| tracer.in_span("library", |_| below()));
    }),
    ("own, in a builder", &|provider| {
        let tracer = provider.tracer("library");
        let builder = tracer.span_builder("library");
        let own = [
            KeyValue::new("session.id", CHAT),
            KeyValue::new("user.id", USER),
        ];
        builder.with_attributes(own).start(&tracer).end();
    }),
    ("own, later", &|provider| {
        let mut span = provider.tracer("library").start("library");
        span.set_attribute(KeyValue::new("session.id", CHAT));
        span.set_attribute(KeyValue::new("user.id", USER));
        span.set_attribute(KeyValue::new("user.id", format!(" {USER}")));
        span.end();
    }),
    ("own, before the start", &|_| {
        set_own(
            &info_span!("span"),
            &[("session.id", CHAT), ("user.id", USER)],
        );
    }),
    ("own, in another session", &|_| {
        let other = Session::new("another").unwrap().with_user("another");
        other.unwrap().in_scope(|| {
            let span = info_span!("span").entered();
            set_own(&span, &[("session.id", CHAT), ("user.id", USER)]);
        });
    }),
    ("default session", &|_| below()),
    ("set on the current span", &|_| {
        info_span!("handler").in_scope(|| {
            set_session_id(CHAT).unwrap();
            set_user_id(USER).unwrap();
            below();
        });
    }),
    ("marked", &|_| {
        info_span!("request")
            .in_scope(|| conversation().in_scope(|| info_span!("handler").in_scope(mark)));
    }),
    ("hidden span", &|_| {
        debug_span!("session", id = CHAT, user.id = USER).in_scope(|| {
            below();
            debug_span!("user", id = USER).in_scope(below);
        });
    }),
    ("other fields", &|_| {
        conversation().in_scope(|| {
            info_span!("span", user = USER, session = CHAT, who = USER, chat = ?CHAT, late = Empty)
                .record("late", display(USER));
        });
    }),
    ("attribute of the same value", &|provider| {
        let tracer = provider.tracer("library");
        conversation().in_scope(|| {
            let builder = tracer.span_builder("library");
            let own = [KeyValue::new("enduser.id", USER)];
            let mut span = builder.with_attributes(own).start(&tracer);
            span.set_attribute(KeyValue::new("thread", CHAT));
            span.set_attribute(KeyValue::new("user", USER));
            span.end();
        });
    }),
    ("field of one's own", &|_| {
        info_span!("request", customer = USER).in_scope(below);
        info_span!("request", customer = ?USER).in_scope(below);
        info_span!("request", customer = Empty)
            .record("customer", USER)
            .in_scope(below);
    }),
    ("blank, too long", &|_| {
        let long = USER.repeat(200);
        info_span!("request", user.id = %long, session.id = %long).in_scope(below);
        let span = info_span!("span");
        span.set_attribute("user.id", long);
        span.set_attribute("session.id", format!("{CHAT}\n{USER}"));
    }),
    ("error", &|_| {
        info_span!("handler").in_scope(|| {
            set_session_id(format!("{CHAT}\n{USER}")).unwrap_err();
        });
    }),
];

fn mark() {
    mark_trace().unwrap();
}

/// The same, where the id is known only after the attribute was set, or is no longer that of the span.
const LATER: &[(&str, &Work<'static>)] = &[
    ("other field before the user is known", &|_| {
        let span = info_span!(
            "request",
            who = USER,
            chat = CHAT,
            session.id = Empty,
            user.id = Empty
        );
        let _entered = span.enter();
        info_span!("inside", who = USER).in_scope(|| {
            Span::current().record("who", USER);
            span.record("user.id", USER).record("session.id", CHAT);
        });
    }),
    ("other field, then set_user_id", &|_| {
        info_span!("request", who = USER, chat = CHAT).in_scope(|| {
            set_user_id(USER).unwrap();
            set_session_id(CHAT).unwrap();
        });
    }),
    ("other field, then marked", &|_| {
        info_span!("request", who = USER)
            .in_scope(|| conversation().in_scope(|| info_span!("handler").in_scope(mark)));
    }),
    ("own id beside the inherited one", &|_| {
        conversation().in_scope(|| {
            let span = info_span!("span", who = USER, chat = CHAT);
            set_own(&span, &[("user.id", "another"), ("session.id", "another")]);
        });
    }),
    ("field of one's own, then another user", &|_| {
        info_span!("request", customer = USER).in_scope(|| set_user_id("another").unwrap());
        let span = info_span!("request", customer = USER);
        span.set_attribute("user.id", "another");
    }),
    ("field of one's own, twice", &|_| {
        info_span!("request", customer = USER).record("customer", "another");
    }),
    ("attribute of the session", &|_| {
        let session = conversation().with_attribute("who", USER).unwrap();
        let session = session.with_attribute("langfuse.session.id", CHAT).unwrap();
        session.in_scope(below);
    }),
    ("attribute of a session around", &|_| {
        let outer = Session::default().with_attribute("who", USER).unwrap();
        outer.in_scope(|| conversation().in_scope(below));
    }),
];

fn leaking(ways: &[(&str, &Work<'_>)]) -> Vec<String> {
    let mut leaking = Vec::new();
    let all = [
        Dialect::GEN_AI,
        Dialect::LANGFUSE,
        Dialect::LANGSMITH,
        Dialect::MLFLOW,
        Dialect::TRACELOOP,
        Dialect::POSTHOG,
        Dialect::WEAVE,
        Dialect::MIRASCOPE,
        Dialect::TRACECTRL,
    ];
    let all = all.into_iter().fold(Dialect::OPENINFERENCE, Dialect::and);
    for (name, work) in ways {
        for (way, policy, dialect) in [
            ("hashed", hashed(), Dialect::OPENINFERENCE),
            ("omitted", IdPolicy::omitted(), Dialect::OPENINFERENCE),
            ("hashed, in all dialects", hashed(), all.clone()),
            ("hashed, in one without users", hashed(), Dialect::GEN_AI),
        ] {
            let privacy = both(policy);
            let shown = format!("{name}, {way}");
            let layer = |layer: SessionLayer| match *name {
                "default session" => layer.with_default_session(conversation()),
                _ => layer,
            };
            let sent = sent(privacy, dialect, layer, work);
            for id in [USER, CHAT] {
                if sent.has(id) {
                    leaking.push(format!("{shown}: {id}"));
                }
            }
        }
    }
    leaking
}

#[test]
fn no_id_is_sent_whoever_set_it() {
    // So that the test could fail: everything is there, were it not hidden.
    for (name, work) in WAYS.iter().chain(LATER) {
        let layer = |layer: SessionLayer| match *name {
            "default session" => layer.with_default_session(conversation()),
            _ => layer,
        };
        let sent = sent(Privacy::new(), Dialect::OPENINFERENCE, layer, work);
        let is_sent = sent.has(USER) || sent.has(CHAT);
        let has_no_id = ["blank, too long", "error"].contains(name);
        assert_eq!(is_sent, !has_no_id, "{name}: {:?}", sent.attributes());
    }
    assert_eq!(leaking(WAYS), [""; 0]);
}

#[test]
fn no_id_is_sent_whenever_it_became_known() {
    assert_eq!(leaking(LATER), [""; 0]);
}

#[test]
fn integer_ids_are_hidden() {
    let ways: &[&Work<'_>] = &[
        &|_| user!(NUMBER).in_scope(below),
        &|_| info_span!("user", id = NUMBER).in_scope(below),
        &|_| info_span!("request", customer = NUMBER).in_scope(below),
        &|_| {
            info_span!("request", user.id = Empty)
                .record("user.id", NUMBER)
                .in_scope(below)
        },
        &|_| {
            let span = info_span!("span");
            span.set_attribute("user.id", NUMBER);
        },
        &|provider| {
            let mut span = provider.tracer("library").start("library");
            span.set_attribute(KeyValue::new("langfuse.user.id", NUMBER));
            span.end();
        },
    ];
    for (way, work) in ways.iter().enumerate() {
        let sent = sent(both(hashed()), Dialect::OPENINFERENCE, |it| it, *work);
        assert!(!sent.has_number(), "{way}: {:?}", sent.attributes());
        assert!(sent.has(NUMBER_HASH), "{way}: {:?}", sent.attributes());
    }
}

#[test]
fn keys_that_libraries_set_for_any_dialect_are_hidden() {
    let of_user = [
        "user.id",
        "langfuse.user.id",
        "langsmith.metadata.user_id",
        "traceloop.association.properties.user_id",
        "posthog.distinct_id",
        "posthogDistinctId",
    ];
    let of_session = [
        "session.id",
        "gen_ai.conversation.id",
        "langfuse.session.id",
        "langsmith.metadata.thread_id",
        "traceloop.association.properties.session_id",
        "$ai_session_id",
        "sessionId",
        "wandb.thread_id",
        "weave.conversation.id",
        "mirascope.ops.session.id",
        "tracectrl.session_id",
    ];
    // In no session: nothing but the key tells.
    let work: &Work<'_> = &|provider| {
        let mut span = provider.tracer("library").start("library");
        for key in of_user {
            span.set_attribute(KeyValue::new(key, USER));
        }
        for key in of_session {
            span.set_attribute(KeyValue::new(key, CHAT));
        }
        span.end();
    };
    for dialect in [
        Dialect::OPENINFERENCE,
        Dialect::LANGFUSE,
        Dialect::TRACECTRL,
    ] {
        let omitted = sent(both(IdPolicy::omitted()), dialect.clone(), |it| it, work);
        assert!(!omitted.has(USER) && !omitted.has(CHAT));
        let hashes = sent(both(hashed()), dialect, |it| it, work);
        assert!(!hashes.has(USER) && !hashes.has(CHAT));
        for key in &of_user[1..] {
            assert_eq!(hashes.texts(key), [USER_HASH], "{key}");
        }
        for key in &of_session[1..] {
            assert_eq!(hashes.texts(key), [CHAT_HASH], "{key}");
        }
    }
}

#[test]
fn hash_stands_under_the_keys_of_the_dialect_and_as_user_hash() {
    let work: &Work<'_> = &|_| conversation().in_scope(below);
    let hashes = sent(both(hashed()), Dialect::OPENINFERENCE, |it| it, work);
    assert_eq!(hashes.texts("user.hash"), [USER_HASH]);
    assert_eq!(hashes.texts("session.id"), [CHAT_HASH]);
    assert_eq!(hashes.texts("user.id"), [""; 0]);
    let both_dialects = Dialect::OPENINFERENCE.and(Dialect::LANGFUSE);
    let hashes = sent(both(hashed()), both_dialects, |it| it, work);
    assert_eq!(hashes.texts("user.hash"), [USER_HASH]);
    assert_eq!(hashes.texts("langfuse.user.id"), [USER_HASH]);
    assert_eq!(hashes.texts("langfuse.session.id"), [CHAT_HASH]);
}

#[test]
fn user_hash_stands_once_whoever_else_says_one() {
    let ways: &[&Work<'_>] = &[
        &|_| {
            conversation().in_scope(|| {
                let span = info_span!("span");
                span.set_attribute("user.hash", "own");
            });
        },
        &|_| {
            let session = conversation().with_attribute("user.hash", "of the session");
            session.unwrap().in_scope(below);
        },
        // What a service in front brings, and who logs in here.
        &|_| {
            let headers = HashMap::from([("baggage".to_owned(), "user.hash=abc".to_owned())]);
            let cx = SessionPropagator::new().with_user(true).extract(&headers);
            let _attached = cx.attach();
            user!(USER).in_scope(|| {});
        },
    ];
    for (way, work) in ways.iter().enumerate() {
        let sent = sent(both(hashed()), Dialect::OPENINFERENCE, |it| it, *work);
        assert_eq!(
            sent.texts("user.hash").len(),
            1,
            "{way}: {:?}",
            sent.attributes()
        );
    }
}

// Metadata

#[test]
fn private_metadata_is_not_sent() {
    let ways: &[(&str, &Work<'_>)] = &[
        ("value", &|_| {
            let session = conversation().with_metadata("email", EMAIL).unwrap();
            session.in_scope(below);
            session!(session).in_scope(below);
        }),
        ("field", &|_| {
            session!(CHAT, metadata.email = EMAIL).in_scope(below);
            session!(CHAT, metadata.email = ?EMAIL).in_scope(below);
            session!(CHAT, metadata.email = Empty)
                .record("metadata.email", EMAIL)
                .in_scope(below);
        }),
        ("own", &|provider| {
            for session in [Session::default(), conversation()] {
                session.in_scope(|| {
                    info_span!("span", metadata.email = EMAIL).in_scope(|| {});
                    let mut span = provider.tracer("library").start("library");
                    let json = format!(r#"{{"email":"{EMAIL}","plan":"pro"}}"#);
                    span.set_attribute(KeyValue::new("metadata", json));
                    span.end();
                });
            }
        }),
        ("marked", &|_| {
            let session = conversation().with_metadata("email", EMAIL).unwrap();
            info_span!("request")
                .in_scope(|| session.in_scope(|| info_span!("handler").in_scope(mark)));
        }),
    ];
    let dialects = [
        Dialect::OPENINFERENCE,
        Dialect::LANGFUSE,
        Dialect::MIRASCOPE.and(Dialect::WEAVE),
        Dialect::OPENINFERENCE.and(Dialect::TRACELOOP),
    ];
    for (name, work) in ways {
        for dialect in &dialects {
            let omitted = sent(both(IdPolicy::omitted()), dialect.clone(), |it| it, *work);
            assert!(!omitted.has(EMAIL), "{name}: {:?}", omitted.attributes());
            let hashes = sent(both(hashed()), dialect.clone(), |it| it, *work);
            assert!(!hashes.has(EMAIL), "{name}: {:?}", hashes.attributes());
            assert!(hashes.has(EMAIL_HASH), "{name}: {:?}", hashes.attributes());
        }
    }
}

#[test]
fn private_metadata_that_a_library_sets_in_another_form_is_not_sent() {
    let ways: &[(&str, &Work<'_>)] = &[
        ("list", &|_| {
            let span = info_span!("span");
            let list = Value::Array(Array::String(vec![EMAIL.into()]));
            span.set_attribute("metadata.email", list);
        }),
        ("dialect", &|_| {
            let span = info_span!("span");
            span.set_attribute("langfuse.trace.metadata.email", EMAIL);
        }),
        ("dialect, one object", &|_| {
            let span = info_span!("span");
            let json = format!(r#"{{"email":"{EMAIL}"}}"#);
            span.set_attribute("mirascope.ops.session.attributes", json);
        }),
    ];
    let dialect = Dialect::LANGFUSE.and(Dialect::MIRASCOPE);
    let mut leaking = Vec::new();
    for (name, work) in ways {
        let sent = sent(both(IdPolicy::omitted()), dialect.clone(), |it| it, *work);
        if sent.has(EMAIL) {
            leaking.push(*name);
        }
    }
    assert_eq!(leaking, [""; 0]);
}

#[test]
fn private_metadata_of_any_type_is_hashed_as_its_json() {
    let work: &Work<'_> = &|_| {
        let session = conversation().with_metadata("number", NUMBER).unwrap();
        session
            .with_metadata("plan", "pro")
            .unwrap()
            .in_scope(below);
    };
    let sent = sent(both(hashed()), Dialect::OPENINFERENCE, |it| it, work);
    let expected = format!(r#"{{"number":"{NUMBER_HASH}","plan":"pro"}}"#);
    assert_eq!(sent.texts("metadata"), [expected]);
}

// Headers

#[test]
fn no_hidden_id_is_in_headers() {
    for policy in [hashed(), IdPolicy::omitted()] {
        let propagator = SessionPropagator::new()
            .with_user(true)
            .with_header("x-conversation")
            .unwrap()
            .with_privacy(both(policy));
        let baggage = [
            KeyValue::new("user.id", USER),
            KeyValue::new("session.id", CHAT),
            KeyValue::new("tenant", "acme"),
        ];
        let cx = Context::new().with_baggage(baggage);
        for session in [
            conversation(),
            Session::default(),
            Session::new("another").unwrap(),
        ] {
            let _attached = cx.clone().attach();
            let mut headers = HashMap::new();
            session.in_scope(|| propagator.inject(&mut headers));
            let all = format!("{headers:?}");
            assert!(!all.contains(USER) && !all.contains(CHAT), "{all}");
            assert!(all.contains("tenant=acme"), "{all}");
        }
    }
}

#[test]
fn no_hidden_id_is_in_baggage_of_the_application_under_another_name() {
    let propagator = SessionPropagator::new().with_privacy(both(hashed()));
    let baggage = [
        KeyValue::new("langfuse_user_id", USER),
        KeyValue::new("chat", CHAT),
    ];
    let _attached = Context::new().with_baggage(baggage).attach();
    let mut headers = HashMap::new();
    conversation().in_scope(|| propagator.inject(&mut headers));
    let all = format!("{headers:?}");
    assert!(!all.contains(USER) && !all.contains(CHAT), "{all}");
}

#[test]
fn hash_in_headers_is_that_on_spans_and_goes_on() {
    let front = SessionPropagator::new()
        .with_user(true)
        .with_privacy(both(hashed()));
    let mut headers = HashMap::new();
    conversation().in_scope(|| front.inject(&mut headers));
    let behind = SessionPropagator::new().with_user(true);
    let work: &Work<'_> = &|_| {
        let _attached = behind.extract(&headers).attach();
        below();
        let mut further = HashMap::new();
        behind.inject(&mut further);
        assert_eq!(further, headers);
    };
    let sent = sent(Privacy::new(), Dialect::OPENINFERENCE, |it| it, work);
    assert_eq!(sent.texts("user.hash"), [USER_HASH]);
    assert_eq!(sent.texts("session.id"), [CHAT_HASH]);
}

// Logs

#[test]
fn no_id_is_in_logs_that_do_not_say_it() {
    let exporter = InMemoryLogExporter::default();
    let logs = SdkLoggerProvider::builder().with_simple_exporter(exporter.clone());
    let logs = logs.build();
    let spans = SdkTracerProvider::builder().with_simple_exporter(InMemorySpanExporter::default());
    let provider = SessionTracerProvider::new(spans.build()).with_privacy(both(hashed()));
    let otel = tracing_opentelemetry::layer().with_tracer(provider.tracer("app"));
    let subscriber = tracing_subscriber::registry()
        .with(SessionLayer::new().around(otel))
        .with(OpenTelemetryTracingBridge::new(&logs));
    tracing::subscriber::with_default(subscriber, || {
        session!(conversation()).in_scope(|| tracing::info!("in the session"));
        conversation().in_scope(|| tracing::info!("in the value"));
        // What is said of mistakes is a log too.
        let wrong = format!("{USER}\n{CHAT}");
        info_span!("request", user.id = %wrong).in_scope(|| {});
        let span = info_span!("span");
        span.set_attribute("user.id", wrong);
        span.in_scope(|| {});
        drop(span);
        info_span!("at last").in_scope(|| {});
    });
    let logs = format!("{:?}", exporter.get_emitted_logs().unwrap());
    assert!(logs.contains("in the session") && logs.contains("in the value"));
    assert!(
        logs.contains("is ignored: id has a control character"),
        "{logs}"
    );
    assert!(!logs.contains(USER) && !logs.contains(CHAT), "{logs}");
}

// Hashes

fn hash_of(key: impl AsRef<[u8]>, id: &str) -> String {
    let exporter = InMemorySpanExporter::default();
    let sdk = SdkTracerProvider::builder().with_simple_exporter(exporter.clone());
    let privacy = Privacy::new().with_session_ids(IdPolicy::hashed(key).unwrap());
    let provider = SessionTracerProvider::new(sdk.build()).with_privacy(privacy);
    let tracer = provider.tracer("app");
    Session::new(id)
        .unwrap()
        .in_scope(|| tracer.start("span").end());
    let spans = exporter.get_finished_spans().unwrap();
    values(&spans[0], "session.id").concat()
}

#[test]
fn hash_is_hmac_sha_256() {
    // RFC 4231, of which the other cases have shorter keys, or texts that are no UTF-8.
    for (key, text, expected) in [
        (
            vec![0x0b; 20],
            "Hi There",
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
        ),
        (
            vec![0xaa; 131],
            "Test Using Larger Than Block-Size Key - Hash Key First",
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
        ),
        (
            vec![0xaa; 131],
            "This is a test using a larger than block-size key and a larger than block-size data. \
             The key needs to be hashed before being used by the HMAC algorithm.",
            "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2",
        ),
    ] {
        assert_eq!(hash_of(key, text), expected);
    }
    let truncated = hash_of([0x0c; 20], "Test With Truncation");
    assert!(truncated.starts_with("a3b6167473100ee06e0c796c2955552b"));
    // openssl
    for (key, text, expected) in [
        (
            KEY.to_owned(),
            "u-7",
            "a491520f7c729e01a167b008a61adfa98983d3d626147f1e2a17ea19237d7096",
        ),
        (
            KEY.to_owned(),
            "é😀",
            "004fbbd046d426d3e3d965b8b1ae54a246081519dd4abd7c099323c1f1c2b6c6",
        ),
        (
            "k".repeat(200),
            "é😀",
            "8d189926f34957deb70f1249d87863d037557b8dffad06de7478e4f01b60b9bf",
        ),
    ] {
        assert_eq!(hash_of(key, text), expected);
    }
}

#[test]
fn every_way_to_say_an_id_has_the_same_hash() {
    let ways: &[&Work<'_>] = &[
        &|_| user!(USER).in_scope(|| {}),
        &|_| drop(info_span!("request", user.id = ?USER)),
        &|_| drop(info_span!("request", user.id = %format!(" {USER} "))),
        &|provider| {
            let mut span = provider.tracer("library").start("library");
            span.set_attribute(KeyValue::new("user.id", format!("{USER} ")));
            span.end();
        },
    ];
    for work in ways {
        let sent = sent(both(hashed()), Dialect::OPENINFERENCE, |it| it, *work);
        assert_eq!(sent.texts("user.hash"), [USER_HASH]);
    }
}

#[test]
fn short_key_is_an_error_that_does_not_show_it() {
    for key in ["", "fifteen-letters"] {
        let error = IdPolicy::hashed(key).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the key is too short: 16 random bytes are the least"
        );
        assert!(!error.is_invalid_id());
    }
    assert!(IdPolicy::hashed("sixteen-letters!").is_ok());
}

#[test]
fn debug_shows_no_key() {
    let privacy = both(hashed());
    let provider = SessionTracerProvider::new(SdkTracerProvider::default());
    let provider = provider.with_privacy(privacy.clone());
    let propagator = SessionPropagator::new().with_privacy(privacy.clone());
    let bytes = format!("{:?}", KEY.as_bytes());
    let bytes = bytes.trim_matches(['[', ']']);
    let tracer = provider.tracer("app");
    for shown in [
        format!("{:?}", hashed()),
        format!("{privacy:?} {privacy:#?}"),
        format!("{provider:?}"),
        format!("{propagator:?}"),
        format!("{tracer:?}"),
    ] {
        assert!(!shown.contains(KEY) && !shown.contains(bytes), "{shown}");
    }
}

#[test]
fn key_comes_from_the_environment() {
    let variables = [("USER_ID_KEY", KEY), ("SHORT_KEY", "short")];
    if !alone("key_comes_from_the_environment", &variables) {
        return;
    }
    let privacy = Privacy::new().with_user_ids(IdPolicy::hashed_from_env("USER_ID_KEY").unwrap());
    let work: &Work<'_> = &|_| user!(USER).in_scope(|| {});
    let sent = sent(privacy, Dialect::OPENINFERENCE, |it| it, work);
    assert_eq!(sent.texts("user.hash"), [USER_HASH]);
    let error = IdPolicy::hashed_from_env("SHORT_KEY").unwrap_err();
    assert_eq!(
        error.to_string(),
        "`SHORT_KEY`: the key is too short: 16 random bytes are the least"
    );
    let error = IdPolicy::hashed_from_env("NO_SUCH_KEY").unwrap_err();
    assert_eq!(
        error.to_string(),
        "`NO_SUCH_KEY`: the environment variable is not set"
    );
}

#[test]
fn several_providers_hide_each_in_its_own_way() {
    let provider = |privacy: Option<Privacy>| {
        let exporter = InMemorySpanExporter::default();
        let sdk = SdkTracerProvider::builder().with_simple_exporter(exporter.clone());
        let provider = SessionTracerProvider::new(sdk.build());
        let provider = match privacy {
            Some(privacy) => provider.with_privacy(privacy),
            None => provider,
        };
        (provider, exporter)
    };
    let other_key = IdPolicy::hashed("another key, as long as that").unwrap();
    let providers = [
        (provider(None), ["user.id"].as_slice()),
        (provider(Some(both(hashed()))), &["user.hash"]),
        (provider(Some(both(other_key))), &["user.hash"]),
        (provider(Some(both(IdPolicy::omitted()))), &[]),
    ];
    let session = conversation().with_metadata("email", EMAIL).unwrap();
    session.in_scope(|| {
        for _ in 0..2 {
            for ((provider, _), _) in &providers {
                provider.tracer("library").start("span").end();
            }
        }
    });
    let mut seen = Vec::new();
    for ((_, exporter), keys) in &providers {
        let spans = exporter.get_finished_spans().unwrap();
        assert_eq!(spans.len(), 2);
        for key in ["user.id", "user.hash"] {
            let values = values(&spans[1], key);
            assert_eq!(values.len(), usize::from(keys.contains(&key)), "{key}");
            seen.extend(values);
        }
        let plain = spans.iter().any(|span| format!("{span:?}").contains(EMAIL));
        assert_eq!(plain, *keys == ["user.id"]);
    }
    assert_eq!(seen.len(), 3);
    assert_eq!(seen[..2], [USER, USER_HASH]);
    assert_ne!(seen[2], USER_HASH);
}

#[test]
fn hash_is_the_same_on_all_threads() {
    let exporter = InMemorySpanExporter::default();
    let sdk = SdkTracerProvider::builder().with_simple_exporter(exporter.clone());
    let provider = SessionTracerProvider::new(sdk.build()).with_privacy(both(hashed()));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let tracer = provider.tracer("library");
                // One after the other, so that what is remembered is of the other one.
                for turn in 0..50 {
                    let user = if turn % 2 == 0 { USER } else { "another" };
                    let session = conversation().with_user(user).unwrap();
                    session.in_scope(|| tracer.start(user).end());
                }
            });
        }
    });
    let spans = exporter.get_finished_spans().unwrap();
    assert_eq!(spans.len(), 400);
    for span in spans {
        let is_user = values(&span, "user.hash") == [USER_HASH];
        assert_eq!(is_user, span.name == USER);
    }
}
