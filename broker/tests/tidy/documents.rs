//! The documents: what they link to and the tests they name are there, and nothing names a machine.

use std::path::Path;

use crate::tree::{File, assert_none, files, root};

/// Hosts that may be named. A mirror of a registry is nobody else's business.
const HOSTS: [&str; 6] =
    ["www.w3.org", "github.com", "www.apache.org", "keepachangelog.com", "semver.org", "www.rabbitmq.com"];

/// Directories of somebody's machine; taken apart, so that this file does not find itself.
const MACHINE_PATHS: [&str; 4] =
    [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("/Us", "ers/")];

#[test]
fn nothing_names_a_machine_or_a_mirror() {
    let mut found = Vec::new();
    for file in &files() {
        for (number, line) in file.lines() {
            for path in MACHINE_PATHS.iter().filter(|path| line.contains(*path)) {
                found.push(format!("{}:{number}: {path}", file.path));
            }
            for host in hosts(line).filter(|host| !HOSTS.contains(host) && !is_loopback(host)) {
                found.push(format!("{}:{number}: host {host}", file.path));
            }
        }
    }
    assert_none("no directory of a machine and no unexpected host", &found);
}

/// The hosts of the web addresses in a line.
fn hosts(line: &str) -> impl Iterator<Item = &str> {
    let scheme = |name: &'static str| line.split(name).skip(1);
    scheme(concat!("http", "://"))
        .chain(scheme(concat!("https", "://")))
        .filter_map(|rest| rest.split(|c: char| c != '.' && c != '-' && !c.is_alphanumeric()).next())
}

/// Or no host at all: a scheme that somebody looks for, or a pattern.
fn is_loopback(host: &str) -> bool {
    host.is_empty() || host == "localhost" || host == "127" || host == "127.0.0.1"
}

#[test]
fn links_lead_to_files() {
    let mut found = Vec::new();
    for file in files().iter().filter(|file| file.path.ends_with(".md")) {
        let folder = root().join(&file.path).parent().map(Path::to_path_buf).unwrap_or_default();
        for (number, line) in file.lines() {
            for target in line.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next()) {
                if !target.is_empty() && !target.contains("://") && !folder.join(target).exists() {
                    found.push(format!("{}:{number}: {target}", file.path));
                }
            }
        }
    }
    assert_none("a link leads to a file of the repository", &found);
}

/// COMPATIBILITY.md names the test that shows a claim: `path/of/file.rs`, or `path/of/file.rs` followed by `name of a test`.
#[test]
fn tests_that_are_named_exist() {
    let files = files();
    let mut found = Vec::new();
    for document in files.iter().filter(|file| is_top_level_document(file)) {
        for (number, line) in document.lines() {
            for path in quoted(line).filter(|text| text.ends_with(".rs") && text.contains('/')) {
                if !files.iter().any(|file| file.path == path || file.path.ends_with(&format!("/{path}"))) {
                    found.push(format!("{}:{number}: there is no {path}", document.path));
                }
            }
            for name in quoted(line).filter_map(|text| text.strip_suffix("()")) {
                let definition = format!("fn {name}(");
                if !files.iter().any(|file| file.is_rust() && file.text.contains(&definition)) {
                    found.push(format!("{}:{number}: there is no function {name}", document.path));
                }
            }
        }
    }
    assert_none("what a document names is there", &found);
}

fn is_top_level_document(file: &File) -> bool {
    file.path.ends_with(".md") && !file.path.contains('/')
}

/// What stands between backquotes in a line.
fn quoted(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}
