//! The crate's error: its kinds, and the text of each. No text contains an id.

use std::env::VarError;
use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;

/// Any error of this crate. The `is_…` methods tell the kinds apart.
///
/// The text never contains an id, because ids are personal data.
///
/// ```
/// use tracing_session::Session;
///
/// let error = Session::new("two\nlines").unwrap_err();
/// assert!(error.is_invalid_id());
/// assert_eq!(error.to_string(), "id contains a control or invisible character: remove it");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Error {
    kind: ErrorKind,
    /// The kind of the invalid value: an id, a tag, a key.
    noun: &'static str,
    /// The environment variable or the name that the error is about, each with a colon. Never an id.
    subject: String,
    cause: Option<Cause>,
}

/// Declares [`ErrorKind`] from a table: the kinds with their texts, and a method for each group of kinds.
macro_rules! error_kinds {
    ($(
        $(#[$attribute:meta])*
        $visibility:vis $method:ident { $($kind:ident $(($data:ident: $type:ty))? => $text:literal,)* }
    )*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[allow(dead_code, reason = "some kinds belong to a feature")]
        pub(crate) enum ErrorKind {
            $($($kind $(($type))?,)*)*
        }

        impl ErrorKind {
            fn write_text(self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $($(Self::$kind $(($data))? => write!(f, $text),)*)*
                }
            }
        }

        impl Error {
            $(
                $(#[$attribute])*
                $visibility fn $method(&self) -> bool {
                    matches!(self.kind, $(ErrorKind::$kind { .. })|*)
                }
            )*
        }
    };
}

error_kinds! {
    /// Whether an id is invalid: blank, longer than 1,024 bytes, not UTF-8, or with a control character.
    ///
    /// [`Session::new`](crate::Session::new) has the rules. The method also returns true for placeholders such as
    /// `null`, and for invalid tags and keys.
    ///
    /// ```
    /// # use tracing_session::Session;
    /// assert!(Session::new("  ").unwrap_err().is_invalid_id());
    /// ```
    pub is_invalid_id {
        // `Display` writes the kind of the value before these texts.
        Blank => "is blank: set a value, or leave it out",
        Placeholder => "is a placeholder such as None or null: set the value when it is known",
        TooLong => "is longer than 1024 bytes: shorten it, or use a hash of it",
        ControlCharacter => "contains a control or invisible character: remove it",
        NotUnicode => "is not valid UTF-8: encode it as UTF-8",
    }
    /// Whether a value can't be set on the current span.
    /// [`Session::set_on_current_span`](crate::Session::set_on_current_span) lists the reasons.
    ///
    /// ```
    /// let error = tracing_session::set_session_id("chat-42").unwrap_err();
    /// assert!(error.is_no_span());
    /// ```
    pub is_no_span {
        NoSpan =>
            "there is no current span to set the session or user on: call this inside a span, attach a Session, or \
             set a default session for the process with Session::set_global_default",
        FilteredOut =>
            "the current span does not reach the OpenTelemetry layer (a filter disables it, telemetry is suppressed \
             or shut down, or the layer is inside reload::Layer), so nothing can be set on it: call this inside a \
             span that is exported, or attach a Session",
        NoProvider =>
            "the current span's tracer does not come from a SessionTracerProvider, so nothing can be set on the \
             span: use SessionTracerProvider::new(provider).tracer(\"..\")",
        InsideValue =>
            "a Session or another OpenTelemetry Context is attached inside the current span and shadows every value \
             that is set on the span: attach a Session with the new value, or create a span here and set the value \
             on it",
        Starting =>
            "a sampler or span processor called this while a span was starting, so nothing can be set on that span \
             yet: attach a Session around the code that creates the span, or set the value later",
    }
    /// Whether a conversation can't continue, because its state, or the id of a trace or span, is invalid.
    ///
    /// ```
    /// # use tracing_session::conversation::link_context;
    /// let error = link_context("tr_0123", "sp_0123456789abcdef").unwrap_err();
    /// assert!(error.is_invalid_state());
    /// ```
    pub is_invalid_state {
        NotATraceId =>
            "the text is not a trace id: use 32 hexadecimal digits, or `tr_` and 16 digits (the tracing service Tracia)",
        NotASpanId =>
            "the text is not a span id: use 16 hexadecimal digits, or `sp_` and 16 digits (the tracing service Tracia)",
        MalformedState =>
            "this field of the conversation state is missing or malformed: start a new conversation",
        StateVersion(version: u64) =>
            "the conversation state has version {version}, but this release reads only version 1: start a new \
             conversation",
    }
    /// Whether a value can't be serialised as JSON, or isn't a JSON object but must be one.
    ///
    /// ```
    /// # use tracing_session::Session;
    /// let error = Session::default().with_prompt_template_variables(["Oslo"]).unwrap_err();
    /// assert!(error.is_invalid_json());
    /// ```
    pub is_invalid_json {
        Serialize =>
            "the value cannot be serialised as JSON: check its `Serialize`, and that map keys are strings",
        NotAnObject => "the value is not a JSON object: pass a map or a struct",
    }
    /// Whether the environment names an unknown propagator.
    ///
    /// ```
    /// # use tracing_session::Session;
    /// assert!(!Session::new("  ").unwrap_err().is_unknown_propagator());
    /// ```
    pub is_unknown_propagator {
        Propagator(valid: &'static str) => "no such propagator (valid: {valid})",
    }
    /// Whether a setting in the code or the environment is invalid, such as a protocol, an endpoint or a header.
    ///
    /// The error names the setting and the valid values.
    ///
    /// ```
    /// let pipeline = tracing_session::otlp::pipeline("my-app").with_endpoint("localhost");
    /// assert!(pipeline.install().unwrap_err().is_invalid_setting());
    /// ```
    #[cfg(feature = "otlp")]
    pub is_invalid_setting {
        Setting(valid: &'static str) => "no such value (valid: {valid})",
        Endpoint => "the endpoint is not a URL such as http://localhost:4318",
        NoScheme => "use this URL, because your endpoint has no scheme",
        Tls =>
            "an https endpoint needs the feature `otlp-tls`: run `cargo add tracing-session --features otlp-tls`",
        Header => "the name or the value of this header is invalid: use ASCII, without line breaks",
        Exporter => "the exporter cannot be created (see the error's source)",
    }
    /// Whether the process already has a global subscriber.
    ///
    /// ```no_run
    /// # use tracing_session::otlp::pipeline;
    /// let _telemetry = pipeline("my-app").install()?;
    /// assert!(pipeline("my-app").install().unwrap_err().is_subscriber_set());
    /// # Ok::<(), tracing_session::Error>(())
    /// ```
    #[cfg(feature = "otlp")]
    pub is_subscriber_set {
        SubscriberSet =>
            "there is a global subscriber already: call install() instead of init(), or add the layer that build() \
             returns to your subscriber",
    }
    /// Whether some spans weren't exported. The [source](std::error::Error::source) contains the reason.
    ///
    /// ```no_run
    /// let telemetry = tracing_session::otlp::pipeline("my-app").install()?;
    /// if let Err(error) = telemetry.shutdown() {
    ///     assert!(error.is_export_failed());
    /// }
    /// # Ok::<(), tracing_session::Error>(())
    /// ```
    #[cfg(feature = "otlp")]
    pub is_export_failed {
        Export => "not all spans were exported (see the error's source)",
    }
    #[allow(dead_code, reason = "callers have no reason to distinguish these")]
    is_other {
        NothingToMark => "there is no current session or user to mark the trace with: set one first",
        DefaultIsSet =>
            "the process has a default session already: set it only once, at the start of main",
        Conflict => "there are several ids, and they differ: make the caller send one id",
        HeaderName =>
            "the name is not valid for a separate session header: use letters, digits and `-`, and not `baggage`",
        BaggageKey => "the text is not a baggage key: use ASCII letters, digits and symbols such as `.` and `_`",
        VariableNotUnicode => "the value is not valid UTF-8: encode it as UTF-8",
        ReservedKey =>
            "the key is reserved for a value that Session has a method for: use that method",
        TooMany =>
            "the session is full: it can have at most 128 tags, 128 metadata keys and 128 attributes: remove some, \
             or set the value on a span",
        ShortKey => "the key is too short: use at least 16 random bytes",
        NotSet => "the environment variable is not set",
    }
}

/// Completes [`ErrorKind::Placeholder`] if the value is in a field of a span.
pub(crate) const RECORD_LATER: &str = " (declare the field Empty, and record it later)";

/// With the auto traits that [`Error`] has without a cause.
pub(crate) type DynError = dyn std::error::Error + Send + Sync + UnwindSafe + RefUnwindSafe;

/// The error that caused ours. `Arc`, because `Error` is `Clone`.
#[derive(Clone)]
struct Cause(Arc<DynError>);

impl PartialEq for Cause {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_string() == other.0.to_string()
    }
}

impl Eq for Cause {}

impl Error {
    /// Creates an error about a value other than an id, such as a tag.
    pub(crate) fn of(noun: &'static str, kind: ErrorKind) -> Self {
        Self {
            kind,
            noun,
            subject: String::new(),
            cause: None,
        }
    }

    /// Adds the name that the error is about. Never an id.
    pub(crate) fn about(mut self, name: &str) -> Self {
        self.subject.extend(["`", name, "`: "]);
        self
    }

    /// Adds the environment variable that has the wrong value.
    pub(crate) fn of_variable(mut self, variable: &str) -> Self {
        self.subject.extend([variable, ": "]);
        self
    }

    /// The text, with the text of the cause.
    pub(crate) fn full_text(&self) -> String {
        match &self.cause {
            Some(Cause(cause)) => format!("{self}: {cause}"),
            None => self.to_string(),
        }
    }

    #[cfg(feature = "otlp")]
    pub(crate) fn caused_by(kind: ErrorKind, cause: Arc<DynError>) -> Self {
        let mut error = Self::from(kind);
        error.cause = Some(Cause(cause));
        error
    }
}

/// The value of an environment variable, if it is set and not blank.
pub(crate) fn variable(name: &str) -> Result<Option<String>, Error> {
    match std::env::var(name) {
        Ok(value) => Ok(Some(value).filter(|value| !value.trim().is_empty())),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => {
            Err(Error::from(ErrorKind::VariableNotUnicode).of_variable(name))
        }
    }
}

impl From<ErrorKind> for Error {
    fn from(kind: ErrorKind) -> Self {
        Self::of("id", kind)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.subject)?;
        if self.is_invalid_id() {
            write!(f, "{} ", self.noun)?;
        }
        self.kind.write_text(f)
    }
}

/// Shows the text, because Rust prints `Debug` if `main` returns an error.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Error").field(&self.full_text()).finish()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.cause.as_ref()?.0)
    }
}
