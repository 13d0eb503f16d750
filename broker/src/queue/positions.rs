//! Positions of a queue: what the store calls them, and those set aside for messages of a transaction.

use std::sync::Arc;

use storage::{Lsn, QueueId, Seq, SeqRange};

use super::classic::{Queue, State};
use super::lanes;
use super::outcome::NotReserved;
use super::ready::Entry;
use super::signal::WakeList;
use crate::model::message::Message;
use crate::model::statistics::messages;

impl Queue {
    /// What the store calls a position of this queue.
    pub fn in_store(&self, seq: Seq) -> (QueueId, Seq) {
        lanes::in_store(self.id(), seq)
    }

    /// What the store calls a run of positions of one level.
    pub fn range_in_store(&self, range: SeqRange) -> (QueueId, SeqRange) {
        let ((id, first), (_, last)) = (self.in_store(range.first), self.in_store(range.last));
        (id, SeqRange { first, last })
    }

    /// The ids by which the store knows it: one for every level of priority that was used.
    pub fn store_ids(&self) -> Vec<QueueId> {
        self.lock().ready.levels().map(|level| lanes::id_of(self.id(), level)).collect()
    }

    /// Tells the store that these messages are settled for good; gives where that is durable.
    pub fn store_settled(&self, ranges: &[SeqRange]) -> Lsn {
        let mut lsn = Lsn(0);
        if self.spec().durable {
            for range in ranges {
                let (id, range) = self.range_in_store(*range);
                lsn = self.services.store.settle(id, range);
            }
        }
        lsn
    }

    /// Ready messages that were delivered before, as the store calls them: what a clean stop writes down.
    pub fn redelivered(&self) -> Vec<(QueueId, Vec<SeqRange>)> {
        self.lock().ready.redelivered(self.id())
    }

    pub(super) fn forget_spilled(&self, state: &State) {
        for level in state.ready.levels() {
            self.services.store.spill().forget(lanes::id_of(self.id(), level));
        }
    }

    /// Sets a position aside for a message of a transaction.
    ///
    /// # Errors
    ///
    /// When the queue is gone or has no room.
    pub fn reserve(&self, message: &Arc<Message>) -> Result<Seq, NotReserved> {
        let mut state = self.lock();
        if self.is_closed() {
            return Err(NotReserved::Gone);
        }
        self.drop_expired(&mut state);
        if self.has_no_room(&state, message) {
            let overflow = state.settings.overflow;
            drop(state);
            self.refuse(message, overflow);
            return Err(NotReserved::NoRoom);
        }
        Ok(state.reserve(message))
    }

    /// Makes a message of a committed transaction visible at its reserved position.
    pub fn publish_reserved(self: &Arc<Self>, seq: Seq, message: &Arc<Message>, wakes: &mut WakeList) {
        let mut state = self.lock();
        state.unreserve(seq, message);
        if self.is_closed() {
            return;
        }
        state.counters.add(messages::PUBLISH, 1);
        state.ready.insert(Entry::new(seq, Arc::clone(message)));
        self.pump(&mut state, wakes);
    }
}
