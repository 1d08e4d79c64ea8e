//! The complete setup in one call (feature `otlp`).
//!
//! ```no_run
//! use tracing_session::{Session, openinference::OpenInferenceSpanExt, otlp};
//!
//! fn main() -> Result<(), tracing_session::Error> {
//!     let _telemetry = otlp::pipeline("my-app").with_project("support-bot").install()?;
//!
//!     Session::new("chat-42")?.in_scope(|| {
//!         let turn = tracing::info_span!("turn").entered();
//!         turn.set_input("What is the weather like?");
//!         turn.set_output("Sunny and 24 degrees.");
//!     });
//!     Ok(())
//! }
//! ```
//!
//! Phoenix shows this turn with its session, input and output. [`install`](Pipeline::install) is for applications without a
//! subscriber, and prints their events too. If you have a subscriber already, add the layer that [`build`](Pipeline::build)
//! returns.
//!
#![doc = include_str!("otlp/environment.md")]

mod exporter;
mod settings;
mod telemetry;

pub use exporter::Protocol;
pub use telemetry::Telemetry;

use crate::base::diagnostic;
use crate::base::error::{Error, ErrorKind};
use crate::export::dialect::Dialect;
use crate::export::exporter::SessionExporter;
use crate::export::privacy::{IdPolicy, Privacy};
use crate::layer::SessionLayer;
use crate::propagation::functions::with_propagators_from_env;
use crate::propagation::propagator::SessionPropagator;
use crate::scope::Scope;
use crate::tracer::SessionTracerProvider;
use exporter::ExporterConfig;
use http::{HeaderName, HeaderValue};
use opentelemetry::trace::TracerProvider;
use opentelemetry::{InstrumentationScope, global};
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider, ShouldSample};
use settings::{Levels, check_queue, is_disabled, is_exported, resource};
use std::fmt;
use telemetry::StderrEvents;
use tracing::Subscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;

/// Begins the setup of an application that exports spans to an OTLP endpoint.
///
/// `service_name` becomes the resource attribute `service.name`. If it is blank, the environment sets the name.
///
/// ```no_run
/// let _telemetry = tracing_session::otlp::pipeline("my-app").install()?;
/// # Ok::<(), tracing_session::Error>(())
/// ```
pub fn pipeline(service_name: impl Into<String>) -> Pipeline {
    Pipeline {
        service_name: service_name.into(),
        project: None,
        exporter: ExporterConfig::default(),
        layer: SessionLayer::new(),
        dialect: Dialect::OPENINFERENCE,
        privacy: Privacy::new(),
        has_coverage: false,
        sampler: None,
        sends_session: false,
        error: None,
    }
}

/// The setup that [`pipeline`] begins. Finish it with [`install`](Self::install) or [`build`](Self::build).
///
/// ```no_run
/// use tracing_session::otlp::pipeline;
///
/// let _telemetry = pipeline("my-app")
///     .with_project("support-bot")
///     .with_endpoint("http://localhost:6006")
///     .with_api_key(std::env::var("PHOENIX_API_KEY").unwrap_or_default())
///     .install()?;
/// # Ok::<(), tracing_session::Error>(())
/// ```
#[must_use = "nothing is set up until you call `install()` or `build()`"]
pub struct Pipeline {
    service_name: String,
    project: Option<String>,
    exporter: ExporterConfig,
    layer: SessionLayer,
    dialect: Dialect,
    privacy: Privacy,
    has_coverage: bool,
    sampler: Option<Box<dyn ShouldSample>>,
    sends_session: bool,
    /// The first error in the configuration.
    error: Option<Error>,
}

impl Pipeline {
    /// Sets the project in which Phoenix shows the spans: the resource attribute `openinference.project.name`. Default: none,
    /// which Phoenix shows as `default`.
    ///
    /// ```
    /// # use tracing_session::otlp::pipeline;
    /// let pipeline = pipeline("my-app").with_project("support-bot");
    /// ```
    pub fn with_project(mut self, name: impl Into<String>) -> Self {
        self.project = Some(name.into());
        self
    }

    /// Sets the endpoint that receives the spans. Default: port 4318 (HTTP) or 4317 (gRPC) of this machine.
    ///
    /// Over HTTP, the setup appends `/v1/traces` unless the URL ends with it. An `https` endpoint needs the feature
    /// `otlp-tls`; without it, `install` and `build` return an error.
    ///
    /// ```
    /// # use tracing_session::otlp::pipeline;
    /// let phoenix = pipeline("my-app").with_endpoint("http://localhost:6006");
    /// ```
    pub fn with_endpoint(mut self, url: impl Into<String>) -> Self {
        self.exporter.endpoint = Some(url.into());
        self
    }

    /// Sets the protocol. Default: [`Protocol::HttpProtobuf`].
    ///
    /// ```
    /// # use tracing_session::otlp::{Protocol, pipeline};
    /// let pipeline = pipeline("my-app").with_protocol(Protocol::Grpc);
    /// ```
    pub fn with_protocol(mut self, protocol: Protocol) -> Self {
        self.exporter.protocol = Some(protocol);
        self
    }

    /// Adds a header to each request (over gRPC, an entry to the metadata). It replaces a header with the same name.
    /// Default: none.
    ///
    /// If the name or the value is invalid, [`install`](Self::install) and [`build`](Self::build) return an error.
    ///
    /// ```
    /// # use tracing_session::otlp::pipeline;
    /// let pipeline = pipeline("my-app").with_header("x-tenant", "support");
    /// ```
    pub fn with_header(mut self, name: impl AsRef<str>, value: impl AsRef<str>) -> Self {
        let (name, value) = (name.as_ref(), value.as_ref());
        match (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
            (Ok(name), Ok(mut value)) => {
                value.set_sensitive(true);
                self.exporter.headers.insert(name, value);
            }
            _ => {
                let error = || Error::from(ErrorKind::Header).about(name);
                self.error.get_or_insert_with(error);
            }
        }
        self
    }

    /// Sets an API key, which is sent as the header `authorization: Bearer <key>`, as Phoenix expects. A blank key isn't
    /// sent. Default: none.
    ///
    /// ```
    /// # use tracing_session::otlp::pipeline;
    /// let pipeline = pipeline("my-app").with_api_key("secret");
    /// ```
    pub fn with_api_key(self, key: impl AsRef<str>) -> Self {
        match key.as_ref().trim() {
            "" => self,
            key => self.with_header("authorization", format!("Bearer {key}")),
        }
    }

    /// Sets the layer that reads sessions from spans. Default: [`SessionLayer::new`].
    ///
    /// ```
    /// use tracing_session::otlp::pipeline;
    /// use tracing_session::SessionLayer;
    ///
    /// let layer = SessionLayer::new().with_session_field("conversation_id");
    /// let pipeline = pipeline("my-app").with_layer(layer);
    /// ```
    pub fn with_layer(self, layer: SessionLayer) -> Self {
        Self { layer, ..self }
    }

    /// Sets the keys that are exported, with a [`SessionExporter`]. Default: [`Dialect::OPENINFERENCE`], which Phoenix reads.
    ///
    /// ```
    /// # use tracing_session::otlp::pipeline;
    /// use tracing_session::Dialect;
    ///
    /// let pipeline = pipeline("my-app").with_dialect(Dialect::LANGFUSE);
    /// ```
    pub fn with_dialect(self, dialect: Dialect) -> Self {
        Self { dialect, ..self }
    }

    /// Redacts ids and metadata on the spans. Default: none.
    ///
    /// ```
    /// # use tracing_session::otlp::pipeline;
    /// use tracing_session::{Privacy, export::IdPolicy};
    ///
    /// let privacy = Privacy::new().with_user_ids(IdPolicy::omitted());
    /// let pipeline = pipeline("my-app").with_privacy(privacy);
    /// ```
    pub fn with_privacy(self, privacy: Privacy) -> Self {
        Self { privacy, ..self }
    }

    /// Counts the spans in a session and in none: see [`SessionTracerProvider::with_coverage`]. The guard prints the share to
    /// standard error when it ends, and [`Telemetry::provider`] has the report. Default: off.
    ///
    /// ```
    /// # use tracing_session::otlp::pipeline;
    /// let pipeline = pipeline("my-app").with_coverage();
    /// ```
    pub fn with_coverage(self) -> Self {
        Self {
            has_coverage: true,
            ..self
        }
    }

    /// Sets the sampler. Default: the sampler that `OTEL_TRACES_SAMPLER` names, or else one that samples all traces.
    ///
    /// The sampler in the example decides by trace id. To sample whole sessions, use [`SessionSampler`].
    ///
    /// [`SessionSampler`]: https://docs.rs/tracing-session/latest/tracing_session/struct.SessionSampler.html
    ///
    /// ```
    /// use opentelemetry_sdk::trace::Sampler;
    ///
    /// let sampler = Sampler::parent_based(Sampler::TraceIdRatioBased(0.1));
    /// let pipeline = tracing_session::otlp::pipeline("my-app").with_sampler(sampler);
    /// ```
    pub fn with_sampler(mut self, sampler: impl Into<Box<dyn ShouldSample>>) -> Self {
        self.sampler = Some(sampler.into());
        self
    }

    /// Injects the session id into outgoing headers. Default: off.
    ///
    /// Every client that uses the global propagator then sends the id to each host that it calls, such as a model vendor's.
    /// Without this setting, the propagator that [`install`](Self::install) sets sends the trace and other baggage, but no
    /// session and no user. It extracts the session from incoming headers in both cases.
    ///
    /// ```
    /// # use tracing_session::otlp::pipeline;
    /// let pipeline = pipeline("my-app").with_session_propagation();
    /// ```
    pub fn with_session_propagation(mut self) -> Self {
        self.sends_session = true;
        self
    }

    /// Sets up the whole process: a subscriber that exports spans and prints events to standard error, and OpenTelemetry's
    /// global tracer provider and propagator.
    ///
    /// It exports spans and prints events of the level INFO and above, unless `RUST_LOG` contains other directives, such as
    /// `info,my_app=debug`. It also exports the turns of a [`Conversation`](crate::Conversation), unless `RUST_LOG` sets a
    /// level below INFO for everything, such as `warn`, or for `tracing_session`.
    ///
    /// It doesn't print spans, and prints events without the time. For another format, use [`build`](Self::build). The
    /// propagator sends no session unless you call [`with_session_propagation`](Self::with_session_propagation).
    ///
    /// # Errors
    ///
    /// Returns an error and sets nothing if a setting is invalid ([`Error::is_invalid_setting`],
    /// [`Error::is_unknown_propagator`]), or if there is a global subscriber already ([`Error::is_subscriber_set`]). An
    /// unreachable endpoint is no error, because the backend may start later.
    ///
    /// ```no_run
    /// let _telemetry = tracing_session::otlp::pipeline("my-app").install()?;
    /// # Ok::<(), tracing_session::Error>(())
    /// ```
    pub fn install(self) -> Result<Telemetry, Error> {
        let mut session = SessionPropagator::new();
        if !self.sends_session {
            let ids = IdPolicy::omitted();
            let privacy = Privacy::new().with_session_ids(ids.clone());
            session = session.with_privacy(privacy.with_user_ids(ids));
        }
        let propagator = with_propagators_from_env(session)?;
        let levels = Levels::from_env();
        // OpenTelemetry warns about variables while the provider is built.
        let temporary = tracing_subscriber::registry().with(levels.targets.clone());
        let built =
            tracing::subscriber::with_default(temporary.with(StderrEvents), || self.build());
        let (mut telemetry, layer) = built?;
        let disabled = is_disabled()?;
        let subscriber = tracing_subscriber::registry().with(levels.targets);
        tracing::subscriber::set_global_default(subscriber.with(layer).with(StderrEvents))
            .map_err(|_| ErrorKind::SubscriberSet)?;
        telemetry.is_filter_reported = levels.too_low.is_some();
        let too_low = levels.too_low.filter(|_| telemetry.exports.is_some());
        for warning in [levels.ignored, too_low].into_iter().flatten() {
            diagnostic::emit(&warning);
        }
        global::set_text_map_propagator(propagator);
        if !disabled {
            global::set_tracer_provider(telemetry.provider().clone());
        }
        Ok(telemetry)
    }

    /// Returns a layer for your own subscriber. It sets nothing global.
    ///
    /// The layer is an OpenTelemetry layer inside a [`SessionLayer`]. It has no filter, so it exports spans of every level
    /// unless you add a filter.
    ///
    /// # Errors
    ///
    /// Returns an error if a setting is invalid: [`Error::is_invalid_setting`].
    ///
    /// ```no_run
    /// use opentelemetry::global;
    /// use tracing::level_filters::LevelFilter;
    /// use tracing_session::{otlp, propagator_from_env};
    /// use tracing_subscriber::{fmt, prelude::*};
    ///
    /// let (telemetry, layer) = otlp::pipeline("my-app").build()?;
    /// let subscriber = tracing_subscriber::registry().with(layer);
    /// subscriber.with(fmt::layer()).with(LevelFilter::INFO).init();
    /// // For libraries that use OpenTelemetry's global tracer.
    /// global::set_tracer_provider(telemetry.provider().clone());
    /// // Sends the session to every host that a client with this propagator calls.
    /// global::set_text_map_propagator(propagator_from_env()?);
    /// # Ok::<(), tracing_session::Error>(())
    /// ```
    pub fn build<S>(self) -> Result<(Telemetry, impl Layer<S>), Error>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        if let Some(error) = self.error {
            return Err(error);
        }
        let disabled = is_disabled()?;
        let mut sdk = SdkTracerProvider::builder();
        if let Some(sampler) = self.sampler {
            sdk = sdk.with_sampler(sampler);
        }
        let mut exports = None;
        let state = self.layer.state.clone();
        if disabled {
            sdk = sdk.with_sampler(Sampler::AlwaysOff);
        } else {
            sdk = sdk.with_resource(resource(self.service_name, self.project)?);
            if is_exported()? {
                check_queue()?;
                let exporter = self.exporter.build(state.clone())?;
                exports = Some(exporter.exports.clone());
                let exporter = SessionExporter::new(exporter).with_dialect(self.dialect);
                sdk = sdk.with_batch_exporter(exporter);
            }
        }
        let mut provider = SessionTracerProvider::new(sdk.build()).with_privacy(self.privacy);
        if self.has_coverage {
            provider = provider.with_coverage();
        }
        let scope = InstrumentationScope::builder(env!("CARGO_PKG_NAME"));
        let scope = scope.with_version(env!("CARGO_PKG_VERSION")).build();
        let tracer = provider.tracer_with_scope(scope);
        let otel = (!disabled).then(|| tracing_opentelemetry::layer().with_tracer(tracer));
        let layer = self.layer.wrap(otel);
        let telemetry = Telemetry {
            provider,
            state,
            exports,
            had_session: Scope::any_exists(),
            is_filter_reported: false,
            is_shut_down: false,
        };
        Ok((telemetry, layer))
    }
}

/// Omits the headers and the endpoint, because both may contain a key.
impl fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipeline")
            .field("service_name", &self.service_name)
            .field("project", &self.project)
            .field("protocol", &self.exporter.protocol)
            .finish_non_exhaustive()
    }
}
