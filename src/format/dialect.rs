//! Which keys are written: each backend reads its own.

use crate::format::attributes::{METADATA, SESSION_ID, TAGS, USER_ID};
use crate::format::redaction;
use crate::scope::Role;
use std::borrow::Cow;

/// The keys under which session, user, metadata and tags are exported.
///
/// [`OPENINFERENCE`](Self::OPENINFERENCE) is what is written unless another is given to
/// [`SessionTracerProvider::with_dialect`](crate::SessionTracerProvider::with_dialect). Several are
/// written at once where they are joined by [`and`](Self::and). A prompt template and attributes of
/// one's own have the same keys in all of them.
///
/// [`Dialect::new`] has no key at all: alone, it exports no session.
///
/// Cost: an attribute for each key, and an allocation, on each span. The default takes none.
///
/// ```
/// use opentelemetry_sdk::trace::SdkTracerProvider;
/// use tracing_session::{Dialect, SessionTracerProvider};
///
/// # let provider = SdkTracerProvider::default();
/// let provider = SessionTracerProvider::new(provider)
///     .with_dialect(Dialect::OPENINFERENCE.and(Dialect::GEN_AI));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dialect {
    rules: Cow<'static, [Rule]>,
}

/// One key, and what is written under it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) written: Written,
    pub(crate) key: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    SessionId,
    UserId,
    /// All metadata, as one JSON object.
    Metadata,
    /// Each metadata by itself: the key is what its own is appended to.
    MetadataEntry,
    /// A list of strings.
    Tags,
    /// One string, with commas.
    JoinedTags,
}

use Written::*;

impl Rule {
    /// Whether an attribute with this key may be written by the rule.
    pub(crate) fn is_of(&self, key: &str) -> bool {
        match self.written {
            MetadataEntry => key.starts_with(self.key),
            _ => key == self.key,
        }
    }

    /// Which id is written under the key.
    pub(crate) fn role(&self) -> Option<Role> {
        match self.written {
            SessionId => Some(Role::Session),
            UserId => Some(Role::User),
            _ => None,
        }
    }
}

const fn rule(written: Written, key: &'static str) -> Rule {
    Rule { written, key }
}

impl Default for Dialect {
    /// [`Dialect::OPENINFERENCE`]. [`Dialect::new`] is the one without a key.
    fn default() -> Self {
        Self::OPENINFERENCE
    }
}

impl Dialect {
    /// OpenInference: Phoenix, and most of the others besides their own. `session.id`, `user.id`,
    /// `metadata`, `tag.tags`.
    ///
    /// Source: OpenInference's semantic conventions, "Context Attributes".
    ///
    /// ```
    /// # use tracing_session::Dialect;
    /// let default = Dialect::OPENINFERENCE;
    /// ```
    pub const OPENINFERENCE: Self = Self::of(&[
        rule(SessionId, SESSION_ID),
        rule(UserId, USER_ID),
        rule(Metadata, METADATA),
        rule(Tags, TAGS),
    ]);

    /// OpenTelemetry's conventions for generative AI: `gen_ai.conversation.id`.
    ///
    /// ```
    /// # use tracing_session::Dialect;
    /// let both = Dialect::OPENINFERENCE.and(Dialect::GEN_AI);
    /// ```
    pub const GEN_AI: Self = Self::of(&[rule(SessionId, "gen_ai.conversation.id")]);

    /// Langfuse: `langfuse.session.id`, `langfuse.user.id`, `langfuse.trace.metadata.<key>`,
    /// `langfuse.trace.tags`.
    ///
    /// ```
    /// # use tracing_session::Dialect;
    /// let both = Dialect::OPENINFERENCE.and(Dialect::LANGFUSE);
    /// ```
    pub const LANGFUSE: Self = Self::of(&[
        rule(SessionId, "langfuse.session.id"),
        rule(UserId, "langfuse.user.id"),
        rule(MetadataEntry, "langfuse.trace.metadata."),
        rule(Tags, "langfuse.trace.tags"),
    ]);

    /// LangSmith: `langsmith.metadata.thread_id`, `langsmith.metadata.user_id`,
    /// `langsmith.metadata.<key>`, `langsmith.span.tags` (one string, with commas).
    ///
    /// ```
    /// # use tracing_session::Dialect;
    /// let both = Dialect::OPENINFERENCE.and(Dialect::LANGSMITH);
    /// ```
    pub const LANGSMITH: Self = Self::of(&[
        rule(SessionId, "langsmith.metadata.thread_id"),
        rule(UserId, "langsmith.metadata.user_id"),
        rule(MetadataEntry, "langsmith.metadata."),
        rule(JoinedTags, "langsmith.span.tags"),
    ]);

    /// MLflow: OpenInference's `session.id` and `user.id`, and `mlflow.traceTag.<key>` for metadata,
    /// which it reads on the root span. It refuses all that comes with a session id of more than 250
    /// characters.
    ///
    /// ```
    /// # use tracing_session::Dialect;
    /// let both = Dialect::OPENINFERENCE.and(Dialect::MLFLOW);
    /// ```
    pub const MLFLOW: Self = Self::of(&[
        rule(SessionId, SESSION_ID),
        rule(UserId, USER_ID),
        rule(MetadataEntry, "mlflow.traceTag."),
    ]);

    /// Traceloop: `traceloop.association.properties.<key>`, with `session_id` and `user_id`.
    ///
    /// ```
    /// # use tracing_session::Dialect;
    /// let both = Dialect::OPENINFERENCE.and(Dialect::TRACELOOP);
    /// ```
    pub const TRACELOOP: Self = Self::of(&[
        rule(SessionId, "traceloop.association.properties.session_id"),
        rule(UserId, "traceloop.association.properties.user_id"),
        rule(MetadataEntry, "traceloop.association.properties."),
    ]);

    /// PostHog: `$ai_session_id` and `posthog.distinct_id`, and for its tracing `sessionId` and
    /// `posthogDistinctId`.
    ///
    /// ```
    /// # use tracing_session::Dialect;
    /// let both = Dialect::OPENINFERENCE.and(Dialect::POSTHOG);
    /// ```
    pub const POSTHOG: Self = Self::of(&[
        rule(SessionId, "$ai_session_id"),
        rule(SessionId, "sessionId"),
        rule(UserId, "posthog.distinct_id"),
        rule(UserId, "posthogDistinctId"),
    ]);

    /// Weave: `wandb.thread_id` and `weave.conversation.id`, `wandb.attributes.<key>`.
    ///
    /// ```
    /// # use tracing_session::Dialect;
    /// let both = Dialect::OPENINFERENCE.and(Dialect::WEAVE);
    /// ```
    pub const WEAVE: Self = Self::of(&[
        rule(SessionId, "wandb.thread_id"),
        rule(SessionId, "weave.conversation.id"),
        rule(MetadataEntry, "wandb.attributes."),
    ]);

    /// Mirascope: `mirascope.ops.session.id`, `mirascope.ops.session.attributes` (one JSON object),
    /// `mirascope.trace.tags`.
    ///
    /// ```
    /// # use tracing_session::Dialect;
    /// let both = Dialect::OPENINFERENCE.and(Dialect::MIRASCOPE);
    /// ```
    pub const MIRASCOPE: Self = Self::of(&[
        rule(SessionId, "mirascope.ops.session.id"),
        rule(Metadata, "mirascope.ops.session.attributes"),
        rule(Tags, "mirascope.trace.tags"),
    ]);

    /// TraceCtrl: `tracectrl.session_id`.
    ///
    /// ```
    /// # use tracing_session::Dialect;
    /// let both = Dialect::OPENINFERENCE.and(Dialect::TRACECTRL);
    /// ```
    pub const TRACECTRL: Self = Self::of(&[rule(SessionId, "tracectrl.session_id")]);

    const fn of(rules: &'static [Rule]) -> Self {
        Self {
            rules: Cow::Borrowed(rules),
        }
    }

    /// A table of one's own, without a key yet.
    ///
    /// ```
    /// use tracing_session::Dialect;
    ///
    /// let ours = Dialect::new()
    ///     .with_session_key("acme.conversation")
    ///     .with_user_key("acme.customer")
    ///     .with_metadata_prefix("acme.metadata.")
    ///     .with_tags_key("acme.tags");
    /// ```
    pub const fn new() -> Self {
        Self::of(&[])
    }

    /// Writes the keys of `other` too. A key that both have means what it means in this one.
    ///
    /// ```
    /// # use tracing_session::Dialect;
    /// let both = Dialect::OPENINFERENCE.and(Dialect::LANGFUSE);
    /// ```
    pub fn and(mut self, other: Self) -> Self {
        for rule in other.rules.iter() {
            self = self.with(rule.written, rule.key);
        }
        self
    }

    /// Writes the session's id under this key too.
    ///
    /// ```
    /// # use tracing_session::Dialect;
    /// let azure = Dialect::OPENINFERENCE.with_session_key("microsoft.session.id");
    /// ```
    pub fn with_session_key(self, key: &'static str) -> Self {
        self.with(SessionId, key)
    }

    /// Writes the user's id under this key too.
    ///
    /// ```
    /// # use tracing_session::Dialect;
    /// let azure = Dialect::OPENINFERENCE.with_user_key("enduser.id");
    /// ```
    pub fn with_user_key(self, key: &'static str) -> Self {
        self.with(UserId, key)
    }

    /// Writes all metadata under this key too, as the text of one JSON object.
    ///
    /// ```
    /// # use tracing_session::Dialect;
    /// let ours = Dialect::new().with_metadata_key("acme.metadata");
    /// ```
    pub fn with_metadata_key(self, key: &'static str) -> Self {
        self.with(Metadata, key)
    }

    /// Writes each metadata by itself too, under its key with this in front: strings, numbers and
    /// booleans as they are, the rest as the text of its JSON, and no nulls.
    ///
    /// ```
    /// # use tracing_session::Dialect;
    /// let ours = Dialect::new().with_metadata_prefix("acme.");
    /// ```
    pub fn with_metadata_prefix(self, prefix: &'static str) -> Self {
        self.with(MetadataEntry, prefix)
    }

    /// Writes the tags under this key too, as a list of strings.
    ///
    /// ```
    /// # use tracing_session::Dialect;
    /// let ours = Dialect::new().with_tags_key("acme.tags");
    /// ```
    pub fn with_tags_key(self, key: &'static str) -> Self {
        self.with(Tags, key)
    }

    fn with(mut self, written: Written, key: &'static str) -> Self {
        // No key is written twice.
        if self.rules.iter().all(|rule| rule.key != key) {
            let rule = rule(written, key);
            self.rules.to_mut().push(rule);
            if let Some(role) = rule.role() {
                redaction::register_id_field(key, role);
            }
        }
        self
    }

    /// Every built-in dialect.
    pub(crate) fn all() -> &'static [Self] {
        &ALL
    }

    pub(crate) fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The rule that writes this key.
    pub(crate) fn rule(&self, key: &str) -> Option<Rule> {
        self.rules.iter().find(|rule| rule.key == key).copied()
    }

    /// What of OpenInference has no key of this dialect: an attribute of a span's own would be lost.
    pub(crate) fn missing(&self) -> Self {
        let kind = |written| match written {
            MetadataEntry => Metadata,
            JoinedTags => Tags,
            other => other,
        };
        let is_missing = |rule: &&Rule| {
            let mut rules = self.rules.iter();
            rules.all(|it| kind(it.written) != kind(rule.written))
        };
        let missing = Self::OPENINFERENCE.rules;
        Self {
            rules: missing.iter().filter(is_missing).copied().collect(),
        }
    }
}

static ALL: [Dialect; 10] = [
    Dialect::OPENINFERENCE,
    Dialect::GEN_AI,
    Dialect::LANGFUSE,
    Dialect::LANGSMITH,
    Dialect::MLFLOW,
    Dialect::TRACELOOP,
    Dialect::POSTHOG,
    Dialect::WEAVE,
    Dialect::MIRASCOPE,
    Dialect::TRACECTRL,
];
