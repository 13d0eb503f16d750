//! `warren bench`, for scripts: each mode ends by itself, with one JSON object as the last line.

use crate::start;
use integration_tests::process::Broker;
use serde_json::Value;
use std::process::{Command, Output};

fn run(broker: &Broker, flags: &[&str]) -> Output {
    let uri = format!("amqp://guest:guest@{}/%2f", broker.address());
    let pid = broker.id().to_string();
    Command::new(env!("CARGO_BIN_EXE_warren-under-test"))
        .args(["bench", "--uri", &uri, "--broker-pid", &pid, "--duration", "0.3", "--warmup", "0", "--json"])
        .args(flags)
        .output()
        .expect("it runs")
}

#[track_caller]
fn figures(broker: &Broker, flags: &[&str]) -> Value {
    let output = run(broker, flags);
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{flags:?}: {stdout}{stderr}");
    let last = stdout.lines().last().expect("a last line");
    serde_json::from_str(last).unwrap_or_else(|error| panic!("{flags:?}: {error}: {last}"))
}

#[track_caller]
fn is_positive(value: &Value) {
    assert!(value.as_f64().is_some_and(|number| number > 0.0), "{value}");
}

#[test]
fn a_load_says_what_went_through() {
    let broker = start();
    let object = figures(
        &broker,
        &[
            "--persistent",
            "--confirm",
            "100",
            "--ack-every",
            "10",
            "--producers",
            "2",
            "--consumers",
            "2",
            "--queues",
            "2",
        ],
    );
    for name in ["published", "confirmed", "consumed", "seconds", "published_rate", "consumed_rate"] {
        is_positive(&object[name]);
    }
    is_positive(&object["confirm_latency_us"]["p50"]);
    is_positive(&object["latency_us"]["max"]);
    is_positive(&object["broker_rss_peak_bytes"]);
    assert_eq!(object["nacked"], 0);
}

#[test]
fn what_comes_and_goes_is_counted() {
    let broker = start();
    for kind in ["connection", "channel", "queue"] {
        for pipeline in ["1", "20"] {
            let object = figures(&broker, &["--churn", kind, "--pipeline", pipeline]);
            assert_eq!(object["churn"]["kind"], kind);
            is_positive(&object["churn"]["rate"]);
            is_positive(&object["churn"]["latency_us"]["p50"]);
        }
    }
}

#[test]
fn what_is_held_is_there_and_goes() {
    let broker = start();
    for kind in ["connection", "channel", "queue"] {
        let object = figures(&broker, &["--hold", kind, "--count", "100"]);
        assert_eq!((&object["hold"]["kind"], &object["hold"]["count"]), (&Value::from(kind), &Value::from(100)));
        is_positive(&object["hold"]["broker_rss_bytes_after"]);
    }
    // The broker allows 2,047 channels.
    let output = run(&broker, &["--hold", "channel", "--count", "3000"]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("the broker allows 2047 channels on a connection"));
}

#[test]
fn the_machine_is_measured_without_a_broker() {
    let output = Command::new(env!("CARGO_BIN_EXE_warren-under-test"))
        .args(["bench", "--echo", "--json"])
        .output()
        .expect("it runs");
    assert!(output.status.success());
    let object: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    is_positive(&object["echo"]["round_trips_per_second"]);
    is_positive(&object["echo"]["connections_per_second"]);
    is_positive(&object["echo"]["server_cpu_us"]);
}
