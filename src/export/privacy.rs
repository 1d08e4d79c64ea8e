//! `Privacy` selects the ids and metadata to redact, and the policy for each.

#[cfg(feature = "hash")]
use crate::base::error::{Error, ErrorKind};
#[cfg(feature = "hash")]
use crate::session::id::{Mac, hash};
use crate::session::{Id, IdKind};
use std::fmt;
use std::sync::Arc;

/// Redacts session ids, user ids and metadata: hashes or omits them.
///
/// Pass it to [`SessionTracerProvider::with_privacy`]. The provider then redacts all spans of `tracing` and of
/// OpenTelemetry's own API, so every exporter of the provider receives redacted values.
///
/// # Which values are redacted
///
/// The provider looks at the **key** of an attribute, and redacts the attributes of spans, of span
/// events and of span links with these keys:
///
/// - `session.id`, `session.previous_id` and `user.id`;
/// - the session and user keys of every [`Dialect`](crate::Dialect), such as `langfuse.user.id`;
/// - the fields that you configure with
///   [`SessionLayer::with_session_field`](crate::SessionLayer::with_session_field) and
///   [`with_user_field`](crate::SessionLayer::with_user_field), in any layer of the process;
/// - `id` on spans named `session` or `user`, and on spans with a name that you configure with
///   [`with_session_span`](crate::SessionLayer::with_session_span) or
///   [`with_user_span`](crate::SessionLayer::with_user_span);
/// - the keys that you add with [`with_session_key`](Self::with_session_key) and
///   [`with_user_key`](Self::with_user_key);
/// - metadata with the keys that you pass to [`with_metadata`](Self::with_metadata).
///
/// The provider redacts a value before the sampler, the span processors and the exporters receive it. It trims the text and
/// removes the quotes and the `Some(..)` that `?value` adds, so an id always has the same hash. It hashes numbers and
/// booleans as text, and omits lists. If the policy is a hash, blank values stay unchanged.
///
/// # Which values are not redacted
///
/// - An id inside a longer text, such as a prompt, a URL or an error message.
/// - An id under any other key. Add the key with [`with_user_key`](Self::with_user_key).
/// - An id inside the JSON of `metadata`, except in the entries that you pass to
///   [`with_metadata`](Self::with_metadata).
/// - The field `id` of an event.
/// - Span names, event names and status descriptions. `tracing-opentelemetry` uses the message of an
///   event as the name of the span event.
/// - Attributes that a sampler or a span processor adds, and the session in the `Context` that they receive.
///
/// # Headers and logs
///
/// [`SessionPropagator::with_privacy`] redacts the ids in outgoing headers.
/// `SessionLogProcessor::with_privacy` and `fmt::SessionFormat::with_privacy` redact the values that this
/// crate writes on log records and lines. They can't redact the fields that you log yourself.
///
/// [`SessionTracerProvider::with_privacy`]: crate::SessionTracerProvider::with_privacy
/// [`SessionPropagator::with_privacy`]: crate::SessionPropagator::with_privacy
///
/// ```
/// # use opentelemetry_sdk::trace::SdkTracerProvider;
/// use tracing_session::{Privacy, SessionTracerProvider, export::IdPolicy};
///
/// # let provider = SdkTracerProvider::default();
/// let privacy = Privacy::new()
///     .with_user_ids(IdPolicy::omitted())
///     .with_user_key("enduser.id")
///     .with_metadata(["email"], IdPolicy::omitted());
/// let provider = SessionTracerProvider::new(provider).with_privacy(privacy);
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "it has no effect until a provider has it: `.with_privacy(privacy)`"]
pub struct Privacy {
    pub(crate) user_ids: IdPolicy,
    pub(crate) session_ids: IdPolicy,
    pub(crate) metadata: Vec<(String, IdPolicy)>,
    /// The keys of ids that [`with_session_key`](Self::with_session_key) and
    /// [`with_user_key`](Self::with_user_key) add.
    pub(crate) keys: Vec<(String, IdKind)>,
}

impl Privacy {
    /// Creates a `Privacy` that redacts nothing.
    ///
    /// ```
    /// # use tracing_session::Privacy;
    /// let unchanged = Privacy::new();
    /// ```
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the policy for user ids. Default: [`IdPolicy::plain`].
    ///
    /// A hashed `user.id` is exported as `user.hash`, as OpenTelemetry's conventions name it. Every other user key keeps its
    /// name and gets the hash as its value.
    ///
    /// ```
    /// # use tracing_session::{Privacy, export::IdPolicy};
    /// let privacy = Privacy::new().with_user_ids(IdPolicy::omitted());
    /// ```
    #[doc(alias = "UserIdPolicy")]
    pub fn with_user_ids(self, user_ids: IdPolicy) -> Self {
        Self { user_ids, ..self }
    }

    /// Sets the policy for session ids. Default: [`IdPolicy::plain`].
    ///
    /// A hash replaces the id under the same key, so backends still group the spans of a conversation.
    ///
    /// ```
    /// # use tracing_session::{Privacy, export::IdPolicy};
    /// let privacy = Privacy::new().with_session_ids(IdPolicy::omitted());
    /// ```
    pub fn with_session_ids(mut self, session_ids: IdPolicy) -> Self {
        self.session_ids = session_ids;
        self
    }

    /// Adds an attribute key that contains a session id. The policy for session ids applies to it.
    ///
    /// ```
    /// # use tracing_session::{Privacy, export::IdPolicy};
    /// let privacy = Privacy::new()
    ///     .with_session_ids(IdPolicy::omitted())
    ///     .with_session_key("acme.thread");
    /// ```
    pub fn with_session_key(mut self, key: impl Into<String>) -> Self {
        self.keys.push((key.into(), IdKind::Session));
        self
    }

    /// Adds an attribute key that contains a user id. The policy for user ids applies to it.
    ///
    /// ```
    /// # use tracing_session::{Privacy, export::IdPolicy};
    /// let privacy = Privacy::new()
    ///     .with_user_ids(IdPolicy::omitted())
    ///     .with_user_key("enduser.id");
    /// ```
    pub fn with_user_key(mut self, key: impl Into<String>) -> Self {
        self.keys.push((key.into(), IdKind::User));
        self
    }

    /// Sets the policy for metadata with these keys. Default: [`IdPolicy::plain`].
    ///
    /// The policy applies to the metadata of a session, to attributes such as `metadata.email` and
    /// `langfuse.trace.metadata.email`, and to entries of the JSON object under the key `metadata`. Texts are hashed without
    /// their quotes, and other values as JSON. Attributes with a list, and objects that aren't valid JSON, are omitted.
    ///
    /// ```
    /// # use tracing_session::{Privacy, export::IdPolicy};
    /// let privacy = Privacy::new().with_metadata(["email", "ip"], IdPolicy::omitted());
    /// ```
    pub fn with_metadata<K: Into<String>>(
        mut self,
        keys: impl IntoIterator<Item = K>,
        policy: IdPolicy,
    ) -> Self {
        let keys = keys.into_iter().map(|key| (key.into(), policy.clone()));
        // The last policy for a key wins, because the search starts at the front.
        self.metadata.splice(0..0, keys);
        self
    }

    #[inline(always)]
    pub(crate) fn id_policy(&self, kind: IdKind) -> &IdPolicy {
        match kind {
            IdKind::Session => &self.session_ids,
            IdKind::User => &self.user_ids,
        }
    }

    /// The policy for the metadata with this key, if it redacts.
    pub(crate) fn metadata_policy(&self, key: &str) -> Option<&IdPolicy> {
        let mut policies = self.metadata.iter();
        let (_, policy) = policies.find(|(private, _)| private == key)?;
        Some(policy).filter(|policy| !policy.is_plain())
    }
}

/// The policy for an id: export it unchanged, as a hash, or not at all.
///
/// A hash needs a secret key. Without a key, everyone with a list of ids could compute their hashes.
///
/// ```
/// use tracing_session::{Privacy, export::IdPolicy};
///
/// let privacy = Privacy::new().with_user_ids(IdPolicy::omitted());
/// ```
#[derive(Clone, Default)]
#[must_use = "it has no effect until a `Privacy` has it: `.with_user_ids(policy)` or `.with_session_ids(policy)`"]
pub struct IdPolicy(Kind);

#[derive(Clone, Default)]
enum Kind {
    #[default]
    Plain,
    Omitted,
    #[cfg(feature = "hash")]
    Hashed(Arc<Mac>),
}

impl IdPolicy {
    /// Exports the id unchanged.
    ///
    /// ```
    /// # use tracing_session::export::IdPolicy;
    /// let policy = IdPolicy::plain();
    /// ```
    pub fn plain() -> Self {
        Self(Kind::Plain)
    }

    /// Omits the id.
    ///
    /// ```
    /// # use tracing_session::export::IdPolicy;
    /// let policy = IdPolicy::omitted();
    /// ```
    pub fn omitted() -> Self {
        Self(Kind::Omitted)
    }

    /// Replaces the id with its HMAC-SHA-256 under this key, in 64 hexadecimal digits.
    ///
    /// The same id and key give the same hash in every process and language: `printf u-7 | openssl dgst -sha256 -hmac
    /// "$KEY"`.
    ///
    /// Cost: about 0.3 µs once per id, or about 2 µs on a processor without instructions for SHA-256. Each further span costs
    /// about 40 ns, because the session caches the hash for one `IdPolicy` and its clones. To hash the same ids in several
    /// places, such as a tracer provider and a propagator, clone one `IdPolicy`.
    ///
    /// # Errors
    ///
    /// Returns an error if the key is shorter than 16 bytes.
    ///
    /// ```
    /// # use tracing_session::export::IdPolicy;
    /// let key = b"at least sixteen bytes, of random";
    /// let policy = IdPolicy::hashed(key)?;
    /// assert!(IdPolicy::hashed("").is_err());
    /// # Ok::<(), tracing_session::Error>(())
    /// ```
    #[cfg(feature = "hash")]
    pub fn hashed(key: impl AsRef<[u8]>) -> Result<Self, Error> {
        use hmac::KeyInit;

        const SHORTEST: usize = 16;
        let key = key.as_ref();
        match Mac::new_from_slice(key) {
            Ok(mac) if key.len() >= SHORTEST => Ok(Self(Kind::Hashed(Arc::new(mac)))),
            _ => Err(ErrorKind::ShortKey.into()),
        }
    }

    /// Does the same as [`hashed`](Self::hashed), with the bytes of an environment variable as the key.
    ///
    /// # Errors
    ///
    /// Returns an error that names the variable if the variable is not set, or its value is shorter than
    /// 16 bytes.
    ///
    /// ```
    /// # use tracing_session::export::IdPolicy;
    /// let error = IdPolicy::hashed_from_env("USER_ID_KEY").unwrap_err();
    /// assert_eq!(error.to_string(), "`USER_ID_KEY`: the environment variable is not set");
    /// ```
    #[cfg(feature = "hash")]
    pub fn hashed_from_env(variable: &str) -> Result<Self, Error> {
        let hashed = match std::env::var_os(variable) {
            Some(key) => Self::hashed(key.as_encoded_bytes()),
            None => Err(ErrorKind::NotSet.into()),
        };
        hashed.map_err(|error: Error| error.about(variable))
    }

    #[inline(always)]
    pub(crate) fn is_plain(&self) -> bool {
        matches!(self.0, Kind::Plain)
    }

    #[inline(always)]
    pub(crate) fn hashes(&self) -> bool {
        !matches!(self.0, Kind::Plain | Kind::Omitted)
    }

    /// The text to export in place of an id.
    #[inline(always)]
    pub(crate) fn redact_id(&self, id: &Id) -> Option<Arc<str>> {
        match &self.0 {
            Kind::Plain => Some(id.shared()),
            Kind::Omitted => None,
            #[cfg(feature = "hash")]
            Kind::Hashed(key) => Some(id.hash(key)),
        }
    }

    /// The text to export in place of any other text.
    pub(crate) fn redact_text(&self, text: &str) -> Option<Arc<str>> {
        match &self.0 {
            Kind::Plain => Some(text.into()),
            Kind::Omitted => None,
            #[cfg(feature = "hash")]
            Kind::Hashed(key) => Some(hash(key, text)),
        }
    }
}

/// Omits the key.
impl fmt::Debug for IdPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Kind::Plain => "plain",
            Kind::Omitted => "omitted",
            #[cfg(feature = "hash")]
            Kind::Hashed(_) => "hashed",
        })
    }
}
