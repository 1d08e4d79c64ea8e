//! Which spans open a scope, and what their fields say.

use crate::attributes::{Glance, ID, SESSION_ID, USER_ID};
use crate::error::ErrorKind;
use crate::scope::Role;
use crate::session::Id;
use std::borrow::Cow;
use std::fmt;
use tracing::Metadata;
use tracing::field::{Field, Visit};

/// The empty field that tells the spans of `session!` and `user!`, whatever names the application
/// has chosen for its own.
pub(crate) const MACRO_FIELD: &str = "tracing_session";

/// The names of spans and fields that say a session or a user.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    /// Spans of these names say it in their field `id`.
    spans: List,
    fields: List,
    /// Of all names that a field with a role can have.
    glance: Glance,
}

type List = Vec<(Cow<'static, str>, Role)>;

/// What the fields of a callsite say, by their number.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Roles {
    session: u64,
    user: u64,
    /// The field `id` is among them.
    pub(crate) names_id: bool,
}

impl Roles {
    /// Whether spans of the callsite open a scope.
    #[inline]
    pub(crate) fn open(self) -> bool {
        self.session | self.user != 0
    }

    pub(crate) fn have(self, role: Role) -> bool {
        match role {
            Role::Session => self.session != 0,
            Role::User => self.user != 0,
        }
    }

    fn add(&mut self, field: &Field, role: Role) {
        let fields = match role {
            Role::Session => &mut self.session,
            Role::User => &mut self.user,
        };
        *fields |= Self::bit(field);
        self.names_id |= field.name() == ID;
    }

    fn of(self, field: &Field) -> Option<Role> {
        let bit = Self::bit(field);
        if self.session & bit != 0 {
            Some(Role::Session)
        } else if self.user & bit != 0 {
            Some(Role::User)
        } else {
            None
        }
    }

    fn bit(field: &Field) -> u64 {
        1 << field.index().min(Self::LAST)
    }

    /// The bit of all fields from this one on. Nobody has so many, but nothing forbids it.
    const LAST: usize = 63;
}

impl Default for Names {
    fn default() -> Self {
        Self {
            spans: vec![
                ("session".into(), Role::Session),
                ("user".into(), Role::User),
            ],
            fields: vec![
                (SESSION_ID.into(), Role::Session),
                (USER_ID.into(), Role::User),
            ],
            glance: Glance::of(&[ID, SESSION_ID, USER_ID]),
        }
    }
}

impl Names {
    pub(crate) fn set_spans(&mut self, role: Role, names: Vec<Cow<'static, str>>) {
        replace(&mut self.spans, role, names);
    }

    pub(crate) fn set_fields(&mut self, role: Role, names: Vec<Cow<'static, str>>) {
        for name in &names {
            self.glance = self.glance.and(name);
        }
        replace(&mut self.fields, role, names);
    }

    /// Whether spans of this callsite may open a scope: of nearly all that do not, it is seen here.
    #[inline]
    pub(crate) fn may_open(&self, span: &Metadata<'_>) -> bool {
        span.fields()
            .iter()
            .any(|field| self.glance.may_be(field.name()))
    }

    /// What the fields of this callsite say.
    pub(crate) fn roles(&self, span: &Metadata<'_>) -> Roles {
        let mut roles = Roles::default();
        for field in span.fields() {
            if let Some(role) = self.role(span, field.name()) {
                roles.add(&field, role);
            }
        }
        roles
    }

    /// Whether spans of this callsite open a scope.
    pub(crate) fn open(&self, span: &Metadata<'_>) -> bool {
        self.roles(span).open()
    }

    fn role(&self, span: &Metadata<'_>, field: &str) -> Option<Role> {
        if !self.glance.may_be(field) {
            return None;
        }
        role_of(&self.fields, field).or_else(|| match field {
            ID => role_of(&self.spans, span.name()),
            SESSION_ID if is_of_macro(span) => Some(Role::Session),
            USER_ID if is_of_macro(span) => Some(Role::User),
            _ => None,
        })
    }
}

/// A name that is listed for both says a session.
fn role_of(names: &List, name: &str) -> Option<Role> {
    let listed = |(listed, role): &(Cow<'static, str>, Role)| (listed == name).then_some(*role);
    names.iter().find_map(listed)
}

fn replace(list: &mut List, role: Role, names: Vec<Cow<'static, str>>) {
    list.retain(|(_, listed)| *listed != role);
    list.extend(names.into_iter().map(|name| (name, role)));
    list.sort_by_key(|(_, role)| *role);
}

fn is_of_macro(span: &Metadata<'_>) -> bool {
    span.fields()
        .iter()
        .next()
        .is_some_and(|field| field.name() == MACRO_FIELD)
}

/// What the fields of one span, or of one `record`, say.
pub(crate) struct Said<'a, F> {
    pub(crate) names: &'a Names,
    pub(crate) span: &'static Metadata<'static>,
    pub(crate) roles: Roles,
    /// Called for each field that has a role, with its id or why it is none.
    pub(crate) each: F,
}

impl<F: FnMut(&Field, Role, Result<Id, ErrorKind>)> Said<'_, F> {
    fn role(&self, field: &Field) -> Option<Role> {
        if field.index() < Roles::LAST {
            self.roles.of(field)
        } else {
            self.names.role(self.span, field.name())
        }
    }
}

/// Every way to write an id makes the same string of it.
impl<F: FnMut(&Field, Role, Result<Id, ErrorKind>)> Visit for Said<'_, F> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if let Some(role) = self.role(field) {
            (self.each)(field, role, Id::new(value));
        }
    }

    /// Every other type comes here, formatted as it displays: integers, `%value`, and `?value`,
    /// which puts a string in quotes.
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if let Some(role) = self.role(field) {
            let text = format!("{value:?}");
            (self.each)(field, role, Id::new(&unquoted(&text).unwrap_or(text)));
        }
    }
}

/// The string that `text` is the `Debug` form of.
pub(crate) fn unquoted(text: &str) -> Option<String> {
    let inside = text.strip_prefix('"')?.strip_suffix('"')?;
    let mut plain = String::with_capacity(inside.len());
    let mut chars = inside.chars();
    while let Some(c) = chars.next() {
        plain.push(match c {
            '"' => return None,
            '\\' => match chars.next()? {
                't' => '\t',
                'r' => '\r',
                'n' => '\n',
                '0' => '\0',
                'u' => {
                    let code = chars.as_str().strip_prefix('{')?.split_once('}')?.0;
                    chars.nth(code.len() + 1);
                    char::from_u32(u32::from_str_radix(code, 16).ok()?)?
                }
                c @ ('"' | '\'' | '\\') => c,
                _ => return None,
            },
            c => c,
        });
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unquoted_is_the_inverse_of_debug() {
        for text in [
            "",
            "chat-42",
            "a \"b\" \\ 'c'",
            "\u{7f}\u{0}\n\t\r",
            "é😀\u{200b}",
            "\\u{41}",
        ] {
            assert_eq!(unquoted(&format!("{text:?}")).as_deref(), Some(text));
        }
    }

    #[test]
    fn what_is_not_one_debug_string_stays_as_it_is() {
        for text in [
            "chat-42",
            "\"",
            "\"a\" or \"b\"",
            "\"open\\\"",
            "\"\\u{}\"",
            "\"\\x41\"",
        ] {
            assert_eq!(unquoted(text), None, "{text}");
        }
    }
}
