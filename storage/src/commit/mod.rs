//! Group commit: pending entries become groups, one pwrite and one fdatasync each.
//!
//! The encoder thread fills one buffer while the sync thread writes and syncs the other. Nobody is told that a position is
//! durable before the fdatasync that covers it has returned and the index knows the entries.

pub(crate) mod encoder;
pub(crate) mod failure;
pub(crate) mod pending;
pub(crate) mod sleeper;
pub(crate) mod syncer;
pub(crate) mod waiters;

use crate::index::Position;
use crate::log::record::Op;
use crate::log::segment::Segment;

/// A finished group on its way to the disk.
pub(crate) struct Group {
    pub(crate) buf: Vec<u8>,
    pub(crate) ops: Vec<Op>,
    pub(crate) segment: Segment,
    pub(crate) offset: u64,
    pub(crate) last_lsn: u64,
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
