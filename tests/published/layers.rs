//! The modules of `src/` import from modules below them only, and no two files import from each other.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// From the bottom to the top.
const LAYERS: [&str; 10] = [
    "base",
    "session",
    "export",
    "scope",
    "tracer",
    "layer",
    "current",
    "propagation",
    "conversation",
    "integrations",
];

/// The module path of each file, and the paths that it imports from this crate.
type Imports = BTreeMap<String, Vec<String>>;

#[test]
fn modules_import_from_modules_below_them() {
    let imports = imports();
    let files: Vec<_> = imports.keys().collect();
    assert!(files.len() > 30, "too few files: {files:?}");
    let layer = |path: &str| {
        let top = path.split("::").next().unwrap();
        let layer = LAYERS.iter().position(|layer| *layer == top);
        layer.unwrap_or_else(|| panic!("{path} is in none of the layers"))
    };
    for (file, imported) in &imports {
        for path in imported {
            assert!(layer(path) <= layer(file), "{file} imports {path}");
        }
    }
}

#[test]
fn no_cycle_of_files_imports_one_another() {
    let imports = imports();
    let mut done = Vec::new();
    assert!(imports.len() > 30, "too few files: {imports:?}");
    for file in imports.keys() {
        search(file, &imports, &mut Vec::new(), &mut done);
    }
    assert_eq!(done.len(), imports.len());
}

#[test]
fn files_are_few_and_short_enough_to_be_read() {
    let files = files(Path::new("src"), "rs");
    assert!(files.len() <= 64, "{} files", files.len());
    for file in files {
        let lines = fs::read_to_string(&file).unwrap().lines().count();
        assert!(lines <= 400, "{}: {lines} lines", file.display());
    }
}

/// Follows the imports of a file, depth first.
fn search(file: &str, imports: &Imports, above: &mut Vec<String>, done: &mut Vec<String>) {
    if done.iter().any(|it| it == file) {
        return;
    }
    let is_above = above.iter().any(|it| it == file);
    assert!(!is_above, "a cycle: {} -> {file}", above.join(" -> "));
    above.push(file.to_owned());
    for path in &imports[file] {
        let imported = file_of(path, imports).filter(|imported| *imported != file);
        if let Some(imported) = imported {
            search(imported, imports, above, done);
        }
    }
    above.pop();
    done.push(file.to_owned());
}

/// The file that defines an imported item: the longest module path that is one. `None`: `lib.rs` defines it.
fn file_of<'a>(path: &'a str, imports: &Imports) -> Option<&'a str> {
    let mut module = path;
    while !imports.contains_key(module) {
        module = module.rsplit_once("::")?.0;
    }
    Some(module)
}

#[test]
#[should_panic(expected = "a cycle: a -> b -> c -> a")]
fn a_cycle_is_found() {
    let imports = [("a", "b::Item"), ("b", "c"), ("c", "a::function")];
    let imports = imports.map(|(file, path)| (file.to_owned(), vec![path.to_owned()]));
    search("a", &imports.into(), &mut Vec::new(), &mut Vec::new());
}

fn imports() -> Imports {
    let imports = files(Path::new("src"), "rs")
        .into_iter()
        .filter_map(|file| {
            let module = file.strip_prefix("src").unwrap().with_extension("");
            let module = module.to_str().unwrap().replace('/', "::");
            let text = fs::read_to_string(&file).unwrap();
            (module != "lib").then(|| (module, paths(&text)))
        });
    imports.collect()
}

pub(crate) fn files(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(self::files(&path, extension));
        } else if path.extension().is_some_and(|it| it == extension) {
            files.push(path);
        }
    }
    files
}

/// The paths of `use crate::` declarations, without `crate::`.
fn paths(text: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for part in text.split("use crate::").skip(1) {
        let declaration: String = part.split(';').next().unwrap().split_whitespace().collect();
        match declaration.split_once('{') {
            None => paths.push(declaration),
            Some((path, items)) => {
                let items = items
                    .trim_end_matches('}')
                    .split(',')
                    .filter(|it| !it.is_empty());
                paths.extend(items.map(|item| match item {
                    "self" => path.trim_end_matches("::").to_owned(),
                    item => format!("{path}{item}"),
                }));
            }
        }
    }
    paths
}
