//! Who moves dead letters: whoever has just caused some, at the end of its batch, and one task for what time brings about.

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::Broker;
use crate::queue::signal::WakeList;

/// Queues visited in one go: whoever moves dead letters lets others run in between.
const VISITS: usize = 16;

impl Broker {
    /// Moves some of the dead letters that wait.
    pub fn move_dead_letters(&self, wakes: &mut WakeList) {
        let mut moved = false;
        for _ in 0..VISITS {
            let Some(queue) = self.services.dead_letters.pop() else { break };
            moved = true;
            // Without its virtual host there is nowhere to go: its messages are gone too.
            if let Some(vhost) = self.vhost(&queue.spec().vhost) {
                vhost.move_dead(&queue, wakes);
            }
        }
        if moved {
            self.store.kick();
        }
    }

    /// Moves dead letters whenever some wait.
    pub async fn watch_dead_letters(&self) -> Infallible {
        loop {
            self.services.dead_letters.came().await;
            while self.services.dead_letters.is_waiting() {
                // The panic has been reported, and marked whatever it left undone; other queues' dead letters go on.
                let _ = catch_unwind(AssertUnwindSafe(|| self.move_dead_letters(&mut WakeList::default())));
                tokio::task::yield_now().await;
            }
        }
    }
}
