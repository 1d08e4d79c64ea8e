//! What a provider hides: user ids, session ids, metadata.

#[cfg(feature = "hash")]
use crate::error::{Error, ErrorKind};
use crate::session::Id;
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// Which values are exported as they are, hashed, or not at all.
///
/// It is given to [`SessionTracerProvider::with_privacy`], and holds for every span of that
/// provider, whoever made it: for what is inherited, for an attribute `user.id` (or one that a
/// [`Dialect`](crate::Dialect) names) that the span's author set, and for any attribute whose whole
/// text is an id that is to be hidden. A number counts as one only on a span whose own fields say an
/// id: elsewhere it may be anything. [`SessionPropagator::with_privacy`] has the same for what is
/// sent, and `SessionLogProcessor::with_privacy` and `fmt::with_session` for what they write on logs:
/// there nothing can be hidden that the author of a record wrote himself.
///
/// It does not look into events, links, names of spans, descriptions of a status, lists and longer
/// texts, to which the JSON of `metadata` belongs: [`with_metadata`](Self::with_metadata) hides what
/// is in there.
///
/// An id may become known after a span has started. So where ids are hidden, texts are held back until
/// the span ends: samplers, and what span processors do when a span starts, do not see them, and of
/// more attributes than the SDK allows they are the first that are lost.
///
/// [`SessionTracerProvider::with_privacy`]: crate::SessionTracerProvider::with_privacy
/// [`SessionPropagator::with_privacy`]: crate::SessionPropagator::with_privacy
///
/// ```
/// # use opentelemetry_sdk::trace::SdkTracerProvider;
/// use tracing_session::{IdPolicy, Privacy, SessionTracerProvider};
///
/// # let provider = SdkTracerProvider::default();
/// let privacy = Privacy::new()
///     .with_user_ids(IdPolicy::omitted())
///     .with_metadata(["email"], IdPolicy::omitted());
/// let provider = SessionTracerProvider::new(provider).with_privacy(privacy);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Privacy {
    pub(crate) user_ids: IdPolicy,
    pub(crate) session_ids: IdPolicy,
    pub(crate) metadata: Vec<(String, IdPolicy)>,
}

impl Privacy {
    /// Everything as it is.
    ///
    /// ```
    /// # use tracing_session::Privacy;
    /// let everything_as_it_is = Privacy::new();
    /// ```
    pub fn new() -> Self {
        Self::default()
    }

    /// What is exported of user ids. Default: [`IdPolicy::plain`].
    ///
    /// A hash is exported as `user.hash`, as OpenTelemetry's conventions name it, in place of
    /// `user.id`, and under the keys that other dialects have for the user's id.
    ///
    /// ```
    /// # use tracing_session::{IdPolicy, Privacy};
    /// let nobody = Privacy::new().with_user_ids(IdPolicy::omitted());
    /// ```
    #[doc(alias = "UserIdPolicy")]
    pub fn with_user_ids(self, user_ids: IdPolicy) -> Self {
        Self { user_ids, ..self }
    }

    /// What is exported of session ids. Default: [`IdPolicy::plain`].
    ///
    /// A hash is exported in the id's place, so that the conversation stays together.
    ///
    /// ```
    /// # use tracing_session::{IdPolicy, Privacy};
    /// let no_conversation = Privacy::new().with_session_ids(IdPolicy::omitted());
    /// ```
    pub fn with_session_ids(self, session_ids: IdPolicy) -> Self {
        Self {
            session_ids,
            ..self
        }
    }

    /// What is exported of the metadata with these keys. Default: [`IdPolicy::plain`].
    ///
    /// A hash is that of the text, or of the JSON that the value is.
    ///
    /// ```
    /// # use tracing_session::{IdPolicy, Privacy};
    /// let no_addresses = Privacy::new().with_metadata(["email", "ip"], IdPolicy::omitted());
    /// ```
    pub fn with_metadata<K: Into<String>>(
        mut self,
        keys: impl IntoIterator<Item = K>,
        policy: IdPolicy,
    ) -> Self {
        let keys = keys.into_iter().map(|key| (key.into(), policy.clone()));
        // What is said last stands first.
        self.metadata.splice(0..0, keys);
        self
    }

    pub(crate) fn metadata_policy(&self, key: &str) -> Option<&IdPolicy> {
        let mut policies = self.metadata.iter();
        policies
            .find(|(private, _)| private == key)
            .map(|(_, policy)| policy)
    }

    /// Whether anything is hidden.
    pub(crate) fn hides(&self) -> bool {
        self.hides_ids() || !self.metadata.is_empty()
    }

    /// Whether ids are hidden.
    pub(crate) fn hides_ids(&self) -> bool {
        !self.user_ids.is_plain() || !self.session_ids.is_plain()
    }
}

/// What becomes of an id where it is exported.
///
/// There is no hash without a key: whoever has the ids could compute it.
///
/// ```
/// use tracing_session::{IdPolicy, Privacy};
///
/// let privacy = Privacy::new().with_user_ids(IdPolicy::omitted());
/// ```
#[derive(Clone, Default)]
pub struct IdPolicy(Kind);

#[derive(Clone, Default)]
enum Kind {
    #[default]
    Plain,
    Omitted,
    #[cfg(feature = "hash")]
    Hashed(Arc<Mac>),
}

#[cfg(feature = "hash")]
type Mac = hmac::Hmac<sha2::Sha256>;

impl IdPolicy {
    /// As it is.
    ///
    /// ```
    /// # use tracing_session::IdPolicy;
    /// let policy = IdPolicy::plain();
    /// ```
    pub fn plain() -> Self {
        Self(Kind::Plain)
    }

    /// Left out.
    ///
    /// ```
    /// # use tracing_session::IdPolicy;
    /// let policy = IdPolicy::omitted();
    /// ```
    pub fn omitted() -> Self {
        Self(Kind::Omitted)
    }

    /// Its HMAC-SHA-256 under this key, in 64 hexadecimal digits.
    ///
    /// With the same key it is the same everywhere, in every language:
    /// `printf u-7 | openssl dgst -sha256 -hmac "$KEY"`.
    ///
    /// Cost: about 5,000 instructions where the processor has none for SHA-256, for the first span
    /// of a user; those that follow on the same thread take some 50.
    ///
    /// # Errors
    ///
    /// When the key is shorter than 16 bytes.
    ///
    /// ```
    /// # use tracing_session::IdPolicy;
    /// let key = b"at least sixteen bytes, of random";
    /// let policy = IdPolicy::hashed(key)?;
    /// assert!(IdPolicy::hashed("").is_err());
    /// # Ok::<(), tracing_session::Error>(())
    /// ```
    #[cfg(feature = "hash")]
    #[cfg_attr(docsrs, doc(cfg(feature = "hash")))]
    pub fn hashed(key: impl AsRef<[u8]>) -> Result<Self, Error> {
        use hmac::KeyInit;

        const SHORTEST: usize = 16;
        let key = key.as_ref();
        match Mac::new_from_slice(key) {
            Ok(mac) if key.len() >= SHORTEST => Ok(Self(Kind::Hashed(Arc::new(mac)))),
            _ => Err(ErrorKind::ShortKey.into()),
        }
    }

    /// [`hashed`](Self::hashed) with the key that an environment variable holds: its bytes, as they
    /// are.
    ///
    /// # Errors
    ///
    /// When the variable is not set, or its value shorter than 16 bytes; the error names the variable.
    ///
    /// ```
    /// # use tracing_session::IdPolicy;
    /// let error = IdPolicy::hashed_from_env("USER_ID_KEY").unwrap_err();
    /// assert_eq!(error.to_string(), "`USER_ID_KEY`: the environment variable is not set");
    /// ```
    #[cfg(feature = "hash")]
    #[cfg_attr(docsrs, doc(cfg(feature = "hash")))]
    pub fn hashed_from_env(variable: &str) -> Result<Self, Error> {
        let hashed = match std::env::var_os(variable) {
            Some(key) => Self::hashed(key.as_encoded_bytes()),
            None => Err(ErrorKind::NotSet.into()),
        };
        hashed.map_err(|error: Error| error.about(variable))
    }

    pub(crate) fn is_plain(&self) -> bool {
        matches!(self.0, Kind::Plain)
    }

    /// What is exported of an id.
    pub(crate) fn show<'a>(&self, id: &'a Id) -> Option<Shown<'a>> {
        match &self.0 {
            Kind::Plain => Some(Shown::Plain(id)),
            Kind::Omitted => None,
            #[cfg(feature = "hash")]
            Kind::Hashed(mac) => Some(Shown::Hash(remembered_hash(mac, id))),
        }
    }

    /// What is exported of any other text.
    pub(crate) fn show_text<'a>(&self, text: &'a str) -> Option<Cow<'a, str>> {
        match &self.0 {
            Kind::Plain => Some(Cow::Borrowed(text)),
            Kind::Omitted => None,
            #[cfg(feature = "hash")]
            Kind::Hashed(mac) => Some(Cow::Owned(hash(mac, text))),
        }
    }
}

pub(crate) enum Shown<'a> {
    Plain(&'a Id),
    #[cfg_attr(not(feature = "hash"), expect(dead_code, reason = "nothing is hashed"))]
    Hash(Arc<str>),
}

impl Shown<'_> {
    pub(crate) fn text(&self) -> Arc<str> {
        match self {
            Self::Plain(id) => (*id).clone().into_shared(),
            Self::Hash(hash) => hash.clone(),
        }
    }
}

#[cfg(feature = "hash")]
fn hash(mac: &Arc<Mac>, text: &str) -> String {
    use hmac::Mac as _;
    use std::fmt::Write;

    let mut mac = Mac::clone(mac);
    mac.update(text.as_bytes());
    let mut hex = String::with_capacity(64);
    for byte in mac.finalize().into_bytes() {
        // To a string that always succeeds.
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

/// Spans of one user follow one another on a thread, so the last hash is nearly always the next.
#[cfg(feature = "hash")]
fn remembered_hash(mac: &Arc<Mac>, id: &Id) -> Arc<str> {
    use std::cell::RefCell;

    struct Last {
        mac: Arc<Mac>,
        id: Id,
        hash: Arc<str>,
    }

    thread_local! {
        static LAST: RefCell<Option<Last>> = const { RefCell::new(None) };
    }

    let known = LAST.try_with(|last| match &*last.borrow() {
        Some(last) if Arc::ptr_eq(&last.mac, mac) && last.id == *id => Some(last.hash.clone()),
        _ => None,
    });
    known.ok().flatten().unwrap_or_else(|| {
        let hash: Arc<str> = hash(mac, id.as_str()).into();
        let last = Last {
            mac: mac.clone(),
            id: id.clone(),
            hash: hash.clone(),
        };
        // While the thread ends there is nowhere to remember it.
        let _ = LAST.try_with(|it| it.replace(Some(last)));
        hash
    })
}

/// Without the key.
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
