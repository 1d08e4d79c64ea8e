//! Redaction by key: `Privacy` in the form in which a provider applies it to each attribute.
//!
//! The provider redacts before every other rule, so samplers, span processors and exporters all receive
//! redacted values. Nearly every attribute has a key that is not private, and a filter of a few
//! instructions tells so.

use crate::error::ErrorKind;
use crate::format::attributes::{
    ID, METADATA_FIELD, PREVIOUS_SESSION_ID, RESERVED, USER_HASH, USER_ID,
};
use crate::format::dialect::{Dialect, Written};
use crate::format::key_of;
use crate::format::privacy::{IdPolicy, Privacy};
use crate::scope::{Role, Scope};
use crate::session::Id;
use crate::session::details::Details;
use crate::session::metadata::{self, Entries};
use crate::session::text::unquoted;
use crate::sync::{RwLock, shared};
use opentelemetry::trace::SpanBuilder;
use opentelemetry::{Key, KeyValue, Value};
use serde_json::Value as Json;
use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};

/// A `Privacy` that redacts something. A provider, its tracers and their spans share one.
#[derive(Debug)]
pub(crate) struct Redaction {
    privacy: Privacy,
    keys: Vec<(Cow<'static, str>, Private)>,
    filter: KeyFilter,
}

/// The value of an attribute with a private key.
#[derive(Clone, Debug)]
enum Private {
    Id(Role),
    /// One metadata.
    Entry(IdPolicy),
    /// All metadata, as one JSON object.
    Metadata,
}

/// The result of redacting one attribute.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Redacted {
    /// The attribute may be exported.
    Kept,
    /// The same. The value was no id before it was redacted. A blank value is unchanged.
    Invalid(ErrorKind),
    /// The attribute must not be exported.
    Omitted,
}

impl Redaction {
    /// `None` if nothing is redacted.
    pub(crate) fn of(privacy: Privacy) -> Option<Arc<Self>> {
        let mut this = Self {
            keys: Vec::new(),
            filter: KeyFilter::new(),
            privacy,
        };
        let added: Vec<_> = this.privacy.keys.drain(..).collect();
        for (key, role) in added {
            this.add_id(key.into(), role);
        }
        this.add_id(PREVIOUS_SESSION_ID.into(), Role::Session);
        let rules = || Dialect::all().iter().flat_map(Dialect::rules);
        for rule in rules() {
            if let Some(role) = rule.role() {
                this.add_id(rule.key.into(), role);
            }
        }
        this.add_metadata();
        if this.keys.is_empty() {
            return None;
        }
        // `id` depends on the name of the span, so that the key itself is in no list. The other keys are those that
        // the span looks at anyway.
        [ID, USER_HASH].iter().for_each(|key| this.filter.add(key));
        RESERVED.iter().for_each(|key| this.filter.add(key));
        Some(Arc::new(this))
    }

    fn add_id(&mut self, key: Cow<'static, str>, role: Role) {
        if !self.privacy.of_ids(role).is_plain() {
            self.add(key, Private::Id(role));
        }
    }

    fn add_metadata(&mut self) {
        let rules = || Dialect::all().iter().flat_map(Dialect::rules);
        let names: Vec<String> = self
            .privacy
            .metadata
            .iter()
            .map(|it| it.0.clone())
            .collect();
        for name in names {
            let Some(policy) = self.privacy.of_metadata(&name).cloned() else {
                continue;
            };
            let prefixes = rules().filter(|rule| rule.written == Written::MetadataEntry);
            let prefixes = prefixes.map(|rule| rule.key).chain([METADATA_FIELD]);
            for prefix in prefixes {
                let key = format!("{prefix}{name}");
                self.add(key.into(), Private::Entry(policy.clone()));
            }
            for rule in rules().filter(|rule| rule.written == Written::Metadata) {
                self.add(rule.key.into(), Private::Metadata);
            }
        }
    }

    /// Of several entries with one key, the first applies.
    fn add(&mut self, key: Cow<'static, str>, private: Private) {
        if !self.keys.iter().any(|(known, _)| *known == key) {
            self.filter.add(&key);
            self.keys.push((key, private));
        }
    }

    #[inline(always)]
    pub(crate) fn policy(&self, role: Role) -> &IdPolicy {
        self.privacy.of_ids(role)
    }

    /// An id as OpenInference's attribute.
    #[inline(always)]
    pub(crate) fn written(&self, role: Role, id: &Id) -> Option<KeyValue> {
        let policy = self.policy(role);
        let key = Key::from_static_str(key_of(role, policy.hashes()));
        Some(KeyValue::new(key, policy.redact_id(id)?))
    }

    /// False if an attribute with this key is certainly neither private nor reserved: one test for both, because it
    /// is taken of each attribute of each span.
    #[inline(always)]
    pub(crate) fn may_concern(&self, key: &Key) -> bool {
        self.filter.may_have(self.filter.lengths(), key.as_str())
    }

    /// Redacts one attribute of a span. `named` is the id that the field `id` of the span contains, `scope`
    /// the scope of the span: if the attribute contains one of its ids, the hash is not made again.
    #[inline(never)]
    pub(crate) fn redact(
        &self,
        attribute: &mut KeyValue,
        named: Option<Role>,
        scope: Option<&Scope>,
    ) -> Redacted {
        let key = attribute.key.as_str();
        let private = match self.private(key) {
            None if key == ID => named.map(Private::Id),
            private => private,
        };
        match private {
            None => Redacted::Kept,
            Some(Private::Id(role)) => self.redact_id(role, attribute, scope),
            Some(Private::Entry(policy)) => redact_entry(&policy, attribute),
            Some(Private::Metadata) => self.redact_metadata(attribute),
        }
    }

    fn private(&self, key: &str) -> Option<Private> {
        let mut keys = self.keys.iter();
        if let Some((_, private)) = keys.find(|(known, _)| known == key) {
            return Some(private.clone());
        }
        let role = registered(&FIELDS, key, |role| !self.policy(role).is_plain());
        role.map(Private::Id)
    }

    /// The policy for attributes with this key, if it is the key of an id.
    pub(crate) fn policy_of_id(&self, key: &str) -> Option<&IdPolicy> {
        match self.private(key)? {
            Private::Id(role) => Some(self.policy(role)),
            _ => None,
        }
    }

    fn redact_id(&self, role: Role, attribute: &mut KeyValue, scope: Option<&Scope>) -> Redacted {
        let policy = self.policy(role);
        let text = single(&attribute.value).filter(|_| !policy.omits());
        let Some(text) = text else {
            return Redacted::Omitted;
        };
        let text = unquoted(&text).map_or(text, Cow::Owned);
        let text = text.trim();
        if text.is_empty() {
            return Redacted::Invalid(ErrorKind::Blank);
        }
        let of_scope = scope.and_then(|scope| scope.get(role));
        let hash = match of_scope.filter(|id| id.as_str() == text) {
            Some(id) => policy.redact_id(&id),
            None => policy.redact_text(text),
        };
        let Some(hash) = hash else {
            return Redacted::Omitted;
        };
        let error = Id::check(text).err();
        attribute.value = hash.into();
        if attribute.key.as_str() == USER_ID {
            attribute.key = Key::from_static_str(USER_HASH);
        }
        error.map_or(Redacted::Kept, Redacted::Invalid)
    }

    fn redact_metadata(&self, attribute: &mut KeyValue) -> Redacted {
        let text = attribute.value.as_str();
        let text = unquoted(&text).map_or(text, Cow::Owned);
        if !text.trim_start().starts_with('{') {
            return Redacted::Kept;
        }
        // Broken JSON, or JSON that is nested too deeply, may have private entries too.
        let Some(mut entries) = metadata::entries(&text) else {
            return Redacted::Omitted;
        };
        if self.redact_entries(&mut entries) {
            attribute.value = Arc::<str>::from(metadata::object(&entries)).into();
        }
        Redacted::Kept
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
            let Some(hash) = policy.redact_text(&text) else {
                return false;
            };
            *value = Json::String(hash.to_string());
            true
        });
        any
    }

    /// The same details, redacted.
    pub(crate) fn redact_details(&self, details: &Details) -> Details {
        let mut redacted = details.clone();
        self.redact_entries(&mut redacted.metadata);
        self.redact_all(&mut redacted.attributes, None, None, &mut |_, _| true);
        redacted
    }

    /// Redacts attributes in place. `keep_invalid` decides about a value that was no id. False if no key is private or
    /// reserved.
    #[inline(always)]
    pub(crate) fn redact_all(
        &self,
        attributes: &mut Vec<KeyValue>,
        named: Option<Role>,
        scope: Option<&Scope>,
        keep_invalid: &mut dyn FnMut(&KeyValue, ErrorKind) -> bool,
    ) -> bool {
        let lengths = self.filter.lengths();
        let may_concern = |it: &KeyValue| self.filter.may_have(lengths, it.key.as_str());
        let any = attributes.iter().any(may_concern);
        if any {
            self.redact_each(attributes, named, scope, keep_invalid);
        }
        any
    }

    #[inline(never)]
    fn redact_each(
        &self,
        attributes: &mut Vec<KeyValue>,
        named: Option<Role>,
        scope: Option<&Scope>,
        keep_invalid: &mut dyn FnMut(&KeyValue, ErrorKind) -> bool,
    ) {
        attributes.retain_mut(|attribute| {
            if !self.may_concern(&attribute.key) {
                return true;
            }
            match self.redact(attribute, named, scope) {
                Redacted::Kept => true,
                Redacted::Invalid(error) => keep_invalid(attribute, error),
                Redacted::Omitted => false,
            }
        });
    }

    /// Redacts the attributes of an event or a link.
    pub(crate) fn redact_others(&self, attributes: &mut Vec<KeyValue>, scope: Option<&Scope>) {
        self.redact_all(attributes, None, scope, &mut |_, _| true);
    }

    /// Redacts all of a builder's attributes, before the sampler receives them. False if no key of the span's own is
    /// private or reserved.
    #[inline(always)]
    pub(crate) fn redact_builder(
        &self,
        builder: &mut SpanBuilder,
        named: Option<Role>,
        scope: Option<&Scope>,
        keep_invalid: &mut dyn FnMut(&KeyValue, ErrorKind) -> bool,
    ) -> bool {
        for event in builder.events.iter_mut().flatten() {
            self.redact_others(&mut event.attributes, scope);
        }
        for link in builder.links.iter_mut().flatten() {
            self.redact_others(&mut link.attributes, scope);
        }
        match &mut builder.attributes {
            Some(attributes) => self.redact_all(attributes, named, scope, keep_invalid),
            None => false,
        }
    }

    /// The id that the field `id` of spans with this name contains.
    #[inline(always)]
    pub(crate) fn named(&self, span: &str) -> Option<Role> {
        let lengths = SPAN_FILTER.lengths.load(Ordering::Acquire);
        let is_registered = lengths >> (span.len() % LENGTHS) & 1 != 0;
        if is_registered || span == SESSION_SPAN || span == USER_SPAN {
            self.find_named(span)
        } else {
            None
        }
    }

    #[cold]
    fn find_named(&self, span: &str) -> Option<Role> {
        let is_private = |role: Role| !self.policy(role).is_plain();
        match span {
            SESSION_SPAN if is_private(Role::Session) => Some(Role::Session),
            USER_SPAN if is_private(Role::User) => Some(Role::User),
            _ => registered(&SPANS, span, is_private),
        }
    }
}

/// The names of spans that open a scope by default.
const SESSION_SPAN: &str = "session";
const USER_SPAN: &str = "user";

/// The key of the first attribute in the builder of a span with such a name. The field `otel.name` may
/// replace the name in the builder. It is a static, so that its address identifies the attribute.
static NAMED: &str = "tracing_session.named";

pub(crate) fn mark_named(role: Role) -> KeyValue {
    KeyValue::new(Key::from_static_str(NAMED), role as i64)
}

/// Removes the mark from a builder.
#[inline(always)]
pub(crate) fn take_named(attributes: &mut Vec<KeyValue>) -> Option<Role> {
    let first = attributes.first()?;
    if std::ptr::eq(first.key.as_str(), NAMED) {
        Some(remove_named(attributes))
    } else {
        None
    }
}

#[cold]
fn remove_named(attributes: &mut Vec<KeyValue>) -> Role {
    match attributes.remove(0).value {
        Value::I64(role) if role == Role::User as i64 => Role::User,
        _ => Role::Session,
    }
}

fn redact_entry(policy: &IdPolicy, attribute: &mut KeyValue) -> Redacted {
    // Numbers as in JSON, so that the hash is that of the same entry of a JSON object.
    let text = match &attribute.value {
        Value::F64(number) => Some(Json::from(*number).to_string().into()),
        value => single(value),
    };
    let text = text.map(|text| unquoted(&text).map_or(text, Cow::Owned));
    match text.and_then(|text| policy.redact_text(&text)) {
        Some(hash) => attribute.value = hash.into(),
        None => return Redacted::Omitted,
    }
    Redacted::Kept
}

/// The text of a value that is no list.
fn single(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(_) | Value::I64(_) | Value::F64(_) | Value::Bool(_) => Some(value.as_str()),
        _ => None,
    }
}

/// A few keys, and a cheap test that nearly every other key fails: by its length first, then by its first and last
/// letter.
#[derive(Debug)]
struct KeyFilter {
    /// One bit for each length modulo 64.
    lengths: u64,
    /// For each of these lengths, the letters. See [`ends`].
    letters: [u64; LENGTHS],
}

const LENGTHS: usize = 64;

impl KeyFilter {
    const fn new() -> Self {
        Self {
            lengths: 0,
            letters: [0; LENGTHS],
        }
    }

    fn add(&mut self, key: &str) {
        let length = key.len() % LENGTHS;
        self.lengths |= 1 << length;
        self.letters[length] |= ends(key);
    }

    /// The lengths of these keys and of the registered ones.
    #[inline(always)]
    fn lengths(&self) -> u64 {
        self.lengths | FIELD_FILTER.lengths.load(Ordering::Acquire)
    }

    /// Whether the key may be one of these, or a registered one.
    #[inline(always)]
    fn may_have(&self, lengths: u64, key: &str) -> bool {
        let length = key.len() % LENGTHS;
        lengths >> length & 1 != 0 && {
            let letters =
                self.letters[length] | FIELD_FILTER.letters[length].load(Ordering::Acquire);
            let first = key.as_bytes().first();
            first.is_some_and(|first| letters >> (first % 32) & 1 != 0) && ends_alike(letters, key)
        }
    }
}

// By itself, so that the compiler reads the last letter only where the first is right.
#[cold]
fn ends_alike(letters: u64, key: &str) -> bool {
    let last = key.as_bytes().last();
    last.is_some_and(|last| letters >> (32 + last % 32) & 1 != 0)
}

/// One bit for the first letter, in the lower half, and one for the last letter, in the upper half.
fn ends(key: &str) -> u64 {
    match (key.as_bytes().first(), key.as_bytes().last()) {
        (Some(first), Some(last)) => 1 << (first % 32) | 1 << (32 + last % 32),
        _ => 0,
    }
}

/// The names that the layers of this process are configured with.
type Names = Vec<(String, Role)>;

shared! {
    static FIELDS: RwLock<Names> = RwLock::new(Vec::new());
}
shared! {
    static SPANS: RwLock<Names> = RwLock::new(Vec::new());
}

/// A `KeyFilter` that grows while others read it.
struct SharedFilter {
    lengths: AtomicU64,
    letters: [AtomicU64; LENGTHS],
}

static FIELD_FILTER: SharedFilter = SharedFilter::new();
static SPAN_FILTER: SharedFilter = SharedFilter::new();

impl SharedFilter {
    const fn new() -> Self {
        Self {
            lengths: AtomicU64::new(0),
            letters: [const { AtomicU64::new(0) }; LENGTHS],
        }
    }

    fn add(&self, key: &str) {
        let length = key.len() % LENGTHS;
        self.letters[length].fetch_or(ends(key), Ordering::Release);
        // Last: a tracer that passes the first test needs the second.
        self.lengths.fetch_or(1 << length, Ordering::Release);
    }
}

/// Has every provider of the process redact the field with this name, wherever it is set.
pub(crate) fn register_id_field(name: &str, role: Role) {
    // `Privacy` knows the built-in keys already.
    let is_known = |dialect: &Dialect| dialect.rule(name).is_some();
    if !Dialect::all().iter().any(is_known) {
        register(&FIELDS, &FIELD_FILTER, name, role);
    }
}

/// Has every provider of the process redact the field `id` of spans with this name.
pub(crate) fn register_id_span(name: &str, role: Role) {
    register(&SPANS, &SPAN_FILTER, name, role);
}

/// Names are registered when layers are made, so the list grows by the names that differ only.
fn register(names: &RwLock<Names>, filter: &SharedFilter, name: &str, role: Role) {
    let mut names = names.write().unwrap_or_else(PoisonError::into_inner);
    if !names.iter().any(|(known, of)| known == name && *of == role) {
        // While the list is locked: a tracer that passes the filter waits for the name.
        filter.add(name);
        names.push((name.to_owned(), role));
    }
}

fn registered(names: &RwLock<Names>, name: &str, is: impl Fn(Role) -> bool) -> Option<Role> {
    let names = names.read().unwrap_or_else(PoisonError::into_inner);
    let mut names = names.iter();
    let found = names.find(|(known, role)| known == name && is(*role));
    found.map(|(_, role)| *role)
}
