//! A clock in a test's hands.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use broker::model::clock::{Clock, TimeSource};

/// Time that passes when a test says so.
pub(crate) struct ManualTime {
    wall_ms: AtomicU64,
    monotonic_ms: AtomicU64,
}

struct Source(Arc<ManualTime>);

impl TimeSource for Source {
    fn wall_ms(&self) -> u64 {
        self.0.wall_ms.load(Ordering::Relaxed)
    }

    fn monotonic_ms(&self) -> u64 {
        self.0.monotonic_ms.load(Ordering::Relaxed)
    }
}

impl ManualTime {
    pub(crate) fn at(wall_ms: u64) -> Arc<Self> {
        Arc::new(Self { wall_ms: AtomicU64::new(wall_ms), monotonic_ms: AtomicU64::new(7) })
    }

    /// A clock that is started now.
    pub(crate) fn clock(self: &Arc<Self>) -> Clock {
        Clock::of(Box::new(Source(Arc::clone(self))))
    }

    pub(crate) fn pass(&self, ms: u64) {
        self.wall_ms.fetch_add(ms, Ordering::Relaxed);
        self.monotonic_ms.fetch_add(ms, Ordering::Relaxed);
    }

    /// Somebody sets the machine's clock.
    pub(crate) fn set_wall(&self, wall_ms: u64) {
        self.wall_ms.store(wall_ms, Ordering::Relaxed);
    }
}
