//! What has to hold whatever the environment says: no more than an error that shows no id, no key and no
//! endpoint, in which a password may stand.
#![allow(unsafe_code, reason = "it sets variables of its own process")]

#[path = "rule.rs"]
mod rule;

use std::env;
use std::error::Error as _;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use tracing_session::{Error, Session, export::IdPolicy, otlp, propagator_from_env};
use tracing_subscriber::Registry;

/// Those that the parts of a file are the values of, in this order.
const VARIABLES: [&str; 20] = [
    "OTEL_PROPAGATORS",
    "MIRASCOPE_PROPAGATOR",
    "TRACING_SESSION_ID",
    "TRACECTRL_SESSION_ID",
    KEY,
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_PROTOCOL",
    "OTEL_EXPORTER_OTLP_HEADERS",
    "OTEL_EXPORTER_OTLP_TIMEOUT",
    "OTEL_EXPORTER_OTLP_INSECURE",
    "OTEL_EXPORTER_OTLP_COMPRESSION",
    "OTEL_RESOURCE_ATTRIBUTES",
    "OTEL_SERVICE_NAME",
    "OTEL_TRACES_SAMPLER",
    "OTEL_TRACES_SAMPLER_ARG",
    "OTEL_BSP_MAX_QUEUE_SIZE",
    "OTEL_BSP_SCHEDULE_DELAY",
    "OTEL_TRACES_EXPORTER",
    "OTEL_SDK_DISABLED",
];
const KEY: &str = "USER_ID_KEY";

/// Panics where something does not hold. It has the process for itself.
pub(crate) fn check(file: &[u8]) {
    for (name, value) in VARIABLES
        .iter()
        .zip(rule::parts(file).chain(std::iter::repeat(&b""[..])))
    {
        // The operating system has no zero in a value.
        let value: Vec<u8> = value.iter().copied().filter(|byte| *byte != 0).collect();
        // SAFETY: nobody else is there who reads variables but by the standard library.
        unsafe { env::set_var(name, OsStr::from_bytes(&value)) };
    }
    told(propagator_from_env());
    told(otlp::pipeline("").build::<Registry>());
    if let Some(session) = told(Session::from_env_or_generate()) {
        let id = session.id().unwrap();
        assert_eq!(rule::received_id(id), Ok(id));
    }
    let key = env::var_os(KEY).unwrap_or_default();
    let hashed = told(IdPolicy::hashed_from_env(KEY));
    assert_eq!(hashed.is_some(), key.len() >= 16);
}

/// An error names the variable, and shows the value only of one that chooses.
fn told<T>(result: Result<T, Error>) -> Option<T> {
    const CHOICES: [&str; 6] = [
        "OTEL_PROPAGATORS",
        "MIRASCOPE_PROPAGATOR",
        "OTEL_EXPORTER_OTLP_PROTOCOL",
        "OTEL_EXPORTER_OTLP_TIMEOUT",
        "OTEL_BSP_MAX_QUEUE_SIZE",
        "OTEL_TRACES_EXPORTER",
    ];
    const REASONS: [&str; 11] = [
        "id is blank: set a value, or leave it out",
        "id is longer than 1024 bytes: shorten it, or use a hash of it",
        "id contains a control or invisible character: remove it",
        "id is not valid UTF-8: encode it as UTF-8",
        "id is a placeholder such as None or null: set the value when it is known",
        "the value is not valid UTF-8: encode it as UTF-8",
        "the endpoint is not a URL such as http://localhost:4318",
        "`http://localhost:4318`: use this URL, because your endpoint has no scheme",
        "an https endpoint needs the feature `otlp-tls`: run `cargo add tracing-session --features otlp-tls`",
        "the key is too short: use at least 16 random bytes",
        "the exporter cannot be created (see the error's source)",
    ];
    let error = match result {
        Ok(value) => return Some(value),
        Err(error) => error,
    };
    let said = error.to_string();
    let of_variable = |name: &'static str| {
        let after = said
            .strip_prefix(&format!("{name}: "))
            .or_else(|| said.strip_prefix(&format!("`{name}`: ")));
        Some((name, after?))
    };
    let is_known = match VARIABLES.into_iter().find_map(of_variable) {
        Some((name, _)) if CHOICES.contains(&name) => true,
        Some((_, why)) => REASONS.contains(&why),
        None => REASONS.contains(&&*said),
    };
    assert!(is_known, "{said}");
    if let Some(cause) = error.source() {
        let cause = cause.to_string();
        assert!(CAUSES.contains(&&*cause), "{cause}");
    }
    None
}

/// Why an exporter cannot be made.
const CAUSES: [&str; 0] = [];
