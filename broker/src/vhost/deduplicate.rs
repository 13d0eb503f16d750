//! Publishing where duplicates are not taken: by exchanges that a message comes through, and by queues that it comes to.

use super::Vhost;
use crate::queue::window::Stored;

impl Vhost {
    /// Room in the store for the window of a new exchange or queue.
    pub(super) fn window_id(&self, durable: bool) -> Option<Stored> {
        durable.then(|| Stored { id: self.services.store.new_queue_id(), found: None })
    }
}
