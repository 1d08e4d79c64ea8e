//! The set-up in one call, against a receiver over HTTP and over gRPC.

#![allow(unreachable_pub, reason = "the modules are parts of one test")]

mod environment;
mod propagation;
mod readme;
mod receiver;

use crate::support::{self, Diagnostics};
use opentelemetry::trace::Tracer;
use opentelemetry::{InstrumentationScope, global};
use receiver::Receiver;
use std::error::Error;
use std::net::{Ipv4Addr, TcpListener};
use std::panic::{self, AssertUnwindSafe};
use std::time::{Duration, Instant};
use tracing::{debug_span, info_span};
use tracing_session::otlp::{Pipeline, Protocol, Telemetry, pipeline};
use tracing_session::{
    Dialect, Privacy, Session, SessionLayer, current_session_id, export::IdPolicy,
};
use tracing_subscriber::prelude::*;

const PROTOCOLS: [Protocol; 2] = [Protocol::HttpProtobuf, Protocol::Grpc];

fn session() -> Session {
    Session::new("chat-42").unwrap().with_user("u-7").unwrap()
}

/// One span in a session.
fn answer() {
    session().in_scope(|| info_span!("answer").in_scope(|| tracing::info!("event")));
}

const ANSWER: &str = "answer chat-42 u-7";

/// With the layer on a subscriber of this thread, and what is said to its author.
fn build(pipeline: Pipeline) -> (Telemetry, Diagnostics, tracing::subscriber::DefaultGuard) {
    let diagnostics = Diagnostics::default();
    let (telemetry, layer) = pipeline.build().unwrap();
    let base = tracing_subscriber::registry().with(diagnostics.clone());
    (telemetry, diagnostics, base.with(layer).set_default())
}

/// Nobody listens there.
const DEAD: &str = "http://127.0.0.1:1";

const NOT_REACHED: &str = "no spans reach http://127.0.0.1:1 (Connection refused (os error 111)): start the backend, or set its address with \
     OTEL_EXPORTER_OTLP_ENDPOINT or `with_endpoint`";

fn everything_arrives(protocol: Protocol) {
    let receiver = Receiver::start();
    let telemetry = pipeline("my-app")
        .with_project("support-bot")
        .with_endpoint(receiver.url())
        .with_protocol(protocol)
        .with_header("x-tenant", "one")
        .with_header("X-Tenant", "two")
        .with_api_key("key")
        .install()
        .unwrap();
    session().in_scope(|| {
        let library = || global::tracer("library").in_span("library", |_| {});
        info_span!("answer").in_scope(library);
    });
    drop(telemetry);
    assert_eq!(receiver.spans(), ["library chat-42 u-7", ANSWER]);
    assert_eq!(receiver.resource("service.name"), "my-app");
    assert_eq!(
        receiver.resource("openinference.project.name"),
        "support-bot"
    );
    assert_eq!(receiver.header("authorization"), "Bearer key");
    assert_eq!(receiver.header("x-tenant"), "two");
}

#[test]
fn everything_arrives_over_http() {
    if support::alone(test_name!(), &[]) {
        everything_arrives(Protocol::HttpProtobuf);
    }
}

/// And where there is no runtime for it.
#[test]
fn everything_arrives_over_grpc() {
    if support::alone(test_name!(), &[]) {
        everything_arrives(Protocol::Grpc);
    }
}

#[test]
fn guard_sends_the_last_spans_wherever_it_is_dropped() {
    if !support::alone(test_name!(), &[]) {
        return;
    }
    let runtime = |mut builder: tokio::runtime::Builder| builder.enable_all().build().unwrap();
    let one_thread = runtime(tokio::runtime::Builder::new_current_thread());
    let threads = runtime(tokio::runtime::Builder::new_multi_thread());
    panic::set_hook(Box::new(|_| {}));
    type Place<'a> = (&'a str, &'a dyn Fn(&dyn Fn()));
    let places: [Place<'_>; 4] = [
        ("outside any runtime", &|app| app()),
        ("on a runtime of one thread", &|app| {
            one_thread.block_on(async { app() });
        }),
        ("on a runtime of several threads", &|app| {
            threads.block_on(async { app() });
        }),
        ("while a panic unwinds", &|app| {
            let panics = || {
                struct AtTheEnd<'a>(&'a dyn Fn());
                impl Drop for AtTheEnd<'_> {
                    fn drop(&mut self) {
                        assert!(std::thread::panicking());
                        (self.0)();
                    }
                }
                let _guard = AtTheEnd(app);
                panic!("of the application");
            };
            panic::catch_unwind(AssertUnwindSafe(panics)).unwrap_err();
        }),
    ];
    for (place, run) in places {
        for protocol in PROTOCOLS {
            let receiver = Receiver::start();
            let app = || {
                let pipeline = pipeline("my-app").with_endpoint(receiver.url());
                let (telemetry, diagnostics, _default) = build(pipeline.with_protocol(protocol));
                answer();
                drop(telemetry);
                assert_eq!(diagnostics.messages(), [""; 0], "{place}, {protocol:?}");
            };
            run(&app);
            assert_eq!(receiver.spans(), [ANSWER], "{place}, {protocol:?}");
        }
    }
}

#[test]
fn spans_that_do_not_arrive_are_an_error_of_shutdown_and_flush() {
    let receiver = Receiver::start();
    let mut errors = Vec::new();
    for protocol in PROTOCOLS {
        let pipeline = pipeline("my-app").with_endpoint(DEAD);
        let (telemetry, _, _default) = build(pipeline.with_protocol(protocol));
        answer();
        assert!(format!("{telemetry:?}").starts_with("Telemetry"));
        let flushed = telemetry.force_flush().unwrap_err();
        assert!(flushed.is_export_failed() && !flushed.is_invalid_setting());
        telemetry.force_flush().unwrap();
        answer();
        let error = telemetry.shutdown().unwrap_err();
        assert_eq!(
            error.to_string(),
            "not all spans were exported (see the error's source)"
        );
        assert!(error.source().is_some());
        assert_eq!(error, error.clone());
        errors.push(error);
    }
    let refused = receiver.url() + "/refused";
    let (telemetry, _, _default) = build(pipeline("my-app").with_endpoint(refused));
    answer();
    let error = telemetry.shutdown().unwrap_err();
    assert!(errors.iter().all(|other| error != *other), "{error:?}");
}

#[test]
fn guard_warns_the_subscriber_that_spans_did_not_arrive() {
    let receiver = Receiver::start();
    let url = receiver.url();
    for (protocol, endpoint, expected) in [
        (PROTOCOLS[0], DEAD, NOT_REACHED),
        (PROTOCOLS[1], DEAD, NOT_REACHED),
        (
            PROTOCOLS[0],
            &(receiver.url() + "/refused"),
            &format!(
                "the backend at {url} refuses the spans (status code: 401): check the path of the endpoint, and the \
                 key that `with_api_key` or `with_header` sends"
            ),
        ),
    ] {
        let pipeline = pipeline("my-app").with_endpoint(endpoint);
        let (telemetry, diagnostics, _default) = build(pipeline.with_protocol(protocol));
        for _ in 0..2 {
            answer();
            telemetry.force_flush().unwrap_err();
        }
        answer();
        drop(telemetry);
        assert_eq!(diagnostics.messages(), [expected]);
    }
}

#[test]
fn guard_warns_on_standard_error_that_spans_did_not_arrive_without_a_subscriber() {
    if let Some(said) = support::output_alone(test_name!(), &[]) {
        let line = format!("\ntracing-session: {NOT_REACHED}\n");
        assert_eq!(said.matches(&line).count(), 1, "{said}");
        return;
    }
    let (telemetry, layer) = pipeline("my-app").with_endpoint(DEAD).build().unwrap();
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), answer);
    drop(telemetry);
}

#[test]
fn installed_subscriber_shows_why_spans_do_not_arrive() {
    for protocol in ["http/protobuf", "grpc"] {
        let variables = [("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)];
        let Some(said) = support::output_alone(test_name!(), &variables) else {
            let telemetry = pipeline("my-app").with_endpoint(DEAD).install().unwrap();
            answer();
            tracing::error!(code = 7, "of the application");
            return drop(telemetry);
        };
        // These lines and no others.
        let is_event = |line: &&str| {
            let levels = ["ERROR", "WARN", "INFO", "DEBUG", "TRACE"];
            levels.iter().any(|level| line.starts_with(level)) || line.contains("xport")
        };
        let printed: Vec<_> = said.lines().filter(is_event).collect();
        let expected = [
            "INFO main::otlp: event",
            "ERROR main::otlp: of the application code=7",
            &format!("WARN tracing_session: {NOT_REACHED}"),
        ];
        assert_eq!(printed, expected, "{protocol}: {said}");
    }
}

/// Fewer than the spans after which the layer itself tells so.
#[test]
fn guard_warns_of_a_few_spans_with_another_field_in_a_process_without_a_session() {
    for (sets_session, expected) in [(false, 1), (true, 0)] {
        let variables: &[_] = if sets_session {
            &[("SETS_SESSION", "1")]
        } else {
            &[]
        };
        let Some(said) = support::output_alone(test_name!(), variables) else {
            let receiver = Receiver::start();
            let telemetry = pipeline("my-app").with_endpoint(receiver.url()).install();
            info_span!("login", user_id = "secret-7").in_scope(|| {});
            if std::env::var_os("SETS_SESSION").is_some() {
                answer();
            }
            return drop(telemetry);
        };
        let hint = "has a field `user_id`: if it identifies the user, use \
                    `SessionLayer::new().with_user_field(\"user_id\")`; otherwise ignore this\n";
        assert_eq!(said.matches(hint).count(), expected, "{said}");
        assert!(!said.contains("secret"), "{said}");
    }
}

#[test]
fn guard_gives_up_after_ten_seconds() {
    let hangs = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let endpoint = format!("http://{}", hangs.local_addr().unwrap());
    let (telemetry, diagnostics, _default) = build(pipeline("my-app").with_endpoint(endpoint));
    answer();
    let started = Instant::now();
    drop(telemetry);
    assert!(started.elapsed() < Duration::from_secs(12));
    assert_eq!(diagnostics.messages().len(), 1);
}

#[test]
fn guard_is_silent_after_the_provider_was_shut_down() {
    let receiver = Receiver::start();
    let (telemetry, diagnostics, _default) =
        build(pipeline("my-app").with_endpoint(receiver.url()));
    answer();
    telemetry.provider().shutdown().unwrap();
    drop(telemetry);
    assert_eq!(diagnostics.messages(), [""; 0]);
}

#[test]
fn guard_prints_the_share_of_spans_in_a_session() {
    let variables = [("OTEL_TRACES_EXPORTER", "none")];
    let Some(printed) = support::output_alone(test_name!(), &variables) else {
        let (telemetry, _, _default) = build(pipeline("app").with_coverage());
        answer();
        info_span!("outside").in_scope(|| {});
        drop(telemetry);
        return;
    };
    let share = "tracing-session: 50 % of 2 spans had a session; see";
    assert_eq!(printed.matches(share).count(), 1, "{printed}");
}

#[test]
fn second_install_is_an_error_and_leaves_the_first() {
    if !support::alone(test_name!(), &[]) {
        return;
    }
    let receiver = Receiver::start();
    let pipeline = || pipeline("my-app").with_endpoint(receiver.url());
    let telemetry = pipeline().install().unwrap();
    let error = pipeline().with_project("second").install().unwrap_err();
    assert!(error.is_subscriber_set());
    assert!(error.to_string().contains("build()"), "{error}");
    global::tracer_with_scope(InstrumentationScope::builder("library").build())
        .in_span("library", |_| {});
    answer();
    telemetry.shutdown().unwrap();
    assert_eq!(receiver.spans(), ["library - -", ANSWER]);
    assert_eq!(receiver.resource("openinference.project.name"), "-");
}

#[test]
fn path_is_appended_to_an_endpoint_that_does_not_have_it() {
    for path in ["", "/", "/v1/traces", "/v1/traces/"] {
        let receiver = Receiver::start();
        let endpoint = receiver.url() + path;
        let (telemetry, _, _default) = build(pipeline("my-app").with_endpoint(endpoint));
        answer();
        telemetry.shutdown().unwrap();
        assert_eq!(receiver.spans(), [ANSWER], "{path}");
    }
}

#[test]
fn layer_of_the_application_reads_sessions() {
    let receiver = Receiver::start();
    let layer = SessionLayer::new().with_session_span("conversation");
    let pipeline = pipeline("my-app").with_endpoint(receiver.url());
    let (telemetry, _, _default) = build(pipeline.with_layer(layer));
    info_span!("conversation", id = "chat-42").in_scope(|| {
        assert_eq!(current_session_id().as_deref(), Some("chat-42"));
    });
    telemetry.shutdown().unwrap();
    assert_eq!(receiver.spans(), ["conversation chat-42 -"]);
}

#[test]
fn dialect_and_privacy_apply() {
    let receiver = Receiver::start();
    // The one under the key of the other, to be seen here.
    let dialect = Dialect::new().with_user_key("session.id");
    let pipeline = pipeline("my-app")
        .with_endpoint(receiver.url())
        .with_dialect(dialect.with_session_key("user.id"))
        .with_privacy(Privacy::new().with_session_ids(IdPolicy::omitted()));
    let (telemetry, _, _default) = build(pipeline);
    answer();
    telemetry.shutdown().unwrap();
    assert_eq!(receiver.spans(), ["answer u-7 -"]);
}

/// Neither is lost in silence: the receiver has no certificate.
#[cfg(feature = "otlp-tls")]
#[test]
fn unreachable_https_endpoint_is_reported() {
    let receiver = Receiver::start();
    for protocol in PROTOCOLS {
        let endpoint = receiver.url().replace("http:", "https:");
        let pipeline = pipeline("my-app").with_endpoint(endpoint);
        let (telemetry, diagnostics, _default) = build(pipeline.with_protocol(protocol));
        answer();
        drop(telemetry);
        assert_eq!(
            diagnostics.messages().len(),
            1,
            "{:?}",
            diagnostics.messages()
        );
    }
    assert_eq!(receiver.spans(), [""; 0]);
}

#[test]
fn levels_below_info_are_not_exported() {
    if !support::alone(test_name!(), &[]) {
        return;
    }
    let receiver = Receiver::start();
    let pipeline = pipeline("my-app").with_endpoint(receiver.url());
    let telemetry = pipeline.install().unwrap();
    debug_span!("below").in_scope(answer);
    telemetry.shutdown().unwrap();
    assert_eq!(receiver.spans(), [ANSWER]);
}

#[test]
fn debug_output_has_no_key_and_no_endpoint() {
    let pipeline = pipeline("my-app")
        .with_endpoint("http://name:secret@127.0.0.1:1")
        .with_header("x-key", "secret")
        .with_api_key("secret");
    assert!(!format!("{pipeline:?}").contains("secret"));
    let (telemetry, diagnostics, _default) = build(pipeline);
    answer();
    assert!(!format!("{telemetry:?}").contains("secret"));
    let error = telemetry.shutdown().unwrap_err();
    assert!(!format!("{error:?} {:?}", error.source()).contains("secret"));
    assert!(!diagnostics.messages().concat().contains("secret"));
    for invalid in ["x key", "x-key"] {
        let pipeline = tracing_session::otlp::pipeline("my-app");
        let built = pipeline.with_header(invalid, "secret\n").install();
        let error = built.unwrap_err();
        assert!(error.is_invalid_setting());
        assert!(
            error.to_string().starts_with(&format!("`{invalid}`: ")),
            "{error}"
        );
        assert!(!format!("{error:?}").contains("secret"));
    }
}
