//! The propagators that the environment names.

use crate::error::{Error, ErrorKind};
use crate::propagation::propagator::{SESSION_HEADER_NAME, SessionPropagator};
use crate::propagation::span_headers::SpanHeaders;
use opentelemetry::propagation::{TextMapCompositePropagator, TextMapPropagator};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use std::env::VarError;

const OTEL_PROPAGATORS: &str = "OTEL_PROPAGATORS";
const MIRASCOPE_PROPAGATOR: &str = "MIRASCOPE_PROPAGATOR";

type Propagator = Box<dyn TextMapPropagator + Send + Sync>;

/// The propagators that the environment names, and the session's.
///
/// - `OTEL_PROPAGATORS`, a list of `tracecontext`, `baggage`, `b3`, `b3multi`, `jaeger` and `none`;
/// - or else `MIRASCOPE_PROPAGATOR`, one of `tracecontext`, `b3`, `b3multi`, `jaeger` and
///   `composite`, which is all of them;
/// - or else `tracecontext,baggage`.
///
/// The session always goes along: in W3C baggage where that is listed, and in
/// [`SESSION_HEADER_NAME`] where it is not. A variable that is blank counts as not set.
///
/// # Errors
///
/// When a variable names another propagator. The error says which are valid.
///
/// ```
/// use tracing_session::propagator_from_env;
///
/// // OpenTelemetry's global propagator does nothing until it is set.
/// opentelemetry::global::set_text_map_propagator(propagator_from_env()?);
/// # Ok::<(), tracing_session::Error>(())
/// ```
pub fn propagator_from_env() -> Result<TextMapCompositePropagator, Error> {
    let mut propagators: Vec<Propagator> = Vec::new();
    let mut baggage = false;
    if let Some(list) = variable(OTEL_PROPAGATORS)? {
        let valid = "tracecontext, baggage, b3, b3multi, jaeger, none";
        for name in list.split(',').map(str::trim) {
            match name {
                "baggage" => baggage = true,
                "" | "none" => {}
                name => propagators.push(named(OTEL_PROPAGATORS, name, valid)?),
            }
        }
    } else if let Some(name) = variable(MIRASCOPE_PROPAGATOR)? {
        let valid = "tracecontext, b3, b3multi, jaeger, composite";
        let names: &[&str] = match name.as_str() {
            "composite" => &["tracecontext", "b3", "b3multi", "jaeger"],
            name => &[name],
        };
        for name in names {
            propagators.push(named(MIRASCOPE_PROPAGATOR, name, valid)?);
        }
    } else {
        baggage = true;
        propagators.push(Box::new(TraceContextPropagator::new()));
    }
    let session = SessionPropagator::new().with_baggage(baggage);
    let session = match baggage {
        true => session,
        false => session.with_header(SESSION_HEADER_NAME)?,
    };
    propagators.push(Box::new(session));
    Ok(TextMapCompositePropagator::new(propagators))
}

/// The propagator that a variable calls so.
fn named(variable: &'static str, name: &str, valid: &'static str) -> Result<Propagator, Error> {
    Ok(match name {
        "tracecontext" => Box::new(TraceContextPropagator::new()),
        "b3" => Box::new(SpanHeaders::B3Single),
        "b3multi" => Box::new(SpanHeaders::B3Multi),
        "jaeger" => Box::new(SpanHeaders::Jaeger),
        name => {
            let error = Error::from(ErrorKind::Propagator(valid));
            return Err(error.of_variable(variable).about(name));
        }
    })
}

/// The value of a variable, where it is set and not blank.
pub(crate) fn variable(name: &'static str) -> Result<Option<String>, Error> {
    match std::env::var(name) {
        Ok(value) => Ok(Some(value).filter(|value| !value.trim().is_empty())),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => {
            Err(Error::from(ErrorKind::VariableNotUnicode).of_variable(name))
        }
    }
}
