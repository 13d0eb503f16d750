//! How often somebody tried to log in.

use std::sync::atomic::{AtomicU64, Ordering};

/// Logins over one protocol.
#[derive(Debug, Default)]
pub struct Attempts {
    succeeded: AtomicU64,
    failed: AtomicU64,
}

/// Logins over each protocol.
#[derive(Debug, Default)]
pub struct AllAttempts {
    /// AMQP connections.
    pub amqp: Attempts,
    /// Requests of the management API that came with credentials.
    pub http: Attempts,
}

impl Attempts {
    /// Counts one.
    pub fn count(&self, succeeded: bool) {
        let counter = if succeeded { &self.succeeded } else { &self.failed };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Those that succeeded and those that failed.
    pub fn counts(&self) -> (u64, u64) {
        (self.succeeded.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed))
    }

    /// Begins again at zero.
    pub fn reset(&self) {
        self.succeeded.store(0, Ordering::Relaxed);
        self.failed.store(0, Ordering::Relaxed);
    }
}
