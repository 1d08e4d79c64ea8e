//! The keys of each backend: a table of rules.

use crate::base::diagnostic;
use crate::base::diagnostic::Message;
use crate::session::IdKind;
use crate::session::keys::{self, METADATA, NameOf, SESSION_ID, TAGS, USER_ID};
use opentelemetry::Value;
use std::borrow::Cow;

/// The attribute keys under which one backend reads session, user, metadata and tags.
///
/// Spans have the keys of [`OPENINFERENCE`](Self::OPENINFERENCE), the default. A [`SessionExporter`](crate::SessionExporter)
/// maps them to another dialect. To export the keys of several dialects, join them with [`and`](Self::and). Prompt templates
/// and the session's own attributes have the same keys in all dialects.
///
/// Cost: nothing when spans start. For the cost of exporting, see [`SessionExporter`](crate::SessionExporter).
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
#[must_use = "a dialect does nothing until an exporter has it: `.with_dialect(dialect)`"]
pub struct Dialect {
    rules: Cow<'static, [Rule]>,
}

/// One key of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    level: Level,
    pub(crate) content: Content,
    pub(crate) key: &'static str,
    limit: Option<Limit>,
}

/// The most characters that a backend accepts in a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Limit {
    characters: usize,
    /// The backend's reaction to a longer value.
    reaction: &'static str,
}

/// The rules for each value, in the order of [`Content`]: first for values of the session, then for values that the span's
/// author sets.
pub(crate) type RulesByValue = [[Vec<Rule>; 2]; 4];

/// The value under a key, and its form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    SessionId,
    UserId,
    /// All metadata, as one JSON object.
    Metadata,
    /// A list of strings.
    Tags,
    /// One metadata entry. The rule's key is the prefix of the entry's key.
    MetadataEntry,
    /// The tags as one string, with commas.
    JoinedTags,
}

/// The level at which the backend reads a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Any,
    /// The whole trace: only values that the session sets.
    Trace,
    /// One span: only values that the span's author sets.
    Span,
}

use Content::*;
use Level::*;

impl Content {
    /// The same value in OpenInference's form.
    pub(crate) fn value(self) -> Self {
        match self {
            MetadataEntry => Metadata,
            JoinedTags => Tags,
            other => other,
        }
    }

    pub(crate) fn id_kind(self) -> Option<IdKind> {
        match self {
            SessionId => Some(IdKind::Session),
            UserId => Some(IdKind::User),
            _ => None,
        }
    }
}

const fn rule(level: Level, content: Content, key: &'static str) -> Rule {
    Rule {
        level,
        content,
        key,
        limit: None,
    }
}

impl Rule {
    const fn up_to(self, characters: usize, reaction: &'static str) -> Self {
        let limit = Some(Limit {
            characters,
            reaction,
        });
        Self { limit, ..self }
    }

    /// The warning about an id that is over the limit, once for each key.
    #[inline]
    pub(crate) fn over_limit(&self, id: &Value) -> Option<Message> {
        let (limit, Value::String(id)) = (self.limit?, id) else {
            return None;
        };
        // A character has one byte or more.
        let id = id.as_str();
        let is_over = id.len() > limit.characters && id.chars().count() > limit.characters;
        is_over.then(|| diagnostic::over_limit(self.key, limit.characters, limit.reaction))?
    }
}

impl Default for Dialect {
    /// Returns [`Dialect::OPENINFERENCE`]. [`Dialect::new`] has no keys.
    fn default() -> Self {
        Self::OPENINFERENCE
    }
}

impl Dialect {
    /// OpenInference: `session.id`, `user.id`, `metadata`, `tag.tags`.
    ///
    /// Phoenix reads these keys, and so do most of the other backends, in addition to their own keys. Source:
    /// OpenInference's semantic conventions, "Context Attributes".
    ///
    /// ```
    /// # use tracing_session::Dialect;
    /// let default = Dialect::OPENINFERENCE;
    /// ```
    pub const OPENINFERENCE: Self = Self::of(&[
        rule(Any, SessionId, SESSION_ID),
        rule(Any, UserId, USER_ID),
        rule(Any, Metadata, METADATA),
        rule(Any, Tags, TAGS),
    ]);

    /// OpenTelemetry's conventions for generative AI: `gen_ai.conversation.id`.
    ///
    /// ```
    /// # use tracing_session::Dialect;
    /// let both = Dialect::OPENINFERENCE.and(Dialect::GEN_AI);
    /// ```
    pub const GEN_AI: Self = Self::of(&[rule(Any, SessionId, "gen_ai.conversation.id")]);

    /// Langfuse: `langfuse.session.id`, `langfuse.user.id`, `langfuse.trace.metadata.<key>`,
    /// `langfuse.trace.tags`. Your own metadata and tags on a span become
    /// `langfuse.observation.metadata.<key>` and `langfuse.observation.metadata.tags`.
    ///
    /// Langfuse drops session and user ids of more than 200 characters. The crate warns about them.
    ///
    /// ```
    /// # use tracing_session::Dialect;
    /// let both = Dialect::OPENINFERENCE.and(Dialect::LANGFUSE);
    /// ```
    pub const LANGFUSE: Self = Self::of(&[
        rule(Any, SessionId, "langfuse.session.id").up_to(200, "Langfuse drops it"),
        rule(Any, UserId, "langfuse.user.id").up_to(200, "Langfuse drops it"),
        rule(Trace, MetadataEntry, "langfuse.trace.metadata."),
        rule(Trace, Tags, "langfuse.trace.tags"),
        rule(Span, MetadataEntry, "langfuse.observation.metadata."),
        // In Langfuse, only traces have tags. It would add `tag.tags` to the trace.
        rule(Span, Tags, "langfuse.observation.metadata.tags"),
    ]);

    /// LangSmith: `langsmith.metadata.thread_id`, `langsmith.metadata.user_id`,
    /// `langsmith.metadata.<key>`, `langsmith.span.tags` (one string, with commas).
    ///
    /// ```
    /// # use tracing_session::Dialect;
    /// let both = Dialect::OPENINFERENCE.and(Dialect::LANGSMITH);
    /// ```
    pub const LANGSMITH: Self = Self::of(&[
        rule(Any, SessionId, "langsmith.metadata.thread_id"),
        rule(Any, UserId, "langsmith.metadata.user_id"),
        rule(Any, MetadataEntry, "langsmith.metadata."),
        rule(Any, JoinedTags, "langsmith.span.tags"),
    ]);

    /// MLflow: OpenInference's `session.id` and `user.id`, and `mlflow.traceTag.<key>` for metadata, which MLflow reads on
    /// the root span. MLflow drops each span with an id of more than 250 characters. The crate warns about such ids.
    ///
    /// ```
    /// # use tracing_session::Dialect;
    /// let both = Dialect::OPENINFERENCE.and(Dialect::MLFLOW);
    /// ```
    pub const MLFLOW: Self = Self::of(&[
        rule(Any, SessionId, SESSION_ID).up_to(250, "MLflow drops each span that has it"),
        rule(Any, UserId, USER_ID).up_to(250, "MLflow drops each span that has it"),
        rule(Trace, MetadataEntry, "mlflow.traceTag."),
    ]);

    /// Traceloop: `traceloop.association.properties.<key>`, with `session_id` and `user_id`.
    ///
    /// ```
    /// # use tracing_session::Dialect;
    /// let both = Dialect::OPENINFERENCE.and(Dialect::TRACELOOP);
    /// ```
    pub const TRACELOOP: Self = Self::of(&[
        rule(
            Any,
            SessionId,
            "traceloop.association.properties.session_id",
        ),
        rule(Any, UserId, "traceloop.association.properties.user_id"),
        // Traceloop applies these properties to the whole trace.
        rule(Trace, MetadataEntry, "traceloop.association.properties."),
    ]);

    /// PostHog: `$ai_session_id` and `posthog.distinct_id`, and for PostHog's tracing `sessionId` and
    /// `posthogDistinctId`.
    ///
    /// ```
    /// # use tracing_session::Dialect;
    /// let both = Dialect::OPENINFERENCE.and(Dialect::POSTHOG);
    /// ```
    pub const POSTHOG: Self = Self::of(&[
        rule(Any, SessionId, "$ai_session_id"),
        rule(Any, SessionId, "sessionId"),
        rule(Any, UserId, "posthog.distinct_id"),
        rule(Any, UserId, "posthogDistinctId"),
    ]);

    /// Weave: `wandb.thread_id` and `weave.conversation.id`, `wandb.attributes.<key>`.
    ///
    /// ```
    /// # use tracing_session::Dialect;
    /// let both = Dialect::OPENINFERENCE.and(Dialect::WEAVE);
    /// ```
    pub const WEAVE: Self = Self::of(&[
        rule(Any, SessionId, "wandb.thread_id"),
        rule(Any, SessionId, "weave.conversation.id"),
        rule(Any, MetadataEntry, "wandb.attributes."),
    ]);

    /// Mirascope: `mirascope.ops.session.id`, `mirascope.ops.session.attributes` (one JSON object),
    /// `mirascope.trace.tags`.
    ///
    /// ```
    /// # use tracing_session::Dialect;
    /// let both = Dialect::OPENINFERENCE.and(Dialect::MIRASCOPE);
    /// ```
    pub const MIRASCOPE: Self = Self::of(&[
        rule(Any, SessionId, "mirascope.ops.session.id"),
        rule(Trace, Metadata, "mirascope.ops.session.attributes"),
        rule(Any, Tags, "mirascope.trace.tags"),
    ]);

    /// TraceCtrl: `tracectrl.session_id`.
    ///
    /// ```
    /// # use tracing_session::Dialect;
    /// let both = Dialect::OPENINFERENCE.and(Dialect::TRACECTRL);
    /// ```
    pub const TRACECTRL: Self = Self::of(&[rule(Any, SessionId, "tracectrl.session_id")]);

    const fn of(rules: &'static [Rule]) -> Self {
        Self {
            rules: Cow::Borrowed(rules),
        }
    }

    /// Creates a dialect without keys, to which you add your own. Without any key, no session is exported.
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

    /// Adds the keys of `other`. If both dialects have a key, the key keeps its meaning in `self`.
    ///
    /// ```
    /// # use tracing_session::Dialect;
    /// let both = Dialect::OPENINFERENCE.and(Dialect::LANGFUSE);
    /// ```
    pub fn and(self, other: Self) -> Self {
        other.rules.iter().fold(self, |all, rule| all.with(*rule))
    }

    /// Adds a key for the session id.
    ///
    /// ```
    /// # use tracing_session::Dialect;
    /// let azure = Dialect::OPENINFERENCE.with_session_key("microsoft.session.id");
    /// ```
    #[doc(alias = "conversation", alias = "thread_id")]
    pub fn with_session_key(self, key: &'static str) -> Self {
        self.with(rule(Any, SessionId, key))
    }

    /// Adds a key for the user id.
    ///
    /// ```
    /// # use tracing_session::Dialect;
    /// let azure = Dialect::OPENINFERENCE.with_user_key("enduser.id");
    /// ```
    pub fn with_user_key(self, key: &'static str) -> Self {
        self.with(rule(Any, UserId, key))
    }

    /// Adds a key for all metadata, as the text of one JSON object.
    ///
    /// ```
    /// # use tracing_session::Dialect;
    /// let ours = Dialect::new().with_metadata_key("acme.metadata");
    /// ```
    pub fn with_metadata_key(self, key: &'static str) -> Self {
        self.with(rule(Any, Metadata, key))
    }

    /// Adds a prefix for metadata entries: each entry is exported under the prefix and its own key. Strings, numbers and
    /// booleans keep their types. Lists and objects are exported as JSON text. Nulls are omitted.
    ///
    /// ```
    /// # use tracing_session::Dialect;
    /// let ours = Dialect::new().with_metadata_prefix("acme.");
    /// ```
    pub fn with_metadata_prefix(self, prefix: &'static str) -> Self {
        self.with(rule(Any, MetadataEntry, prefix))
    }

    /// Adds a key for the tags, as a list of strings.
    ///
    /// ```
    /// # use tracing_session::Dialect;
    /// let ours = Dialect::new().with_tags_key("acme.tags");
    /// ```
    pub fn with_tags_key(self, key: &'static str) -> Self {
        self.with(rule(Any, Tags, key))
    }

    fn with(mut self, added: Rule) -> Self {
        // Each key is written once.
        match self.rules.iter().position(|rule| rule.key == added.key) {
            Some(at) if added.limit.is_some() => self.rules.to_mut()[at].limit = added.limit,
            Some(_) => {}
            None => {
                self.rules.to_mut().push(added);
                if let Some(kind) = added.content.id_kind() {
                    keys::register(NameOf::Key, added.key, kind);
                }
            }
        }
        self
    }

    pub(crate) fn rules_by_value(&self) -> RulesByValue {
        [SessionId, UserId, Metadata, Tags].map(|value| {
            [Span, Trace].map(|other| {
                let rules = self.rules.iter().copied();
                let rules = rules.filter(|it| it.content.value() == value && it.level != other);
                rules.collect()
            })
        })
    }
}

/// The rules of all built-in dialects.
pub(crate) fn all_rules() -> impl Iterator<Item = &'static Rule> {
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
    ALL.iter().flat_map(|dialect| dialect.rules.iter())
}
