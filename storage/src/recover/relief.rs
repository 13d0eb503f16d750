//! Keeping the index within its budget while it is rebuilt, and putting it right at the end.

use crate::checkpoint::write_chunks;
use crate::index::Index;
use crate::index::chunk::CHUNK;
use crate::shelf;
use crate::state::{Changes, State};

/// Growth of the columns in memory, in bytes, after which it is worth looking again.
const STEP: usize = 16 * 1024;
/// Chunks whose columns are checked at a start: some milliseconds.
const CHECKED: usize = 1024;

/// Moves columns into a new sled that does not count yet.
pub(super) struct Relief<'a> {
    state: &'a State,
    step: usize,
    next: usize,
}

impl<'a> Relief<'a> {
    pub(super) fn new(state: &'a State, budget: u64) -> Self {
        let step = usize::try_from(budget).unwrap_or(usize::MAX).max(STEP);
        Self { state, step, next: step }
    }

    /// Writes what is in memory, but for the newest chunk of every queue, and lets go of it, when it has become too much.
    pub(super) fn spill(&mut self, index: &mut Index) -> Result<(), String> {
        if index.cache.resident < self.next {
            return Ok(());
        }
        let mut changes = Changes::default();
        let mut obsolete = Vec::new();
        for (id, number) in std::mem::take(&mut index.dirty_chunks) {
            let Some(queue) = index.queues.get(&id) else {
                continue;
            };
            let newest = number == queue.next_seq.saturating_sub(1) / CHUNK;
            if newest || queue.chunks.get(&number).is_some_and(|chunk| chunk.is_cold()) {
                index.dirty_chunks.push((id, number));
                continue;
            }
            write_chunks(index, &[(id, number)], &mut changes, &mut obsolete);
            index.evict_written(id, number);
            if changes.are_enough() {
                self.state.apply(std::mem::take(&mut changes))?;
            }
        }
        self.state.apply(changes)?;
        self.next = index.cache.resident.saturating_add(self.step);
        Ok(())
    }
}

/// Reads all columns once if they are few, so that damage in them is found here, where sled can be rebuilt. Many are not
/// read: a start takes no longer for a deep backlog, and the store stops when it comes upon the damage.
pub(super) fn check(state: &State, index: &Index) -> Result<(), String> {
    if index.cache.cold > CHECKED {
        return Ok(());
    }
    for (&id, queue) in &index.queues {
        for (&number, _) in queue.chunks.iter().filter(|(_, chunk)| chunk.is_cold()) {
            shelf::decode(&shelf::values(&state.handle(), id, number)?)?;
        }
    }
    Ok(())
}

/// Replaying may have changed cold chunks: what they count for is put right, and what came to them joins their columns.
pub(super) fn complete(state: &State, index: &mut Index) -> Result<(), String> {
    let incomplete = index.incomplete(&index.dirty_chunks);
    for at in incomplete {
        let (columns, _, _) = shelf::decode(&shelf::values(&state.handle(), at.queue, at.number)?)?;
        index.correct(at, columns);
    }
    Ok(())
}
