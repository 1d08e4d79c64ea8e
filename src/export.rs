//! Encodes a session's values as attributes: OpenInference's on spans, and other backends' keys at the exporter.

pub(crate) mod dialect;
pub(crate) mod exporter;
pub(crate) mod privacy;

pub use self::dialect::Dialect;
pub use self::exporter::SessionExporter;
pub use self::privacy::{IdPolicy, Privacy};
use crate::base::shards::unique_number;
use crate::export::dialect::{Content, all_rules};
use crate::session::details::{Details, Entries, entries, object};
use crate::session::id::{plain_text, trimmed};
use crate::session::keys::{
    FURTHER_KEYS, ID, METADATA_FIELD, NameOf, PLAIN_SESSION, PLAIN_SESSION_RENAMED, PLAIN_USER,
    PLAIN_USER_RENAMED, PREVIOUS_SESSION_ID, Part, Parts, SESSION_ID, TAGS_FIELD, USER_HASH,
    USER_ID, VALUE_KEYS, add_to_filter, any_may_matter, id_field_kind, may_matter, ours,
    registered,
};
use crate::session::{Id, IdKind, Session};
use opentelemetry::trace::SpanBuilder;
use opentelemetry::{Key, KeyValue, Value};
use serde_json::Value as Json;
use std::borrow::Cow;
use std::sync::Arc;
use tracing::Metadata;

/// Writes a session's values as OpenInference's attributes, redacted.
#[inline(always)]
pub(crate) fn encode(
    values: &Session,
    redaction: Option<&Arc<Redaction>>,
    write: &mut impl FnMut(KeyValue),
) {
    encode_ids(values, redaction, write);
    if let Some(details) = &values.details {
        let encoded = match redaction {
            None => Cow::Borrowed(details.encoded()),
            Some(redaction) => redaction.encoded(details),
        };
        // A session extracted from headers can have an attribute `user.hash`.
        let is_hashed = redaction.is_some() && values.user_id.is_some();
        for attribute in encoded.iter() {
            if !(is_hashed && attribute.key.as_str() == USER_HASH) {
                write(attribute.clone());
            }
        }
    }
}

/// Writes a session's ids as OpenInference's attributes, redacted.
#[inline(always)]
pub(crate) fn encode_ids(
    values: &Session,
    redaction: Option<&Arc<Redaction>>,
    write: &mut impl FnMut(KeyValue),
) {
    for kind in IdKind::BOTH {
        let Some(id) = kind.id(values) else { continue };
        if let Some(attribute) = encode_id(kind, id, redaction) {
            write(attribute);
        }
    }
}

/// Encodes an id as an attribute. `None` if the id isn't exported.
#[inline(always)]
pub(crate) fn encode_id(
    kind: IdKind,
    id: &Id,
    redaction: Option<&Arc<Redaction>>,
) -> Option<KeyValue> {
    match redaction {
        None => Some(KeyValue::new(kind.key(), id.shared())),
        Some(redaction) => redaction.encode_id(kind, id),
    }
}

/// The fields of an opener that set values. They are exported in another form.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct OpenerFields {
    /// The values that the fields may set, now or later.
    pub(crate) declared: Parts,
    /// The values that the fields `session.id` and `user.id` may set.
    pub(crate) own_keys: Parts,
    /// The kind of id that a field `id` sets.
    pub(crate) id: Option<IdKind>,
    /// The field `id` sets the session only because of the default name of the span.
    pub(crate) is_implicit: bool,
    /// The span is one of `session!` or `user!`.
    pub(crate) is_of_macro: bool,
    /// The callsite. `None` until a span of it is an opener.
    pub(crate) metadata: Option<&'static Metadata<'static>>,
}

impl OpenerFields {
    /// Adds a field that sets an id.
    #[inline]
    pub(crate) fn add(&mut self, name: &str, kind: IdKind) {
        self.declared = self.declared.with(kind.part());
        if name == kind.key() {
            self.own_keys = self.own_keys.with(kind.part());
        } else if name == ID {
            self.id = Some(kind);
        }
    }

    /// Whether the span is a session span: by its name, or because it is one of `session!`.
    pub(crate) fn are_of_session_span(&self) -> bool {
        let is_of_macro = self.is_of_macro && self.declared.have(Part::Session);
        is_of_macro || self.id == Some(IdKind::Session)
    }

    /// Whether any of the fields is for metadata or tags.
    pub(crate) fn have_details(&self) -> bool {
        self.declared.have(Part::Tags)
    }

    /// Whether this is a field for metadata or tags.
    pub(crate) fn have_detail(&self, field: &str) -> bool {
        let is_field = |span: &Metadata<'_>| span.fields().field(field).is_some();
        self.have_details() && is_detail(field) && self.metadata.is_some_and(is_field)
    }
}

/// Whether fields with this name are for metadata or tags, on openers.
pub(crate) fn is_detail(field: &str) -> bool {
    field == TAGS_FIELD || field.starts_with(METADATA_FIELD)
}

/// A `Privacy` that redacts something. A provider, its tracers and their spans share one.
#[derive(Debug)]
pub(crate) struct Redaction {
    /// Sessions cache the redacted attributes under this number.
    number: u64,
    privacy: Privacy,
    keys: Vec<(String, Private)>,
}

/// The value of an attribute with a private key.
#[derive(Debug)]
enum Private {
    Id(IdKind),
    /// One metadata entry.
    Entry(IdPolicy),
    /// All metadata, as one JSON object.
    Metadata,
}

impl Redaction {
    /// `None` if nothing is redacted.
    pub(crate) fn of(privacy: Privacy) -> Option<Arc<Self>> {
        let ids = all_rules().filter_map(|it| Some((it.key.to_owned(), it.content.id_kind()?)));
        let ids = ids.chain([(PREVIOUS_SESSION_ID.to_owned(), IdKind::Session)]);
        let ids = privacy.keys.iter().cloned().chain(ids);
        let ids = ids.filter(|(_, kind)| !privacy.id_policy(*kind).is_plain());
        let mut keys: Vec<_> = ids.map(|(key, kind)| (key, Private::Id(kind))).collect();
        let metadata = privacy.metadata.iter();
        for (name, policy) in metadata.filter(|(_, policy)| !policy.is_plain()) {
            let entry = |prefix: &str| (format!("{prefix}{name}"), Private::Entry(policy.clone()));
            keys.push(entry(METADATA_FIELD));
            keys.extend(all_rules().filter_map(|rule| match rule.content {
                Content::MetadataEntry => Some(entry(rule.key)),
                Content::Metadata => Some((rule.key.to_owned(), Private::Metadata)),
                _ => None,
            }));
        }
        if keys.is_empty() {
            return None;
        }
        let private = keys.iter().map(|(key, _)| key.as_str());
        let looked_at = VALUE_KEYS.into_iter().chain(FURTHER_KEYS);
        private.chain(looked_at).for_each(add_to_filter);
        Some(Arc::new(Self {
            number: unique_number(),
            privacy,
            keys,
        }))
    }

    /// An id as OpenInference's attribute.
    #[inline(always)]
    pub(crate) fn encode_id(&self, kind: IdKind, id: &Id) -> Option<KeyValue> {
        let policy = self.privacy.id_policy(kind);
        let key = match kind {
            IdKind::User if policy.hashes() => ours::USER_HASH,
            kind => kind.key(),
        };
        Some(KeyValue::new(key, policy.redact_id(id)?))
    }

    /// The other values of a session as OpenInference's attributes.
    #[inline]
    pub(crate) fn encoded<'a>(&self, details: &'a Details) -> Cow<'a, [KeyValue]> {
        details.redacted(self.number, |details| {
            self.redact_entries(&mut details.metadata);
            self.redact_all(&mut details.attributes);
        })
    }

    /// Redacts one attribute of a span, whose field `id` contains an id of the kind `id_field`. False if the
    /// attribute must not be exported.
    #[inline]
    pub(crate) fn redact(&self, attribute: &mut KeyValue, id_field: Option<IdKind>) -> bool {
        !may_matter(attribute.key.as_str()) || self.redact_private(attribute, id_field)
    }

    #[inline(never)]
    fn redact_private(&self, attribute: &mut KeyValue, id_field: Option<IdKind>) -> bool {
        let key = attribute.key.as_str();
        let listed = self.keys.iter().find(|(private, _)| private == key);
        let id_kind = match listed.map(|(_, private)| private) {
            Some(Private::Id(kind)) => Some(*kind),
            Some(Private::Entry(policy)) => return redact_entry(policy, attribute),
            Some(Private::Metadata) => return self.redact_metadata(attribute),
            None if key == ID => id_field,
            None => registered(NameOf::Key, key),
        };
        id_kind.is_none_or(|kind| redact_id(self.privacy.id_policy(kind), attribute))
    }

    fn redact_metadata(&self, attribute: &mut KeyValue) -> bool {
        let text = attribute.value.as_str();
        let text = plain_text(&text);
        if !text.trim_start().starts_with('{') {
            return true;
        }
        // Broken JSON, or JSON that is nested too deeply, may have private entries too.
        let Some(mut entries) = entries(&text) else {
            return false;
        };
        if self.redact_entries(&mut entries) {
            attribute.value = Arc::<str>::from(object(&entries)).into();
        }
        true
    }

    /// False if none of the entries is private.
    fn redact_entries(&self, entries: &mut Entries) -> bool {
        let mut any = false;
        entries.retain_mut(|(key, value)| {
            let Some(policy) = self.privacy.metadata_policy(key) else {
                return true;
            };
            any = true;
            let redacted = match &*value {
                Json::String(text) => policy.redact_text(text),
                other => policy.redact_text(&other.to_string()),
            };
            *value = redacted.as_deref().into();
            redacted.is_some()
        });
        any
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
    let text = trimmed(&text);
    // A blank text reveals nothing.
    if let Some(hash) = policy.redact_text(text).filter(|_| !text.is_empty()) {
        attribute.value = hash.into();
        if attribute.key.as_str() == USER_ID {
            attribute.key = Key::from_static_str(USER_HASH);
        }
    }
    true
}

fn redact_entry(policy: &IdPolicy, attribute: &mut KeyValue) -> bool {
    // Format numbers as JSON, so that the hash is the same as for the entry of a JSON object.
    let text = match &attribute.value {
        Value::F64(number) => Some(Json::from(*number).to_string().into()),
        value => single(value),
    };
    let Some(redacted) = text.and_then(|text| policy.redact_text(&text)) else {
        return false;
    };
    attribute.value = redacted.into();
    true
}

/// The text of a value that isn't a list.
fn single(value: &Value) -> Option<Cow<'_, str>> {
    use Value::{Bool, F64, I64, String};
    match value {
        String(text) => Some(plain_text(text.as_str())),
        I64(_) | F64(_) | Bool(_) => Some(value.as_str()),
        _ => None,
    }
}

/// The key of the marker in the builder of a span whose field `id` contains an id. The builder needs the marker, because the
/// field `otel.name` may replace the name of the span. A static, because it is recognised by its address.
static ID_FIELD: &str = "tracing_session.named";

/// The marker for a span with this name, if its field `id` contains an id.
#[inline]
pub(crate) fn id_field_marker(span: &str) -> Option<KeyValue> {
    let kind = id_field_kind(span)?;
    Some(KeyValue::new(ID_FIELD, kind as i64))
}

/// Takes the marker out of a builder's attributes.
#[inline]
pub(crate) fn take_id_field_marker(attributes: &mut Vec<KeyValue>) -> Option<IdKind> {
    // The tracer adds it before any other attribute, and has removed the ticket by now.
    let is_marker = |it: &KeyValue| std::ptr::eq(it.key.as_str(), ID_FIELD);
    attributes.first().filter(|first| is_marker(first))?;
    let kind = attributes.remove(0).value;
    let mut kinds = IdKind::BOTH.into_iter();
    kinds.find(|it| kind == Value::I64(*it as i64))
}

/// Renames plain attributes beside an id. It runs before the ids are mapped to the keys of the dialect.
pub(crate) fn rename_plain(attributes: &mut [KeyValue]) {
    for (plain, renamed) in [
        (PLAIN_SESSION, PLAIN_SESSION_RENAMED),
        (PLAIN_USER, PLAIN_USER_RENAMED),
    ] {
        let has = |key| attributes.iter().any(|it| it.key.as_str() == key);
        let ids = [SESSION_ID, USER_ID, USER_HASH];
        if has(plain) && !has(renamed) && ids.into_iter().any(has) {
            let plain = attributes.iter_mut().filter(|it| it.key.as_str() == plain);
            plain.for_each(|it| it.key = Key::from_static_str(renamed));
        }
    }
}
