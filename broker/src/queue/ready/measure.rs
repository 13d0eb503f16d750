//! How large the bodies of a backlog are that was found at start: the store knows messages, not bodies, so they have to be
//! read once. Until then they count for nothing, since nothing may be dropped on a guess.

use storage::{ReadBatch, Seq};

use super::Ready;
use crate::model::message::Message;

/// The messages of a backlog whose bodies have not been counted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unmeasured {
    next: Seq,
    end: Seq,
    /// How many there are.
    messages: u64,
}

impl Unmeasured {
    pub(super) fn new(next: Seq, end: Seq, messages: u64) -> Self {
        Self { next, end, messages }
    }

    pub(super) fn messages(self) -> u64 {
        self.messages
    }

    /// Takes a message out; false when it is none of them.
    pub(super) fn take(&mut self, seq: Seq) -> bool {
        let is_in = (self.next..self.end).contains(&seq);
        self.messages = self.messages.saturating_sub(u64::from(is_in));
        is_in
    }
}

impl Ready {
    /// Where to go on reading in order to count.
    pub fn unmeasured(&self) -> Option<Seq> {
        let backlog = self.backlog.as_ref()?;
        let unmeasured = backlog.unmeasured?;
        Some(unmeasured.next.max(backlog.next))
    }

    /// Counts what was read from `from` on, as far as it is still on disk.
    pub fn measured(&mut self, from: Seq, batch: ReadBatch) {
        let Some(mut backlog) = self.backlog.take() else {
            return;
        };
        if let Some(mut unmeasured) = backlog.unmeasured
            && from >= unmeasured.next
        {
            for read in batch.messages {
                let is_on_disk = backlog.on_disk > 0
                    && read.seq >= backlog.next
                    && !self.reserved.contains(&read.seq)
                    && !backlog.resident.contains(read.seq)
                    && !backlog.has_expired(read.seq);
                if is_on_disk
                    && unmeasured.take(read.seq)
                    && let Some(message) = Message::from_stored(read.payload, read.place, read.meta.deadline_ms)
                {
                    backlog.disk_bytes += message.body_len() as u64;
                }
            }
            let is_done = batch.end || batch.next >= unmeasured.end;
            backlog.unmeasured = (!is_done).then_some(Unmeasured { next: batch.next, ..unmeasured });
        }
        self.backlog = Some(backlog);
    }
}
