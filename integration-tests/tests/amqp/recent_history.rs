//! Exchanges of the type x-recent-history: whoever is bound later gets the last messages.

use crate::support::*;
use integration_tests::id;
use integration_tests::process::Broker;
use integration_tests::raw::Raw;
use integration_tests::unique;
use integration_tests::wire::{Bytes, NO_PROPERTIES, PERSISTENT, Reader};

const DURABLE: u8 = 2;
const TYPE: &str = "x-recent-history";

fn length(length: u32) -> Vec<u8> {
    Bytes::new().field("x-recent-history-length", b'I').long(length).done()
}

#[track_caller]
fn declare(raw: &mut Raw, bits: u8, arguments: &[u8]) -> String {
    let name = unique("exchange");
    raw.send_exchange(1, &name, TYPE, bits, arguments);
    raw.expect(1, id::EXCHANGE_DECLARE_OK);
    name
}

/// Binds a new queue and returns what it gets of the history.
#[track_caller]
fn history(raw: &mut Raw, exchange: &str) -> Vec<String> {
    let queue = raw.exclusive_queue(1);
    raw.bind(1, &queue, exchange, "", &[]);
    taken(raw, &queue)
}

#[track_caller]
fn taken(raw: &mut Raw, queue: &str) -> Vec<String> {
    let mut bodies = Vec::new();
    while let Some(message) = raw.get(1, queue, true) {
        assert!(!message.redelivered);
        bodies.push(message.text().to_owned());
    }
    bodies
}

fn open(broker: &Broker) -> Raw {
    let mut raw = Raw::connect(broker.address());
    raw.login("guest", "guest");
    raw.open("/");
    raw.open_channel(1);
    raw
}

fn skipped() -> bool {
    peer_is_set("RabbitMQ's plugin is off")
}

#[test]
fn a_queue_bound_later_gets_the_last_messages() {
    if skipped() {
        return;
    }
    let server = server();
    let mut raw = server.channel();
    let exchange = declare(&mut raw, 0, &length(3));
    let early = raw.exclusive_queue(1);
    raw.bind(1, &early, &exchange, "ignored", &[]);
    for body in numbers(5) {
        raw.publish(1, (exchange.as_str(), "any key"), 0, NO_PROPERTIES, body.as_bytes());
    }
    assert_eq!(history(&mut raw, &exchange), ["2", "3", "4"]);
    assert_eq!(taken(&mut raw, &early), numbers(5));
    // Each binding is one that came later, of the same queue as well.
    raw.bind(1, &early, &exchange, "another", &[]);
    raw.bind(1, &early, &exchange, "another", &[]);
    assert_eq!(taken(&mut raw, &early), ["2", "3", "4"]);
    let no_store = Bytes::new().short(1 << 13).table(Bytes::new().field("x-recent-history-no-store", b't').octet(1));
    raw.publish(1, (exchange.as_str(), ""), 0, no_store.as_ref(), b"not kept");
    assert_eq!(taken(&mut raw, &early), ["not kept"]);
    assert_eq!(history(&mut raw, &exchange), ["2", "3", "4"]);
    let queue = raw.exclusive_queue(1);
    raw.bind(1, &queue, &exchange, "", &[]);
    let message = raw.get(1, &queue, true).expect("a message");
    assert_eq!((message.exchange, message.routing_key), (exchange, "any key".to_owned()));
}

#[test]
fn twenty_are_kept_when_nobody_says_how_many() {
    if skipped() {
        return;
    }
    let server = server();
    let mut raw = server.channel();
    let exchange = declare(&mut raw, 0, &[]);
    // Nobody is bound.
    for body in numbers(25) {
        raw.publish(1, (exchange.as_str(), ""), 0, NO_PROPERTIES, body.as_bytes());
    }
    assert_eq!(history(&mut raw, &exchange), numbers(25)[5..]);
    // An exchange gets it as well, and leads it on.
    let fanout = unique("exchange");
    raw.exchange(1, &fanout, "fanout", 0);
    let queue = raw.exclusive_queue(1);
    raw.bind(1, &queue, &fanout, "", &[]);
    let arguments = Bytes::new().short(0).shortstr(&fanout).shortstr(&exchange).shortstr("").octet(0).table([]);
    raw.call(1, id::EXCHANGE_BIND, arguments, id::EXCHANGE_BIND_OK);
    assert_eq!(taken(&mut raw, &queue), numbers(25)[5..]);
}

#[test]
fn a_transaction_is_part_of_it_after_the_commit() {
    if skipped() {
        return;
    }
    let server = server();
    let mut raw = server.channel();
    let exchange = declare(&mut raw, DURABLE, &length(5));
    raw.call(1, id::TX_SELECT, [], id::TX_SELECT_OK);
    raw.publish(1, (exchange.as_str(), ""), 0, PERSISTENT, b"taken back");
    raw.call(1, id::TX_ROLLBACK, [], id::TX_ROLLBACK_OK);
    raw.publish(1, (exchange.as_str(), ""), 0, PERSISTENT, b"committed");
    assert!(history(&mut raw, &exchange).is_empty());
    raw.call(1, id::TX_COMMIT, [], id::TX_COMMIT_OK);
    assert_eq!(history(&mut raw, &exchange), ["committed"]);
}

#[test]
fn the_length_must_be_positive() {
    if skipped() {
        return;
    }
    let server = server();
    let mut raw = server.channel();
    let text = Bytes::new().field("x-recent-history-length", b'S').longstr("3").done();
    for (arguments, value) in [(length(0), "0"), (length(u32::MAX), "-1"), (text, "<<\"3\">>")] {
        raw.send_exchange(1, "refused", TYPE, 0, &arguments);
        let rest = "'x-recent-history-length' must be a positive integer";
        let text = format!("PRECONDITION_FAILED - Invalid argument {value}, {rest}");
        raw.expect_channel_close(1, 406, &text, id::EXCHANGE_DECLARE);
        raw.open_channel(1);
    }
}

#[test]
fn the_history_survives_a_crash_and_goes_with_its_exchange() {
    if skipped() {
        return;
    }
    let broker = launch().start();
    let mut raw = open(&broker);
    raw.call(1, id::CONFIRM_SELECT, [0], id::CONFIRM_SELECT_OK);
    let exchange = declare(&mut raw, DURABLE, &length(4));
    for body in numbers(10) {
        raw.publish(1, (exchange.as_str(), ""), 0, PERSISTENT, body.as_bytes());
    }
    while Reader::new(&raw.expect(1, id::BASIC_ACK)).longlong() < 10 {}
    let broker = broker.kill9().start();
    let mut raw = open(&broker);
    assert_eq!(history(&mut raw, &exchange), numbers(10)[6..]);
    raw.call(1, id::CONFIRM_SELECT, [0], id::CONFIRM_SELECT_OK);
    raw.publish(1, (exchange.as_str(), ""), 0, NO_PROPERTIES, b"10");
    raw.expect(1, id::BASIC_ACK);
    let broker = broker.restart();
    let mut raw = open(&broker);
    assert_eq!(history(&mut raw, &exchange), numbers(11)[7..]);
    raw.call(1, id::EXCHANGE_DELETE, Bytes::new().short(0).shortstr(&exchange).octet(0), id::EXCHANGE_DELETE_OK);
    raw.send_exchange(1, &exchange, TYPE, DURABLE, &length(4));
    raw.expect(1, id::EXCHANGE_DECLARE_OK);
    assert!(history(&mut raw, &exchange).is_empty());
}

#[test]
fn dead_letters_are_part_of_it() {
    if skipped() {
        return;
    }
    let broker = launch().start();
    let mut raw = open(&broker);
    let exchange = declare(&mut raw, DURABLE, &length(2));
    let arguments = Bytes::new().field("x-dead-letter-exchange", b'S').longstr(&exchange).done();
    let dying = unique("dying");
    raw.send_declare(1, &dying, DURABLE, &arguments);
    raw.expect(1, id::QUEUE_DECLARE_OK);
    raw.call(1, id::CONFIRM_SELECT, [0], id::CONFIRM_SELECT_OK);
    for body in numbers(3) {
        raw.publish(1, ("", dying.as_str()), 0, PERSISTENT, body.as_bytes());
        raw.expect(1, id::BASIC_ACK);
        let message = raw.get(1, &dying, false).expect("a message");
        raw.method(1, id::BASIC_REJECT, Bytes::new().longlong(message.tag).octet(0));
    }
    // Nobody was bound, and they have left their queue all the same.
    raw.declare(1, &unique("queue"), DURABLE);
    assert_eq!(history(&mut raw, &exchange), ["1", "2"]);
    let broker = broker.kill9().start();
    let mut raw = open(&broker);
    assert!(raw.get(1, &dying, true).is_none());
    assert_eq!(history(&mut raw, &exchange), ["1", "2"]);
}

/// What a transaction itself pushes out of the history again is no longer in the store either.
#[test]
fn a_long_transaction_leaves_no_more_than_the_history() {
    if skipped() {
        return;
    }
    let broker = launch().start();
    let dir = broker.launch().home().join("data");
    let _launch = broker.launch().clone();
    let mut raw = open(&broker);
    let exchange = declare(&mut raw, DURABLE, &length(20));
    raw.call(1, id::TX_SELECT, [], id::TX_SELECT_OK);
    for _ in 0..3 {
        for body in numbers(100) {
            raw.publish(1, (exchange.as_str(), ""), 0, PERSISTENT, body.as_bytes());
        }
        raw.call(1, id::TX_COMMIT, [], id::TX_COMMIT_OK);
    }
    drop(raw);
    assert!(broker.terminate().status.success());
    let verify = launch().listen(None).data_dir(None).flag("log").flag("verify");
    let finished = verify.flag(dir.to_str().expect("a path in UTF-8")).run();
    assert!(finished.stdout.contains("20 messages in"), "{finished:?}");
}
