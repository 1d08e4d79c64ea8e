//! Spans that are known by their ids alone: as a parent, or at the other end of a link.

use crate::error::{Error, ErrorKind};
use crate::here;
use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};

/// A span that is known by its ids, to [link] a span to it.
///
/// The trace id has 32 hexadecimal digits and the span id 16, as they display in OpenTelemetry. Those
/// of Tracia are read as well: `tr_` or `sp_` and 16 digits. A trace id of 16 digits is filled with zeros
/// on the left, as in B3. The span counts as sampled.
///
/// A [`Conversation`](crate::Conversation) does this by itself.
///
/// # Errors
///
/// When an id is not one: [`Error::is_invalid_state`].
///
/// ```
/// use tracing_opentelemetry::OpenTelemetrySpanExt;
/// use tracing_session::link_context;
///
/// let turn = tracing::info_span!("turn");
/// turn.add_link(link_context("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7")?);
///
/// let error = link_context("4bf92f35", "00f067aa0ba902b7").unwrap_err();
/// assert!(error.is_invalid_state());
/// # Ok::<(), tracing_session::Error>(())
/// ```
///
/// [link]: tracing_opentelemetry::OpenTelemetrySpanExt::add_link
pub fn link_context(trace_id: &str, span_id: &str) -> Result<SpanContext, Error> {
    Ok(sampled(self::trace_id(trace_id)?, self::span_id(span_id)?))
}

/// A span that is known by its ids, to make it the [parent] of a span. What is in force here stays.
///
/// Ids are those of [`link_context`].
///
/// # Errors
///
/// When an id is not one: [`Error::is_invalid_state`].
///
/// ```
/// use tracing_opentelemetry::OpenTelemetrySpanExt;
/// use tracing_session::parent_context;
///
/// let turn = tracing::info_span!("turn");
/// let parent = parent_context("tr_a3ce929d0e0e4736", "sp_00f067aa0ba902b7")?;
/// let _ = turn.set_parent(parent); // an error without a subscriber, as here
/// # Ok::<(), tracing_session::Error>(())
/// ```
///
/// [parent]: tracing_opentelemetry::OpenTelemetrySpanExt::set_parent
pub fn parent_context(trace_id: &str, span_id: &str) -> Result<Context, Error> {
    Ok(here::get().with_remote_span_context(link_context(trace_id, span_id)?))
}

/// A span of another process, in a trace that counts as sampled.
pub(crate) fn sampled(trace: TraceId, span: SpanId) -> SpanContext {
    SpanContext::new(trace, span, TraceFlags::SAMPLED, true, TraceState::NONE)
}

pub(crate) fn trace_id(text: &str) -> Result<TraceId, Error> {
    let digits = digits(text).filter(|it| [16, 32].contains(&it.len()));
    let id = digits.and_then(|it| TraceId::from_hex(it).ok());
    let valid = id.filter(|id| *id != TraceId::INVALID);
    valid.ok_or_else(|| ErrorKind::NotATraceId.into())
}

pub(crate) fn span_id(text: &str) -> Result<SpanId, Error> {
    let digits = digits(text).filter(|it| it.len() == 16);
    let id = digits.and_then(|it| SpanId::from_hex(it).ok());
    let valid = id.filter(|id| *id != SpanId::INVALID);
    valid.ok_or_else(|| ErrorKind::NotASpanId.into())
}

/// The digits of an id. Tracia puts three letters in front.
fn digits(text: &str) -> Option<&str> {
    let digits = match text.split_at_checked(3) {
        Some((prefix, digits)) if digits.len() == 16 => {
            let mut tracia = ["tr_", "sp_"].iter();
            tracia.find(|it| prefix.eq_ignore_ascii_case(it))?;
            digits
        }
        _ => text,
    };
    // A sign is a number's, and not an id's.
    let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hex.then_some(digits)
}
