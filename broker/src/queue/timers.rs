//! Timers: whoever wants to be called at some time arms one. They share one order of times, and one task waits for the
//! first of them (`start/timers.rs`).
//!
//! A timer is one entry, which moves when the timer is armed anew and goes when the timer is dropped, so nothing stale piles
//! up. The lock is a leaf: timers are armed under a queue's lock, and called with nothing held.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::model::clock::Clock;

/// Timers called in one [`Timers::fire`]: whoever drives them lets others run in between.
const FIRED_MAX: usize = 64;

/// Somebody who waits for a time.
pub trait Timed: Send + Sync {
    /// The time has come, or has come earlier for a timer armed anew meanwhile. The timer must be set again here, if only
    /// to nothing: see [`Timer::set`].
    fn fire(self: Arc<Self>, now_ms: u64);
}

/// See the module's documentation.
pub struct Timers {
    clock: Clock,
    state: Mutex<State>,
    earlier: Notify,
}

#[derive(Default)]
struct State {
    /// By time, then by the timer's number.
    armed: BTreeMap<(u64, u64), Weak<dyn Timed>>,
    last_id: u64,
}

impl Timers {
    /// Timers that run on this clock.
    pub fn new(clock: Clock) -> Arc<Self> {
        Arc::new(Self { clock, state: Mutex::default(), earlier: Notify::new() })
    }

    /// The clock that they run on.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// A timer that is not armed yet.
    pub fn timer(self: &Arc<Self>, target: Weak<dyn Timed>) -> Timer {
        let mut state = self.state.lock();
        state.last_id += 1;
        Timer { timers: Arc::clone(self), id: state.last_id, target, armed_ms: None }
    }

    /// Calls whose time has come, some of them if they are many. Returns the first time that is armed then, in milliseconds
    /// since 1970; it may have come already.
    pub fn fire(&self) -> Option<u64> {
        let now_ms = self.clock.now_ms();
        for _ in 0..FIRED_MAX {
            let target = {
                let mut state = self.state.lock();
                let first = state.armed.first_entry().filter(|first| first.key().0 <= now_ms);
                first.map(|first| first.remove())
            };
            let Some(target) = target else { break };
            if let Some(target) = target.upgrade() {
                // The panic has been reported, and marked whatever it left undone; the others' time comes all the same.
                let _ = catch_unwind(AssertUnwindSafe(|| target.fire(now_ms)));
            }
        }
        self.state.lock().armed.keys().next().map(|(at_ms, _)| *at_ms)
    }

    /// Waits until a time is armed that is earlier than all others.
    pub async fn earlier(&self) {
        self.earlier.notified().await;
    }
}

/// One entry among the [`Timers`].
pub struct Timer {
    timers: Arc<Timers>,
    id: u64,
    target: Weak<dyn Timed>,
    /// As it was set last; it may have been called since.
    armed_ms: Option<u64>,
}

impl Timer {
    /// Arms it, unless it is armed for that time or an earlier one already.
    pub fn arm(&mut self, at_ms: u64) {
        if self.armed_ms.is_none_or(|armed_ms| armed_ms > at_ms) {
            self.set(Some(at_ms));
        }
    }

    /// Arms it for this time, or disarms it.
    pub fn set(&mut self, at_ms: Option<u64>) {
        let mut state = self.timers.state.lock();
        if let Some(armed_ms) = self.armed_ms {
            state.armed.remove(&(armed_ms, self.id));
        }
        self.armed_ms = at_ms;
        let Some(at_ms) = at_ms else { return };
        state.armed.insert((at_ms, self.id), Weak::clone(&self.target));
        let is_first = state.armed.keys().next() == Some(&(at_ms, self.id));
        drop(state);
        if is_first {
            self.timers.earlier.notify_one();
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.set(None);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::model::clock::TimeSource;

    struct Passing(Arc<AtomicU64>);

    impl TimeSource for Passing {
        fn wall_ms(&self) -> u64 {
            0
        }

        fn monotonic_ms(&self) -> u64 {
            self.0.load(Ordering::Relaxed)
        }
    }

    /// Notes when it is called, and is armed again for some time later.
    struct Called {
        timer: Mutex<Option<Timer>>,
        again_ms: u64,
        at_ms: Mutex<Vec<u64>>,
    }

    impl Called {
        fn new(timers: &Arc<Timers>, at_ms: u64, again_ms: u64) -> Arc<Self> {
            let called = Arc::new(Self { timer: Mutex::default(), again_ms, at_ms: Mutex::default() });
            let mut timer = timers.timer(Arc::downgrade(&called) as Weak<dyn Timed>);
            timer.arm(at_ms);
            *called.timer.lock() = Some(timer);
            called
        }

        fn arm(&self, at_ms: u64) {
            self.timer.lock().as_mut().unwrap().arm(at_ms);
        }
    }

    impl Timed for Called {
        fn fire(self: Arc<Self>, now_ms: u64) {
            self.at_ms.lock().push(now_ms);
            let again = (self.again_ms > 0).then_some(now_ms + self.again_ms);
            self.timer.lock().as_mut().unwrap().set(again);
        }
    }

    fn timers() -> (Arc<Timers>, Arc<AtomicU64>) {
        let time = Arc::new(AtomicU64::new(0));
        (Timers::new(Clock::of(Box::new(Passing(Arc::clone(&time))))), time)
    }

    #[test]
    fn each_is_called_at_its_time() {
        let (timers, time) = timers();
        let (early, late) = (Called::new(&timers, 10, 0), Called::new(&timers, 20, 5));
        assert_eq!(timers.fire(), Some(10));
        for (now, next) in [(9, Some(10)), (10, Some(20)), (19, Some(20)), (22, Some(27)), (27, Some(32))] {
            time.store(now, Ordering::Relaxed);
            assert_eq!(timers.fire(), next, "at {now}");
        }
        assert_eq!(*early.at_ms.lock(), [10]);
        assert_eq!(*late.at_ms.lock(), [22, 27]);
    }

    #[test]
    fn one_timer_is_one_entry() {
        let (timers, time) = timers();
        let called = Called::new(&timers, 1_000, 0);
        for at_ms in (500..1_000).rev().chain(500..2_000) {
            called.arm(at_ms);
        }
        assert_eq!(timers.state.lock().armed.len(), 1);
        time.store(500, Ordering::Relaxed);
        assert_eq!(timers.fire(), None);
        assert_eq!(*called.at_ms.lock(), [500]);
    }

    #[test]
    fn armed_anew_between_its_time_and_its_call() {
        let (timers, time) = timers();
        let called = Called::new(&timers, 10, 7);
        time.store(10, Ordering::Relaxed);
        // As when the entry has been taken and the target is about to be called.
        timers.state.lock().armed.clear();
        called.arm(3);
        Arc::clone(&called).fire(10);
        assert_eq!(timers.fire(), Some(17));
        assert_eq!(*called.at_ms.lock(), [10]);
    }

    #[test]
    fn a_dropped_timer_is_gone() {
        let (timers, _) = timers();
        let called = Called::new(&timers, 10, 0);
        *called.timer.lock() = None;
        assert_eq!(timers.fire(), None);
    }

    #[test]
    fn a_panic_of_one_stops_no_other() {
        struct Panics;
        impl Timed for Panics {
            fn fire(self: Arc<Self>, _: u64) {
                panic!("as a test wants it");
            }
        }
        let (timers, time) = timers();
        let panics: Arc<dyn Timed> = Arc::new(Panics);
        let mut timer = timers.timer(Arc::downgrade(&panics));
        timer.arm(1);
        let called = Called::new(&timers, 2, 0);
        time.store(2, Ordering::Relaxed);
        assert_eq!(timers.fire(), None);
        assert_eq!(*called.at_ms.lock(), [2]);
    }

    #[test]
    fn many_at_once_take_several_rounds() {
        let (timers, time) = timers();
        let all: Vec<_> = (0..3 * FIRED_MAX).map(|_| Called::new(&timers, 5, 0)).collect();
        time.store(5, Ordering::Relaxed);
        assert_eq!([timers.fire(), timers.fire(), timers.fire()], [Some(5), Some(5), None]);
        assert!(all.iter().all(|called| *called.at_ms.lock() == [5]));
    }
}
