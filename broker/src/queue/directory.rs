//! The durable queues by the identity that the store knows them by.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use storage::QueueId;

use super::Queue;
use crate::model::collections::Map;

/// See the module's documentation. It keeps no queue alive.
#[derive(Default)]
pub struct Directory(Mutex<Map<QueueId, Weak<Queue>>>);

impl Directory {
    /// The queue with this identity, unless it is gone.
    pub fn get(&self, id: QueueId) -> Option<Arc<Queue>> {
        self.0.lock().get(&id)?.upgrade()
    }

    pub(super) fn insert(&self, queue: &Arc<Queue>) {
        self.0.lock().insert(queue.id(), Arc::downgrade(queue));
    }

    /// Forgets a queue that is being dropped.
    pub(super) fn remove(&self, queue: &Queue) {
        let mut queues = self.0.lock();
        if queues.get(&queue.id()).is_some_and(|known| std::ptr::eq(known.as_ptr(), queue)) {
            queues.remove(&queue.id());
        }
    }
}
