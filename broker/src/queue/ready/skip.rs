//! Messages that leave a backlog from its head without having been read: what the store has of them is enough to be told
//! which there are.

use storage::{Listed, Seq};

use super::Ready;

/// What a look at the head of a backlog gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skipped {
    /// The next message is in memory.
    Front,
    /// This one has left the queue. Only the store has it.
    Stored(Seq),
    /// Nobody knows what is next before more has been read or listed.
    Nothing,
}

impl Ready {
    /// Takes over which messages the store has from `backlog.next` on, when the backlog reached up to `end` at the time of
    /// the request. Returns how many it should have and does not.
    pub fn listed(&mut self, listed: Listed, end: Seq) -> u64 {
        let Some(mut backlog) = self.backlog.take() else {
            return 0;
        };
        let mut lost = 0;
        // What it had when it was asked may have expired since.
        if backlog.on_disk > 0 {
            if listed.seqs.is_empty() && listed.end {
                backlog.next = backlog.next.max(end);
                if backlog.next >= backlog.end {
                    lost = std::mem::take(&mut backlog.on_disk);
                }
            }
            backlog.listed = listed.seqs.into();
        }
        self.resume_backlog(backlog);
        lost
    }

    /// Takes the next message, of which nothing may be in memory, if it is known to be one of the store.
    pub fn skip(&mut self) -> Skipped {
        let Some(mut backlog) = self.backlog.take() else {
            return if self.front.is_empty() { Skipped::Nothing } else { Skipped::Front };
        };
        let mut skipped = Skipped::Nothing;
        while backlog.on_disk > 0
            && self.front.is_empty()
            && let Some(seq) = backlog.listed.front().copied()
        {
            if seq >= backlog.next {
                // The store has none below that are not in memory or gone, whatever a read under way may say.
                backlog.next = seq;
                if backlog.spilled > 0 && backlog.spill_next <= seq {
                    // The spill may have older ones.
                    break;
                }
                self.take_resident(&mut backlog, seq);
                if !self.front.is_empty() {
                    break;
                }
                backlog.next = seq + 1;
                // Those are in memory, still to come, or gone.
                if !self.reserved.contains(&seq) && !backlog.resident.contains(seq) && !backlog.has_expired(seq) {
                    backlog.forget_bytes(seq);
                    backlog.on_disk -= 1;
                    skipped = Skipped::Stored(seq);
                }
            }
            backlog.listed.pop_front();
            if skipped != Skipped::Nothing {
                break;
            }
        }
        if !backlog.expired_unread.is_empty() {
            backlog.expired_unread = backlog.expired_unread.split_off(&backlog.next);
        }
        if !backlog.expired_resident.is_empty() {
            backlog.expired_resident = backlog.expired_resident.split_off(&backlog.next);
        }
        self.resume_backlog(backlog);
        if skipped == Skipped::Nothing && !self.front.is_empty() { Skipped::Front } else { skipped }
    }
}
