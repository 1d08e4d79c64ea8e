//! The exporter that the code and the environment ask for.
//!
//! `opentelemetry-otlp` reads the environment too, but lets its headers win over those of the code,
//! keeps to itself why a connection failed, and needs the application's runtime for gRPC.

use super::Protocol;
use super::trouble::Trouble;
use crate::diagnostic::{self, Message};
use crate::error::Error;
use crate::propagation::env::variable;
use async_trait::async_trait;
use http::{HeaderMap, Uri};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{
    ExporterBuildError, OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_EXPORTER_OTLP_INSECURE,
    OTEL_EXPORTER_OTLP_PROTOCOL, OTEL_EXPORTER_OTLP_TIMEOUT, OTEL_EXPORTER_OTLP_TIMEOUT_DEFAULT,
    OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, OTEL_EXPORTER_OTLP_TRACES_INSECURE,
    OTEL_EXPORTER_OTLP_TRACES_PROTOCOL, OTEL_EXPORTER_OTLP_TRACES_TIMEOUT, SpanExporter,
    WithExportConfig, WithHttpConfig, WithTonicConfig,
};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use std::{io, thread};
use tokio::runtime::{self, Handle};
use tokio::sync::oneshot;
use tracing::{Dispatch, dispatcher};

/// What the code asks for.
#[derive(Clone, Default)]
pub(super) struct Wanted {
    pub(super) protocol: Option<Protocol>,
    pub(super) endpoint: Option<String>,
    pub(super) headers: HeaderMap,
}

impl Wanted {
    pub(super) fn exporter(self) -> Result<(SpanExporter, Option<Driver>), Error> {
        let protocol = match self.protocol {
            Some(protocol) => protocol,
            None => protocol_in_environment()?,
        };
        let timeout = timeout_in_environment()?;
        match protocol {
            Protocol::HttpProtobuf => {
                let endpoint = http_endpoint(self.endpoint)?;
                Ok((over_http(endpoint, timeout, self.headers)?, None))
            }
            Protocol::Grpc => {
                let endpoint = grpc_endpoint(self.endpoint)?;
                let driver = Driver::start().map_err(|error| not_made(&error))?;
                let exporter = over_grpc(&driver, endpoint, timeout, self.headers)?;
                Ok((exporter, Some(driver)))
            }
        }
    }
}

/// The first of these variables that is set, and its value.
fn first(variables: [&'static str; 2]) -> Result<Option<(&'static str, String)>, Error> {
    for name in variables {
        if let Some(value) = variable(name)? {
            return Ok(Some((name, value.trim().to_owned())));
        }
    }
    Ok(None)
}

fn protocol_in_environment() -> Result<Protocol, Error> {
    let names = [
        OTEL_EXPORTER_OTLP_TRACES_PROTOCOL,
        OTEL_EXPORTER_OTLP_PROTOCOL,
    ];
    let Some((name, value)) = first(names)? else {
        return Ok(Protocol::HttpProtobuf);
    };
    match value.to_ascii_lowercase().as_str() {
        "http/protobuf" => Ok(Protocol::HttpProtobuf),
        "grpc" => Ok(Protocol::Grpc),
        _ => Err(invalid(name, &value, "http/protobuf, grpc")),
    }
}

fn timeout_in_environment() -> Result<Duration, Error> {
    let names = [
        OTEL_EXPORTER_OTLP_TRACES_TIMEOUT,
        OTEL_EXPORTER_OTLP_TIMEOUT,
    ];
    let Some((name, value)) = first(names)? else {
        return Ok(OTEL_EXPORTER_OTLP_TIMEOUT_DEFAULT);
    };
    let milliseconds = value.parse();
    milliseconds
        .map(Duration::from_millis)
        .map_err(|_| invalid(name, &value, "a number of milliseconds"))
}

pub(super) fn invalid(variable: &'static str, value: &str, valid: &'static str) -> Error {
    let error = Error::from(Trouble::Setting(valid));
    error.of_variable(variable).about(value)
}

/// The endpoint, and the variable that names it, if one does.
fn endpoint(given: Option<String>, default: &str) -> Result<(Option<&'static str>, String), Error> {
    let names = [
        OTEL_EXPORTER_OTLP_TRACES_ENDPOINT,
        OTEL_EXPORTER_OTLP_ENDPOINT,
    ];
    if let Some(endpoint) = given {
        return Ok((None, endpoint));
    }
    Ok(match first(names)? {
        Some((name, endpoint)) => (Some(name), endpoint),
        None => (None, default.to_owned()),
    })
}

fn http_endpoint(given: Option<String>) -> Result<String, Error> {
    const PATH: &str = "/v1/traces";
    let (name, endpoint) = endpoint(given, "http://localhost:4318")?;
    let base = endpoint.trim_end_matches('/');
    // A variable that is about traces alone is taken as it is.
    let is_whole = name == Some(OTEL_EXPORTER_OTLP_TRACES_ENDPOINT);
    let endpoint = match base.ends_with(PATH) {
        _ if is_whole => endpoint,
        true => base.to_owned(),
        false => format!("{base}{PATH}"),
    };
    checked(name, endpoint.trim().to_owned())
}

fn grpc_endpoint(given: Option<String>) -> Result<String, Error> {
    let (name, endpoint) = endpoint(given, "http://localhost:4317")?;
    // A socket of this machine is one too.
    if endpoint.starts_with("unix://") {
        return Ok(endpoint);
    }
    if endpoint.contains("://") {
        return checked(name, endpoint);
    }
    let insecure = first([
        OTEL_EXPORTER_OTLP_TRACES_INSECURE,
        OTEL_EXPORTER_OTLP_INSECURE,
    ])?;
    let scheme = match insecure {
        Some((_, value)) if value.eq_ignore_ascii_case("true") => "http",
        _ => "https",
    };
    checked(name, format!("{scheme}://{endpoint}"))
}

/// The endpoint, if spans can be sent there. It is not shown, as a password may stand in it.
fn checked(name: Option<&'static str>, endpoint: String) -> Result<String, Error> {
    let uri = endpoint
        .parse()
        .ok()
        .filter(|uri: &Uri| uri.host().is_some());
    let trouble = match uri.as_ref().and_then(Uri::scheme_str) {
        Some("https") if !cfg!(feature = "otlp-tls") => Trouble::Tls,
        Some("http" | "https") => return Ok(endpoint),
        _ => Trouble::Endpoint,
    };
    Err(Error::from(trouble).of_variable(name))
}

fn over_http(
    endpoint: String,
    timeout: Duration,
    headers: HeaderMap,
) -> Result<SpanExporter, Error> {
    let client = move || {
        reqwest::blocking::Client::builder()
            .timeout(timeout)
            // Redirected, a POST becomes a GET: the spans would be lost, and nobody told.
            .redirect(reqwest::redirect::Policy::none())
            .build()
    };
    // It cannot be made on a thread of an async runtime.
    let made = thread::Builder::new().spawn(client);
    let made = made.map_err(|error| not_made(&error))?;
    let made = made.join().map_err(|_| Trouble::Exporter)?;
    let client = Client {
        inner: made.map_err(|error| not_made(&error))?,
        headers,
        said: Mutex::default(),
    };
    let exporter = SpanExporter::builder()
        .with_http()
        .with_protocol(opentelemetry_otlp::Protocol::HttpBinary)
        .with_endpoint(endpoint)
        .with_timeout(timeout)
        .with_http_client(client)
        .build();
    exporter.map_err(|error| Trouble::Exporter.caused_by(error))
}

fn over_grpc(
    driver: &Driver,
    endpoint: String,
    timeout: Duration,
    headers: HeaderMap,
) -> Result<SpanExporter, Error> {
    let _inside = driver.runtime.enter();
    let exporter = SpanExporter::builder().with_tonic();
    #[cfg(feature = "otlp-tls")]
    let exporter = match endpoint.parse().as_ref().map(Uri::scheme_str) {
        Ok(Some("https")) => {
            // By default there would be no certificate that it trusts.
            let tls = opentelemetry_otlp::tonic_types::transport::ClientTlsConfig::new();
            exporter.with_tls_config(tls.with_enabled_roots())
        }
        _ => exporter,
    };
    let exporter = exporter
        .with_endpoint(endpoint)
        .with_timeout(timeout)
        .with_interceptor(move |mut request: tonic::Request<()>| {
            request.metadata_mut().as_mut().extend(headers.clone());
            Ok(request)
        })
        .build();
    exporter.map_err(|error| Trouble::Exporter.caused_by(error))
}

fn not_made(cause: &(dyn std::error::Error + 'static)) -> Error {
    Trouble::Exporter.caused_by(ExporterBuildError::InternalFailure(root(cause).to_string()))
}

/// A client that does not depend on a runtime, whose headers win, and that says why it fails.
#[derive(Debug)]
struct Client {
    inner: reqwest::blocking::Client,
    headers: HeaderMap,
    /// Why it failed, when it was last said: not each time again.
    said: Mutex<Option<Message>>,
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, mut request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        request.headers_mut().extend(self.headers.clone());
        let to = request.uri().clone();
        let sent = self.inner.send_bytes(request).await;
        let failure = sent.as_ref().err().map(|error| {
            let host = to.host().unwrap_or_default();
            let address = match to.port() {
                Some(port) => format!("{host}:{port}"),
                None => host.to_owned(),
            };
            diagnostic::not_reached(&address, root(error.as_ref()))
        });
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if *said != failure {
            said.clone_from(&failure);
            drop(said);
            if let Some(failure) = failure {
                diagnostic::tell(&failure);
            }
        }
        sent
    }
}

/// What is at the bottom of an error: above it there is no more than that a request has failed.
fn root<'a>(error: &'a (dyn std::error::Error + 'static)) -> &'a (dyn std::error::Error + 'static) {
    std::iter::successors(Some(error), |error| error.source())
        .last()
        .unwrap_or(error)
}

/// A runtime for connections over gRPC, on a thread of its own.
///
/// On the application's runtime they would stand still while the last thread of it waits for the
/// spans to arrive, and could not be made where there is none.
pub(super) struct Driver {
    runtime: Handle,
    /// The thread ends when this is dropped.
    _alive: oneshot::Sender<()>,
}

impl Driver {
    fn start() -> io::Result<Self> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let handle = runtime.handle().clone();
        let (alive, ended) = oneshot::channel();
        thread::Builder::new()
            .name("tracing-session.otlp".to_owned())
            .spawn(move || {
                // The spans of the connection are not those of the application. Some have no
                // parent, so that OpenTelemetry's own way to suppress them does not hold.
                let _quiet = dispatcher::set_default(&Dispatch::none());
                let _ended = runtime.block_on(ended);
            })?;
        Ok(Self {
            runtime: handle,
            _alive: alive,
        })
    }
}
