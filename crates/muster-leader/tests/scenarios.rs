//! Scenario files: what clients and operators do, and what the leader does about it. `UPDATE_EXPECT=1` rewrites
//! what is expected.
//!
//! A line is an input; the indented lines after it are what follows: `F1 <-` is sent to a client, `log <-` is
//! proposed. `tests/script` says what the words mean.

#![allow(clippy::unwrap_used)] // a test that cannot go on says so by panicking

mod script;

use std::{fs, path::Path};

#[test]
fn scenario_files_hold() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 8, "the scenario files are where they should be");
    for path in files {
        let text = fs::read_to_string(&path).unwrap();
        let ran = script::run(&text);
        expect_test::expect_file![path].assert_eq(&ran);
    }
}
