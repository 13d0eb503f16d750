//! Messages that leave a queue without having been consumed.

use storage::{Seq, SeqRange};

use super::classic::{Queue, State};
use super::ready::{Entry, ranges};
use crate::model::death::Reason;

/// Messages that a queue gives up.
pub(super) enum Discarded {
    /// They were in memory, in the order in which they go.
    Held(Vec<Entry>),
    /// They were on disk only; positions ascend.
    Stored(Vec<Seq>),
}

impl Queue {
    /// The one door for messages that leave unconsumed: to where they are dead-lettered, or to nowhere. Called under the
    /// queue's lock.
    pub(super) fn discard(&self, state: &mut State, discarded: Discarded, reason: Reason) {
        if state.dead.is_wanted() {
            self.line_up(state, discarded, reason);
            return;
        }
        if !self.spec().durable {
            return;
        }
        let settled: Vec<SeqRange> = match discarded {
            Discarded::Held(entries) => {
                let stored = entries.iter().filter(|entry| self.stores(&entry.message));
                let mut seqs: Vec<Seq> = stored.map(|entry| entry.seq).collect();
                seqs.sort_unstable();
                ranges(seqs.into_iter())
            }
            Discarded::Stored(seqs) => ranges(seqs.into_iter()),
        };
        self.store_settled(&settled);
    }

    /// Consumers did not want these, nor want them back in the queue; in the order in which they said so.
    pub fn reject(&self, entries: Vec<Entry>) {
        self.forget_unacked(entries.len());
        // What was in a queue that is deleted is gone with it, also what consumers had.
        if self.is_closed() {
            return;
        }
        let mut state = self.lock();
        self.discard(&mut state, Discarded::Held(entries), Reason::Rejected);
    }
}
