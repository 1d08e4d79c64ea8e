//! What the environment says, and what the code says of the same.

use crate::otlp::receiver::Receiver;
use crate::otlp::{ANSWER, DEAD, answer, session};
use crate::support;
use opentelemetry_sdk::trace::Sampler;
use std::collections::HashMap;
use tracing::{debug_span, trace_span};
use tracing_session::otlp::{Protocol, pipeline};
use tracing_session::{Conversation, Session, current_session_id, propagation::inject_context};
use tracing_subscriber::layer::SubscriberExt;

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const TRACES_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
const PROTOCOL: &str = "OTEL_EXPORTER_OTLP_PROTOCOL";
const TRACES_PROTOCOL: &str = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL";
const HEADERS: &str = "OTEL_EXPORTER_OTLP_HEADERS";
const TIMEOUT: &str = "OTEL_EXPORTER_OTLP_TIMEOUT";
const SERVICE: &str = "OTEL_SERVICE_NAME";
const RESOURCE: &str = "OTEL_RESOURCE_ATTRIBUTES";
pub(super) const EXPORTER: &str = "OTEL_TRACES_EXPORTER";
const DISABLED: &str = "OTEL_SDK_DISABLED";
const QUEUE: &str = "OTEL_BSP_MAX_QUEUE_SIZE";
const LEVELS: &str = "RUST_LOG";
const OF_THE_ENVIRONMENT: [(&str, &str); 3] = [
    (HEADERS, "authorization=Bearer%20environment,x-more=more"),
    (SERVICE, "environment"),
    (
        RESOURCE,
        "openinference.project.name=environment,more=more,service.name=ignored",
    ),
];

#[test]
fn environment_applies_where_the_code_sets_nothing() {
    let test = test_name!();
    for protocol in ["http/protobuf", "GRPC", ""] {
        let receiver = Receiver::start();
        let url = receiver.url();
        let endpoint = [
            (ENDPOINT, &*url),
            (PROTOCOL, protocol),
            (TIMEOUT, "5000"),
            (QUEUE, "1000000"),
        ];
        if support::alone(test, &[&endpoint[..], &OF_THE_ENVIRONMENT].concat()) {
            let telemetry = pipeline(" ").with_api_key(" ").install().unwrap();
            answer();
            return telemetry.shutdown().unwrap();
        }
        assert_eq!(receiver.spans(), [ANSWER], "{protocol}");
        assert_eq!(receiver.header("authorization"), "Bearer environment");
        assert_eq!(receiver.resource("service.name"), "environment");
        let project = receiver.resource("openinference.project.name");
        assert_eq!(project, "environment");
    }
}

#[test]
fn code_wins_over_the_environment() {
    let test = test_name!();
    for (name, protocol, other) in [
        ("http", Protocol::HttpProtobuf, "grpc"),
        ("grpc", Protocol::Grpc, "http/protobuf"),
    ] {
        let receiver = Receiver::start();
        let url = receiver.url();
        let case = [
            ("CASE", name),
            ("URL", &url),
            (ENDPOINT, DEAD),
            (TRACES_ENDPOINT, DEAD),
            (PROTOCOL, other),
            (TRACES_PROTOCOL, other),
            ("OTEL_TRACES_SAMPLER", "always_off"),
        ];
        if support::alone(test, &[&case[..], &OF_THE_ENVIRONMENT].concat()) {
            let protocol = match std::env::var("CASE").unwrap() == name {
                true => protocol,
                false => continue,
            };
            let telemetry = pipeline("my-app")
                .with_project("support-bot")
                .with_endpoint(std::env::var("URL").unwrap())
                .with_protocol(protocol)
                .with_api_key("key")
                .with_sampler(Sampler::AlwaysOn)
                .install()
                .unwrap();
            answer();
            return telemetry.shutdown().unwrap();
        }
        assert_eq!(receiver.spans(), [ANSWER]);
        assert_eq!(receiver.resource("service.name"), "my-app");
        let project = receiver.resource("openinference.project.name");
        assert_eq!(project, "support-bot");
        assert_eq!(receiver.header("authorization"), "Bearer key");
        assert_eq!(receiver.header("x-more"), "more");
        assert_eq!(receiver.resource("more"), "more");
    }
}

#[test]
fn variables_about_traces_win_over_the_general_ones() {
    let test = test_name!();
    let receiver = Receiver::start();
    let url = receiver.url() + "/v1/traces";
    let variables = [
        (ENDPOINT, DEAD),
        (TRACES_ENDPOINT, &url),
        (PROTOCOL, "grpc"),
        (TRACES_PROTOCOL, "http/protobuf"),
    ];
    if support::alone(test, &variables) {
        let telemetry = pipeline("my-app").install().unwrap();
        answer();
        return telemetry.shutdown().unwrap();
    }
    assert_eq!(receiver.spans(), [ANSWER]);
}

/// The headers that are written here.
fn headers() -> Vec<String> {
    let mut headers: HashMap<String, String> = HashMap::new();
    inject_context(&mut headers);
    let mut names: Vec<_> = headers.into_keys().collect();
    names.sort();
    names
}

#[test]
fn disabled_sdk_creates_no_spans_and_propagates_the_session() {
    let test = test_name!();
    let receiver = Receiver::start();
    let url = receiver.url();
    if support::alone(
        test,
        &[(DISABLED, "True"), (ENDPOINT, &url), (PROTOCOL, "?")],
    ) {
        let pipeline = pipeline("my-app").with_session_propagation();
        let telemetry = pipeline.install().unwrap();
        session().in_scope(|| {
            tracing::info_span!("answer").in_scope(|| {
                assert_eq!(current_session_id().as_deref(), Some("chat-42"));
                assert_eq!(headers(), ["baggage"]);
            });
        });
        tracing_session::session!("chat-43").in_scope(|| {
            assert_eq!(current_session_id().as_deref(), Some("chat-43"));
        });
        let tracer = opentelemetry::global::tracer("library");
        opentelemetry::trace::Tracer::in_span(&tracer, "library", |_| {
            assert_eq!(headers(), [""; 0]);
        });
        return telemetry.shutdown().unwrap();
    }
    assert_eq!(receiver.spans(), [""; 0]);
}

#[test]
fn no_exporter_creates_spans_without_exporting_them() {
    let test = test_name!();
    let receiver = Receiver::start();
    let url = receiver.url();
    if support::alone(test, &[(EXPORTER, "none"), (ENDPOINT, &url)]) {
        let pipeline = pipeline("my-app").with_session_propagation();
        let telemetry = pipeline.install().unwrap();
        session().in_scope(|| {
            let expected = ["baggage", "traceparent", "tracestate"];
            tracing::info_span!("answer").in_scope(|| assert_eq!(headers(), expected));
        });
        return telemetry.shutdown().unwrap();
    }
    assert_eq!(receiver.spans(), [""; 0]);
}

#[test]
fn invalid_variable_is_an_error_that_lists_the_valid_values() {
    const URL: &str = "the endpoint is not a URL such as http://localhost:4318";
    let cases = [
        (
            PROTOCOL,
            "http/json",
            "`http/json`: no such value (valid: http/protobuf, grpc)",
        ),
        (
            EXPORTER,
            "console",
            "`console`: no such value (valid: otlp, none)",
        ),
        (
            TIMEOUT,
            "10s",
            "`10s`: no such value (valid: a number of milliseconds)",
        ),
        (
            QUEUE,
            "1000001",
            "`1000001`: no such value (valid: a number of spans up to 1000000)",
        ),
        (
            ENDPOINT,
            "localhost:16006",
            "`http://localhost:16006`: use this URL, because your endpoint has no scheme",
        ),
        (
            TRACES_ENDPOINT,
            "phoenix.internal:6006/v1/traces",
            "`http://phoenix.internal:6006`: use this URL, because your endpoint has no scheme",
        ),
        (
            ENDPOINT,
            "secret",
            "`http://localhost:4318`: use this URL, because your endpoint has no scheme",
        ),
        (ENDPOINT, "http://", URL),
        (TRACES_ENDPOINT, "ftp://localhost", URL),
        (TRACES_ENDPOINT, "http://local host", URL),
        #[cfg(not(feature = "otlp-tls"))]
        (
            ENDPOINT,
            "https://localhost",
            "an https endpoint needs the feature `otlp-tls`: run `cargo add tracing-session --features otlp-tls`",
        ),
    ];
    let test = test_name!();
    for (variable, value, expected) in cases {
        if support::alone(
            test,
            &[(variable, value), ("TEXT", expected), ("NAME", variable)],
        ) {
            let error = pipeline("my-app").install().unwrap_err();
            assert!(error.is_invalid_setting() && !error.is_subscriber_set());
            let [name, text] = ["NAME", "TEXT"].map(|name| std::env::var(name).unwrap());
            assert_eq!(error.to_string(), format!("{name}: {text}"));
            // Nothing was set up.
            let other = tracing_subscriber::registry();
            tracing::subscriber::set_global_default(other).unwrap();
            return;
        }
    }
}

/// A password may stand in it.
#[test]
fn error_does_not_contain_an_invalid_endpoint() {
    for protocol in [Protocol::HttpProtobuf, Protocol::Grpc] {
        for endpoint in [
            "http://",
            "http://u:secret@local host",
            "ftp://u:secret@localhost",
        ] {
            let pipeline = pipeline("my-app").with_endpoint(endpoint);
            let error = pipeline.with_protocol(protocol).install().unwrap_err();
            assert!(error.is_invalid_setting());
            assert_eq!(
                format!("{error:?}"),
                "Error(\"the endpoint is not a URL such as http://localhost:4318\")"
            );
        }
    }
}

#[test]
fn warnings_of_opentelemetry_are_printed() {
    let test = test_name!();
    let variables = [
        ("OTEL_TRACES_SAMPLER", "sometimes"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "brotli"),
    ];
    let Some(said) = support::output_alone(test, &variables) else {
        return drop(pipeline("my-app").install().unwrap());
    };
    for expected in [
        "Unrecognized sampler type 'sometimes'",
        "unsupported compression algorithm 'brotli'",
    ] {
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn unknown_propagator_is_an_error() {
    if support::alone(test_name!(), &[("OTEL_PROPAGATORS", "xray")]) {
        let error = pipeline("my-app").install().unwrap_err();
        assert!(error.is_unknown_propagator());
    }
}

#[cfg(not(feature = "otlp-tls"))]
#[test]
fn https_without_tls_is_an_error_over_grpc_too() {
    let pipeline = pipeline("my-app").with_endpoint("HTTPS://localhost");
    let built = pipeline.with_protocol(Protocol::Grpc).install();
    let error = built.unwrap_err();
    assert!(error.to_string().contains("otlp-tls"), "{error}");
}

#[test]
fn endpoint_in_the_code_without_a_scheme_is_an_error_with_an_example() {
    for (protocol, endpoint, shown) in [
        (Protocol::HttpProtobuf, "localhost:16006", "localhost:16006"),
        (Protocol::Grpc, " localhost:16006/", "localhost:16006"),
        (Protocol::Grpc, "u:secret@localhost:1", "localhost:4318"),
        (
            Protocol::HttpProtobuf,
            "u:secret@localhost:1",
            "localhost:4318",
        ),
    ] {
        let pipeline = pipeline("my-app").with_endpoint(endpoint);
        let error = pipeline.with_protocol(protocol).install().unwrap_err();
        assert!(error.is_invalid_setting());
        let expected =
            format!("`http://{shown}`: use this URL, because your endpoint has no scheme");
        assert_eq!(error.to_string(), expected);
    }
}

/// It tries to speak TLS with a receiver that has none.
#[cfg(feature = "otlp-tls")]
#[test]
fn endpoint_over_grpc_without_a_scheme_is_secure() {
    let test = test_name!();
    let insecure = ("OTEL_EXPORTER_OTLP_INSECURE", "false");
    if !support::alone(test, &[insecure]) {
        return;
    }
    let receiver = Receiver::start();
    let url = receiver.url();
    let endpoint = url.strip_prefix("http://").unwrap();
    let pipeline = pipeline("my-app").with_endpoint(endpoint);
    let (telemetry, layer) = pipeline.with_protocol(Protocol::Grpc).build().unwrap();
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), answer);
    assert!(telemetry.shutdown().unwrap_err().is_export_failed());
    assert_eq!(receiver.spans(), [""; 0]);
}

#[cfg(unix)]
#[test]
fn endpoint_over_grpc_may_be_a_socket_of_this_machine() {
    let socket = std::env::temp_dir().join(format!("tracing-session.{}", std::process::id()));
    let receiver = Receiver::start_at(&socket);
    let pipeline = pipeline("my-app").with_endpoint(receiver.url());
    let (telemetry, layer) = pipeline.with_protocol(Protocol::Grpc).build().unwrap();
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), answer);
    telemetry.shutdown().unwrap();
    assert_eq!(receiver.spans(), [ANSWER]);
    std::fs::remove_file(socket).unwrap();
}

#[test]
fn endpoint_over_grpc_without_a_scheme_is_insecure_if_the_environment_sets_it() {
    let test = test_name!();
    let receiver = Receiver::start();
    let url = receiver.url();
    let variables = [
        (ENDPOINT, url.strip_prefix("http://").unwrap()),
        (PROTOCOL, "grpc"),
        ("OTEL_EXPORTER_OTLP_INSECURE", "true"),
    ];
    if support::alone(test, &variables) {
        let telemetry = pipeline("my-app").install().unwrap();
        answer();
        return telemetry.shutdown().unwrap();
    }
    assert_eq!(receiver.spans(), [ANSWER]);
}

#[test]
fn levels_follow_the_environment() {
    const HERE: &str = "main::otlp::environment=debug";
    let test = test_name!();
    for (levels, expected) in [
        ("", &[ANSWER][..]),
        ("debug", &[ANSWER, "debug - -"]),
        ("warn", &[]),
        (HERE, &["debug - -"]),
        ("info,main::otlp::environment=debug", &[ANSWER, "debug - -"]),
        ("info,[span]=debug", &[ANSWER]),
        ("[span]=debug", &[ANSWER]),
        ("info,opentelemetry=debug", &[ANSWER]),
    ] {
        let receiver = Receiver::start();
        let url = receiver.url();
        let Some(said) = support::output_alone(test, &[(LEVELS, levels), (ENDPOINT, &url)]) else {
            let telemetry = pipeline("my-app").install().unwrap();
            debug_span!("debug").in_scope(|| {
                tracing::debug!("event");
                answer();
            });
            return telemetry.shutdown().unwrap();
        };
        assert_eq!(receiver.spans(), expected, "{levels}");
        let warning = "WARN tracing_session: RUST_LOG: `[span]=debug` is ignored";
        assert_eq!(said.contains(warning), levels.contains('['), "{said}");
        // The same events are printed, in no span.
        for (level, target) in [("DEBUG", "main::otlp::environment"), ("INFO", "main::otlp")] {
            let is_exported =
                |span: &&str| span.starts_with(if level == "INFO" { "answer" } else { "debug" });
            let line = format!("\n{level} {target}: event\n");
            let is_printed = expected.iter().any(is_exported);
            assert_eq!(said.contains(&line), is_printed, "{levels}: {said}");
        }
        let line = "WARN tracing_session: spans of the level INFO are not exported because RUST_LOG is `warn`";
        assert_eq!(
            said.matches(line).count(),
            usize::from(levels == "warn"),
            "{levels}: {said}"
        );
        assert!(
            !said.contains("chat-42") && !said.contains("no span was exported"),
            "{said}"
        );
    }
}

/// Their target is ours, which nobody thinks of who names his own.
#[test]
fn turns_are_exported_unless_the_level_of_everything_or_of_this_crate_is_lower() {
    let test = test_name!();
    for (levels, exported) in [
        ("", true),
        ("debug", true),
        ("main::otlp::environment=debug", true),
        ("warn,tracing_session=info", true),
        ("warn", false),
        ("info,tracing_session=warn", false),
    ] {
        let receiver = Receiver::start();
        let url = receiver.url();
        let Some(said) = support::output_alone(test, &[(LEVELS, levels), (ENDPOINT, &url)]) else {
            let telemetry = pipeline("my-app").install().unwrap();
            let chat = Session::new("chat-42").unwrap();
            Conversation::new(chat).turn("turn").finish();
            return telemetry.shutdown().unwrap();
        };
        let turns: &[_] = if exported { &["turn chat-42 -"] } else { &[] };
        assert_eq!(receiver.spans(), turns, "{levels}");
        let warning = "the turns of a `Conversation` are not exported";
        assert_eq!(said.contains(warning), !exported, "{levels}: {said}");
    }
}

/// The exporter's own connection makes spans of level TRACE.
#[test]
fn spans_of_the_exporter_are_not_exported() {
    let test = test_name!();
    for protocol in ["grpc", "http/protobuf"] {
        let receiver = Receiver::start();
        let url = receiver.url();
        let variables = [(LEVELS, "trace"), (ENDPOINT, &*url), (PROTOCOL, protocol)];
        if support::alone(test, &variables) {
            let telemetry = pipeline("my-app").install().unwrap();
            for _ in 0..3 {
                trace_span!("trace").in_scope(|| {});
                telemetry.force_flush().unwrap();
            }
            return telemetry.shutdown().unwrap();
        }
        assert_eq!(receiver.spans(), ["trace - -"; 3], "{protocol}");
    }
}
