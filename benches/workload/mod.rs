//! What all benchmarks run: the same trees of spans, in each way to get two ids onto every span.
//!
//! [`Case`] is the way, [`Shape`] the tree. [`subscriber`] sets a case up, and [`Shape::run`] makes
//! the spans of one round. A call to another service counts as a span.

mod headers;
mod others;
#[allow(dead_code, reason = "not every benchmark has threads")]
pub(crate) mod threads;
mod trees;
mod turns;

use futures_util::FutureExt;
use opentelemetry::trace::{Tracer, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    Sampler, SdkTracerProvider, Span, SpanData, SpanExporter, SpanProcessor, TracerProviderBuilder,
};
use std::hint::black_box;
use std::time::Duration;
use tracing::Dispatch;
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_session::{
    Dialect, Privacy, SessionExporter, SessionLayer, SessionTracerProvider, export::IdPolicy,
    processors::SessionSpanProcessor,
};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::prelude::*;
use tracing_subscriber::{Layer, Registry};

pub(crate) const SESSION: &str = "01938c1e-6b1f-7c7a-9c7e-0f4f3b8e2a11";
pub(crate) const USER: &str = "user-4711";

/// A way to get a session and a user onto spans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Case {
    /// Not at all: `tracing` and OpenTelemetry alone.
    Baseline,
    /// Two ready-made attributes on each span, as cheap as it can be done. See [`others::Pushing`].
    Limit,
    /// Two fields on each span: `session.id = %id, user.id = %user`.
    HandWritten,
    /// The same without the `%`, where both are a `&str`.
    HandWrittenStr,
    /// W3C baggage, which a second span processor copies onto each span when it starts.
    BaggageProcessor,
    /// Inherited through the extensions of each span. See [`others::Inherited`].
    Extensions,
    /// This crate, said by the first span: `session!(id, user.id = user)`.
    TracingSession,
    /// This crate, said by a `Session` around the first span.
    SessionValue,
    /// The same as `TracingSession`, with both ids hashed. Without the feature `hash`: omitted.
    Hashed,
    /// The same as `TracingSession`, with coverage.
    Coverage,
    /// This crate's span processor, with a `Session` around the first span.
    SpanProcessor,
    /// This crate, with a default session.
    DefaultSession,
    /// This crate, with the fields `session.id` and `user.id` of the first span.
    Field,
    /// The same fields, recorded when the span has been entered.
    Late,
    /// This crate, with `set_session_id` and `set_user_id` in the first span.
    Set,
    /// The same, and `mark_trace`.
    Marked,
    /// This crate, with a turn of a `Conversation`, which is the first span.
    Conversation,
    /// Two ids, three metadata and two tags as fields on each span.
    HandWrittenFull,
    /// The same values in `session!`.
    Full,
    /// The same values in a `Session`.
    FullValue,
    /// W3C baggage, which OpenTelemetry's propagator carries. The session is put there by hand.
    BaggagePropagator,
    /// This crate's propagator, with a `Session` in force.
    SessionPropagator,
}

/// In the order in which they are told of. The first is what the others are compared with.
const ALL: &[Case] = &[
    Case::Baseline,
    Case::Limit,
    Case::HandWritten,
    Case::HandWrittenStr,
    Case::BaggageProcessor,
    Case::Extensions,
    Case::TracingSession,
    Case::SessionValue,
    Case::Hashed,
    Case::SpanProcessor,
];

/// Where nothing says a session.
const OUTSIDE: &[Case] = &[
    Case::Baseline,
    Case::BaggageProcessor,
    Case::Extensions,
    Case::TracingSession,
    Case::Coverage,
    Case::SpanProcessor,
    Case::DefaultSession,
];

/// Where all is said that a session can say.
const FULL: &[Case] = &[
    Case::Baseline,
    Case::HandWritten,
    Case::TracingSession,
    Case::SessionValue,
];

/// Each way to set a session.
const WAYS: &[Case] = &[
    Case::Baseline,
    Case::HandWritten,
    Case::TracingSession,
    Case::SessionValue,
    Case::Field,
    Case::Late,
    Case::Set,
    Case::Marked,
    Case::Conversation,
    Case::DefaultSession,
    Case::Hashed,
    Case::Coverage,
    Case::HandWrittenFull,
    Case::Full,
    Case::FullValue,
];

/// By a span, and by a `Session` around it.
const BOTH: &[Case] = &[
    Case::Baseline,
    Case::HandWritten,
    Case::TracingSession,
    Case::SessionValue,
];

const EXPORTED: &[Case] = &[Case::Baseline, Case::TracingSession, Case::FullValue];

const DISABLED: &[Case] = &[Case::Baseline, Case::TracingSession];

/// From service to service, each beside `TraceContextPropagator`, which is the baseline.
const CALLS: &[Case] = &[
    Case::Baseline,
    Case::BaggagePropagator,
    Case::SessionPropagator,
];

impl Case {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Baseline => "baseline",
            Self::Limit => "limit",
            Self::HandWritten => "hand_written",
            Self::HandWrittenStr => "hand_written_str",
            Self::BaggageProcessor => "baggage_processor",
            Self::Extensions => "extensions",
            Self::TracingSession => "tracing_session",
            Self::SessionValue => "session_value",
            Self::Hashed => "hashed",
            Self::Coverage => "coverage",
            Self::SpanProcessor => "span_processor",
            Self::DefaultSession => "default_session",
            Self::Field => "field",
            Self::Late => "late",
            Self::Set => "set",
            Self::Marked => "set_and_marked",
            Self::Conversation => "conversation",
            Self::HandWrittenFull => "hand_written_full",
            Self::Full => "full",
            Self::FullValue => "full_value",
            Self::BaggagePropagator => "baggage_propagator",
            Self::SessionPropagator => "session_propagator",
        }
    }
}

/// A tree of spans.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) name: &'static str,
    /// How many spans a round has.
    pub(crate) spans: u64,
    pub(crate) cases: &'static [Case],
    round: fn(Case),
    set_up: SetUp,
}

/// What stands around the OpenTelemetry layer.
#[derive(Clone, Copy, PartialEq)]
enum SetUp {
    Usual,
    Unsampled,
    /// `SessionSampler`, which decides on each span, or on roots.
    #[cfg(feature = "sampler")]
    Sampler,
    #[cfg(feature = "sampler")]
    SamplerOfRoots,
    /// Exports OpenInference's keys and those of this number of further dialects.
    Dialects(usize),
    /// A level filter on the whole subscriber.
    Levels,
    /// A level filter on the OpenTelemetry layer.
    LayerLevels,
}

impl Shape {
    const fn new(name: &'static str, spans: u64, round: fn(Case)) -> Self {
        Self {
            name,
            spans,
            cases: ALL,
            round,
            set_up: SetUp::Usual,
        }
    }

    const fn with_cases(self, cases: &'static [Case]) -> Self {
        Self { cases, ..self }
    }

    const fn with_set_up(self, set_up: SetUp) -> Self {
        Self { set_up, ..self }
    }

    /// Makes the spans once. The subscriber of `case` has to be in place.
    pub(crate) fn run(&self, case: Case) {
        (self.round)(case);
    }
}

pub(crate) const SHAPES: &[Shape] = &[
    Shape::new("tree13", 13, trees::tree13),
    Shape::new("chain4", 4, |case| trees::chain(case, 4)),
    Shape::new("chain64", 64, |case| trees::chain(case, 64)),
    Shape::new("wide1000", 1001, |case| trees::wide(case, 1000)),
    Shape::new("metadata", 1001, |case| trees::full(case, 1000, &[])).with_cases(FULL),
    Shape::new("full", 1001, |case| trees::full(case, 1000, trees::TAGS)).with_cases(FULL),
    Shape::new("session1", 1, |case| trees::wide(case, 0)),
    Shape::new("session_per_3", 12, trees::session_per_3),
    Shape::new("async0", 13, |case| trees::asynchronous(case, 0)),
    Shape::new("async10", 13, |case| trees::asynchronous(case, 10)),
    Shape::new("remote", 13, trees::remote),
    Shape::new("unsampled", 13, trees::tree13).with_set_up(SetUp::Unsampled),
    Shape::new("filtered", 13, trees::tree13).with_set_up(SetUp::LayerLevels),
    Shape::new("outside", 13, |_| trees::tree13(Case::Baseline)).with_cases(OUTSIDE),
    Shape::new("outside1", 1, |_| trees::wide(Case::Baseline, 0)).with_cases(OUTSIDE),
    Shape::new("turn", 31, turns::turn).with_cases(WAYS),
    Shape::new("turn_unsampled", 31, turns::turn)
        .with_cases(BOTH)
        .with_set_up(SetUp::Unsampled),
    #[cfg(feature = "sampler")]
    Shape::new("turn_sampler", 31, turns::turn)
        .with_cases(BOTH)
        .with_set_up(SetUp::Sampler),
    #[cfg(feature = "sampler")]
    Shape::new("turn_sampler_of_roots", 31, turns::turn)
        .with_cases(BOTH)
        .with_set_up(SetUp::SamplerOfRoots),
    Shape::new("turn_exported", 31, turns::turn)
        .with_cases(EXPORTED)
        .with_set_up(SetUp::Dialects(0)),
    Shape::new("turn_dialect", 31, turns::turn)
        .with_cases(EXPORTED)
        .with_set_up(SetUp::Dialects(1)),
    Shape::new("turn_dialects", 31, turns::turn)
        .with_cases(EXPORTED)
        .with_set_up(SetUp::Dialects(2)),
    Shape::new("handler1", 2, |case| turns::handler(case, 0)).with_cases(WAYS),
    Shape::new("handler2", 3, |case| turns::handler(case, 1)).with_cases(WAYS),
    Shape::new("disabled", 13, |_| trees::disabled())
        .with_cases(DISABLED)
        .with_set_up(SetUp::Levels),
    Shape::new("disabled_filtered", 13, |_| trees::disabled())
        .with_cases(DISABLED)
        .with_set_up(SetUp::LayerLevels),
    Shape::new("inject", 1, |case| headers::inject(case, false)).with_cases(CALLS),
    Shape::new("inject_others", 1, |case| headers::inject(case, true)).with_cases(CALLS),
    Shape::new("extract", 1, |case| headers::extract(case, false)).with_cases(CALLS),
    Shape::new("extract_others", 1, |case| headers::extract(case, true)).with_cases(CALLS),
];

/// What an application of this case installs.
pub(crate) fn subscriber(shape: &Shape, case: Case) -> Dispatch {
    let mut provider = SdkTracerProvider::builder();
    if case == Case::BaggageProcessor {
        provider = provider.with_span_processor(others::BaggageProcessor);
    }
    if case == Case::SpanProcessor {
        provider = provider.with_span_processor(SessionSpanProcessor::new());
    }
    let provider = with_sampler(provider, shape, case);
    let provider = match shape.set_up {
        SetUp::Dialects(_) if case == Case::Baseline => {
            provider.with_span_processor(Exporting(Nowhere))
        }
        SetUp::Dialects(count) => {
            let further = [Dialect::LANGFUSE, Dialect::LANGSMITH]
                .into_iter()
                .take(count);
            let all = further.fold(Dialect::OPENINFERENCE, Dialect::and);
            let exporter = SessionExporter::new(Nowhere).with_dialect(all);
            provider.with_span_processor(Exporting(exporter))
        }
        _ => provider.with_span_processor(Discard),
    };
    let provider = provider.build();
    let ours = || SessionTracerProvider::new(provider.clone()).tracer("bench");
    match case {
        Case::Baseline
        | Case::HandWritten
        | Case::HandWrittenStr
        | Case::HandWrittenFull
        | Case::BaggageProcessor
        | Case::SpanProcessor
        | Case::BaggagePropagator => installed(shape, otel(provider.tracer("bench"))),
        Case::Limit => {
            let ready = [("session.id", SESSION), ("user.id", USER)];
            let ready = ready.map(|(key, id)| KeyValue::new(key, std::sync::Arc::from(id)));
            let tracer =
                others::Pushing::new(provider.tracer("bench"), move || Some(ready.clone()));
            installed(shape, otel(tracer))
        }
        Case::Extensions => {
            let tracer = others::Pushing::new(provider.tracer("bench"), others::inherited);
            installed(shape, others::Inherited.and_then(otel(tracer)))
        }
        Case::TracingSession
        | Case::SessionValue
        | Case::Field
        | Case::Late
        | Case::Set
        | Case::Marked
        | Case::Conversation
        | Case::Full
        | Case::FullValue
        | Case::SessionPropagator => around(shape, SessionLayer::new(), otel(ours())),
        Case::Hashed => {
            let ours = SessionTracerProvider::new(provider.clone()).with_privacy(hashed());
            around(shape, SessionLayer::new(), otel(ours.tracer("bench")))
        }
        Case::Coverage => {
            let ours = SessionTracerProvider::new(provider.clone()).with_coverage();
            around(shape, SessionLayer::new(), otel(ours.tracer("bench")))
        }
        Case::DefaultSession => {
            // A process may build several of these.
            let _already = trees::session().set_global_default();
            around(shape, SessionLayer::new(), otel(ours()))
        }
    }
}

/// The sampler of a shape. The cases without this crate have the SDK's.
#[cfg(feature = "sampler")]
fn with_sampler(
    provider: TracerProviderBuilder,
    shape: &Shape,
    case: Case,
) -> TracerProviderBuilder {
    let is_ours = !matches!(case, Case::Baseline | Case::HandWritten);
    let ours = tracing_session::SessionSampler::new(1.0);
    let theirs = Sampler::AlwaysOn;
    match shape.set_up {
        SetUp::Unsampled => provider.with_sampler(Sampler::AlwaysOff),
        SetUp::Sampler if is_ours => provider.with_sampler(ours),
        SetUp::SamplerOfRoots if is_ours => provider.with_sampler(Sampler::parent_based(ours)),
        SetUp::SamplerOfRoots => provider.with_sampler(Sampler::parent_based(theirs)),
        _ => provider,
    }
}

#[cfg(not(feature = "sampler"))]
fn with_sampler(provider: TracerProviderBuilder, shape: &Shape, _: Case) -> TracerProviderBuilder {
    match shape.set_up {
        SetUp::Unsampled => provider.with_sampler(Sampler::AlwaysOff),
        _ => provider,
    }
}

fn hashed() -> Privacy {
    #[cfg(feature = "hash")]
    let policy = IdPolicy::hashed(SESSION).unwrap_or_default();
    #[cfg(not(feature = "hash"))]
    let policy = IdPolicy::omitted();
    Privacy::new()
        .with_user_ids(policy.clone())
        .with_session_ids(policy)
}

fn otel<S, T>(tracer: T) -> OpenTelemetryLayer<S, T>
where
    S: tracing::Subscriber + for<'span> tracing_subscriber::registry::LookupSpan<'span>,
    T: Tracer + Send + Sync + 'static,
    T::Span: Send + Sync,
{
    tracing_opentelemetry::layer().with_tracer(tracer)
}

fn installed(shape: &Shape, otel: impl Layer<Registry> + Send + Sync) -> Dispatch {
    let registry = tracing_subscriber::registry();
    match shape.set_up {
        SetUp::Levels => registry.with(otel).with(LevelFilter::INFO).into(),
        SetUp::LayerLevels => registry.with(otel.with_filter(LevelFilter::INFO)).into(),
        _ => registry.with(otel).into(),
    }
}

fn around(
    shape: &Shape,
    layer: SessionLayer,
    otel: impl Layer<Registry> + Send + Sync,
) -> Dispatch {
    match shape.set_up {
        SetUp::LayerLevels => {
            let layer = layer.wrap_filtered(otel, LevelFilter::INFO);
            tracing_subscriber::registry().with(layer).into()
        }
        _ => installed(shape, layer.wrap(otel)),
    }
}

/// Takes no lock, so that threads share nothing but what they are measured for.
#[derive(Debug)]
struct Discard;

impl SpanProcessor for Discard {
    fn on_start(&self, _span: &mut Span, _cx: &Context) {}

    fn on_end(&self, span: SpanData) {
        black_box(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// Exports each span when it ends, to nowhere.
#[derive(Debug)]
struct Exporting<E>(E);

impl<E: SpanExporter> SpanProcessor for Exporting<E> {
    fn on_start(&self, _span: &mut Span, _cx: &Context) {}

    fn on_end(&self, span: SpanData) {
        let _exported = self.0.export(vec![span]).now_or_never();
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}

#[derive(Debug)]
struct Nowhere;

impl SpanExporter for Nowhere {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        black_box(batch);
        Ok(())
    }
}
