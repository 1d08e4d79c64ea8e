//! Which keys are written: each backend reads its own.

use crate::format::redaction;
use crate::session::IdKind;
use crate::session::keys::{METADATA, SESSION_ID, TAGS, USER_ID};
use std::borrow::Cow;

/// The keys under which one backend reads session, user, metadata and tags.
///
/// Spans carry the keys of [`OPENINFERENCE`](Self::OPENINFERENCE), the default. A
/// [`SessionExporter`](crate::SessionExporter) maps them to another dialect. Join dialects with
/// [`and`](Self::and) to export the keys of several. Prompt templates and the session's attributes have
/// the same keys in all dialects.
///
/// [`Dialect::new`] has no key: by itself it exports no session.
///
/// Cost: nothing while spans are made. See [`SessionExporter`](crate::SessionExporter) for the cost when
/// they are exported.
///
/// ```
/// # use opentelemetry_sdk::trace::InMemorySpanExporter;
/// use tracing_session::{Dialect, SessionExporter};
///
/// # let exporter = InMemorySpanExporter::default();
/// let exporter = SessionExporter::new(exporter)
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
    level: Level,
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

/// Whose values the backend reads under a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Any,
    /// Those of the whole trace: only what the session sets.
    Trace,
    /// Those of one span: only what its author set.
    Span,
}

use Written::*;

impl Written {
    /// The value that is written, in whatever form.
    pub(crate) fn kind(self) -> Self {
        match self {
            MetadataEntry => Metadata,
            JoinedTags => Tags,
            other => other,
        }
    }

    /// Which id is written under the key.
    pub(crate) fn role(self) -> Option<IdKind> {
        match self {
            SessionId => Some(IdKind::Session),
            UserId => Some(IdKind::User),
            _ => None,
        }
    }
}

const fn rule(written: Written, key: &'static str) -> Rule {
    Rule {
        written,
        key,
        level: Level::Any,
    }
}

impl Rule {
    /// For a key that the backend reads as the whole trace's.
    const fn of_trace(mut self) -> Self {
        self.level = Level::Trace;
        self
    }

    /// For a key that the backend reads as the span's.
    const fn of_span(mut self) -> Self {
        self.level = Level::Span;
        self
    }
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
    /// `langfuse.trace.tags`. Your own metadata and tags on a span become
    /// `langfuse.observation.metadata.<key>` and `langfuse.observation.metadata.tags`.
    ///
    /// ```
    /// # use tracing_session::Dialect;
    /// let both = Dialect::OPENINFERENCE.and(Dialect::LANGFUSE);
    /// ```
    pub const LANGFUSE: Self = Self::of(&[
        rule(SessionId, "langfuse.session.id"),
        rule(UserId, "langfuse.user.id"),
        rule(MetadataEntry, "langfuse.trace.metadata.").of_trace(),
        rule(Tags, "langfuse.trace.tags").of_trace(),
        rule(MetadataEntry, "langfuse.observation.metadata.").of_span(),
        // Only traces have tags there. `tag.tags` would become the trace's.
        rule(Tags, "langfuse.observation.metadata.tags").of_span(),
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
        rule(MetadataEntry, "mlflow.traceTag.").of_trace(),
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
        // They are associated with the trace.
        rule(MetadataEntry, "traceloop.association.properties.").of_trace(),
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
        rule(Metadata, "mirascope.ops.session.attributes").of_trace(),
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
    pub fn and(self, other: Self) -> Self {
        other.rules.iter().fold(self, |all, rule| all.with(*rule))
    }

    /// Writes the session's id under this key too.
    ///
    /// ```
    /// # use tracing_session::Dialect;
    /// let azure = Dialect::OPENINFERENCE.with_session_key("microsoft.session.id");
    /// ```
    pub fn with_session_key(self, key: &'static str) -> Self {
        self.with(rule(SessionId, key))
    }

    /// Writes the user's id under this key too.
    ///
    /// ```
    /// # use tracing_session::Dialect;
    /// let azure = Dialect::OPENINFERENCE.with_user_key("enduser.id");
    /// ```
    pub fn with_user_key(self, key: &'static str) -> Self {
        self.with(rule(UserId, key))
    }

    /// Writes all metadata under this key too, as the text of one JSON object.
    ///
    /// ```
    /// # use tracing_session::Dialect;
    /// let ours = Dialect::new().with_metadata_key("acme.metadata");
    /// ```
    pub fn with_metadata_key(self, key: &'static str) -> Self {
        self.with(rule(Metadata, key))
    }

    /// Writes each metadata by itself too, under its key with this in front: strings, numbers and
    /// booleans as they are, the rest as the text of its JSON, and no nulls.
    ///
    /// ```
    /// # use tracing_session::Dialect;
    /// let ours = Dialect::new().with_metadata_prefix("acme.");
    /// ```
    pub fn with_metadata_prefix(self, prefix: &'static str) -> Self {
        self.with(rule(MetadataEntry, prefix))
    }

    /// Writes the tags under this key too, as a list of strings.
    ///
    /// ```
    /// # use tracing_session::Dialect;
    /// let ours = Dialect::new().with_tags_key("acme.tags");
    /// ```
    pub fn with_tags_key(self, key: &'static str) -> Self {
        self.with(rule(Tags, key))
    }

    fn with(mut self, added: Rule) -> Self {
        // No key is written twice.
        if self.rules.iter().all(|rule| rule.key != added.key) {
            self.rules.to_mut().push(added);
            if let Some(role) = added.written.role() {
                redaction::register(added.key, role, false);
            }
        }
        self
    }

    /// The rules for a value of this kind that the session set, or the span's author.
    pub(crate) fn rules_for(
        &self,
        kind: Written,
        is_authors: bool,
    ) -> impl Iterator<Item = &Rule> + Clone {
        let other = if is_authors {
            Level::Trace
        } else {
            Level::Span
        };
        let rules = self.rules.iter();
        rules.filter(move |rule| rule.written.kind() == kind && rule.level != other)
    }
}

/// The rules of every built-in dialect.
pub(crate) fn all_rules() -> impl Iterator<Item = &'static Rule> {
    ALL.iter().flat_map(|dialect| dialect.rules.iter())
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
