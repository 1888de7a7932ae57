//! Which crate may import which: the layers of `crates/README.md`, compared with `cargo metadata`.

use cargo_metadata::{DependencyKind, MetadataCommand};
use std::collections::{BTreeMap, BTreeSet};

/// Each crate, and what it may import of ours. Only towards the top of this list.
const ALLOWED: &[(&str, &[&str])] = &[
    ("muster-model", &[]),
    ("muster-fault", &[]),
    ("muster-registry", &["muster-model", "muster-fault"]),
    ("muster-allocator", &["muster-model", "muster-registry"]),
    ("muster-leader", &["muster-model", "muster-fault", "muster-registry", "muster-allocator"]),
    ("muster-node", &["muster-model", "muster-fault"]),
    ("muster-driver", &["muster-model"]),
    ("muster-proto", &["muster-model"]),
    ("muster-http", &["muster-model", "muster-proto"]),
    ("muster-image", &[]),
    ("muster-container", &[]),
    ("muster-raft", &["muster-model", "muster-fault", "muster-registry", "muster-proto"]),
    (
        "muster-master",
        &[
            "muster-model",
            "muster-fault",
            "muster-registry",
            "muster-allocator",
            "muster-leader",
            "muster-raft",
            "muster-proto",
            "muster-http",
        ],
    ),
    (
        "muster-agent",
        &[
            "muster-model",
            "muster-fault",
            "muster-node",
            "muster-proto",
            "muster-http",
            "muster-image",
            "muster-container",
        ],
    ),
    ("muster-sdk", &["muster-model", "muster-driver", "muster-proto"]),
    (
        "muster",
        &[
            "muster-model",
            "muster-fault",
            "muster-master",
            "muster-agent",
            "muster-sdk",
            "muster-proto",
            "muster-http",
            "muster-raft",
            "muster-registry",
            "muster-allocator",
        ],
    ),
    (
        "muster-sim",
        &[
            "muster-model",
            "muster-registry",
            "muster-allocator",
            "muster-leader",
            "muster-node",
            "muster-driver",
        ],
    ),
    ("muster-fuzz", &["muster-model", "muster-registry", "muster-proto", "muster-raft"]),
    ("muster-testkit", &["muster-model", "muster-sdk", "muster-proto"]),
    ("jepsen-style-tests", &["muster-model", "muster-testkit", "muster-sdk", "muster-proto"]),
];

/// What machines may import of others'.
const PURE: &[(&str, &[&str])] = &[
    ("muster-model", &["regex", "serde", "serde_json", "smol_str", "xxhash-rust"]),
    ("muster-registry", &["serde", "imbl", "memchr", "smol_str", "xxhash-rust"]),
    ("muster-allocator", &[]),
    ("muster-leader", &[]),
    ("muster-node", &["serde"]),
    ("muster-driver", &[]),
];

#[test]
fn crates_import_only_what_their_layer_allows() {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml");
    let metadata = MetadataCommand::new()
        .manifest_path(manifest)
        .no_deps()
        .other_options(["--offline".into()])
        .exec()
        .unwrap();
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.iter().copied().collect();
    let pure: BTreeMap<&str, &[&str]> = PURE.iter().copied().collect();
    let ours: BTreeSet<&str> = allowed.keys().copied().collect();
    let mut seen = BTreeSet::new();
    for package in &metadata.packages {
        let name = package.name.as_str();
        let may =
            allowed.get(name).unwrap_or_else(|| panic!("{name} is a new crate: say what it may import"));
        seen.insert(name.to_owned());
        for dependency in package.dependencies.iter().filter(|it| it.kind == DependencyKind::Normal) {
            let other = dependency.name.as_str();
            if ours.contains(other) {
                assert!(may.contains(&other), "{name} must not import {other}");
            } else if let Some(may) = pure.get(name) {
                assert!(may.contains(&other), "{name} is a machine: it must not import {other}");
            }
        }
    }
    assert_eq!(seen.len(), ours.len(), "every crate of the list exists");
}
