//! `warren log`, on directories that the broker wrote.

use crate::support::*;
use integration_tests::id;
use integration_tests::process::{Broker, Finished};
use integration_tests::raw::Raw;
use integration_tests::wire::{Bytes, PERSISTENT};
use std::fs;
use std::path::{Path, PathBuf};

const DURABLE: u8 = 2;

fn log(action: &str, dir: &Path, more: &[&str]) -> Finished {
    let start = launch().listen(None).data_dir(None).flag("log").flag(action);
    let named = start.flag(dir.to_str().expect("a path in UTF-8"));
    more.iter().fold(named, |launch, flag| launch.flag(*flag)).run()
}

/// A broker with two queues, and where its data is.
fn filled() -> (Broker, PathBuf) {
    let broker = launch().start();
    let dir = broker.launch().home().join("data");
    let mut raw = Raw::connect(broker.address());
    raw.login("guest", "guest");
    raw.open("/");
    raw.open_channel(1);
    raw.exchange(1, "events", "topic", DURABLE);
    for queue in ["orders", "audit"] {
        raw.declare(1, queue, DURABLE);
        raw.bind(1, queue, "events", "order.#", &[]);
    }
    raw.call(1, id::CONFIRM_SELECT, [0], id::CONFIRM_SELECT_OK);
    for body in ["first order", "second order", "third order"] {
        raw.publish(1, ("events", "order.new"), 0, PERSISTENT, body.as_bytes());
        raw.expect(1, id::BASIC_ACK);
    }
    let taken = raw.get(1, "orders", false).expect("a message");
    raw.method(1, id::BASIC_ACK, Bytes::new().longlong(taken.tag).octet(0));
    raw.fence(1);
    (broker, dir)
}

#[test]
fn the_log_of_a_stopped_broker_can_be_read() {
    if peer_is_set("it reads a directory of Warren's") {
        return;
    }
    let (broker, dir) = filled();
    // The directory lives as long as this.
    let _launch = broker.launch().clone();
    for action in ["verify", "dump"] {
        let Finished { status, stdout, stderr } = log(action, &dir, &[]);
        assert_eq!((status.code(), stdout.as_str()), (Some(2), ""));
        assert_eq!(stderr, format!("warren: data directory {} is in use by a running broker\n", dir.display()));
    }
    assert!(log("dump", &dir, &["--force"]).status.success());
    assert!(broker.terminate().status.success());

    let Finished { status, stdout, stderr } = log("verify", &dir, &[]);
    assert_eq!(status.code(), Some(0), "{stdout}{stderr}");
    assert!(stdout.contains("\n5 messages in 2 queues, ") && stdout.ends_with("\nno damage\n"), "{stdout}");
    let stdout = log("verify", &dir, &["--json"]).stdout;
    assert!(stdout.contains("\"messages\": 5,") && stdout.contains("\"damage\": []"), "{stdout}");

    let everything = log("dump", &dir, &[]).stdout;
    for part in [
        r#"put topic exchange \"events\" in vhost \"/\""#,
        r#"put binding from \"events\" to queue \"orders\" with key \"order.#\" in vhost \"/\""#,
        r#"put user \"guest\" with a password and tags [\"administrator\"]"#,
        r#" enqueue vhost="/" queue="audit" seq="#,
        " clean_stop=true",
    ] {
        assert!(everything.contains(part), "{part}: {everything}");
    }
    assert!(!everything.contains("first order"), "bodies are shown on demand only");
    let orders = log("dump", &dir, &["--queue", "orders", "--bodies"]).stdout;
    let lines: Vec<_> = orders.lines().map(|line| line.split_once(" lsn=").expect("a position").1).collect();
    let [declared, first, _, third, settled] = lines[..] else { panic!("{orders}") };
    assert!(declared.contains(r#"topology changes=["put queue \"orders\" (id "#), "{declared}");
    let told = r#" enqueue vhost="/" queue="orders" seq=1 "#;
    assert!(first.contains(told), "{first}");
    let told = r#"exchange="events" routing_key="order.new" body_bytes=11 body="third order""#;
    assert!(third.contains(told) || third.contains("body_at="), "{third}");
    assert!(settled.ends_with(r#" settle vhost="/" queue="orders" seqs="1-1""#), "{settled}");
    let json = log("dump", &dir, &["--queue", "orders", "--json"]).stdout;
    assert_eq!(json.lines().count(), 5);
    assert!(json.lines().all(|line| line.starts_with(r#"{"#) && line.contains(r#""type":"#)), "{json}");
    assert_eq!(log("dump", &dir, &["--segment", "ff"]).stdout, "");
}

#[test]
fn damage_is_named_with_its_queue() {
    if peer_is_set("it reads a directory of Warren's") {
        return;
    }
    let (broker, dir) = filled();
    // The directory lives as long as this.
    let _launch = broker.launch().clone();
    assert!(broker.terminate().status.success());
    let (segment, mut bytes, at) = fs::read_dir(dir.join("log"))
        .expect("the log")
        .find_map(|entry| {
            let path = entry.expect("an entry").path();
            let bytes = fs::read(&path).expect("the file");
            let at = bytes.windows(12).position(|window| window == b"second order")?;
            Some((path, bytes, at))
        })
        .expect("the message");
    bytes[at] ^= 1;
    fs::write(&segment, bytes).expect("written");
    let Finished { status, stdout, .. } = log("verify", &dir, &[]);
    assert_eq!(status.code(), Some(1), "{stdout}");
    for queue in ["orders", "audit"] {
        let named = format!(r#", queue "{queue}" in vhost "/", messages 2 to 2: the bytes of messages are damaged"#);
        assert!(stdout.contains(&named), "{named}: {stdout}");
    }
    assert!(stdout.contains(&format!("damage: {}, offset ", segment.display())), "{stdout}");
    assert!(log("dump", &dir, &[]).stdout.contains(" DAMAGED entries=1\n"));
    let Finished { status, stderr, .. } = log("verify", &dir.join("log"), &[]);
    assert_eq!(status.code(), Some(2));
    assert_eq!(stderr, format!("warren: {} is no data directory: it has no log\n", dir.join("log").display()));
}
