//! kill -9 while several publishers are waiting for confirms, several times over.

use crate::support::*;
use integration_tests::id;
use integration_tests::process::Broker;
use integration_tests::raw::Raw;
use integration_tests::wire::{self, PERSISTENT, Reader};
use std::collections::BTreeSet;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::mpsc::{Sender, channel};
use std::thread;

const ROUNDS: usize = 5;
const PUBLISHERS: usize = 4;
/// Confirms each round waits for before the broker is killed, over all publishers.
const CONFIRMS: usize = 3_000;
/// Publishes of one publisher that may be unconfirmed at once.
const IN_FLIGHT: u64 = 500;

#[test]
fn nothing_confirmed_is_lost_and_nothing_is_out_of_order() {
    if peer_is_set("it kills the broker") {
        return;
    }
    let mut broker = launch().start();
    for round in 0..ROUNDS {
        let queue = format!("round-{round}");
        open(broker.address()).declare(1, &queue, 2);
        let (report, reports) = channel();
        // All are connected before any begins: the first alone may be confirmed enough to end the round.
        let connections: Vec<_> = (0..PUBLISHERS).map(|_| confirming(broker.address())).collect();
        let publishers: Vec<_> = (0..)
            .zip(connections)
            .map(|(number, raw)| {
                let (queue, report) = (queue.clone(), report.clone());
                thread::spawn(move || publish_until_the_end(raw, &queue, number, &report))
            })
            .collect();
        drop(report);
        // Killed in the middle of things: the publishers go on until their sockets break.
        let mut confirmed = 0;
        while confirmed < CONFIRMS {
            confirmed += reports.recv().expect("the publishers ended early");
        }
        broker = broker.kill9().start();
        let confirmed: Vec<_> =
            publishers.into_iter().map(|publisher| publisher.join().expect("a publisher failed")).collect();
        check(&broker, &queue, &confirmed);
    }
}

/// Publishes persistent messages, a window of them unconfirmed, until the connection breaks. Returns the confirmed ones.
fn publish_until_the_end(mut raw: Raw, queue: &str, number: usize, report: &Sender<usize>) -> BTreeSet<u64> {
    let mut writer = raw.writer();
    let (mut next, mut unconfirmed) = (1, BTreeSet::new());
    let mut confirmed = BTreeSet::new();
    loop {
        let mut batch = Vec::new();
        while (unconfirmed.len() as u64) < IN_FLIGHT {
            unconfirmed.insert(next);
            put_publish(&mut batch, queue, &format!("{number} {next}"));
            next += 1;
        }
        // When this fails there may still be confirms to read.
        let _ = writer.write_all(&batch);
        let Some(frame) = raw.next_frame() else {
            return confirmed;
        };
        assert_eq!(frame.id(), Some(id::BASIC_ACK), "{frame:?}");
        let mut reader = Reader::new(frame.arguments());
        let (tag, multiple) = (reader.longlong(), reader.octet() != 0);
        let mut settled = if multiple {
            let later = unconfirmed.split_off(&(tag + 1));
            std::mem::replace(&mut unconfirmed, later)
        } else {
            assert!(unconfirmed.remove(&tag), "{tag} is not outstanding");
            BTreeSet::from([tag])
        };
        let count = settled.len();
        confirmed.append(&mut settled);
        // Nobody listens any more once the broker was killed.
        let _ = report.send(count);
    }
}

fn put_publish(out: &mut Vec<u8>, queue: &str, body: &str) {
    let arguments = wire::Bytes::new().short(0).shortstr("").shortstr(queue).octet(0);
    out.extend(wire::method(1, id::BASIC_PUBLISH, arguments));
    let header = wire::header(body.len() as u64, PERSISTENT);
    out.extend(wire::frame(wire::HEADER, 1, &header));
    out.extend(wire::frame(wire::BODY, 1, body.as_bytes()));
}

/// The queue holds, for each publisher, all that was confirmed, once each and in order; and nothing nobody sent.
fn check(broker: &Broker, queue: &str, confirmed: &[BTreeSet<u64>]) {
    let mut raw = open(broker.address());
    let (_, count, _) = raw.declare(1, queue, 2);
    raw.consume(1, queue, "all", 2);
    let mut seen = vec![Vec::new(); confirmed.len()];
    for _ in 0..count {
        let delivery = raw.delivery(1);
        let (publisher, number) = delivery.text().split_once(' ').expect("two numbers");
        let publisher: usize = publisher.parse().expect("a publisher");
        seen[publisher].push(number.parse::<u64>().expect("a number"));
    }
    for (seen, confirmed) in seen.iter().zip(confirmed) {
        assert!(seen.is_sorted_by(|one, other| one < other), "out of order or twice");
        let seen: BTreeSet<_> = seen.iter().copied().collect();
        let lost: Vec<_> = confirmed.difference(&seen).collect();
        assert!(lost.is_empty(), "confirmed and lost: {lost:?}");
        // What was not confirmed may be there or not, but only as a continuation without gaps.
        let last = seen.last().copied().unwrap_or_default();
        assert_eq!(seen.len() as u64, last, "there are gaps");
    }
}

fn open(address: SocketAddr) -> Raw {
    let mut raw = Raw::connect(address);
    raw.login("guest", "guest");
    raw.open("/");
    raw.open_channel(1);
    raw
}

/// A connection with channel 1 in confirm mode.
fn confirming(address: SocketAddr) -> Raw {
    let mut raw = open(address);
    raw.call(1, id::CONFIRM_SELECT, [0], id::CONFIRM_SELECT_OK);
    raw
}
