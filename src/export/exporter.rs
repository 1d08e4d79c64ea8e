//! `SessionExporter` sends spans to one backend, with the keys of the backend's dialect.

use crate::base::diagnostic;
use crate::base::diagnostic::Message;
use crate::export::dialect::{Content, Dialect, RulesByValue};
use crate::export::rename_plain;
use crate::session::id::has_id;
use crate::session::keys::{
    KeyFilter, METADATA, SESSION_ID, TAGS, USER_HASH, USER_ID, is_ours, ours,
};
use opentelemetry::{Array, KeyValue, StringValue, Value};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use serde_json::{Map, Value as Json};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Wraps a span exporter, and exports session attributes under the keys of a [`Dialect`].
///
/// Spans have OpenInference's attributes: `session.id`, `user.id`, `metadata` and `tag.tags`. The exporter maps them to the
/// dialect before it sends the span. Each exporter of a tracer provider can have its own dialect.
///
/// # Which attributes it maps
///
/// It maps the attributes of the finished span, whether the session or you set them:
///
/// - If the dialect has OpenInference's key, the exporter adds the dialect's other keys. Otherwise, it replaces the key:
///   with [`Dialect::GEN_AI`], `session.id` is exported as `gen_ai.conversation.id`.
/// - If the dialect has no key for a value, the exporter removes the session's value. Your own attribute stays.
/// - If the span already has an attribute with a key of the dialect, that attribute stays, and `session.id` keeps its
///   value. The exporter replaces the attribute only if its value isn't a valid id, such as a blank text.
/// - Some keys belong to the whole trace, such as `langfuse.trace.metadata.<key>`. Your own metadata and tags on a span are
///   never exported under these keys. Langfuse's dialect exports them as `langfuse.observation.metadata.<key>`; in other
///   dialects, they keep OpenInference's keys.
/// - A hashed user (`user.hash` on the span) is exported under the dialect's keys for the user. If the dialect has
///   `user.id`, `user.hash` stays.
/// - Metadata has JSON types: strings, numbers and booleans keep their types. Lists and objects are exported as JSON text.
///   Nulls are omitted.
///
/// All other attributes keep their order, type and value, and so do events and links.
///
/// # Cost
///
/// Up to about 1 µs per span with two dialects, on the thread that exports: with a batch exporter, in the background. The
/// exporter parses metadata once per session, and caches at least the last 128 results.
///
/// ```
/// use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};
/// use tracing_session::{Dialect, SessionExporter, SessionTracerProvider};
///
/// # let (phoenix, langfuse) = (InMemorySpanExporter::default(), InMemorySpanExporter::default());
/// let provider = SdkTracerProvider::builder()
///     .with_batch_exporter(SessionExporter::new(phoenix))
///     .with_batch_exporter(SessionExporter::new(langfuse).with_dialect(Dialect::LANGFUSE))
///     .build();
/// let provider = SessionTracerProvider::new(provider);
/// # provider.shutdown()?;
/// # Ok::<(), opentelemetry_sdk::error::OTelSdkError>(())
/// ```
#[derive(Debug)]
#[must_use = "an exporter does nothing until a provider has it: `.with_batch_exporter(exporter)`"]
pub struct SessionExporter<E> {
    inner: E,
    translator: Translator,
    renames_plain: bool,
}

impl<E> SessionExporter<E> {
    /// Wraps `exporter`.
    ///
    /// ```
    /// # use opentelemetry_sdk::trace::InMemorySpanExporter;
    /// # use tracing_session::SessionExporter;
    /// let exporter = SessionExporter::new(InMemorySpanExporter::default());
    /// ```
    pub fn new(exporter: E) -> Self {
        Self {
            inner: exporter,
            translator: Translator::new(Dialect::default()),
            renames_plain: true,
        }
    }

    /// Sets the keys that are exported. Default: [`Dialect::OPENINFERENCE`].
    ///
    /// ```
    /// # use opentelemetry_sdk::trace::InMemorySpanExporter;
    /// # use tracing_session::{Dialect, SessionExporter};
    /// let exporter = SessionExporter::new(InMemorySpanExporter::default())
    ///     .with_dialect(Dialect::OPENINFERENCE.and(Dialect::LANGFUSE));
    /// ```
    pub fn with_dialect(mut self, dialect: Dialect) -> Self {
        self.translator = Translator::new(dialect);
        self
    }

    /// Exports attributes named `session` and `user` under these names. Default: on spans with a session or user, they are
    /// exported as `session.name` and `user.name`.
    ///
    /// Phoenix nests attributes at the dots in their keys. There, `session` and `session.id` can't both exist, and Phoenix
    /// loses the session. If the span already has an attribute with the new name, the exporter doesn't rename.
    ///
    /// The tracer provider renames such attributes too: see
    /// [`SessionTracerProvider::without_renaming_plain_attributes`](crate::SessionTracerProvider::without_renaming_plain_attributes).
    ///
    /// ```
    /// # use opentelemetry_sdk::trace::InMemorySpanExporter;
    /// # use tracing_session::SessionExporter;
    /// let exporter = SessionExporter::new(InMemorySpanExporter::default())
    ///     .without_renaming_plain_attributes();
    /// ```
    pub fn without_renaming_plain_attributes(mut self) -> Self {
        self.renames_plain = false;
        self
    }
}

impl<E: SpanExporter> SpanExporter for SessionExporter<E> {
    fn export(&self, mut batch: Vec<SpanData>) -> impl Future<Output = OTelSdkResult> + Send {
        for span in &mut batch {
            if self.renames_plain {
                rename_plain(&mut span.attributes);
            }
            if let Some(warning) = self.translator.translate(&mut span.attributes) {
                // This crate holds no lock here.
                diagnostic::emit(&warning);
            }
        }
        self.inner.export(batch)
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn shutdown(&self) -> OTelSdkResult {
        self.inner.shutdown()
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

pub(crate) struct Translator {
    dialect: Dialect,
    rules: RulesByValue,
    /// False if every attribute stays as it is.
    pub(crate) changes: bool,
    /// Parsed metadata by its text: of sessions, and of spans' authors. Separate caches, because an author may set a new text
    /// on each span, which would displace the texts of sessions.
    entries: Mutex<[Generations; 2]>,
}

impl Translator {
    pub(crate) fn new(dialect: Dialect) -> Self {
        Self {
            changes: dialect != Dialect::OPENINFERENCE,
            rules: dialect.rules_by_value(),
            dialect,
            entries: Mutex::default(),
        }
    }

    /// Adds the keys of the dialect, and removes OpenInference's where the dialect doesn't have them. Returns a warning if
    /// the backend drops an id.
    pub(crate) fn translate(&self, attributes: &mut Vec<KeyValue>) -> Option<Message> {
        if !self.changes {
            return None;
        }
        let mut warning = None;
        // Spans rarely have a key that the dialect adds, and the filter is cheaper than a search.
        let mut filter = KeyFilter::default();
        // Ids first: in some dialects a metadata entry can have the key of an id, and each key is written once.
        let mut sources = [None; 4];
        for (at, attribute) in attributes.iter().enumerate() {
            let key = attribute.key.as_str();
            filter = filter.and(key);
            let (content, key) = match key {
                SESSION_ID => (Content::SessionId, ours::SESSION_ID),
                USER_ID => (Content::UserId, ours::USER_ID),
                // If the span also has a user id, the hash is an ordinary attribute.
                USER_HASH if matches!(sources[Content::UserId as usize], Some((_, USER_ID, _))) => {
                    continue;
                }
                USER_HASH => (Content::UserId, ours::USER_HASH),
                METADATA => (Content::Metadata, ours::METADATA),
                TAGS => (Content::Tags, ours::TAGS),
                _ => continue,
            };
            // If an attribute was set again, use the last value.
            sources[content as usize] = Some((content, key, at));
        }
        let (mut added, mut removed) = (Vec::with_capacity(8), Vec::new());
        for (content, key, at) in sources.into_iter().flatten() {
            let is_authors = !is_ours(&attributes[at].key, key);
            if content.id_kind().is_some() && warning.is_none() {
                let mut rules = self.rules[content as usize][usize::from(is_authors)].iter();
                warning = rules.find_map(|rule| rule.over_limit(&attributes[at].value));
            }
            let stays = self.add(content, is_authors, &attributes[at], &mut added);
            let (is_id, mut is_added) = (content.id_kind().is_some(), false);
            for attribute in added.drain(..) {
                let may_exist = filter.insert(attribute.key.as_str());
                let mut own = attributes.iter_mut().take_while(|_| may_exist);
                match own.find(|own| own.key == attribute.key) {
                    // Replaces the attribute in its place, if the attribute doesn't stay.
                    None if !stays && !is_added => attributes[at] = attribute,
                    None => attributes.push(attribute),
                    // A value that isn't an id counts as not set.
                    Some(own) if is_id && !has_id(&own.value.as_str()) => {
                        own.value = attribute.value;
                    }
                    // The author's own attribute wins.
                    Some(_) => continue,
                }
                is_added = true;
            }
            // Don't remove the author's own value if the dialect has no key for it.
            if !stays && (is_added || !is_authors) {
                removed.push(key);
            }
        }
        if !removed.is_empty() {
            attributes.retain(|it| !removed.contains(&it.key.as_str()));
        }
        warning
    }

    /// Adds the value of an attribute under each key of the dialect. Returns whether the attribute stays as well.
    fn add(&self, of: Content, is_authors: bool, from: &KeyValue, to: &mut Vec<KeyValue>) -> bool {
        let (key, value) = (&from.key, &from.value);
        let (mut stays, mut has_entries) = (false, false);
        let tags = match value {
            Value::Array(Array::String(tags)) => Some(tags),
            _ => None,
        };
        for rule in &self.rules[of as usize][usize::from(is_authors)] {
            match rule.content {
                // A dialect with a key for the user has one for the hash too.
                Content::UserId if rule.key == USER_ID => stays = true,
                _ if rule.key == key.as_str() => stays = true,
                // `entries` returns the entries for all prefixes.
                Content::MetadataEntry if has_entries => {}
                Content::MetadataEntry => {
                    has_entries = true;
                    match self.entries(&value.as_str(), is_authors) {
                        Some(entries) => to.extend(entries.iter().cloned()),
                        None => stays = true,
                    }
                }
                Content::JoinedTags => to.extend(tags.map(|tags| {
                    let tags: Vec<_> = tags.iter().map(StringValue::as_str).collect();
                    KeyValue::new(rule.key, tags.join(","))
                })),
                Content::Tags if tags.is_none() => {}
                _ => to.push(KeyValue::new(rule.key, value.clone())),
            }
        }
        stays
    }

    /// The metadata of a JSON object, each entry as an attribute, under every prefix of the dialect.
    fn entries(&self, text: &str, is_authors: bool) -> Option<Arc<[KeyValue]>> {
        let lock = || self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let of = usize::from(is_authors);
        if let Some(entries) = lock()[of].get(text) {
            return Some(entries);
        }
        // Parse without the lock.
        let object: Map<String, Json> = serde_json::from_str(text).ok()?;
        let rules = self.rules[Content::Metadata as usize][of].iter();
        let mut entries = Vec::new();
        for rule in rules.filter(|rule| rule.content == Content::MetadataEntry) {
            for (name, value) in &object {
                // All spans share both texts.
                let key: Arc<str> = format!("{}{name}", rule.key).into();
                entries.extend(entry(value).map(|value| KeyValue::new(key, value)));
            }
        }
        let entries: Arc<[KeyValue]> = entries.into();
        lock()[of].insert(text.into(), entries.clone());
        Some(entries)
    }
}

/// Omits the cache: metadata may be private.
impl fmt::Debug for Translator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.dialect.fmt(f)
    }
}

/// One metadata entry as the value of an attribute. Nulls are omitted.
fn entry(value: &Json) -> Option<Value> {
    let text = match value {
        Json::Null => return None,
        Json::Bool(value) => return Some(Value::Bool(*value)),
        Json::Number(number) if number.is_i64() => return number.as_i64().map(Value::I64),
        Json::Number(number) if number.is_f64() => return number.as_f64().map(Value::F64),
        Json::String(text) => Arc::from(text.as_str()),
        other => Arc::<str>::from(other.to_string()),
    };
    Some(Value::String(text.into()))
}

/// The most recently used texts: at least [`MOST`](Self::MOST), and at most twice as many.
#[derive(Default)]
struct Generations {
    young: Entries,
    old: Entries,
}

type Entries = HashMap<Box<str>, Arc<[KeyValue]>>;

impl Generations {
    const MOST: usize = 128;
    /// A longer text is parsed each time, so that the cache stays small.
    const LONGEST: usize = 16 * 1024;

    fn get(&mut self, text: &str) -> Option<Arc<[KeyValue]>> {
        if let Some(entries) = self.young.get(text) {
            return Some(entries.clone());
        }
        let (text, entries) = self.old.remove_entry(text)?;
        self.insert(text, entries.clone());
        Some(entries)
    }

    fn insert(&mut self, text: Box<str>, entries: Arc<[KeyValue]>) {
        if text.len() > Self::LONGEST {
            return;
        }
        if self.young.len() >= Self::MOST {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(text, entries);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(n: usize) -> String {
        format!(r#"{{"n":{n}}}"#)
    }

    fn kept(translator: &Translator) -> usize {
        let caches = translator.entries.lock().unwrap();
        caches.iter().map(|it| it.young.len() + it.old.len()).sum()
    }

    #[test]
    fn cache_is_bounded() {
        let translator = Translator::new(Dialect::LANGFUSE);
        for n in 0..10_000 {
            translator.entries(&text(n), false);
            translator.entries(&text(n), true);
        }
        assert!(kept(&translator) <= 512);
        let long = format!(r#"{{"n":"{}"}}"#, "x".repeat(Generations::LONGEST));
        let before = kept(&translator);
        assert!(translator.entries(&long, false).is_some());
        assert_eq!(kept(&translator), before);
    }

    #[test]
    fn metadata_of_sessions_that_take_turns_is_parsed_once() {
        let translator = Translator::new(Dialect::LANGFUSE);
        let all = || (0..100).map(|n| translator.entries(&text(n), false).unwrap());
        let first: Vec<_> = all().collect();
        for round in 1..20 {
            // Other sessions in between, and authors' own metadata, different on each span.
            for n in 0..20 {
                translator.entries(&text(round * 1_000 + n), false);
            }
            for n in 0..1_000 {
                translator.entries(&text(n), true);
            }
            assert!(all().zip(&first).all(|(now, then)| Arc::ptr_eq(&now, then)));
        }
    }
}
