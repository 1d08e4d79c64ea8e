//! `Id`: the one type of a valid id.

use crate::base::error::{Error, ErrorKind};
#[cfg(feature = "hash")]
use crate::base::sync::OnceLock;
use std::borrow::Cow;
use std::fmt::{self, Display};
use std::sync::Arc;
use uuid::Uuid;

/// A valid id: see [`Session::new`](crate::Session::new). The crate keeps ids in this type only.
#[derive(Clone)]
pub(crate) struct Id {
    text: Arc<str>,
    /// Computed when a provider first exports the id, and shared by all clones. The cache keeps the provider's key
    /// alive and compares it by address, so no other key can get the same address.
    #[cfg(feature = "hash")]
    hash: Arc<OnceLock<(Arc<Mac>, Arc<str>)>>,
    /// The id was set implicitly: it is the id of the default session, comes from headers, or from a span that is an
    /// opener only because of its default name. Clones keep the flag, and `==` ignores it.
    is_replaceable: bool,
}

impl Id {
    const MAX_BYTES: usize = 1024;

    pub(crate) fn new(text: &str) -> Result<Self, ErrorKind> {
        Self::check(text).map(Self::unchecked)
    }

    /// Checks an id from a field, a header, a client or the environment, where placeholders for missing values occur.
    #[inline]
    pub(crate) fn received(text: &str) -> Result<Self, ErrorKind> {
        match is_placeholder(text) {
            true => Err(ErrorKind::Placeholder),
            false => Self::new(text),
        }
    }

    pub(crate) fn display(id: impl Display) -> Result<Self, Error> {
        Ok(Self::new(&id.to_string())?)
    }

    /// Generates an id. Ids sort by creation time.
    pub(crate) fn generate() -> Self {
        let mut text = Uuid::encode_buffer();
        Self::unchecked(Uuid::now_v7().as_hyphenated().encode_lower(&mut text))
    }

    fn unchecked(text: &str) -> Self {
        Self {
            text: text.into(),
            #[cfg(feature = "hash")]
            hash: Arc::default(),
            is_replaceable: false,
        }
    }

    /// Returns the trimmed text if it is a valid id.
    pub(crate) fn check(text: &str) -> Result<&str, ErrorKind> {
        let text = trimmed(text);
        if text.is_empty() {
            Err(ErrorKind::Blank)
        } else if text.len() > Self::MAX_BYTES {
            Err(ErrorKind::TooLong)
        } else if has_control_character(text) {
            Err(ErrorKind::ControlCharacter)
        } else {
            Ok(text)
        }
    }

    /// Marks the id as set implicitly, so that another implicit id may replace it.
    pub(crate) fn replaceable(mut self) -> Self {
        self.is_replaceable = true;
        self
    }

    pub(crate) fn is_replaceable(&self) -> bool {
        self.is_replaceable
    }

    /// Whether both are clones of one id.
    pub(crate) fn is_clone_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.text, &other.text)
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// Shares the text, so that an exported attribute copies no bytes.
    pub(crate) fn shared(&self) -> Arc<str> {
        self.text.clone()
    }
}

#[cfg(feature = "hash")]
pub(crate) type Mac = hmac::Hmac<sha2::Sha256>;

#[cfg(feature = "hash")]
impl Id {
    /// Hashes the id with this key. The id caches the hash for the first key only.
    #[inline]
    pub(crate) fn hash(&self, key: &Arc<Mac>) -> Arc<str> {
        let first = || (key.clone(), hash(key, self.as_str()));
        match self.hash.get_or_init(first) {
            (first, hash) if Arc::ptr_eq(first, key) => hash.clone(),
            _ => hash(key, self.as_str()),
        }
    }
}

#[cfg(feature = "hash")]
pub(crate) fn hash(key: &Arc<Mac>, text: &str) -> Arc<str> {
    use hmac::Mac as _;

    let mut mac = Mac::clone(key);
    mac.update(text.as_bytes());
    let digit = |nibble: u8| char::from(b"0123456789abcdef"[usize::from(nibble)]);
    let digits = mac.finalize().into_bytes();
    let digits = digits.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(digit).collect::<String>().into()
}

impl PartialEq for Id {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Id {}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<hidden>")
    }
}

/// The text without white space and invisible characters at both ends. Comparing two bytes takes fewer instructions than
/// decoding the characters there.
#[inline]
pub(crate) fn trimmed(text: &str) -> &str {
    #[cold]
    fn trim(text: &str) -> &str {
        text.trim_matches(|c: char| c.is_whitespace() || is_invisible(c))
    }
    match text.as_bytes() {
        [b'!'..=b'~'] | [b'!'..=b'~', .., b'!'..=b'~'] => text,
        _ => trim(text),
    }
}

/// Whether this is a bidirectional control character or a byte-order mark. They change only how the text around them
/// looks, so two ids could look equal, or one id could look like another.
fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}'
    ) || matches!(c, '\u{2066}'..='\u{2069}' | '\u{feff}')
}

fn has_control_character(text: &str) -> bool {
    // Nearly every id is ASCII. A loop without an early exit compares many bytes at once.
    let printable = |all, byte: &u8| all & matches!(byte, b' '..=b'~');
    let is_refused = |c: char| c.is_control() || is_invisible(c);
    !text.as_bytes().iter().fold(true, printable) && text.chars().any(is_refused)
}

/// The plain text of a `Debug` form, which a field recorded with `?` contains: the value inside `Some(..)`, and a string
/// without its quotes. It is borrowed if there are no quotes, so `Cow::Borrowed("None")` is an `Option` without a value.
pub(crate) fn plain_text<'a>(text: &'a str) -> Cow<'a, str> {
    let inside = |text: &'a str| text.strip_prefix("Some(")?.strip_suffix(')');
    let mut text = text;
    while let Some(value) = inside(text) {
        text = value;
    }
    unquoted(text).map_or(Cow::Borrowed(text), Cow::Owned)
}

/// Whether a plain text is the `Debug` form of a struct or tuple struct, such as `SessionId("x")` or `User { id: 7 }`.
pub(crate) fn is_struct(text: &str) -> bool {
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let has_fields = |start| text.trim_start_matches(is_of_name).starts_with(start);
    text.starts_with(|c: char| c.is_ascii_uppercase())
        && (text.ends_with(')') && has_fields("(") || text.ends_with('}') && has_fields(" {"))
}

/// Parses the `Debug` form of a string.
fn unquoted(text: &str) -> Option<String> {
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

/// Texts that other languages and formats write for a missing value.
const PLACEHOLDERS: [&str; 6] = ["None", "null", "undefined", "nil", "NaN", "[object Object]"];

/// Whether `text` is a placeholder for a missing value.
pub(crate) fn is_placeholder(text: &str) -> bool {
    // Nearly every id starts with another letter.
    let may_be =
        |first: &u8| matches!(first, b'N' | b'n' | b'u' | b'[') || !first.is_ascii_graphic();
    text.as_bytes().first().is_some_and(may_be) && PLACEHOLDERS.contains(&trimmed(text))
}

/// Whether an attribute with this text contains an id.
pub(crate) fn has_id(text: &str) -> bool {
    has_id_that(text, |_| true)
}

/// Whether an attribute with this text contains this id.
pub(crate) fn is_id(text: &str, id: &str) -> bool {
    text == id || has_id_that(text, |text| text == id)
}

fn has_id_that(text: &str, condition: impl FnOnce(&str) -> bool) -> bool {
    Id::check(&plain_text(text)).is_ok_and(|id| !is_placeholder(id) && condition(id))
}

/// Whether an attribute with this text contains an invalid id. Blank texts count as missing, not as invalid.
pub(crate) fn is_invalid(text: &str) -> bool {
    Id::check(&plain_text(text)).is_err_and(|error| error != ErrorKind::Blank)
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
    fn plain_text_is_inside_some_and_without_quotes() {
        let forms = [
            (format!("{:?}", Some(Some("a \"b\""))), "a \"b\""),
            (format!("{:?}", Some(42)), "42"),
            (format!("{:?}", Some("Some(1)")), "Some(1)"),
            ("Some(".repeat(10_000) + &")".repeat(10_000), ""),
            ("Some(1".into(), "Some(1"),
            ("Something(1)".into(), "Something(1)"),
            ("\"a\" or \"b\"".into(), "\"a\" or \"b\""),
        ];
        for (form, plain) in forms {
            assert_eq!(plain_text(&form), plain);
        }
        let is_none = |text| matches!(plain_text(text), Cow::Borrowed("None"));
        assert!(is_none("None") && is_none("Some(None)"));
        assert!(!is_none("\"None\"") && !is_none("Some(\"None\")"));
    }

    #[test]
    fn text_that_is_not_one_debug_string_stays_unchanged() {
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
