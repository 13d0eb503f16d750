//! Dependencies: declared in one place, used, and with one provider of cryptography.

use std::collections::{BTreeMap, BTreeSet};

use toml::{Table, Value};

use crate::tree::{assert_none, read};

const SECTIONS: [&str; 3] = ["dependencies", "dev-dependencies", "build-dependencies"];

/// Folders of the workspace's crates.
pub(crate) fn members() -> Vec<String> {
    let root = parse("Cargo.toml");
    let members = root["workspace"]["members"].as_array().unwrap();
    members.iter().map(|member| member.as_str().unwrap().to_owned()).collect()
}

fn parse(path: &str) -> Table {
    read(path).parse().unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every dependency of a member, with the manifest that names it.
fn dependencies() -> Vec<(String, String, Value)> {
    let mut all = Vec::new();
    for member in members() {
        let path = format!("{member}/Cargo.toml");
        let manifest = parse(&path);
        for section in SECTIONS.into_iter().filter_map(|section| manifest.get(section)?.as_table()) {
            all.extend(section.iter().map(|(name, value)| (path.clone(), name.clone(), value.clone())));
        }
    }
    all
}

fn is_inherited(dependency: &Value) -> bool {
    dependency.get("workspace").and_then(Value::as_bool) == Some(true)
}

#[test]
fn dependencies_come_from_the_workspace_or_have_a_version() {
    let has_version = |value: &Value| value.is_str() || value.get("version").is_some_and(Value::is_str);
    let mut found = Vec::new();
    for (manifest, name, value) in dependencies() {
        if !is_inherited(&value) && !has_version(&value) {
            found.push(format!("{manifest}: {name} = {value:?}"));
        }
        if value.get("git").is_some() {
            found.push(format!("{manifest}: {name} comes from git"));
        }
    }
    assert_none("a dependency is the workspace's or has a version of its own", &found);
}

#[test]
fn what_two_crates_use_has_one_version() {
    let mut users: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (manifest, name, value) in dependencies() {
        if !is_inherited(&value) {
            users.entry(name).or_default().push(manifest);
        }
    }
    users.retain(|_, manifests| manifests.len() > 1);
    let found: Vec<_> = users.iter().map(|(name, manifests)| format!("{name}: {}", manifests.join(", "))).collect();
    assert_none("a dependency of two crates is declared in the workspace", &found);
}

#[test]
fn the_workspace_declares_nothing_that_nobody_uses() {
    let used: BTreeSet<String> =
        dependencies().into_iter().filter(|(_, _, value)| is_inherited(value)).map(|(_, name, _)| name).collect();
    let root = parse("Cargo.toml");
    let declared = root["workspace"]["dependencies"].as_table().unwrap();
    let found: Vec<_> = declared.keys().filter(|name| !used.contains(*name)).cloned().collect();
    assert_none("every dependency of the workspace is used by a member", &found);
}

#[test]
fn tests_of_the_whole_workspace_run_by_default() {
    let root = parse("Cargo.toml");
    assert!(root.get("package").is_none(), "the root is a virtual manifest");
    assert!(root["workspace"].get("default-members").is_none(), "`cargo test` would test only those");
    for member in members() {
        let manifest = parse(&format!("{member}/Cargo.toml"));
        let lints = manifest.get("lints").and_then(|lints| lints.get("workspace"));
        assert_eq!(lints.and_then(Value::as_bool), Some(true), "{member} does not take the workspace's lints");
    }
}

#[test]
fn there_is_one_rustls_and_its_provider_is_ring() {
    let lock = parse("Cargo.lock");
    let names: Vec<&str> =
        lock["package"].as_array().unwrap().iter().filter_map(|package| package["name"].as_str()).collect();
    let count = |name: &str| names.iter().filter(|known| **known == name).count();
    assert_eq!((count("rustls"), count("ring")), (1, 1));
    let found: Vec<_> =
        names.iter().filter(|name| name.starts_with("aws-lc") || matches!(**name, "openssl" | "openssl-sys")).collect();
    assert!(found.is_empty(), "a second provider of cryptography: {found:?}");
}
