//! Overview, checks, report, completions, and a broker elsewhere.

use crate::{BINARY, Rabbitmqctl, connect, start};
use integration_tests::process::Launch;

#[test]
fn health_checks_have_rabbitmqs_names_and_exit_codes() {
    let broker = start();
    let ctl = Rabbitmqctl::named(&broker, "rabbitmq-diagnostics");
    let port = broker.address().port().to_string();
    for check in [
        "ping",
        "check_running",
        "check_local_alarms",
        "check_alarms",
        "check_port_connectivity",
        "check_virtual_hosts",
        "check_if_node_is_quorum_critical",
        "check_if_metadata_store_is_initialized",
        "is_running",
        "alarms",
        "listeners",
        "memory_breakdown",
        "server_version",
        "status",
        "cluster_status",
        "environment",
        "list_unresponsive_queues",
        "list_feature_flags",
        "list_deprecated_features",
    ] {
        assert!(!ctl.done(&[check]).is_empty(), "{check}");
    }
    ctl.done(&["check_port_listener", &port]);
    ctl.fails(69, &["check_port_listener", "1"]);
    ctl.done(&["check_protocol_listener", "amqp"]);
    ctl.fails(69, &["check_protocol_listener", "mqtt"]);
    assert_eq!(ctl.done(&["-q", "server_version"]), "4.3.6\n");
    ctl.done(&["set_alarm", "disk"]);
    ctl.fails(69, &["check_alarms"]);
    ctl.fails(69, &["check_local_alarms"]);
    assert!(ctl.done(&["alarms"]).contains("Free disk space alarm"));
    ctl.done(&["clear_alarm", "disk"]);
    ctl.done(&["stop_app"]);
    ctl.fails(69, &["check_running"]);
    ctl.done(&["start_app"]);
    ctl.fails(75, &["await_online_nodes", "2"]);
    ctl.done(&["shutdown"]);
    assert!(broker.wait().status.success());
}

#[test]
fn channels_and_consumers_are_listed() {
    let broker = start();
    let ctl = Rabbitmqctl::of(&broker);
    let mut raw = connect(&broker);
    raw.open_channel(1);
    raw.declare(1, "q", 2);
    raw.consume(1, "q", "tag", 2);
    let columns = ["number", "user", "vhost", "confirm", "consumer_count", "messages_unacknowledged"];
    let shown = ctl.done(&[&["list_channels", "--silent"], columns.as_slice()].concat());
    assert_eq!(shown, "1\tguest\t/\tfalse\t1\t0\n");
    let shown = ctl.done(&["list_consumers", "--silent", "queue_name", "consumer_tag", "ack_required", "active"]);
    assert_eq!(shown, "q\ttag\tfalse\ttrue\n");
    let json = ctl.done(&["list_queues", "--formatter", "json", "name", "arguments"]);
    assert_eq!(json, "[\n{\"arguments\":[[\"x-queue-type\",\"longstr\",\"classic\"]],\"name\":\"q\"}\n]\n");
    // The process of a channel names that of its connection, which can be closed.
    let connection = ctl.done(&["list_channels", "--silent", "connection"]);
    ctl.done(&["close_connection", connection.trim(), "because"]);
    raw.expect(0, integration_tests::id::CONNECTION_CLOSE);
}

#[test]
fn the_overview_has_it_all_on_one_page() {
    let broker = start();
    let ctl = Rabbitmqctl::of(&broker);
    let mut raw = connect(&broker);
    raw.open_channel(1);
    raw.declare(1, "orders", 2);
    let page = ctl.done(&[]);
    for part in ["Warren", "Alarms", "1 connections, 1 channels", "orders", "amqp on 127.0.0.1"] {
        assert!(page.contains(part), "{part} is not in\n{page}");
    }
    assert!(!page.contains('\u{1b}'), "a pipe has no colours");
    let coloured = ctl.done(&["--color", "always", "overview"]);
    assert!(coloured.contains("\u{1b}[1m"), "{coloured}");
}

#[test]
fn a_report_has_no_secrets() {
    let broker = Launch::new(BINARY).config("[default_user]\npassword = 'sesame-open'").start();
    let ctl = Rabbitmqctl::of(&broker);
    ctl.done(&["add_user", "ann", "ann-secret"]);
    ctl.done(&["set_global_parameter", "uri", r#""amqp://ann:ann-secret@h""#]);
    let hash = ctl.done(&["-q", "export_definitions", "-"]);
    let definitions: serde_json::Value = serde_json::from_str(&hash).expect("JSON");
    let hashes: Vec<_> =
        definitions["users"].as_array().expect("users").iter().map(|user| &user["password_hash"]).collect();
    assert_eq!(hashes.len(), 2);
    let report = ctl.done(&["report"]);
    for part in ["== Queues", "== Settings", "storage.data_dir", "\"ann\"", "warren@"] {
        assert!(report.contains(part), "{part} is not in\n{report}");
    }
    for hash in hashes {
        assert!(!report.contains(hash.as_str().expect("a hash")));
    }
    for secret in ["sesame-open", "ann-secret", "password_hash"] {
        assert!(!report.contains(secret), "{secret}");
    }
}

#[test]
fn shells_get_their_completions() {
    let broker = start();
    let ctl = Rabbitmqctl::of(&broker);
    for shell in ["bash", "zsh", "fish"] {
        assert!(ctl.done(&["completions", shell]).contains("list_queues"), "{shell}");
    }
    ctl.fails(64, &["completions", "csh"]);
}

#[test]
fn a_broker_elsewhere_is_asked_over_http() {
    let broker = Launch::new(BINARY).config("[management]\nlisten = '127.0.0.1:0'").start();
    let ctl = Rabbitmqctl::of(&broker);
    let listeners = ctl.done(&["listeners"]);
    let http = listeners.lines().find(|line| line.contains("protocol: http")).expect("HTTP");
    let port = http.split("port: ").nth(1).and_then(|rest| rest.split(',').next()).expect("a port");
    let scheme = concat!("http", "://");
    let uri = format!("{scheme}guest:guest@127.0.0.1:{port}");
    ctl.done(&["--uri", &uri, "add_user", "ann", "secret"]);
    ctl.done(&["--uri", &uri, "set_permissions", "ann", ".*", ".*", ".*"]);
    let users = ctl.done(&["--uri", &uri, "list_users", "--silent"]);
    assert_eq!(users, "ann\t[]\nguest\t[administrator]\n");
    assert!(ctl.done(&["--uri", &uri, "status"]).contains("alarms       none"));
    assert!(ctl.done(&["--uri", &uri]).contains("Warren"));
    ctl.done(&["--uri", &uri, "check_port_connectivity"]);
    ctl.fails(69, &["--uri", &format!("{scheme}guest:wrong@127.0.0.1:{port}"), "list_users"]);
    ctl.fails(69, &["--uri", &format!("{scheme}ann:secret@127.0.0.1:{port}"), "list_users"]);
    ctl.fails(64, &["--uri", "gopher://h", "list_users"]);
}
