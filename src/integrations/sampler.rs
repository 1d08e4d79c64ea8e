//! Head sampling by session, with OpenTelemetry's consistent probability sampling: a span is sampled if its randomness isn't
//! below the threshold. The `tracestate` contains both.

use crate::base::diagnostic;
use crate::scope::Scope;
use crate::session::Session;
use opentelemetry::trace::{Link, SpanKind, TraceContextExt, TraceId, TraceState};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{SamplingDecision, SamplingResult, ShouldSample};
use sha2::{Digest, Sha256};
use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;

/// Samples a share of all sessions, each session as a whole.
///
/// The decision is a [function](#how-the-sampler-decides) of the session id alone, so all services make the same decision, in
/// every language and after every restart. A lower ratio samples a subset of the sessions of a higher ratio.
///
/// ```
/// use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
/// use tracing_session::{SessionSampler, SessionTracerProvider};
///
/// let sampler = SessionSampler::new(0.1).always_keep(|session| session.user_id() == Some("u-7"));
/// let provider = SdkTracerProvider::builder()
///     // .with_batch_exporter(exporter)
///     .with_sampler(Sampler::parent_based(sampler))
///     .build();
/// let provider = SessionTracerProvider::new(provider);
/// # drop(provider);
/// ```
///
/// # Roots decide
///
/// Inside [`Sampler::parent_based`], the sampler decides on root spans, and all other spans of the trace follow the root, in
/// this process and in others. Without it, the sampler decides on each span, so a service can sample its spans of a trace
/// whose root was dropped, and drop its spans of a trace whose root was sampled.
///
/// Don't use `Sampler::ParentBased(Box::new(..))`: in opentelemetry_sdk 0.33, it loses the `tracestate` of its root sampler,
/// so downstream samplers can't make the same decision.
///
/// If a browser or a gateway starts the trace, its sampler decides. If that sampler decides by trace id, it splits sessions.
/// To override it, let the session decide again in each service:
///
/// ```
/// # use opentelemetry_sdk::trace::Sampler;
/// # use tracing_session::SessionSampler;
/// let sampler = SessionSampler::new(0.1);
/// let sampler = Sampler::parent_based(sampler.clone())
///     .with_remote_parent_sampled(sampler.clone())
///     .with_remote_parent_not_sampled(sampler);
/// ```
///
/// A trace that is resumed by its ids, with [`Conversation::resume_trace`](crate::Conversation::resume_trace), counts as
/// sampled.
///
/// # Which session
///
/// The sampler reads the session from the parent `Context` and from the span's own fields ([`session!`](crate::session!), a
/// field `session.id`), if the fields have a value when the span starts. The session in the `Context` may come from a
/// `Session` value, an ancestor, incoming headers, or the default session. Children of an unsampled span still inherit its
/// session.
///
/// **Set the id before the root starts.** The sampler can't see an id that you set later, with
/// [`set_session_id`](crate::set_session_id), [`Session::set_on_current_span`], a field that is recorded later, or an
/// attribute `session.id` from OpenTelemetry's API. It decides on such a root as outside any session, so the trace may be
/// dropped although other traces of the session are sampled.
///
/// - If a request's headers contain the id, extract it before the root is created, with
///   [`propagated_context`](crate::propagation::propagated_context), or with [`tower::server`] outside the layer that creates the span.
/// - If the id is in a path or a body, read it first, and then start the root [`in_session`](crate::InSession::in_session).
/// - If your code generates the id, set it with a field of the root, or start the root inside the [`Session`].
///
/// In all other cases, use a tail sampler: `docs/scaling.md` has Collector configurations that decide again when the whole
/// trace is known.
///
/// [`Sampler::parent_based`]: opentelemetry_sdk::trace::Sampler::parent_based
/// [`tower::server`]: https://docs.rs/tracing-session/latest/tracing_session/propagation/tower/fn.server.html
///
/// # `tracestate`
///
/// The sampler writes its decision into the span's `tracestate`, in the format of OpenTelemetry's [consistent probability
/// sampling]: `ot=rv:<randomness>;th:<threshold>`. With it, downstream samplers make the same decision without the session. A
/// dropped span has no `th`. Other members of the `tracestate` and other parts of `ot` stay. If `ot` would be longer than 256
/// characters, it keeps its `rv` and gets no `th`.
///
/// If the parent's `tracestate` already has an `rv`, that `rv` stays, because OpenTelemetry forbids changing it. If it isn't
/// the session's, because no `SessionSampler` decided on the root, the session still decides, and the sampler writes no `th`,
/// which would contradict the `rv`. Outside any session, this `rv` decides.
///
/// `rv` is 56 bits of an unsalted hash of the original session id, even if [`Privacy`](crate::Privacy) redacts the id on the
/// spans. Every service that receives the trace receives it. With `rv`, a receiver can tell which requests belong to one
/// session, and can confirm a guessed id. It can't recover an id that can't be guessed, such as an id of
/// [`Session::generate`].
///
/// [consistent probability sampling]: https://opentelemetry.io/docs/specs/otel/trace/tracestate-probability-sampling/
///
/// # Cost
///
/// About 200 ns for a root. Each sampled descendant costs about 90 ns, because the SDK copies the `tracestate`: see
/// [below](#what-it-costs).
///
#[doc = include_str!("../../docs/sampling.md")]
#[derive(Clone)]
#[must_use = "a sampler does nothing until a provider has it: `.with_sampler(sampler)`"]
pub struct SessionSampler {
    /// A span with a lower randomness is dropped.
    threshold: u64,
    /// Decides outside sessions. If `None`, the trace id decides.
    fallback: Option<Box<dyn ShouldSample>>,
    always_keep: Option<Arc<Chooses>>,
    never_keep: Option<Arc<Chooses>>,
}

type Chooses = dyn Fn(&Session) -> bool + Send + Sync;

impl SessionSampler {
    /// Creates a sampler for this share of all sessions, from 0 (none) to 1 (all).
    ///
    /// A ratio below 0 or NaN counts as 0, and a ratio above 1 counts as 1. The crate warns about it when this thread next
    /// creates a span. The smallest share above 0 is 2⁻⁵⁶.
    ///
    /// ```
    /// use tracing_session::SessionSampler;
    ///
    /// let one_session_in_ten = SessionSampler::new(0.1);
    /// ```
    pub fn new(ratio: f64) -> Self {
        if !(0.0..=1.0).contains(&ratio) {
            diagnostic::defer(diagnostic::not_a_ratio(ratio));
        }
        Self {
            threshold: threshold(ratio),
            fallback: None,
            always_keep: None,
            never_keep: None,
        }
    }

    /// Sets the sampler for spans outside any session. Default: the same ratio by trace id, with OpenTelemetry's consistent
    /// sampling.
    ///
    /// The result of the fallback is used unchanged. The SDK's `TraceIdRatioBased` writes no `th`, so a Collector that
    /// equalises ratios samples its spans a second time. The default writes a `th`.
    ///
    /// With `Sampler::AlwaysOn`, traces whose session is set after the root has started reach your Collector, which can still
    /// sample or drop such sessions as a whole: see `docs/scaling.md`.
    ///
    /// ```
    /// use opentelemetry_sdk::trace::Sampler;
    /// use tracing_session::SessionSampler;
    ///
    /// // Samples no spans outside sessions.
    /// let sampler = SessionSampler::new(0.1).with_fallback(Sampler::AlwaysOff);
    /// ```
    pub fn with_fallback(mut self, fallback: impl Into<Box<dyn ShouldSample>>) -> Self {
        self.fallback = Some(fallback.into());
        self
    }

    /// Samples all sessions for which `keeps` returns true, regardless of the ratio. Use it for example for a user with a
    /// problem. A second call replaces the first function.
    ///
    /// The sampler calls `keeps` for each span in a session on which it decides, with a [`Session`] of all current values. So
    /// `keeps` must be fast. It sees only values that are set when the root starts, and no user that is recorded later. If it
    /// panics, the ratio decides, and the crate warns once.
    ///
    /// Such spans have `th:0`, so each of them represents only itself, and the `rv` of their session. A Collector that
    /// samples at a lower ratio uses that `rv`, and may drop them. To prevent that, add a policy for the same user or session
    /// to its tail sampler.
    ///
    /// ```
    /// use tracing_session::SessionSampler;
    ///
    /// let sampler = SessionSampler::new(0.01)
    ///     .always_keep(|session| session.metadata("debug").is_some());
    /// ```
    pub fn always_keep(mut self, keeps: impl Fn(&Session) -> bool + Send + Sync + 'static) -> Self {
        self.always_keep = Some(Arc::new(keeps));
        self
    }

    /// Drops all sessions for which `drops` returns true, regardless of the ratio. Use it for example for health checks, or
    /// for a user who doesn't want to be traced. A second call replaces the first function.
    ///
    /// It wins over [`always_keep`](Self::always_keep). The same rules apply to `drops`; if it panics, it counts as false.
    ///
    /// ```
    /// use tracing_session::SessionSampler;
    ///
    /// let sampler = SessionSampler::new(1.0)
    ///     .never_keep(|session| session.metadata("private").is_some());
    /// ```
    pub fn never_keep(mut self, drops: impl Fn(&Session) -> bool + Send + Sync + 'static) -> Self {
        self.never_keep = Some(Arc::new(drops));
        self
    }
}

/// Whether a function chooses the session of `scope`. `method` is the name of the method that set the function.
fn chooses(function: &Option<Arc<Chooses>>, method: &str, scope: Option<&Scope>) -> bool {
    let (Some(function), Some(scope)) = (function, scope) else {
        return false;
    };
    let session = scope.to_session();
    // A panic would leave the span half started, and the OpenTelemetry layer aborts the process when it meets such
    // a span while the panic unwinds.
    let chosen = panic::catch_unwind(AssertUnwindSafe(|| function(&session)));
    chosen.unwrap_or_else(|_| {
        diagnostic::defer_once(diagnostic::choice_panicked(method));
        false
    })
}

impl ShouldSample for SessionSampler {
    fn should_sample(
        &self,
        cx: Option<&Context>,
        trace_id: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let scope = cx.and_then(Scope::of);
        let never = chooses(&self.never_keep, "never_keep", scope.as_deref());
        let always = !never && chooses(&self.always_keep, "always_keep", scope.as_deref());
        let id = scope.and_then(|scope| scope.id());
        if let (Some(fallback), None, false) = (&self.fallback, &id, always || never) {
            return fallback.should_sample(cx, trace_id, name, kind, attributes, links);
        }
        let parent = cx.map(|cx| cx.span());
        let state = match &parent {
            Some(parent) => parent.span_context().trace_state(),
            None => &TraceState::NONE,
        };
        let of_state = state_randomness(state);
        let of_session = id.map(|id| randomness(&Sha256::digest(id.as_str())));
        // OpenTelemetry forbids replacing the randomness in the `tracestate`. But the session decides.
        let written = of_state.or(of_session);
        let deciding = of_session.or(of_state);
        let threshold = match (always, never) {
            (true, _) => 0,
            (_, true) => VALUES,
            _ => self.threshold,
        };
        let sampled = deciding.unwrap_or_else(|| randomness(&trace_id.to_bytes())) >= threshold;
        // A threshold beside the other randomness would claim that the other randomness decided.
        let has_threshold = sampled && (always || deciding == written);
        SamplingResult {
            decision: match sampled {
                true => SamplingDecision::RecordAndSample,
                false => SamplingDecision::Drop,
            },
            attributes: Vec::new(),
            trace_state: with_decision(state, written, has_threshold.then_some(threshold)),
        }
    }
}

/// Omits the functions.
impl fmt::Debug for SessionSampler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ratio = (VALUES - self.threshold) as f64 / VALUES as f64;
        f.debug_struct("SessionSampler")
            .field("ratio", &ratio)
            .field("fallback", &self.fallback)
            .finish_non_exhaustive()
    }
}

/// OpenTelemetry's member of a `tracestate`.
const MEMBER: &str = "ot";
const MAX_MEMBER_BYTES: usize = 256;

/// The number of different values of randomness, which has 56 bits.
const VALUES: u64 = 1 << 56;

/// The threshold that samples this share of all randomness.
fn threshold(ratio: f64) -> u64 {
    // Exact, because the factor is a power of two. `1.0 - ratio` would lose bits of a small ratio.
    let sampled = (ratio * VALUES as f64).round();
    // The cast saturates, and makes NaN zero.
    let sampled = (sampled as u64).min(VALUES);
    let least = u64::from(ratio > 0.0);
    VALUES - sampled.max(least)
}

/// The randomness of a session or a trace: the end of the id's hash, or of the trace id.
fn randomness(bytes: &[u8]) -> u64 {
    let last = bytes.last_chunk().copied().unwrap_or_default();
    u64::from_be_bytes(last) % VALUES
}

/// The randomness in a `tracestate`: 14 hexadecimal digits.
fn state_randomness(state: &TraceState) -> Option<u64> {
    let is_valid = |(key, value): &(&str, &str)| *key == "rv" && value.len() == 14;
    let mut values = parts(state.get(MEMBER)?).filter(is_valid);
    values.find_map(|(_, value)| u64::from_str_radix(value, 16).ok())
}

/// The 14 hexadecimal digits. Without `format!`, which takes several hundred instructions more.
fn digits(value: u64) -> String {
    let digit = |at| b"0123456789abcdef"[(value >> (52 - 4 * at)) as usize & 0xf];
    String::from_utf8((0..14).map(digit).collect()).unwrap_or_default()
}

/// The well-formed parts of OpenTelemetry's member. Malformed ones are dropped, because readers refuse the whole member
/// for one of them.
fn parts(member: &str) -> impl Iterator<Item = (&str, &str)> {
    let parts = member.split(';').filter_map(|part| part.split_once(':'));
    parts.filter(|(key, value)| {
        let is_key = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let is_value = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        key.starts_with(|first: char| first.is_ascii_lowercase())
            && key.bytes().all(is_key)
            && value.bytes().all(is_value)
    })
}

/// `state` with this randomness and threshold in OpenTelemetry's member, and with all its other parts.
fn with_decision(state: &TraceState, rv: Option<u64>, th: Option<u64>) -> TraceState {
    let before = state.get(MEMBER);
    let others = before.into_iter().flat_map(parts);
    let others = others.filter(|(key, _)| !["rv", "th"].contains(key));
    let mut member = String::with_capacity(64);
    let mut push = |key: &str, value: &str| {
        let separator = if member.is_empty() { "" } else { ";" };
        member.extend([separator, key, ":", value]);
    };
    if let Some(value) = rv {
        push("rv", &digits(value));
    }
    if let Some(value) = th {
        let digits = digits(value);
        let digits = digits.trim_end_matches('0');
        push("th", if digits.is_empty() { "0" } else { digits });
    }
    others.for_each(|(key, value)| push(key, value));
    match before {
        _ if member.len() > MAX_MEMBER_BYTES => {
            // Write only the previous randomness, so that the member doesn't get longer.
            return with_decision(state, state_randomness(state), None);
        }
        None if member.is_empty() => Ok(state.clone()),
        Some(_) if member.is_empty() => state.delete(MEMBER),
        // Unchanged, and at the front, where `insert` would move it: a copy is cheaper.
        _ if state.into_iter().next() == Some((MEMBER, &member)) => Ok(state.clone()),
        _ => state.insert(MEMBER, member),
    }
    .unwrap_or_else(|_| state.clone())
}
