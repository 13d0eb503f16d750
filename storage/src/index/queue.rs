//! The index of one queue: its chunks.

use std::collections::BTreeMap;

use crate::types::{Meta, RecoveredQueue, Seq, SeqRange};

use super::chunk::{CHUNK, Chunk};
use crate::log::location::Location;
use crate::log::record::ENQUEUE_HEADER;

/// What is known of one queue.
#[derive(Debug, Default)]
pub(crate) struct QueueIndex {
    pub(crate) chunks: BTreeMap<u64, Box<Chunk>>,
    pub(crate) next_seq: Seq,
    pub(crate) messages: u64,
    /// Bytes of their payloads; too many for a while when messages of cold chunks were settled.
    pub(crate) bytes: u64,
    /// Every message below this counts as redelivered: set once for all after an unclean stop.
    pub(crate) redelivered_below: Seq,
    /// The fields above, as far as they are stored, differ from what sled has.
    pub(crate) header_dirty: bool,
    /// It is in the list of what the next checkpoint writes.
    pub(crate) listed: bool,
}

/// One live message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LiveMessage {
    pub(crate) seq: Seq,
    pub(crate) location: Location,
    pub(crate) len: u32,
    pub(crate) meta: Meta,
    pub(crate) redelivered: bool,
}

/// Payload bytes of a message whose index entry has this length.
pub(crate) fn payload_len(location: Location, len: u32) -> u64 {
    match location.as_large() {
        Some(_) => u64::from(len),
        None => u64::from(len).saturating_sub(ENQUEUE_HEADER as u64),
    }
}

impl QueueIndex {
    /// The oldest live message.
    pub(crate) fn first_live(&self) -> Option<Seq> {
        self.chunks.iter().find_map(|(&number, chunk)| Some(number * CHUNK + chunk.next_live(0)? as u64))
    }

    pub(crate) fn summary(&self, id: u64) -> RecoveredQueue {
        let first = self.first_live().unwrap_or(self.next_seq);
        RecoveredQueue { id, first, next_seq: self.next_seq, messages: self.messages, bytes: self.bytes }
    }
}

/// The same messages in ranges that ascend and don't overlap.
pub(crate) fn in_order(mut ranges: Vec<SeqRange>) -> Vec<SeqRange> {
    ranges.retain(|range| range.first <= range.last);
    ranges.sort_unstable_by_key(|range| range.first);
    ranges.dedup_by(|next, range| {
        let joined = next.first <= range.last;
        if joined {
            range.last = range.last.max(next.last);
        }
        joined
    });
    ranges
}
