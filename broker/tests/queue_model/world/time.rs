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
        self.lapse();
        self.forget_due();
        self.observe_unused();
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
        let mut named: BTreeMap<u8, Vec<Seq>> = BTreeMap::from([(0, Vec::new())]);
        for (_, seq) in due {
            let (number, level) = owner_of(seq);
            named.entry(level).or_default().push(number);
        }
        for (level, mut numbers) in named {
            numbers.sort_unstable();
            self.queue.expire_stored(level, &numbers);
        }
    }

    /// What nobody has acknowledged in time is ready again. Each connection gives back its own, and what the first gave back
    /// may be out again before the second: then the order says nothing.
    fn lapse(&mut self) {
        let now_ms = self.now_ms();
        let mut lapsed = BTreeSet::new();
        for connection in 0..self.connections.len() {
            for channel in 0..self.connections[connection].channels.len() {
                let held = &mut self.connections[connection].channels[channel];
                let due = held.unacked.iter().filter(|(_, held)| held.due_ms.is_some_and(|due_ms| due_ms <= now_ms));
                let tags: Vec<u64> = due.map(|(tag, _)| *tag).collect();
                held.lapsed.extend(&tags);
                for tag in tags {
                    let consumer = self.connections[connection].channels[channel].unacked[&tag].consumer;
                    if let Some(consumer) = consumer {
                        // The others come first now.
                        self.consumers[consumer].passed.clear();
                    }
                    lapsed.insert(connection);
                    self.give_back(connection, channel, tag, Settle::Requeue);
                }
            }
        }
        self.unordered = lapsed.len() > 1;
    }

    /// Everything ready whose time is over is gone.
    pub(crate) fn forget_due(&mut self) {
        let now_ms = self.now_ms();
        let due = self.ready.values().filter(|known| known.is_due(now_ms));
        for known in due {
            self.settled.insert(known.id);
            self.limits.due.0 += 1;
            self.limits.due.1 += known.len as u64;
        }
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
