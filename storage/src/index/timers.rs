//! When messages expire.
//!
//! The columns of a chunk hold the deadlines and its summary the least of them, so the chunks are the buckets: a chunk stands
//! in a heap with its least deadline. When that comes, the next few deadlines of the chunk move into a second heap, message
//! by message, so that random deadlines don't bring the columns of a cold chunk into memory for each message.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::types::{Due, QueueId, Seq};

use super::Index;
use super::bits;
use super::chunk::{CHUNK, Chunk, place_of};
use super::cold::ChunkRef;

/// Deadlines that a chunk gives out together, at least, and milliseconds ahead that are given out in any case.
const TAKEN: usize = 64;
const AHEAD_MS: u64 = 1000;
/// Messages in one answer.
const ANSWER: usize = 8192;
/// Stale entries may make up half of a heap, and this much.
const STALE: usize = 1024;

/// Both heaps: the earliest is on top.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    /// Deadline, queue, number of the chunk. Stale when the chunk is gone or armed with another deadline.
    chunks: BinaryHeap<Reverse<(u64, QueueId, u64)>>,
    /// Deadline, queue, message. Stale when the message is gone.
    messages: BinaryHeap<Reverse<(u64, QueueId, Seq)>>,
    /// Lengths of the two when stale entries were taken out last.
    pruned: (usize, usize),
    /// The next deadline as it was last told to anybody.
    told: Option<u64>,
}

impl Timers {
    /// A message with a deadline came to a chunk.
    pub(crate) fn arm(&mut self, queue: QueueId, number: u64, slot: usize, chunk: &mut Chunk, deadline: u64) {
        if deadline <= chunk.taken_to {
            self.messages.push(Reverse((deadline, queue, number * CHUNK + slot as u64)));
        } else {
            self.arm_chunk(queue, number, chunk, deadline);
        }
    }

    /// A chunk has messages with deadlines, none of them before `deadline` and none taken out yet.
    pub(crate) fn arm_chunk(&mut self, queue: QueueId, number: u64, chunk: &mut Chunk, deadline: u64) {
        if deadline != 0 && (chunk.armed == 0 || deadline < chunk.armed) {
            chunk.armed = deadline;
            self.chunks.push(Reverse((deadline, queue, number)));
        }
    }

    /// The earliest of all entries, stale or not.
    fn top(&self) -> Option<u64> {
        let chunk = self.chunks.peek().map(|Reverse((deadline, ..))| *deadline);
        let message = self.messages.peek().map(|Reverse((deadline, ..))| *deadline);
        chunk.into_iter().chain(message).min()
    }

    /// The next deadline, when it is earlier than anybody knows.
    pub(crate) fn tell_earlier(&mut self) -> Option<u64> {
        let top = self.top()?;
        let earlier = self.told.is_none_or(|told| top < told);
        if earlier {
            self.told = Some(top);
        }
        earlier.then_some(top)
    }
}

/// Messages that are due, while they are put together.
#[derive(Default)]
pub(crate) struct DueNow {
    found: Vec<(QueueId, Seq, u64)>,
}

impl Index {
    fn is_live(&self, queue: QueueId, seq: Seq) -> bool {
        let (number, slot) = place_of(seq);
        let chunk = self.queues.get(&queue).and_then(|queue| queue.chunks.get(&number));
        chunk.is_some_and(|chunk| bits::is_set(&chunk.live, slot))
    }

    fn is_armed(&self, deadline: u64, queue: QueueId, number: u64) -> bool {
        let chunk = self.queues.get(&queue).and_then(|queue| queue.chunks.get(&number));
        chunk.is_some_and(|chunk| chunk.armed == deadline)
    }

    /// The earliest deadline, as far as is known without the columns of cold chunks: never too late.
    pub(crate) fn next_deadline(&mut self) -> Option<u64> {
        while let Some(&Reverse((deadline, queue, number))) = self.timers.chunks.peek() {
            if self.is_armed(deadline, queue, number) {
                break;
            }
            self.timers.chunks.pop();
        }
        while let Some(&Reverse((_, queue, seq))) = self.timers.messages.peek() {
            if self.is_live(queue, seq) {
                break;
            }
            self.timers.messages.pop();
        }
        self.timers.told = self.timers.top();
        self.timers.told
    }

    /// Collects messages that are due. Comes back with a cold chunk whose columns it needs, and wants to be called again.
    pub(crate) fn collect_due(&mut self, now_ms: u64, due: &mut DueNow) -> Option<ChunkRef> {
        while due.found.len() < ANSWER && self.next_deadline().is_some_and(|next| next <= now_ms) {
            // A chunk first: what is due in it joins the messages.
            if let Some(&Reverse((deadline, queue, number))) = self.timers.chunks.peek()
                && deadline <= now_ms
            {
                if let Some(cold) = self.take_out(queue, number, now_ms) {
                    return Some(cold);
                }
            } else if let Some(Reverse((deadline, queue, seq))) = self.timers.messages.pop() {
                due.found.push((queue, seq, deadline));
            }
        }
        None
    }

    /// Moves the next deadlines of a chunk, which is on top of its heap, to the messages and arms it with the one after those.
    fn take_out(&mut self, id: QueueId, number: u64, now_ms: u64) -> Option<ChunkRef> {
        let Self { queues, timers, .. } = self;
        let chunk = queues.get_mut(&id).and_then(|queue| queue.chunks.get_mut(&number))?;
        let Some(columns) = chunk.columns() else {
            return Some(ChunkRef::new(id, number, chunk));
        };
        let deadlines = bits::slots(&chunk.live, 0).map(|slot| (columns.deadline(slot), slot));
        let mut open: Vec<(u64, usize)> = deadlines.filter(|&(deadline, _)| deadline > chunk.taken_to).collect();
        open.sort_unstable();
        let soon = open.partition_point(|&(deadline, _)| deadline <= now_ms.saturating_add(AHEAD_MS));
        let least = soon.max(TAKEN).min(open.len());
        let last = least.checked_sub(1).map(|last| open[last].0);
        let taken = last.map_or(0, |last| open.partition_point(|&(deadline, _)| deadline <= last));
        for &(deadline, slot) in &open[..taken] {
            timers.messages.push(Reverse((deadline, id, number * CHUNK + slot as u64)));
        }
        timers.chunks.pop();
        chunk.taken_to = chunk.taken_to.max(last.unwrap_or(0));
        chunk.armed = 0;
        if let Some(&(next, _)) = open.get(taken) {
            timers.arm_chunk(id, number, chunk, next);
        }
        None
    }

    /// The answer to whoever asked what is due.
    pub(crate) fn answer_due(&mut self, now_ms: u64, due: DueNow) -> Due {
        let mut found = due.found;
        found.sort_unstable();
        let deadlines = found.iter().map(|(.., deadline)| *deadline).collect();
        let mut messages: Vec<(QueueId, Vec<Seq>)> = Vec::new();
        for (queue, seq, _) in found {
            match messages.last_mut() {
                Some((last, seqs)) if *last == queue => seqs.push(seq),
                _ => messages.push((queue, vec![seq])),
            }
        }
        let next = self.next_deadline();
        Due { messages, deadlines, more: next.is_some_and(|next| next <= now_ms), next }
    }

    /// Takes out what is stale when there may be much of it.
    pub(crate) fn prune_timers(&mut self) {
        let Timers { chunks, messages, pruned, .. } = &self.timers;
        if chunks.len() > 2 * pruned.0 + STALE {
            let mut chunks = std::mem::take(&mut self.timers.chunks);
            chunks.retain(|&Reverse((deadline, queue, number))| self.is_armed(deadline, queue, number));
            self.timers.pruned.0 = chunks.len();
            self.timers.chunks = chunks;
        } else if messages.len() > 2 * pruned.1 + STALE {
            let mut messages = std::mem::take(&mut self.timers.messages);
            messages.retain(|&Reverse((_, queue, seq))| self.is_live(queue, seq));
            self.timers.pruned.1 = messages.len();
            self.timers.messages = messages;
        }
    }
}
