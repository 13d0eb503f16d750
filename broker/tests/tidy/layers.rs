//! Who may know whom: the crates, and the layers inside the broker. ARCHITECTURE.md explains both.

use crate::tree::{File, assert_none, files};

/// The modules of the broker, each with those that it may name beside itself.
const BROKER: [(&str, &[&str]); 20] = [
    ("config", &[]),
    ("model", &["config"]),
    ("routing", &["config", "model"]),
    ("queue", &["config", "model", "routing"]),
    // Beside the chain: values and what becomes of them. The vhost holds them.
    ("policy", &["config", "model"]),
    ("vhost", &["config", "model", "routing", "policy", "queue"]),
    // Beside the chain: the vhost asks for rights through a trait of the model and does not know who answers.
    ("auth", &["config", "model"]),
    // Beside the chain: certificates and handshakes.
    ("tls", &["config", "model"]),
    ("broker", &["config", "model", "routing", "policy", "queue", "vhost", "auth", "tls"]),
    ("session", &["config", "model", "routing", "policy", "queue", "vhost", "auth", "broker"]),
    ("net", &["config", "model", "routing", "policy", "queue", "vhost", "auth", "tls", "broker", "session"]),
    // A client of any broker: it shares the protocol crate with this one and nothing else.
    ("client", &[]),
    ("bench", &["client"]),
    ("drain", &["client"]),
    ("ctl", &["config", "drain"]),
    ("offline", &["config", "model", "routing", "policy", "queue", "vhost", "auth"]),
    ("cli", &["config", "bench", "ctl", "offline"]),
    ("admin", &["config", "model", "routing", "policy", "queue", "vhost", "auth", "tls", "broker"]),
    ("prometheus", &["config", "model", "routing", "policy", "queue", "vhost", "auth", "broker"]),
    (
        "start",
        &[
            "config",
            "model",
            "routing",
            "policy",
            "queue",
            "vhost",
            "auth",
            "tls",
            "broker",
            "session",
            "net",
            "admin",
            "prometheus",
            "bench",
            "ctl",
            "offline",
            "cli",
        ],
    ),
];

/// What a crate must never name, in its sources or among its dependencies.
const CRATES: [(&str, &[&str]); 2] = [
    ("protocol", &["tokio", "std::net", "socket2", "sled", "storage::", "broker::"]),
    ("storage", &["amq_protocol", "amq-protocol", "tokio", "protocol::", "broker::", "std::net"]),
];

#[test]
fn a_layer_of_the_broker_names_only_those_below() {
    let mut found = Vec::new();
    for file in files() {
        let Some(module) = module_of(&file) else { continue };
        let Some((_, below)) = BROKER.iter().find(|(name, _)| *name == module) else {
            found.push(format!("{}: the module {module} has no place among the layers", file.path));
            continue;
        };
        for (number, line) in file.code() {
            // Either would hide what is named.
            for blind in [concat!("super::", "super::"), concat!("crate::", "{")] {
                if line.contains(blind) {
                    found.push(format!("{}:{number}: {blind} (write crate::module)", file.path));
                }
            }
            for named in named_modules(line) {
                if named != module && !below.contains(&named) && BROKER.iter().any(|(name, _)| *name == named) {
                    found.push(format!("{}:{number}: {module} names {named}", file.path));
                }
            }
        }
    }
    assert_none("a lower layer never names a higher one", &found);
}

/// The module of the broker that a file belongs to.
fn module_of(file: &File) -> Option<&str> {
    let inside = file.path.strip_prefix("broker/src/").filter(|_| file.is_rust())?;
    let module = inside.split('/').next()?.trim_end_matches(".rs");
    (module != "lib" && module != "main").then_some(module)
}

/// Every `name` of a `crate::name` in a line.
fn named_modules(line: &str) -> impl Iterator<Item = &str> {
    line.split("crate::").skip(1).filter_map(|rest| rest.split(|c: char| c != '_' && !c.is_alphanumeric()).next())
}

#[test]
fn protocol_knows_no_sockets_and_storage_no_amqp() {
    let mut found = Vec::new();
    let files = files();
    for (name, forbidden) in CRATES {
        let sources = format!("{name}/src/");
        let manifest = format!("{name}/Cargo.toml");
        let inside = files.iter().filter(|file| file.path.starts_with(&sources) && file.is_rust());
        for (file, number, line) in inside.flat_map(|file| file.code().map(move |(number, line)| (file, number, line)))
        {
            for word in forbidden.iter().filter(|word| names_path(line, word)) {
                found.push(format!("{}:{number}: {word}", file.path));
            }
        }
        let manifest = files.iter().find(|file| file.path == manifest).unwrap();
        for (number, line) in manifest.lines() {
            let dependency = line.split(['.', ' ', '=']).next().unwrap_or_default();
            let is_forbidden = |word: &&&str| !word.is_empty() && word.trim_end_matches("::") == dependency;
            for word in forbidden.iter().filter(is_forbidden) {
                found.push(format!("{}:{number}: {word}", manifest.path));
            }
        }
    }
    assert_none("protocol and storage know nothing of each other, of sockets or of a runtime", &found);
}

/// Whether a line has `word` where a path can begin: `amq_protocol::` is not `protocol::`.
fn names_path(line: &str, word: &str) -> bool {
    let inside = |c: char| c == '_' || c == ':' || c.is_alphanumeric();
    line.match_indices(word).any(|(at, _)| !line[..at].ends_with(inside))
}
