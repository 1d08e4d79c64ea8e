//! The field visitor: which fields make a span an opener, and the values that they set.

use crate::base::diagnostic;
use crate::base::diagnostic::Message;
use crate::base::error::ErrorKind;
use crate::export::{OpenerFields, is_detail};
#[cfg(feature = "otlp")]
use crate::scope::Scope;
use crate::session::details::{Details, tags};
use crate::session::id::{is_struct, plain_text};
use crate::session::keys::{ID, KeyFilter, METADATA_FIELD, Part, SESSION_ID, TAGS_FIELD, USER_ID};
use crate::session::{Id, IdKind, Session};
use serde_json::Value as Json;
use std::borrow::Cow;
use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use tracing::Metadata;
use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};

/// The empty field that identifies the spans of `session!` and `user!`, independent of the configured names.
pub(crate) const MACRO_FIELD: &str = "tracing_session";

/// The name that makes a span with a field `id` an opener by default. It sets a session only *implicitly*, because
/// other code may use the name with another meaning.
const IMPLICIT_NAME: &str = "session";

/// Fields that often contain the id of a session or user. They set nothing unless the application adds them.
const USUAL_NAMES: [(&str, &str); 4] = [
    ("conversation_id", "session"),
    ("session_id", "session"),
    ("thread_id", "session"),
    ("user_id", "user"),
];

/// The number of spans with a field of [`USUAL_NAMES`] before the hint.
const UNSET_SPANS: u32 = 8;

/// The names of spans and fields that set a session or a user.
pub(crate) struct Names {
    /// Names of spans whose field `id` sets an id, added by the application.
    spans: List,
    /// Names of fields that set an id, added by the application.
    fields: List,
    /// A span named [`IMPLICIT_NAME`], and the fields `session.id` and `user.id`.
    has_defaults: bool,
    /// Chooses the callsites whose spans may be openers. `None`: all.
    filter: Option<Filter>,
    /// Excludes most fields that set no id.
    key_filter: KeyFilter,
    /// A cache of callsites whose fields have such names: one for each slot, which is the callsite's line modulo the
    /// length. `None` in a slot: the callsite's spans aren't openers.
    known: [OnceLock<(Identifier, Option<OpenerCallsite>)>; KNOWN],
    /// Counts the spans with a field of [`USUAL_NAMES`] until a session is set in this process, and the hint about the
    /// first one.
    unset_spans: AtomicU32,
    hint: OnceLock<Message>,
}

const KNOWN: usize = 64;

/// A callsite whose spans are openers.
#[derive(Clone)]
pub(crate) struct OpenerCallsite {
    callsite: Identifier,
    pub(crate) fields: OpenerFields,
    /// The kind of value that each field sets.
    kinds: Box<[Option<FieldKind>]>,
}

type List = Vec<(Cow<'static, str>, IdKind)>;

type Filter = Box<dyn Fn(&Metadata<'_>) -> bool + Send + Sync>;

impl Default for Names {
    fn default() -> Self {
        Self {
            spans: Vec::new(),
            fields: Vec::new(),
            has_defaults: true,
            filter: None,
            // Without the defaults, the macros still use these.
            key_filter: KeyFilter::of(&[ID, SESSION_ID, USER_ID])
                .and_all(&USUAL_NAMES.map(|it| it.0)),
            known: [const { OnceLock::new() }; KNOWN],
            unset_spans: AtomicU32::new(0),
            hint: OnceLock::new(),
        }
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Names")
            .field("spans", &self.spans)
            .field("fields", &self.fields)
            .field("has_defaults", &self.has_defaults)
            .finish_non_exhaustive()
    }
}

impl Names {
    pub(crate) fn add_span(&mut self, kind: IdKind, name: Cow<'static, str>) {
        add(&mut self.spans, kind, name);
    }

    pub(crate) fn add_field(&mut self, kind: IdKind, name: Cow<'static, str>) {
        self.key_filter = self.key_filter.and(&name);
        add(&mut self.fields, kind, name);
    }

    pub(crate) fn drop_defaults(&mut self) {
        self.has_defaults = false;
    }

    pub(crate) fn set_filter(&mut self, filter: Filter) {
        self.filter = Some(filter);
    }

    /// A cheap pre-check: false for nearly every callsite whose spans aren't openers.
    #[inline]
    pub(crate) fn may_be_opener(&self, span: &Metadata<'_>) -> bool {
        let mut fields = span.fields().iter();
        fields.any(|field| self.key_filter.may_match(field.name()))
    }

    /// Finds the callsite of a span, if its spans are openers.
    pub(crate) fn opener_callsite(&self, span: &Metadata<'_>) -> Option<Cow<'_, OpenerCallsite>> {
        let slot = span.line().unwrap_or(0) as usize % KNOWN;
        let find = || (span.callsite(), self.find_opener_callsite(span));
        match self.known[slot].get_or_init(find) {
            (callsite, known) if *callsite == span.callsite() => known.as_ref().map(Cow::Borrowed),
            _ => self.find_opener_callsite(span).map(Cow::Owned),
        }
    }

    #[cold]
    fn find_opener_callsite(&self, span: &Metadata<'_>) -> Option<OpenerCallsite> {
        let mut fields = OpenerFields {
            is_of_macro: is_of_macro(span),
            ..OpenerFields::default()
        };
        let mut has_details = false;
        let kind = |field: Field| {
            let name = field.name();
            if let Some(kind) = self.id_kind(span, name, fields.is_of_macro) {
                fields.add(name, kind);
                return Some(FieldKind::Id(kind));
            }
            has_details |= is_detail(name);
            match name.strip_prefix(METADATA_FIELD) {
                Some("") => None,
                Some(key) => Some(FieldKind::Metadata(key)),
                None => (name == TAGS_FIELD).then_some(FieldKind::Tags),
            }
        };
        let kinds: Box<[_]> = span.fields().iter().map(kind).collect();
        if fields.declared.is_empty() {
            return None;
        }
        if has_details {
            fields.declared = fields.declared.with(Part::Metadata).with(Part::Tags);
        }
        fields.is_implicit = fields.id == Some(IdKind::Session)
            && kind_of(&self.spans, span.name()).is_none()
            && kind_of(&self.fields, ID).is_none();
        let is_excluded = |filter: &Filter| !fields.is_of_macro && !filter(span);
        let is_excluded = self.filter.as_ref().is_some_and(is_excluded);
        (!is_excluded).then(|| OpenerCallsite {
            callsite: span.callsite(),
            fields,
            kinds,
        })
    }

    /// Counts a span that sets nothing, in a process that has set no session yet. Defers the hint after several such
    /// spans.
    #[cold]
    pub(crate) fn note_unset(&self, span: &'static Metadata<'static>) {
        let has = |(name, _): &&(&str, &str)| span.fields().field(*name).is_some();
        let Some((name, noun)) = USUAL_NAMES.iter().find(has) else {
            return;
        };
        let hint = (self.hint).get_or_init(|| diagnostic::no_session_set(span, name, noun));
        if self.unset_spans.fetch_add(1, Ordering::Relaxed) + 1 == UNSET_SPANS {
            diagnostic::defer(hint.clone());
        }
    }

    /// The hint, for a process that ends before it has made enough spans.
    #[cfg(feature = "otlp")]
    pub(crate) fn last_hint(&self) -> Option<&Message> {
        let is_early = self.unset_spans.load(Ordering::Relaxed) < UNSET_SPANS;
        self.hint.get().filter(|_| is_early && !Scope::any_exists())
    }

    /// The kind of id that a field sets.
    fn id_kind(&self, span: &Metadata<'_>, field: &str, is_of_macro: bool) -> Option<IdKind> {
        if !self.key_filter.may_match(field) {
            return None;
        }
        let is_default = self.has_defaults || is_of_macro;
        let added = kind_of(&self.fields, field);
        match field {
            _ if added.is_some() => added,
            // The macros set the id with other fields.
            ID if is_of_macro => None,
            ID if self.has_defaults && span.name() == IMPLICIT_NAME => {
                kind_of(&self.spans, IMPLICIT_NAME).or(Some(IdKind::Session))
            }
            ID => kind_of(&self.spans, span.name()),
            SESSION_ID if is_default => Some(IdKind::Session),
            USER_ID if is_default => Some(IdKind::User),
            _ => None,
        }
    }
}

/// The kind of id that an added name sets. A name that was added for both kinds sets a session.
fn kind_of(names: &List, name: &str) -> Option<IdKind> {
    let kind = |(added, kind): &(Cow<'static, str>, IdKind)| (added == name).then_some(*kind);
    names.iter().find_map(kind)
}

fn add(list: &mut List, kind: IdKind, name: Cow<'static, str>) {
    list.push((name, kind));
    list.sort_by_key(|(_, kind)| *kind);
}

fn is_of_macro(span: &Metadata<'_>) -> bool {
    let first = span.fields().iter().next();
    first.is_some_and(|field| field.name() == MACRO_FIELD)
}

/// Parses the fields of an opener, or of one `record`, into the session that they set.
pub(crate) struct FieldVisitor<'a, F> {
    pub(crate) callsite: &'a OpenerCallsite,
    pub(crate) set: Session,
    /// Called for each field with a mistake.
    pub(crate) on_mistake: F,
}

/// A mistake in a field's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum FieldMistake {
    /// The id or the tags are invalid.
    Invalid(ErrorKind),
    /// The id contains the name of a type.
    NamesType,
}

/// The kind of value that a field of an opener sets.
#[derive(Clone, Copy)]
enum FieldKind {
    Id(IdKind),
    /// With this key.
    Metadata(&'static str),
    Tags,
}

impl<F: FnMut(&Field, FieldMistake)> FieldVisitor<'_, F> {
    #[inline]
    fn kind(&self, field: &Field) -> Option<FieldKind> {
        // A bridge to another tracing system may record fields of another callsite.
        let is_of_span = field.callsite() == self.callsite.callsite;
        *self
            .callsite
            .kinds
            .get(field.index())
            .filter(|_| is_of_span)?
    }

    fn set_details(&mut self, set: impl FnOnce(&mut Details) -> bool) {
        let mut fit = true;
        Details::change(&mut self.set.details, |it| fit = set(it));
        if !fit {
            diagnostic::too_many_details();
        }
    }

    #[inline]
    fn set_id(&mut self, field: &Field, kind: IdKind, id: Id) {
        match kind {
            IdKind::User => self.set.user_id = Some(id),
            IdKind::Session if self.callsite.fields.is_implicit && field.name() == ID => {
                // Another field of the span may have set the id explicitly.
                if self.set.id.as_ref().is_none_or(Id::is_replaceable) {
                    self.set.id = Some(id.replaceable());
                }
            }
            IdKind::Session => self.set.id = Some(id),
        }
    }

    fn set_text(&mut self, field: &Field, kind: FieldKind, text: &str) {
        let is_set = match kind {
            FieldKind::Id(kind) => Id::received(text).map(|id| self.set_id(field, kind, id)),
            FieldKind::Tags => tags(text).map(|tags| self.set_details(|it| it.add_tags(tags))),
            FieldKind::Metadata(key) => {
                self.set_details(|it| it.set_metadata(key, text.into()));
                Ok(())
            }
        };
        if let Err(error) = is_set {
            (self.on_mistake)(field, FieldMistake::Invalid(error));
        }
    }

    /// Metadata keeps its type. All other fields use the value's `Display` text.
    fn set_value(&mut self, field: &Field, value: impl Into<Json> + ToString) {
        match self.kind(field) {
            Some(FieldKind::Metadata(key)) => {
                self.set_details(|it| it.set_metadata(key, value.into()));
            }
            Some(kind) => self.set_text(field, kind, &value.to_string()),
            None => {}
        }
    }
}

impl<F: FnMut(&Field, FieldMistake)> Visit for FieldVisitor<'_, F> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if let Some(kind) = self.kind(field) {
            self.set_text(field, kind, value);
        }
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set_value(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set_value(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set_value(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set_value(field, value);
    }

    /// All other types: longer integers, `%value`, and `?value` with its `Debug` text.
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let Some(kind) = self.kind(field) else { return };
        let text = format!("{value:?}");
        let plain = plain_text(&text);
        match (&kind, &plain) {
            // A `None` counts as not recorded.
            (_, Cow::Borrowed("None")) => return,
            (FieldKind::Id(_), Cow::Borrowed(text)) if is_struct(text) => {
                (self.on_mistake)(field, FieldMistake::NamesType);
            }
            _ => {}
        }
        self.set_text(field, kind, &plain);
    }
}
