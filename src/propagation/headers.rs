//! Carriers of headers, the policy for extracted sessions, and the syntax of the baggage header.

use opentelemetry::propagation::{Extractor, Injector};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value as Json;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::convert::identity;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::{fmt, slice};

/// A type that contains the headers of a call or a message.
///
/// Header names are case-insensitive. A header may have several values.
///
/// ```
/// use std::collections::HashMap;
/// use tracing_session::propagation::Carrier;
///
/// let mut headers = HashMap::from([("Traceparent".to_owned(), "old".to_owned())]);
/// headers.set("traceparent", "new".to_owned());
/// assert_eq!(headers.get_all("TRACEPARENT"), ["new"]);
/// assert_eq!(headers.len(), 1);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a carrier of headers: pass a `HashMap<String, String>`, for example",
    label = "this type doesn't implement `Carrier`",
    note = "carriers are `HashMap<String, String>`, `HashMap<String, Vec<String>>`, `BTreeMap<String, String>`, \
            `serde_json::Map<String, Value>`, `TraceHeaders`, and `http::HeaderMap` with the feature `http` of `tracing-session`",
    note = "for a type of your own implement `tracing_session::propagation::Carrier`"
)]
pub trait Carrier {
    /// Sets a header, and replaces its earlier values.
    ///
    /// ```
    /// # use std::collections::BTreeMap;
    /// # use tracing_session::propagation::Carrier;
    /// BTreeMap::new().set("traceparent", "...".to_owned());
    /// ```
    fn set(&mut self, name: &str, value: String);

    /// Returns the values of a header.
    ///
    /// ```
    /// # use std::collections::BTreeMap;
    /// # use tracing_session::propagation::Carrier;
    /// assert!(BTreeMap::<String, String>::new().get_all("traceparent").is_empty());
    /// ```
    fn get_all(&self, name: &str) -> Vec<&str>;

    /// Returns the names of the headers.
    ///
    /// ```
    /// # use std::collections::BTreeMap;
    /// # use tracing_session::propagation::Carrier;
    /// assert!(BTreeMap::<String, String>::new().names().is_empty());
    /// ```
    fn names(&self) -> Vec<&str>;
}

/// Implements [`Carrier`] for a map whose values are made by `$store` and read as the slice that `$values` returns.
macro_rules! map_carrier {
    ([$($generics:tt)*] $map:ty, $store:expr, $values:expr) => {
        impl<$($generics)*> Carrier for $map {
            fn set(&mut self, name: &str, value: String) {
                self.retain(|key, _| !key.eq_ignore_ascii_case(name));
                self.insert(name.to_owned(), $store(value));
            }

            fn get_all(&self, name: &str) -> Vec<&str> {
                let headers = self.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
                let values = headers.flat_map(|(_, value)| $values(value));
                values.map(String::as_str).collect()
            }

            fn names(&self) -> Vec<&str> {
                self.keys().map(String::as_str).collect()
            }
        }
    };
}

map_carrier!([S: BuildHasher] HashMap<String, String, S>, identity, slice::from_ref);
map_carrier!([S: BuildHasher] HashMap<String, Vec<String>, S>, |value| vec![value], Vec::as_slice);
map_carrier!([] BTreeMap<String, String>, identity, slice::from_ref);
// For `_meta` of the Model Context Protocol, whose keys are `traceparent`, `tracestate` and `baggage` (SEP-414).
map_carrier!([] serde_json::Map<String, Json>, Json::String, json_text);

/// A header's value is always a text.
fn json_text(value: &Json) -> Option<&String> {
    match value {
        Json::String(text) => Some(text),
        _ => None,
    }
}

/// Headers that you store in a queued message or a job, so that the worker continues the trace and the session.
///
/// `serde` serialises them as a map of strings. `Debug` and the errors of deserialisation never show the values, because the
/// values contain the session.
///
/// ```
/// use tracing_session::propagation::{TraceHeaders, WithPropagated, inject_context};
///
/// struct Job {
///     text: String,
///     trace_headers: TraceHeaders,
/// }
///
/// let mut job = Job { text: "..".to_owned(), trace_headers: TraceHeaders::default() };
/// inject_context(&mut job.trace_headers);
///
/// async fn work(job: Job) {
///     async { /* ... */ }.with_propagated(&job.trace_headers).await;
/// }
/// ```
#[derive(Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct TraceHeaders(BTreeMap<String, String>);

impl Carrier for TraceHeaders {
    fn set(&mut self, name: &str, value: String) {
        self.0.set(name, value);
    }

    fn get_all(&self, name: &str) -> Vec<&str> {
        self.0.get_all(name)
    }

    fn names(&self) -> Vec<&str> {
        self.0.names()
    }
}

/// Not derived, because `serde`'s error would contain the value.
impl<'de> Deserialize<'de> for TraceHeaders {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let headers = BTreeMap::deserialize(deserializer).map(Self);
        headers.map_err(|_| D::Error::custom("not a map of headers to their values"))
    }
}

impl fmt::Debug for TraceHeaders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Requires the feature `http`, which `tower` and `reqwest` enable. For a `tonic` request, pass
/// `request.metadata_mut().as_mut()`.
///
/// It marks each value that it sets as [sensitive](http::HeaderValue::set_sensitive), because the value may contain an id:
/// `Debug` doesn't print the value, and HTTP/2 doesn't keep it in its compression table.
#[cfg(feature = "http")]
impl Carrier for http::HeaderMap {
    fn set(&mut self, name: &str, value: String) {
        let name = http::HeaderName::try_from(name);
        if let (Ok(name), Ok(mut value)) = (name, http::HeaderValue::try_from(value)) {
            value.set_sensitive(true);
            self.insert(name, value);
        }
    }

    fn get_all(&self, name: &str) -> Vec<&str> {
        let values = self.get_all(name).iter();
        values
            .filter_map(|value| std::str::from_utf8(value.as_bytes()).ok())
            .collect()
    }

    fn names(&self) -> Vec<&str> {
        self.keys().map(http::HeaderName::as_str).collect()
    }
}

/// Adapts a [`Carrier`] to the traits of OpenTelemetry's propagators.
pub(crate) struct Adapter<C>(pub(crate) C);

impl<C: Carrier + ?Sized> Injector for Adapter<&mut C> {
    fn set(&mut self, key: &str, value: String) {
        self.0.set(key, value);
    }
}

impl<C: Carrier + ?Sized> Extractor for Adapter<&C> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get_all(key).first().copied()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.names()
    }

    fn get_all(&self, key: &str) -> Option<Vec<&str>> {
        Some(self.0.get_all(key)).filter(|values| !values.is_empty())
    }
}

/// Decides whether to accept the session in the headers of a request.
///
/// A sender can write any session id into its request. If you don't trust the senders, [verify](Self::verify) the ids, or
/// [ignore](Self::ignore) them all. If the policy refuses an id, the current session stays.
///
/// `R` is the type of the second argument of [`verify`](Self::verify): `()` in a
/// [`SessionPropagator`](crate::SessionPropagator), and the request in a server.
///
/// ```
/// use tracing_session::{SessionPropagator, propagation::InboundPolicy};
///
/// let ours = |id: &str, _: &()| id.starts_with("chat-");
/// let propagator = SessionPropagator::new().with_inbound(InboundPolicy::verify(ours));
/// ```
#[must_use = "a policy does nothing until you set it: `.with_inbound(policy)`"]
pub struct InboundPolicy<R: ?Sized = ()>(Policy<Arc<Verify<R>>>);

/// Generic over the function: a derived `Clone` would require that `R` is `Clone`.
#[derive(Clone)]
enum Policy<V> {
    Accept,
    Ignore,
    Verify(V),
}

type Verify<R> = dyn Fn(&str, &R) -> bool + Send + Sync;

impl<R: ?Sized> InboundPolicy<R> {
    /// Accepts every valid id. This is the default.
    ///
    /// ```
    /// # use tracing_session::{SessionPropagator, propagation::InboundPolicy};
    /// let propagator = SessionPropagator::new().with_inbound(InboundPolicy::accept());
    /// ```
    pub fn accept() -> Self {
        Self(Policy::Accept)
    }

    /// Ignores every id. Use it for a public service.
    ///
    /// ```
    /// # use tracing_session::{SessionPropagator, propagation::InboundPolicy};
    /// let propagator = SessionPropagator::new().with_inbound(InboundPolicy::ignore());
    /// ```
    pub fn ignore() -> Self {
        Self(Policy::Ignore)
    }

    /// Accepts an id if `verify` returns true, for example if it belongs to the authenticated user.
    ///
    /// ```
    /// # use tracing_session::{SessionPropagator, propagation::InboundPolicy};
    /// let policy = InboundPolicy::verify(|id: &str, _: &()| id.starts_with("chat-"));
    /// let propagator = SessionPropagator::new().with_inbound(policy);
    /// ```
    pub fn verify(verify: impl Fn(&str, &R) -> bool + Send + Sync + 'static) -> Self {
        Self(Policy::Verify(Arc::new(verify)))
    }

    /// Whether to use a session with this id. `Verify` refuses a session without an id.
    pub(crate) fn accepts(&self, id: Option<&str>, with: &R) -> bool {
        match &self.0 {
            Policy::Accept => true,
            Policy::Ignore => false,
            Policy::Verify(verify) => id.is_some_and(|id| verify(id, with)),
        }
    }
}

impl<R: ?Sized> Clone for InboundPolicy<R> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<R: ?Sized> Default for InboundPolicy<R> {
    fn default() -> Self {
        Self::accept()
    }
}

impl<R: ?Sized> fmt::Debug for InboundPolicy<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Policy::Accept => "InboundPolicy::accept()",
            Policy::Ignore => "InboundPolicy::ignore()",
            Policy::Verify(_) => "InboundPolicy::verify(..)",
        })
    }
}

pub(crate) const BAGGAGE_HEADER: &str = "baggage";

/// The limits in W3C's recommendation, for the whole header.
pub(crate) const MAX_BAGGAGE_BYTES: usize = 8192;
pub(crate) const MAX_MEMBERS: usize = 64;

/// Encodes every character that a reader is known to misread: Python reads `+` as a space, and some readers end the value at
/// `=`.
pub(crate) const ENCODED: &AsciiSet = &without(NON_ALPHANUMERIC.remove(b'-'), b"._~:/@!$*");

const fn without(set: AsciiSet, bytes: &[u8]) -> AsciiSet {
    match bytes.split_first() {
        Some((first, others)) => without(set.remove(*first), others),
        None => set,
    }
}

/// The properties in a member's metadata, without those that would break the header.
pub(crate) fn properties(metadata: &str) -> impl Iterator<Item = &str> {
    let is_octet = |byte: u8| matches!(byte, b'\t' | b' '..=b'~') && byte != b',';
    let properties = metadata.split(';').map(str::trim);
    properties.filter(move |it| !it.is_empty() && it.bytes().all(is_octet))
}

/// A member of a header.
pub(crate) struct Member<'a> {
    pub(crate) key: &'a str,
    pub(crate) encoded: &'a str,
    pub(crate) metadata: &'a str,
}

impl<'a> Member<'a> {
    /// Whether this is the member `key`. Some readers decode keys, so an encoded key counts too.
    pub(crate) fn is(&self, key: &str) -> bool {
        percent_decode_str(self.key).eq(key.bytes())
    }

    /// `None` if the value is not UTF-8.
    pub(crate) fn value(&self) -> Option<Cow<'a, str>> {
        percent_decode_str(self.encoded).decode_utf8().ok()
    }

    /// The value if `+` means a space, as in Python's OpenTelemetry. The header doesn't tell which sender wrote it.
    pub(crate) fn value_with_spaces(&self) -> Option<String> {
        let encoded = self.encoded.replace('+', " ");
        let value = percent_decode_str(&encoded).decode_utf8().ok()?;
        Some(value.into_owned())
    }
}

/// The members of the headers, up to the limits.
pub(crate) fn members<'a>(headers: &'a [&'a str]) -> impl Iterator<Item = Member<'a>> {
    let mut bytes = 0;
    let fitting = headers.iter().take_while(move |header| {
        bytes += header.len();
        bytes <= MAX_BAGGAGE_BYTES
    });
    let members = fitting.flat_map(|header| header.split(','));
    let members = members.filter_map(|member| {
        let (pair, metadata) = member.split_once(';').unwrap_or((member, ""));
        let (key, encoded) = pair.split_once('=')?;
        Some(Member {
            key: key.trim(),
            encoded: encoded.trim(),
            metadata: metadata.trim(),
        })
    });
    members.take(MAX_MEMBERS)
}
