//! The keys of every kind of resource, and the type of each, as RabbitMQ 4.3 answers them: `golden/*.json`.
//!
//! With `WARREN_TEST_PEER=127.0.0.1:5673` the same is asked of RabbitMQ as well, so that the files stay true; with
//! `WARREN_RECORD_GOLDEN=1` besides, they are written anew. What Warren leaves out or has besides is in
//! `golden/differences.json`, with the reason.

use crate::client::{Api, start};
use integration_tests::peer::Peer;
use integration_tests::raw::Raw;
use integration_tests::wire::Bytes;
use integration_tests::{DEADLINE, id};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Instant;

/// Path of a value in an answer to the names of its types.
type Keys = BTreeMap<String, String>;

const VHOST: &str = "golden%2Fkeys";
const USER: &str = "golden";

/// Objects whose keys are somebody's own.
const OPEN: [&str; 8] = [
    "arguments",
    "client_properties",
    "cluster_state",
    "definition",
    "effective_policy_definition",
    "limits",
    "open_files",
    "value",
];

/// The name of a file and what it is about; `{c}` stands for the name of the connection, `{n}` for that of the node.
const RESOURCES: [(&str, &str); 36] = [
    ("overview", "overview"),
    ("node", "nodes/{n}"),
    ("node_memory", "nodes/{n}/memory"),
    ("vhost", "vhosts/golden%2Fkeys"),
    ("user", "users/golden"),
    ("users_without_permissions", "users/without-permissions"),
    ("permission", "permissions/golden%2Fkeys/golden"),
    ("topic_permissions", "topic-permissions/golden%2Fkeys/golden"),
    ("policy", "policies/golden%2Fkeys/p"),
    ("operator_policy", "operator-policies/golden%2Fkeys/o"),
    ("vhost_limits", "vhost-limits/golden%2Fkeys"),
    ("user_limits", "user-limits/golden"),
    ("parameter", "parameters/vhost-limits/golden%2Fkeys/limits"),
    ("global_parameter", "global-parameters/golden"),
    ("exchange", "exchanges/golden%2Fkeys/e"),
    ("exchanges", "exchanges/golden%2Fkeys"),
    ("queue", "queues/golden%2Fkeys/classic"),
    ("queue_quorum", "queues/golden%2Fkeys/quorum"),
    ("queues", "queues/golden%2Fkeys?name=classic&page=1"),
    ("queues_without_stats", "queues/golden%2Fkeys?disable_stats=true&name=classic&page=1"),
    ("queues_with_totals", "queues/golden%2Fkeys?disable_stats=true&enable_queue_totals=true&name=classic&page=1"),
    ("binding", "bindings/golden%2Fkeys/e/e/q/classic/k"),
    ("bindings", "exchanges/golden%2Fkeys/e/bindings/source"),
    ("connection", "connections/{c}"),
    ("connections_of_vhost", "vhosts/golden%2Fkeys/connections"),
    ("channel", "channels/{c}%20(1)"),
    ("channels_of_connection", "connections/{c}/channels"),
    ("consumers", "consumers/golden%2Fkeys"),
    ("whoami", "whoami"),
    ("cluster_name", "cluster-name"),
    ("feature_flags", "feature-flags"),
    ("deprecated_features", "deprecated-features"),
    ("login_attempts", "auth/attempts/{n}"),
    ("health_alarms", "health/checks/alarms"),
    ("health_protocol_listener", "health/checks/protocol-listener/amqp"),
    ("got_messages", "queues/golden%2Fkeys/quorum/get"),
];

/// What both have when they are asked. The connection must stay open.
fn set_up(api: &Api, amqp: SocketAddr) -> Raw {
    let put = |method: &str, path: &str, body: Value| {
        let answer = api.ask(method, &format!("/api/{path}"), &body.to_string());
        assert!(answer.status < 300, "{method} {path}: {} {}", answer.status, answer.body);
    };
    tear_down(api);
    put("PUT", &format!("vhosts/{VHOST}"), json!({"description": "d", "tags": "a,b", "default_queue_type": "classic"}));
    put("PUT", &format!("users/{USER}"), json!({"password": "x", "tags": "monitoring"}));
    put("PUT", "users/golden-nowhere", json!({"password": "x", "tags": "management"}));
    put("PUT", &format!("permissions/{VHOST}/{USER}"), json!({"configure": ".*", "write": ".*", "read": ".*"}));
    let topics = json!({"exchange": "amq.topic", "write": ".*", "read": ".*"});
    put("PUT", &format!("topic-permissions/{VHOST}/{USER}"), topics);
    let policy = json!({"pattern": "^classic", "definition": {"max-length": 100}, "apply-to": "queues"});
    put("PUT", &format!("policies/{VHOST}/p"), policy.clone());
    put("PUT", &format!("operator-policies/{VHOST}/o"), policy);
    put("PUT", &format!("vhost-limits/{VHOST}/max-queues"), json!({"value": 100}));
    put("PUT", &format!("user-limits/{USER}/max-channels"), json!({"value": 100}));
    put("PUT", "global-parameters/golden", json!({"value": {"a": 1}}));
    put("PUT", &format!("queues/{VHOST}/classic"), json!({"durable": true}));
    put("PUT", &format!("queues/{VHOST}/quorum"), json!({"durable": true, "arguments": {"x-queue-type": "quorum"}}));
    put("PUT", &format!("exchanges/{VHOST}/e"), json!({"type": "topic"}));
    put("POST", &format!("bindings/{VHOST}/e/e/q/classic"), json!({"routing_key": "k"}));
    put("POST", &format!("bindings/{VHOST}/e/e/q/quorum"), json!({"routing_key": "k"}));

    let mut raw = Raw::connect(amqp);
    raw.login("guest", "guest");
    raw.open("golden/keys");
    raw.open_channel(1);
    raw.call(1, id::CONFIRM_SELECT, [0], id::CONFIRM_SELECT_OK);
    for _ in 0..2 {
        raw.publish(1, ("e", "k"), 0, &[0, 0], b"hello");
        raw.expect(1, id::BASIC_ACK);
    }
    raw.consume(1, "classic", "tag", 0);
    let (first, _) = (raw.delivery(1), raw.delivery(1));
    raw.method(1, id::BASIC_ACK, Bytes::new().longlong(first.tag).octet(0));
    raw
}

fn tear_down(api: &Api) {
    for path in
        [&format!("vhosts/{VHOST}"), &format!("users/{USER}"), "users/golden-nowhere", "global-parameters/golden"]
    {
        api.ask("DELETE", &format!("/api/{path}"), "");
    }
}

/// Asks for one of the resources.
fn keys_of(api: &Api, path: &str) -> Keys {
    let connections = api.expect(200, "GET", &format!("/api/vhosts/{VHOST}/connections"), "");
    let connection = connections[0]["name"].as_str().unwrap_or_default().replace(' ', "%20").replace('>', "%3E");
    let overview = api.expect(200, "GET", "/api/overview", "");
    let path = path.replace("{c}", &connection).replace("{n}", overview["node"].as_str().unwrap_or_default());
    let answer = if path.ends_with("/get") {
        let body = r#"{"ackmode":"ack_requeue_true","count":1,"encoding":"auto"}"#;
        api.ask("POST", &format!("/api/{path}"), body)
    } else {
        api.ask("GET", &format!("/api/{path}"), "")
    };
    let mut keys = Keys::new();
    if answer.status == 200 {
        note("", &answer.body, &mut keys);
    }
    keys
}

fn note(path: &str, value: &Value, keys: &mut Keys) {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(items) => {
            let inside = format!("{path}[]");
            items.iter().for_each(|item| note(&inside, item, keys));
            "list"
        }
        Value::Object(object) => {
            let name = path.rsplit('.').next().unwrap_or_default();
            if !OPEN.contains(&name) {
                object.iter().for_each(|(name, value)| note(&format!("{path}.{name}"), value, keys));
            }
            "object"
        }
    };
    let kinds = keys.entry(path.to_owned()).or_default();
    if !kinds.split('|').any(|known| known == kind) {
        if !kinds.is_empty() {
            kinds.push('|');
        }
        kinds.push_str(kind);
    }
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/http/golden")
}

fn read(name: &str) -> Value {
    let text = std::fs::read_to_string(folder().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn golden(resource: &str) -> Keys {
    let file = read(&format!("{resource}.json"));
    let keys = file.as_object().expect("an object").iter();
    keys.map(|(path, kinds)| (path.clone(), kinds.as_str().expect("types").to_owned())).collect()
}

/// A value that is null says nothing about its type.
fn agree(a: &str, b: &str) -> bool {
    let kinds = |text: &str| text.split('|').filter(|kind| *kind != "null").map(str::to_owned).collect::<Vec<_>>();
    let (a, b) = (kinds(a), kinds(b));
    a.is_empty() || b.is_empty() || a.iter().any(|kind| b.contains(kind))
}

/// Whether a difference is listed: for this resource, or by the last name of its path for all of them.
fn listed(differences: &Value, resource: &str, path: &str) -> bool {
    let last = path.rsplit('.').next().unwrap_or_default();
    [format!("{resource}{path}"), format!("*.{last}")].iter().any(|name| differences.get(name).is_some())
}

#[test]
fn every_resource_has_the_keys_that_rabbitmq_gives_it() {
    let server = start();
    let _client = set_up(&server, server.broker.address());
    let differences = read("differences.json");
    let (absent, extra) = (&differences["absent"], &differences["extra"]);
    let mut wrong = Vec::new();
    for (resource, path) in RESOURCES {
        let (expected, found) = (golden(resource), keys_of(&server, path));
        for (path, kinds) in &expected {
            // With what it is inside of, so is the rest.
            let is_absent = path.match_indices('.').map(|(at, _)| &path[..at]).chain([path.as_str()]);
            let is_absent = is_absent.filter(|path| !path.is_empty()).any(|path| listed(absent, resource, path));
            match found.get(path) {
                None if !is_absent => wrong.push(format!("{resource}{path} is missing ({kinds})")),
                Some(_) if is_absent => wrong.push(format!("{resource}{path} is there, and is listed as absent")),
                Some(found) if !agree(found, kinds) => {
                    wrong.push(format!("{resource}{path} is a {found} and should be a {kinds}"));
                }
                _ => {}
            }
        }
        for path in found.keys().filter(|path| !expected.contains_key(*path)) {
            if !listed(extra, resource, path) {
                wrong.push(format!("{resource}{path} is more than RabbitMQ has"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(server.broker.terminate().status.success());
}

/// The files against the real thing. RabbitMQ collects its figures every few seconds, so this asks until they are there.
#[test]
fn the_files_are_what_rabbitmq_answers() {
    let Some(peer) = Peer::from_env() else { return };
    let amqp = peer.address();
    let api = Api { address: SocketAddr::new(amqp.ip(), amqp.port() + 10_000) };
    let _client = set_up(&api, amqp);
    let is_recording = std::env::var_os("WARREN_RECORD_GOLDEN").is_some();
    let give_up = Instant::now() + DEADLINE;
    for (resource, path) in RESOURCES {
        let mut seen = Keys::new();
        loop {
            let found = keys_of(&api, path);
            if is_recording {
                // All that was ever there until the figures have come.
                for (path, kinds) in found {
                    seen.entry(path).or_insert(kinds);
                }
                if Instant::now() < give_up {
                    continue;
                }
                let file: Map<_, _> = seen.into_iter().map(|(path, kinds)| (path, Value::from(kinds))).collect();
                let text = serde_json::to_string_pretty(&file).expect("JSON");
                std::fs::write(folder().join(format!("{resource}.json")), text + "\n").expect("written");
                break;
            }
            seen = found;
            let expected = golden(resource);
            let missing: Vec<_> = expected.keys().filter(|path| !seen.contains_key(*path)).collect();
            let other: Vec<_> = seen
                .iter()
                .filter(|(path, kinds)| expected.get(*path).is_none_or(|known| !agree(known, kinds)))
                .collect();
            if missing.is_empty() && other.is_empty() {
                break;
            }
            assert!(Instant::now() < give_up, "{resource}: not there: {missing:?}; not in the file: {other:?}");
        }
    }
    tear_down(&api);
}
