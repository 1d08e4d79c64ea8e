//! Reads ids and tags from texts that fields and attributes contain, in whatever way they were written.

use crate::error::ErrorKind;
use crate::session::details::tag;
use crate::session::id::Id;
use opentelemetry::StringValue;
use std::borrow::Cow;

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

/// The text without the quotes that the OpenTelemetry layer leaves around a field recorded with `?`.
pub(crate) fn without_quotes<'a>(text: impl Into<Cow<'a, str>>) -> Cow<'a, str> {
    let text = text.into();
    unquoted(&text).map_or(text, Cow::Owned)
}

/// Texts that other languages and formats write for a missing value.
const PLACEHOLDERS: [&str; 6] = ["None", "null", "undefined", "nil", "NaN", "[object Object]"];

/// Whether `text` stands for a missing value.
pub(crate) fn is_placeholder(text: &str) -> bool {
    // Nearly every id starts with another letter.
    let may_be =
        |first: &u8| matches!(first, b'N' | b'n' | b'u' | b'[') || !first.is_ascii_graphic();
    text.as_bytes().first().is_some_and(may_be) && PLACEHOLDERS.contains(&text.trim())
}

/// The id that an attribute with this text contains, if it contains one.
pub(crate) fn id_text(text: &str) -> Option<Cow<'_, str>> {
    fn id(text: &str) -> Option<&str> {
        Id::check(text).ok().filter(|id| !is_placeholder(id))
    }
    match without_quotes(text) {
        Cow::Borrowed(text) => id(text).map(Cow::Borrowed),
        Cow::Owned(text) => id(&text).map(|id| id.to_owned().into()),
    }
}

/// Whether an attribute with this text contains this id.
pub(crate) fn is_id(text: &str, id: &str) -> bool {
    text == id || id_text(text).is_some_and(|text| text == id)
}

/// Whether an attribute with this text contains a value that is no id: neither blank nor a placeholder.
pub(crate) fn is_invalid(text: &str) -> bool {
    !matches!(
        Id::check(&without_quotes(text)),
        Ok(_) | Err(ErrorKind::Blank)
    )
}

/// The tags that a field contains: a list in the form of `?` or JSON, or text with commas.
pub(crate) fn tags(text: &str) -> Result<Vec<StringValue>, ErrorKind> {
    let text = text.trim();
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
    let tags = elements.map(str::trim).map(|element| {
        let plain = unquoted(element).or_else(|| serde_json::from_str(element).ok());
        tag(plain.as_deref().unwrap_or(element))
    });
    tags.collect()
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
