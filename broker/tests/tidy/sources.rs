//! What must not stand in the sources, and how long a file may be.

use crate::tree::{File, assert_none, files, root};

/// Lines that a file under `src` may have. A file has one subject; far beyond 450 it has a second one.
const LINES_MAX: usize = 550;

/// Taken apart, so that this file does not find itself.
const FORBIDDEN: [&str; 6] = [
    concat!("to", "do!("),
    concat!("unimpl", "emented!("),
    concat!("#[ign", "ore"),
    concat!("#[all", "ow("),
    concat!("#![all", "ow("),
    concat!("dbg", "!("),
];

#[test]
fn nothing_is_left_undone_or_switched_off() {
    let mut found = Vec::new();
    for file in files().iter().filter(|file| file.is_rust()) {
        for (number, line) in file.lines() {
            for word in FORBIDDEN.iter().filter(|word| line.contains(*word)) {
                found.push(format!("{}:{number}: {word}", file.path));
            }
        }
    }
    assert_none("nothing is left undone, and no lint or test is switched off", &found);
}

#[test]
fn every_library_forbids_unsafe_code() {
    let mut found = Vec::new();
    for member in crate::manifests::members() {
        let path = format!("{member}/src/lib.rs");
        let text = std::fs::read_to_string(root().join(&path)).unwrap_or_default();
        if !text.lines().any(|line| line == "#![forbid(unsafe_code)]") {
            found.push(path);
        }
    }
    assert_none("every library says #![forbid(unsafe_code)]", &found);
}

#[test]
fn no_file_is_too_long() {
    let mut found = Vec::new();
    for file in files().iter().filter(|file| file.is_rust() && file.path.contains("/src/")) {
        let lines = file.text.lines().count();
        if lines > LINES_MAX {
            found.push(format!("{}: {lines} lines", file.path));
        }
    }
    assert_none("a file has one subject", &found);
}

#[test]
fn tests_wait_for_events() {
    let mut found = Vec::new();
    for file in &files() {
        let start = first_line_of_tests(file);
        for (number, line) in file.lines().skip_while(|(number, _)| start.is_none_or(|start| *number < start)) {
            let line = line.trim_start().to_lowercase();
            if line.contains(concat!("sle", "ep(")) || line.starts_with(concat!("sle", "ep ")) {
                found.push(format!("{}:{number}", file.path));
            }
        }
    }
    assert_none("tests wait for events and never sleep", &found);
}

/// Where the tests of a file begin, if it has any.
fn first_line_of_tests(file: &File) -> Option<usize> {
    if file.path.ends_with(".md") {
        return None;
    }
    if file.path.contains("/tests/") || file.path.starts_with("integration-tests/") {
        return Some(1);
    }
    let mut lines = file.lines().filter(|_| file.is_rust());
    lines.find(|(_, line)| *line == "mod tests {").map(|(number, _)| number)
}
