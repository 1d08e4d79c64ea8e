//! The current span in the headers of B3 and of Jaeger.
//!
//! The crate for B3 writes, in its version 0.33, the multiple headers beside the single one, tells others
//! not to sample where there is no span, and takes a trace for debugging as not sampled. The crate for
//! Jaeger stands on an older OpenTelemetry.

use opentelemetry::Context;
use opentelemetry::propagation::text_map_propagator::FieldIter;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use percent_encoding::percent_decode_str;
use std::sync::LazyLock;

const B3: &str = "b3";
const B3_TRACE_ID: &str = "x-b3-traceid";
const B3_SPAN_ID: &str = "x-b3-spanid";
const B3_SAMPLED: &str = "x-b3-sampled";
const B3_FLAGS: &str = "x-b3-flags";
const JAEGER: &str = "uber-trace-id";

/// Of B3's two forms it writes one, and reads both: <https://github.com/openzipkin/b3-propagation>.
#[derive(Clone, Copy, Debug)]
pub(crate) enum SpanHeaders {
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

/// `{trace id}-{span id}-{sampled}-{parent's span id}`, of which the last two may be missing.
fn b3_single(extractor: &dyn Extractor) -> Option<SpanContext> {
    let mut parts = extractor.get(B3)?.trim().split('-');
    let (trace, span) = (parts.next()?, parts.next()?);
    b3(trace, span, parts.next())
}

fn b3_multi(extractor: &dyn Extractor) -> Option<SpanContext> {
    let debug = (extractor.get(B3_FLAGS) == Some("1")).then_some("d");
    let sampled = debug.or_else(|| extractor.get(B3_SAMPLED));
    b3(
        extractor.get(B3_TRACE_ID)?,
        extractor.get(B3_SPAN_ID)?,
        sampled,
    )
}

/// A decision that was left to us is as good as none.
fn b3(trace: &str, span: &str, sampled: Option<&str>) -> Option<SpanContext> {
    // Debugging implies sampling. Older senders spell it out.
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
    /// More than any sender writes, however much of it is encoded.
    const MAX_BYTES: usize = 256;
    const SAMPLED: u8 = 1;
    if header.len() > MAX_BYTES {
        return None;
    }
    // Some senders encode the colons.
    let header = percent_decode_str(header).decode_utf8().ok()?;
    let parts: Vec<&str> = header.trim().split(':').collect();
    let [trace, span, _parent, flags] = parts[..] else {
        return None;
    };
    remote(
        trace,
        span,
        u8::from_str_radix(flags, 16).ok()? & SAMPLED != 0,
    )
}

/// The span that a header names. Leading zeros of its ids may be missing.
fn remote(trace: &str, span: &str, is_sampled: bool) -> Option<SpanContext> {
    // The parser of numbers would take a sign.
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
