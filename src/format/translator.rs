//! Maps OpenInference's attributes of a span to the keys of a dialect.
//!
//! It works on finished attributes and doesn't know the session: the exporter, the span processor and
//! the log processor share it.

use crate::format::attributes::{
    Glance, METADATA, SESSION_ID, TAGS, USER_HASH, USER_ID, is_ours, ours, with_own_address,
};
use crate::format::dialect::{Dialect, Rule, Written};
use crate::session::Id;
use opentelemetry::{Array, Key, KeyValue, StringValue, Value};
use serde_json::{Map, Value as Json};
use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

pub(crate) struct Translator {
    dialect: Dialect,
    /// By [`place`].
    targets: [Targets; 8],
    /// Whether there is anything to do.
    pub(crate) changes: bool,
    entries: Mutex<Cache>,
}

/// Where a value goes that the session set, or the span's author.
#[derive(PartialEq)]
struct Targets {
    /// The attribute keeps OpenInference's key.
    stays: bool,
    /// What is added besides, as it is.
    keys: Vec<(Written, &'static str)>,
    /// Each metadata is added by itself.
    splits: bool,
}

impl Targets {
    fn of(dialect: &Dialect, kind: Written, is_authors: bool) -> Self {
        let ours = key_of(kind);
        let rules = dialect.rules_for(kind, is_authors);
        let is_ours = |rule: &Rule| (rule.written, rule.key) == (kind, ours);
        let others = rules.clone().filter(|rule| !is_ours(rule));
        let (entries, keys): (Vec<_>, Vec<_>) = others
            .map(|rule| (rule.written, rule.key))
            .partition(|(written, _)| *written == Written::MetadataEntry);
        Self {
            stays: rules.clone().any(is_ours),
            splits: !entries.is_empty(),
            keys,
        }
    }

    fn changes(&self) -> bool {
        !self.stays || self.splits || !self.keys.is_empty()
    }
}

impl Default for Translator {
    fn default() -> Self {
        Self::new(Dialect::default())
    }
}

impl Translator {
    pub(crate) fn new(dialect: Dialect) -> Self {
        let of = |place| Targets::of(&dialect, KINDS[place / 2], place % 2 == 0);
        let targets = std::array::from_fn(of);
        Self {
            changes: targets.iter().any(Targets::changes),
            targets,
            dialect,
            entries: Mutex::default(),
        }
    }

    /// Adds the keys of the dialect, and removes OpenInference's where the dialect doesn't have them.
    pub(crate) fn translate(&self, attributes: &mut Vec<KeyValue>) {
        if !self.changes {
            return;
        }
        let mut sources = [NOWHERE; 8];
        let mut hash = (NOWHERE, 0);
        let mut keys = Glance::of(&[]);
        let mut has_holes = false;
        for at in 0..attributes.len() {
            let key = &attributes[at].key;
            let glance = Glance::of(&[key.as_str()]);
            keys = keys.and_all(glance);
            if !SOURCES.has_some_of(glance) {
                continue;
            }
            let Some((kind, ours)) = kind(key.as_str()) else {
                continue;
            };
            let place = place(kind, !is_ours(key, ours));
            if ours == USER_HASH {
                hash = (at, place);
                continue;
            }
            // An attribute that was set again: the last value counts.
            let earlier = std::mem::replace(&mut sources[place], at);
            if earlier != NOWHERE && !self.targets[place].stays {
                attributes[earlier].key = Key::from_static_str(HOLE);
                has_holes = true;
            }
        }
        let of_user = 2..4;
        // Beside the user's id, a hash is an attribute like any other.
        if hash.0 != NOWHERE && sources[of_user].iter().all(|at| *at == NOWHERE) {
            sources[hash.1] = hash.0;
        }
        let mut added = Added {
            attributes,
            keys,
            sources,
            targets: &self.targets,
            hole: None,
        };
        for (place, targets) in self.targets.iter().enumerate() {
            let at = added.sources[place];
            if at != NOWHERE && targets.changes() {
                has_holes |= self.write(place, at, &mut added);
            }
        }
        if has_holes {
            attributes.retain(|it| !is_ours(&it.key, HOLE));
        }
    }

    /// Adds one value under its keys. True if its attribute became a hole.
    fn write(&self, place: usize, at: usize, added: &mut Added<'_>) -> bool {
        let targets = &self.targets[place];
        let is_authors = place % 2 == 0;
        let entries = targets.splits.then(|| {
            let text = added.attributes[at].value.as_str();
            self.entries(&text, is_authors)
        });
        let is_readable = !matches!(entries, Some(None));
        added.sources[place] = NOWHERE;
        added.hole = (!targets.stays).then_some(at);
        let nothing = Value::Bool(false);
        let mut value = match targets.stays {
            false => std::mem::replace(&mut added.attributes[at].value, nothing),
            true if targets.keys.is_empty() => nothing,
            true => added.attributes[at].value.clone(),
        };
        if let Some(Some(entries)) = entries {
            added.attributes.reserve(entries.len());
            for entry in entries.iter() {
                added.add(&entry.key, || entry.value.clone());
            }
        }
        for (index, (written, key)) in targets.keys.iter().enumerate() {
            let key = &Key::from_static_str(key);
            let is_last = index + 1 == targets.keys.len();
            match (written, &mut value) {
                (Written::JoinedTags, Value::Array(Array::String(tags))) => {
                    let tags: Vec<_> = tags.iter().map(StringValue::as_str).collect();
                    added.add(key, || tags.join(",").into());
                }
                (Written::JoinedTags, _) => {}
                (Written::Tags, value) if !matches!(value, Value::Array(Array::String(_))) => {}
                (Written::SessionId | Written::UserId, value) if added.replaces(key, value) => {}
                // A copy, unless it is the last.
                (_, value) => added.add(key, || match is_last {
                    true => std::mem::replace(value, Value::Bool(false)),
                    false => value.clone(),
                }),
            }
        }
        if added.hole.is_none() {
            return false;
        }
        // Nothing was added. Only the session's value is left out then: the backend doesn't read it.
        if is_authors || !is_readable {
            added.attributes[at].value = value;
            return false;
        }
        added.attributes[at].key = Key::from_static_str(HOLE);
        true
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

/// Where an attribute is that the span doesn't have.
const NOWHERE: usize = usize::MAX;

/// The key of an attribute that is to be removed. Its address tells it from any other key.
static HOLE: &str = with_own_address!("");

const SOURCES: Glance = Glance::of(&[SESSION_ID, USER_ID, USER_HASH, METADATA, TAGS]);

/// What an attribute with this key is, and the key as this crate writes it.
#[inline]
fn kind(key: &str) -> Option<(Written, &'static str)> {
    Some(match key {
        SESSION_ID => (Written::SessionId, ours::SESSION_ID),
        USER_ID => (Written::UserId, ours::USER_ID),
        USER_HASH => (Written::UserId, ours::USER_HASH),
        METADATA => (Written::Metadata, ours::METADATA),
        TAGS => (Written::Tags, ours::TAGS),
        _ => return None,
    })
}

fn key_of(kind: Written) -> &'static str {
    match kind.kind() {
        Written::SessionId => SESSION_ID,
        Written::UserId => USER_ID,
        Written::Metadata => METADATA,
        _ => TAGS,
    }
}

/// The order in which values are written. No key is written twice, so ids are the first: in some
/// dialects a metadata can have the key of an id.
const KINDS: [Written; 4] = [
    Written::SessionId,
    Written::UserId,
    Written::Metadata,
    Written::Tags,
];

/// The place in that order. What the author set comes before what the session set.
fn place(kind: Written, is_authors: bool) -> usize {
    let kind = match kind.kind() {
        Written::SessionId => 0,
        Written::UserId => 1,
        Written::Metadata => 2,
        _ => 3,
    };
    2 * kind + usize::from(!is_authors)
}

/// The attributes of a span, while some are added.
struct Added<'a> {
    attributes: &'a mut Vec<KeyValue>,
    /// At least all keys that there are.
    keys: Glance,
    /// Where the attributes are, by [`place`], that are still to be written under other keys.
    sources: [usize; 8],
    targets: &'a [Targets; 8],
    /// The attribute that the next one replaces.
    hole: Option<usize>,
}

impl Added<'_> {
    #[inline]
    fn find(&mut self, key: &Key) -> Option<&mut KeyValue> {
        if !self.keys.may_be(key.as_str()) {
            return None;
        }
        self.look_for(key)
    }

    #[cold]
    fn look_for(&mut self, key: &Key) -> Option<&mut KeyValue> {
        let mut places = self.sources.iter().zip(self.targets);
        let mut goes =
            |at| self.hole == Some(at) || places.any(|(source, to)| *source == at && !to.stays);
        let mut all = self.attributes.iter_mut().enumerate();
        let found = all.find(|(at, it)| it.key == *key && !goes(*at));
        found.map(|(_, attribute)| attribute)
    }

    /// Adds an attribute, unless there is one with this key: the author's own wins.
    fn add(&mut self, key: &Key, value: impl FnOnce() -> Value) {
        if self.find(key).is_some() {
            return;
        }
        self.keys = self.keys.and(key.as_str());
        let attribute = KeyValue::new(key.clone(), value());
        match self.hole.take() {
            Some(at) => self.attributes[at] = attribute,
            None => self.attributes.push(attribute),
        }
    }

    /// Replaces a value under this key that is no id: it counts as not set.
    fn replaces(&mut self, key: &Key, id: &Value) -> bool {
        match self.find(key) {
            Some(own) if Id::new(&own.value.as_str()).is_err() => {
                own.value = id.clone();
                true
            }
            _ => false,
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
    young: Entries,
    old: Entries,
}

type Entries = HashMap<Box<str>, Arc<[KeyValue]>, BuildHasherDefault<FewInstructions>>;

/// A hasher that is cheap and that texts can be made to collide in. There are few texts in the map, so
/// that collisions don't matter.
#[derive(Default)]
struct FewInstructions(u64);

impl Hasher for FewInstructions {
    fn write(&mut self, bytes: &[u8]) {
        let words = bytes.chunks_exact(8);
        let rest = words.remainder().iter().map(|byte| u64::from(*byte));
        let words = words.map(|word| u64::from_le_bytes(word.try_into().unwrap_or_default()));
        for word in words.chain(rest) {
            let mixed = self.0.rotate_left(5) ^ word;
            self.0 = mixed.wrapping_mul(0x517c_c1b7_2722_0a95);
        }
    }

    fn finish(&self) -> u64 {
        self.0.rotate_left(26)
    }
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
