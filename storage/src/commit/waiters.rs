//! Those who wait for a position of the log.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::types::{Durable, Lsn};

/// The durable position and who waits for it.
#[derive(Default)]
pub(crate) struct Waiters {
    durable: AtomicU64,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    order: BinaryHeap<Reverse<(u64, u64)>>,
    waiters: BTreeMap<u64, Arc<dyn Durable>>,
    next: u64,
    closed: bool,
}

impl Waiters {
    pub(crate) fn new(durable: u64) -> Self {
        Self { durable: AtomicU64::new(durable), waiting: Mutex::default() }
    }

    pub(crate) fn durable(&self) -> Lsn {
        Lsn(self.durable.load(Ordering::Acquire))
    }

    /// Calls `waiter` once when `lsn` is durable, at once if it is. Returns whether it still waits. Once the store has stopped
    /// it is let go instead.
    pub(crate) fn add(&self, lsn: Lsn, waiter: Arc<dyn Durable>) -> bool {
        let mut waiting = self.waiting.lock();
        // Looked at under the lock that `publish` takes after it has moved the position: either this sees the new position,
        // or `publish` sees the waiter.
        if self.durable() >= lsn {
            drop(waiting);
            waiter.durable();
            return false;
        }
        if waiting.closed {
            return false;
        }
        let number = waiting.next;
        waiting.next += 1;
        waiting.order.push(Reverse((lsn.0, number)));
        waiting.waiters.insert(number, waiter);
        true
    }

    /// Moves the durable position and calls those it reaches.
    pub(crate) fn publish(&self, lsn: u64) {
        self.durable.store(lsn, Ordering::Release);
        let mut reached = Vec::new();
        {
            let mut waiting = self.waiting.lock();
            while let Some(&Reverse((at, number))) = waiting.order.peek()
                && at <= lsn
            {
                waiting.order.pop();
                reached.extend(waiting.waiters.remove(&number));
            }
        }
        for waiter in reached {
            waiter.durable();
        }
    }

    /// Lets everybody go, those to come too: the store has stopped.
    pub(crate) fn close(&self) {
        let forgotten = std::mem::replace(&mut *self.waiting.lock(), Waiting { closed: true, ..Waiting::default() });
        // Dropped outside the lock, since a waiter may own what calls back here.
        drop(forgotten);
    }
}
