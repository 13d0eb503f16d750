//! The index of one queue: its chunks.

use std::collections::BTreeMap;

use crate::types::{Meta, RecoveredQueue, Seq, SeqRange};

use super::chunk::{CHUNK, Chunk, place_of};
use crate::log::location::Location;
use crate::log::record::ENQUEUE_HEADER;

/// What is known of one queue.
#[derive(Debug, Default)]
pub(crate) struct QueueIndex {
    pub(crate) chunks: BTreeMap<u64, Chunk>,
    pub(crate) next_seq: Seq,
    pub(crate) messages: u64,
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
    /// Live messages in order from `from` on.
    pub(crate) fn live_from(&self, from: Seq) -> impl Iterator<Item = LiveMessage> + '_ {
        let (first_chunk, first_slot) = place_of(from);
        self.chunks.range(first_chunk..).flat_map(move |(&number, chunk)| {
            let start = if number == first_chunk { first_slot } else { 0 };
            std::iter::successors(chunk.next_live(start), |slot| chunk.next_live(slot + 1)).map(move |slot| {
                let (location, len) = chunk.entry(slot);
                let seq = number * CHUNK + slot as u64;
                let redelivered = seq < self.redelivered_below || chunk.is_redelivered(slot);
                LiveMessage { seq, location, len, meta: chunk.meta(slot), redelivered }
            })
        })
    }

    /// Takes the messages of a range out, as long as they are not in `except`, which is in order and without overlaps (see
    /// [`in_order`]), and tells `gone` about each. Calls `touched`
    /// for every chunk that changed. Chunks that are empty now stay until the next checkpoint, which has to see them.
    pub(crate) fn remove_range(
        &mut self,
        range: SeqRange,
        except: &[SeqRange],
        mut gone: impl FnMut(Location, u32),
        mut touched: impl FnMut(u64, &mut Chunk),
    ) {
        if range.last < range.first {
            return;
        }
        let (first_chunk, first_slot) = place_of(range.first);
        let (last_chunk, last_slot) = place_of(range.last);
        let mut except = except.iter().peekable();
        let newest = self.next_seq.saturating_sub(1) / CHUNK;
        for (&number, chunk) in self.chunks.range_mut(first_chunk..=last_chunk) {
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
                if let Some((location, len)) = chunk.remove(found) {
                    self.messages -= 1;
                    self.bytes = self.bytes.saturating_sub(payload_len(location, len));
                    gone(location, len);
                }
            }
            if chunk.live_count != before {
                // The newest chunk is going to be filled again in a moment, the others never.
                if chunk.live_count == 0 && number != newest {
                    chunk.release_columns();
                }
                touched(number, chunk);
            }
        }
    }

    pub(crate) fn summary(&self, id: u64) -> RecoveredQueue {
        let first = self.live_from(0).next().map_or(self.next_seq, |message| message.seq);
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
