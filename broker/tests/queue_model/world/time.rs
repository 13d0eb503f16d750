//! Time that passes, and what goes with it.

use super::*;

impl World<'_> {
    /// By the queue's clock, which nobody can set.
    pub(crate) fn now_ms(&self) -> u64 {
        self.services.timers.clock().now_ms()
    }

    /// Time passes: the queue's timer is called, and the store names what is due, also of what the queue has just settled.
    pub(crate) fn pass(&mut self, ms: u64, store_first: bool) {
        self.time.pass(ms);
        if store_first {
            self.name_due();
        }
        self.fire();
        if !store_first {
            self.name_due();
        }
        self.forget_due();
        self.observe_with(true);
    }

    /// Calls the timers that are due.
    pub(crate) fn fire(&self) {
        while self.services.timers.fire().is_some_and(|first_ms| first_ms <= self.now_ms()) {}
    }

    /// The store names what is due; each message once.
    pub(crate) fn name_due(&mut self) {
        let later = self.unnamed.split_off(&(self.now_ms() + 1, 0));
        let due = std::mem::replace(&mut self.unnamed, later);
        let mut named: Vec<Seq> = due.into_iter().map(|(_, seq)| seq).collect();
        named.sort_unstable();
        self.queue.expire_stored(&named);
    }

    /// Everything ready whose time is over is gone.
    pub(crate) fn forget_due(&mut self) {
        let now_ms = self.now_ms();
        let due = self.ready.values().filter(|known| known.is_due(now_ms));
        self.settled.extend(due.map(|known| known.id));
        self.ready.retain(|_, known| !known.is_due(now_ms));
    }

    /// A message is ready again, or for the first time, unless its time is over.
    pub(super) fn back(&mut self, seq: Seq, known: Known) {
        if known.is_due(self.now_ms()) {
            assert!(self.settled.insert(known.id));
        } else {
            self.ready.insert(seq, known);
        }
    }

    pub(super) fn note_stored(&mut self, seq: Seq, persistent: bool, deadline_ms: Option<u64>) {
        if persistent && self.queue.spec().durable {
            self.unnamed.extend(deadline_ms.map(|deadline_ms| (deadline_ms, seq)));
        }
    }
}

impl Known {
    fn is_due(&self, now_ms: u64) -> bool {
        self.deadline_ms.is_some_and(|deadline_ms| deadline_ms <= now_ms)
    }
}
