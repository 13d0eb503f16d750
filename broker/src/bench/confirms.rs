//! A producer's messages that are not confirmed yet.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::shared::Latencies;

/// The messages between the oldest unconfirmed one and the newest: written by the producer, cleared by its reader.
pub(super) struct Window {
    /// When each was published; 0 = confirmed. The span never exceeds `limit`, so no two messages share a slot.
    slots: Box<[AtomicU64]>,
    limit: u64,
    /// The newest message; the first has number 1.
    sent: AtomicU64,
    /// Every message up to here is confirmed.
    settled: AtomicU64,
}

impl Window {
    pub(super) fn new(limit: u64) -> Self {
        let slots = (0..limit.max(1)).map(|_| AtomicU64::new(0)).collect();
        Self { slots, limit: limit.max(1), sent: AtomicU64::new(0), settled: AtomicU64::new(0) }
    }

    fn slot(&self, number: u64) -> &AtomicU64 {
        let index = usize::try_from(number % self.limit).unwrap_or_default();
        &self.slots[index]
    }

    /// How many more messages may be sent now.
    pub(super) fn free(&self) -> u64 {
        let sent = self.sent.load(Ordering::Relaxed);
        self.limit - (sent - self.settled.load(Ordering::Acquire))
    }

    /// How many messages fit.
    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    /// Whether everything sent is confirmed.
    pub(super) fn is_empty(&self) -> bool {
        self.free() == self.limit
    }

    /// Notes `count` messages, at most `free`, that are about to be sent.
    pub(super) fn send(&self, count: u64, now_ns: u64) {
        let sent = self.sent.load(Ordering::Relaxed);
        for number in sent + 1..=sent + count {
            self.slot(number).store(now_ns, Ordering::Release);
        }
        self.sent.store(sent + count, Ordering::Release);
    }
}

/// The reader's side.
pub(super) struct Confirms {
    window: Arc<Window>,
    pub(super) latencies: Latencies,
}

impl Confirms {
    pub(super) fn new(window: Arc<Window>) -> anyhow::Result<Self> {
        Ok(Self { window, latencies: Latencies::new()? })
    }

    /// Takes a confirm and returns how many messages it settled. Tags from outside the window settle nothing.
    pub(super) fn settle(&mut self, tag: u64, multiple: bool, now_ns: u64, record: bool) -> u64 {
        let window = &self.window;
        let sent = window.sent.load(Ordering::Acquire);
        let mut settled = window.settled.load(Ordering::Relaxed);
        let last = if tag == 0 && multiple { sent } else { tag };
        if last > sent || last <= settled {
            return 0;
        }
        let first = if multiple { settled + 1 } else { last };
        let mut count = 0;
        for number in first..=last {
            let published_ns = window.slot(number).swap(0, Ordering::AcqRel);
            if published_ns != 0 {
                count += 1;
                if record {
                    self.latencies.record(published_ns, now_ns, 1);
                }
            }
        }
        while settled < sent && window.slot(settled + 1).load(Ordering::Acquire) == 0 {
            settled += 1;
        }
        window.settled.store(settled, Ordering::Release);
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn confirms(limit: u64) -> (Arc<Window>, Confirms) {
        let window = Arc::new(Window::new(limit));
        let confirms = Confirms::new(window.clone()).unwrap();
        (window, confirms)
    }

    #[test]
    fn confirms_in_order_free_the_window() {
        let (window, mut confirms) = confirms(3);
        assert_eq!(window.free(), 3);
        window.send(3, 1000);
        assert_eq!(window.free(), 0);
        assert_eq!(confirms.settle(1, false, 5000, true), 1);
        assert_eq!(window.free(), 1);
        window.send(1, 2000);
        assert_eq!(confirms.settle(4, true, 9000, true), 3);
        assert!(window.is_empty());
        assert_eq!(confirms.latencies.0.len(), 4);
        assert_eq!(confirms.latencies.0.min(), 4);
        assert_eq!(confirms.latencies.0.max(), 8);
    }

    #[test]
    fn confirms_out_of_order_wait_for_the_oldest() {
        let (window, mut confirms) = confirms(4);
        window.send(4, 1);
        assert_eq!(confirms.settle(3, false, 2, false), 1);
        assert_eq!(confirms.settle(2, false, 2, false), 1);
        assert_eq!(window.free(), 0);
        assert_eq!(confirms.settle(1, false, 2, false), 1);
        assert_eq!(window.free(), 3);
        assert_eq!(confirms.settle(0, true, 2, false), 1);
        assert_eq!(window.free(), 4);
        assert_eq!(confirms.latencies.0.len(), 0);
    }

    #[test]
    fn a_multiple_confirm_counts_each_message_once() {
        let (window, mut confirms) = confirms(8);
        window.send(5, 1);
        assert_eq!(confirms.settle(2, false, 2, false), 1);
        assert_eq!(confirms.settle(4, true, 2, false), 3);
        assert_eq!(confirms.settle(4, true, 2, false), 0);
        assert_eq!(confirms.settle(9, true, 2, false), 0);
        assert_eq!(window.free(), 7);
    }

    #[test]
    fn many_rounds_reuse_the_slots() {
        let (window, mut confirms) = confirms(5);
        let mut sent = 0;
        for round in 0..1000_u64 {
            let count = 1 + round % 5;
            window.send(count, round + 1);
            sent += count;
            assert_eq!(confirms.settle(sent, true, round + 2, false), count);
            assert!(window.is_empty());
        }
    }
}
