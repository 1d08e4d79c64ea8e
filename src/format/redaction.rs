//! Redaction by key: `Privacy` in the form in which a provider applies it to each attribute.
//!
//! It runs before a sampler, a span processor or an exporter receives an attribute. Nearly every attribute
//! has a key that is not private; a filter of a few instructions tells so.

use crate::format::dialect::{Written, all_rules};
use crate::format::privacy::{IdPolicy, Privacy};
use crate::session::details::Details;
use crate::session::keys::{
    ID, LOOKED_AT, METADATA_FIELD, PREVIOUS_SESSION_ID, USER_HASH, USER_ID, ours,
};
use crate::session::metadata::{self, Entries};
use crate::session::text::unquoted;
use crate::session::{Id, IdKind};
use opentelemetry::trace::SpanBuilder;
use opentelemetry::{Key, KeyValue, Value};
use serde_json::Value as Json;
use std::borrow::Cow;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// A `Privacy` that redacts something. A provider, its tracers and their spans share one.
#[derive(Debug)]
pub(crate) struct Redaction {
    privacy: Privacy,
    keys: Vec<(Cow<'static, str>, Private)>,
}

/// The value of an attribute with a private key.
#[derive(Clone, Debug)]
enum Private {
    Id(IdKind),
    /// One metadata.
    Entry(IdPolicy),
    /// All metadata, as one JSON object.
    Metadata,
}

impl Redaction {
    /// `None` if nothing is redacted.
    pub(crate) fn of(privacy: Privacy) -> Option<Arc<Self>> {
        let mut keys = Vec::new();
        let previous = (PREVIOUS_SESSION_ID, IdKind::Session);
        let ids = all_rules().filter_map(|rule| Some((rule.key, rule.written.role()?)));
        let ids = ids
            .chain([previous])
            .map(|(key, role)| (Cow::Borrowed(key), role));
        let added = privacy
            .keys
            .iter()
            .map(|(key, role)| (Cow::Owned(key.clone()), *role));
        for (key, role) in added.chain(ids) {
            if !privacy.of_ids(role).is_plain() {
                keys.push((key, Private::Id(role)));
            }
        }
        let of_kind = |kind| {
            all_rules()
                .filter(move |rule| rule.written == kind)
                .map(|it| it.key)
        };
        let private = privacy
            .metadata
            .iter()
            .filter(|(_, policy)| !policy.is_plain());
        for (name, policy) in private {
            for prefix in of_kind(Written::MetadataEntry).chain([METADATA_FIELD]) {
                keys.push((
                    format!("{prefix}{name}").into(),
                    Private::Entry(policy.clone()),
                ));
            }
            keys.extend(of_kind(Written::Metadata).map(|key| (key.into(), Private::Metadata)));
        }
        if keys.is_empty() {
            return None;
        }
        let private = keys.iter().map(|(key, _)| &**key);
        private.chain(LOOKED_AT).for_each(add_to_filter);
        Some(Arc::new(Self { privacy, keys }))
    }

    /// An id as OpenInference's attribute.
    #[inline(always)]
    pub(crate) fn attribute(&self, role: IdKind, id: &Id) -> Option<KeyValue> {
        let policy = self.privacy.of_ids(role);
        let key = match role {
            IdKind::Session => ours::SESSION_ID,
            IdKind::User if policy.hashes() => ours::USER_HASH,
            IdKind::User => ours::USER_ID,
        };
        Some(KeyValue::new(
            Key::from_static_str(key),
            policy.redact_id(id)?,
        ))
    }

    /// Redacts one attribute of a span. `named` is the id that the field `id` of the span holds. False if the
    /// attribute must not be exported.
    #[inline]
    pub(crate) fn redact(&self, attribute: &mut KeyValue, named: Option<IdKind>) -> bool {
        !may_matter(attribute.key.as_str()) || self.redact_private(attribute, named)
    }

    #[inline(never)]
    fn redact_private(&self, attribute: &mut KeyValue, named: Option<IdKind>) -> bool {
        let key = attribute.key.as_str();
        let listed = self.keys.iter().find(|(private, _)| private == key);
        let private = match listed {
            Some((_, private)) => Some(private.clone()),
            None if key == ID => named.map(Private::Id),
            None => registered(key, false).map(Private::Id),
        };
        match private {
            None => true,
            Some(Private::Id(role)) => redact_id(self.privacy.of_ids(role), attribute),
            Some(Private::Entry(policy)) => redact_entry(&policy, attribute),
            Some(Private::Metadata) => self.redact_metadata(attribute),
        }
    }

    fn redact_metadata(&self, attribute: &mut KeyValue) -> bool {
        let text = attribute.value.as_str();
        let text = unquoted(&text).map_or(text, Cow::Owned);
        if !text.trim_start().starts_with('{') {
            return true;
        }
        // Broken JSON, or JSON that is nested too deeply, may have private entries too.
        let Some(mut entries) = metadata::entries(&text) else {
            return false;
        };
        if self.redact_entries(&mut entries) {
            attribute.value = Arc::<str>::from(metadata::object(&entries)).into();
        }
        true
    }

    /// False if none of the entries is private.
    fn redact_entries(&self, entries: &mut Entries) -> bool {
        let mut any = false;
        entries.retain_mut(|(key, value)| {
            let Some(policy) = self.privacy.of_metadata(key) else {
                return true;
            };
            any = true;
            let text = match &*value {
                Json::String(text) => Cow::Borrowed(text.as_str()),
                other => Cow::Owned(other.to_string()),
            };
            let hash = policy.redact_text(&text);
            *value = Json::String(hash.as_deref().unwrap_or_default().to_owned());
            hash.is_some()
        });
        any
    }

    /// The same details, redacted.
    pub(crate) fn redact_details(&self, details: &Details) -> Details {
        let mut redacted = details.clone();
        self.redact_entries(&mut redacted.metadata);
        self.redact_all(&mut redacted.attributes);
        redacted
    }

    /// Redacts the attributes of an event, a link or a session.
    pub(crate) fn redact_all(&self, attributes: &mut Vec<KeyValue>) {
        if any_may_matter(attributes) {
            attributes.retain_mut(|it| self.redact(it, None));
        }
    }

    /// Redacts the attributes of a builder's events and links.
    #[inline]
    pub(crate) fn redact_builder(&self, builder: &mut SpanBuilder) {
        let events = builder.events.iter_mut().flatten();
        events.for_each(|event| self.redact_all(&mut event.attributes));
        let links = builder.links.iter_mut().flatten();
        links.for_each(|link| self.redact_all(&mut link.attributes));
    }
}

/// Normalises a text like an id, then redacts it.
fn redact_id(policy: &IdPolicy, attribute: &mut KeyValue) -> bool {
    let Some(text) = single(&attribute.value).filter(|_| policy.hashes()) else {
        return policy.is_plain();
    };
    let text = unquoted(&text).map_or(text, Cow::Owned);
    let text = text.trim();
    // A blank one tells nothing.
    if let Some(hash) = policy.redact_text(text).filter(|_| !text.is_empty()) {
        attribute.value = hash.into();
        if attribute.key.as_str() == USER_ID {
            attribute.key = Key::from_static_str(USER_HASH);
        }
    }
    true
}

fn redact_entry(policy: &IdPolicy, attribute: &mut KeyValue) -> bool {
    // Numbers as in JSON, so that the hash is that of the same entry of a JSON object.
    let text = match &attribute.value {
        Value::F64(number) => Some(Json::from(*number).to_string().into()),
        value => single(value),
    };
    let text = text.map(|text| unquoted(&text).map_or(text, Cow::Owned));
    let Some(hash) = text.and_then(|text| policy.redact_text(&text)) else {
        return false;
    };
    attribute.value = hash.into();
    true
}

/// The text of a value that is no list.
fn single(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(_) | Value::I64(_) | Value::F64(_) | Value::Bool(_) => Some(value.as_str()),
        _ => None,
    }
}

/// Of the keys that are private to a provider of this process, that a layer or a dialect registered, or that spans
/// look at anyway: by their length, a bit for each first letter. One filter for all, because each attribute of each
/// span passes it.
static FILTER: [AtomicU32; 64] = [const { AtomicU32::new(0) }; 64];

/// A bit for each length in the filter.
static LENGTHS: AtomicU64 = AtomicU64::new(0);

/// The place of a key in the filter.
#[inline(always)]
fn place(key: &str) -> (usize, u32) {
    let first = key.as_bytes().first().copied().unwrap_or_default();
    (key.len() % 64, 1 << (first % 32))
}

fn add_to_filter(key: &str) {
    let (length, first) = place(key);
    FILTER[length].fetch_or(first, Ordering::Relaxed);
    LENGTHS.fetch_or(1 << length, Ordering::Relaxed);
}

/// False if an attribute with this key is certainly neither private, nor of a key that spans look at.
#[inline(always)]
pub(crate) fn may_matter(key: &str) -> bool {
    let (length, first) = place(key);
    FILTER[length].load(Ordering::Relaxed) & first != 0
}

/// The same, of all of them.
#[inline]
pub(crate) fn any_may_matter(attributes: &[KeyValue]) -> bool {
    let lengths = LENGTHS.load(Ordering::Relaxed);
    let has_length = |key: &str| lengths >> (key.len() % 64) & 1 != 0;
    let mut keys = attributes.iter().map(|it| it.key.as_str());
    keys.any(|key| has_length(key) && may_matter(key))
}

/// A name that a layer of this process is configured with, or a dialect.
struct Registered {
    name: String,
    role: IdKind,
    /// The field `id` of spans with this name holds the id. Otherwise it is the field, or the attribute, itself.
    is_span: bool,
}

/// Written where layers and dialects are made, read where a key passes the filter.
static REGISTERED: RwLock<Vec<Registered>> = RwLock::new(Vec::new());

/// Registers a private name: every provider of the process redacts the attribute with this name, or the field `id` of
/// spans with this name.
pub(crate) fn register(name: &str, role: IdKind, is_span: bool) {
    let mut all = REGISTERED.write().unwrap_or_else(PoisonError::into_inner);
    let is_it = |it: &Registered| it.name == name && it.role == role && it.is_span == is_span;
    // So it grows by the names that differ only.
    if !all.iter().any(is_it) {
        add_to_filter(name);
        all.push(Registered {
            name: name.to_owned(),
            role,
            is_span,
        });
    }
}

fn registered(name: &str, is_span: bool) -> Option<IdKind> {
    let all = REGISTERED.read().unwrap_or_else(PoisonError::into_inner);
    let found = all
        .iter()
        .find(|it| it.name == name && it.is_span == is_span);
    found.map(|it| it.role)
}

/// The key of the mark in the builder of a span whose field `id` is an id: the field `otel.name` may replace the
/// name of the span. It is a static, so that its address tells it from any other key.
static NAMED: &str = "tracing_session.named";

/// The mark for a span with this name, if its field `id` is an id.
#[inline]
pub(crate) fn mark_named(span: &str) -> Option<KeyValue> {
    let role = named(span)?;
    Some(KeyValue::new(Key::from_static_str(NAMED), role as i64))
}

/// The id that the field `id` of spans with this name holds.
#[inline]
pub(crate) fn named(span: &str) -> Option<IdKind> {
    match span {
        "session" => Some(IdKind::Session),
        "user" => Some(IdKind::User),
        _ if !may_matter(span) => None,
        _ => registered(span, true),
    }
}

/// Takes the mark out of a builder's attributes.
#[inline]
pub(crate) fn take_named(attributes: &mut Vec<KeyValue>) -> Option<IdKind> {
    // It is made before any other attribute, and the ticket beside it is gone by now.
    let is_mark = |it: &KeyValue| std::ptr::eq(it.key.as_str(), NAMED);
    attributes.first().filter(|first| is_mark(first))?;
    match attributes.remove(0).value {
        Value::I64(role) if role == IdKind::User as i64 => Some(IdKind::User),
        _ => Some(IdKind::Session),
    }
}
