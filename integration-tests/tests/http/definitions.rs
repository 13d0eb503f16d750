//! Definitions: what real brokers export, files at the start, uploads, and crashes.

use crate::client::{GUEST, Server, start};
use integration_tests::process::{Broker, Launch};
use serde_json::{Value, json};
use std::io::Write;
use std::process::{Command, Stdio};

/// Exported by RabbitMQ 4.3.6.
const RABBITMQ_4_3: &str = include_str!("definitions/rabbitmq-4.3.json");
/// As RabbitMQ 3.13 exports it, with all that 4.x has not any more.
const RABBITMQ_3_13: &str = include_str!("definitions/rabbitmq-3.13.json");
/// `old:test12` in base64.
const OLD: &str = "b2xkOnRlc3QxMg==";

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}

/// Each part's entries in an order of their own.
fn sorted(definitions: &Value, part: &str) -> Vec<String> {
    let entries = definitions[part].as_array().expect("a list");
    let mut entries: Vec<String> = entries.iter().map(Value::to_string).collect();
    entries.sort_unstable();
    entries
}

/// Those entries alone that are in `vhost`, or have no virtual host.
fn only(definitions: &Value, part: &str, keep: impl Fn(&Value) -> bool) -> Value {
    let entries = definitions[part].as_array().expect("a list");
    json!({part: entries.iter().filter(|entry| keep(entry)).cloned().collect::<Value>()})
}

#[test]
fn an_export_of_rabbitmq_4_comes_in_and_out_again() {
    let server = start();
    let refused = server.expect(400, "POST", "/api/definitions", RABBITMQ_4_3);
    let reason = refused["reason"].as_str().expect("a reason");
    assert!(reason.starts_with("queues[") && reason.contains("(name \"stream\", vhost \"shop\"): "), "{reason}");
    server.expect(404, "GET", "/api/vhosts/shop", "");

    let told = server.expect(200, "POST", "/api/definitions?skip_unsupported=true", RABBITMQ_4_3);
    let skipped: Vec<&str> =
        told["skipped"].as_array().expect("a list").iter().filter_map(|skipped| skipped["entry"].as_str()).collect();
    assert_eq!(skipped.len(), 2, "{skipped:?}");
    assert!(skipped[0].contains("name \"stream\"") && skipped[1].contains("destination \"stream\""), "{skipped:?}");
    // Again changes nothing, and is no mistake.
    server.expect(204, "POST", "/api/definitions", &server.expect(200, "GET", "/api/definitions", "").to_string());

    let exported = server.expect(200, "GET", "/api/definitions", "");
    let given = parsed(RABBITMQ_4_3);
    let in_shop = |entry: &Value| entry["vhost"] == "shop";
    for part in ["policies", "parameters", "topic_permissions"] {
        assert_eq!(sorted(&only(&exported, part, in_shop), part), sorted(&only(&given, part, in_shop), part));
    }
    let not_stream = |entry: &Value| in_shop(entry) && entry["name"] != "stream" && entry["destination"] != "stream";
    for part in ["queues", "bindings"] {
        assert_eq!(sorted(&only(&exported, part, not_stream), part), sorted(&only(&given, part, not_stream), part));
    }
    let names = |definitions: &Value, part: &str, field: &str| {
        let entries = definitions[part].as_array().expect("a list").iter().filter(|entry| entry["user"] != "guest");
        let mut names: Vec<_> = entries.map(|entry| format!("{} {}", entry[field], entry["vhost"])).collect();
        names.sort_unstable();
        names
    };
    assert_eq!(names(&exported, "permissions", "user"), names(&given, "permissions", "user"));
    assert_eq!(names(&exported, "exchanges", "name"), names(&given, "exchanges", "name"));
    for user in given["users"].as_array().expect("users") {
        let path = format!("/api/users/{}", user["name"].as_str().expect("a name"));
        assert_eq!(server.expect(200, "GET", &path, ""), *user);
    }
    for vhost in given["vhosts"].as_array().expect("vhosts") {
        let mut shown = exported["vhosts"].as_array().expect("vhosts").iter();
        assert!(shown.any(|shown| shown == vhost), "{vhost}: {}", exported["vhosts"]);
    }
    assert_eq!(server.expect(200, "GET", "/api/global-parameters/note", "")["value"], json!({"a": [1, "x", true]}));
    // The default type goes for what does not say it, and for nothing else.
    server.expect(201, "PUT", "/api/queues/shop/new", "{}");
    assert_eq!(server.expect(200, "GET", "/api/queues/shop/new", "")["type"], "quorum");
    assert_eq!(server.expect(200, "GET", "/api/queues/shop/transient", "")["type"], "classic");
}

#[test]
fn an_export_of_rabbitmq_3_13_comes_in_without_what_is_gone() {
    let server = start();
    let first = server.expect(400, "POST", "/api/definitions", RABBITMQ_3_13)["reason"].to_string();
    assert!(
        first.contains("policies[0] (name \\\"ha-all\\\", vhost \\\"erp\\\"): ") && first.contains("ha-mode"),
        "{first}"
    );
    let told = server.expect(200, "POST", "/api/definitions?skip_unsupported=true", RABBITMQ_3_13);
    let skipped = told["skipped"].as_array().expect("a list");
    for wanted in [
        "policies[0] (name \"ha-all\"",
        "ha-mode, ha-params of policy \"ha-and-limits\"",
        "policies[2] (name \"federated\"",
        "parameters[0] (component \"shovel\", name \"mover\"",
        "parameters[1] (component \"federation-upstream\"",
        "exchanges[2] (name \"jms\"",
        "queues[2] (name \"app-log\"",
        "queues[3] (name \"amq.gen-",
        "bindings[2] (source \"later\"",
        "bindings[3] (source \"jms\"",
        "bindings[4] (source \"amq.topic\"",
    ] {
        let found =
            skipped.iter().filter(|skipped| skipped["entry"].as_str().is_some_and(|entry| entry.starts_with(wanted)));
        assert_eq!(found.count(), 1, "{wanted}: {skipped:?}");
    }
    assert_eq!(skipped.len(), 11, "{skipped:?}");
    let policies = server.expect(200, "GET", "/api/policies/erp", "");
    assert_eq!(policies[0]["definition"], json!({"max-length": 5000, "message-ttl": 86_400_000}));
    assert_eq!(policies.as_array().map(Vec::len), Some(1));
    assert_eq!(server.expect(200, "GET", "/api/exchanges/erp/later", "")["type"], "x-delayed-message");
    // A hash of RabbitMQ before 3.6.
    assert_eq!(server.ask_as(Some(OLD), "GET", "/api/whoami", "").body["name"], "old");
    let app = server.expect(200, "GET", "/api/users/app", "");
    assert_eq!((&app["tags"], &app["limits"]), (&json!(["monitoring"]), &json!({"max-connections": 20})));
    assert_eq!(server.expect(200, "GET", "/api/vhosts/erp", "")["default_queue_type"], "classic");
}

#[test]
fn a_mistake_anywhere_is_named_and_changes_nothing() {
    let server = start();
    let base = json!({
        "vhosts": [{"name": "v", "limits": {"max-queues": 2}}],
        "users": [{"name": "ann", "password": "secret", "tags": ""}],
        "exchanges": [{"vhost": "v", "name": "x", "type": "headers"}],
        "queues": [{"vhost": "v", "name": "q"}],
        "permissions": [], "topic_permissions": [], "policies": [], "parameters": [], "bindings": [],
    });
    let wrong = |part: &str, entry: Value, reason: &str| {
        let mut document = base.clone();
        document[part].as_array_mut().expect("a list").push(entry);
        let refused = server.expect(400, "POST", "/api/definitions", &document.to_string());
        assert!(refused["reason"].as_str().is_some_and(|text| text.contains(reason)), "{reason}: {refused}");
        server.expect(404, "GET", "/api/vhosts/v", "");
        server.expect(404, "GET", "/api/users/ann", "");
    };
    wrong("vhosts", json!({"name": ""}), "vhosts[1] (name \"\"): Bad argument: vhost cannot be an empty string");
    wrong(
        "vhosts",
        json!({"name": "w", "metadata": {"default_queue_type": "nosuch"}}),
        "nosuch is not a valid queue type",
    );
    wrong(
        "vhosts",
        json!({"name": "w", "limits": {"max-queues": "many"}}),
        "vhosts[1] (name \"w\"): max-queues should be a number",
    );
    wrong(
        "users",
        json!({"name": "eve", "password_hash": "AAAA"}),
        "users[1] (name \"eve\"): Bad argument: the password hash is not",
    );
    wrong(
        "users",
        json!({"name": "eve", "password_hash": "AAAA", "hashing_algorithm": "crc32"}),
        "hashing algorithm 'crc32' is not supported",
    );
    wrong(
        "permissions",
        json!({"user": "nobody", "vhost": "v", "configure": "", "write": "", "read": ""}),
        "there is no user \"nobody\"",
    );
    wrong(
        "permissions",
        json!({"user": "ann", "vhost": "v", "configure": "(", "write": "", "read": ""}),
        "permissions[0] (user \"ann\", vhost \"v\"): ",
    );
    wrong(
        "topic_permissions",
        json!({"user": "ann", "vhost": "v", "exchange": "y", "write": "", "read": ""}),
        "there is no exchange \"y\"",
    );
    wrong(
        "policies",
        json!({"vhost": "v", "name": "p", "pattern": "^a", "definition": {"nosuch": 1}}),
        "are not recognised policy settings",
    );
    wrong(
        "parameters",
        json!({"vhost": "v", "component": "shovel", "name": "s", "value": {}}),
        "component shovel not found",
    );
    wrong(
        "exchanges",
        json!({"vhost": "v", "name": "y", "type": "x-nosuch"}),
        "exchanges[1] (name \"y\", vhost \"v\"): precondition_failed: unknown exchange type 'x-nosuch'",
    );
    wrong(
        "exchanges",
        json!({"vhost": "v", "name": "d", "type": "x-delayed-message"}),
        "'x-delayed-type' must be an existing exchange type",
    );
    wrong(
        "queues",
        json!({"vhost": "w", "name": "r"}),
        "queues[1] (name \"r\", vhost \"w\"): there is no virtual host \"w\"",
    );
    wrong(
        "queues",
        json!({"vhost": "v", "name": "r", "arguments": {"x-max-length": -5}}),
        "invalid arg 'x-max-length' for queue 'r' in vhost 'v'",
    );
    wrong(
        "queues",
        json!({"vhost": "v", "name": "r", "auto_delete": true, "arguments": {"x-queue-type": "quorum"}}),
        "invalid property 'auto-delete'",
    );
    wrong(
        "bindings",
        json!({"vhost": "v", "source": "", "destination": "q", "destination_type": "queue"}),
        "not permitted on the default exchange",
    );
    wrong(
        "bindings",
        json!({"vhost": "v", "source": "x", "destination": "r", "destination_type": "queue"}),
        "there is no queue \"r\" in virtual host \"v\"",
    );
    wrong(
        "bindings",
        json!({"vhost": "v", "source": "x", "destination": "q", "destination_type": "queue", "arguments": {"x-match": 7}}),
        "bindings[0] (source \"x\", destination_type \"queue\", destination \"q\", vhost \"v\"): ",
    );
    let mut full = base.clone();
    full["queues"] = json!([{"vhost": "v", "name": "a"}, {"vhost": "v", "name": "b"}, {"vhost": "v", "name": "c"}]);
    let refused = server.expect(400, "POST", "/api/definitions", &full.to_string());
    let text = "Adding 3 queue(s) to virtual host \"v\" would exceed the limit of 2 queue(s).\n\nThis virtual host \
                currently has 0 queue(s) defined.\n\nImport aborted!";
    assert_eq!(refused["reason"], text);
    server.expect(404, "GET", "/api/vhosts/v", "");
    assert_eq!(server.expect(400, "POST", "/api/definitions", "nonsense")["reason"], "failed_to_parse_json");
    server.expect(204, "POST", "/api/definitions", &base.to_string());
    server.expect(200, "GET", "/api/queues/v/q", "");
}

#[test]
fn a_file_is_uploaded_as_browsers_do_it() {
    let server = start();
    let form = "--x1\r\nContent-Disposition: form-data; name=\"redirect\"\r\n\r\n../#/import-succeeded\r\n--x1\r\n\
                Content-Disposition: form-data; name=\"file\"; filename=\"d.json\"\r\nContent-Type: application/json\r\n\r\n\
                {\"vhosts\":[{\"name\":\"uploaded\"}]}\r\n--x1--\r\n";
    server.expect(204, "POST", "/api/definitions", form);
    server.expect(200, "GET", "/api/vhosts/uploaded", "");
    let only_queues =
        "--x1\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\n{\"queues\":[{\"name\":\"q\"}]}\r\n--x1--\r\n";
    server.expect(204, "POST", "/api/definitions/uploaded", only_queues);
    server.expect(200, "GET", "/api/queues/uploaded/q", "");
}

fn launch() -> Launch {
    Launch::new(env!("CARGO_BIN_EXE_warren-under-test"))
}

fn with_file(launch: Launch, options: &str, text: &str) -> Launch {
    let path = launch.home().join("definitions.json");
    std::fs::write(&path, text).expect("written");
    launch.other_config(&format!("[definitions]\nfile = '{}'\n{options}\n", path.display()))
}

/// Standard output of `rabbitmqctl`.
#[track_caller]
fn ctl(broker: &Broker, arguments: &[&str]) -> String {
    let home = broker.launch().home();
    let mut command = Command::new(env!("CARGO_BIN_EXE_warren-under-test"));
    command.args(["ctl", "-q", "--data-dir"]).arg(home.join("data")).args(arguments).stderr(Stdio::inherit());
    let output = command.output().expect("it runs");
    assert!(output.status.success(), "{arguments:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn a_file_is_imported_at_the_start() {
    let launch = launch();
    let broken =
        with_file(launch.clone(), "", r#"{"vhosts":[{"name":"v"}],"queues":[{"name":"q","vhost":"w"}]}"#).run();
    let said = broken.stderr;
    assert!(!broken.status.success() && said.contains("definitions.json"), "{said}");
    assert!(said.contains("queues[0] (name \"q\", vhost \"w\"): there is no virtual host \"w\""), "{said}");

    let broker = with_file(launch, "skip_unsupported = true", RABBITMQ_3_13).start();
    // No guest: the file has users.
    let users = ctl(&broker, &["list_users", "--silent"]);
    assert!(users.contains("old\t[administrator]") && !users.contains("guest"), "{users}");
    ctl(&broker, &["delete_queue", "-p", "erp", "app-orders"]);
    ctl(&broker, &["change_password", "app", "changed"]);
    let launch = broker.launch().clone();
    let ended = broker.terminate();
    let warned = ended.stderr.lines().filter(|line| line.contains("is left out")).count();
    assert_eq!(warned, 11, "{}", ended.stderr);

    // The same file again puts back what has changed, unless it is to be passed over then.
    let launch = with_file(launch, "skip_unsupported = true\nskip_if_unchanged = true", RABBITMQ_3_13);
    let broker = launch.start();
    assert!(!ctl(&broker, &["list_queues", "-p", "erp", "name"]).contains("app-orders"));
    ctl(&broker, &["authenticate_user", "app", "changed"]);
    let launch = broker.launch().clone();
    assert!(broker.terminate().status.success());
    let broker = with_file(launch, "skip_unsupported = true", RABBITMQ_3_13).start();
    assert!(ctl(&broker, &["list_queues", "-p", "erp", "name"]).contains("app-orders"));
    ctl(&broker, &["authenticate_user", "app", "test12"]);
    let launch = broker.launch().clone();
    assert!(broker.terminate().status.success());
    let launch = with_file(launch, "skip_if_unchanged = true", r#"{"vhosts":[{"name":"new"}]}"#);
    assert!(ctl(&launch.start(), &["list_vhosts", "name"]).contains("new"));
}

#[test]
fn a_kill_in_the_middle_leaves_all_or_nothing() {
    const QUEUES: usize = 2000;
    let queue = |number: usize| json!({"vhost": "v", "name": format!("q{number}")});
    let document = json!({"vhosts": [{"name": "v"}], "queues": (0..QUEUES).map(queue).collect::<Value>()}).to_string();
    let server: Server = start();
    let mut stream = server.open();
    let length = document.len();
    let head = format!(
        "POST /api/definitions HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {GUEST}\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).expect("written");
    stream.write_all(document.as_bytes()).expect("written");
    // As soon as anything of it can be seen.
    while server.ask("GET", "/api/vhosts/v", "").status != 200 {}
    let broker = server.broker.kill9().start();
    let vhosts = ctl(&broker, &["list_vhosts", "name"]);
    let queues = if vhosts.contains('v') {
        ctl(&broker, &["list_queues", "-p", "v", "name", "--silent"])
    } else {
        String::new()
    };
    assert!([0, QUEUES].contains(&queues.lines().count()), "{} queues", queues.lines().count());
}
