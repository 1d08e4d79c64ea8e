//! Which spans open a scope, and what their fields say.

use crate::base::error::ErrorKind;
use crate::export::{IdFields, OpenerFields, is_detail};
use crate::session::IdKind;
use crate::session::details::{Details, Part, Parts, tags};
use crate::session::id::{is_placeholder, unquoted};
use crate::session::keys::{ID, KeyFilter, METADATA_FIELD, SESSION_ID, TAGS_FIELD, USER_ID};
use crate::session::{Id, Session};
use opentelemetry::StringValue;
use serde_json::Value as Json;
use std::borrow::Cow;
use std::fmt;
use tracing::Metadata;
use tracing::field::{Field, Visit};

/// The empty field that tells the spans of `session!` and `user!`, whatever names the application
/// has chosen for its own.
pub(crate) const MACRO_FIELD: &str = "tracing_session";

/// The name that makes a span an opener by default, with a field `id`. It is the one *implicit* way to set
/// a session: other code may call something else a session.
const IMPLICIT_NAME: &str = "session";

/// The names of spans and fields that set a session or a user.
pub(crate) struct Names {
    /// Names of spans whose field `id` sets it, added by the application.
    spans: List,
    /// Names of fields, added by the application.
    fields: List,
    /// A span named [`IMPLICIT_NAME`], and the fields `session.id` and `user.id`.
    has_defaults: bool,
    /// The callsites that may open a scope. `None`: all.
    filter: Option<Filter>,
    /// Of all names that a field with a role can have.
    key_filter: KeyFilter,
}

type List = Vec<(Cow<'static, str>, IdKind)>;

type Filter = Box<dyn Fn(&Metadata<'_>) -> bool + Send + Sync>;

/// What the fields of a callsite say, by their number.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CallsiteFields {
    session: u64,
    user: u64,
    /// Metadata and tags, on spans that open a scope.
    details: u64,
    pub(crate) ids: IdFields,
    /// The field `id` sets a session only because the span has the [`IMPLICIT_NAME`].
    pub(crate) is_implicit: bool,
}

impl CallsiteFields {
    /// Whether spans of the callsite open a scope.
    #[inline]
    pub(crate) fn is_opener(self) -> bool {
        self.session | self.user != 0
    }

    /// The values that these fields may set, now or later.
    fn declared(self) -> Parts {
        let mut declared = Parts::default();
        if self.session != 0 {
            declared = declared.with(Part::Session);
        }
        if self.user != 0 {
            declared = declared.with(Part::User);
        }
        if self.details != 0 {
            declared = declared.with(Part::Metadata).with(Part::Tags);
        }
        declared
    }

    /// The fields of openers of this callsite.
    pub(crate) fn opener_fields(self, span: &'static Metadata<'static>) -> OpenerFields {
        OpenerFields {
            declared: self.declared(),
            ids: self.ids,
            has_details: self.details != 0,
            metadata: Some(span),
        }
    }

    fn add(&mut self, field: &Field, role: IdKind) {
        let fields = match role {
            IdKind::Session => &mut self.session,
            IdKind::User => &mut self.user,
        };
        *fields |= Self::bit(field);
        if field.name() == role.key() {
            self.ids.with_own_key = self.ids.with_own_key.with(role.part());
        } else if field.name() == ID {
            self.ids.id = Some(role);
        }
    }

    fn of(self, field: &Field) -> Option<FieldMeaning> {
        let bit = Self::bit(field);
        if self.session & bit != 0 {
            Some(FieldMeaning::Id(IdKind::Session))
        } else if self.user & bit != 0 {
            Some(FieldMeaning::Id(IdKind::User))
        } else if self.details & bit != 0 {
            detail(field.name())
        } else {
            None
        }
    }

    fn bit(field: &Field) -> u64 {
        1 << field.index().min(Self::LAST_TICKET)
    }

    /// The bit of all fields from this one on. Nobody has so many, but nothing forbids it.
    const LAST_TICKET: usize = 63;
}

/// What a field of a span that opens a scope says.
#[derive(Clone, Copy)]
enum FieldMeaning {
    Id(IdKind),
    /// With this key.
    Metadata(&'static str),
    Tags,
}

fn detail(field: &'static str) -> Option<FieldMeaning> {
    match field.strip_prefix(METADATA_FIELD) {
        Some("") => None,
        Some(key) => Some(FieldMeaning::Metadata(key)),
        None => (field == TAGS_FIELD).then_some(FieldMeaning::Tags),
    }
}

impl Default for Names {
    fn default() -> Self {
        Self {
            spans: Vec::new(),
            fields: Vec::new(),
            has_defaults: true,
            filter: None,
            // Without the defaults, the macros still use these.
            key_filter: KeyFilter::of(&[ID, SESSION_ID, USER_ID]),
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
    pub(crate) fn add_span(&mut self, role: IdKind, name: Cow<'static, str>) {
        add(&mut self.spans, role, name);
    }

    pub(crate) fn add_field(&mut self, role: IdKind, name: Cow<'static, str>) {
        self.key_filter = self.key_filter.and(&name);
        add(&mut self.fields, role, name);
    }

    pub(crate) fn drop_defaults(&mut self) {
        self.has_defaults = false;
    }

    pub(crate) fn set_filter(&mut self, filter: Filter) {
        self.filter = Some(filter);
    }

    /// Whether spans of this callsite may open a scope: of nearly all that do not, it is seen here.
    #[inline]
    pub(crate) fn may_open(&self, span: &Metadata<'_>) -> bool {
        span.fields()
            .iter()
            .any(|field| self.key_filter.may_match(field.name()))
    }

    /// What the fields of this callsite set.
    pub(crate) fn fields_of(&self, span: &Metadata<'_>) -> CallsiteFields {
        let mut fields = CallsiteFields::default();
        let is_of_macro = is_of_macro(span);
        for field in span.fields() {
            let name = field.name();
            if let Some(role) = self.role(span, name, is_of_macro) {
                fields.add(&field, role);
            } else if is_detail(name) {
                fields.details |= CallsiteFields::bit(&field);
            }
        }
        fields.is_implicit = fields.ids.id == Some(IdKind::Session)
            && role_of(&self.spans, span.name()).is_none()
            && role_of(&self.fields, ID).is_none();
        if !fields.is_opener() {
            fields.details = 0;
        } else if !is_of_macro
            && self
                .filter
                .as_ref()
                .is_some_and(|lets_open| !lets_open(span))
        {
            fields = CallsiteFields::default();
        }
        fields
    }

    /// Whether spans of this callsite open a scope.
    pub(crate) fn is_opener(&self, span: &Metadata<'_>) -> bool {
        self.fields_of(span).is_opener()
    }

    /// What a field sets.
    #[inline(always)]
    fn role(&self, span: &Metadata<'_>, field: &str, is_of_macro: bool) -> Option<IdKind> {
        if !self.key_filter.may_match(field) {
            return None;
        }
        let is_default = self.has_defaults || is_of_macro;
        let added = role_of(&self.fields, field);
        match field {
            _ if added.is_some() => added,
            // The macros have set the id with other fields.
            ID if is_of_macro => None,
            ID if self.has_defaults && span.name() == IMPLICIT_NAME => {
                role_of(&self.spans, IMPLICIT_NAME).or(Some(IdKind::Session))
            }
            ID => role_of(&self.spans, span.name()),
            SESSION_ID if is_default => Some(IdKind::Session),
            USER_ID if is_default => Some(IdKind::User),
            _ => None,
        }
    }
}

/// A name that was added for both sets a session.
#[inline]
fn role_of(names: &List, name: &str) -> Option<IdKind> {
    let listed = |(listed, role): &(Cow<'static, str>, IdKind)| (listed == name).then_some(*role);
    names.iter().find_map(listed)
}

fn add(list: &mut List, role: IdKind, name: Cow<'static, str>) {
    list.push((name, role));
    list.sort_by_key(|(_, role)| *role);
}

pub(crate) fn is_of_macro(span: &Metadata<'_>) -> bool {
    span.fields()
        .iter()
        .next()
        .is_some_and(|field| field.name() == MACRO_FIELD)
}

/// Reads the fields of one span, or of one `record`.
pub(crate) struct FieldVisitor<'a, F> {
    pub(crate) names: &'a Names,
    pub(crate) span: &'static Metadata<'static>,
    pub(crate) fields: CallsiteFields,
    /// Called for each field that has a role, with what it says or why that is refused.
    pub(crate) each: F,
}

/// What one field says.
pub(crate) enum ParsedField {
    Id(IdKind, Id),
    Detail(Detail),
}

impl ParsedField {
    pub(crate) fn set(self, session: &mut Session) {
        match self {
            Self::Id(IdKind::Session, id) => {
                if !id.is_replaceable() || session.id.as_ref().is_none_or(Id::is_replaceable) {
                    session.id = Some(id);
                }
            }
            Self::Id(IdKind::User, id) => session.user_id = Some(id),
            Self::Detail(detail) => Details::change(&mut session.details, |it| detail.say(it)),
        }
    }
}

pub(crate) enum Detail {
    /// With its key.
    Metadata(&'static str, Json),
    Tags(Vec<StringValue>),
}

impl Detail {
    fn say(self, details: &mut Details) {
        match self {
            Self::Metadata(key, value) => details.set_metadata(key, value),
            Self::Tags(tags) => details.add_tags(tags),
        }
    }
}

impl<F: FnMut(&Field, Result<ParsedField, ErrorKind>)> FieldVisitor<'_, F> {
    fn role(&self, field: &Field) -> Option<FieldMeaning> {
        if field.index() < CallsiteFields::LAST_TICKET {
            return self.fields.of(field);
        }
        let role = match field.name() {
            ID => self.fields.ids.id,
            name => self.names.role(self.span, name, is_of_macro(self.span)),
        };
        role.map(FieldMeaning::Id).or_else(|| detail(field.name()))
    }

    /// Whether the field sets a session only because its span has the implicit name.
    fn is_implicit(&self, field: &Field) -> bool {
        self.fields.is_implicit && field.name() == ID
    }

    /// Metadata keeps its type. Everything else is read as the text that it displays as.
    fn typed(&mut self, field: &Field, value: impl Into<Json> + ToString) {
        match self.role(field) {
            Some(FieldMeaning::Metadata(key)) => {
                (self.each)(
                    field,
                    Ok(ParsedField::Detail(Detail::Metadata(key, value.into()))),
                );
            }
            Some(role) => self.text(field, role, &value.to_string()),
            None => {}
        }
    }

    fn text(&mut self, field: &Field, role: FieldMeaning, text: &str) {
        let heard = match role {
            FieldMeaning::Id(_) if is_placeholder(text) => Err(ErrorKind::Placeholder),
            FieldMeaning::Id(role) => Id::new(text).map(|id| match self.is_implicit(field) {
                true => ParsedField::Id(role, id.replaceable()),
                false => ParsedField::Id(role, id),
            }),
            FieldMeaning::Metadata(key) => {
                Ok(ParsedField::Detail(Detail::Metadata(key, text.into())))
            }
            FieldMeaning::Tags => tags(text).map(|tags| ParsedField::Detail(Detail::Tags(tags))),
        };
        (self.each)(field, heard);
    }
}

/// Every way to write an id makes the same string of it.
impl<F: FnMut(&Field, Result<ParsedField, ErrorKind>)> Visit for FieldVisitor<'_, F> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if let Some(role) = self.role(field) {
            self.text(field, role, value);
        }
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.typed(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.typed(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.typed(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.typed(field, value);
    }

    /// Every other type comes here, formatted as it displays: longer integers, `%value`, and
    /// `?value`, which puts a string in quotes.
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if let Some(role) = self.role(field) {
            let text = format!("{value:?}");
            self.text(field, role, &unquoted(&text).unwrap_or(text));
        }
    }
}
