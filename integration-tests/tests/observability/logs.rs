//! The log: its formats, what it says of connections, and how it is changed while the broker runs.

use integration_tests::process::{Broker, Launch};
use integration_tests::raw::Raw;
use serde_json::Value;
use std::process::Command;

const BINARY: &str = env!("CARGO_BIN_EXE_warren-under-test");

fn launch() -> Launch {
    Launch::new(BINARY)
}

fn client(broker: &Broker) -> Raw {
    let mut raw = Raw::connect(broker.address());
    raw.login("guest", "guest");
    raw.open("/");
    raw
}

/// Runs `warren ctl`; the exit code.
#[track_caller]
fn ctl(broker: &Broker, words: &[&str]) -> i32 {
    let data_dir = broker.launch().home().join("data");
    let output = Command::new(BINARY).arg("ctl").arg("--data-dir").arg(data_dir).args(words).output().expect("it runs");
    output.status.code().expect("an exit code")
}

#[test]
fn a_connection_is_in_the_log_with_rabbitmqs_words() {
    let broker = launch().start();
    client(&broker).close();
    broker.wait_for_log(&[" INFO ", "user 'guest' authenticated and granted access to vhost '/'"]);
    let line = broker.wait_for_log(&[" INFO ", "closing AMQP connection (", "vhost: '/', user: 'guest', duration: '"]);
    assert!(line.contains(&format!(" -> {}", broker.address())), "{line}");
    client(&broker).abort();
    broker.wait_for_log(&[" WARN ", "closing AMQP connection (", "client unexpectedly closed TCP connection"]);
    let mut raw = Raw::connect(broker.address());
    raw.login("guest", "guest");
    raw.abort();
    broker.wait_for_log(&[" WARN ", "before its login was complete"]);
}

#[test]
fn lines_of_json_have_connection_and_user() {
    let broker = launch().config("[log]\nformat = 'json'").start();
    let mut raw = client(&broker);
    raw.open_channel(1);
    raw.send_declare(1, "nobody has \"it\"", 1, &[]);
    raw.channel_close(1);
    raw.close();
    let closed = broker.wait_for_log(&["channel closed"]);
    broker.wait_for_log(&["closing AMQP connection"]);
    for line in broker.log().lines() {
        let object: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        for field in ["timestamp", "level", "target", "message"] {
            assert!(object[field].is_string(), "{field}: {line}");
        }
    }
    let object: Value = serde_json::from_str(&closed).expect("JSON");
    assert_eq!((&object["user"], &object["vhost"], &object["channel"]), (&"guest".into(), &"/".into(), &1.into()));
    assert!(object["connection"].is_u64() && object["peer"].is_string(), "{closed}");
    assert!(object["error"].as_str().is_some_and(|error| error.contains("NOT_FOUND")), "{closed}");
}

#[test]
fn the_level_changes_while_the_broker_runs() {
    let broker = launch().config("[log]\nlevel = 'warn'").start();
    client(&broker).close();
    assert_eq!(ctl(&broker, &["set_log_level", "loud"]), 69);
    assert_eq!(ctl(&broker, &["set_log_level", "info"]), 0);
    client(&broker).close();
    broker.wait_for_log(&["granted access"]);
    assert_eq!(ctl(&broker, &["set_log_level", "error"]), 0);
    client(&broker).close();
    assert_eq!(ctl(&broker, &["set_log_level", "broker::session=info"]), 0);
    client(&broker).close();
    let log = broker.terminate().stderr;
    // Neither the first one nor the third.
    assert_eq!(log.matches("granted access").count(), 2, "{log}");
}

#[test]
fn slow_operations_are_logged() {
    // No machine declares ten thousand queues in a millisecond.
    let broker = launch().config("[log]\nslow_ms = 1").start();
    let queue = |number| {
        format!("{{\"name\":\"q{number}\",\"vhost\":\"/\",\"durable\":false,\"auto_delete\":false,\"arguments\":{{}}}}")
    };
    let queues: Vec<String> = (0..10_000).map(queue).collect();
    let file = broker.launch().home().join("definitions.json");
    std::fs::write(&file, format!("{{\"queues\":[{}]}}", queues.join(","))).expect("written");
    assert_eq!(ctl(&broker, &["import_definitions", file.to_str().expect("a path in UTF-8")]), 0);
    let line = broker.wait_for_log(&[" WARN ", "slow operation", "management request"]);
    assert!(line.contains("POST /api/definitions") && line.contains("took_ms="), "{line}");
}
