//! Which columns are in memory: taking them in, counting what they cost, letting go of those that sled has too.

use std::collections::VecDeque;

use crate::types::QueueId;

use super::chunk::{Chunk, Cold, Residence, Stored};
use super::columns::Columns;
use super::queue::payload_len;
use super::usage::{Held, Usage};
use super::{Index, touched};

/// Entries of chunks that are gone may make up half of the clock, and this much.
const STALE: usize = 1024;

/// What is known about the columns in memory.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    /// Bytes of memory that columns take.
    pub(crate) resident: usize,
    /// Bytes of them that hold messages which came since a checkpoint last began. Not the room beside them: a checkpoint sets
    /// that free, but many queues with a message now and then take it again at once.
    pub(crate) grown: usize,
    /// Chunks whose columns are not in memory.
    pub(crate) cold: usize,
    /// Chunks in memory that may be evicted, in the order in which they are looked at.
    clock: VecDeque<(QueueId, u64)>,
    /// Length of `clock` when stale entries were taken out last.
    pruned: usize,
    generation: u64,
}

/// Columns of a chunk as they are in sled now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChunkRef {
    pub(crate) queue: QueueId,
    pub(crate) number: u64,
    generation: u64,
}

impl ChunkRef {
    pub(crate) fn new(queue: QueueId, number: u64, chunk: &Chunk) -> Self {
        Self { queue, number, generation: chunk.generation }
    }
}

impl Cache {
    /// Frees the columns of a chunk without live messages. Returns how many bytes of payload were still counted.
    pub(crate) fn empty(&mut self, chunk: &mut Chunk, usage: &mut Usage) -> u64 {
        chunk.redelivered = None;
        chunk.columns_dirty = true;
        match std::mem::replace(&mut chunk.residence, Residence::Hot(Box::default())) {
            Residence::Hot(columns) => {
                self.resident -= columns.memory();
                0
            }
            Residence::Cold(cold) => {
                self.cold -= 1;
                release(&cold, usage)
            }
        }
    }

    /// A chunk goes out of the index.
    pub(crate) fn forget(&mut self, chunk: &Chunk) {
        match &chunk.residence {
            Residence::Hot(columns) => self.resident -= columns.memory(),
            Residence::Cold(_) => self.cold -= 1,
        }
    }

    /// The name of the next writing of columns.
    pub(crate) fn next_generation(&mut self) -> u64 {
        self.generation += 1;
        self.generation
    }

    fn evict(&mut self, chunk: &mut Chunk) {
        if let Residence::Hot(columns) = &chunk.residence {
            let held = Held::of(columns, &chunk.live);
            self.resident -= columns.memory();
            self.cold += 1;
            chunk.residence = Residence::Cold(Box::new(Cold { held, overlay: None }));
        }
    }
}

/// Gives back what a cold chunk is counted for. Returns the bytes of payload.
fn release(cold: &Cold, usage: &mut Usage) -> u64 {
    usage.release_all(&cold.held);
    let mut payload = cold.held.payload;
    for (location, len) in cold.overlay.iter().flat_map(|overlay| overlay.counted()) {
        usage.release(location, len);
        payload = payload.saturating_add(payload_len(location, len));
    }
    payload
}

impl Index {
    /// Whether the columns of a chunk are in sled alone.
    pub(crate) fn is_cold(&self, queue: QueueId, number: u64) -> bool {
        self.queues.get(&queue).and_then(|queue| queue.chunks.get(&number)).is_some_and(|chunk| chunk.is_cold())
    }

    /// A chunk whose columns somebody has read from sled, if they still are what is there and not in memory.
    fn still_cold(&mut self, at: ChunkRef) -> Option<&mut Chunk> {
        let chunk = self.queues.get_mut(&at.queue)?.chunks.get_mut(&at.number)?;
        (chunk.generation == at.generation && chunk.is_cold()).then_some(&mut **chunk)
    }

    /// Those of some chunks that can only be written once their columns were looked at.
    pub(crate) fn incomplete(&self, chunks: &[(QueueId, u64)]) -> Vec<ChunkRef> {
        let find = |&(id, number): &(QueueId, u64)| {
            let chunk = self.queues.get(&id)?.chunks.get(&number)?;
            (chunk.needs_columns() && chunk.live_count > 0).then(|| ChunkRef::new(id, number, chunk))
        };
        chunks.iter().filter_map(find).collect()
    }

    /// Takes columns that were read from sled into memory, unless they are out of date.
    pub(crate) fn install(&mut self, at: ChunkRef, mut columns: Columns) {
        let Some(chunk) = self.still_cold(at) else {
            return;
        };
        let Residence::Cold(cold) = std::mem::replace(&mut chunk.residence, Residence::Hot(Box::default())) else {
            return;
        };
        if let Some(overlay) = &cold.overlay {
            overlay.apply(&mut columns);
            chunk.columns_dirty = true;
        }
        chunk.used = true;
        let exact = Held::of(&columns, &chunk.live);
        let memory = columns.memory();
        chunk.residence = Residence::Hot(Box::new(columns));
        self.cache.resident += memory;
        self.cache.cold -= 1;
        self.recount(at.queue, &exact, &cold);
        self.offer(at.queue, at.number);
    }

    /// Puts right what a cold chunk is counted for, with columns that were read from sled. It stays cold unless the columns
    /// have to be written.
    pub(crate) fn correct(&mut self, at: ChunkRef, columns: Columns) {
        let Some(chunk) = self.still_cold(at) else {
            return;
        };
        let held = Held::of(&columns, &chunk.live);
        match &mut chunk.residence {
            Residence::Cold(cold) if cold.overlay.is_none() => {
                let exact = held.clone();
                let before = std::mem::replace(&mut cold.held, held);
                self.recount(at.queue, &exact, &Cold { held: before, overlay: None });
            }
            _ => self.install(at, columns),
        }
    }

    /// Counts `exact` instead of what was counted while a chunk was cold.
    fn recount(&mut self, queue: QueueId, exact: &Held, before: &Cold) {
        // In this order: what is in both must not look unused in between.
        self.usage.hold_all(exact);
        let payload = release(before, &mut self.usage);
        if let Some(queue) = self.queues.get_mut(&queue) {
            queue.bytes = queue.bytes.saturating_add(exact.payload).saturating_sub(payload);
        }
    }

    /// Takes in a chunk that was read from sled: its summary alone.
    pub(crate) fn adopt_cold(&mut self, id: QueueId, number: u64, mut chunk: Chunk, held: Held) {
        self.cache.cold += 1;
        chunk.residence = Residence::Cold(Box::new(Cold { held, overlay: None }));
        self.adopt(id, number, chunk);
    }

    /// Takes in a chunk that was read from a snapshot, with its columns. sled does not have it.
    pub(crate) fn adopt_new(&mut self, id: QueueId, number: u64, mut chunk: Chunk, columns: Columns) {
        self.cache.resident += columns.memory();
        chunk.residence = Residence::Hot(Box::new(columns));
        chunk.columns_dirty = true;
        chunk.bits_dirty = true;
        self.adopt(id, number, chunk);
    }

    fn adopt(&mut self, id: QueueId, number: u64, mut chunk: Chunk) {
        let held = chunk.held();
        self.usage.hold_all(&held);
        if chunk.bits_dirty || chunk.live_count == 0 {
            touched(id, number, &mut chunk, &mut self.dirty_chunks);
        }
        self.timers.arm_chunk(id, number, &mut chunk, held.least_deadline);
        let queue = self.queues.entry(id).or_default();
        queue.messages = queue.messages.saturating_add(u64::from(chunk.live_count));
        queue.bytes = queue.bytes.saturating_add(held.payload);
        queue.chunks.insert(number, Box::new(chunk));
    }

    /// These chunks are in sled for good, as they were when they were written: they may be evicted unless they have changed.
    pub(crate) fn synced(&mut self, chunks: &[(QueueId, u64)]) {
        for &(id, number) in chunks {
            let chunk = self.queues.get_mut(&id).and_then(|queue| queue.chunks.get_mut(&number));
            if let Some(chunk) = chunk {
                chunk.unsynced = false;
                self.offer(id, number);
            }
        }
        if self.cache.clock.len() > 2 * self.cache.pruned + STALE {
            let Self { queues, cache, .. } = self;
            cache.clock.retain(|(id, number)| {
                queues.get(id).and_then(|queue| queue.chunks.get(number)).is_some_and(|chunk| chunk.clocked)
            });
            cache.pruned = cache.clock.len();
        }
        self.prune_timers();
    }

    fn offer(&mut self, id: QueueId, number: u64) {
        let chunk = self.queues.get_mut(&id).and_then(|queue| queue.chunks.get_mut(&number));
        if let Some(chunk) = chunk.filter(|chunk| !chunk.clocked && !chunk.is_cold()) {
            chunk.clocked = true;
            self.cache.clock.push_back((id, number));
        }
    }

    /// Looks at some chunks and lets go of the columns that nobody has needed lately, until no more than `budget` bytes are
    /// left. False when there is nothing more to do. A budget of zero keeps nothing, needed or not.
    pub(crate) fn evict(&mut self, budget: usize, looks: usize) -> bool {
        let Self { queues, cache, .. } = self;
        for _ in 0..looks {
            if cache.resident <= budget {
                return false;
            }
            let Some((id, number)) = cache.clock.pop_front() else {
                return false;
            };
            let Some(chunk) = queues.get_mut(&id).and_then(|queue| queue.chunks.get_mut(&number)) else {
                continue;
            };
            chunk.clocked = false;
            if chunk.columns_dirty || chunk.unsynced || chunk.stored == Stored::Nowhere || chunk.live_count == 0 {
                // The checkpoint that writes it offers it again.
                continue;
            }
            if std::mem::take(&mut chunk.used) && budget > 0 {
                chunk.clocked = true;
                cache.clock.push_back((id, number));
                continue;
            }
            cache.evict(chunk);
        }
        true
    }

    /// How many looks [`Index::evict`] takes to go round once.
    pub(crate) fn clock_len(&self) -> usize {
        self.cache.clock.len()
    }

    /// Recovery only: lets go of columns that were just written to a sled that does not count yet.
    pub(crate) fn evict_written(&mut self, id: QueueId, number: u64) {
        let chunk = self.queues.get_mut(&id).and_then(|queue| queue.chunks.get_mut(&number));
        if let Some(chunk) = chunk.filter(|chunk| !chunk.columns_dirty && chunk.stored != Stored::Nowhere) {
            chunk.unsynced = false;
            self.cache.evict(chunk);
        }
    }
}
