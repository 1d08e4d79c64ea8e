//! The values of a session other than its ids: metadata, tags, prompt template and attributes.

use crate::base::diagnostic;
use crate::base::error::ErrorKind;
use crate::base::sync::OnceLock;
use crate::session::id::{Id, plain_text, trimmed};
use crate::session::keys::{
    PROMPT_TEMPLATE, PROMPT_TEMPLATE_VARIABLES, PROMPT_TEMPLATE_VERSION, Part, Parts, ours,
};
use opentelemetry::{Array, KeyValue, StringValue, Value};
use serde::Serializer as _;
use serde::de::{Deserializer as _, MapAccess, Visitor};
use serde_json::Value as Json;
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// Each list is in the order in which its values were set.
#[derive(Clone, Default, PartialEq)]
pub(crate) struct Details {
    pub(crate) metadata: Entries,
    pub(crate) tags: Vec<StringValue>,
    pub(crate) template: Option<StringValue>,
    pub(crate) template_version: Option<StringValue>,
    pub(crate) template_variables: Option<Json>,
    pub(crate) attributes: Vec<KeyValue>,
    encoded: EncodedOnce,
}

/// The limit for the tags, the metadata keys and the attributes of a session. Every span exports all of them, and by
/// default the SDK keeps at most 128 attributes of a span. Without a limit, code that adds a value in each turn makes
/// the spans of a long conversation larger and larger.
const MOST: usize = 128;

/// Adds a value to a list. If the list is full, drops the value and returns false.
fn add<T>(list: &mut Vec<T>, value: T) -> bool {
    let fits = list.len() < MOST;
    if fits {
        list.push(value);
    }
    fits
}

/// Methods return `false` if they dropped a value because there were [`MOST`] already.
impl Details {
    pub(crate) fn set_metadata(&mut self, key: &str, value: Json) -> bool {
        match self.metadata.iter_mut().find(|(own, _)| own == key) {
            Some((_, own)) => *own = value,
            None => return add(&mut self.metadata, (key.to_owned(), value)),
        }
        true
    }

    pub(crate) fn add_tags(&mut self, tags: impl IntoIterator<Item = StringValue>) -> bool {
        let mut fit = true;
        for tag in tags {
            fit &= self.tags.contains(&tag) || add(&mut self.tags, tag);
        }
        fit
    }

    pub(crate) fn set_attribute(&mut self, attribute: KeyValue) -> bool {
        let mut own = self.attributes.iter_mut();
        match own.find(|own| own.key == attribute.key) {
            Some(own) => own.value = attribute.value,
            None => return add(&mut self.attributes, attribute),
        }
        true
    }

    pub(crate) fn clear(&mut self, parts: Parts) {
        if parts.have(Part::Metadata) {
            self.metadata.clear();
        }
        if parts.have(Part::Tags) {
            self.tags.clear();
        }
        if parts.have(Part::PromptTemplate) {
            self.template = None;
            self.template_version = None;
            self.template_variables = None;
        }
        if parts.have(Part::Attributes) {
            self.attributes.clear();
        }
    }

    /// Merges these details into `outer` without its parts in `cleared`. Metadata and attributes are merged by key,
    /// tags are joined, and each other value is inherited if it is missing.
    fn inside(&self, outer: &Self, cleared: Parts) -> Self {
        let mut all = outer.clone();
        all.clear(cleared);
        let mut fit = all.add_tags(self.tags.iter().cloned());
        for (key, value) in &self.metadata {
            fit &= all.set_metadata(key, value.clone());
        }
        all.template = self.template.clone().or(all.template);
        all.template_version = self.template_version.clone().or(all.template_version);
        all.template_variables = self.template_variables.clone().or(all.template_variables);
        for attribute in &self.attributes {
            fit &= all.set_attribute(attribute.clone());
        }
        if !fit {
            diagnostic::too_many_details();
        }
        all
    }

    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Copy-on-write update.
    pub(crate) fn change(this: &mut Option<Arc<Self>>, change: impl FnOnce(&mut Self)) {
        let details = Arc::make_mut(this.get_or_insert_default());
        details.encoded = EncodedOnce::default();
        change(details);
    }

    /// The values as OpenInference attributes, encoded once.
    #[inline]
    pub(crate) fn encoded(&self) -> &[KeyValue] {
        self.encoded.plain.get_or_init(|| self.encode())
    }

    /// The attributes after `redact`, for the provider with this number. They are cached for the first provider only;
    /// for any other provider, each call encodes them again.
    #[inline]
    pub(crate) fn redacted(&self, number: u64, redact: impl Fn(&mut Self)) -> Cow<'_, [KeyValue]> {
        let encode = || {
            let mut redacted = self.clone();
            redact(&mut redacted);
            redacted.encode()
        };
        let first = || Box::new((number, encode()));
        match &**self.encoded.redacted.get_or_init(first) {
            (first, redacted) if *first == number => Cow::Borrowed(redacted),
            _ => Cow::Owned(encode().into()),
        }
    }

    fn encode(&self) -> Box<[KeyValue]> {
        let text = |text: &Option<StringValue>| text.clone().map(Value::String);
        let metadata = (!self.metadata.is_empty()).then(|| shared(&object(&self.metadata)));
        let variables = self.template_variables.as_ref();
        let variables = variables.map(|json| shared(&json.to_string()));
        let tags = (!self.tags.is_empty()).then(|| Array::String(self.tags.clone()));
        let values = [
            (ours::METADATA, text(&metadata)),
            (ours::TAGS, tags.map(Value::Array)),
            (PROMPT_TEMPLATE, text(&self.template)),
            (PROMPT_TEMPLATE_VERSION, text(&self.template_version)),
            (PROMPT_TEMPLATE_VARIABLES, text(&variables)),
        ];
        let values = values.into_iter();
        let values = values.filter_map(|(key, value)| Some(KeyValue::new(key, value?)));
        values.chain(self.attributes.iter().cloned()).collect()
    }
}

/// Merges `inner` into `outer` without the parts of `outer` in `cleared`.
pub(crate) fn merged(
    outer: Option<&Arc<Details>>,
    inner: Option<&Arc<Details>>,
    cleared: Parts,
) -> Option<Arc<Details>> {
    let Some(outer) = outer else {
        return inner.cloned();
    };
    if inner.is_none() && cleared.without(Parts::IDS).is_empty() {
        return Some(outer.clone());
    }
    let merged = inner.cloned().unwrap_or_default().inside(outer, cleared);
    (!merged.is_empty()).then(|| Arc::new(merged))
}

/// Caches the encoded values: plain, and redacted for the first provider that redacts. The cache isn't part of the
/// value: clones start with an empty one, and any two caches are equal.
#[derive(Default)]
struct EncodedOnce {
    plain: OnceLock<Box<[KeyValue]>>,
    redacted: OnceLock<Box<(u64, Box<[KeyValue]>)>>,
}

impl Clone for EncodedOnce {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl PartialEq for EncodedOnce {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// Metadata in the order in which it was set.
pub(crate) type Entries = Vec<(String, Json)>;

/// The text of a JSON object with these entries.
pub(crate) fn object(entries: &Entries) -> String {
    let mut json = Vec::new();
    let entries = entries.iter().map(|(key, value)| (key, value));
    // The values are JSON already, and writing to a vector can't fail.
    let _never_fails = serde_json::Serializer::new(&mut json).collect_map(entries);
    String::from_utf8(json).unwrap_or_default()
}

/// Parses a JSON object into its entries. Not with `serde_json`'s own map, which would sort them.
pub(crate) fn entries(object: &str) -> Option<Entries> {
    struct InOrder;

    impl<'de> Visitor<'de> for InOrder {
        type Value = Entries;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
            std::iter::from_fn(|| map.next_entry().transpose()).collect()
        }
    }

    let mut json = serde_json::Deserializer::from_str(object);
    let entries = json.deserialize_map(InOrder).ok()?;
    json.end().ok()?;
    Some(entries)
}

/// Checks and trims a tag. Tags follow the rules for ids.
pub(crate) fn tag(text: &str) -> Result<StringValue, ErrorKind> {
    Ok(shared(Id::check(text)?))
}

/// Copies a text once, so that spans share it.
pub(crate) fn shared(text: &str) -> StringValue {
    Arc::<str>::from(text).into()
}

/// Parses the tags in a field: a list in the form of `?` or JSON, or text with commas.
pub(crate) fn tags(text: &str) -> Result<Vec<StringValue>, ErrorKind> {
    let text = trimmed(text);
    let list = text.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    let Some(list) = list else {
        return text.split(',').map(tag).collect();
    };
    let (mut quoted, mut escaped) = (false, false);
    let elements = list.trim().split_terminator(|c| {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = quoted,
            '"' => quoted = !quoted,
            ',' => return !quoted,
            _ => {}
        }
        false
    });
    let tags = elements.filter_map(|element| match plain_text(element.trim()) {
        // A missing value in a list of options.
        Cow::Borrowed("None") => None,
        Cow::Borrowed(text) => {
            let json: Option<String> = serde_json::from_str(text).ok();
            Some(tag(json.as_deref().unwrap_or(text)))
        }
        Cow::Owned(text) => Some(tag(&text)),
    });
    tags.collect()
}
