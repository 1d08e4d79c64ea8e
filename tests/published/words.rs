//! The texts that users read name the actor and the thing, without the phrases that took new readers two readings.

use crate::layers::files;
use std::fs;
use std::path::{Path, PathBuf};

/// Found as whole words, in any case, also across a line break.
const FORBIDDEN: [&str; 16] = [
    "alike",
    "all the same",
    "as ever",
    "besides",
    "in force",
    "is said",
    "nobody",
    "one's own",
    "say a session",
    "say the session",
    "says a session",
    "says the session",
    "stands",
    "what is said",
    "what says",
    "whoever",
];

/// The pages, and the sources with their documentation, errors and warnings.
fn texts() -> Vec<PathBuf> {
    let pages = [
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "README.md",
        "SECURITY.md",
        "benches/README.md",
    ];
    let mut texts: Vec<_> = pages.into_iter().map(PathBuf::from).collect();
    for (folder, extension) in [("docs", "md"), ("src", "md"), ("src", "rs")] {
        texts.extend(files(Path::new(folder), extension));
    }
    assert!(texts.len() > 80, "too few: {texts:?}");
    texts
}

#[test]
fn texts_have_none_of_the_forbidden_phrases() {
    let found: Vec<_> = texts()
        .into_iter()
        .flat_map(|file| {
            let text = fs::read_to_string(&file).unwrap();
            let phrases = forbidden(&text).into_iter();
            phrases.map(move |phrase| format!("{}: {phrase}", file.display()))
        })
        .collect();
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn forbidden_phrase_is_found_across_lines_and_not_inside_a_word() {
    let text = "The session\n/// is in\n/// force. \"Whoever \\\n calls\"";
    assert_eq!(forbidden(text), ["in force", "whoever"]);
    assert!(forbidden("It understands standstill.").is_empty());
}

/// The forbidden phrases in a page, or in the comments and literals of a Rust file.
fn forbidden(text: &str) -> Vec<&'static str> {
    let is_part = |c: char| c.is_alphanumeric() || c == '\'';
    let words = text.split(|c| !is_part(c)).filter(|it| !it.is_empty());
    let words: Vec<_> = words.map(str::to_lowercase).collect();
    let text = format!(" {} ", words.join(" "));
    let is_found = |phrase: &&str| text.contains(&format!(" {phrase} "));
    FORBIDDEN.into_iter().filter(is_found).collect()
}
