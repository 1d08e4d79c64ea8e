//! What can be wrong with the set-up.

use crate::error::{Error, ErrorKind};
use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Trouble {
    /// With what is valid.
    Setting(&'static str),
    Endpoint,
    Tls,
    Header,
    Exporter,
    Subscriber,
    Export,
}

/// The error below ours: shared, so that ours can be cloned.
#[derive(Clone)]
pub(crate) struct Cause(
    pub(crate) Arc<dyn std::error::Error + Send + Sync + UnwindSafe + RefUnwindSafe>,
);

impl PartialEq for Cause {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_string() == other.0.to_string()
    }
}

impl Eq for Cause {}

impl From<Trouble> for Error {
    fn from(trouble: Trouble) -> Self {
        ErrorKind::Otlp(trouble).into()
    }
}

impl Trouble {
    pub(crate) fn caused_by<E>(self, cause: E) -> Error
    where
        E: std::error::Error + Send + Sync + UnwindSafe + RefUnwindSafe + 'static,
    {
        let mut error = Error::from(self);
        error.cause = Some(Cause(Arc::new(cause)));
        error
    }
}

/// What [`otlp`](crate::otlp) can run into.
#[cfg_attr(docsrs, doc(cfg(feature = "otlp")))]
impl Error {
    /// The code or the environment asks for something that there is not: a protocol, an endpoint,
    /// a header. The error says which, and what is valid.
    ///
    /// ```
    /// let pipeline = tracing_session::otlp::pipeline("my-app").with_endpoint("localhost");
    /// assert!(pipeline.install().unwrap_err().is_invalid_setting());
    /// ```
    pub fn is_invalid_setting(&self) -> bool {
        use Trouble::*;
        matches!(
            self.kind,
            ErrorKind::Otlp(Setting(_) | Endpoint | Tls | Header | Exporter)
        )
    }

    /// There is a global subscriber already.
    ///
    /// ```no_run
    /// # use tracing_session::otlp::pipeline;
    /// let _telemetry = pipeline("my-app").install()?;
    /// assert!(pipeline("my-app").install().unwrap_err().is_subscriber_set());
    /// # Ok::<(), tracing_session::Error>(())
    /// ```
    pub fn is_subscriber_set(&self) -> bool {
        self.kind == ErrorKind::Otlp(Trouble::Subscriber)
    }

    /// Spans could not be exported. The [source](std::error::Error::source) says why.
    ///
    /// ```no_run
    /// let telemetry = tracing_session::otlp::pipeline("my-app").install()?;
    /// if let Err(error) = telemetry.shutdown() {
    ///     assert!(error.is_export_failed());
    /// }
    /// # Ok::<(), tracing_session::Error>(())
    /// ```
    pub fn is_export_failed(&self) -> bool {
        self.kind == ErrorKind::Otlp(Trouble::Export)
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Setting(valid) => return write!(f, "no such value (valid: {valid})"),
            Self::Endpoint => "the endpoint is not a URL such as http://localhost:4318",
            Self::Tls => {
                "an https endpoint needs the feature `otlp-tls` of tracing-session (cargo add \
                 tracing-session --features otlp-tls)"
            }
            Self::Header => "not the name or not the value of a header",
            Self::Exporter => "the exporter cannot be made",
            Self::Subscriber => {
                "there is a global subscriber already; call install() in its place, or put the \
                 layer that build() gives on it"
            }
            Self::Export => "not all spans were exported",
        })
    }
}
