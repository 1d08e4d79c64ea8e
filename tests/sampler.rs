//! What a `SessionSampler` keeps, and what it writes.

mod hostile;
mod share;
mod sources;
mod state;
mod with_others;

use crate::support::App;
use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, SpanKind, TraceFlags, TraceId, TraceState};
use opentelemetry_sdk::trace::{SamplingDecision, SamplingResult, ShouldSample};
use tracing_session::{Session, SessionLayer, SessionSampler};

/// Sessions of which each of two samplers, at 0.1 and 0.5, says something else. See the vectors.
const AT_TENTH: &str = "chat-10193";
const AT_TENTH_RV: &str = "e66729392fa79f";
const AT_HALF: &str = "chat-43";
const AT_HALF_RV: &str = "8d93fa601d88e9";
const NEVER: &str = "chat-42";
const NEVER_RV: &str = "77a6450883c04c";

/// What a sampler says of a span that is started under `cx`.
fn asked(sampler: &dyn ShouldSample, cx: &Context) -> SamplingResult {
    asked_of(sampler, cx, TraceId::from(7))
}

/// The same of a span of this trace.
fn asked_of(sampler: &dyn ShouldSample, cx: &Context, trace: TraceId) -> SamplingResult {
    sampler.should_sample(Some(cx), trace, "turn", &SpanKind::Internal, &[], &[])
}

/// What a sampler says of a root in this session.
fn in_session(sampler: &dyn ShouldSample, id: &str) -> SamplingResult {
    let _in = Session::new(id).unwrap().attach();
    asked(sampler, &Context::current())
}

fn is_kept(said: &SamplingResult) -> bool {
    said.decision == SamplingDecision::RecordAndSample
}

/// The `Context` that a request with this `tracestate` brings.
fn remote(state: &str, sampled: bool) -> Context {
    use opentelemetry::trace::TraceContextExt;
    Context::new().with_remote_span_context(SpanContext::new(
        TraceId::from(7),
        SpanId::from(8),
        TraceFlags::default().with_sampled(sampled),
        true,
        state.parse::<TraceState>().unwrap(),
    ))
}

/// An application whose provider has this sampler.
fn app(sampler: impl ShouldSample + 'static) -> App {
    App::with_provider(
        |builder| builder.with_sampler(sampler),
        |otel| SessionLayer::new().wrap(otel),
    )
}

/// The names of the spans that were exported.
fn kept(app: &App) -> Vec<String> {
    let spans = app.spans().into_iter();
    spans.map(|span| span.name.into_owned()).collect()
}

#[test]
fn invalid_ratio_keeps_nothing_or_everything_with_one_warning() {
    for (ratio, keeps, reported) in [
        (0.0, false, None),
        (1.0, true, None),
        (f64::MIN_POSITIVE, false, None),
        (-0.1, false, Some(("-0.1", "no"))),
        (f64::NAN, false, Some(("NaN", "no"))),
        (f64::NEG_INFINITY, false, Some(("-inf", "no"))),
        (10.0, true, Some(("10", "every"))),
        (f64::INFINITY, true, Some(("inf", "every"))),
    ] {
        let _the_same = SessionSampler::new(ratio);
        let sampler = SessionSampler::new(ratio);
        let app = app(sampler.clone());
        Session::new(AT_TENTH)
            .unwrap()
            .in_scope(|| tracing::info_span!("turn").in_scope(|| {}));
        tracing::info_span!("outside").in_scope(|| {});
        assert_eq!(kept(&app).len(), if keeps { 2 } else { 0 }, "{ratio}");
        let reported = reported.map(|(ratio, share)| {
            format!(
                "the ratio {ratio} of a `SessionSampler` is not between 0 and 1, so it keeps {share} session: write 0.1 \
                 for one session in ten"
            )
        });
        assert_eq!(
            app.diagnostics.messages(),
            Vec::from_iter(reported),
            "{ratio}"
        );
    }
}

#[test]
fn debug_output_has_the_ratio() {
    let sampler = SessionSampler::new(0.25).always_keep(|_| true);
    assert_eq!(
        format!("{sampler:?}"),
        "SessionSampler { ratio: 0.25, fallback: None, .. }"
    );
    let of = |ratio| format!("{:?}", SessionSampler::new(ratio));
    assert!(of(0.0).contains("ratio: 0.0,"));
    // 2^-56: nobody who wants some sessions gets none.
    assert!(of(f64::MIN_POSITIVE).contains("ratio: 1.3877787807814457e-17,"));
}
