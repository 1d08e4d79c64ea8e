//! The settings of the setup, without those of the exporter.

use crate::base::diagnostic;
use crate::base::diagnostic::Message;
use crate::base::error::{Error, variable};
use crate::integrations::otlp::exporter::invalid_setting;
use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;

const OWN_TARGET: &str = "tracing_session";
/// The targets of OpenTelemetry's crates begin with this.
const OTEL_TARGETS: &str = "opentelemetry";

/// The levels in `RUST_LOG`, and warnings about them.
pub(super) struct Levels {
    pub(super) targets: Targets,
    pub(super) ignored: Option<Message>,
    /// No span of the level INFO is enabled.
    pub(super) too_low: Option<Message>,
}

impl Levels {
    /// Enables warnings, and the turns of a `Conversation`, unless a directive names their target: a directive for another
    /// crate must not disable them.
    pub(super) fn from_env() -> Self {
        let variable = std::env::var("RUST_LOG").unwrap_or_default();
        let directives = variable.split(',').map(str::trim);
        // `Targets` would take the name of a span for the name of a target.
        let is_valid = |it: &&str| !it.contains('[') && it.parse::<Targets>().is_ok();
        let (valid, ignored): (Vec<_>, Vec<_>) =
            directives.filter(|it| !it.is_empty()).partition(is_valid);
        let mut targets = match valid.join(",").parse() {
            Ok(targets) if !valid.is_empty() => targets,
            _ => Targets::new().with_default(LevelFilter::INFO),
        };
        let default = targets.default_level().unwrap_or(LevelFilter::INFO);
        let named = targets.iter().map(|(_, level)| level);
        let highest = named.chain(targets.default_level()).max();
        let turns = default.clamp(LevelFilter::WARN, LevelFilter::INFO);
        for (target, level) in [(OWN_TARGET, turns), (OTEL_TARGETS, LevelFilter::WARN)] {
            if !targets.iter().any(|(named, _)| named == target) {
                targets = targets.with_target(target, level);
            }
        }
        Self {
            targets,
            ignored: ignored.first().map(|it| diagnostic::directive_ignored(it)),
            too_low: highest
                .filter(|it| *it < LevelFilter::INFO)
                .map(|_| diagnostic::levels_too_low(&valid.join(","))),
        }
    }
}

pub(super) fn resource(service_name: String, project: Option<String>) -> Result<Resource, Error> {
    let name = match service_name.trim() {
        // Read here, because in the SDK `service.name` in `OTEL_RESOURCE_ATTRIBUTES` overrides this variable.
        "" => variable("OTEL_SERVICE_NAME")?,
        _ => Some(service_name),
    };
    let name = name.map(|name| KeyValue::new("service.name", name));
    let project = project.map(|name| KeyValue::new("openinference.project.name", name));
    let attributes = name.into_iter().chain(project);
    Ok(Resource::builder().with_attributes(attributes).build())
}

/// The SDK allocates the whole queue at once, and the process aborts if there isn't enough memory.
pub(super) fn check_queue() -> Result<(), Error> {
    const NAME: &str = "OTEL_BSP_MAX_QUEUE_SIZE";
    const MOST: usize = 1_000_000;
    match variable(NAME)? {
        Some(value) if value.parse().is_ok_and(|spans: usize| spans > MOST) => Err(
            invalid_setting(NAME, &value, "a number of spans up to 1000000"),
        ),
        _ => Ok(()),
    }
}

pub(super) fn is_disabled() -> Result<bool, Error> {
    let value = variable("OTEL_SDK_DISABLED")?;
    Ok(value.is_some_and(|value| value.trim().eq_ignore_ascii_case("true")))
}

pub(super) fn is_exported() -> Result<bool, Error> {
    const NAME: &str = "OTEL_TRACES_EXPORTER";
    match variable(NAME)?.as_deref().map(str::trim) {
        None | Some("otlp") => Ok(true),
        Some("none") => Ok(false),
        Some(value) => Err(invalid_setting(NAME, value, "otlp, none")),
    }
}
