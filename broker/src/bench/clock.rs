//! Time as it travels in message bodies.

use std::time::{SystemTime, UNIX_EPOCH};

/// Bytes of a timestamp at the start of a body.
pub(super) const STAMP_BYTES: usize = 8;

/// Nanoseconds since 1970, never 0: comparable between processes of one machine.
pub(super) fn now_ns() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| u64::try_from(since.as_nanos()).ok())
        .unwrap_or_default()
        .max(1)
}

/// Reads the timestamp at the start of a body.
pub(super) fn read_stamp(body: &[u8]) -> Option<u64> {
    body.first_chunk::<STAMP_BYTES>().map(|bytes| u64::from_be_bytes(*bytes))
}
