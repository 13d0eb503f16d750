//! What entries do to the index that no public interface shows.

use super::*;

const OLD: Location = Location(3 << 27);
const NEW: Location = Location(9 << 27);

fn enqueue(queue: QueueId, seq: u64, location: Location, delivery_count: u32) -> Op {
    Op::Enqueue { queue, seq, deadline: 7, location, len: 100, delivery_count, priority: 2, tx: false }
}

fn relocate(queue: QueueId, seq: u64) -> Op {
    Op::Relocate { queue, seq, deadline: 7, location: NEW, len: 100, delivery_count: 0, priority: 2 }
}

fn live(index: &Index, queue: QueueId) -> Vec<(u64, Location)> {
    let chunks = index.queues.get(&queue).into_iter().flat_map(|queue| &queue.chunks);
    let entries = chunks.flat_map(|(&number, chunk)| {
        let columns = chunk.columns().expect("in memory");
        bits::slots(&chunk.live, 0).map(move |slot| (number * CHUNK + slot as u64, columns.entry(slot).0))
    });
    entries.collect()
}

fn held(index: &Index, location: Location) -> (u64, u64) {
    let (segment, _) = location.as_segment().expect("a segment");
    index.usage.segments.get(&segment).map_or((0, 0), |used| (used.live, used.live_bytes))
}

#[test]
fn a_relocate_moves_what_is_live_and_keeps_what_is_known() {
    let mut index = Index::default();
    index.apply(enqueue(1, 5, OLD, 0));
    let range = SeqRange { first: 5, last: 5 };
    let requeue = crate::log::record::Requeue { queue: 1, delivery_count: 4, ranges: vec![range] };
    index.apply(Op::Requeue(Box::new(requeue)));
    // A second time, as after a crash, changes nothing.
    for _ in 0..2 {
        index.apply(relocate(1, 5));
        assert_eq!(live(&index, 1), [(5, NEW)]);
        assert_eq!((held(&index, OLD), held(&index, NEW)), ((0, 0), (1, 100)));
    }
    let chunk = &index.queues[&1].chunks[&0];
    let meta = chunk.columns().expect("in memory").meta(5);
    assert!(chunk.is_redelivered(5) && meta.delivery_count == 4 && meta.deadline_ms == Some(7));
    assert_eq!((index.queues[&1].messages, index.queues[&1].bytes), (1, 60));
    index.apply(Op::Settle { queue: 1, range, tx: false });
    assert_eq!(held(&index, NEW), (0, 0));
}

#[test]
fn a_relocate_brings_nothing_back() {
    let mut index = Index::default();
    index.apply(enqueue(1, 5, OLD, 0));
    index.apply(Op::Settle { queue: 1, range: SeqRange { first: 5, last: 5 }, tx: false });
    index.apply(relocate(1, 5));
    index.apply(relocate(2, 1));
    assert!(live(&index, 1).is_empty() && live(&index, 2).is_empty());
    assert_eq!(held(&index, NEW), (0, 0));
    assert!(!index.queues.contains_key(&2));
}

/// The segment with the Enqueue is gone, since the message was moved out of it: then the Relocate is all there is.
#[test]
fn in_a_log_without_its_beginning_a_relocate_is_taken_as_an_enqueue() {
    let mut index = Index { partial_log: Some(Settled::default()), ..Index::default() };
    index.apply(relocate(1, 5));
    assert_eq!(live(&index, 1), [(5, NEW)]);
    assert_eq!((index.queues[&1].next_seq, held(&index, NEW)), (6, (1, 100)));
    // Settled in the part of the log that is left.
    index.apply(Op::Settle { queue: 1, range: SeqRange { first: 7, last: 9 }, tx: false });
    index.apply(relocate(1, 8));
    assert_eq!(live(&index, 1), [(5, NEW)]);
    index.apply(Op::Topology(vec![TopologyChange::DropQueue(1)]));
    index.apply(relocate(1, 6));
    assert!(live(&index, 1).is_empty());
}

/// An index of three messages whose columns sled has alone, and those columns.
fn cold_index() -> (Index, cold::ChunkRef, columns::Columns) {
    let mut index = Index::default();
    for seq in 5..=7 {
        index.apply(enqueue(1, seq, OLD, 0));
    }
    let chunk = index.queues.get_mut(&1).and_then(|queue| queue.chunks.get_mut(&0)).expect("it is there");
    (chunk.stored, chunk.columns_dirty) = (Stored::Whole, false);
    let columns = chunk.columns().expect("in memory").clone();
    index.evict_written(1, 0);
    let chunk = &index.queues[&1].chunks[&0];
    assert!(chunk.is_cold());
    let at = cold::ChunkRef::new(1, 0, chunk);
    (index, at, columns)
}

fn one(seq: u64) -> SeqRange {
    SeqRange { first: seq, last: seq }
}

#[test]
fn messages_of_a_cold_chunk_are_moved_when_its_columns_are_at_hand() {
    let (mut index, at, columns) = cold_index();
    // Twice, as after a crash.
    for seq in [5, 6, 5, 6] {
        index.apply(relocate(1, seq));
    }
    // Until then both places are kept.
    assert_eq!((held(&index, OLD), held(&index, NEW)), ((3, 300), (2, 200)));
    index.apply(Op::Settle { queue: 1, range: one(5), tx: false });
    let requeue = crate::log::record::Requeue { queue: 1, delivery_count: 4, ranges: vec![one(6)] };
    index.apply(Op::Requeue(Box::new(requeue)));
    index.apply(relocate(1, 5));
    assert_eq!((held(&index, OLD), held(&index, NEW)), ((3, 300), (2, 200)));
    index.correct(at, columns);
    assert_eq!(live(&index, 1), [(6, NEW), (7, OLD)]);
    assert_eq!((held(&index, OLD), held(&index, NEW)), ((1, 100), (1, 100)));
    let queue = &index.queues[&1];
    assert_eq!((queue.messages, queue.bytes), (2, 120));
    let chunk = &queue.chunks[&0];
    let meta = chunk.columns().expect("in memory").meta(6);
    assert!(chunk.is_redelivered(6) && meta.delivery_count == 4 && meta.deadline_ms == Some(7) && chunk.columns_dirty);
}

#[test]
fn moved_messages_of_a_cold_chunk_go_with_it() {
    let goes: [fn() -> Op; 3] = [
        || Op::Settle { queue: 1, range: SeqRange { first: 0, last: 9 }, tx: false },
        || Op::Purge(Box::new(crate::log::record::Purge { queue: 1, below: 9, except: Vec::new() })),
        || Op::Topology(vec![TopologyChange::DropQueue(1)]),
    ];
    for gone in goes {
        let (mut index, at, columns) = cold_index();
        index.apply(relocate(1, 6));
        index.apply(gone());
        index.apply(relocate(1, 7));
        assert_eq!((held(&index, OLD), held(&index, NEW)), ((0, 0), (0, 0)));
        index.install(at, columns);
        assert!(live(&index, 1).is_empty());
        assert_eq!((held(&index, OLD), held(&index, NEW)), ((0, 0), (0, 0)));
        assert!(index.queues.get(&1).is_none_or(|queue| (queue.messages, queue.bytes) == (0, 0)));
    }
}

/// Enqueued again while it is cold, as by a replay, and then moved: nothing is counted twice.
#[test]
fn a_late_message_of_a_cold_chunk_is_moved() {
    let (mut index, at, columns) = cold_index();
    let middle = Location(5 << 27);
    index.apply(enqueue(1, 6, middle, 0));
    index.apply(enqueue(1, 8, middle, 0));
    index.apply(relocate(1, 6));
    index.apply(relocate(1, 8));
    assert_eq!((held(&index, middle), held(&index, NEW)), ((0, 0), (2, 200)));
    index.install(at, columns);
    assert_eq!(live(&index, 1), [(5, OLD), (6, NEW), (7, OLD), (8, NEW)]);
    assert_eq!((held(&index, OLD), held(&index, NEW)), ((2, 200), (2, 200)));
}
