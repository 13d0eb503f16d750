//! Queues that end when nobody uses them for some time.
//!
//! A consumer is use for as long as it is there, a get and a declare are use in their moment, a publish is none. The time
//! begins anew when the broker starts.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::classic::{Queue, State};
use super::timers::{Timed, Timer};

/// When a queue was used last.
#[derive(Default)]
pub(super) struct Lifetime {
    used_ms: u64,
    lease: Option<(Arc<Lease>, Timer)>,
}

/// Called when it may be over.
struct Lease(Weak<Queue>);

impl Queue {
    /// It is used.
    pub fn touch(&self) {
        self.used(&mut self.lock());
    }

    /// It is used, or was up to now.
    pub(super) fn used(&self, state: &mut State) {
        let Some(expires_ms) = state.settings.expires_ms else {
            return;
        };
        let now_ms = self.services.timers.clock().now_ms();
        state.lifetime.used_ms = now_ms;
        if !state.consumers.is_empty() || self.is_closed() {
            return;
        }
        let (_, timer) = state.lifetime.lease.get_or_insert_with(|| {
            let lease = Arc::new(Lease(self.weak()));
            let weak = Arc::downgrade(&lease);
            (lease, self.services.timers.timer(weak))
        });
        timer.arm(now_ms.saturating_add(expires_ms));
    }

    /// The time has another length from now on, and begins.
    pub(super) fn start_lease(&self, state: &mut State) {
        state.lifetime.lease = None;
        self.used(state);
    }
}

impl Lifetime {
    /// The queue has ended.
    pub(super) fn end(&mut self) {
        self.lease = None;
    }
}

impl Timed for Lease {
    fn fire(self: Arc<Self>, now_ms: u64) {
        let Some(queue) = self.0.upgrade() else {
            return;
        };
        let mut state = queue.lock();
        if queue.is_closed() || queue.is_crashed() {
            return;
        }
        let is_used = !state.consumers.is_empty();
        let expires_ms = state.settings.expires_ms;
        let ends_ms = expires_ms.map(|expires_ms| state.lifetime.used_ms.saturating_add(expires_ms));
        let Some((_, timer)) = &mut state.lifetime.lease else {
            return;
        };
        match ends_ms {
            Some(ends_ms) if !is_used && ends_ms <= now_ms => {
                timer.set(None);
                drop(state);
                queue.services.unused.push(Arc::clone(&queue));
            }
            // Somebody has used it meanwhile.
            Some(ends_ms) if !is_used => timer.set(Some(ends_ms)),
            _ => timer.set(None),
        }
    }
}

/// The queues of a node whose time without use is over: whoever owns them deletes them.
#[derive(Default)]
pub struct Unused {
    queues: Mutex<Vec<Arc<Queue>>>,
    came: Notify,
}

impl Unused {
    fn push(&self, queue: Arc<Queue>) {
        self.queues.lock().push(queue);
        self.came.notify_one();
    }

    /// Takes them.
    pub fn take(&self) -> Vec<Arc<Queue>> {
        std::mem::take(&mut self.queues.lock())
    }

    /// Waits until there is one.
    pub async fn came(&self) {
        self.came.notified().await;
    }
}
