//! The files in `config/` against the code.

use std::path::{Path, PathBuf};

use super::*;

fn config_directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../config")
}

fn load_file(path: PathBuf) -> Settings {
    let flags = Flags { config: Some(path), ..Flags::default() };
    Settings::load(&flags, []).unwrap()
}

/// The value part of a description, without the origin.
fn value_of<'a>(settings: &'a Settings, key: &'a str) -> &'a str {
    let description = settings.describe(key);
    description.rsplit_once(" (").map_or(description, |(value, _)| value)
}

#[test]
fn the_documented_file_equals_the_defaults_and_mentions_every_key() {
    let path = config_directory().join("warren.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let documented = load_file(path);
    let defaults = Settings::defaults().unwrap();
    for key in keys::KEYS {
        assert_eq!(value_of(&documented, key.name), value_of(&defaults, key.name));
        let (section, name) = key.name.split_once('.').unwrap();
        let body = text
            .split(&format!("\n[{section}]\n"))
            .nth(1)
            .or_else(|| text.split(&format!("\n# [{section}]\n")).nth(1))
            .unwrap_or_else(|| panic!("no section for {}", key.name));
        let end = ["\n[", "\n# ["].iter().filter_map(|next| body.find(next)).min().unwrap_or(body.len());
        let mentioned =
            body[..end].lines().any(|line| line.trim_start_matches("# ").starts_with(&format!("{name} = ")));
        assert!(mentioned, "config/warren.toml lacks {}", key.name);
        assert!(!documented.describe(key.name).ends_with("(default)"), "{} is not set in config/warren.toml", key.name);
    }
    for section in entry::SECTIONS {
        assert!(text.contains(&format!("# [[{}]]", section.name)));
        for field in section.fields() {
            assert!(text.contains(&format!("# {field} = ")), "{field}");
        }
    }
    assert_eq!(documented.default_user.password, defaults.default_user.password);
}

#[test]
fn the_examples_load() {
    for (name, exchanges, queues, bindings) in
        [("work-queue", 0, 1, 0), ("pub-sub", 1, 2, 2), ("topic-routing", 1, 3, 4), ("dead-letter", 1, 3, 1)]
    {
        let topology = load_file(config_directory().join(format!("examples/{name}.toml"))).topology;
        assert_eq!(
            (topology.exchanges.len(), topology.queues.len(), topology.bindings.len()),
            (exchanges, queues, bindings),
            "{name}"
        );
    }
}
