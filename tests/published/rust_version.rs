//! The Rust that `Cargo.toml` asks for is enough for all that the library stands on.

use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::process::Command;

use serde_json::Value;

#[test]
fn no_dependency_needs_a_newer_rust_than_we_ask_for() -> Result<(), Box<dyn Error>> {
    let metadata = metadata()?;
    let packages = by_id(&metadata["packages"]);
    let root = text(&metadata["resolve"]["root"]);
    let ours = rust_version(packages[root]).ok_or("no rust-version")?;

    let dependencies: Vec<_> = dependencies(root, &by_id(&metadata["resolve"]["nodes"]))
        .into_iter()
        .map(|id| packages[id])
        .collect();
    let is_among_them = |name| dependencies.iter().any(|package| package["name"] == name);
    assert!(is_among_them("reqwest") && !is_among_them("criterion"));

    let newer: Vec<_> = dependencies
        .iter()
        .filter(|package| rust_version(package).is_some_and(|theirs| theirs > ours))
        .map(|package| format!("{}: {}", text(&package["name"]), package["rust_version"]))
        .collect();
    assert!(newer.is_empty(), "{ours:?} is too low for {newer:?}");
    Ok(())
}

fn metadata() -> Result<Value, Box<dyn Error>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--locked"])
        .arg("--all-features")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()?;
    let problem = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{problem}");
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// The ids of what users of the library build, on whatever platform, and not what only our tests need.
fn dependencies<'a>(root: &'a str, nodes: &HashMap<&'a str, &'a Value>) -> HashSet<&'a str> {
    let mut found = HashSet::new();
    let mut next = vec![root];
    while let Some(id) = next.pop() {
        if found.insert(id) {
            for dependency in array(&nodes[id]["deps"]) {
                if array(&dependency["dep_kinds"]).any(|kind| kind["kind"] != "dev") {
                    next.push(text(&dependency["pkg"]));
                }
            }
        }
    }
    found
}

fn by_id(values: &Value) -> HashMap<&str, &Value> {
    array(values)
        .map(|value| (text(&value["id"]), value))
        .collect()
}

fn array(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a string")
}

/// In numbers, and three of them: some say 1.85, others 1.85.0.
fn rust_version(package: &Value) -> Option<[u32; 3]> {
    let version = package["rust_version"].as_str()?;
    let mut parts = version.split('.').map(|part| part.parse().ok());
    let mut next = || parts.next().unwrap_or(Some(0));
    Some([next()?, next()?, next()?])
}
