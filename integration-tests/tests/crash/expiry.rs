//! Messages that expire while the broker is killed, or while it is not there.

use crate::open;
use integration_tests::id;
use integration_tests::peer::Peer;
use integration_tests::process::Launch;
use integration_tests::raw::Raw;
use integration_tests::wire::{Bytes, Reader};
use std::collections::HashMap;
use std::time::{Duration, Instant};

const QUEUE: &str = "expiring";
const MESSAGES: u64 = 3000;
const DURABLE: u8 = 2;

/// Every third message stays for good.
fn stays(number: u64) -> bool {
    number.is_multiple_of(3)
}

/// Milliseconds; the shortest are over before the last is published.
fn expiration(number: u64) -> u64 {
    if stays(number) { 3_600_000 } else { 1 + number % 400 }
}

fn publish(raw: &mut Raw, number: u64) {
    let expiration = expiration(number).to_string();
    let properties = Bytes::new().short((1 << 12) | (1 << 8)).octet(2).shortstr(expiration).done();
    raw.publish(1, ("", QUEUE), 0, &properties, number.to_string().as_bytes());
}

#[test]
fn what_has_expired_does_not_come_back_and_the_rest_does() {
    if Peer::from_env().is_some() {
        println!("skipped on the peer: it kills the broker");
        return;
    }
    let broker = Launch::new(env!("CARGO_BIN_EXE_warren-under-test")).start();
    let mut raw = open(broker.address());
    raw.declare(1, QUEUE, DURABLE);
    raw.call(1, id::CONFIRM_SELECT, [0], id::CONFIRM_SELECT_OK);
    (1..=MESSAGES).for_each(|number| publish(&mut raw, number));
    // When the broker can have taken each of them at the latest.
    let mut taken: HashMap<u64, Instant> = HashMap::new();
    while taken.len() < MESSAGES as usize {
        let confirm = raw.expect(1, id::BASIC_ACK);
        let (first, last) = (taken.len() as u64 + 1, Reader::new(&confirm).longlong());
        taken.extend((first..=last).map(|number| (number, Instant::now())));
    }
    // In the middle of it, on this side at least: by their numbers half of what is going to expire has.
    let mut count = u32::MAX;
    while u64::from(count) > MESSAGES * 2 / 3 {
        count = raw.declare(1, QUEUE, DURABLE).1;
    }
    let broker = broker.kill9().start();
    let mut raw = open(broker.address());
    let mut kept = Vec::new();
    loop {
        let asked = Instant::now();
        let Some(message) = raw.get(1, QUEUE, true) else {
            break;
        };
        let number: u64 = message.text().parse().expect("one of ours");
        let deadline = taken[&number] + Duration::from_millis(expiration(number));
        assert!(asked <= deadline, "{number} was delivered after its time");
        if stays(number) {
            kept.push(number);
        }
    }
    assert_eq!(kept, (1..=MESSAGES).filter(|number| stays(*number)).collect::<Vec<_>>());
    assert_eq!(raw.declare(1, QUEUE, DURABLE).1, 0);
}
