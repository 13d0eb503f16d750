//! Finding the messages of some segments by the summaries of the chunks.

use crate::core::Core;
use crate::index::Index;
use crate::index::bits;
use crate::index::chunk::{CHUNK, Chunk, Residence};
use crate::index::cold::ChunkRef;
use crate::index::columns::Columns;
use crate::log::location::Location;
use crate::schedule::Unreadable;
use crate::types::{Meta, QueueId, Seq};

/// Chunks and queues looked at under one hold of the index lock.
const LOOKS: usize = 32;
/// Most messages taken in by one search, but for the rest of a chunk.
const MOST: usize = 1024 * 1024;

/// One live message and where it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub(super) segment: u64,
    pub(super) offset: u64,
    pub(super) len: u32,
    pub(super) queue: QueueId,
    pub(super) seq: Seq,
    pub(super) meta: Meta,
}

struct Search<'a> {
    /// In order.
    segments: &'a [u64],
    found: Vec<Found>,
    /// Queues that are left, the next one last.
    queues: Vec<QueueId>,
    /// Where to go on in it.
    from: u64,
}

/// The live messages of some segments, in the order in which they stand on the disk. Of more than [`MOST`] some are left out.
/// `None` when columns cannot be read.
pub(super) fn find(core: &Core, segments: &[u64]) -> Option<Vec<Found>> {
    let queues = core.index.lock().queues.keys().copied().collect();
    let mut search = Search { segments, found: Vec::new(), queues, from: 0 };
    while !search.queues.is_empty() && search.found.len() < MOST && !core.compaction.is_stopped() {
        let cold = search.go_on(&core.index.lock());
        for at in cold {
            search.look_up(core, at)?;
        }
    }
    let mut found = search.found;
    found.sort_unstable_by_key(|found| (found.segment, found.offset, found.queue, found.seq));
    Some(found)
}

impl Search<'_> {
    /// Looks at some chunks. Comes back with those whose columns are needed and are not in memory.
    fn go_on(&mut self, index: &Index) -> Vec<ChunkRef> {
        let mut cold = Vec::new();
        let mut looks = 0;
        while let Some(&id) = self.queues.last() {
            let chunks = index.queues.get(&id).map(|queue| queue.chunks.range(self.from..));
            for (&number, chunk) in chunks.into_iter().flatten() {
                if looks >= LOOKS {
                    self.from = number;
                    return cold;
                }
                looks += 1;
                match &chunk.residence {
                    Residence::Hot(columns) => self.pick(id, number, chunk, columns),
                    Residence::Cold(_) if self.is_in(chunk) => cold.push(ChunkRef::new(id, number, chunk)),
                    Residence::Cold(_) => {}
                }
            }
            self.queues.pop();
            self.from = 0;
            looks += 1;
            if looks >= LOOKS {
                break;
            }
        }
        cold
    }

    /// Whether a cold chunk may have messages in the segments.
    fn is_in(&self, chunk: &Chunk) -> bool {
        let Residence::Cold(cold) = &chunk.residence else {
            return false;
        };
        let late = cold.overlay.iter().flat_map(|overlay| overlay.counted());
        chunk.live_count > 0
            && (cold.held.segments.iter().any(|held| self.is_wanted(held.segment))
                || late.into_iter().any(|(location, _)| self.wanted(location).is_some()))
    }

    fn is_wanted(&self, segment: u64) -> bool {
        self.segments.binary_search(&segment).is_ok()
    }

    fn wanted(&self, location: Location) -> Option<(u64, u64)> {
        location.as_segment().filter(|&(segment, _)| self.is_wanted(segment))
    }

    fn pick(&mut self, queue: QueueId, number: u64, chunk: &Chunk, columns: &Columns) {
        for slot in bits::slots(&chunk.live, 0) {
            let (location, len) = columns.entry(slot);
            if let Some((segment, offset)) = self.wanted(location) {
                let (seq, meta) = (number * CHUNK + slot as u64, columns.meta(slot));
                self.found.push(Found { segment, offset, len, queue, seq, meta });
            }
        }
    }

    /// Reads the columns of a cold chunk and picks its messages. It stays cold: nobody else needs them. `None` when they cannot
    /// be read.
    fn look_up(&mut self, core: &Core, at: ChunkRef) -> Option<()> {
        let ChunkRef { queue, number, .. } = at;
        let mut current = Some(at);
        while let Some(at) = current {
            let read = core.shelf.columns(queue, number);
            let index = core.index.lock();
            let Some(chunk) = index.queues.get(&queue).and_then(|found| found.chunks.get(&number)) else {
                return Some(());
            };
            current = match (&chunk.residence, read) {
                (Residence::Hot(columns), _) => {
                    self.pick(queue, number, chunk, columns);
                    None
                }
                (Residence::Cold(cold), Ok(mut columns)) if at == ChunkRef::new(queue, number, chunk) => {
                    if let Some(overlay) = &cold.overlay {
                        overlay.apply(&mut columns);
                    }
                    self.pick(queue, number, chunk, &columns);
                    None
                }
                // They were written anew meanwhile.
                (Residence::Cold(_), _) if at != ChunkRef::new(queue, number, chunk) => {
                    Some(ChunkRef::new(queue, number, chunk))
                }
                (Residence::Cold(_), outcome) => {
                    drop(index);
                    if let Err(reason) = outcome {
                        tracing::error!(reason, "cannot read the index of messages from sled");
                        core.schedule.unreadable(Unreadable { queue, number, reason });
                    }
                    return None;
                }
            };
        }
        Some(())
    }
}
