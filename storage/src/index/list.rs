//! Which messages of a queue are live, without looking at what is known of each.

use crate::types::{Listed, Lsn, QueueId, Seq};

use super::Index;
use super::chunk::{CHUNK, place_of};

impl Index {
    /// Up to `max` live messages of a queue from `from` on.
    ///
    /// # Errors
    ///
    /// The position to wait for: there is none before a message that is still on its way into the log.
    pub(crate) fn list(&self, queue: QueueId, from: Seq, max: usize) -> Result<Listed, Lsn> {
        let held = self.held.first(queue, from);
        let mut listed = Listed { seqs: Vec::new(), next: from, end: held.is_none() };
        let below = held.map_or(Seq::MAX, |(seq, _)| seq);
        let (first_chunk, first_slot) = place_of(from);
        let chunks = self.queues.get(&queue).into_iter().flat_map(|queue| queue.chunks.range(first_chunk..));
        'chunks: for (&number, chunk) in chunks {
            let mut next = chunk.next_live(if number == first_chunk { first_slot } else { 0 });
            while let Some(slot) = next {
                let seq = number * CHUNK + slot as u64;
                if seq >= below || listed.seqs.len() >= max {
                    listed.end = false;
                    break 'chunks;
                }
                listed.seqs.push(seq);
                listed.next = seq + 1;
                next = chunk.next_live(slot + 1);
            }
        }
        match held {
            Some((_, lsn)) if listed.seqs.is_empty() => Err(lsn),
            _ => Ok(listed),
        }
    }
}
