//! Head sampling by session, with OpenTelemetry's consistent probability sampling: a span is sampled if its randomness
//! isn't below the threshold, and both go into the `tracestate`.

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

/// Keeps a share of all sessions: a conversation is kept whole or dropped whole.
///
/// The decision is a [function](#how-the-sampler-decides) of the session id alone. So all services, in every language and after
/// every restart, make the same decision without coordination. A sampler with a lower ratio keeps a subset of the
/// sessions that a sampler with a higher ratio keeps.
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
/// Under [`Sampler::parent_based`] the sampler decides on roots, and the rest of a trace follows its
/// root, in this process and in others. By itself it decides on each span: then a service keeps its
/// part of a session even where the root of the trace was dropped, or the other way about.
///
/// Don't use `Sampler::ParentBased(Box::new(..))`: in opentelemetry_sdk 0.33 it uses the decision of its root sampler but
/// loses the `tracestate`, so samplers further down can't make the same decision.
///
/// If a browser or a gateway starts the trace, its sampler decides. If that sampler decides by trace id, it splits
/// sessions. To override the caller's decision, let the session decide again in each service:
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
/// The sampler reads the session from the `Context` that the span starts under. It may come from a `Session` value, an
/// ancestor, incoming headers, the default session, or the fields of the span itself ([`session!`](crate::session!), a
/// field `session.id`), if they have a value when the span starts. An unsampled span still passes its session on.
///
/// **An id that is learnt after the root has started is too late**, whether
/// [`set_session_id`](crate::set_session_id) or [`Session::set_on_current_span`] sets it, a field is recorded later, or you set an
/// attribute `session.id` with OpenTelemetry's API. The sampler has decided on such a root as on one outside any session, so its
/// trace may be dropped although other traces of the session are kept. So make the id known before:
///
/// - If it arrives with a request, extract it before the root is created, with
///   [`propagated_context`](crate::propagation::propagated_context), or with [`tower::server`] outside the layer that creates the span.
/// - If it is in a path or a body, read it, and start the root [`in_session`](crate::InSession::in_session).
/// - If your code generates it, make the span that sets it the root, or start the root inside the [`Session`].
///
/// For all other cases use a tail sampler: `docs/scaling.md` has Collector configurations that decide again when the
/// whole trace is known.
///
/// [`Sampler::parent_based`]: opentelemetry_sdk::trace::Sampler::parent_based
/// [`tower::server`]: https://docs.rs/tracing-session/latest/tracing_session/propagation/tower/fn.server.html
///
/// # What is written
///
/// The sampler writes OpenTelemetry's [consistent probability sampling] into the span's `tracestate`, as
/// `ot=rv:<randomness>;th:<threshold>`. With it, samplers further down can make the same decision without knowing the
/// session. A dropped span has no `th`. Other members of the `tracestate` and other parts of `ot` stay. If `ot` would be
/// longer than 256 characters, it keeps its `rv` and gets no `th`.
///
/// If the parent's `tracestate` has an `rv` already, that `rv` stays, because OpenTelemetry forbids changing it. It is
/// the session's if a `SessionSampler` decided on the root. If it is another one, the session still decides, and `th` is
/// missing because it would contradict the `rv`. Outside a session, this `rv` decides.
///
/// The sampler hashes the original id, even if [`Privacy`](crate::Privacy) redacts it on the spans. So `rv` is 56 bits
/// of an unsalted hash of the session id, and goes wherever the trace goes, also to hosts that must not get the id.
/// With it, a receiver can tell which requests belong to one session, and can confirm a guessed id. It can't recover an
/// id that can't be guessed, such as that of [`Session::generate`].
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
    /// Keeps this share of all sessions, from 0 (none) to 1 (all).
    ///
    /// A ratio below 0 or NaN counts as 0, and one above 1 counts as 1. A warning says so when this thread next creates a
    /// span. The smallest share above 0 is 2⁻⁵⁶.
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

    /// Sets the sampler for spans outside any session. Default: the same ratio by trace id, as in OpenTelemetry's
    /// consistent sampling.
    ///
    /// Its result is used unchanged. The SDK's `TraceIdRatioBased` writes no `th`, so a Collector that equalises samples
    /// its spans a second time. The default writes a `th`.
    ///
    /// `Sampler::AlwaysOn` leaves the spans of sessions that become known too late to a Collector, which can
    /// still keep or drop such sessions whole: see `docs/scaling.md`.
    ///
    /// ```
    /// use opentelemetry_sdk::trace::Sampler;
    /// use tracing_session::SessionSampler;
    ///
    /// // Nothing but conversations.
    /// let sampler = SessionSampler::new(0.1).with_fallback(Sampler::AlwaysOff);
    /// ```
    pub fn with_fallback(mut self, fallback: impl Into<Box<dyn ShouldSample>>) -> Self {
        self.fallback = Some(fallback.into());
        self
    }

    /// Keeps all sessions for which `keeps` returns true, regardless of the ratio: for example those of a user with a
    /// problem. A second call replaces the first function.
    ///
    /// The sampler calls it for each span that it decides on in a session, with a [`Session`] of all current values. So it
    /// has to be fast. It only sees values that are known when the root starts: it can't keep a session for a user that is
    /// recorded later. If it panics, it keeps nothing, and one warning says so.
    ///
    /// Such spans have `th:0`, which means that each represents only itself, and the `rv` of their session. A Collector
    /// that samples at a lower ratio uses that `rv`, and may drop them. To keep them, add a policy for the same user or
    /// session to its tail sampler.
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

    /// Drops all sessions for which `drops` returns true, regardless of the ratio: for example those of a health check, or of a
    /// user who doesn't want to be traced. A second call replaces the first function. It wins over
    /// [`always_keep`](Self::always_keep), and the same rules hold for it: if it panics, it drops nothing.
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

/// Whether a function chooses the session of `scope`. `method` is the name of the method that it was given to.
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
        // A threshold beside another randomness would claim that this one decided.
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

/// Without the functions.
impl fmt::Debug for SessionSampler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ratio = (VALUES - self.threshold) as f64 / VALUES as f64;
        f.debug_struct("SessionSampler")
            .field("ratio", &ratio)
            .field("fallback", &self.fallback)
            .finish_non_exhaustive()
    }
}

/// The member of a `tracestate` that is OpenTelemetry's.
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

/// The 14 hexadecimal digits. By hand, because `format!` takes several hundred instructions more.
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
            // Only the randomness that was there before, so the member doesn't get longer.
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
