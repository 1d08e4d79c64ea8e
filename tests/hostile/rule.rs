//! What is asked of every target: what an id is, by the rule of the guide, and where texts end.
#![allow(dead_code, reason = "each of them uses a part of it")]

/// The id that a text stands for, or why it stands for none.
pub(crate) fn id(text: &str) -> Result<&str, &'static str> {
    let id = text.trim_matches(|c: char| c.is_whitespace() || is_invisible(c));
    match id.len() {
        0 => Err("is blank: set a value, or leave it out"),
        1025.. => Err("is longer than 1024 bytes: shorten it, or use a hash of it"),
        _ if id.chars().any(|c| c.is_control() || is_invisible(c)) => {
            Err("contains a control or invisible character: remove it")
        }
        _ => Ok(id),
    }
}

/// Bidirectional control characters, and byte-order marks.
fn is_invisible(c: char) -> bool {
    let bidirectional = "\u{61c}\u{200e}\u{200f}\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}\u{2066}\u{2067}\u{2068}\u{2069}";
    c == '\u{feff}' || bidirectional.contains(c)
}

/// The id that a field, a header, a client or a variable of the environment sets, or why it sets none.
pub(crate) fn received_id(text: &str) -> Result<&str, &'static str> {
    match id(text)? {
        "None" | "null" | "undefined" | "nil" | "NaN" | "[object Object]" => Err(PLACEHOLDER),
        id => Ok(id),
    }
}

pub(crate) const PLACEHOLDER: &str =
    "is a placeholder such as None or null: set the value when it is known";

/// As they stand in a file: with a byte 255, which no text has, between two of them.
pub(crate) fn parts(file: &[u8]) -> impl Iterator<Item = &[u8]> {
    file.split(|byte| *byte == 255)
}

/// The same, as texts.
pub(crate) fn texts(file: &[u8]) -> impl Iterator<Item = String> {
    parts(file).map(|part| String::from_utf8_lossy(part).into_owned())
}
