//! The index: which messages of which queue are live and where their bytes are. It is what replaying the log builds, what a
//! checkpoint mirrors into sled, and what readers ask.

pub(crate) mod base;
pub(crate) mod bits;
pub(crate) mod chunk;
pub(crate) mod codec;
pub(crate) mod cold;
pub(crate) mod columns;
pub(crate) mod held;
mod list;
pub(crate) mod queue;
pub(crate) mod settled;
#[cfg(test)]
mod tests;
pub(crate) mod timers;
pub(crate) mod topology;
pub(crate) mod usage;

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

use crate::log::location::Location;
use crate::log::record::Op;
use crate::types::{Meta, QueueId, SeqRange, TopologyChange};

use chunk::{CHUNK, Chunk, Residence, Stored, place_of};
use cold::Cache;
use columns::Late;
use held::HeldMessages;
use queue::{QueueIndex, payload_len};
use settled::Settled;
use timers::Timers;
use topology::Topology;
use usage::Usage;

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
        // Ids of one family may differ in the uppermost octet alone, which a multiplication does not carry down.
        let mixed = (self.0 ^ value.rotate_left(8)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
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
    pub(crate) usage: Usage,
    pub(crate) cache: Cache,
    pub(crate) held: HeldMessages,
    pub(crate) timers: Timers,
    /// It is being built from the log alone, of which segments may be missing: what was settled so far.
    pub(crate) partial_log: Option<Settled>,
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
            Op::Relocate { queue, seq, deadline, location, len, delivery_count, priority } => {
                let meta = Meta { deadline_ms: (deadline != 0).then_some(deadline), priority, delivery_count };
                self.relocate(queue, seq, location, len, &meta);
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
        self.held.remove(id, seq);
        if !self.dropped.is_empty() && self.dropped.contains(&id) {
            self.usage.release_pin(location);
            return;
        }
        let queue = used(&mut self.queues, &mut self.dirty_queues, id, seq);
        let (number, slot) = place_of(seq);
        let chunk = queue.chunks.entry(number).or_default();
        let was_live = !chunk.set_live(slot);
        let before = match &mut chunk.residence {
            Residence::Hot(columns) => {
                let before = was_live.then(|| columns.entry(slot));
                let memory = columns.memory();
                columns.set(slot, location, len, meta);
                self.cache.resident += columns.memory() - memory;
                self.cache.grown += columns::ENTRY_BYTES;
                chunk.columns_dirty = true;
                chunk.used = true;
                before
            }
            Residence::Cold(cold) => {
                let overlay = cold.overlay.get_or_insert_default();
                overlay.put(slot, Late { location, len, meta: *meta })
            }
        };
        if let Some(deadline) = meta.deadline_ms {
            self.timers.arm(id, number, slot, chunk, deadline);
        }
        touched(id, number, chunk, &mut self.dirty_chunks);
        queue.messages += u64::from(!was_live);
        queue.bytes += payload_len(location, len);
        self.usage.hold(location, len);
        if let Some((location, len)) = before {
            queue.bytes = queue.bytes.saturating_sub(payload_len(location, len));
            self.usage.release(location, len);
        }
        self.usage.release_pin(location);
    }

    /// Whether a large file is known.
    pub(crate) fn has_large(&self, file: u64) -> bool {
        self.usage.large.contains_key(&file)
    }

    /// A live message has its bytes somewhere else now; what is known about it stays. A message that is not live has been
    /// settled, unless only a part of the log is left: there it may be one whose first entry is gone.
    fn relocate(&mut self, id: QueueId, seq: u64, location: Location, len: u32, meta: &Meta) {
        let (number, slot) = place_of(seq);
        let live = |queue: &QueueIndex| queue.chunks.get(&number).is_some_and(|chunk| bits::is_set(&chunk.live, slot));
        let found = self.queues.get_mut(&id).filter(|queue| live(queue));
        let Some((bytes, chunk)) = found.and_then(|queue| {
            let QueueIndex { chunks, bytes, .. } = queue;
            chunks.get_mut(&number).map(|chunk| (bytes, chunk))
        }) else {
            if self.partial_log.as_ref().is_some_and(|settled| !settled.contains(id, seq)) {
                self.enqueue(id, seq, location, len, meta);
            }
            return;
        };
        let before = match &mut chunk.residence {
            Residence::Hot(columns) => {
                let before = columns.entry(slot);
                columns.set_location(slot, location, len);
                chunk.columns_dirty = true;
                Some(before)
            }
            Residence::Cold(cold) => {
                // What is counted for the columns in sled stays counted until they are at hand.
                let before = cold.overlay.get_or_insert_default().relocate(slot, location, len);
                *bytes += payload_len(location, len);
                if let Some((location, len)) = before {
                    *bytes = bytes.saturating_sub(payload_len(location, len));
                }
                before
            }
        };
        touched(id, number, chunk, &mut self.dirty_chunks);
        self.usage.hold(location, len);
        if let Some((location, len)) = before {
            self.usage.release(location, len);
        }
    }

    /// A message was settled before it came into the log: its number counts as used all the same.
    pub(crate) fn skip(&mut self, id: QueueId, seq: u64) {
        self.held.remove(id, seq);
        if !self.dropped.contains(&id) {
            used(&mut self.queues, &mut self.dirty_queues, id, seq);
        }
    }

    /// Takes the messages of a range out, as long as they are not in `except`, which is in order and without overlaps (see
    /// [`queue::in_order`]). Chunks that are empty now stay until the next checkpoint, which has to see them.
    fn remove(&mut self, id: QueueId, range: SeqRange, except: &[SeqRange]) {
        if let Some(settled) = &mut self.partial_log {
            let mut first = range.first;
            for kept in except.iter().filter(|kept| range.contains(kept.first)) {
                settled.add(id, SeqRange { first, last: kept.first.saturating_sub(1) });
                first = kept.last.saturating_add(1);
            }
            settled.add(id, SeqRange { first, last: range.last });
        }
        let Self { queues, usage, cache, dirty_chunks, .. } = self;
        let Some(queue) = queues.get_mut(&id).filter(|_| range.first <= range.last) else {
            return;
        };
        let ((first_chunk, first_slot), (last_chunk, last_slot)) = (place_of(range.first), place_of(range.last));
        let mut except = except.iter().peekable();
        let newest = queue.next_seq.saturating_sub(1) / CHUNK;
        for (&number, chunk) in queue.chunks.range_mut(first_chunk..=last_chunk) {
            let mut slot = if number == first_chunk { first_slot } else { 0 };
            let end = if number == last_chunk { last_slot } else { CHUNK as usize - 1 };
            let before = chunk.live_count;
            while let Some(found) = chunk.next_live(slot).filter(|&found| found <= end) {
                slot = found + 1;
                let seq = number * CHUNK + found as u64;
                while except.next_if(|kept| kept.last < seq).is_some() {}
                if except.peek().is_some_and(|kept| kept.contains(seq)) {
                    continue;
                }
                chunk.clear_live(found);
                queue.messages -= 1;
                if let Some((location, len)) = chunk.columns().map(|columns| columns.entry(found)) {
                    queue.bytes = queue.bytes.saturating_sub(payload_len(location, len));
                    usage.release(location, len);
                }
            }
            if chunk.live_count != before {
                // The newest chunk is going to be filled again in a moment, the others never.
                if chunk.live_count == 0 && (number != newest || chunk.is_cold()) {
                    let freed = cache.empty(chunk, usage);
                    queue.bytes = queue.bytes.saturating_sub(freed);
                }
                touched(id, number, chunk, dirty_chunks);
            }
        }
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
                    if !range.contains(number * CHUNK + slot as u64) {
                        continue;
                    }
                    chunk.set_redelivered(slot);
                    if delivery_count == 0 {
                        continue;
                    }
                    match &mut chunk.residence {
                        Residence::Hot(columns) => {
                            let memory = columns.memory();
                            columns.raise_delivery_count(slot, delivery_count);
                            self.cache.resident += columns.memory() - memory;
                            chunk.columns_dirty = true;
                        }
                        Residence::Cold(cold) => {
                            cold.overlay.get_or_insert_default().raise_delivery_count(slot, delivery_count);
                        }
                    }
                }
                if chunk.bits_dirty || chunk.columns_dirty {
                    touched(id, number, chunk, &mut self.dirty_chunks);
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
            queue.chunks.values().for_each(|chunk| self.cache.forget(chunk));
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

    /// About how many bytes the index takes in sled or a snapshot.
    pub(crate) fn estimated_bytes(&self) -> u64 {
        let live: u64 = self.usage.segments.values().map(|used| used.live).sum();
        live * 4 + self.queues.len() as u64 * 32 + self.topology.bytes
    }

    /// Everything in memory counts as missing from sled, which may have some of it. What is cold is there, but for its
    /// bitmaps.
    pub(crate) fn mark_all_dirty(&mut self) {
        self.dirty_chunks.clear();
        self.dirty_queues.clear();
        self.topology.dirty = self.topology.records.keys().cloned().collect();
        self.dropped_dirty = true;
        for (&id, queue) in &mut self.queues {
            queue.header_dirty = true;
            queue.listed = true;
            self.dirty_queues.push(id);
            for (&number, chunk) in &mut queue.chunks {
                if !chunk.is_cold() {
                    chunk.columns_dirty = true;
                    chunk.unsynced = false;
                    // Whatever keys it may have: they are removed first.
                    chunk.stored = Stored::Quarters;
                }
                chunk.bits_dirty = true;
                chunk.listed = true;
                self.dirty_chunks.push((id, number));
            }
        }
    }

    /// As [`Index::mark_all_dirty`] for a sled that is empty. Only for an index without cold chunks.
    pub(crate) fn mark_all_missing(&mut self) {
        self.obsolete.clear();
        self.topology.removed.clear();
        for record in self.topology.records.values_mut() {
            record.pieces = 0;
        }
        self.mark_all_dirty();
        for chunk in self.queues.values_mut().flat_map(|queue| queue.chunks.values_mut()) {
            chunk.stored = Stored::Nowhere;
        }
    }
}

/// A number of a queue was given out.
fn used<'a>(queues: &'a mut IdMap<QueueIndex>, dirty: &mut Vec<QueueId>, id: QueueId, seq: u64) -> &'a mut QueueIndex {
    let queue = queues.entry(id).or_default();
    if seq >= queue.next_seq {
        queue.next_seq = seq.saturating_add(1);
        queue.header_dirty = true;
        if !queue.listed {
            queue.listed = true;
            dirty.push(id);
        }
    }
    queue
}

/// A chunk changed: the next checkpoint has to look at it.
pub(crate) fn touched(id: QueueId, number: u64, chunk: &mut Chunk, dirty: &mut Vec<(QueueId, u64)>) {
    if !chunk.listed {
        chunk.listed = true;
        dirty.push((id, number));
    }
}
