//! Wall time that never jumps: read once at start, advanced by the monotonic clock.
//!
//! Deadlines are wall time, so that they keep their meaning over a restart. While a broker runs, somebody who sets the clock
//! moves none of them.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Where a [`Clock`] gets its time from.
pub trait TimeSource: Send + Sync {
    /// Wall time in milliseconds since 1970. It may jump.
    fn wall_ms(&self) -> u64;
    /// Milliseconds since some fixed moment. It never jumps.
    fn monotonic_ms(&self) -> u64;
}

/// The machine's clocks.
struct System {
    started: Instant,
}

impl TimeSource for System {
    fn wall_ms(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
    }

    fn monotonic_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }
}

/// See the module's documentation.
pub struct Clock {
    source: Box<dyn TimeSource>,
    wall_at_start_ms: u64,
    monotonic_at_start_ms: u64,
}

impl Clock {
    /// The machine's time.
    pub fn system() -> Self {
        Self::of(Box::new(System { started: Instant::now() }))
    }

    /// The time of `source`, whose wall time is asked for here and never again.
    pub fn of(source: Box<dyn TimeSource>) -> Self {
        let (wall_at_start_ms, monotonic_at_start_ms) = (source.wall_ms(), source.monotonic_ms());
        Self { source, wall_at_start_ms, monotonic_at_start_ms }
    }

    /// Milliseconds since 1970.
    pub fn now_ms(&self) -> u64 {
        let passed_ms = self.source.monotonic_ms().saturating_sub(self.monotonic_at_start_ms);
        self.wall_at_start_ms.saturating_add(passed_ms)
    }
}
