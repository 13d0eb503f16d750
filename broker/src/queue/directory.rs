//! Who has messages in the store, by the identity that the store knows them by: the durable queues, and what keeps messages
//! until a time.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use storage::{QueueId, Seq};

use super::Queue;
use crate::model::collections::Map;

/// Keeps messages in the store until a time that is theirs.
pub trait Waiting: Send + Sync {
    /// The time of these messages has come, in this order. Called with nothing held.
    fn due(self: Arc<Self>, seqs: Vec<Seq>);
}

/// See the module's documentation. It keeps nobody alive.
#[derive(Default)]
pub struct Directory {
    queues: Mutex<Map<QueueId, Weak<Queue>>>,
    waiting: Mutex<Map<QueueId, Weak<dyn Waiting>>>,
}

impl Directory {
    /// The queue with this identity, unless it is gone.
    pub fn get(&self, id: QueueId) -> Option<Arc<Queue>> {
        self.queues.lock().get(&id)?.upgrade()
    }

    pub(super) fn insert(&self, queue: &Arc<Queue>) {
        self.queues.lock().insert(queue.id(), Arc::downgrade(queue));
    }

    /// Forgets a queue that is being dropped.
    pub(super) fn remove(&self, queue: &Queue) {
        let mut queues = self.queues.lock();
        if queues.get(&queue.id()).is_some_and(|known| std::ptr::eq(known.as_ptr(), queue)) {
            queues.remove(&queue.id());
        }
    }

    /// Who keeps messages under this identity, if that is no queue.
    pub fn waiting(&self, id: QueueId) -> Option<Arc<dyn Waiting>> {
        self.waiting.lock().get(&id)?.upgrade()
    }

    /// From now on somebody keeps messages under this identity.
    pub fn insert_waiting(&self, id: QueueId, waiting: Weak<dyn Waiting>) {
        self.waiting.lock().insert(id, waiting);
    }

    /// The one with this identity is being dropped; no other has it.
    pub fn remove_waiting(&self, id: QueueId) {
        self.waiting.lock().remove(&id);
    }
}
