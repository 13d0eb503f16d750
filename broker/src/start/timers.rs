//! The task that waits for the broker's timers.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use crate::queue::timers::Timers;

/// Calls each timer when its time has come.
pub(super) async fn run(timers: Arc<Timers>) -> Infallible {
    loop {
        let Some(first_ms) = timers.fire() else {
            timers.earlier().await;
            continue;
        };
        let wait_ms = first_ms.saturating_sub(timers.clock().now_ms());
        if wait_ms == 0 {
            // Others may have work to do before the next round.
            tokio::task::yield_now().await;
            continue;
        }
        // Whether time has passed or an earlier one was armed: the next round looks.
        let _ = tokio::time::timeout(Duration::from_millis(wait_ms), timers.earlier()).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, Weak};

    use tokio::sync::mpsc;

    use super::*;
    use crate::model::clock::Clock;
    use crate::queue::timers::{Timed, Timer};

    /// Tells at what time it was called, and is armed again at once for a number of times.
    struct Called {
        timer: Mutex<Option<Timer>>,
        again: Mutex<u32>,
        told: mpsc::UnboundedSender<u64>,
    }

    impl Timed for Called {
        fn fire(self: Arc<Self>, now_ms: u64) {
            self.told.send(now_ms).unwrap();
            let mut again = self.again.lock().unwrap();
            let next_ms = (*again > 0).then_some(now_ms);
            *again = again.saturating_sub(1);
            self.timer.lock().unwrap().as_mut().unwrap().set(next_ms);
        }
    }

    #[test]
    fn an_earlier_time_is_not_slept_through() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
        runtime.block_on(async {
            let timers = Timers::new(Clock::system());
            let (told, mut calls) = mpsc::unbounded_channel();
            let task = tokio::spawn(run(Arc::clone(&timers)));
            let called = Arc::new(Called { timer: Mutex::default(), again: Mutex::new(2), told });
            *called.timer.lock().unwrap() = Some(timers.timer(Arc::downgrade(&called) as Weak<dyn Timed>));
            let now_ms = timers.clock().now_ms();
            for at_ms in [now_ms + 3_600_000_000, now_ms + 3_600_000, now_ms + 2] {
                called.timer.lock().unwrap().as_mut().unwrap().arm(at_ms);
                tokio::task::yield_now().await;
            }
            for _ in 0..3 {
                assert!(calls.recv().await.unwrap() >= now_ms + 2, "never before its time");
            }
            task.abort();
        });
    }
}
