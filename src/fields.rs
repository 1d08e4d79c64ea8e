//! Which spans open a scope, and what their fields say.

use crate::attributes::{ID, Lengths, SESSION_ID, USER_ID};
use crate::error::ErrorKind;
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
    session_spans: List,
    session_fields: List,
    user_spans: List,
    user_fields: List,
    /// Of all names that a field with a role can have.
    lengths: Lengths,
}

type List = Vec<Cow<'static, str>>;

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Role {
    Session,
    User,
}

impl Default for Names {
    fn default() -> Self {
        Self {
            session_spans: vec!["session".into()],
            session_fields: vec![SESSION_ID.into()],
            user_spans: vec!["user".into()],
            user_fields: vec![USER_ID.into()],
            lengths: Lengths::of(&[ID, SESSION_ID, USER_ID]),
        }
    }
}

impl Names {
    pub(crate) fn set_spans(&mut self, role: Role, names: List) {
        match role {
            Role::Session => self.session_spans = names,
            Role::User => self.user_spans = names,
        }
    }

    pub(crate) fn set_fields(&mut self, role: Role, names: List) {
        for name in &names {
            self.lengths = self.lengths.and(name);
        }
        match role {
            Role::Session => self.session_fields = names,
            Role::User => self.user_fields = names,
        }
    }

    /// Whether spans of this callsite open a scope.
    #[inline]
    pub(crate) fn open(&self, span: &Metadata<'_>) -> bool {
        span.fields()
            .iter()
            .any(|field| self.role(span, field.name()).is_some())
    }

    /// What a field of a span holds, if it is one of ours.
    #[inline]
    pub(crate) fn role(&self, span: &Metadata<'_>, field: &str) -> Option<Role> {
        if self.lengths.may_be(field) {
            self.look_up(span, field)
        } else {
            None
        }
    }

    #[cold]
    fn look_up(&self, span: &Metadata<'_>, field: &str) -> Option<Role> {
        if is_in(&self.session_fields, field) {
            return Some(Role::Session);
        }
        if is_in(&self.user_fields, field) {
            return Some(Role::User);
        }
        match field {
            ID if is_in(&self.session_spans, span.name()) => Some(Role::Session),
            ID if is_in(&self.user_spans, span.name()) => Some(Role::User),
            SESSION_ID if is_of_macro(span) => Some(Role::Session),
            USER_ID if is_of_macro(span) => Some(Role::User),
            _ => None,
        }
    }
}

fn is_in(names: &[Cow<'static, str>], name: &str) -> bool {
    names.iter().any(|listed| listed == name)
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
    /// Called for each field that has a role, with its id or why it is none.
    pub(crate) each: F,
}

impl<F: FnMut(&Field, Role, Result<Id, ErrorKind>)> Said<'_, F> {
    fn role(&self, field: &Field) -> Option<Role> {
        self.names.role(self.span, field.name())
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
