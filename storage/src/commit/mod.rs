//! Group commit: pending entries become groups, one pwrite and one fdatasync each.
//!
//! The encoder thread fills one buffer while the sync thread writes and syncs the other. Nobody is told that a position is
//! durable before the fdatasync that covers it has returned and the index knows the entries.

pub(crate) mod encoder;
pub(crate) mod failure;
mod held;
pub(crate) mod large_writer;
pub(crate) mod pending;
pub(crate) mod sleeper;
pub(crate) mod syncer;
pub(crate) mod waiters;

use std::time::Instant;

use crate::index::Position;
use crate::log::record::Op;
use crate::log::segment::Segment;

/// A finished group on its way to the disk; empty when it only says what waits.
pub(crate) struct Group {
    pub(crate) buf: Vec<u8>,
    pub(crate) ops: Vec<Op>,
    pub(crate) segment: Segment,
    pub(crate) offset: u64,
    /// LSN of its last entry, in the order of the log.
    pub(crate) last_lsn: u64,
    /// Once it is synced, everything is durable that was appended up to here.
    pub(crate) durable: u64,
    /// And up to here, but for messages that wait for files.
    pub(crate) landed: u64,
    /// When the first of its entries was appended.
    pub(crate) since: Option<Instant>,
    /// Position after the group.
    pub(crate) end: Position,
    /// Pending bytes it takes with it.
    pub(crate) taken: u64,
}

/// The buffers of a group that is done, for reuse.
pub(crate) struct Spare {
    pub(crate) buf: Vec<u8>,
    pub(crate) ops: Vec<Op>,
}
