//! Telling whoever waits for a start that takes long how far it is.

use std::time::{Duration, Instant};

/// Nothing is said before this, and not more often.
const EVERY: Duration = Duration::from_secs(1);

/// The progress of one part of a recovery.
pub(crate) struct Progress {
    what: &'static str,
    total: u64,
    started: Instant,
    next: Duration,
}

impl Progress {
    pub(crate) fn new(what: &'static str, total: u64) -> Self {
        Self { what, total, started: Instant::now(), next: EVERY }
    }

    /// Says so when it takes long.
    pub(crate) fn at(&mut self, done: u64) {
        let elapsed = self.started.elapsed();
        if elapsed >= self.next {
            self.next = elapsed + EVERY;
            tracing::info!(done, total = self.total, seconds = elapsed.as_secs(), "recovery: {}", self.what);
        }
    }
}
