//! What users may rely on is listed in `docs/public-api.txt`, so that a review sees every change of it.

use std::collections::BTreeSet;
use std::error::Error;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, io};

use public_api::Builder;
use serde_json::Value;

/// What rustdoc of Rust 1.95 writes and the `public-api` of `Cargo.toml` reads. They change together.
const FORMAT: u64 = 57;

const NIGHTLY_RUSTDOC: &str = "tests/published/nightly_rustdoc";

const UPDATE: &str = "UPDATE_PUBLIC_API=1 cargo test --test published";

#[test]
#[cfg_attr(not(unix), ignore = "needs a shell")]
fn what_is_public_is_what_the_list_says() -> Result<(), Box<dyn Error>> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let documentation = documentation(repository)?;
    let format = format_of(&documentation)?;
    if format != FORMAT {
        return not_compared(format);
    }

    let public = Builder::from_rustdoc_json(documentation)
        .omit_auto_trait_impls(true)
        .omit_blanket_impls(true)
        .build()?;
    let found =
        format!("# All that is public, with all features. Written by `{UPDATE}`.\n{public}");
    let list = repository.join("docs/public-api.txt");
    if env::var_os("UPDATE_PUBLIC_API").is_some() {
        return Ok(fs::write(list, found)?);
    }
    let listed = fs::read_to_string(list)?;
    assert!(
        listed == found,
        "not what docs/public-api.txt says:\n{}If that is meant, `{UPDATE}` writes it anew.",
        changes(&listed, &found),
    );
    Ok(())
}

/// The JSON that rustdoc writes of this crate.
fn documentation(repository: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let temporary = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let target = temporary.join("public_api");
    let built = Command::new(env!("CARGO"))
        .args(["rustdoc", "--locked", "--quiet", "--lib", "--all-features"])
        .arg("--target-dir")
        .arg(&target)
        .args(["--", "-Zunstable-options", "--output-format=json"])
        .env("RUSTDOC", repository.join(NIGHTLY_RUSTDOC))
        // Where all else is built, as our dependencies are there already.
        .env("CARGO_BUILD_BUILD_DIR", temporary.join(".."))
        .current_dir(repository)
        .status()?;
    assert!(built.success(), "cargo rustdoc: {built}");
    Ok(target.join("doc/tracing_session.json"))
}

fn format_of(documentation: &Path) -> Result<u64, Box<dyn Error>> {
    let json: Value = serde_json::from_slice(&fs::read(documentation)?)?;
    json["format_version"]
        .as_u64()
        .ok_or_else(|| "no format_version".into())
}

/// On another Rust people may go on. CI may not.
fn not_compared(format: u64) -> Result<(), Box<dyn Error>> {
    let why = format!(
        "NOT CHECKED: what is public. This rustdoc writes format {format}, and what is read here \
         is {FORMAT}, of Rust 1.95.\n"
    );
    if env::var("CI").is_ok_and(|ci| ci == "true") {
        return Err(why.into());
    }
    // Past the capture of what tests print.
    Ok(io::stderr().write_all(why.as_bytes())?)
}

fn changes(listed: &str, found: &str) -> String {
    let listed: BTreeSet<_> = listed.lines().collect();
    let found: BTreeSet<_> = found.lines().collect();
    let removed = listed.difference(&found).map(|line| format!("- {line}\n"));
    let added = found.difference(&listed).map(|line| format!("+ {line}\n"));
    removed.chain(added).collect()
}
