//! The compiler's messages for mistakes contain our own texts, which say what to write.
//!
//! The files in `compile_errors/` make the mistakes. A comment `//~ text` below a line of code requires this text in the
//! compiler's messages for the line. Lines without such a comment must compile without a message. The rest of the
//! messages isn't compared, because it changes with the compiler.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::{env, fs};

use serde_json::Value;

const MARK: &str = "//~ ";

#[test]
fn a_value_of_the_wrong_type() {
    compare("types.rs");
}

#[test]
fn wrong_arguments_of_the_macros() {
    compare("macros.rs");
}

#[test]
fn right_arguments_of_the_macros() {
    compare("accepted.rs");
}

#[test]
fn a_missing_feature() {
    compare("features.rs");
}

#[test]
fn an_unused_value() {
    compare("unused.rs");
}

#[test]
fn every_file_is_compared() {
    let files = fs::read_dir(folder()).unwrap();
    let names: BTreeSet<_> = files.map(|it| it.unwrap().file_name()).collect();
    let compared = [
        "accepted.rs",
        "features.rs",
        "macros.rs",
        "types.rs",
        "unused.rs",
    ];
    assert!(names.iter().eq(&compared), "{names:?}");
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/published/compile_errors")
}

fn compare(name: &str) {
    let file = folder().join(name);
    let source = fs::read_to_string(&file).unwrap();
    let expected = expected(&source);
    let printed = compile(&file).unwrap();
    let mut differences = Vec::new();
    for (line, texts) in &expected {
        let Some(printed) = printed.get(line) else {
            differences.push(format!(
                "{name}:{line} compiles without an error or a warning"
            ));
            continue;
        };
        let missing = texts.iter().filter(|text| !printed.contains(*text));
        differences.extend(missing.map(|text| format!("{name}:{line} lacks {text:?}:\n{printed}")));
    }
    for (line, text) in printed
        .iter()
        .filter(|(line, _)| !expected.contains_key(line))
    {
        differences.push(format!("{name}:{line} should compile:\n{text}"));
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// The texts in the comments, by the line that they are below.
fn expected(source: &str) -> BTreeMap<u64, Vec<&str>> {
    let mut texts = BTreeMap::<_, Vec<_>>::new();
    let mut line_of_code = 0;
    for (number, line) in (1..).zip(source.lines()) {
        match line.trim().strip_prefix(MARK) {
            Some(text) => texts.entry(line_of_code).or_default().push(text),
            None => line_of_code = number,
        }
    }
    texts
}

/// What the compiler prints, by line.
fn compile(file: &Path) -> Result<BTreeMap<u64, String>, Box<dyn Error>> {
    let library = LIBRARY.as_path();
    let dependencies = library.parent().ok_or("no folder")?;
    let output = Command::new(env::var_os("RUSTC").unwrap_or("rustc".into()))
        .args(["--edition=2024", "--crate-type=lib", "--emit=metadata"])
        .arg("--error-format=json")
        .arg(format!("--extern=tracing_session={}", library.display()))
        .arg(format!("-Ldependency={}", dependencies.display()))
        .args(["--out-dir", env!("CARGO_TARGET_TMPDIR")])
        .arg(file)
        .output()?;
    let mut printed = BTreeMap::<_, String>::new();
    for diagnostic in String::from_utf8(output.stderr)?.lines() {
        let diagnostic: Value = serde_json::from_str(diagnostic)?;
        let rendered = diagnostic["rendered"].as_str().ok_or("no text")?;
        // One that concerns no line is a summary.
        if let Some(line) = line(&diagnostic) {
            *printed.entry(line).or_default() += rendered;
        }
    }
    Ok(printed)
}

/// The line of the file. A macro's own line is not meant.
fn line(diagnostic: &Value) -> Option<u64> {
    let spans = diagnostic["spans"].as_array()?;
    let mut span = spans.iter().find(|span| span["is_primary"] == true)?;
    while span["expansion"].is_object() {
        span = &span["expansion"]["span"];
    }
    span["line_start"].as_u64()
}

/// The library without features.
static LIBRARY: LazyLock<PathBuf> = LazyLock::new(|| library().unwrap());

fn library() -> Result<PathBuf, Box<dyn Error>> {
    let output = Command::new(env!("CARGO"))
        .args(["check", "--lib", "--locked", "--message-format=json"])
        // Where all else is built, as some of our dependencies are there already.
        .arg("--target-dir")
        .arg(Path::new(env!("CARGO_TARGET_TMPDIR")).join(".."))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()?;
    let problem = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{problem}");
    for line in String::from_utf8(output.stdout)?.lines() {
        let message: Value = serde_json::from_str(line)?;
        if message["target"]["name"] == "tracing_session" {
            if let Some(file) = message["filenames"][0].as_str() {
                return Ok(file.into());
            }
        }
    }
    Err("cargo names no file of the library".into())
}
