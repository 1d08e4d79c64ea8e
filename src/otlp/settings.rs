//! What the environment says of the whole set-up, and of who is traced.

use super::exporter::invalid;
use crate::error::Error;
use crate::propagation::env::variable;
use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;

pub(super) fn resource(service_name: String, project: Option<String>) -> Result<Resource, Error> {
    let name = match service_name.trim() {
        // The SDK would let `service.name` in `OTEL_RESOURCE_ATTRIBUTES` win over it.
        "" => variable("OTEL_SERVICE_NAME")?,
        _ => Some(service_name),
    };
    let name = name.map(|name| KeyValue::new("service.name", name));
    let project = project.map(|name| KeyValue::new("openinference.project.name", name));
    let attributes = name.into_iter().chain(project);
    Ok(Resource::builder().with_attributes(attributes).build())
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
        Some(value) => Err(invalid(NAME, value, "otlp, none")),
    }
}

/// The SDK takes the memory for the whole queue at once, and where there is not so much the process ends.
pub(super) fn check_queue() -> Result<(), Error> {
    const NAME: &str = "OTEL_BSP_MAX_QUEUE_SIZE";
    const MOST: usize = 1_000_000;
    match variable(NAME)? {
        Some(value) if value.parse().is_ok_and(|spans: usize| spans > MOST) => {
            Err(invalid(NAME, &value, "a number of spans up to 1000000"))
        }
        _ => Ok(()),
    }
}
