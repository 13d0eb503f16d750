//! Messages that come from another queue: they enter here and leave there as one thing, also over a crash.

use std::sync::Arc;

use storage::{Lsn, QueueId, Seq, SeqRange, Store, TxOp};

use super::classic::Queue;
use super::outcome::Published;
use super::ready::Entry;
use super::signal::WakeList;
use crate::model::message::Message;

impl Queue {
    /// Takes a message that another queue or an exchange gives up, which is settled there in the store once it is here.
    /// `from`: where that is, as the store calls it.
    pub fn publish_moved(
        self: &Arc<Self>,
        message: &Arc<Message>,
        from: Option<(QueueId, Seq)>,
        wakes: &mut WakeList,
    ) -> Published {
        let taken = self.take(message, from, wakes);
        if let Published::Taken(_) = taken
            && let Some((queue, seq)) = from
            && !self.stores(message)
        {
            self.services.store.settle(queue, SeqRange::one(seq));
        }
        taken
    }

    /// The entry of the log for a message at its new place that takes it away from the old one, as the store calls it.
    pub(super) fn log_moved(&self, seq: Seq, message: &Arc<Message>, (queue, old): (QueueId, Seq)) -> Lsn {
        let (id, at) = self.in_store(seq);
        self.services.store.transaction(vec![
            TxOp::Enqueue { queue: id, seq: at, meta: message.meta(), payload: Arc::clone(message) as _ },
            TxOp::Settle { queue, range: SeqRange::one(old) },
        ])
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
            let payload = Arc::clone(&message) as _;
            let (id, at) = queue.in_store(seq);
            ops.push(TxOp::Enqueue { queue: id, seq: at, meta: message.meta(), payload });
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
    fn publish_placed(self: &Arc<Self>, seq: Seq, message: &Arc<Message>, wakes: &mut WakeList) {
        let mut state = self.lock();
        state.unreserve(seq, message);
        if self.is_closed() {
            return;
        }
        let entry = Entry::new(seq, Arc::clone(message));
        if state.ready.is_behind_all(seq) {
            self.keep(&mut state, entry, true);
        } else {
            state.ready.insert(entry);
        }
        self.pump(&mut state, wakes);
    }
}
