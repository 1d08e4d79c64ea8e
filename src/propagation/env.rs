//! The propagators that the environment can name: OpenTelemetry's own, the session's, and those for the headers of B3
//! and Jaeger.
//!
//! Why not OpenTelemetry's crates for these two: version 0.33 of the B3 crate writes the multiple headers beside the
//! single one, injects "not sampled" where there is no span, and extracts a debug trace as not sampled. The Jaeger crate
//! needs an older OpenTelemetry.

use crate::error::{Error, ErrorKind};
use crate::propagation::propagator::{SESSION_HEADER_NAME, SessionPropagator};
use opentelemetry::Context;
use opentelemetry::propagation::text_map_propagator::FieldIter;
use opentelemetry::propagation::{
    Extractor, Injector, TextMapCompositePropagator, TextMapPropagator,
};
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use percent_encoding::percent_decode_str;
use std::env::VarError;
use std::sync::LazyLock;

/// The propagators that the environment names, and the session's.
///
/// - `OTEL_PROPAGATORS`, a list of `tracecontext`, `baggage`, `b3`, `b3multi`, `jaeger` and `none`;
/// - or else `MIRASCOPE_PROPAGATOR`, one of `tracecontext`, `b3`, `b3multi`, `jaeger` and
///   `composite`, which is all of them;
/// - or else `tracecontext,baggage`.
///
/// The session's propagator is always added. It uses W3C baggage if `baggage` is in the list, and otherwise
/// [`SESSION_HEADER_NAME`]. A blank variable counts as not set.
///
/// # Errors
///
/// If a variable names another propagator. The error lists the valid names.
///
/// ```
/// use tracing_session::propagator_from_env;
///
/// // OpenTelemetry's global propagator does nothing until it is set.
/// opentelemetry::global::set_text_map_propagator(propagator_from_env()?);
/// # Ok::<(), tracing_session::Error>(())
/// ```
pub fn propagator_from_env() -> Result<TextMapCompositePropagator, Error> {
    const OTEL: &str = "OTEL_PROPAGATORS";
    const MIRASCOPE: &str = "MIRASCOPE_PROPAGATOR";
    let (source, value) = if let Some(list) = variable(OTEL)? {
        (OTEL, list)
    } else if let Some(name) = variable(MIRASCOPE)? {
        (MIRASCOPE, name)
    } else {
        (OTEL, "tracecontext,baggage".to_owned())
    };
    let (valid, names): (_, Vec<_>) = match (source, value.as_str()) {
        (OTEL, list) => (
            "tracecontext, baggage, b3, b3multi, jaeger, none",
            list.split(',').map(str::trim).collect(),
        ),
        (_, "composite") => ("", vec!["tracecontext", "b3", "b3multi", "jaeger"]),
        (_, name) => ("tracecontext, b3, b3multi, jaeger, composite", vec![name]),
    };
    let mut propagators: Vec<Box<dyn TextMapPropagator + Send + Sync>> = Vec::new();
    let mut baggage = false;
    for name in names {
        match name {
            "" | "none" if source == OTEL => {}
            // The session's propagator carries all of the baggage.
            "baggage" if source == OTEL => baggage = true,
            "tracecontext" => propagators.push(Box::new(TraceContextPropagator::new())),
            "b3" => propagators.push(Box::new(SpanHeaders::B3Single)),
            "b3multi" => propagators.push(Box::new(SpanHeaders::B3Multi)),
            "jaeger" => propagators.push(Box::new(SpanHeaders::Jaeger)),
            name => {
                let error = Error::from(ErrorKind::Propagator(valid));
                return Err(error.of_variable(source).about(name));
            }
        }
    }
    let mut session = SessionPropagator::new().with_baggage(baggage);
    if !baggage {
        session = session.with_header(SESSION_HEADER_NAME)?;
    }
    propagators.push(Box::new(session));
    Ok(TextMapCompositePropagator::new(propagators))
}

/// The value of a variable, if it is set and not blank.
pub(crate) fn variable(name: &str) -> Result<Option<String>, Error> {
    match std::env::var(name) {
        Ok(value) => Ok(Some(value).filter(|value| !value.trim().is_empty())),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => {
            Err(Error::from(ErrorKind::VariableNotUnicode).of_variable(name))
        }
    }
}

const B3: &str = "b3";
const B3_TRACE_ID: &str = "x-b3-traceid";
const B3_SPAN_ID: &str = "x-b3-spanid";
const B3_SAMPLED: &str = "x-b3-sampled";
const B3_FLAGS: &str = "x-b3-flags";
const JAEGER: &str = "uber-trace-id";

/// Injects and extracts the current span. Of [B3's two forms](https://github.com/openzipkin/b3-propagation) it injects
/// one, and extracts both.
#[derive(Clone, Copy, Debug)]
enum SpanHeaders {
    B3Single,
    B3Multi,
    Jaeger,
}

impl TextMapPropagator for SpanHeaders {
    fn inject_context(&self, cx: &Context, injector: &mut dyn Injector) {
        let span = cx.span();
        let span = span.span_context();
        if !span.is_valid() {
            return;
        }
        let (trace, sampled) = (span.trace_id(), u8::from(span.is_sampled()));
        let span = span.span_id();
        match self {
            Self::B3Single => injector.set(B3, format!("{trace}-{span}-{sampled}")),
            Self::B3Multi => {
                injector.set(B3_TRACE_ID, trace.to_string());
                injector.set(B3_SPAN_ID, span.to_string());
                injector.set(B3_SAMPLED, sampled.to_string());
            }
            Self::Jaeger => injector.set(JAEGER, format!("{trace}:{span}:0:{sampled}")),
        }
    }

    fn extract_with_context(&self, cx: &Context, extractor: &dyn Extractor) -> Context {
        let span = match self {
            Self::B3Single | Self::B3Multi => b3_single(extractor).or_else(|| b3_multi(extractor)),
            Self::Jaeger => extractor.get(JAEGER).and_then(jaeger),
        };
        match span {
            Some(span) => cx.with_remote_span_context(span),
            None => cx.clone(),
        }
    }

    fn fields(&self) -> FieldIter<'_> {
        static FIELDS: LazyLock<[String; 5]> =
            LazyLock::new(|| [B3, B3_TRACE_ID, B3_SPAN_ID, B3_SAMPLED, JAEGER].map(str::to_owned));
        FieldIter::new(match self {
            Self::B3Single => &FIELDS[..1],
            Self::B3Multi => &FIELDS[1..4],
            Self::Jaeger => &FIELDS[4..],
        })
    }
}

/// `{trace id}-{span id}-{sampled}-{parent's span id}`. The last two may be missing.
fn b3_single(extractor: &dyn Extractor) -> Option<SpanContext> {
    let mut parts = extractor.get(B3)?.trim().split('-');
    let (trace, span) = (parts.next()?, parts.next()?);
    b3(trace, span, parts.next())
}

fn b3_multi(extractor: &dyn Extractor) -> Option<SpanContext> {
    let debug = (extractor.get(B3_FLAGS) == Some("1")).then_some("d");
    let sampled = debug.or_else(|| extractor.get(B3_SAMPLED));
    let (trace, span) = (extractor.get(B3_TRACE_ID)?, extractor.get(B3_SPAN_ID)?);
    b3(trace, span, sampled)
}

/// A missing decision (B3's "deferred") counts as not sampled.
fn b3(trace: &str, span: &str, sampled: Option<&str>) -> Option<SpanContext> {
    // Debug implies sampled. Older senders write `true` and `false`.
    let is_sampled = match sampled.map(str::trim) {
        Some("1" | "d" | "true") => true,
        Some("0" | "false") | None => false,
        Some(_) => return None,
    };
    let has_all_digits = matches!((trace.len(), span.len()), (16 | 32, 16));
    has_all_digits.then(|| remote(trace, span, is_sampled))?
}

/// `{trace id}:{span id}:{parent's span id, no longer used}:{flags}`, in hexadecimal digits.
fn jaeger(header: &str) -> Option<SpanContext> {
    /// More than any sender writes, even percent-encoded.
    const MAX_BYTES: usize = 256;
    const SAMPLED: u8 = 1;
    if header.len() > MAX_BYTES {
        return None;
    }
    // Some senders percent-encode the colons.
    let header = percent_decode_str(header).decode_utf8().ok()?;
    let parts: Vec<&str> = header.trim().split(':').collect();
    let [trace, span, _parent, flags] = parts[..] else {
        return None;
    };
    let flags = u8::from_str_radix(flags, 16).ok()?;
    remote(trace, span, flags & SAMPLED != 0)
}

/// The span context in a header. Its ids may lack leading zeros.
fn remote(trace: &str, span: &str, is_sampled: bool) -> Option<SpanContext> {
    // `from_hex` would accept a sign.
    let is_id = |digits: &str, most: usize| {
        digits.len() <= most && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    if !is_id(trace, 32) || !is_id(span, 16) {
        return None;
    }
    let span = SpanContext::new(
        TraceId::from_hex(trace).ok()?,
        SpanId::from_hex(span).ok()?,
        TraceFlags::default().with_sampled(is_sampled),
        true,
        TraceState::NONE,
    );
    span.is_valid().then_some(span)
}
