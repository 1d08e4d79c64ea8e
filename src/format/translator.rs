//! Maps OpenInference's attributes of a span to the keys of a dialect.
//!
//! It works on finished attributes and doesn't know the session: the exporter, the span processor and
//! the log processor share it.

use crate::format::dialect::{Dialect, Rule, Written};
use crate::session::Id;
use crate::session::keys::{
    KeyFilter, METADATA, SESSION_ID, TAGS, USER_HASH, USER_ID, is_ours, ours,
};
use opentelemetry::{Array, KeyValue, StringValue, Value};
use serde_json::{Map, Value as Json};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

pub(crate) struct Translator {
    dialect: Dialect,
    /// Whether there is anything to do.
    pub(crate) changes: bool,
    /// Parsed metadata by its text: of sessions, and of spans' authors. Authors may set another text on each
    /// span, which must not displace the sessions'.
    entries: Mutex<[Generations; 2]>,
}

/// An attribute that the dialect may have other keys for.
struct Source {
    kind: Written,
    key: &'static str,
    at: usize,
    /// The span's author set it, and not the session.
    is_authors: bool,
}

impl Default for Translator {
    fn default() -> Self {
        Self::new(Dialect::default())
    }
}

impl Translator {
    pub(crate) fn new(dialect: Dialect) -> Self {
        Self {
            changes: dialect != Dialect::OPENINFERENCE,
            dialect,
            entries: Mutex::default(),
        }
    }

    /// Adds the keys of the dialect, and removes OpenInference's where the dialect doesn't have them.
    pub(crate) fn translate(&self, attributes: &mut Vec<KeyValue>) {
        if !self.changes {
            return;
        }
        let mut removed = Vec::new();
        for source in sources(attributes).into_iter().flatten() {
            let (added, stays) = self.added(&source, &attributes[source.at].value);
            let mut is_added = false;
            for attribute in added {
                match attributes.iter_mut().find(|own| own.key == attribute.key) {
                    // In the place of the attribute itself, if that one goes.
                    None if !stays && !is_added => attributes[source.at] = attribute,
                    None => attributes.push(attribute),
                    // A value that is no id counts as not set.
                    Some(own)
                        if source.kind.role().is_some()
                            && Id::check(&own.value.as_str()).is_err() =>
                    {
                        own.value = attribute.value;
                    }
                    // The author's own attribute wins.
                    Some(_) => continue,
                }
                is_added = true;
            }
            // What the author set would be lost, where the dialect has no key for it.
            if !stays && (is_added || !source.is_authors) {
                removed.push(source.key);
            }
        }
        if !removed.is_empty() {
            attributes.retain(|it| !removed.contains(&it.key.as_str()));
        }
    }

    /// A value under each key of the dialect, and whether it stays under its own key too.
    fn added(&self, source: &Source, value: &Value) -> (Vec<KeyValue>, bool) {
        let mut added = Vec::new();
        let (mut stays, mut has_entries) = (false, false);
        for rule in self.dialect.rules_for(source.kind, source.is_authors) {
            match (rule.written, value) {
                // The dialect has a key for the hash too, if it has one for the user.
                (Written::UserId, _) if rule.key == USER_ID => stays = true,
                _ if rule.key == source.key => stays = true,
                // All of them at once.
                (Written::MetadataEntry, _) if has_entries => {}
                (Written::MetadataEntry, value) => {
                    has_entries = true;
                    match self.entries(&value.as_str(), source.is_authors) {
                        Some(entries) => added.extend(entries.iter().cloned()),
                        None => stays = true,
                    }
                }
                (Written::JoinedTags, Value::Array(Array::String(tags))) => {
                    let tags: Vec<_> = tags.iter().map(StringValue::as_str).collect();
                    added.push(KeyValue::new(rule.key, tags.join(",")));
                }
                (Written::JoinedTags, _) => {}
                (Written::Tags, value) if !matches!(value, Value::Array(Array::String(_))) => {}
                _ => added.push(KeyValue::new(rule.key, value.clone())),
            }
        }
        (added, stays)
    }

    /// The metadata of a JSON object, each as an attribute by itself, under every prefix of the dialect.
    fn entries(&self, text: &str, is_authors: bool) -> Option<Arc<[KeyValue]>> {
        let lock = || self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let of = usize::from(is_authors);
        if let Some(entries) = lock()[of].get(text) {
            return Some(entries);
        }
        // Parsed without the lock.
        let object: Map<String, Json> = serde_json::from_str(text).ok()?;
        let rules = self.dialect.rules_for(Written::Metadata, is_authors);
        let rules = rules.filter(|rule| rule.written == Written::MetadataEntry);
        let of_rule = |rule: &Rule| {
            let prefix = rule.key;
            let entry = move |(name, value)| {
                // Every span shares both.
                let key: Arc<str> = format!("{prefix}{name}").into();
                Some(KeyValue::new(key, entry(value)?))
            };
            object.iter().filter_map(entry)
        };
        let entries: Arc<[KeyValue]> = rules.flat_map(of_rule).collect();
        lock()[of].insert(text.into(), entries.clone());
        Some(entries)
    }
}

/// Without what is cached: metadata may be private.
impl fmt::Debug for Translator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.dialect.fmt(f)
    }
}

const SOURCES: KeyFilter = KeyFilter::of(&[SESSION_ID, USER_ID, USER_HASH, METADATA, TAGS]);

/// The attributes that the dialect may have other keys for. Ids are the first: in some dialects a metadata can
/// have the key of an id, and no key is written twice.
fn sources(attributes: &[KeyValue]) -> [Option<Source>; 4] {
    let mut sources = [const { None }; 4];
    for (at, KeyValue { key, .. }) in attributes.iter().enumerate() {
        if !SOURCES.may_match(key.as_str()) {
            continue;
        }
        let (place, kind, ours) = match key.as_str() {
            SESSION_ID => (0, Written::SessionId, ours::SESSION_ID),
            USER_ID => (1, Written::UserId, ours::USER_ID),
            // Beside the user's id, a hash is an attribute like any other.
            USER_HASH if sources[1].is_none() => (1, Written::UserId, ours::USER_HASH),
            METADATA => (2, Written::Metadata, ours::METADATA),
            TAGS => (3, Written::Tags, ours::TAGS),
            _ => continue,
        };
        // An attribute that was set again: the last value counts.
        sources[place] = Some(Source {
            kind,
            key: ours,
            at,
            is_authors: !is_ours(key, ours),
        });
    }
    sources
}

/// One metadata as an attribute by itself. A null is none.
fn entry(value: &Json) -> Option<Value> {
    let shared = |text: &str| Value::String(Arc::<str>::from(text).into());
    Some(match value {
        Json::Null => return None,
        Json::Bool(value) => Value::Bool(*value),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(integer), _) => Value::I64(integer),
            (None, Some(float)) if number.is_f64() => Value::F64(float),
            _ => shared(&number.to_string()),
        },
        Json::String(text) => shared(text),
        Json::Array(_) | Json::Object(_) => shared(&value.to_string()),
    })
}

/// The last texts that were asked for: at least [`MOST`](Self::MOST), and at most twice as many.
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
            // Sessions that come and go in between, and authors' own metadata, another on each span.
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
