//! The index: which messages of which queue are live and where their bytes are. It is what replaying the log builds, what a
//! checkpoint mirrors into sled, and what readers ask.

pub(crate) mod base;
pub(crate) mod chunk;
pub(crate) mod codec;
pub(crate) mod queue;
pub(crate) mod topology;

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

use crate::log::location::Location;
use crate::log::record::Op;
use crate::types::{Meta, QueueId, SeqRange, TopologyChange};

use chunk::{Chunk, Stored, place_of};
use queue::{QueueIndex, payload_len};
use topology::Topology;

/// Dropped queues whose late entries are still recognised.
const DROPPED_KEPT: usize = 65_536;
/// Those of them that are stored; their list has to fit into one value of sled.
const DROPPED_STORED: usize = 1024;

/// Hashes ids that the store itself counts up: one multiplication is enough, no client can choose them.
#[derive(Default)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u64(&mut self, value: u64) {
        let mixed = (self.0 ^ value).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = mixed ^ (mixed >> 32);
    }
}

/// A map keyed by ids of the store.
pub(crate) type IdMap<V> = HashMap<u64, V, BuildHasherDefault<IdHasher>>;

/// A point in the log between two groups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Position {
    /// The segment.
    pub(crate) segment: u64,
    /// Where the next group begins in it.
    pub(crate) offset: u64,
    /// Checksum of the header of the group before.
    pub(crate) link: u32,
}

/// What lives in one segment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SegmentUse {
    /// Live messages whose bytes are in it.
    pub(crate) live: u64,
    /// Bytes of their entries.
    pub(crate) live_bytes: u64,
    /// Readers that have locations in it.
    pub(crate) pins: u32,
}

/// Who needs one large file.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LargeUse {
    /// Live messages.
    pub(crate) live: u32,
    /// Entries that name it and are not applied yet, and readers.
    pub(crate) pins: u32,
}

/// Keys of sled that no longer stand for anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Obsolete {
    Queue(QueueId),
    Chunk(QueueId, u64, Stored),
}

/// The whole index.
#[derive(Debug, Default)]
pub(crate) struct Index {
    pub(crate) queues: IdMap<QueueIndex>,
    pub(crate) topology: Topology,
    pub(crate) segments: IdMap<SegmentUse>,
    pub(crate) large: IdMap<LargeUse>,
    /// Large files nobody needs any more, to be removed after the next checkpoint.
    pub(crate) large_dead: Vec<u64>,
    /// LSN of the last entry in force.
    pub(crate) applied: u64,
    /// Replaying from here brings back everything above `applied`.
    pub(crate) resume: Position,
    /// Where the durable log ends.
    pub(crate) end: Position,
    dropped: HashSet<QueueId>,
    dropped_order: VecDeque<QueueId>,
    pub(crate) dropped_dirty: bool,
    open_tx: Vec<Op>,
    pub(crate) dirty_chunks: Vec<(QueueId, u64)>,
    pub(crate) dirty_queues: Vec<QueueId>,
    pub(crate) obsolete: Vec<Obsolete>,
}

impl Index {
    /// Whether sled lacks anything.
    pub(crate) fn is_dirty(&self) -> bool {
        !(self.dirty_chunks.is_empty() && self.dirty_queues.is_empty() && self.obsolete.is_empty())
            || self.topology.is_dirty()
            || self.dropped_dirty
    }

    /// Applies the ops of one group, which ends at LSN `last` and at `end` in the log.
    pub(crate) fn apply_group(&mut self, ops: impl Iterator<Item = Op>, last: u64, end: Position) {
        self.end = end;
        let mut lsn = self.applied.max(last);
        for op in ops {
            self.apply(op);
        }
        if self.open_tx.is_empty() {
            self.resume = end;
        } else {
            // The parts of an unfinished transaction are the last entries there are: nothing is appended between them.
            lsn = last.saturating_sub(self.open_tx.len() as u64);
        }
        self.applied = self.applied.max(lsn);
    }

    /// Applies one op; parts of a transaction wait for its end.
    pub(crate) fn apply(&mut self, op: Op) {
        match op {
            Op::Enqueue { tx: true, .. } | Op::Settle { tx: true, .. } => self.open_tx.push(op),
            Op::TxEnd { count, .. } => {
                let parts = std::mem::take(&mut self.open_tx);
                if parts.len() == count as usize {
                    for part in parts {
                        self.apply_now(part);
                    }
                }
            }
            Op::Skipped => {}
            op => {
                self.abandon_tx();
                self.apply_now(op);
            }
        }
    }

    /// Forgets the parts of a transaction that never ended.
    pub(crate) fn abandon_tx(&mut self) {
        self.open_tx.clear();
    }

    fn apply_now(&mut self, op: Op) {
        match op {
            Op::Enqueue { queue, seq, deadline, location, len, delivery_count, priority, .. } => {
                let meta = Meta { deadline_ms: (deadline != 0).then_some(deadline), priority, delivery_count };
                self.enqueue(queue, seq, location, len, &meta);
            }
            Op::Settle { queue, range, .. } => self.remove(queue, range, &[]),
            Op::Purge(purge) => {
                if let Some(last) = purge.below.checked_sub(1) {
                    let except = queue::in_order(purge.except);
                    self.remove(purge.queue, SeqRange { first: 0, last }, &except);
                }
            }
            Op::Requeue(requeue) => self.requeue(&requeue.ranges, requeue.queue, requeue.delivery_count),
            Op::Topology(changes) => {
                for change in changes {
                    match change {
                        TopologyChange::Put { key, value } => self.topology.put(key, value),
                        TopologyChange::Delete { key } => self.topology.delete(&key),
                        TopologyChange::DropQueue(queue) => self.drop_queue(queue),
                    }
                }
            }
            Op::TxEnd { .. } | Op::CheckpointDone { .. } | Op::Skipped => {}
        }
    }

    fn enqueue(&mut self, id: QueueId, seq: u64, location: Location, len: u32, meta: &Meta) {
        if !self.dropped.is_empty() && self.dropped.contains(&id) {
            self.release_pin(location);
            return;
        }
        let queue = self.queues.entry(id).or_default();
        if seq >= queue.next_seq {
            queue.next_seq = seq.saturating_add(1);
            queue.header_dirty = true;
            if !queue.listed {
                queue.listed = true;
                self.dirty_queues.push(id);
            }
        }
        let (number, slot) = place_of(seq);
        let chunk = queue.chunks.entry(number).or_default();
        let before = chunk.insert(slot, location, len, meta);
        if !chunk.listed {
            chunk.listed = true;
            self.dirty_chunks.push((id, number));
        }
        queue.bytes += payload_len(location, len);
        match before {
            None => queue.messages += 1,
            Some((location, len)) => {
                queue.bytes = queue.bytes.saturating_sub(payload_len(location, len));
                release(&mut self.segments, &mut self.large, &mut self.large_dead, location, len);
            }
        }
        self.hold(location, len);
        self.release_pin(location);
    }

    /// Counts one live message at a location.
    pub(crate) fn hold(&mut self, location: Location, len: u32) {
        if let Some((segment, _)) = location.as_segment() {
            let used = self.segments.entry(segment).or_default();
            used.live += 1;
            used.live_bytes += u64::from(len);
        } else if let Some(file) = location.as_large() {
            self.large.entry(file).or_default().live += 1;
        }
    }

    /// An entry that names a large file pins it from its encoding to here.
    fn release_pin(&mut self, location: Location) {
        if let Some(file) = location.as_large() {
            self.unpin_large(file);
        }
    }

    /// Pins a large file, unless nobody needs it any more and it may be gone.
    pub(crate) fn pin_large(&mut self, file: u64) -> bool {
        match self.large.get_mut(&file) {
            Some(used) => {
                used.pins += 1;
                true
            }
            None => false,
        }
    }

    pub(crate) fn unpin_large(&mut self, file: u64) {
        if let Some(used) = self.large.get_mut(&file) {
            used.pins = used.pins.saturating_sub(1);
            if used.live == 0 && used.pins == 0 {
                self.large.remove(&file);
                self.large_dead.push(file);
            }
        }
    }

    fn remove(&mut self, id: QueueId, range: SeqRange, except: &[SeqRange]) {
        let Self { queues, segments, large, large_dead, dirty_chunks, .. } = self;
        let Some(queue) = queues.get_mut(&id) else {
            return;
        };
        queue.remove_range(
            range,
            except,
            |location, len| release(segments, large, large_dead, location, len),
            |number, chunk| touched(id, number, chunk, dirty_chunks),
        );
    }

    fn requeue(&mut self, ranges: &[SeqRange], id: QueueId, delivery_count: u32) {
        let Some(queue) = self.queues.get_mut(&id) else {
            return;
        };
        for range in ranges.iter().filter(|range| range.first <= range.last) {
            let ((first, _), (last, _)) = (place_of(range.first), place_of(range.last));
            for (&number, chunk) in queue.chunks.range_mut(first..=last) {
                let mut next = chunk.next_live(0);
                while let Some(slot) = next {
                    next = chunk.next_live(slot + 1);
                    if !range.contains(number * chunk::CHUNK + slot as u64) {
                        continue;
                    }
                    chunk.set_redelivered(slot);
                    if delivery_count != 0 {
                        let meta = Meta { delivery_count, ..chunk.meta(slot) };
                        chunk.set_meta(slot, &meta);
                    }
                }
                if !chunk.listed && (chunk.bits_dirty || chunk.columns_dirty) {
                    chunk.listed = true;
                    self.dirty_chunks.push((id, number));
                }
            }
        }
    }

    fn drop_queue(&mut self, id: QueueId) {
        self.remember_dropped(id);
        self.dropped_dirty = true;
        self.remove(id, SeqRange { first: 0, last: u64::MAX }, &[]);
        if let Some(queue) = self.queues.remove(&id) {
            self.obsolete.push(Obsolete::Queue(id));
            let stored = queue.chunks.iter().filter(|(_, chunk)| chunk.stored != Stored::Nowhere);
            self.obsolete.extend(stored.map(|(&number, chunk)| Obsolete::Chunk(id, number, chunk.stored)));
        }
    }

    /// Notes that a queue id is dead.
    pub(crate) fn remember_dropped(&mut self, id: QueueId) {
        if self.dropped.insert(id) {
            self.dropped_order.push_back(id);
            if self.dropped_order.len() > DROPPED_KEPT
                && let Some(oldest) = self.dropped_order.pop_front()
            {
                self.dropped.remove(&oldest);
            }
        }
    }

    /// The last dropped queues, as many as a checkpoint keeps: entries of a dropped queue can only be right behind its drop.
    pub(crate) fn dropped_recent(&self) -> impl ExactSizeIterator<Item = QueueId> + '_ {
        self.dropped_order.iter().copied().skip(self.dropped_order.len().saturating_sub(DROPPED_STORED))
    }

    /// After an unclean stop nobody knows what was delivered: all of it counts as redelivered.
    pub(crate) fn mark_all_redelivered(&mut self, seq_gap: u64) {
        for (&id, queue) in &mut self.queues {
            queue.next_seq = queue.next_seq.saturating_add(seq_gap);
            queue.redelivered_below = queue.next_seq;
            queue.header_dirty = true;
            if !queue.listed {
                queue.listed = true;
                self.dirty_queues.push(id);
            }
        }
    }

    /// Takes in a chunk that was read from sled or a snapshot, where it still is.
    pub(crate) fn adopt(&mut self, id: QueueId, number: u64, mut chunk: Chunk) {
        chunk.columns_dirty = false;
        chunk.bits_dirty = false;
        let mut bytes = 0;
        for slot in chunk.live_slots(0) {
            let (location, len) = chunk.entry(slot);
            bytes += payload_len(location, len);
            self.hold(location, len);
        }
        let queue = self.queues.entry(id).or_default();
        queue.messages += u64::from(chunk.live_count);
        queue.bytes += bytes;
        queue.chunks.insert(number, chunk);
    }

    /// About how many bytes the index takes in sled or a snapshot.
    pub(crate) fn estimated_bytes(&self) -> u64 {
        let live: u64 = self.segments.values().map(|used| used.live).sum();
        live * 4 + self.queues.len() as u64 * 32
    }

    /// Everything counts as missing from sled: it is going to be written anew.
    pub(crate) fn mark_all_dirty(&mut self) {
        self.dirty_chunks.clear();
        self.dirty_queues.clear();
        self.obsolete.clear();
        self.topology.removed.clear();
        self.topology.dirty = self.topology.records.keys().cloned().collect();
        for record in self.topology.records.values_mut() {
            record.pieces = 0;
        }
        self.dropped_dirty = true;
        for (&id, queue) in &mut self.queues {
            queue.header_dirty = true;
            queue.listed = true;
            self.dirty_queues.push(id);
            for (&number, chunk) in &mut queue.chunks {
                chunk.columns_dirty = true;
                chunk.bits_dirty = true;
                chunk.listed = true;
                chunk.stored = Stored::Nowhere;
                self.dirty_chunks.push((id, number));
            }
        }
    }
}

/// One live message less at a location.
fn release(
    segments: &mut IdMap<SegmentUse>,
    large: &mut IdMap<LargeUse>,
    large_dead: &mut Vec<u64>,
    location: Location,
    len: u32,
) {
    if let Some((segment, _)) = location.as_segment() {
        if let Some(used) = segments.get_mut(&segment) {
            used.live = used.live.saturating_sub(1);
            used.live_bytes = used.live_bytes.saturating_sub(u64::from(len));
        }
    } else if let Some(file) = location.as_large()
        && let Some(used) = large.get_mut(&file)
    {
        used.live = used.live.saturating_sub(1);
        if used.live == 0 && used.pins == 0 {
            large.remove(&file);
            large_dead.push(file);
        }
    }
}

/// A chunk changed: the next checkpoint has to look at it.
fn touched(id: QueueId, number: u64, chunk: &mut Chunk, dirty: &mut Vec<(QueueId, u64)>) {
    if !chunk.listed {
        chunk.listed = true;
        dirty.push((id, number));
    }
}
