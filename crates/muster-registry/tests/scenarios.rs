//! Scenario files: commands in, outcomes and changes out. `UPDATE_EXPECT=1` rewrites what is expected.
//!
//! A line is a command; the indented lines after it are what it answered (`->`) and changed (`*`).

#![allow(clippy::unwrap_used)] // a test that cannot go on says so by panicking

mod script;

use std::{fs, path::Path};

#[test]
fn scenario_files_hold() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 5, "the scenario files are where they should be");
    for path in files {
        let text = fs::read_to_string(&path).unwrap();
        let ran = script::run(&text);
        expect_test::expect_file![path].assert_eq(&ran);
    }
}
