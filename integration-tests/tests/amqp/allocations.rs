//! How often the broker asks for memory: once for each message that goes through it, and once more for the octets of one
//! that is not small.

use crate::support::peer_is_set;
use integration_tests::id;
use integration_tests::process::Launch;
use integration_tests::raw::Raw;
use integration_tests::wire::{Bytes, PERSISTENT, Reader};

const BATCH: u64 = 1_000;
/// Batches that fill what grows once: buffers, maps, the indexes of queues.
const FIRST: u64 = 10;
/// Batches that are counted.
const COUNTED: u64 = 30;
/// What is asked for now and then, in batches, for each message: a tenth of the goal.
const BESIDE: f64 = 0.1;

/// How a message goes through.
#[derive(Clone, Copy)]
enum Way {
    /// Transient, without acknowledgements or confirms.
    Transient,
    /// Persistent, confirmed, acknowledged a hundred at a time.
    Persistent,
}

/// Allocations of a broker's whole life with so many batches through it.
fn allocations(way: Way, size: usize, batches: u64) -> u64 {
    let broker = Launch::new(env!("CARGO_BIN_EXE_warren-counting")).start();
    let mut raw = Raw::connect(broker.address());
    raw.login("guest", "guest");
    raw.open("/");
    let (publishing, consuming) = (1, 2);
    raw.open_channel(publishing);
    raw.open_channel(consuming);
    raw.declare(publishing, "q", 2);
    let (no_ack, properties) = match way {
        Way::Transient => (2, [0x10, 0x00, 1].to_vec()),
        Way::Persistent => {
            raw.call(publishing, id::CONFIRM_SELECT, [0], id::CONFIRM_SELECT_OK);
            (0, PERSISTENT.to_vec())
        }
    };
    raw.consume(consuming, "q", "c", no_ack);
    let body = vec![b'x'; size];
    for batch in 1..=batches {
        for _ in 0..BATCH {
            raw.publish(publishing, ("", "q"), 0, &properties, &body);
        }
        let (mut delivered, mut confirmed) = (0, matches!(way, Way::Transient));
        while delivered < BATCH || !confirmed {
            let frame = raw.read();
            match frame.id() {
                Some(id::BASIC_DELIVER) => {
                    let mut reader = Reader::new(frame.arguments());
                    reader.shortstr();
                    let tag = reader.longlong();
                    raw.read_content(consuming);
                    delivered += 1;
                    if matches!(way, Way::Persistent) && tag.is_multiple_of(100) {
                        raw.method(consuming, id::BASIC_ACK, Bytes::new().longlong(tag).octet(1));
                    }
                }
                Some(id::BASIC_ACK) => confirmed = Reader::new(frame.arguments()).longlong() == batch * BATCH,
                other => panic!("{other:?}"),
            }
        }
    }
    drop(raw);
    let finished = broker.terminate();
    assert!(finished.status.success(), "{finished:?}");
    let line = finished.stdout.lines().find_map(|line| line.strip_prefix("allocations: "));
    line.and_then(|count| count.parse().ok()).expect("it says how many")
}

#[test]
fn a_message_takes_one_allocation_and_a_long_one_two() {
    if peer_is_set("it counts allocations of the broker's process") {
        return;
    }
    for (name, way) in [("transient", Way::Transient), ("persistent", Way::Persistent)] {
        for (size, goal) in [(16, 1.0), (1024, 2.0)] {
            let first = allocations(way, size, FIRST);
            let all = allocations(way, size, FIRST + COUNTED);
            let each = all.saturating_sub(first) as f64 / (COUNTED * BATCH) as f64;
            println!("{name}, {size} octets: {each:.3} allocations per message");
            assert!(each > 0.0 && each <= goal + BESIDE, "{name}, {size} octets: {each:.3} allocations per message");
        }
    }
}
