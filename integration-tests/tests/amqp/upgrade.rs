//! The data of every version there was serves its clients as before.
//!
//! The directories are in `storage/tests/fixtures`, with a list of the messages in them. A change of a format adds those of its
//! version: `WARREN_FIXTURE=v2 cargo test -p warren-integration-tests --test amqp upgrade`.

use crate::archive;
use crate::support::*;
use integration_tests::id;
use integration_tests::process::{Broker, Launch};
use integration_tests::raw::{Delivery, Raw};
use integration_tests::wire::{Bytes, PERSISTENT, Reader};
use std::fs;
use std::path::{Path, PathBuf};

const DURABLE: u8 = 2;
const INTERNAL: u8 = 8;
const VHOST: &str = "shop";
const QUEUES: [&str; 4] = ["orders", "copies", "audit", "large"];
const USERS: &str = r#"
[storage]
segment_bytes = 65536
pool_segments = 1

[[vhost]]
name = "shop"

[[user]]
name = "ann"
password = "secret"
tags = ["monitoring"]

[[permission]]
user = "guest"
vhost = "shop"
configure = ".*"
write = ".*"
read = ".*"

[[permission]]
user = "ann"
vhost = "shop"
configure = "^ann\\."
write = "orders"
read = ".*"
"#;

fn open(broker: &Broker, user: &str, password: &str) -> Raw {
    let mut raw = Raw::connect(broker.address());
    raw.login(user, password);
    raw.open(VHOST);
    raw.open_channel(1);
    raw
}

/// Arguments of one queue and of one binding.
fn arguments() -> Vec<u8> {
    Bytes::new().field("x-queue-type", b'S').longstr("classic").field("note", b'S').longstr("by hand").done()
}

fn headers() -> Vec<u8> {
    Bytes::new().field("kind", b'S').longstr("copy").field("x-match", b'S').longstr("all").done()
}

/// Every property there is; the message lives for ten years.
fn properties() -> Vec<u8> {
    let headers = Bytes::new().field("kind", b'S').longstr("copy").field("n", b'l').longlong(7).done();
    Bytes::new()
        .short(0xFFF8)
        .shortstr("text/plain")
        .shortstr("identity")
        .table(headers)
        .octet(2)
        .octet(9)
        .shortstr("correlation")
        .shortstr("reply")
        .shortstr("315360000000")
        .shortstr("message")
        .longlong(1_700_000_000)
        .shortstr("order")
        .shortstr("guest")
        .shortstr("shop")
        .done()
}

/// Declares everything. On what is there already it succeeds only if that is equal.
fn declare(raw: &mut Raw) {
    for kind in ["direct", "fanout", "topic", "headers"] {
        let alternate = Bytes::new().field("alternate-exchange", b'S').longstr("in").done();
        raw.send_exchange(1, kind, kind, DURABLE, &alternate);
        raw.expect(1, id::EXCHANGE_DECLARE_OK);
    }
    raw.exchange(1, "in", "fanout", DURABLE | INTERNAL);
    for queue in QUEUES {
        raw.send_declare(1, queue, DURABLE, &if queue == "audit" { arguments() } else { Vec::new() });
        raw.expect(1, id::QUEUE_DECLARE_OK);
    }
}

fn bind(raw: &mut Raw) {
    raw.bind(1, "orders", "topic", "order.*.#", &[]);
    raw.bind(1, "audit", "in", "", &[]);
    raw.bind(1, "copies", "headers", "", &headers());
    let through = Bytes::new().short(0).shortstr("headers").shortstr("topic").shortstr("order.copy").octet(0).table([]);
    raw.call(1, id::EXCHANGE_BIND, through, id::EXCHANGE_BIND_OK);
}

/// Routing key, properties and body of every message that is published to the topic exchange.
fn messages() -> Vec<(&'static str, Vec<u8>, Vec<u8>)> {
    let mut messages = Vec::new();
    for number in 0..12 {
        let body = format!("message {number}").into_bytes();
        match number % 4 {
            // To orders, and through the other exchange to copies.
            0 => messages.push(("order.copy", properties(), body)),
            1 => messages.push(("order.new", PERSISTENT.to_vec(), body)),
            // Nobody wants it: the alternate exchange has it.
            2 => messages.push(("lost", PERSISTENT.to_vec(), body)),
            _ => messages.push(("order.new.big", PERSISTENT.to_vec(), [body, vec![b'.'; 5000]].concat())),
        }
    }
    messages
}

/// Fills a broker: publishes, takes some away, gives some back.
fn fill(raw: &mut Raw) {
    declare(raw);
    bind(raw);
    raw.call(1, id::CONFIRM_SELECT, [0], id::CONFIRM_SELECT_OK);
    let mut tag = 0;
    let mut publish = |raw: &mut Raw, address, properties: &[u8], body: &[u8]| {
        raw.publish(1, address, 0, properties, body);
        tag += 1;
        assert_eq!(Reader::new(&raw.expect(1, id::BASIC_ACK)).longlong(), tag);
    };
    for (key, properties, body) in messages() {
        publish(raw, ("topic", key), &properties, &body);
    }
    publish(raw, ("", "large"), PERSISTENT, &vec![b'.'; 1_100_000]);
    publish(raw, ("", "large"), PERSISTENT, &vec![b'!'; 1_200_000]);
    let expires = Bytes::new().short(0x1100).octet(2).shortstr("1").done();
    publish(raw, ("", "large"), &expires, b"its time is over");
    let settle = |raw: &mut Raw, queue, method, bits: &[u8]| {
        let taken = raw.get(1, queue, false).expect("a message");
        raw.method(1, method, Bytes::new().longlong(taken.tag).raw(bits));
    };
    settle(raw, "orders", id::BASIC_ACK, &[0]);
    settle(raw, "large", id::BASIC_ACK, &[0]);
    settle(raw, "copies", id::BASIC_NACK, &[2]);
    // Its confirm comes when all of that is on the disk.
    publish(raw, ("topic", "order.last"), PERSISTENT, b"last");
    // Never committed.
    raw.open_channel(2);
    raw.call(2, id::TX_SELECT, [], id::TX_SELECT_OK);
    raw.publish(2, ("", "orders"), 0, PERSISTENT, b"in a transaction");
    raw.fence(2);
}

/// What a queue should hold, as the list has it.
fn list(clean: bool) -> String {
    let mut lines = String::new();
    let mut line = |queue: &str, key: &str, properties: &[u8], body: &[u8], redelivered: bool| {
        lines.push_str(&format_line(queue, key, properties, body, redelivered || !clean));
    };
    let all = messages();
    let begins = |prefix: &'static str| move |(key, ..): &&(&str, Vec<u8>, Vec<u8>)| key.starts_with(prefix);
    for (key, properties, body) in all.iter().filter(begins("order.")).skip(1) {
        line("orders", key, properties, body, false);
    }
    line("orders", "order.last", PERSISTENT, b"last", false);
    for (at, (key, properties, body)) in all.iter().filter(begins("order.copy")).enumerate() {
        line("copies", key, properties, body, at == 0);
    }
    for (key, properties, body) in all.iter().filter(begins("lost")) {
        line("audit", key, properties, body, false);
    }
    line("large", "large", PERSISTENT, &vec![b'!'; 1_200_000], false);
    lines
}

fn format_line(queue: &str, key: &str, properties: &[u8], body: &[u8], redelivered: bool) -> String {
    let hex: String = properties.iter().map(|byte| format!("{byte:02x}")).collect();
    let head = String::from_utf8_lossy(body.get(..20).unwrap_or(body)).into_owned();
    format!("{queue}: {key}, {hex}, {} octets: {head}, redelivered {redelivered}\n", body.len())
}

fn take_all(raw: &mut Raw) -> String {
    let mut lines = String::new();
    for queue in QUEUES {
        while let Some(message) = raw.get(1, queue, true) {
            let Delivery { routing_key, redelivered, content, .. } = &message;
            assert_eq!(message.exchange, if queue == "large" { "" } else { "topic" });
            lines.push_str(&format_line(queue, routing_key, &content.properties, &content.body, *redelivered));
        }
    }
    lines
}

fn check(archive: &[u8], list: &str, name: &str) {
    let launch = launch();
    let data = launch.home().join("data");
    fs::create_dir(&data).expect("the data directory");
    archive::unpack(archive, &data);
    let broker = launch.start();
    // Users, permissions and topology, as they were.
    let mut ann = open(&broker, "ann", "secret");
    ann.send_declare(1, "bob.queue", DURABLE, &[]);
    assert_eq!(ann.channel_close(1).code, 403, "{name}");
    ann.open_channel(1);
    let mut raw = open(&broker, "guest", "guest");
    declare(&mut raw);
    assert_eq!(take_all(&mut raw), list, "{name}");
    // The bindings lead where they led, and the broker goes on.
    let (key, properties, body) = messages().swap_remove(0);
    raw.publish(1, ("topic", key), 0, &properties, &body);
    raw.publish(1, ("topic", "lost"), 0, PERSISTENT, b"again");
    raw.fence(1);
    for queue in ["orders", "copies", "audit"] {
        assert!(raw.get(1, queue, true).is_some(), "{name}: {queue}");
    }
    assert!(broker.terminate().status.success(), "{name}");
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../storage/tests/fixtures")
}

#[test]
fn data_of_every_version_is_served() {
    if peer_is_set("it starts on data of Warren's") {
        return;
    }
    let mut count = 0;
    for entry in fs::read_dir(fixtures()).expect("the fixtures") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "broker") {
            let list = fs::read_to_string(path.with_extension("broker.txt")).expect("the list of what is in it");
            let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
            check(&fs::read(&path).expect("the archive"), &list, &name);
            count += 1;
        }
    }
    assert!(count >= 2, "{count} fixtures");
}

/// What this version writes, this version reads. With `WARREN_FIXTURE` it is kept, for the versions to come.
#[test]
fn data_of_this_version_can_be_kept() {
    if peer_is_set("it looks at data of Warren's") {
        return;
    }
    for clean in [true, false] {
        let broker = launch().config(USERS).start();
        let mut raw = open(&broker, "guest", "guest");
        fill(&mut raw);
        let home: Launch = if clean {
            drop(raw);
            let launch = broker.launch().clone();
            assert!(broker.terminate().status.success());
            launch
        } else {
            broker.kill9()
        };
        let archive = archive::pack(&home.home().join("data"));
        assert!(archive.len() < 50_000, "too big to be kept: {}", archive.len());
        let list = list(clean);
        check(&archive, &list, if clean { "clean" } else { "killed" });
        if let Ok(version) = std::env::var("WARREN_FIXTURE") {
            let kind = if clean { "clean" } else { "killed" };
            let path = fixtures().join(format!("{version}-{kind}.broker"));
            fs::write(&path, archive).expect("the archive can be written");
            fs::write(path.with_extension("broker.txt"), list).expect("the list can be written");
        }
    }
}
