//! Messages that come from another queue: they enter here and leave there as one thing, also over a crash.

use std::sync::Arc;

use storage::{Lsn, QueueId, Seq, SeqRange, Store, TxOp};

use super::classic::Queue;
use super::outcome::Published;
use super::ready::Entry;
use super::signal::WakeList;
use crate::model::message::Message;
use crate::model::statistics::messages;

/// Puts the entry of a message into the log, and tells where that is durable.
pub(super) type Append<'a> = &'a mut dyn FnMut(TxOp) -> Lsn;

impl Queue {
    /// Takes a message that another queue or an exchange gives up, which is settled there in the store once it is here.
    /// `from`: where that is, as the store calls it.
    pub fn publish_moved(
        self: &Arc<Self>,
        message: &Arc<Message>,
        from: Option<(QueueId, Seq)>,
        wakes: &mut WakeList,
    ) -> Published {
        let Some((queue, seq)) = from else {
            return self.take(message, None, wakes);
        };
        let store = &self.services.store;
        let range = SeqRange::one(seq);
        let mut append = |entry| store.transaction(vec![entry, TxOp::Settle { queue, range }]);
        let taken = self.take(message, Some(&mut append), wakes);
        if let Published::Taken(_) = taken
            && !self.stores(message)
        {
            store.settle(queue, range);
        }
        taken
    }

    /// Takes a message. If it is stored here, `append` puts it into the log, together with what belongs to it; it is called
    /// under the queue's lock, and not at all if the queue does not take the message.
    pub fn publish_together(
        self: &Arc<Self>,
        message: &Arc<Message>,
        append: Append<'_>,
        wakes: &mut WakeList,
    ) -> Published {
        self.take(message, Some(append), wakes)
    }

    /// The entry of the log for a message at a position of this queue.
    pub fn entry_of(&self, seq: Seq, message: &Arc<Message>) -> TxOp {
        let (id, at) = self.in_store(seq);
        TxOp::Enqueue { queue: id, seq: at, meta: message.meta(), payload: Arc::clone(message) as _ }
    }

    /// As [`Queue::publish_moved`], into several queues that store it, and where else `ops` enter it. Gives how many queues
    /// took it; when none did and `ops` are empty, it is still where it was.
    pub fn publish_moved_to_all(
        store: &Store,
        queues: &[Arc<Self>],
        message: &Arc<Message>,
        from: Option<(QueueId, Seq)>,
        mut ops: Vec<TxOp>,
        wakes: &mut WakeList,
    ) -> usize {
        let mut places = Vec::with_capacity(queues.len());
        for queue in queues {
            // One that was deleted meanwhile, or that has no room, takes nothing.
            let message = queue.with_own_deadline(message);
            let Ok(seq) = queue.reserve(&message) else { continue };
            ops.push(queue.entry_of(seq, &message));
            places.push((queue, seq, message));
        }
        if ops.is_empty() {
            return 0;
        }
        ops.extend(from.map(|(queue, seq)| TxOp::Settle { queue, range: SeqRange::one(seq) }));
        store.transaction(ops);
        for (queue, seq, message) in &places {
            queue.publish_placed(*seq, message, wakes);
        }
        places.len()
    }

    /// Makes a message visible at its reserved position, at once: it is in the log, and nobody waits for it. Unlike those of
    /// transactions it need not stay in memory.
    pub fn publish_placed(self: &Arc<Self>, seq: Seq, message: &Arc<Message>, wakes: &mut WakeList) {
        let mut state = self.lock();
        state.unreserve(seq, message);
        if self.is_closed() {
            return;
        }
        state.counters.add(messages::PUBLISH, 1);
        let entry = Entry::new(seq, Arc::clone(message));
        if state.ready.is_behind_all(seq) {
            self.keep(&mut state, entry, true);
        } else {
            state.ready.insert(entry);
        }
        self.pump(&mut state, wakes);
    }
}
