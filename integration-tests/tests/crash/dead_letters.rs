//! kill -9 while messages are dead-lettered: each is in the one place or in the other, never in both and never in none.

use crate::{Random, SMALL, number, open};
use integration_tests::id;
use integration_tests::peer::Peer;
use integration_tests::process::{Broker, Launch};
use integration_tests::raw::{Frame, Raw};
use integration_tests::wire::{self, Bytes, PERSISTENT, Reader};
use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::mpsc::{Sender, channel};
use std::thread;

const ROUNDS: u64 = 4;
/// A round ends after so many confirms at most.
const CONFIRMS_MAX: u64 = 6_000;
/// Publishes between two looks at the confirms.
const BATCH: u64 = 100;
/// Every so many messages one is big enough for a file of its own.
const LARGE_EVERY: u64 = 301;
const LARGE_BYTES: usize = 300_000;
const DURABLE: u8 = 2;
/// Its messages are rejected; those of the other two expire.
const REJECTING: &str = "rejecting";
const SOURCES: [&str; 3] = [REJECTING, "expiring", "copied"];
/// What comes from the first two, and the two copies of what comes from the third.
const TARGETS: [&str; 3] = ["one", "copy-0", "copy-1"];
const FANOUT: &str = "copies";

/// Round and number.
type Message = (u64, u64);

fn declare(raw: &mut Raw) {
    raw.exchange(1, FANOUT, "fanout", DURABLE);
    for target in TARGETS {
        raw.declare(1, target, DURABLE);
    }
    for copy in &TARGETS[1..] {
        raw.bind(1, copy, FANOUT, "", &[]);
    }
    for source in SOURCES {
        let exchange = if source == SOURCES[2] { FANOUT } else { "" };
        let arguments = Bytes::new().field("x-dead-letter-exchange", b'S').longstr(exchange);
        let arguments = arguments.field("x-dead-letter-routing-key", b'S').longstr(TARGETS[0]).done();
        raw.send_declare(1, source, DURABLE, &arguments);
        raw.expect(1, id::QUEUE_DECLARE_OK);
    }
}

/// The targets that a message comes to.
fn targets(number: u64) -> &'static [&'static str] {
    if number % 3 == 2 { &TARGETS[1..] } else { &TARGETS[..1] }
}

fn put_publish(out: &mut Vec<u8>, round: u64, number: u64) {
    let source = SOURCES[number as usize % 3];
    let mut body = format!("{round} {number} ").into_bytes();
    let len = if number.is_multiple_of(LARGE_EVERY) { LARGE_BYTES } else { number as usize * 31 % 700 };
    body.resize(body.len().max(len), b'.');
    let properties = match source {
        REJECTING => PERSISTENT.to_vec(),
        _ => Bytes::new().short((1 << 12) | (1 << 8)).octet(2).shortstr((number % 40).to_string()).done(),
    };
    out.extend(wire::method(1, id::BASIC_PUBLISH, Bytes::new().short(0).shortstr("").shortstr(source).octet(0)));
    out.extend(wire::frame(wire::HEADER, 1, &wire::header(body.len() as u64, &properties)));
    for piece in body.chunks(131_072 - 8) {
        out.extend(wire::frame(wire::BODY, 1, piece));
    }
}

/// Publishes until the connection breaks; returns how many were confirmed, from 1 on.
fn publish(mut raw: Raw, round: u64, report: &Sender<u64>) -> u64 {
    raw.call(1, id::CONFIRM_SELECT, [0], id::CONFIRM_SELECT_OK);
    let mut confirmed = 0;
    loop {
        let mut batch = Vec::new();
        let last = confirmed + BATCH;
        for number in confirmed + 1..=last {
            put_publish(&mut batch, round, number);
        }
        if !raw.try_send(batch) {
            return confirmed;
        }
        while confirmed < last {
            let Some(frame) = raw.next_frame() else {
                return confirmed;
            };
            assert_eq!(frame.id(), Some(id::BASIC_ACK), "{frame:?}");
            // They come in order.
            confirmed = Reader::new(frame.arguments()).longlong();
        }
        // Nobody listens any more once the broker was killed.
        let _ = report.send(confirmed);
    }
}

/// The next delivery: its channel, its tag and which message it is; `None` when the connection broke before its end.
fn next(raw: &mut Raw) -> Option<(u16, u64, Message)> {
    let frame = raw.next_frame()?;
    delivery(raw, &frame)
}

/// The delivery that begins with this frame.
fn delivery(raw: &mut Raw, frame: &Frame) -> Option<(u16, u64, Message)> {
    assert_eq!(frame.id(), Some(id::BASIC_DELIVER), "{frame:?}");
    let mut reader = Reader::new(frame.arguments());
    reader.shortstr();
    let tag = reader.longlong();
    let Frame { kind: wire::HEADER, payload, .. } = raw.next_frame()? else { panic!("no content header") };
    let mut reader = Reader::new(&payload);
    reader.long();
    let size = reader.longlong() as usize;
    let mut body = Vec::new();
    while body.len() < size {
        body.extend(raw.next_frame()?.payload);
    }
    let text = String::from_utf8(body).expect("text");
    let mut numbers = text.split(' ').map_while(|number| number.parse().ok());
    let (Some(round), Some(number)) = (numbers.next(), numbers.next()) else { panic!("a strange body") };
    Some((frame.channel, tag, (round, number)))
}

/// A connection that gets the messages of `REJECTING` on channel 1.
fn rejecting(address: SocketAddr) -> Raw {
    let mut raw = open(address);
    raw.call(1, id::BASIC_QOS, Bytes::new().long(0).short(50).octet(0), id::BASIC_QOS_OK);
    raw.consume(1, REJECTING, "consumer", 0);
    raw
}

fn reject(raw: &mut Raw, tag: u64) -> bool {
    raw.try_send(wire::method(1, id::BASIC_REJECT, Bytes::new().longlong(tag).octet(0)))
}

/// What has been found so far, by target.
#[derive(Default)]
struct Found([BTreeSet<Message>; 3]);

impl Found {
    #[track_caller]
    fn add(&mut self, target: usize, message: Message) {
        assert!(self.0[target].insert(message), "{message:?} came to {} twice", TARGETS[target]);
    }

    /// Rejects what is left and takes from the targets until every message that was confirmed has come to where it belongs.
    fn until_whole(&mut self, broker: &Broker, round: u64, confirmed: u64) {
        let mut missing: BTreeSet<(usize, u64)> = BTreeSet::new();
        for number in 1..=confirmed {
            for target in targets(number) {
                let target = TARGETS.iter().position(|name| name == target).expect("a target");
                missing.insert((target, number));
            }
        }
        let mut raw = open(broker.address());
        raw.call(1, id::BASIC_QOS, Bytes::new().long(0).short(50).octet(0), id::BASIC_QOS_OK);
        for channel in 2..=4 {
            raw.open_channel(channel);
        }
        for (channel, (queue, bits)) in (1..).zip([(REJECTING, 0), (TARGETS[0], 2), (TARGETS[1], 2), (TARGETS[2], 2)]) {
            let arguments = Bytes::new().short(0).shortstr(queue).shortstr(queue).octet(bits).table([]);
            raw.method(channel, id::BASIC_CONSUME, arguments);
        }
        let mut cancelled = None;
        while cancelled != Some(TARGETS.len()) {
            if missing.is_empty() && cancelled.is_none() {
                cancelled = Some(0);
                for (channel, target) in (2..).zip(TARGETS) {
                    raw.method(channel, id::BASIC_CANCEL, Bytes::new().shortstr(target).octet(0));
                }
            }
            let Some(frame) = raw.next_frame() else { panic!("the connection broke; missing: {missing:?}") };
            match frame.id() {
                Some(id::BASIC_CONSUME_OK) => continue,
                Some(id::BASIC_CANCEL_OK) => {
                    cancelled = cancelled.map(|count| count + 1);
                    continue;
                }
                _ => {}
            }
            match delivery(&mut raw, &frame).expect("a whole delivery") {
                (1, tag, _) => assert!(reject(&mut raw, tag)),
                (channel, _, message) => {
                    let target = usize::from(channel) - 2;
                    self.add(target, message);
                    if message.0 == round {
                        missing.remove(&(target, message.1));
                    }
                }
            }
        }
        raw.abort();
    }

    /// Takes what is left in the targets: never confirmed, and never seen.
    fn rest(&mut self, broker: &Broker) {
        let mut raw = open(broker.address());
        for (target, name) in TARGETS.iter().enumerate() {
            while let Some(message) = raw.get(1, name, true) {
                let mut numbers = message.text().split(' ').map_while(|number| number.parse().ok());
                self.add(target, (numbers.next().expect("a round"), numbers.next().expect("a number")));
            }
        }
    }
}

#[test]
fn a_killed_broker_neither_loses_nor_doubles_dead_letters() {
    if Peer::from_env().is_some() {
        println!("skipped on the peer: it kills the broker");
        return;
    }
    let rounds = number("WARREN_CRASH_ROUNDS").unwrap_or(ROUNDS);
    let seed = number("WARREN_CRASH_SEED").unwrap_or_else(|| RandomState::new().hash_one(0));
    println!("{rounds} rounds with WARREN_CRASH_SEED={seed}");
    let mut random = Random(seed | 1);
    let mut broker = Launch::new(env!("CARGO_BIN_EXE_warren-under-test")).config(SMALL).start();
    declare(&mut open(broker.address()));
    let mut found = Found::default();
    for round in 1..=rounds {
        let (report, reports) = channel();
        let raw = open(broker.address());
        let publisher = thread::spawn(move || publish(raw, round, &report));
        let mut raw = rejecting(broker.address());
        let consumer = thread::spawn(move || {
            let mut rejected = 0_u64;
            while let Some((_, tag, _)) = next(&mut raw)
                && reject(&mut raw, tag)
            {
                rejected += 1;
            }
            rejected
        });
        let enough = 1 + random.below(CONFIRMS_MAX);
        while reports.recv().expect("the publisher ended early") < enough {}
        let launch = broker.kill9();
        let confirmed = publisher.join().expect("the publisher failed");
        let rejected = consumer.join().expect("the consumer failed");
        broker = launch.start();
        found.until_whole(&broker, round, confirmed);
        // A clean stop moves what waits; whatever is moved twice shows up now.
        broker = broker.restart();
        found.rest(&broker);
        println!("round {round}: {confirmed} confirmed, {rejected} rejected before the end");
    }
}
