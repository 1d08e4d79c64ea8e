//! Carriers: the maps and types that contain headers.

use opentelemetry::propagation::{Extractor, Injector};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::convert::identity;
use std::hash::BuildHasher;
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
            `TraceHeaders`, and `http::HeaderMap` with the feature `http` of `tracing-session`",
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

    /// The values of a header.
    ///
    /// ```
    /// # use std::collections::BTreeMap;
    /// # use tracing_session::propagation::Carrier;
    /// assert!(BTreeMap::<String, String>::new().get_all("traceparent").is_empty());
    /// ```
    fn get_all(&self, name: &str) -> Vec<&str>;

    /// The names of the headers.
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

/// The headers of a message in a queue, or of a job in a table.
///
/// `serde` serialises it as a map of strings. `Debug` and the errors of deserialisation never show the values, because
/// they contain the session.
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

/// By hand, because the error of `serde` would contain the value.
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

/// Needs the feature `http`, which `tower` and `reqwest` enable. The metadata of a `tonic` request contains such a map:
/// `request.metadata_mut().as_mut()`.
#[cfg(feature = "http")]
impl Carrier for http::HeaderMap {
    fn set(&mut self, name: &str, value: String) {
        let name = http::HeaderName::try_from(name);
        if let (Ok(name), Ok(value)) = (name, http::HeaderValue::try_from(value)) {
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
