//! The expected session of each span, as attributes that the creating code sets, so that the collector can compare.

use crate::ask::Way;
use opentelemetry::KeyValue;
use opentelemetry::trace::{SpanRef, TraceContextExt, Tracer};
use opentelemetry::{Context, global};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use tracing::Span;
use tracing_session::{Session, current_session};

/// The attribute with the way in which the session is set, on every span.
pub(crate) const WAY: &str = "way";
pub(crate) const WANTED_SESSION: &str = "want.session";
pub(crate) const WANTED_USER: &str = "want.user";
pub(crate) const WANTED_METADATA: &str = "want.metadata";

/// The metadata of a session: its own id again.
pub(crate) const OF: &str = "of";

/// The expected values of a span.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Want {
    pub(crate) way: Way,
    pub(crate) session: Option<String>,
    pub(crate) user: Option<String>,
    /// As it is exported.
    pub(crate) metadata: Option<String>,
}

/// Creates a span of `tracing` with its expected values.
macro_rules! wanted {
    ($want:expr, $make:ident!($($args:tt)+)) => {
        $crate::want::made($make!(
            $($args)+,
            way = $want.way.name(),
            want.session = $want.session(),
            want.user = $want.user(),
            want.metadata = $want.metadata(),
        ))
    };
}
pub(crate) use wanted;

/// The number of created spans, as counted by the code that creates them.
static MADE: AtomicU64 = AtomicU64::new(0);
static LOOKS: AtomicU64 = AtomicU64::new(0);
static COMPLAINTS: Mutex<Vec<String>> = Mutex::new(Vec::new());
/// Enough for a report.
const MOST_COMPLAINTS: usize = 20;

pub(crate) fn made<T>(span: T) -> T {
    MADE.fetch_add(1, Ordering::Relaxed);
    span
}

pub(crate) fn spans_made() -> u64 {
    MADE.load(Ordering::Relaxed)
}

/// How often the code checked its current session, and where it found a wrong one.
pub(crate) fn looks() -> (u64, Vec<String>) {
    let complaints = COMPLAINTS.lock().map(|it| it.clone()).unwrap_or_default();
    (LOOKS.load(Ordering::Relaxed), complaints)
}

impl Want {
    /// The same way, and neither session nor user.
    pub(crate) fn none(&self) -> Self {
        Self {
            way: self.way,
            ..Self::default()
        }
    }

    /// The same way, with the values of this session.
    pub(crate) fn of(&self, session: &Session) -> Self {
        Self {
            way: self.way,
            session: session.id().map(str::to_owned),
            user: session.user_id().map(str::to_owned),
            metadata: session.metadata(OF).map(|id| json!({ OF: id }).to_string()),
        }
    }

    pub(crate) fn session(&self) -> Option<&str> {
        self.session.as_deref()
    }

    pub(crate) fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    pub(crate) fn metadata(&self) -> Option<&str> {
        self.metadata.as_deref()
    }

    /// Records the expected values later, on a span that was created without them.
    pub(crate) fn say_on(&self, span: &Span) {
        // An empty value is ignored.
        span.record(WANTED_SESSION, self.session());
        span.record(WANTED_USER, self.user());
        span.record(WANTED_METADATA, self.metadata());
    }

    fn attributes(&self) -> Vec<KeyValue> {
        let wanted = [
            (WAY, Some(self.way.name())),
            (WANTED_SESSION, self.session()),
            (WANTED_USER, self.user()),
            (WANTED_METADATA, self.metadata()),
        ];
        let wanted = wanted.into_iter();
        wanted
            .filter_map(|(key, value)| Some(KeyValue::new(key, value?.to_owned())))
            .collect()
    }

    /// Makes a span with OpenTelemetry's own API, as a library does, and gives the `Context` in it.
    pub(crate) fn plain_span(&self, name: &'static str) -> Context {
        let tracer = global::tracer("library");
        let span = tracer.span_builder(name).with_attributes(self.attributes());
        Context::current_with_span(made(tracer.build(span)))
    }

    pub(crate) fn say_on_plain(&self, span: &SpanRef<'_>) {
        span.set_attributes(self.attributes());
    }

    /// Compares with the current session.
    pub(crate) fn is_seen(&self, place: &str) {
        LOOKS.fetch_add(1, Ordering::Relaxed);
        let seen = self.of(&current_session().unwrap_or_default());
        if seen != *self {
            let Ok(mut complaints) = COMPLAINTS.lock() else {
                return;
            };
            if complaints.len() < MOST_COMPLAINTS {
                complaints.push(format!("{place}: {seen:?}, and not {self:?}"));
            }
        }
    }
}
