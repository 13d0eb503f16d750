//! Messages of another broker.

use crate::{Rabbitmqctl, connect, start};
use integration_tests::process::Broker;
use integration_tests::raw::Raw;

const DURABLE: u8 = 2;

fn uri(broker: &Broker) -> String {
    format!("amqp://guest:guest@{}/%2f", broker.address())
}

fn open(broker: &Broker) -> Raw {
    let mut raw = connect(broker);
    raw.open_channel(1);
    raw
}

/// Moves `queue` of one to the other.
fn drain(ctl: &Rabbitmqctl<'_>, from: &Broker, to: &Broker, queue: &str, more: &[&str]) -> (String, String, i32) {
    let (from, to) = (uri(from), uri(to));
    ctl.told(&[&["drain", "--from", &from, "--to", &to, "--queue", queue], more].concat())
}

#[test]
fn every_message_arrives_as_it_was_and_in_order() {
    let (old, new) = (start(), start());
    let ctl = Rabbitmqctl::of(&new);
    let (mut from, mut to) = (open(&old), open(&new));
    from.declare(1, "q", DURABLE);
    to.declare(1, "q", DURABLE);
    // More than two batches; some of a size that takes several frames.
    let body = |number: usize| {
        let len = if number.is_multiple_of(100) { 300_000 } else { number % 7 };
        [format!("{number} ").into_bytes(), vec![b'.'; len]].concat()
    };
    for number in 0..450 {
        from.publish(1, ("", "q"), 0, b"\x90\x00\x03a/b\x02", &body(number));
    }
    from.fence(1);
    let (shown, complaint, code) = drain(&ctl, &old, &new, "q", &[]);
    assert_eq!((shown.as_str(), code), ("450 messages were moved from queue \"q\"\n", 0), "{complaint}");
    for number in 0..450 {
        let moved = to.get(1, "q", true).expect("a message");
        assert_eq!(moved.content.body, body(number), "{number}");
        assert_eq!(moved.content.properties, b"\x90\x00\x03a/b\x02");
        assert!(!moved.redelivered);
    }
    assert!(from.get(1, "q", true).is_none());
    // Nothing is left to do.
    assert_eq!(drain(&ctl, &old, &new, "q", &[]).0, "0 messages were moved from queue \"q\"\n");
}

#[test]
fn what_the_other_side_does_not_take_stays_where_it_was() {
    let (old, new) = (start(), start());
    let ctl = Rabbitmqctl::of(&new);
    let (mut from, mut to) = (open(&old), open(&new));
    from.declare(1, "q", DURABLE);
    for number in 0..5 {
        from.publish(1, ("", "q"), 0, b"\x00\x00", format!("{number}").as_bytes());
    }
    from.fence(1);
    let (_, complaint, code) = drain(&ctl, &old, &new, "q", &[]);
    assert_eq!(code, 69);
    assert!(complaint.contains("nobody gets a message to exchange \"\" with key \"q\": NO_ROUTE"), "{complaint}");
    // They come back when the broker sees that the connection has ended, which may be after the end of the command.
    let wait_for_five = |from: &mut Raw| while from.declare(1, "q", DURABLE).1 < 5 {};
    wait_for_five(&mut from);

    to.send_declare(
        1,
        "full",
        DURABLE,
        b"\x0cx-max-lengthI\x00\x00\x00\x02\x0ax-overflowS\x00\x00\x00\x0ereject-publish",
    );
    to.expect(1, integration_tests::id::QUEUE_DECLARE_OK);
    let (_, complaint, code) = drain(&ctl, &old, &new, "q", &["--to-queue", "full"]);
    assert!(code == 69 && complaint.contains("has refused one"), "{complaint}");
    // Of a batch that was cut off nothing is acknowledged: what arrived is there twice, and says so.
    wait_for_five(&mut from);
    assert!(from.get(1, "q", true).expect("a message").redelivered);
    for (from, queue) in [("amqp://guest:wrong@127.0.0.1:1", "q"), ("amqps://h", "q"), ("nonsense", "q")] {
        assert_eq!(ctl.told(&["drain", "--from", from, "--to", &uri(&new), "--queue", queue]).2, 69, "{from}");
    }
    assert_eq!(ctl.told(&["drain", "--queue", "q"]).2, 64);
}

#[test]
fn a_message_goes_to_one_queue_or_where_it_was_published_to() {
    let (old, new) = (start(), start());
    let ctl = Rabbitmqctl::of(&new);
    let (mut from, mut to) = (open(&old), open(&new));
    from.declare(1, "q", DURABLE);
    from.bind(1, "q", "amq.topic", "a.*", &[]);
    for queue in ["q", "by-topic", "x"] {
        to.declare(1, queue, DURABLE);
    }
    to.bind(1, "by-topic", "amq.topic", "a.b", &[]);
    let publish = |from: &mut Raw| {
        from.publish(
            1,
            ("amq.topic", "a.b"),
            0,
            b"\x20\x00\x00\x00\x00\x0d\x02CCA\x00\x00\x00\x05S\x00\x00\x00\x00",
            b"m",
        );
        from.fence(1);
    };
    publish(&mut from);
    assert_eq!(drain(&ctl, &old, &new, "q", &["--original-address"]).2, 0);
    let moved = to.get(1, "by-topic", true).expect("a message");
    assert_eq!((moved.exchange.as_str(), moved.routing_key.as_str()), ("amq.topic", "a.b"));
    publish(&mut from);
    assert_eq!(drain(&ctl, &old, &new, "q", &[]).2, 0);
    // Without the header that would copy it to other queues once more.
    let moved = to.get(1, "q", true).expect("a message");
    assert_eq!(moved.content.properties, b"\x20\x00\x00\x00\x00\x00");
    assert!(to.get(1, "by-topic", true).is_none());
}
