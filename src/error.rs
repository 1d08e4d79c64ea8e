#[cfg(feature = "otlp")]
use crate::otlp::{Cause, Trouble};
use std::fmt;

/// Why an id was refused, why there was nothing to set it on, or what is wrong with the set-up.
///
/// The text says what to change and never contains an id: ids are personal data.
///
/// ```
/// use tracing_session::Session;
///
/// let error = Session::new("two\nlines").unwrap_err();
/// assert!(error.is_invalid_id());
/// assert_eq!(error.to_string(), "id has a control character");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Error {
    pub(crate) kind: ErrorKind,
    /// What was refused, where it is not an id.
    noun: Option<&'static str>,
    variable: Option<&'static str>,
    /// What the error is about. Never an id.
    name: Option<Box<str>>,
    #[cfg(feature = "otlp")]
    pub(crate) cause: Option<Cause>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ErrorKind {
    Blank,
    /// A text that stands for no value, such as `None`.
    Placeholder,
    TooLong,
    ControlCharacter,
    NotUnicode,
    NoSpan,
    HiddenSpan,
    NoProvider,
    InsideValue,
    Starting,
    NothingToMark,
    DefaultIsSet,
    NotATraceId,
    NotASpanId,
    MalformedState,
    StateVersion(u64),
    Conflict,
    HeaderName,
    VariableNotUnicode,
    /// With those that are valid.
    Propagator(&'static str),
    Serialize,
    NotAnObject,
    ReservedKey,
    #[cfg(feature = "hash")]
    ShortKey,
    #[cfg(feature = "hash")]
    NotSet,
    #[cfg(feature = "otlp")]
    Otlp(Trouble),
}

impl Error {
    /// The id is blank, longer than 1,024 bytes, not UTF-8, or has a control character; or a tag or
    /// a key is, which obey the same rule.
    ///
    /// ```
    /// # use tracing_session::Session;
    /// assert!(Session::new("  ").unwrap_err().is_invalid_id());
    /// ```
    pub fn is_invalid_id(&self) -> bool {
        self.kind.is_of_id()
    }

    /// There is no span here that a value could be set on.
    ///
    /// ```
    /// let error = tracing_session::set_session_id("chat-42").unwrap_err();
    /// assert!(error.is_no_span());
    /// ```
    pub fn is_no_span(&self) -> bool {
        use ErrorKind::*;
        matches!(
            self.kind,
            NoSpan | HiddenSpan | NoProvider | InsideValue | Starting
        )
    }

    /// The environment names a propagator that there is not.
    ///
    /// ```
    /// # use tracing_session::Session;
    /// assert!(!Session::new("  ").unwrap_err().is_unknown_propagator());
    /// ```
    pub fn is_unknown_propagator(&self) -> bool {
        matches!(self.kind, ErrorKind::Propagator(_))
    }

    /// A value cannot be serialised as JSON, or has to be a JSON object and is none.
    ///
    /// ```
    /// # use tracing_session::Session;
    /// let error = Session::default().with_prompt_template_variables(["Oslo"]).unwrap_err();
    /// assert!(error.is_invalid_json());
    /// ```
    pub fn is_invalid_json(&self) -> bool {
        matches!(self.kind, ErrorKind::Serialize | ErrorKind::NotAnObject)
    }

    /// What was to go on from is not what it should be: the state of a conversation, or the id of a
    /// trace or span.
    ///
    /// ```
    /// # use tracing_session::link_context;
    /// let error = link_context("tr_0123", "sp_0123456789abcdef").unwrap_err();
    /// assert!(error.is_invalid_state());
    /// ```
    pub fn is_invalid_state(&self) -> bool {
        use ErrorKind::*;
        matches!(
            self.kind,
            NotATraceId | NotASpanId | StateVersion(_) | MalformedState
        )
    }

    /// Something other than an id was refused.
    pub(crate) fn of(noun: &'static str, kind: ErrorKind) -> Self {
        Self {
            noun: Some(noun),
            ..kind.into()
        }
    }

    /// The same error, with the name that it is about.
    pub(crate) fn about(self, name: &str) -> Self {
        Self {
            name: Some(name.into()),
            ..self
        }
    }

    /// The same error, said of an environment variable.
    pub(crate) fn of_variable(self, variable: impl Into<Option<&'static str>>) -> Self {
        let variable = variable.into();
        Self { variable, ..self }
    }
}

impl From<ErrorKind> for Error {
    fn from(kind: ErrorKind) -> Self {
        Self {
            kind,
            noun: None,
            variable: None,
            name: None,
            #[cfg(feature = "otlp")]
            cause: None,
        }
    }
}

impl ErrorKind {
    /// Whether it breaks the rule of ids.
    fn is_of_id(self) -> bool {
        use ErrorKind::*;
        matches!(
            self,
            Blank | Placeholder | TooLong | ControlCharacter | NotUnicode
        )
    }

    /// What is said of `noun`, where it was refused.
    fn describe(self, noun: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_of_id() {
            write!(f, "{noun} ")?;
        }
        f.write_str(match self {
            Self::Propagator(valid) => return write!(f, "no such propagator (valid: {valid})"),
            #[cfg(feature = "otlp")]
            Self::Otlp(trouble) => return fmt::Display::fmt(&trouble, f),
            Self::NotATraceId => "not a trace id: 32 hexadecimal digits, or Tracia's `tr_` and 16",
            Self::NotASpanId => "not a span id: 16 hexadecimal digits, or Tracia's `sp_` and 16",
            Self::StateVersion(version) => {
                return write!(
                    f,
                    "conversation state is of version {version}, and 1 is what this release reads"
                );
            }
            Self::MalformedState => "missing or malformed in the state of the conversation",
            Self::Conflict => "it is not the only one, and they differ",
            Self::VariableNotUnicode => "the value is not valid UTF-8",
            Self::Serialize => "the value cannot be serialised as JSON",
            Self::NotAnObject => "the value is not a JSON object",
            Self::ReservedKey => {
                "the key is kept for what a Session says: set it with the method of Session for it"
            }
            #[cfg(feature = "hash")]
            Self::ShortKey => "the key is too short: 16 random bytes are the least",
            #[cfg(feature = "hash")]
            Self::NotSet => "the environment variable is not set",
            Self::HeaderName => "not a name for a header of the session's own",
            Self::Blank => "is blank",
            Self::Placeholder => {
                "is a placeholder for a missing value, such as None or null: leave it out until the \
                 value is known, and declare a field Empty"
            }
            Self::TooLong => "is longer than 1024 bytes",
            Self::ControlCharacter => "has a control character",
            Self::NotUnicode => "is not valid UTF-8",
            Self::NoSpan => {
                "no span here to set the session or user on; call it inside a span, attach a \
                 Session, or set a default session for the process (Session::set_global_default)"
            }
            Self::HiddenSpan => {
                "the current span is hidden from the OpenTelemetry layer (by a filter, or behind \
                 reload::Layer), so nothing can be set on it; call it inside a span that is \
                 exported, or attach a Session"
            }
            Self::NoProvider => {
                "the current span's tracer does not come from a SessionTracerProvider, so nothing \
                 can be set on it (use SessionTracerProvider::new(provider).tracer(\"..\"))"
            }
            Self::InsideValue => {
                "a Session is attached inside the current span, or what came in with headers is, \
                 which would hide what is set on the span; attach a Session with the other value \
                 too, or call it in a span inside"
            }
            Self::Starting => {
                "a span is being started here, by a sampler or a span processor: nothing can be set on \
                 it from inside; a Session can be attached around the span, or be recorded on it later"
            }
            Self::DefaultIsSet => {
                "the process has a default session already; set it once, at the start of main"
            }
            Self::NothingToMark => "no session or user is in force here to mark the trace with",
        })
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.describe("id", f)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(variable) = self.variable {
            write!(f, "{variable}: ")?;
        }
        if let Some(name) = &self.name {
            write!(f, "`{name}`: ")?;
        }
        self.kind.describe(self.noun.unwrap_or("id"), f)
    }
}

/// The text, as it is what is printed where `main` returns an error, and that of its cause.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use std::error::Error;
        let text = match self.source() {
            Some(cause) => format!("{self}: {cause}"),
            None => self.to_string(),
        };
        f.debug_tuple("Error").field(&text).finish()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        #[cfg(feature = "otlp")]
        if let Some(cause) = &self.cause {
            return Some(&*cause.0);
        }
        None
    }
}
