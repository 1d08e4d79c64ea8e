//! Builds the exporter from settings in the code and in the environment.
//!
//! `opentelemetry-otlp` reads the environment too. But headers in the environment override headers in the code there, it
//! doesn't report why a connection failed, and it needs the application's runtime for gRPC.

use crate::base::diagnostic;
use crate::base::diagnostic::Message;
use crate::base::error::{Error, ErrorKind, variable};
use crate::layer::spans::LayerState;
use async_trait::async_trait;
use http::{HeaderMap, Uri};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{
    ExporterBuildError, OTEL_EXPORTER_OTLP_TIMEOUT_DEFAULT, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT,
    SpanExporter, WithExportConfig, WithHttpConfig, WithTonicConfig,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{SpanData, SpanExporter as SdkSpanExporter};
use std::error::Error as StdError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use std::{io, thread};
use tokio::runtime::{self, Handle};
use tokio::sync::oneshot;
use tracing::{Dispatch, dispatcher};

/// The protocol that sends the spans.
///
/// ```no_run
/// use tracing_session::otlp::{Protocol, pipeline};
///
/// let _telemetry = pipeline("my-app").with_protocol(Protocol::Grpc).install()?;
/// # Ok::<(), tracing_session::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Protocol {
    /// Protobuf over HTTP. Phoenix listens on port 6006, and a Collector on port 4318.
    #[default]
    HttpProtobuf,
    /// gRPC. Phoenix and a Collector listen on port 4317. The connection has its own thread, and needs no async runtime.
    Grpc,
}

/// The settings in the code, which override the environment.
#[derive(Clone, Default)]
pub(super) struct ExporterConfig {
    pub(super) protocol: Option<Protocol>,
    pub(super) endpoint: Option<String>,
    pub(super) headers: HeaderMap,
}

impl ExporterConfig {
    /// `state` is the layer's state. Its subscriber receives the warnings.
    pub(super) fn build(self, state: Arc<LayerState>) -> Result<ReportingExporter, Error> {
        let protocol = self.protocol.map_or_else(protocol_from_env, Ok)?;
        let timeout = timeout_from_env()?;
        let endpoint = endpoint(self.endpoint, protocol)?;
        let (address, exports) = (address(&endpoint), Arc::<Exports>::default());
        let built = match protocol {
            Protocol::HttpProtobuf => http_exporter(endpoint, timeout, self.headers, &exports)
                .map(|exporter| (exporter, None)),
            Protocol::Grpc => grpc_exporter(endpoint, timeout, self.headers),
        };
        let error = |error| Error::caused_by(ErrorKind::Exporter, Arc::new(error));
        let (inner, _driver) = built.map_err(error)?;
        Ok(ReportingExporter {
            inner,
            address,
            exports,
            state,
            _driver,
        })
    }
}

/// The value of the variable for traces or else of the one for all signals, with the variable's name.
fn setting(setting: &str) -> Result<Option<(String, String)>, Error> {
    for signal in ["TRACES_", ""] {
        let name = format!("OTEL_EXPORTER_OTLP_{signal}{setting}");
        if let Some(value) = variable(&name)? {
            return Ok(Some((name, value.trim().to_owned())));
        }
    }
    Ok(None)
}

pub(super) fn invalid_setting(variable: &str, value: &str, valid: &'static str) -> Error {
    let error = Error::from(ErrorKind::Setting(valid));
    error.of_variable(variable).about(value)
}

fn protocol_from_env() -> Result<Protocol, Error> {
    let Some((name, value)) = setting("PROTOCOL")? else {
        return Ok(Protocol::default());
    };
    match value.to_ascii_lowercase().as_str() {
        "http/protobuf" => Ok(Protocol::HttpProtobuf),
        "grpc" => Ok(Protocol::Grpc),
        _ => Err(invalid_setting(&name, &value, "http/protobuf, grpc")),
    }
}

fn timeout_from_env() -> Result<Duration, Error> {
    let Some((name, value)) = setting("TIMEOUT")? else {
        return Ok(OTEL_EXPORTER_OTLP_TIMEOUT_DEFAULT);
    };
    let milliseconds = value.parse().map(Duration::from_millis);
    milliseconds.map_err(|_| invalid_setting(&name, &value, "a number of milliseconds"))
}

/// The URL that spans are sent to. The error doesn't contain the endpoint, because it may contain a password.
fn endpoint(configured: Option<String>, protocol: Protocol) -> Result<String, Error> {
    let from_env = match configured {
        Some(_) => None,
        None => setting("ENDPOINT")?,
    };
    let (variable, from_env) = from_env.unzip();
    let of_variable = |error| {
        variable
            .as_deref()
            .into_iter()
            .fold(error, Error::of_variable)
    };
    let no_scheme = |endpoint: &str| {
        let example = host_and_port(endpoint).unwrap_or("localhost:4318");
        let error = of_variable(Error::from(ErrorKind::NoScheme));
        error.about(&format!("http://{example}"))
    };
    let endpoint = match (protocol, configured.or(from_env)) {
        (Protocol::HttpProtobuf, Some(endpoint)) if !endpoint.contains("://") => {
            return Err(no_scheme(&endpoint));
        }
        (Protocol::HttpProtobuf, None) => "http://localhost:4318/v1/traces".to_owned(),
        (Protocol::Grpc, None) => "http://localhost:4317".to_owned(),
        // A variable for traces contains the whole URL.
        (Protocol::HttpProtobuf, Some(endpoint))
            if variable.as_deref() == Some(OTEL_EXPORTER_OTLP_TRACES_ENDPOINT) =>
        {
            endpoint
        }
        (Protocol::HttpProtobuf, Some(endpoint)) => {
            let base = endpoint.trim_end_matches('/');
            let base = base.strip_suffix("/v1/traces").unwrap_or(base);
            format!("{base}/v1/traces").trim().to_owned()
        }
        // A Unix socket, which is no URL with a host.
        (Protocol::Grpc, Some(endpoint)) if endpoint.starts_with("unix://") => return Ok(endpoint),
        (Protocol::Grpc, Some(endpoint)) if endpoint.contains("://") => endpoint,
        (Protocol::Grpc, Some(endpoint)) => match setting("INSECURE")? {
            Some((_, value)) if value.eq_ignore_ascii_case("true") => format!("http://{endpoint}"),
            // OpenTelemetry specifies TLS as the default for the variables.
            None if variable.is_none() || !cfg!(feature = "otlp-tls") => {
                return Err(no_scheme(&endpoint));
            }
            _ => format!("https://{endpoint}"),
        },
    };
    let uri = endpoint.parse::<Uri>().ok();
    let uri = uri.filter(|uri| uri.host().is_some());
    let kind = match uri.as_ref().and_then(Uri::scheme_str) {
        Some("https") if !cfg!(feature = "otlp-tls") => ErrorKind::Tls,
        Some("http" | "https") => return Ok(endpoint),
        _ => ErrorKind::Endpoint,
    };
    Err(of_variable(Error::from(kind)))
}

/// The host and the port of an endpoint without a scheme. `None` if it may be anything else, such as a key.
fn host_and_port(endpoint: &str) -> Option<&str> {
    let authority = endpoint.trim().split('/').next()?;
    let (host, port) = authority.split_once(':')?;
    let is_of_host = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-';
    let is_valid = !host.is_empty() && host.chars().all(is_of_host) && port.parse::<u16>().is_ok();
    is_valid.then_some(authority)
}

/// The endpoint as warnings show it: without a user, a password and a path, which may be a key.
fn address(endpoint: &str) -> String {
    match endpoint.parse::<Uri>() {
        Ok(uri) if uri.host().is_some() => {
            let authority = uri.authority().map_or("", |it| it.as_str());
            let (_, address) = authority.rsplit_once('@').unwrap_or(("", authority));
            format!("{}://{address}", uri.scheme_str().unwrap_or("http"))
        }
        // A Unix socket.
        _ => endpoint.to_owned(),
    }
}

fn http_exporter(
    endpoint: String,
    timeout: Duration,
    headers: HeaderMap,
    exports: &Arc<Exports>,
) -> Result<SpanExporter, ExporterBuildError> {
    let build = move || {
        let builder = reqwest::blocking::Client::builder().timeout(timeout);
        // A redirected POST becomes a GET, so the spans would be lost without an error.
        let builder = builder.redirect(reqwest::redirect::Policy::none());
        builder.build().map_err(|error| build_error(&error))
    };
    // The blocking client can't be built on a thread of an async runtime.
    let builder = thread::Builder::new().spawn(build);
    let built = builder.map_err(|error| build_error(&error))?.join();
    let panicked = |_| build_error(&io::Error::other("the HTTP client panicked"));
    let client = ExportClient {
        inner: built.map_err(panicked)??,
        headers,
        exports: exports.clone(),
    };
    SpanExporter::builder()
        .with_http()
        .with_protocol(opentelemetry_otlp::Protocol::HttpBinary)
        .with_endpoint(endpoint)
        .with_timeout(timeout)
        .with_http_client(client)
        .build()
}

fn grpc_exporter(
    endpoint: String,
    timeout: Duration,
    headers: HeaderMap,
) -> Result<(SpanExporter, Option<GrpcDriver>), ExporterBuildError> {
    let driver = GrpcDriver::start().map_err(|error| build_error(&error))?;
    let entered = driver.runtime.enter();
    let exporter = SpanExporter::builder().with_tonic();
    #[cfg(feature = "otlp-tls")]
    let exporter = match endpoint.parse().as_ref().map(Uri::scheme_str) {
        Ok(Some("https")) => {
            // By default the client trusts no certificates.
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
        .build()?;
    drop(entered);
    Ok((exporter, Some(driver)))
}

fn build_error(cause: &(dyn StdError + 'static)) -> ExporterBuildError {
    ExporterBuildError::InternalFailure(root_cause(cause).to_string())
}

/// The innermost error. The outer errors only mean that a request failed.
fn root_cause<'a>(error: &'a (dyn StdError + 'static)) -> &'a (dyn StdError + 'static) {
    let chain = std::iter::successors(Some(error), |&error| error.source());
    chain.last().unwrap_or(error)
}

/// A client that needs no runtime, and whose headers override those of the environment.
#[derive(Debug)]
struct ExportClient {
    inner: reqwest::blocking::Client,
    headers: HeaderMap,
    exports: Arc<Exports>,
}

#[async_trait]
impl HttpClient for ExportClient {
    async fn send_bytes(&self, mut request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        request.headers_mut().extend(self.headers.clone());
        let response = self.inner.send_bytes(request).await;
        let cause = response.as_ref().err();
        let cause = cause.map(|error| root_cause(error.as_ref()).to_string());
        set(&self.exports.request_error, cause);
        response
    }
}

/// The results of a setup's exports.
#[derive(Debug, Default)]
pub(super) struct Exports {
    /// There was a span to export.
    pub(super) has_spans: AtomicBool,
    /// The failure of the last export, which was reported. `None` if the export succeeded.
    pub(super) failure: Mutex<Option<Message>>,
    /// The reason why the last HTTP request got no response. The exporter's error doesn't contain it.
    request_error: Mutex<Option<String>>,
}

impl Exports {
    pub(super) fn failure(&self) -> Option<Message> {
        let failure = self.failure.lock();
        failure.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Sets a value, and returns the one before.
fn set<T>(value: &Mutex<Option<T>>, to: Option<T>) -> Option<T> {
    let mut value = value.lock().unwrap_or_else(PoisonError::into_inner);
    std::mem::replace(&mut value, to)
}

/// Warns about a failure in one line. Repeats the same warning only after a different result.
#[derive(Debug)]
pub(super) struct ReportingExporter {
    inner: SpanExporter,
    address: String,
    pub(super) exports: Arc<Exports>,
    state: Arc<LayerState>,
    _driver: Option<GrpcDriver>,
}

impl ReportingExporter {
    fn failure(&self, error: &OTelSdkError) -> Message {
        if let Some(cause) = set(&self.exports.request_error, None) {
            return diagnostic::not_reached(&self.address, &cause);
        }
        let text = error.to_string();
        // Skip the names of the exporter and its client.
        let (_, cause) = text.rsplit_once("failed with ").unwrap_or(("", &text));
        match cause.strip_prefix("gRPC code: ") {
            Some(cause) if cause.starts_with("Unavailable") => {
                let (_, root_cause) = cause.rsplit_once(": ").unwrap_or(("", cause));
                diagnostic::not_reached(&self.address, root_cause)
            }
            _ => diagnostic::refused(&self.address, cause),
        }
    }
}

impl SdkSpanExporter for ReportingExporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.exports.has_spans.store(true, Ordering::Relaxed);
        let result = self.inner.export(batch).await;
        let failure = result.as_ref().err().map(|error| self.failure(error));
        let before = set(&self.exports.failure, failure.clone());
        // Hold no lock: a layer that receives the event may export again.
        if let Some(failure) = failure.filter(|it| before.as_ref() != Some(it)) {
            self.state.subscriber.emit(&failure);
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn shutdown(&self) -> OTelSdkResult {
        self.inner.shutdown()
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// A runtime for the gRPC connection, on its own thread.
///
/// On the application's runtime the connection would make no progress while that runtime's last thread waits in
/// [`Telemetry::drop`](super::Telemetry). And the application may have no runtime.
#[derive(Debug)]
struct GrpcDriver {
    runtime: Handle,
    /// The thread ends when this is dropped.
    _alive: oneshot::Sender<()>,
}

impl GrpcDriver {
    fn start() -> io::Result<Self> {
        let mut driver = runtime::Builder::new_current_thread();
        let driver = driver.enable_all().build()?;
        let runtime = driver.handle().clone();
        let (_alive, ended) = oneshot::channel();
        thread::Builder::new()
            .name("tracing-session.otlp".to_owned())
            .spawn(move || {
                // The connection creates spans. Some have no parent, so OpenTelemetry's own suppression misses them,
                // and exporting them would create more.
                let _no_spans = dispatcher::set_default(&Dispatch::none());
                let _ended = driver.block_on(ended);
            })?;
        Ok(Self { runtime, _alive })
    }
}
