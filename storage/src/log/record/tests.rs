//! Entries written and read back, and bytes that are none.

use std::sync::Arc;

use super::super::location::Location;
use super::*;
use crate::types::{Meta, Payload, Place, SeqRange, TopologyChange};

struct Body16(Place);

impl Payload for Body16 {
    fn encoded_len(&self) -> usize {
        16
    }
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[7; 16]);
    }
    fn place(&self) -> &Place {
        &self.0
    }
}

fn encode(entry: Entry, body: Body) -> (Vec<u8>, Op) {
    let key = Key::from_bytes([3; 16]);
    let (mut buf, mut tx_sum, mut entries_sum) = (Vec::new(), 0, 0);
    let mut target = Target {
        key: &key,
        segment: 5,
        group_offset: 4096,
        buf: &mut buf,
        tx_sum: &mut tx_sum,
        entries_sum: &mut entries_sum,
    };
    let span = entry.span(body);
    let op = target.encode(entry, body).expect("the length is right");
    assert_eq!(buf.len(), span);
    (buf, op)
}

fn enqueue(tx: bool) -> Entry {
    let meta = Meta::default();
    let payload: Arc<dyn Payload> = Arc::new(Body16(Place::default()));
    Entry::Enqueue { queue: 1, seq: 2, deadline: 3, payload, delivery_count: 4, priority: meta.priority, tx }
}

fn relocate() -> Entry {
    let payload: Arc<dyn Payload> = Arc::new(Body16(Place::default()));
    Entry::Relocate { queue: 1, seq: 2, deadline: 3, payload, delivery_count: 4, priority: 5 }
}

/// The same bytes with another type and other flags.
fn retyped(mut bytes: Vec<u8>, kind: u8, flags: u8) -> Vec<u8> {
    (bytes[8], bytes[9]) = (kind, flags);
    let sum = checksum(&Key::from_bytes([3; 16]), 5, 4096, &bytes);
    bytes[4..8].copy_from_slice(&sum.to_le_bytes());
    bytes
}

#[test]
fn entries_come_back_as_they_were() {
    let key = Key::from_bytes([3; 16]);
    let range = SeqRange { first: 4, last: 9 };
    let put = TopologyChange::Put { key: b"k".to_vec(), value: b"value".to_vec() };
    let changes = vec![put, TopologyChange::Delete { key: b"gone".to_vec() }, TopologyChange::DropQueue(8)];
    let entries = [
        (enqueue(false), Body::Inline),
        (enqueue(true), Body::Inline),
        (enqueue(false), Body::Elsewhere(Location::large(77), 16)),
        (relocate(), Body::Inline),
        (relocate(), Body::Elsewhere(Location::segment(5, 800), 56)),
        (Entry::Settle { queue: 1, range, tx: false }, Body::Inline),
        (Entry::Settle { queue: 1, range, tx: true }, Body::Inline),
        (Entry::Purge(Box::new(Purge { queue: 1, below: 8, except: vec![range, range] })), Body::Inline),
        (Entry::Requeue(Box::new(Requeue { queue: 1, delivery_count: 2, ranges: vec![range] })), Body::Inline),
        (Entry::Topology(changes), Body::Inline),
        (Entry::TxEnd { count: 3 }, Body::Inline),
        (Entry::CheckpointDone { lsn: 12, clean: true }, Body::Inline),
    ];
    for (entry, body) in entries {
        let (bytes, op) = encode(entry, body);
        let verified = verify(&bytes, &key, 5, 4096).expect("it verifies");
        assert_eq!(verified.decode(5, 4096), Ok(op));
        assert!(verify(&bytes, &key, 5, 4104).is_none(), "it is of another place");
        assert!(verify(&bytes, &key, 6, 4096).is_none(), "it is of another segment");
        assert!(verify(&bytes, &Key::from_bytes([4; 16]), 5, 4096).is_none(), "it is of another directory");
        for at in 0..verified.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x40;
            assert!(verify(&flipped, &key, 5, 4096).is_none(), "byte {at}");
            assert!(verify(&bytes[..at], &key, 5, 4096).is_none(), "cut at {at}");
        }
    }
}

#[test]
fn unknown_entries_are_refused_unless_they_may_be_skipped() {
    let key = Key::from_bytes([3; 16]);
    for (kind, flags, expected) in [
        (kind::MOVE, 0, Err(DecodeError::NotUnderstood(kind::MOVE))),
        (kind::OFFSET, flag::MAY_SKIP, Ok(Op::Skipped)),
        (kind::RELOCATE, 0x80, Err(DecodeError::NotUnderstood(kind::RELOCATE))),
        (200, flag::MAY_SKIP, Ok(Op::Skipped)),
        (200, 0, Err(DecodeError::NotUnderstood(200))),
        (kind::ENQUEUE, 0x80, Err(DecodeError::NotUnderstood(kind::ENQUEUE))),
    ] {
        let bytes = retyped(encode(enqueue(false), Body::Inline).0, kind, flags);
        let verified = verify(&bytes, &key, 5, 4096).expect("it verifies");
        assert_eq!(verified.decode(5, 4096), expected);
    }
}

#[test]
fn a_relocate_is_an_enqueue_of_another_type() {
    let key = Key::from_bytes([3; 16]);
    for body in [Body::Inline, Body::Elsewhere(Location::segment(5, 800), 56)] {
        let (bytes, op) = encode(enqueue(false), body);
        let flags = bytes[9];
        let bytes = retyped(bytes, kind::RELOCATE, flags);
        let verified = verify(&bytes, &key, 5, 4096).expect("it verifies");
        let Op::Enqueue { queue, seq, deadline, location, len, delivery_count, priority, .. } = op else {
            panic!("not an enqueue: {op:?}");
        };
        let expected = Op::Relocate { queue, seq, deadline, location, len, delivery_count, priority };
        assert_eq!(verified.decode(5, 4096), Ok(expected));
        assert_eq!(verified.payload(), matches!(body, Body::Inline).then_some([7; 16].as_slice()));
    }
}
