//! B3 headers, by the crate that has them, with two mistakes of its version 0.33 kept in: it writes the
//! multiple headers beside the single one, and where there is no span it tells others not to sample.

use opentelemetry::Context;
use opentelemetry::propagation::text_map_propagator::FieldIter;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::TraceContextExt;
use opentelemetry_propagator_b3::{B3Encoding, Propagator};

#[derive(Debug)]
pub(crate) struct B3Propagator(Propagator);

impl B3Propagator {
    pub(crate) fn single_header() -> Self {
        Self(Propagator::with_encoding(B3Encoding::SingleHeader))
    }

    pub(crate) fn multiple_headers() -> Self {
        Self(Propagator::with_encoding(B3Encoding::MultipleHeader))
    }
}

impl TextMapPropagator for B3Propagator {
    fn inject_context(&self, cx: &Context, injector: &mut dyn Injector) {
        if cx.span().span_context().is_valid() {
            self.0.inject_context(cx, &mut OnlyFieldsOf(self, injector));
        }
    }

    fn extract_with_context(&self, cx: &Context, extractor: &dyn Extractor) -> Context {
        self.0.extract_with_context(cx, extractor)
    }

    fn fields(&self) -> FieldIter<'_> {
        self.0.fields()
    }
}

struct OnlyFieldsOf<'a>(&'a B3Propagator, &'a mut dyn Injector);

impl Injector for OnlyFieldsOf<'_> {
    fn set(&mut self, key: &str, value: String) {
        if self.0.fields().any(|field| field == key) {
            self.1.set(key, value);
        }
    }
}
