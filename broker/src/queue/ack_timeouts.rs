//! Deliveries of one connection that must be acknowledged by some time. Only those of consumers and queues with a timeout are
//! here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};

use super::timers::{Timed, Timer, Timers};

/// A delivery: the slot of its channel and its tag.
pub(super) type At = (u32, u64);

/// See the module's documentation.
#[derive(Default)]
pub(super) struct AckTimeouts {
    /// By the time when it is over.
    by_time: BTreeSet<(u64, At)>,
    by_delivery: BTreeMap<At, Limit>,
    /// For the earliest; made when there is one for the first time.
    timer: Option<Timer>,
}

#[derive(Clone, Copy)]
struct Limit {
    at_ms: u64,
    timeout_ms: u64,
}

impl AckTimeouts {
    /// Gives a delivery this long. `target` is called when it is over.
    pub(super) fn add<T: Timed + 'static>(&mut self, at: At, timeout_ms: u64, timers: &Arc<Timers>, target: &Arc<T>) {
        let at_ms = timers.clock().now_ms().saturating_add(timeout_ms);
        self.set(at, Limit { at_ms, timeout_ms });
        let timer = self.timer.get_or_insert_with(|| {
            let target: Weak<T> = Arc::downgrade(target);
            timers.timer(target)
        });
        timer.arm(at_ms);
    }

    fn set(&mut self, at: At, limit: Limit) {
        self.by_time.insert((limit.at_ms, at));
        self.by_delivery.insert(at, limit);
    }

    /// A delivery is settled.
    pub(super) fn remove(&mut self, at: At) {
        if let Some(limit) = self.by_delivery.remove(&at) {
            self.by_time.remove(&(limit.at_ms, at));
        }
    }

    /// A channel has ended.
    pub(super) fn remove_channel(&mut self, slot: u32) {
        let mut rest = self.by_delivery.split_off(&(slot, 0));
        let others = rest.split_off(&(slot.saturating_add(1), 0));
        for (at, limit) in rest {
            self.by_time.remove(&(limit.at_ms, at));
        }
        self.by_delivery.extend(others);
    }

    /// Takes one whose time is over.
    pub(super) fn take_due(&mut self, now_ms: u64) -> Option<At> {
        let (at_ms, at) = *self.by_time.first()?;
        (at_ms <= now_ms).then(|| {
            self.by_time.pop_first();
            at
        })
    }

    /// One that was taken gets its time once more.
    pub(super) fn postpone(&mut self, at: At, now_ms: u64) {
        if let Some(Limit { timeout_ms, .. }) = self.by_delivery.get(&at).copied() {
            self.set(at, Limit { at_ms: now_ms.saturating_add(timeout_ms), timeout_ms });
        }
    }

    /// Sets the timer for those that are left.
    pub(super) fn arm(&mut self) {
        let first = self.by_time.first().map(|(at_ms, _)| *at_ms);
        if let Some(timer) = &mut self.timer {
            timer.set(first);
        }
    }
}
