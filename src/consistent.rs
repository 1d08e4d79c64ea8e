//! OpenTelemetry's consistent probability sampling: what is compared, and how it is written in a
//! `tracestate`.

use opentelemetry::trace::{TraceId, TraceState};
use sha2::{Digest, Sha256};
use std::fmt::{self, Write};

/// The member of a `tracestate` that is OpenTelemetry's.
const MEMBER: &str = "ot";
const LONGEST: &str = "rv:0123456789abcd;th:0123456789abcd;";
const MAX_MEMBER_BYTES: usize = 256;

/// There are as many different values: 56 bits.
const VALUES: u64 = 1 << 56;

/// What decides: kept is what is not below the threshold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Randomness(u64);

impl Randomness {
    pub(crate) fn of_session(id: &str) -> Self {
        let hash: [u8; 32] = Sha256::digest(id).into();
        let [.., a, b, c, d, e, f, g] = hash;
        Self(u64::from_be_bytes([0, a, b, c, d, e, f, g]))
    }

    pub(crate) fn of_trace(id: TraceId) -> Self {
        let [.., a, b, c, d, e, f, g] = id.to_bytes();
        Self(u64::from_be_bytes([0, a, b, c, d, e, f, g]))
    }

    /// That which a `tracestate` has already.
    pub(crate) fn of(state: &TraceState) -> Option<Self> {
        let mut parts = parts(state.get(MEMBER)?);
        parts.find_map(|(key, value)| Self::parse(value).filter(|_| key == "rv"))
    }

    fn parse(text: &str) -> Option<Self> {
        let is_one = text.len() == 14 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let value = is_one.then(|| u64::from_str_radix(text, 16).ok());
        value.flatten().map(Self)
    }
}

impl fmt::Display for Randomness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:014x}", self.0)
    }
}

/// Below which nothing is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Threshold(u64);

impl Threshold {
    pub(crate) const ALL: Self = Self(0);

    pub(crate) fn of_ratio(ratio: f64) -> Self {
        // Exact: the factor is a power of two. 1 - ratio would lose bits of a small ratio.
        let kept = (ratio * VALUES as f64).round();
        // A float becomes the nearest integer that there is, and NaN zero.
        let kept = (kept as u64).min(VALUES);
        let least = u64::from(ratio > 0.0);
        Self(VALUES - kept.max(least))
    }

    pub(crate) fn keeps(self, randomness: Randomness) -> bool {
        randomness.0 >= self.0
    }

    /// The share that is kept.
    pub(crate) fn ratio(self) -> f64 {
        (VALUES - self.0) as f64 / VALUES as f64
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0");
        }
        // Zeros at the end are not written.
        let zeros = self.0.trailing_zeros() / 4;
        let digits = 14 - zeros as usize;
        write!(f, "{:0digits$x}", self.0 >> (4 * zeros))
    }
}

/// The parts of OpenTelemetry's member that are well formed: for the sake of one that is not, readers
/// refuse them all.
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

/// `state` with this decision, and with all else that it says.
///
/// There is no threshold where the span is dropped.
pub(crate) fn with_decision(
    state: &TraceState,
    randomness: Option<Randomness>,
    threshold: Option<Threshold>,
) -> TraceState {
    let before = state.get(MEMBER);
    let others = before.into_iter().flat_map(parts);
    let others = others.filter(|(key, _)| !["rv", "th"].contains(key));
    let mut member = String::with_capacity(LONGEST.len() + before.map_or(0, str::len));
    let mut push = |key: &str, value: &dyn fmt::Display| {
        let separator = if member.is_empty() { "" } else { ";" };
        // Writing into a string does not fail.
        let _ = write!(member, "{separator}{key}:{value}");
    };
    if let Some(randomness) = randomness {
        push("rv", &randomness);
    }
    if let Some(threshold) = threshold {
        push("th", &threshold);
    }
    others.for_each(|(key, value)| push(key, &value));
    match before {
        _ if member.len() > MAX_MEMBER_BYTES => {
            // Without what is new it is no longer than it was.
            return with_decision(state, Randomness::of(state), None);
        }
        None if member.is_empty() => Ok(state.clone()),
        Some(_) if member.is_empty() => state.delete(MEMBER),
        _ => state.insert(MEMBER, member),
    }
    .unwrap_or_else(|_| state.clone())
}
