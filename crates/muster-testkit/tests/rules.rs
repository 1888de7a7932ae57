//! `docs/rules.md` names tests: they exist.

#![allow(clippy::unwrap_used)]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// All files below a directory, but for what was built.
fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let path = entry.path();
        match path.is_dir() {
            true if path.ends_with("target") => {}
            true => files(&path, found),
            false => found.push(path),
        }
    }
}

/// Whether a crate has a test, or a scenario file, of this name.
fn exists(root: &Path, crate_name: &str, test: &str) -> bool {
    let below = if crate_name == "jepsen-style-tests" { root.to_owned() } else { root.join("crates") };
    let mut all = Vec::new();
    files(&below.join(crate_name), &mut all);
    let script = format!("{test}.txt");
    let (function, argument) = (format!("fn {test}("), format!("fn {test}<"));
    all.iter().any(|path| match path.extension().and_then(|it| it.to_str()) {
        Some("txt") => path.ends_with(&script),
        Some("rs") => {
            let text = fs::read_to_string(path).unwrap();
            text.contains(&function) || text.contains(&argument)
        }
        _ => false,
    })
}

#[test]
fn every_test_that_is_named_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let text = fs::read_to_string(root.join("docs/rules.md")).unwrap();
    let named: Vec<_> = text.split('`').skip(1).step_by(2).filter_map(|name| name.split_once("::")).collect();
    let lost: Vec<_> =
        named.iter().filter(|(name, test)| *name != "crate" && !exists(&root, name, test)).collect();
    assert!(named.len() > 60, "the document is read as it is written");
    assert!(lost.is_empty(), "docs/rules.md names what does not exist: {lost:?}");
    // Every rule has its line.
    for rule in 1..=30 {
        assert!(text.contains(&format!("\n| {rule} | ")), "rule {rule} has no line");
    }
}
