//! kill -9 while publishers send everything again that they know nothing of: each message comes through exactly once, by an
//! exchange and by a queue that take no duplicates.

use crate::{Random, SMALL, number, open};
use integration_tests::id;
use integration_tests::peer::Peer;
use integration_tests::process::Launch;
use integration_tests::raw::Raw;
use integration_tests::wire::{self, Bytes, Reader};
use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::mpsc::{Sender, channel};
use std::thread;

const ROUNDS: u64 = 4;
/// A round is killed after so many confirms at most.
const CONFIRMS_MAX: u64 = 4_000;
/// Publishes between two looks at the confirms.
const BATCH: u64 = 50;
/// Every so many messages one is big enough for a file of its own.
const LARGE_EVERY: u64 = 301;
const LARGE_BYTES: usize = 1_100_000;
const DURABLE: u8 = 2;
const EXCHANGE: &str = "once";
const WINDOW: &str = "window";
/// The first two are behind the exchange.
const QUEUES: [&str; 3] = ["one", "two", WINDOW];

fn declare(raw: &mut Raw) {
    let size = Bytes::new().field("x-cache-size", b'I').long(1_000_000).done();
    raw.send_exchange(1, EXCHANGE, "x-message-deduplication", DURABLE, &size);
    raw.expect(1, id::EXCHANGE_DECLARE_OK);
    for queue in &QUEUES[..2] {
        raw.declare(1, queue, DURABLE);
        raw.bind(1, queue, EXCHANGE, "", &[]);
    }
    let asking = [size, Bytes::new().field("x-message-deduplication", b't').octet(1).done()].concat();
    raw.send_declare(1, WINDOW, DURABLE, &asking);
    raw.expect(1, id::QUEUE_DECLARE_OK);
}

/// Odd messages go to the exchange, even ones to the queue.
fn put_publish(out: &mut Vec<u8>, number: u64) {
    let (exchange, key) = if number % 2 == 1 { (EXCHANGE, "") } else { ("", WINDOW) };
    let mut body = format!("{number} ").into_bytes();
    let len = if number.is_multiple_of(LARGE_EVERY) { LARGE_BYTES } else { number as usize * 31 % 300 };
    body.resize(body.len().max(len), b'.');
    let headers = Bytes::new().field("x-deduplication-header", b'l').longlong(number);
    let properties = Bytes::new().short((1 << 13) | (1 << 12)).table(headers).octet(2).done();
    out.extend(wire::method(1, id::BASIC_PUBLISH, Bytes::new().short(0).shortstr(exchange).shortstr(key).octet(0)));
    out.extend(wire::frame(wire::HEADER, 1, &wire::header(body.len() as u64, &properties)));
    for piece in body.chunks(131_072 - 8) {
        out.extend(wire::frame(wire::BODY, 1, piece));
    }
}

/// Publishes the messages from `first` on, each of them twice in a row now and then, until the connection breaks or, if there is
/// one, up to `last`. Returns up to where all were confirmed, and which were sent.
fn publish(mut raw: Raw, first: u64, last: Option<u64>, report: &Sender<u64>) -> (u64, u64) {
    raw.call(1, id::CONFIRM_SELECT, [0], id::CONFIRM_SELECT_OK);
    let (mut next, mut tag, mut confirmed) = (first, 0, first - 1);
    while last.is_none_or(|last| next <= last) {
        let mut batch = Vec::new();
        let end = last.map_or(next + BATCH, |last| (next + BATCH).min(last + 1));
        for number in next..end {
            for _ in 0..1 + u64::from(number % 7 == 0) {
                put_publish(&mut batch, number);
                tag += 1;
            }
        }
        next = end;
        if !raw.try_send(batch) {
            return (confirmed, next - 1);
        }
        let mut acked = 0;
        while acked < tag {
            let Some(frame) = raw.next_frame() else {
                return (confirmed, next - 1);
            };
            assert_eq!(frame.id(), Some(id::BASIC_ACK), "{frame:?}");
            // They come in order.
            acked = Reader::new(frame.arguments()).longlong();
        }
        confirmed = next - 1;
        // Nobody listens any more once the broker was killed.
        let _ = report.send(confirmed);
    }
    (confirmed, next - 1)
}

/// Takes what there is, and counts it.
fn drain(raw: &mut Raw, found: &mut BTreeMap<(usize, u64), u32>) {
    for (at, queue) in QUEUES.iter().enumerate() {
        while let Some(message) = raw.get(1, queue, true) {
            let number = message.text().split(' ').next().and_then(|number| number.parse().ok()).expect("a number");
            *found.entry((at, number)).or_default() += 1;
        }
    }
}

#[test]
fn what_is_sent_again_after_a_crash_comes_once() {
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
    let mut found = BTreeMap::new();
    let mut sent = 0;
    for round in 1..=rounds {
        let (report, reports) = channel();
        let raw = open(broker.address());
        let first = sent + 1;
        let publisher = thread::spawn(move || publish(raw, first, None, &report));
        let enough = sent + 1 + random.below(CONFIRMS_MAX);
        while reports.recv().expect("the publisher ended early") < enough {}
        let launch = broker.kill9();
        let (confirmed, last) = publisher.join().expect("the publisher failed");
        broker = launch.start();
        // What was taken before is gone; what came to nobody's knowledge is sent again, and all the rest as well.
        if round % 2 == 0 {
            drain(&mut open(broker.address()), &mut found);
        }
        let (report, _) = channel();
        assert_eq!(publish(open(broker.address()), 1, Some(last), &report), (last, last));
        broker = if round % 3 == 0 { broker.restart() } else { broker.kill9().start() };
        drain(&mut open(broker.address()), &mut found);
        println!("round {round}: {} confirmed before the end, of {}", confirmed + 1 - first, last + 1 - first);
        sent = last;
        for number in 1..=sent {
            let targets = if number % 2 == 1 { 0..2 } else { 2..3 };
            for target in targets {
                assert_eq!(found.get(&(target, number)), Some(&1), "{number} in {}", QUEUES[target]);
            }
        }
        assert_eq!(found.keys().filter(|(_, number)| *number > sent).count(), 0);
    }
}
