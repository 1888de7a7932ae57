//! What can be set or planted is in the code, and people can read of it.

#![allow(clippy::unwrap_used)]

use muster_fault::{Bug, Point};
use std::{
    fs,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The sources below a directory.
fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let path = entry.path();
        match path.is_dir() {
            true => sources(&path, found),
            false if path.extension().is_some_and(|it| it == "rs") && !path.ends_with("tests.rs") => {
                found.push(path);
            }
            false => {}
        }
    }
}

/// The code of all crates but this one, without their tests.
fn code() -> String {
    let mut all = String::new();
    for krate in fs::read_dir(root().join("crates")).unwrap().map(Result::unwrap) {
        if krate.file_name() == "muster-fault" || !krate.path().is_dir() {
            continue;
        }
        let mut files = Vec::new();
        sources(&krate.path().join("src"), &mut files);
        for file in files {
            let text = fs::read_to_string(file).unwrap();
            all.push_str(text.split("#[cfg(test)]\nmod tests {").next().unwrap());
        }
    }
    all
}

#[test]
fn every_point_and_every_bug_is_in_the_code() {
    let code = code();
    let names = |word: &str| {
        let next = |at: usize| code[at + word.len()..].chars().next();
        code.match_indices(word).any(|(at, _)| next(at).is_none_or(|c| !c.is_alphanumeric()))
    };
    for point in Point::ALL {
        assert!(names(&format!("Point::{point:?}")), "nobody passes {point}");
    }
    for bug in Bug::ALL {
        assert!(names(&format!("planted!({bug:?}")), "nobody has the bug {bug}");
    }
}

#[test]
fn every_point_and_every_bug_is_in_the_documents() {
    let text = |name: &str| fs::read_to_string(root().join("docs").join(name)).unwrap();
    let (chaos, reliability) = (text("chaos.md"), text("reliability.md"));
    for point in Point::ALL {
        let line = format!("\n| `{point}` | {} |\n", point.about());
        assert!(chaos.contains(&line), "docs/chaos.md lacks {line}");
    }
    let kinds = ["| `store.", "| `raft.", "| `agent.", "| `master."];
    let listed = chaos.lines().filter(|line| kinds.iter().any(|kind| line.starts_with(kind)));
    assert_eq!(listed.count(), Point::ALL.len(), "docs/chaos.md lists a point that is none");
    for bug in Bug::ALL {
        let line = format!("\n| `{bug}` | {} |", bug.about());
        assert!(reliability.contains(&line), "docs/reliability.md lacks {line}");
    }
}
