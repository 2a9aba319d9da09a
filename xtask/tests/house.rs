//! The structure of the workspace as ARCHITECTURE.md describes it: which crate may use which, and how long a file gets.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// What each crate may use of the others, tests apart. Arrows point one way: protocol ← log, coordinator ← broker ← milena.
const ALLOWED: [(&str, &[&str]); 11] = [
    ("milena-protocol", &[]),
    ("milena-log", &["milena-protocol"]),
    ("milena-log-disk", &["milena-log", "milena-protocol"]),
    ("milena-state", &[]),
    ("milena-state-sqlite", &["milena-state"]),
    ("milena-coordinator", &["milena-protocol"]),
    (
        "milena-broker",
        &[
            "milena-coordinator",
            "milena-log",
            "milena-protocol",
            "milena-state",
        ],
    ),
    ("milena-client", &["milena-protocol"]),
    ("milena-tools", &["milena-client", "milena-protocol"]),
    (
        "milena",
        &[
            "milena-broker",
            "milena-log-disk",
            "milena-state-sqlite",
            "milena-tools",
        ],
    ),
    ("xtask", &[]),
];
const MOST_LINES: usize = 1_000;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn names(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().unwrap().iter()
}

#[test]
fn crates_use_only_what_they_may() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let own: BTreeSet<String> = names(&metadata["packages"])
        .map(|package| text(&package["name"]))
        .collect();
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.into_iter().collect();
    for package in names(&metadata["packages"]) {
        let name = text(&package["name"]);
        let may = allowed
            .get(name.as_str())
            .unwrap_or_else(|| panic!("{name} is a new room: say what it may use"));
        let used: BTreeSet<String> = names(&package["dependencies"])
            .filter(|dependency| dependency["kind"].is_null())
            .map(|dependency| text(&dependency["name"]))
            .filter(|dependency| own.contains(dependency))
            .collect();
        for dependency in used {
            assert!(
                may.contains(&dependency.as_str()),
                "{name} must not use {dependency}"
            );
        }
    }
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn no_file_is_longer_than_somebody_reads() {
    let mut files = Vec::new();
    for folder in ["crates", "xtask"] {
        rust_files(&root().join(folder), &mut files);
    }
    assert!(files.len() > 100, "the files are found");
    for file in files {
        let lines = std::fs::read_to_string(&file).unwrap().lines().count();
        assert!(lines <= MOST_LINES, "{} has {lines} lines", file.display());
    }
}
