//! Wall time that never jumps: read once at start, advanced by the monotonic clock.

use std::sync::LazyLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

static START: LazyLock<(Instant, u64)> = LazyLock::new(|| {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (Instant::now(), wall.as_millis() as u64)
});

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    let (started, wall_ms) = *START;
    wall_ms + started.elapsed().as_millis() as u64
}
