//! Maps OpenInference's attributes of a span to the keys of a dialect.
//!
//! It works on finished attributes and doesn't know the session: the exporter, the span processor and
//! the log processor share it.

use crate::format::attributes::{Glance, METADATA, SESSION_ID, TAGS, USER_HASH, USER_ID, is_ours};
use crate::format::dialect::{Dialect, Rule, Written};
use crate::session::Id;
use opentelemetry::{Array, Key, KeyValue, StringValue, Value};
use serde_json::{Map, Value as Json};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

#[derive(Default)]
pub(crate) struct Translator {
    dialect: Dialect,
    entries: Mutex<Cache>,
}

impl Translator {
    pub(crate) fn new(dialect: Dialect) -> Self {
        Self {
            dialect,
            entries: Mutex::default(),
        }
    }

    /// Adds the keys of the dialect, and removes OpenInference's where the dialect doesn't have them.
    pub(crate) fn translate(&self, attributes: &mut Vec<KeyValue>) {
        if self.dialect == Dialect::OPENINFERENCE {
            return;
        }
        let Some((found, mut added)) = self.take(attributes) else {
            return;
        };
        for source in found.into_iter().flatten() {
            self.write(source, &mut added);
        }
    }

    /// The attributes to translate, of which those stay that have a key of the dialect.
    fn take<'a>(
        &self,
        attributes: &'a mut Vec<KeyValue>,
    ) -> Option<([Option<Source>; 6], Added<'a>)> {
        let may_be = |it: &KeyValue| SOURCES.may_be(it.key.as_str());
        if !attributes.iter().any(may_be) {
            return None;
        }
        let has_user_id = attributes.iter().any(|it| it.key.as_str() == USER_ID);
        let mut found = [const { None }; 6];
        let mut keys = Glance::of(&[]);
        attributes.retain_mut(|attribute| {
            let kind = kind(attribute.key.as_str()).filter(|(_, ours)| {
                // Your own hash of the user, beside the user's id.
                *ours != USER_HASH || !has_user_id
            });
            let mut stays = true;
            if let Some((kind, ours)) = kind {
                let is_authors = !is_ours(&attribute.key, ours);
                let mut rules = self.dialect.rules_for(kind, is_authors).peekable();
                stays = match rules.peek() {
                    None => is_authors,
                    Some(_) => rules.any(|rule| is_key_of(rule, ours)),
                };
                let copy = match stays {
                    true => attribute.clone(),
                    false => std::mem::replace(attribute, KeyValue::new("", false)),
                };
                // An attribute that was set again: the last value counts.
                found[place(kind, is_authors)] = Some(Source {
                    kind,
                    is_authors,
                    attribute: copy,
                    stays,
                });
            }
            if stays {
                keys = keys.and(attribute.key.as_str());
            }
            stays
        });
        Some((found, Added { attributes, keys }))
    }

    fn write(&self, source: Source, added: &mut Added<'_>) {
        let Source {
            kind,
            is_authors,
            attribute,
            stays,
        } = source;
        let value = &attribute.value;
        let rules = self.dialect.rules_for(kind, is_authors);
        let mut is_written = stays;
        let mut is_readable = true;
        if rules.clone().any(|it| it.written == Written::MetadataEntry) {
            match self.entries(&value.as_str(), is_authors) {
                None => is_readable = false,
                Some(entries) => {
                    added.attributes.reserve(entries.len());
                    for entry in entries.iter() {
                        is_written |= added.add(&entry.key, &entry.value);
                    }
                }
            }
        }
        for rule in rules.filter(|rule| !(stays && is_key_of(rule, attribute.key.as_str()))) {
            let key = &Key::from_static_str(rule.key);
            is_written |= match (rule.written, value) {
                (Written::SessionId | Written::UserId, _) => added.set_id(key, value),
                (Written::Metadata, _) => added.add(key, value),
                (Written::Tags, Value::Array(Array::String(_))) => added.add(key, value),
                (Written::JoinedTags, Value::Array(Array::String(tags))) => {
                    let tags: Vec<_> = tags.iter().map(StringValue::as_str).collect();
                    added.add(key, &tags.join(",").into())
                }
                (Written::MetadataEntry | Written::Tags | Written::JoinedTags, _) => false,
            };
        }
        // Not lost, but for what the session sets and the backend doesn't read.
        if !is_written && (is_authors || !is_readable) {
            added.attributes.push(attribute);
        }
    }

    /// The metadata of a JSON object, each as an attribute by itself.
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

/// An attribute of OpenInference on a span.
struct Source {
    kind: Written,
    /// The span's author set it, not the session.
    is_authors: bool,
    attribute: KeyValue,
    stays: bool,
}

const SOURCES: Glance = Glance::of(&[SESSION_ID, USER_ID, USER_HASH, METADATA, TAGS]);

/// What an attribute with this key is, and the key as this crate writes it.
fn kind(key: &str) -> Option<(Written, &'static str)> {
    if !SOURCES.may_be(key) {
        return None;
    }
    Some(match key {
        SESSION_ID => (Written::SessionId, SESSION_ID),
        USER_ID => (Written::UserId, USER_ID),
        USER_HASH => (Written::UserId, USER_HASH),
        METADATA => (Written::Metadata, METADATA),
        TAGS => (Written::Tags, TAGS),
        _ => return None,
    })
}

/// The order in which attributes are written. No key is written twice, so ids are the first (in some
/// dialects a metadata can have the key of an id), and what the author set comes before what the
/// session set.
fn place(kind: Written, is_authors: bool) -> usize {
    match (kind.kind(), is_authors) {
        (Written::SessionId, _) => 0,
        (Written::UserId, _) => 1,
        (Written::Metadata, true) => 2,
        (Written::Metadata, false) => 3,
        (_, true) => 4,
        (_, false) => 5,
    }
}

/// Whether the rule leaves an attribute with this key where it is.
fn is_key_of(rule: &Rule, key: &str) -> bool {
    rule.key == key || rule.key == USER_ID && key == USER_HASH
}

/// The attributes of a span, while some are added.
struct Added<'a> {
    attributes: &'a mut Vec<KeyValue>,
    keys: Glance,
}

impl Added<'_> {
    fn find(&mut self, key: &Key) -> Option<&mut KeyValue> {
        if !self.keys.may_be(key.as_str()) {
            return None;
        }
        self.attributes.iter_mut().find(|it| it.key == *key)
    }

    /// False if there is an attribute with this key: the author's own wins.
    fn add(&mut self, key: &Key, value: &Value) -> bool {
        let is_new = self.find(key).is_none();
        if is_new {
            self.keys = self.keys.and(key.as_str());
            let attribute = KeyValue::new(key.clone(), value.clone());
            self.attributes.push(attribute);
        }
        is_new
    }

    /// The same, but a value that is no id counts as not set.
    fn set_id(&mut self, key: &Key, value: &Value) -> bool {
        match self.find(key) {
            Some(own) if Id::new(&own.value.as_str()).is_err() => {
                own.value = value.clone();
                true
            }
            Some(_) => false,
            None => self.add(key, value),
        }
    }
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

/// Parsed metadata by its text: of sessions, and of spans' authors. Authors may set another text on
/// each span, which must not displace the sessions'.
type Cache = [Generations; 2];

/// The last texts that were asked for: at least [`MOST`](Self::MOST), and at most twice as many.
#[derive(Default)]
struct Generations {
    young: HashMap<Box<str>, Arc<[KeyValue]>>,
    old: HashMap<Box<str>, Arc<[KeyValue]>>,
}

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
