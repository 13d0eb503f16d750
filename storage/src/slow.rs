//! Warnings about what takes too long, a few of them however often it happens.

use std::fmt::Display;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Time between two warnings of one kind.
const PAUSE: Duration = Duration::from_secs(10);

/// One kind of operation that should be quick.
#[derive(Debug)]
pub struct Slow {
    what: &'static str,
    /// Zero for never.
    limit: Duration,
    told: Mutex<Told>,
}

#[derive(Debug, Default)]
struct Told {
    last: Option<Instant>,
    silent: u64,
}

impl Slow {
    /// Warns when `what` takes as long as `limit`; never when that is zero.
    #[must_use]
    pub fn new(what: &'static str, limit: Duration) -> Self {
        Self { what, limit, told: Mutex::default() }
    }

    /// It took that long.
    pub fn note(&self, took: Duration, detail: impl Display) {
        if self.limit.is_zero() || took < self.limit {
            return;
        }
        if let Some(silent) = self.admit(Instant::now()) {
            let (operation, took_ms) = (self.what, u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
            tracing::warn!(operation, took_ms, silent, "slow operation: {detail}");
        }
    }

    /// Whether to write a line now; with it goes how many were left out since the last one.
    fn admit(&self, now: Instant) -> Option<u64> {
        let mut told = self.told.lock();
        if told.last.is_some_and(|last| now.saturating_duration_since(last) < PAUSE) {
            told.silent += 1;
            return None;
        }
        told.last = Some(now);
        Some(std::mem::take(&mut told.silent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_every_ten_seconds_says_how_many_were_left_out() {
        let slow = Slow::new("test", Duration::from_secs(1));
        let start = Instant::now();
        assert_eq!(slow.admit(start), Some(0));
        for i in 1..10 {
            assert_eq!(slow.admit(start + Duration::from_secs(i)), None);
        }
        assert_eq!(slow.admit(start + PAUSE), Some(9));
        assert_eq!(slow.admit(start + PAUSE * 2), Some(0));
    }

    #[test]
    fn what_is_quick_is_not_counted() {
        let slow = Slow::new("test", Duration::from_secs(1));
        slow.note(Duration::from_millis(999), "quick");
        assert!(slow.told.lock().last.is_none());
        slow.note(Duration::from_secs(1), "slow");
        assert!(slow.told.lock().last.is_some());
        let never = Slow::new("test", Duration::ZERO);
        never.note(Duration::from_secs(100), "nobody asks");
        assert!(never.told.lock().last.is_none());
    }
}
