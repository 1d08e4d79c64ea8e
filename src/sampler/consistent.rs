//! OpenTelemetry's consistent probability sampling: what is compared, and how it is written in a
//! `tracestate`.

use opentelemetry::trace::{TraceId, TraceState};
use sha2::{Digest, Sha256};

/// The member of a `tracestate` that is OpenTelemetry's.
const MEMBER: &str = "ot";
const LONGEST: &str = "rv:0123456789abcd;th:0123456789abcd;";
const MAX_MEMBER_BYTES: usize = 256;

/// There are as many different values: 56 bits.
const VALUES: u64 = 1 << 56;

/// What decides: kept is what is not below the threshold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
        let mut said = parts(state.get(MEMBER)?).filter(|(key, _)| *key == "rv");
        said.find_map(|(_, value)| Self::parse(value))
    }

    fn parse(text: &str) -> Option<Self> {
        let value = u64::from_str_radix(text, 16).ok()?;
        (text.len() == 14).then_some(Self(value))
    }
}

/// Below which nothing is kept.
#[derive(Clone, Copy, Debug)]
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

/// In 14 hexadecimal digits. By hand, as `format!` takes some 400 instructions more.
fn digits(value: u64) -> [u8; 14] {
    std::array::from_fn(|at| b"0123456789abcdef"[(value >> (52 - 4 * at)) as usize & 0xf])
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
    let mut push = |key: &str, value: &str| {
        let separator = if member.is_empty() { "" } else { ";" };
        member.extend([separator, key, ":", value]);
    };
    if let Some(Randomness(value)) = randomness {
        push(
            "rv",
            std::str::from_utf8(&digits(value)).unwrap_or_default(),
        );
    }
    if let Some(Threshold(value)) = threshold {
        let digits = digits(value);
        match std::str::from_utf8(&digits).map(|digits| digits.trim_end_matches('0')) {
            Ok("") | Err(_) => push("th", "0"),
            Ok(digits) => push("th", digits),
        }
    }
    others.for_each(|(key, value)| push(key, value));
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
