//! What other people's crates we take: their licences, where they come from, and which are there twice.
//!
//! Licences come from `cargo metadata` and are those of the platform that the tests run on, since cargo has the manifests of no
//! others; sources and versions come from the lock file, for every platform.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

use crate::tree::{assert_none, read, root};

/// Licences that a broker under Apache-2.0 can be distributed with.
const LICENCES: [&str; 7] = ["Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "Unicode-3.0", "Zlib"];

const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Crates that are there in more than one version, and who brings the other one.
const TWICE: [(&str, &str); 21] = [
    ("base64", "p12-keystore, which lapin reads client certificates with; in tests only"),
    ("bitflags", "redox_syscall of sled's parking_lot, not built on Linux"),
    ("block-buffer", "p12-keystore"),
    ("const-oid", "p12-keystore"),
    ("core-foundation", "security-framework, not built on Linux"),
    ("cpufeatures", "p12-keystore"),
    ("crypto-common", "p12-keystore"),
    ("digest", "p12-keystore"),
    ("getrandom", "ring and rand 0.9 are behind tempfile and uuid"),
    ("lock_api", "parking_lot"),
    ("nom", "x509-parser stays with 7"),
    ("parking_lot", "sled 0.34 stays with 0.11; moka and hickory, of lapin, with 0.12"),
    ("parking_lot_core", "parking_lot"),
    ("r-efi", "getrandom, not built on Linux"),
    ("rand", "proptest and hickory, of lapin, are ahead of ours"),
    ("rand_core", "rand"),
    ("redox_syscall", "parking_lot, not built on Linux"),
    ("sha2", "p12-keystore"),
    ("syn", "tracing-attributes, zerocopy-derive and asn1-rs stay with 2; at build time only"),
    ("synstructure", "asn1-rs-derive of x509-parser stays with 0.13; at build time only"),
    ("windows-sys", "ring, not built on Linux"),
];

#[test]
fn licences_are_known_ones() {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().unwrap();
    assert!(packages.len() > 50, "cargo names only {} packages", packages.len());
    let mut found = Vec::new();
    for package in packages {
        let (name, version) = (package["name"].as_str().unwrap(), package["version"].as_str().unwrap());
        match package["license"].as_str() {
            Some(licence) if is_allowed(licence) => {}
            Some(licence) => found.push(format!("{name} {version}: {licence}")),
            None => found.push(format!("{name} {version} does not name its licence")),
        }
    }
    assert_none("a dependency has one of the licences that are listed here", &found);
}

fn metadata() -> Value {
    let platform = Command::new("rustc").arg("-vV").output().unwrap();
    let platform = String::from_utf8(platform.stdout).unwrap();
    let platform = platform.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    let output = Command::new(env!("CARGO"))
        .current_dir(root())
        .args(["metadata", "--format-version", "1", "--locked", "--filter-platform", platform])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn everything_comes_from_the_registry() {
    let mut found = Vec::new();
    for package in locked() {
        match package.source.as_deref() {
            Some(CRATES_IO) | None => {}
            Some(source) => found.push(format!("{} {}: {source}", package.name, package.version)),
        }
        // Nothing else than what is in this repository has no source.
        if package.source.is_none() && !package.name.starts_with("warren-") {
            found.push(format!("{} {}: a path", package.name, package.version));
        }
    }
    assert_none("dependencies come from crates.io", &found);
}

#[test]
fn what_is_there_twice_has_a_reason() {
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in locked() {
        versions.entry(package.name).or_default().insert(package.version);
    }
    versions.retain(|_, versions| versions.len() > 1);
    let known: BTreeSet<&str> = TWICE.iter().map(|(name, _)| *name).collect();
    let mut found = Vec::new();
    for (name, versions) in &versions {
        if !known.contains(name.as_str()) {
            found.push(format!("{name} is there as {versions:?}, and nobody says why"));
        }
    }
    for name in known.iter().filter(|name| !versions.contains_key(**name)) {
        found.push(format!("{name} is not there twice any more: take it off the list"));
    }
    assert_none("a second version of a crate has a reason", &found);
}

struct Locked {
    name: String,
    version: String,
    source: Option<String>,
}

fn locked() -> Vec<Locked> {
    let lock: toml::Table = read("Cargo.lock").parse().unwrap();
    let text = |package: &toml::Value, key: &str| package.get(key).and_then(toml::Value::as_str).map(str::to_owned);
    let packages = lock["package"].as_array().unwrap();
    let named = |package: &toml::Value| Locked {
        name: text(package, "name").unwrap(),
        version: text(package, "version").unwrap(),
        source: text(package, "source"),
    };
    packages.iter().map(named).collect()
}

/// Whether an SPDX expression can be met with the licences that are allowed. `/` is the old way to write OR.
fn is_allowed(expression: &str) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    any_of(&mut rest) && rest.is_empty()
}

fn any_of(words: &mut &[&str]) -> bool {
    let mut met = all_of(words);
    while let Some((&"OR", rest)) = words.split_first() {
        *words = rest;
        met |= all_of(words);
    }
    met
}

fn all_of(words: &mut &[&str]) -> bool {
    let mut met = one(words);
    while let Some((&"AND", rest)) = words.split_first() {
        *words = rest;
        met &= one(words);
    }
    met
}

fn one(words: &mut &[&str]) -> bool {
    let Some((first, rest)) = words.split_first() else {
        return false;
    };
    *words = rest;
    if *first == "(" {
        let met = any_of(words);
        let Some((&")", rest)) = words.split_first() else {
            return false;
        };
        *words = rest;
        return met;
    }
    // An exception gives more rights than the licence alone.
    if let Some((&"WITH", rest)) = words.split_first() {
        *words = rest.get(1..).unwrap_or_default();
    }
    LICENCES.contains(first)
}

#[test]
fn expressions_of_licences_are_understood() {
    let met = [
        "MIT",
        "MIT/GPL-3.0",
        "GPL-3.0 OR (MIT AND ISC)",
        "Apache-2.0 WITH LLVM-exception",
        "(MIT OR GPL-2.0) AND Zlib",
    ];
    let unmet = ["", "GPL-3.0", "MIT AND GPL-3.0", "(MIT", "MIT)", "MIT ISC", "GPL-2.0 WITH Classpath-exception-2.0"];
    assert!(met.iter().all(|expression| is_allowed(expression)));
    assert!(!unmet.iter().any(|expression| is_allowed(expression)));
}
