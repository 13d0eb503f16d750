//! Who deletes queues that nobody has used for some time.

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::Broker;

impl Broker {
    /// Deletes queues whose time without use is over, unless somebody consumes from them by now.
    pub fn delete_unused(&self) {
        for queue in self.services.unused.take() {
            if let Some(vhost) = self.vhost(&queue.spec().vhost) {
                tracing::debug!(queue = %queue.spec().name, vhost = %vhost.name(), "a queue ends for want of use");
                vhost.delete_queue_object(&queue, true);
            }
        }
        self.store.kick();
    }

    /// Deletes them whenever there are some.
    pub async fn watch_unused(&self) -> Infallible {
        loop {
            self.services.unused.came().await;
            // The panic has been reported, and marked whatever it left undone; other queues' time comes all the same.
            let _ = catch_unwind(AssertUnwindSafe(|| self.delete_unused()));
        }
    }
}
