//! Delayed messages while the broker is killed: before they are due, on their way into queues, and as dead letters.

use crate::open;
use integration_tests::id;
use integration_tests::peer::Peer;
use integration_tests::process::Launch;
use integration_tests::raw::Raw;
use integration_tests::wire::{Bytes, Reader};
use std::collections::HashSet;

const EXCHANGE: &str = "delaying";
const DYING: &str = "dying";
const QUEUES: [&str; 2] = ["one", "two"];
const MESSAGES: u64 = 4000;
const DURABLE: u8 = 2;

/// Milliseconds, in no order; the shortest are over before the last is published.
fn delay(number: u64) -> u32 {
    1 + u32::try_from(number * 7919 % 2000).expect("below 2000")
}

/// Every other message goes to a queue first, dies there, and is delayed as a dead letter.
fn publish(raw: &mut Raw, number: u64) {
    let headers = Bytes::new().field("x-delay", b'I').long(delay(number));
    let body = number.to_string();
    if number.is_multiple_of(2) {
        let properties = Bytes::new().short((1 << 13) | (1 << 12)).table(headers).octet(2).done();
        raw.publish(1, (EXCHANGE, ""), 0, &properties, body.as_bytes());
    } else {
        let flags = (1 << 13) | (1 << 12) | (1 << 8);
        let expiration = (number % 300).to_string();
        let properties = Bytes::new().short(flags).table(headers).octet(2).shortstr(expiration).done();
        raw.publish(1, ("", DYING), 0, &properties, body.as_bytes());
    }
}

#[test]
fn each_delayed_message_comes_once_to_each_queue() {
    if Peer::from_env().is_some() {
        println!("skipped on the peer: it kills the broker");
        return;
    }
    let mut broker = Launch::new(env!("CARGO_BIN_EXE_warren-under-test")).start();
    let mut raw = open(broker.address());
    let inner = Bytes::new().field("x-delayed-type", b'S').longstr("fanout").done();
    raw.send_exchange(1, EXCHANGE, "x-delayed-message", DURABLE, &inner);
    raw.expect(1, id::EXCHANGE_DECLARE_OK);
    for queue in QUEUES {
        raw.declare(1, queue, DURABLE);
        raw.bind(1, queue, EXCHANGE, "", &[]);
    }
    let dead_letters = Bytes::new().field("x-dead-letter-exchange", b'S').longstr(EXCHANGE).done();
    raw.send_declare(1, DYING, DURABLE, &dead_letters);
    raw.expect(1, id::QUEUE_DECLARE_OK);
    raw.call(1, id::CONFIRM_SELECT, [0], id::CONFIRM_SELECT_OK);
    (1..=MESSAGES).for_each(|number| publish(&mut raw, number));
    while Reader::new(&raw.expect(1, id::BASIC_ACK)).longlong() < MESSAGES {}
    for part in [4, 2] {
        // In the middle of it: as many have come as were to come by then, and more are on their way.
        while u64::from(raw.declare(1, QUEUES[1], DURABLE).1) < MESSAGES / part {}
        broker = broker.kill9().start();
        raw = open(broker.address());
    }
    for queue in QUEUES {
        // One after the other: deliveries to the first consumer would come before the answer about the second.
        raw.consume(1, queue, queue, 2);
        let mut seen = HashSet::new();
        while seen.len() < MESSAGES as usize {
            let message = raw.delivery(1);
            assert_eq!(message.consumer, queue);
            let number: u64 = message.text().parse().expect("one of ours");
            assert!((1..=MESSAGES).contains(&number));
            assert!(seen.insert(number), "{number} came to {queue} twice");
        }
    }
    raw.fence(1);
    assert!(raw.get(1, DYING, true).is_none());
}
