//! The bytes of the log's entries.
//!
//! Every entry starts with 16 bytes: length (header included, padding not), checksum, type, flags, priority, inner type of a
//! TxPart, and one 32-bit field of the type's own. README.md has the tables.
//!
//! Here: what writing and reading share. [`Entry`] is what is written, [`Op`] what the index makes of it.

mod decode;
mod encode;
mod entry;
#[cfg(test)]
mod tests;

pub(crate) use decode::{DecodeError, Verified, likely_message, verify};
pub(crate) use encode::Target;
pub(crate) use entry::{Body, Entry, Op, Purge, Requeue};

use super::key::Key;

/// Entries begin at multiples of this.
pub(crate) const ALIGN: usize = 8;
/// Bytes every entry begins with.
pub(crate) const PREFIX: usize = 16;
/// Bytes of an Enqueue or a Relocate before the payload.
pub(crate) const ENQUEUE_HEADER: usize = 40;

/// The type numbers are a closed list. Those that this version does not write are reserved, so that none is ever used twice.
pub(crate) mod kind {
    /// Reserved: a payload alone, named by later Enqueue entries. May be skipped.
    pub(crate) const BODY: u8 = 1;
    /// A message enters a queue. Must be understood.
    pub(crate) const ENQUEUE: u8 = 2;
    /// Messages leave a queue for good. Must be understood.
    pub(crate) const SETTLE: u8 = 3;
    /// Messages went back to their queue: they count as redelivered. Must be understood.
    pub(crate) const REQUEUE: u8 = 4;
    /// Reserved: a message leaves one queue for others in one step. Must be understood.
    pub(crate) const MOVE: u8 = 5;
    /// Compaction wrote a message again; counts only while it is still live. Must be understood.
    pub(crate) const RELOCATE: u8 = 6;
    /// A queue is emptied. Must be understood.
    pub(crate) const PURGE: u8 = 7;
    /// Topology changes, all or none. Must be understood.
    pub(crate) const TOPOLOGY: u8 = 8;
    /// An Enqueue or Settle of a transaction, in force only with its TxEnd. Must be understood.
    pub(crate) const TX_PART: u8 = 9;
    /// All parts before it are in force. Must be understood.
    pub(crate) const TX_END: u8 = 10;
    /// Reserved: the position of a stream's consumer. May be skipped.
    pub(crate) const OFFSET: u8 = 11;
    /// sled holds everything up to the LSN named. Must be understood.
    pub(crate) const CHECKPOINT_DONE: u8 = 12;
}

mod flag {
    /// A reader that does not know the type may ignore the entry.
    pub(crate) const MAY_SKIP: u8 = 1;
    /// An Enqueue or Relocate whose payload is elsewhere: a location and a length stand in its place.
    pub(crate) const ELSEWHERE: u8 = 2;
    /// An Enqueue or Relocate with a deadline.
    pub(crate) const DEADLINE: u8 = 4;
    /// The bits of an Enqueue or Relocate that this version knows.
    pub(crate) const KNOWN: u8 = MAY_SKIP | ELSEWHERE | DEADLINE;
}

fn checksum(key: &Key, segment: u64, offset: u64, entry: &[u8]) -> u32 {
    let sum = crc32c::crc32c_append(key.entry_seed(segment, offset), &entry[..4]);
    crc32c::crc32c_append(sum, &entry[8..])
}
