//! B3 headers: <https://github.com/openzipkin/b3-propagation>.
//!
//! The crate that has them writes, in its version 0.33, the multiple headers beside the single one,
//! tells others not to sample where there is no span, and takes a trace for debugging as not sampled.

use opentelemetry::Context;
use opentelemetry::propagation::text_map_propagator::FieldIter;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use std::sync::LazyLock;

const SINGLE: &str = "b3";
const TRACE_ID: &str = "x-b3-traceid";
const SPAN_ID: &str = "x-b3-spanid";
const SAMPLED: &str = "x-b3-sampled";
const FLAGS: &str = "x-b3-flags";

/// Writes one of the two forms, and reads both.
#[derive(Clone, Copy, Debug)]
pub(crate) enum B3Propagator {
    SingleHeader,
    MultipleHeaders,
}

impl TextMapPropagator for B3Propagator {
    fn inject_context(&self, cx: &Context, injector: &mut dyn Injector) {
        let span = cx.span();
        let span = span.span_context();
        if !span.is_valid() {
            return;
        }
        let (trace, sampled) = (span.trace_id(), u8::from(span.is_sampled()));
        let span = span.span_id();
        match self {
            Self::SingleHeader => injector.set(SINGLE, format!("{trace}-{span}-{sampled}")),
            Self::MultipleHeaders => {
                injector.set(TRACE_ID, trace.to_string());
                injector.set(SPAN_ID, span.to_string());
                injector.set(SAMPLED, sampled.to_string());
            }
        }
    }

    fn extract_with_context(&self, cx: &Context, extractor: &dyn Extractor) -> Context {
        match single(extractor).or_else(|| multiple(extractor)) {
            Some(span) => cx.with_remote_span_context(span),
            None => cx.clone(),
        }
    }

    fn fields(&self) -> FieldIter<'_> {
        static FIELDS: LazyLock<[String; 4]> =
            LazyLock::new(|| [SINGLE, TRACE_ID, SPAN_ID, SAMPLED].map(str::to_owned));
        FieldIter::new(match self {
            Self::SingleHeader => &FIELDS[..1],
            Self::MultipleHeaders => &FIELDS[1..],
        })
    }
}

/// `{trace id}-{span id}-{sampled}-{parent's span id}`, of which the last two may be missing.
fn single(extractor: &dyn Extractor) -> Option<SpanContext> {
    let mut parts = extractor.get(SINGLE)?.trim().split('-');
    let (trace, span) = (parts.next()?, parts.next()?);
    parsed(trace, span, parts.next())
}

fn multiple(extractor: &dyn Extractor) -> Option<SpanContext> {
    let debug = (extractor.get(FLAGS) == Some("1")).then_some("d");
    let sampled = debug.or_else(|| extractor.get(SAMPLED));
    parsed(extractor.get(TRACE_ID)?, extractor.get(SPAN_ID)?, sampled)
}

/// A decision that was left to us is as good as none.
fn parsed(trace: &str, span: &str, sampled: Option<&str>) -> Option<SpanContext> {
    let is_hex = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if ![16, 32].contains(&trace.len()) || span.len() != 16 || !is_hex(trace) || !is_hex(span) {
        return None;
    }
    // Debugging implies sampling. Older senders spell it out.
    let is_sampled = match sampled.map(str::trim) {
        Some("1" | "d" | "true") => true,
        Some("0" | "false") | None => false,
        Some(_) => return None,
    };
    let span = SpanContext::new(
        TraceId::from_hex(trace).ok()?,
        SpanId::from_hex(span).ok()?,
        TraceFlags::default().with_sampled(is_sampled),
        true,
        TraceState::NONE,
    );
    span.is_valid().then_some(span)
}
