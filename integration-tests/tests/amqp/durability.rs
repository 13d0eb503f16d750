//! What is still there after a restart, a clean one and a crash.

use crate::support::*;
use integration_tests::id;
use integration_tests::process::Broker;
use integration_tests::raw::{Close, Raw};
use integration_tests::wire::{Bytes, NO_PROPERTIES, PERSISTENT, Reader};

const DURABLE: u8 = 2;

/// The ways in which a broker ends here.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Clean,
    Crash,
}

impl End {
    const BOTH: [Self; 2] = [Self::Clean, Self::Crash];

    fn restart(self, broker: Broker) -> Broker {
        match self {
            Self::Clean => broker.restart(),
            Self::Crash => broker.kill9().start(),
        }
    }
}

fn open(broker: &Broker) -> Raw {
    let mut raw = Raw::connect(broker.address());
    raw.login("guest", "guest");
    raw.open("/");
    raw.open_channel(1);
    raw
}

/// A channel in confirm mode, on a new connection.
fn confirming(broker: &Broker) -> Raw {
    let mut raw = open(broker);
    raw.call(1, id::CONFIRM_SELECT, [0], id::CONFIRM_SELECT_OK);
    raw
}

/// Publishes and waits for the confirms of all of it.
fn publish_all(raw: &mut Raw, first_tag: u64, queue: &str, bodies: &[String]) {
    for body in bodies {
        raw.publish(1, ("", queue), 0, PERSISTENT, body.as_bytes());
    }
    wait_confirmed(raw, first_tag + bodies.len() as u64 - 1);
}

/// Reads confirms up to `last`; they must come in one piece or in order.
fn wait_confirmed(raw: &mut Raw, last: u64) {
    loop {
        let arguments = raw.expect(1, id::BASIC_ACK);
        if Reader::new(&arguments).longlong() == last {
            return;
        }
    }
}

/// Everything ready, in order, with its redelivered flag.
fn take_all(raw: &mut Raw, queue: &str) -> Vec<(String, bool)> {
    let mut messages = Vec::new();
    while let Some(message) = raw.get(1, queue, true) {
        messages.push((message.text().to_owned(), message.redelivered));
    }
    messages
}

fn bodies(messages: &[(String, bool)]) -> Vec<&str> {
    messages.iter().map(|(body, _)| body.as_str()).collect()
}

fn exists(raw: &mut Raw, queue: &str) -> bool {
    raw.send_declare(1, queue, 1, &[]);
    let frame = raw.read();
    if frame.id() == Some(id::QUEUE_DECLARE_OK) {
        return true;
    }
    assert_eq!(frame.id(), Some(id::CHANNEL_CLOSE), "{frame:?}");
    assert_eq!(Reader::new(frame.arguments()).short(), 404);
    raw.method(1, id::CHANNEL_CLOSE_OK, []);
    raw.open_channel(1);
    false
}

#[test]
fn durable_topology_survives_and_transient_does_not() {
    if peer_is_set("it restarts the broker") {
        return;
    }
    for end in End::BOTH {
        let broker = launch().start();
        let mut raw = open(&broker);
        raw.exchange(1, "kept", "topic", DURABLE);
        raw.exchange(1, "sink", "fanout", DURABLE);
        raw.exchange(1, "lost", "fanout", 0);
        raw.declare(1, "kept", DURABLE);
        raw.declare(1, "lost", 0);
        raw.declare(1, "mine", DURABLE | 4);
        raw.bind(1, "kept", "kept", "direct.*", &[]);
        raw.bind(1, "lost", "kept", "direct.*", &[]);
        raw.bind(1, "kept", "lost", "", &[]);
        let arguments =
            Bytes::new().short(0).shortstr("sink").shortstr("kept").shortstr("through.*").octet(0).table([]);
        raw.call(1, id::EXCHANGE_BIND, arguments, id::EXCHANGE_BIND_OK);
        raw.bind(1, "kept", "sink", "", &[]);
        let headers = Bytes::new().field("a", b'S').longstr("1").done();
        raw.bind(1, "kept", "amq.headers", "", &headers);

        let broker = end.restart(broker);
        let mut raw = open(&broker);
        raw.exchange(1, "kept", "topic", DURABLE);
        raw.exchange(1, "sink", "fanout", DURABLE);
        raw.send_exchange(1, "lost", "fanout", 1, &[]);
        assert_eq!(raw.channel_close(1).code, 404, "{end:?}");
        raw.open_channel(1);
        raw.declare(1, "kept", DURABLE);
        assert!(!exists(&mut raw, "lost"), "{end:?}");
        assert!(!exists(&mut raw, "mine"), "{end:?}");
        let with_header = Bytes::new().short(1 << 13).table(headers).done();
        for (exchange, key, properties) in [
            ("kept", "direct.a", NO_PROPERTIES),
            ("kept", "through.a", NO_PROPERTIES),
            ("kept", "nowhere", NO_PROPERTIES),
            ("amq.headers", "by header", &with_header),
        ] {
            raw.publish(1, (exchange, key), 0, properties, key.as_bytes());
        }
        let messages = take_all(&mut raw, "kept");
        assert_eq!(bodies(&messages), ["direct.a", "through.a", "by header"], "{end:?}");
    }
}

#[test]
fn every_answer_about_topology_is_a_promise() {
    if peer_is_set("it kills the broker") {
        return;
    }
    let mut broker = launch().start();
    for round in 0..3 {
        let (queue, gone) = (format!("queue-{round}"), format!("gone-{round}"));
        let mut raw = open(&broker);
        raw.declare(1, &gone, DURABLE);
        raw.exchange(1, &gone, "fanout", DURABLE);
        raw.declare(1, &queue, DURABLE);
        raw.bind(1, &queue, "amq.topic", "key", &[]);
        raw.bind(1, &queue, "amq.topic", "undone", &[]);
        let unbind = Bytes::new().short(0).shortstr(&queue).shortstr("amq.topic").shortstr("undone").table([]);
        raw.call(1, id::QUEUE_UNBIND, unbind, id::QUEUE_UNBIND_OK);
        let name = Bytes::new().short(0).shortstr(&gone).octet(0).done();
        raw.call(1, id::EXCHANGE_DELETE, &name, id::EXCHANGE_DELETE_OK);
        raw.call(1, id::QUEUE_DELETE, &name, id::QUEUE_DELETE_OK);

        broker = broker.kill9().start();
        let mut raw = open(&broker);
        assert!(!exists(&mut raw, &gone));
        raw.send_exchange(1, &gone, "fanout", 1, &[]);
        assert_eq!(raw.channel_close(1).code, 404);
        raw.open_channel(1);
        raw.publish(1, ("amq.topic", "key"), 0, NO_PROPERTIES, b"bound");
        raw.publish(1, ("amq.topic", "undone"), 0, NO_PROPERTIES, b"unbound");
        assert_eq!(bodies(&take_all(&mut raw, &queue)), ["bound"]);
        let name = Bytes::new().short(0).shortstr(&queue).octet(0);
        raw.call(1, id::QUEUE_DELETE, name, id::QUEUE_DELETE_OK);
    }
}

#[test]
fn confirmed_messages_survive_in_order_with_everything_they_had() {
    if peer_is_set("it restarts the broker") {
        return;
    }
    let properties = Bytes::new()
        .short(0b1011_0010_1000_0000)
        .shortstr("type")
        .table(Bytes::new().field("z", b'I').long(1).field("a", b'V'))
        .octet(2)
        .shortstr("reply")
        .shortstr("id")
        .done();
    for end in End::BOTH {
        let broker = launch().start();
        let mut raw = confirming(&broker);
        raw.declare(1, "one", DURABLE);
        raw.declare(1, "two", DURABLE);
        for queue in ["one", "two"] {
            raw.bind(1, queue, "amq.fanout", "", &[]);
        }
        let large = "x".repeat(300_000);
        for body in ["0", "", &large] {
            raw.publish(1, ("amq.fanout", "key"), 0, &properties, body.as_bytes());
        }
        raw.publish(1, ("amq.fanout", ""), 0, NO_PROPERTIES, b"transient");
        raw.publish(1, ("amq.fanout", "key"), 0, &properties, b"last");
        wait_confirmed(&mut raw, 5);

        let broker = end.restart(broker);
        let mut raw = open(&broker);
        for queue in ["one", "two"] {
            for body in ["0", "", &large, "last"] {
                let message = raw.get(1, queue, true).expect("a message");
                assert_eq!(message.text(), body, "{end:?}");
                assert_eq!(message.content.properties, properties);
                assert_eq!(message.exchange, "amq.fanout");
                assert_eq!(message.routing_key, "key");
                if end == End::Clean {
                    assert!(!message.redelivered);
                }
            }
            assert!(raw.get(1, queue, true).is_none(), "{end:?}");
        }
    }
}

#[test]
fn what_was_delivered_comes_back_as_redelivered() {
    if peer_is_set("it restarts the broker") {
        return;
    }
    let broker = launch().start();
    let mut raw = confirming(&broker);
    raw.declare(1, "queue", DURABLE);
    publish_all(&mut raw, 1, "queue", &numbers(5));
    raw.get(1, "queue", false).expect("a message");
    raw.get(1, "queue", false).expect("a message");
    let broker = broker.restart();
    let messages = take_all(&mut open(&broker), "queue");
    let expected = [true, true, false, false, false];
    let flags: Vec<_> = messages.iter().map(|(_, flag)| *flag).collect();
    assert_eq!(bodies(&messages), numbers(5));
    assert_eq!(flags, expected);
}

#[test]
fn acknowledged_messages_do_not_come_back() {
    if peer_is_set("it restarts the broker") {
        return;
    }
    for end in End::BOTH {
        let broker = launch().start();
        let mut raw = confirming(&broker);
        raw.declare(1, "queue", DURABLE);
        publish_all(&mut raw, 1, "queue", &numbers(100));
        for _ in 0..100 {
            raw.get(1, "queue", false).expect("a message");
        }
        // One by one, except each tenth and the last ten; then the first ten in one go.
        for tag in (1..=90u64).filter(|tag| tag % 10 != 0) {
            let ack = Bytes::new().longlong(tag).octet(0);
            raw.method(1, id::BASIC_ACK, ack);
        }
        let ack = Bytes::new().longlong(10).octet(1);
        raw.method(1, id::BASIC_ACK, ack);
        let mut back: Vec<_> = (2..=9).map(|ten| (ten * 10 - 1).to_string()).collect();
        back.extend((90..100).map(|number| number.to_string()));
        // A confirm says that everything before it is on disk as well.
        publish_all(&mut raw, 101, "queue", &["fence".to_owned()]);
        back.push("fence".to_owned());

        let broker = end.restart(broker);
        let messages = take_all(&mut open(&broker), "queue");
        assert_eq!(bodies(&messages), back, "{end:?}");
    }
}

#[test]
fn purged_and_deleted_messages_do_not_come_back() {
    if peer_is_set("it kills the broker") {
        return;
    }
    let broker = launch().start();
    let mut raw = confirming(&broker);
    for queue in ["purged", "deleted"] {
        raw.declare(1, queue, DURABLE);
    }
    publish_all(&mut raw, 1, "purged", &numbers(50));
    publish_all(&mut raw, 51, "deleted", &numbers(50));
    let name = |queue: &str| Bytes::new().short(0).shortstr(queue).octet(0);
    raw.call(1, id::QUEUE_PURGE, name("purged"), id::QUEUE_PURGE_OK);
    raw.call(1, id::QUEUE_DELETE, name("deleted"), id::QUEUE_DELETE_OK);
    // A queue of the same name is another queue.
    raw.declare(1, "deleted", DURABLE);
    publish_all(&mut raw, 101, "deleted", &["new".to_owned()]);
    let broker = broker.kill9().start();
    let mut raw = open(&broker);
    assert!(take_all(&mut raw, "purged").is_empty());
    assert_eq!(bodies(&take_all(&mut raw, "deleted")), ["new"]);
}

#[test]
fn the_ready_line_counts_what_was_recovered() {
    if peer_is_set("it restarts the broker") {
        return;
    }
    let broker = launch().start();
    assert!(broker.ready_line().contains("0 queues, 0 messages"), "{}", broker.ready_line());
    let mut raw = confirming(&broker);
    for queue in ["one", "two", "three"] {
        raw.declare(1, queue, DURABLE);
    }
    publish_all(&mut raw, 1, "one", &numbers(7));
    publish_all(&mut raw, 8, "two", &numbers(5));
    let broker = broker.restart();
    assert!(broker.ready_line().contains("3 queues, 12 messages"), "{}", broker.ready_line());
}

#[test]
fn a_clean_stop_tells_the_clients() {
    if peer_is_set("it stops the broker") {
        return;
    }
    for interrupt in [false, true] {
        let broker = launch().start();
        let mut raw = open(&broker);
        let finished = if interrupt { broker.interrupt() } else { broker.terminate() };
        assert!(finished.status.success(), "{finished:?}");
        let text = "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'";
        assert_eq!(raw.connection_close(), Close::new(320, text, (0, 0)));
        raw.expect_end();
    }
}

#[test]
fn a_queue_can_be_used_across_many_restarts() {
    if peer_is_set("it restarts the broker") {
        return;
    }
    let mut broker = launch().start();
    let mut expected = std::collections::VecDeque::new();
    for round in 0..6 {
        let mut raw = confirming(&broker);
        raw.declare(1, "queue", DURABLE);
        let new: Vec<_> = (0..20).map(|n| format!("{round}-{n}")).collect();
        expected.extend(new.iter().cloned());
        publish_all(&mut raw, 1, "queue", &new);
        for _ in 0..10 {
            let message = raw.get(1, "queue", false).expect("a message");
            assert_eq!(Some(message.text().to_owned()), expected.pop_front());
        }
        raw.method(1, id::BASIC_ACK, Bytes::new().longlong(10).octet(1));
        raw.publish(1, ("", "queue"), 0, PERSISTENT, b"fence");
        expected.push_back("fence".to_owned());
        wait_confirmed(&mut raw, 21);
        let end = End::BOTH[round % 2];
        broker = end.restart(broker);
    }
    let messages = take_all(&mut open(&broker), "queue");
    assert_eq!(bodies(&messages), expected.make_contiguous());
}

#[test]
fn a_second_launch_on_another_directory_knows_nothing() {
    if peer_is_set("it starts two brokers") {
        return;
    }
    let first = launch().start();
    open(&first).declare(1, "queue", DURABLE);
    let second = launch().start();
    assert!(!exists(&mut open(&second), "queue"));
}

#[test]
fn priorities_survive_in_order() {
    if peer_is_set("it restarts the broker") {
        return;
    }
    for end in End::BOTH {
        let broker = launch().start();
        let mut raw = confirming(&broker);
        raw.send_declare(1, "q", DURABLE, Bytes::new().field("x-max-priority", b'B').octet(200).as_ref());
        raw.expect(1, id::QUEUE_DECLARE_OK);
        let priority = |number: u64| (number * 77 % 256) as u8;
        for number in 0..600 {
            // Delivery-mode and priority.
            let properties = Bytes::new().short(0x1800).octet(2).octet(priority(number)).done();
            raw.publish(1, ("", "q"), 0, &properties, number.to_string().as_bytes());
        }
        wait_confirmed(&mut raw, 600);
        let mut expected: Vec<u64> = (0..600).collect();
        expected.sort_by_key(|number| (200 - priority(*number).min(200), *number));
        let mut raw = open(&broker);
        for number in &expected[..100] {
            assert_eq!(raw.get(1, "q", true).expect("a message").text(), number.to_string());
        }
        // The settlements are as durable as what comes after them.
        raw.send_declare(1, "later", DURABLE, &[]);
        raw.expect(1, id::QUEUE_DECLARE_OK);
        drop(raw);
        let broker = end.restart(broker);
        let mut raw = open(&broker);
        let left = take_all(&mut raw, "q");
        assert_eq!(bodies(&left), expected[100..].iter().map(u64::to_string).collect::<Vec<_>>(), "{end:?}");
        assert!(left.iter().all(|(_, redelivered)| *redelivered == (end == End::Crash)), "{end:?}");
        // Nothing of a deleted one comes back, in no level.
        raw.publish(1, ("", "q"), 0, &[0x18, 0, 2, 9], b"x");
        raw.call(1, id::QUEUE_DELETE, Bytes::new().short(0).shortstr("q").octet(0), id::QUEUE_DELETE_OK);
        let broker = end.restart(broker);
        let mut raw = open(&broker);
        assert!(!exists(&mut raw, "q"));
    }
}
