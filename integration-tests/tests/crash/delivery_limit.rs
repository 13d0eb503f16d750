//! kill -9 with messages of quorum queues out: what was counted stays counted, and what was out has come back in vain.

use crate::{SMALL, open};
use integration_tests::id;
use integration_tests::peer::Peer;
use integration_tests::process::{Broker, Launch};
use integration_tests::raw::{Delivery, Raw};
use integration_tests::wire::{Bytes, PERSISTENT, Reader};

const DURABLE: u8 = 2;
/// More than one read of a backlog.
const MESSAGES: u64 = 6000;
const HALF: u64 = MESSAGES / 2;
const QUEUE: &str = "counting";
const DEAD: &str = "dead";
const FENCE: &str = "fence";
/// In the property flags.
const HEADERS: u16 = 1 << 13;

/// A connection with a channel, and the deliveries confirmed there.
struct Client {
    raw: Raw,
    confirmed: u64,
}

impl Client {
    fn of(broker: &Broker) -> Self {
        let mut raw = open(broker.address());
        raw.call(1, id::CONFIRM_SELECT, [0], id::CONFIRM_SELECT_OK);
        Self { raw, confirmed: 0 }
    }

    fn publish(&mut self, queue: &str, properties: &[u8], body: &str) {
        self.raw.publish(1, ("", queue), 0, properties, body.as_bytes());
        self.confirmed += 1;
        let confirm = self.raw.expect(1, id::BASIC_ACK);
        assert_eq!(Reader::new(&confirm).longlong(), self.confirmed);
    }

    /// What the queue has handed out is durable afterwards.
    fn sync(&mut self) {
        // Whoever is at it has finished, and told the log.
        self.raw.send_declare(1, QUEUE, 1, &[]);
        self.raw.expect(1, id::QUEUE_DECLARE_OK);
        self.publish(FENCE, PERSISTENT, "");
    }

    fn declare(&mut self, limit: u32) {
        let arguments = Bytes::new().field("x-queue-type", b'S').longstr("quorum");
        let arguments = arguments.field("x-delivery-limit", b'I').long(limit);
        let arguments = arguments.field("x-dead-letter-exchange", b'S').longstr("");
        let arguments = arguments.field("x-dead-letter-routing-key", b'S').longstr(DEAD);
        self.raw.send_declare(1, QUEUE, DURABLE, arguments.as_ref());
        self.raw.expect(1, id::QUEUE_DECLARE_OK);
        self.raw.declare(1, DEAD, DURABLE);
        self.raw.declare(1, FENCE, DURABLE);
    }

    fn get(&mut self) -> Option<(Delivery, [i64; 2])> {
        let message = self.raw.get(1, QUEUE, false)?;
        let counts = counts(&message);
        assert_eq!(message.redelivered, counts[0] > 0);
        Some((message, counts))
    }

    /// Gets a message with these counts.
    #[track_caller]
    fn got(&mut self, body: &str, counts: [i64; 2]) -> u64 {
        let (message, found) = self.get().expect("a message");
        assert_eq!((message.text(), found), (body, counts));
        message.tag
    }

    fn reject(&mut self, tag: u64) {
        self.raw.method(1, id::BASIC_REJECT, Bytes::new().longlong(tag).octet(1));
    }

    fn nack(&mut self, tag: u64) {
        self.raw.method(1, id::BASIC_NACK, Bytes::new().longlong(tag).octet(2));
    }

    /// The dead letter that is there, or comes.
    fn dead(&mut self) -> String {
        loop {
            if let Some(message) = self.raw.get(1, DEAD, true) {
                return message.text().to_owned();
            }
        }
    }
}

/// x-acquired-count and x-delivery-count.
fn counts(message: &Delivery) -> [i64; 2] {
    let mut reader = Reader::new(&message.content.properties);
    if reader.short() & HEADERS == 0 {
        return [0, 0];
    }
    let headers = reader.longstr();
    let mut reader = Reader::new(headers);
    let mut counts = [0, 0];
    while !reader.rest().is_empty() {
        let name = reader.shortstr();
        assert_eq!(reader.octet(), b'l', "{name}");
        let at = ["x-acquired-count", "x-delivery-count"].iter().position(|known| *known == name);
        counts[at.expect("no other header")] = reader.longlong() as i64;
    }
    counts
}

#[test]
fn counts_survive_and_the_limit_holds() {
    if Peer::from_env().is_some() {
        println!("skipped on the peer: it kills the broker");
        return;
    }
    let mut broker = Launch::new(env!("CARGO_BIN_EXE_warren-under-test")).config(SMALL).start();
    let mut client = Client::of(&broker);
    client.declare(3);
    // They do not say that they are persistent.
    for body in ["a", "b", "c"] {
        client.publish(QUEUE, &[0, 0], body);
    }
    let tag = client.got("a", [0, 0]);
    client.reject(tag);
    let tag = client.got("a", [1, 1]);
    client.nack(tag);
    // It is out when the broker is killed; the others never were.
    client.got("a", [2, 1]);
    client.sync();
    broker = broker.kill9().start();
    client = Client::of(&broker);
    let tag = client.got("a", [3, 2]);
    client.got("b", [0, 0]);
    client.nack(tag);
    client.sync();
    broker = broker.kill9().start();
    client = Client::of(&broker);
    // Given back unharmed before: that counts as such.
    client.got("a", [4, 2]);
    client.got("b", [1, 1]);
    client.sync();
    // A clean stop ends the connection, which is in vain too.
    broker = broker.restart();
    client = Client::of(&broker);
    client.got("a", [5, 3]);
    client.got("b", [2, 2]);
    client.got("c", [0, 0]);
    client.sync();
    broker = broker.kill9().start();
    client = Client::of(&broker);
    client.got("b", [3, 3]);
    client.got("c", [1, 1]);
    assert!(client.get().is_none(), "the fourth delivery in vain was one too many");
    assert_eq!(client.dead(), "a");
}

#[test]
fn what_was_delivered_to_consumers_counts_as_well() {
    if Peer::from_env().is_some() {
        println!("skipped on the peer: it kills the broker");
        return;
    }
    let mut broker = Launch::new(env!("CARGO_BIN_EXE_warren-under-test")).config(SMALL).start();
    let mut client = Client::of(&broker);
    client.declare(1);
    for number in 0..MESSAGES {
        client.raw.publish(1, ("", QUEUE), 0, PERSISTENT, number.to_string().as_bytes());
    }
    while client.confirmed < MESSAGES {
        client.confirmed = Reader::new(&client.raw.expect(1, id::BASIC_ACK)).longlong();
    }
    // Half of it goes to a consumer, twice.
    for round in 0..2 {
        let mut consumer = open(broker.address());
        let prefetch = Bytes::new().long(0).short(HALF as u16).octet(0);
        consumer.call(1, id::BASIC_QOS, prefetch, id::BASIC_QOS_OK);
        consumer.consume(1, QUEUE, "", 0);
        for number in 0..HALF {
            let message = consumer.delivery(1);
            assert_eq!((message.text(), counts(&message)), (&*number.to_string(), [round, round]));
        }
        client.sync();
        broker = broker.kill9().start();
        client = Client::of(&broker);
    }
    for number in HALF..MESSAGES {
        client.got(&number.to_string(), [0, 0]);
    }
    assert!(client.get().is_none(), "the others came back too often");
    for number in 0..HALF {
        assert_eq!(client.dead(), number.to_string());
    }
    assert_eq!(client.raw.declare(1, DEAD, DURABLE).1, 0);
}
