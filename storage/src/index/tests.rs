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
    let mut index = Index { partial_log: true, ..Index::default() };
    index.apply(relocate(1, 5));
    assert_eq!(live(&index, 1), [(5, NEW)]);
    assert_eq!((index.queues[&1].next_seq, held(&index, NEW)), (6, (1, 100)));
    index.apply(Op::Topology(vec![TopologyChange::DropQueue(1)]));
    index.apply(relocate(1, 6));
    assert!(live(&index, 1).is_empty());
}
