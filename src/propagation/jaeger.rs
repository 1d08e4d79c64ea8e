//! Jaeger's header, `uber-trace-id`. The crate that has it stands on an older OpenTelemetry.

use opentelemetry::Context;
use opentelemetry::propagation::text_map_propagator::FieldIter;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use percent_encoding::percent_decode_str;
use std::sync::LazyLock;

const HEADER: &str = "uber-trace-id";

/// `{trace id}:{span id}:{parent's span id, no longer used}:{flags}`, in hexadecimal digits.
#[derive(Debug)]
pub(crate) struct JaegerPropagator;

impl TextMapPropagator for JaegerPropagator {
    fn inject_context(&self, cx: &Context, injector: &mut dyn Injector) {
        let span = cx.span();
        let span = span.span_context();
        if span.is_valid() {
            let flags = u8::from(span.is_sampled());
            let (trace, span) = (span.trace_id(), span.span_id());
            injector.set(HEADER, format!("{trace}:{span}:0:{flags}"));
        }
    }

    fn extract_with_context(&self, cx: &Context, extractor: &dyn Extractor) -> Context {
        match extractor.get(HEADER).and_then(parsed) {
            Some(span) => cx.with_remote_span_context(span),
            None => cx.clone(),
        }
    }

    fn fields(&self) -> FieldIter<'_> {
        static FIELDS: LazyLock<[String; 1]> = LazyLock::new(|| [HEADER.to_owned()]);
        FieldIter::new(&*FIELDS)
    }
}

/// More than any sender writes, however much of it is encoded.
const MAX_BYTES: usize = 256;

fn parsed(header: &str) -> Option<SpanContext> {
    if header.len() > MAX_BYTES {
        return None;
    }
    // Some senders encode the colons.
    let header = percent_decode_str(header).decode_utf8().ok()?;
    let parts: Vec<&str> = header.trim().split(':').collect();
    let [trace, span, _parent, flags] = parts[..] else {
        return None;
    };
    const SAMPLED: u8 = 1;
    let is_sampled = u8::from_str_radix(flags, 16).ok()? & SAMPLED != 0;
    let span = SpanContext::new(
        TraceId::from(hex(trace, 32)?),
        SpanId::from(u64::try_from(hex(span, 16)?).ok()?),
        TraceFlags::default().with_sampled(is_sampled),
        true,
        TraceState::NONE,
    );
    span.is_valid().then_some(span)
}

/// Leading zeros may be missing.
fn hex(digits: &str, most: usize) -> Option<u128> {
    let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if digits.len() <= most && is_hex {
        u128::from_str_radix(digits, 16).ok()
    } else {
        None
    }
}
