<<<<<<< HEAD
//! The entries of the log: what they are in memory, what the index makes of them, and their bytes.
//!
//! Every entry starts with 16 bytes: length (header included, padding not), checksum, type, flags, priority, inner type of a
//! TxPart, and one 32-bit field of the type's own. README.md has the tables.

use std::sync::Arc;

use crate::bytes_cursor::Cursor;
use crate::types::{Payload, QueueId, Seq, SeqRange, TopologyChange};

use super::key::Key;
use super::location::Location;
=======
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

pub(crate) use decode::{DecodeError, Verified, verify};
pub(crate) use encode::Target;
pub(crate) use entry::{Body, Entry, Op, Purge, Requeue};

use super::key::Key;
>>>>>>> streview

/// Entries begin at multiples of this.
pub(crate) const ALIGN: usize = 8;
/// Bytes every entry begins with.
pub(crate) const PREFIX: usize = 16;
/// Bytes of an Enqueue before the payload.
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
    /// Reserved: compaction wrote a message again; counts only while it is still live. Must be understood.
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
<<<<<<< HEAD
    pub(super) const MAY_SKIP: u8 = 1;
    /// An Enqueue whose payload is elsewhere: a location and a length stand in its place.
    pub(super) const ELSEWHERE: u8 = 2;
    /// An Enqueue with a deadline.
    pub(super) const DEADLINE: u8 = 4;
    /// The bits of an Enqueue that this version knows.
    pub(super) const KNOWN: u8 = MAY_SKIP | ELSEWHERE | DEADLINE;
}

/// An entry waiting to be encoded.
pub(crate) enum Entry {
    Enqueue {
        queue: QueueId,
        seq: Seq,
        deadline: u64,
        payload: Arc<dyn Payload>,
        delivery_count: u32,
        priority: u8,
        tx: bool,
    },
    Settle {
        queue: QueueId,
        range: SeqRange,
        tx: bool,
    },
    Purge(Box<Purge>),
    Topology(Vec<TopologyChange>),
    TxEnd {
        count: u32,
    },
    Requeue(Box<Requeue>),
    CheckpointDone {
        lsn: u64,
        clean: bool,
    },
}

/// A queue is emptied below `below`, but for the messages in `except`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Purge {
    pub(crate) queue: QueueId,
    pub(crate) below: Seq,
    pub(crate) except: Vec<SeqRange>,
}

/// Messages went back to their queue. `delivery_count` is the value to store, 0 leaves it alone: a value, not an increment,
/// so that replaying an entry twice changes nothing.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Requeue {
    pub(crate) queue: QueueId,
    pub(crate) delivery_count: u32,
    pub(crate) ranges: Vec<SeqRange>,
}

/// What an entry does to the index. `deadline` is 0 when there is none.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Enqueue {
        queue: QueueId,
        seq: Seq,
        deadline: u64,
        location: Location,
        len: u32,
        delivery_count: u32,
        priority: u8,
        tx: bool,
    },
    Settle {
        queue: QueueId,
        range: SeqRange,
        tx: bool,
    },
    Purge(Box<Purge>),
    Topology(Vec<TopologyChange>),
    TxEnd {
        count: u32,
        checksum: u32,
    },
    Requeue(Box<Requeue>),
    CheckpointDone {
        lsn: u64,
        clean: bool,
    },
    /// An entry of a type this version does not know and may ignore.
    Skipped,
}

/// How the payload of an Enqueue is written.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Body {
    /// In the entry.
    Inline,
    /// It already is at this location; the length is what the index keeps.
    Elsewhere(Location, u32),
}

/// The payload gave another number of bytes than it had announced.
#[derive(Debug)]
pub(crate) struct WrongLength;

impl Entry {
    /// Bytes the entry takes in a group when its payload, if any, is written as `body`; padding included.
    pub(crate) fn span(&self, body: Body) -> usize {
        let len = match (self, body) {
            (Self::Enqueue { payload, .. }, Body::Inline) => ENQUEUE_HEADER + payload.encoded_len(),
            (Self::Enqueue { .. }, Body::Elsewhere(..)) => ENQUEUE_HEADER + 16,
            (Self::Settle { .. }, _) => PREFIX + 24,
            (Self::Purge(purge), _) => PREFIX + 24 + purge.except.len() * 16,
            (Self::Topology(changes), _) => PREFIX + changes.iter().map(topology_len).sum::<usize>(),
            (Self::Requeue(requeue), _) => PREFIX + 16 + requeue.ranges.len() * 16,
            (Self::TxEnd { .. }, _) => PREFIX + 8,
            (Self::CheckpointDone { .. }, _) => PREFIX + 8,
        };
        len.next_multiple_of(ALIGN)
    }
}

fn topology_len(change: &TopologyChange) -> usize {
    match change {
        TopologyChange::Put { key, value } => 9 + key.len() + value.len(),
        TopologyChange::Delete { key } => 5 + key.len(),
        TopologyChange::DropQueue(_) => 9,
    }
}

/// Where the next entry goes: the buffer of a group, and where in which segment that group will be.
pub(crate) struct Target<'a> {
    pub(crate) key: &'a Key,
    pub(crate) segment: u64,
    pub(crate) group_offset: u64,
    pub(crate) buf: &'a mut Vec<u8>,
    /// Checksum over the checksums of the parts of the transaction being written.
    pub(crate) tx_sum: &'a mut u32,
    /// Checksum over the checksums of the group's entries.
    pub(crate) entries_sum: &'a mut u32,
}

impl Target<'_> {
    /// Appends one entry and says what it does to the index.
    pub(crate) fn encode(&mut self, entry: Entry, body: Body) -> Result<Op, WrongLength> {
        let start = self.buf.len();
        let offset = self.group_offset + start as u64;
        let mut seal = Seal { kind: 0, flags: 0, priority: 0, inner: 0, own: 0 };
        self.buf.extend_from_slice(&[0; PREFIX]);
        let op = match entry {
            Entry::Enqueue { queue, seq, deadline, payload, delivery_count, priority, tx } => {
                seal.kind = kind::ENQUEUE;
                seal.priority = priority;
                seal.own = delivery_count;
                if deadline != 0 {
                    seal.flags |= flag::DEADLINE;
                }
                self.words(&[queue, seq, deadline]);
                let (location, len) = match body {
                    Body::Inline => {
                        let announced = payload.encoded_len();
                        payload.encode(self.buf);
                        if self.buf.len() - start != ENQUEUE_HEADER + announced {
                            return Err(WrongLength);
                        }
                        let location = Location::segment(self.segment, offset);
                        payload.place().set(location.0);
                        (location, (ENQUEUE_HEADER + announced) as u32)
                    }
                    Body::Elsewhere(location, len) => {
                        seal.flags |= flag::ELSEWHERE;
                        self.words(&[location.0, u64::from(len)]);
                        (location, len)
                    }
                };
                Op::Enqueue { queue, seq, deadline, location, len, delivery_count, priority, tx }
            }
            Entry::Settle { queue, range, tx } => {
                seal.kind = kind::SETTLE;
                self.words(&[queue, range.first, range.last]);
                Op::Settle { queue, range, tx }
            }
            Entry::Purge(purge) => {
                seal.kind = kind::PURGE;
                self.words(&[purge.queue, purge.below, purge.except.len() as u64]);
                self.ranges(&purge.except);
                Op::Purge(purge)
            }
            Entry::Topology(changes) => {
                seal.kind = kind::TOPOLOGY;
                seal.own = changes.len() as u32;
                for change in &changes {
                    self.topology(change);
                }
                Op::Topology(changes)
            }
            Entry::Requeue(requeue) => {
                seal.kind = kind::REQUEUE;
                seal.own = requeue.delivery_count;
                self.words(&[requeue.queue, requeue.ranges.len() as u64]);
                self.ranges(&requeue.ranges);
                Op::Requeue(requeue)
            }
            Entry::TxEnd { count } => {
                seal.kind = kind::TX_END;
                seal.own = count;
                let checksum = std::mem::take(self.tx_sum);
                self.words(&[u64::from(checksum)]);
                Op::TxEnd { count, checksum }
            }
            Entry::CheckpointDone { lsn, clean } => {
                seal.kind = kind::CHECKPOINT_DONE;
                seal.own = u32::from(clean);
                self.words(&[lsn]);
                Op::CheckpointDone { lsn, clean }
            }
        };
        let in_tx = matches!(op, Op::Enqueue { tx: true, .. } | Op::Settle { tx: true, .. });
        if in_tx {
            seal.inner = seal.kind;
            seal.kind = kind::TX_PART;
        }
        let sum = self.seal(start, offset, &seal);
        if in_tx {
            *self.tx_sum = crc32c::crc32c_append(*self.tx_sum, &sum.to_le_bytes());
        }
        *self.entries_sum = crc32c::crc32c_append(*self.entries_sum, &sum.to_le_bytes());
        Ok(op)
    }

    fn words(&mut self, words: &[u64]) {
        for word in words {
            self.buf.extend_from_slice(&word.to_le_bytes());
        }
    }

    fn ranges(&mut self, ranges: &[SeqRange]) {
        for range in ranges {
            self.words(&[range.first, range.last]);
        }
    }

    fn topology(&mut self, change: &TopologyChange) {
        match change {
            TopologyChange::Put { key, value } => {
                self.buf.push(1);
                self.buf.extend_from_slice(&(key.len() as u32).to_le_bytes());
                self.buf.extend_from_slice(&(value.len() as u32).to_le_bytes());
                self.buf.extend_from_slice(key);
                self.buf.extend_from_slice(value);
            }
            TopologyChange::Delete { key } => {
                self.buf.push(2);
                self.buf.extend_from_slice(&(key.len() as u32).to_le_bytes());
                self.buf.extend_from_slice(key);
            }
            TopologyChange::DropQueue(queue) => {
                self.buf.push(3);
                self.buf.extend_from_slice(&queue.to_le_bytes());
            }
        }
    }

    /// Fills in the first 16 bytes of the entry that began at `start`, pads it, and returns its checksum.
    fn seal(&mut self, start: usize, offset: u64, seal: &Seal) -> u32 {
        let len = (self.buf.len() - start) as u32;
        let entry = &mut self.buf[start..];
        entry[..4].copy_from_slice(&len.to_le_bytes());
        entry[8..12].copy_from_slice(&[seal.kind, seal.flags, seal.priority, seal.inner]);
        entry[12..16].copy_from_slice(&seal.own.to_le_bytes());
        let sum = checksum(self.key, self.segment, offset, entry);
        entry[4..8].copy_from_slice(&sum.to_le_bytes());
        self.buf.resize(self.buf.len().next_multiple_of(ALIGN), 0);
        sum
    }
}

struct Seal {
    kind: u8,
    flags: u8,
    priority: u8,
    inner: u8,
    own: u32,
=======
    pub(crate) const MAY_SKIP: u8 = 1;
    /// An Enqueue whose payload is elsewhere: a location and a length stand in its place.
    pub(crate) const ELSEWHERE: u8 = 2;
    /// An Enqueue with a deadline.
    pub(crate) const DEADLINE: u8 = 4;
    /// The bits of an Enqueue that this version knows.
    pub(crate) const KNOWN: u8 = MAY_SKIP | ELSEWHERE | DEADLINE;
>>>>>>> streview
}

fn checksum(key: &Key, segment: u64, offset: u64, entry: &[u8]) -> u32 {
    let sum = crc32c::crc32c_append(key.entry_seed(segment, offset), &entry[..4]);
    crc32c::crc32c_append(sum, &entry[8..])
}
<<<<<<< HEAD

/// An entry whose checksum is right.
#[derive(Clone, Copy)]
pub(crate) struct Verified<'a> {
    bytes: &'a [u8],
    pub(crate) checksum: u32,
}

/// What is wrong with an entry whose checksum is right.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum DecodeError {
    /// Of a type or with flags this version does not know and must not ignore.
    NotUnderstood(u8),
    /// Its fields contradict its length.
    Malformed,
}

/// Verifies the entry at the start of `buf`, which is at `offset` of `segment`. `None` when it does not verify.
pub(crate) fn verify<'a>(buf: &'a [u8], key: &Key, segment: u64, offset: u64) -> Option<Verified<'a>> {
    let mut cursor = Cursor::new(buf);
    let len = usize::try_from(cursor.u32()?).ok()?;
    let stored = cursor.u32()?;
    let bytes = buf.get(..len).filter(|bytes| bytes.len() >= PREFIX)?;
    (checksum(key, segment, offset, bytes) == stored).then_some(Verified { bytes, checksum: stored })
}

impl<'a> Verified<'a> {
    /// Bytes up to the next entry.
    pub(crate) fn span(&self) -> usize {
        self.bytes.len().next_multiple_of(ALIGN)
    }

    pub(crate) fn is_tx_part(&self) -> bool {
        self.bytes[8] == kind::TX_PART
    }

    /// The payload, when this is an Enqueue that holds one.
    pub(crate) fn payload(&self) -> Option<&'a [u8]> {
        let kind = if self.is_tx_part() { self.bytes[11] } else { self.bytes[8] };
        if kind != kind::ENQUEUE || self.bytes[9] & flag::ELSEWHERE != 0 {
            return None;
        }
        self.bytes.get(ENQUEUE_HEADER..)
    }

    /// What the entry at `offset` of `segment` does to the index.
    pub(crate) fn decode(&self, segment: u64, offset: u64) -> Result<Op, DecodeError> {
        let (flags, tx) = (self.bytes[9], self.is_tx_part());
        let kind = if tx { self.bytes[11] } else { self.bytes[8] };
        let known = match kind {
            kind::ENQUEUE => flags & !flag::KNOWN == 0,
            kind::SETTLE => flags == 0,
            kind::PURGE | kind::TOPOLOGY | kind::REQUEUE | kind::TX_END | kind::CHECKPOINT_DONE => flags == 0 && !tx,
            kind::BODY | kind::OFFSET | kind::MOVE | kind::RELOCATE => false,
            _ => false,
        };
        if !known {
            if flags & flag::MAY_SKIP != 0 {
                return Ok(Op::Skipped);
            }
            return Err(DecodeError::NotUnderstood(kind));
        }
        self.fields(kind, tx, segment, offset).ok_or(DecodeError::Malformed)
    }

    fn fields(&self, kind: u8, tx: bool, segment: u64, offset: u64) -> Option<Op> {
        let mut cursor = Cursor::new(self.bytes.get(12..)?);
        let own = cursor.u32()?;
        Some(match kind {
            kind::ENQUEUE => {
                let (queue, seq, deadline) = (cursor.u64()?, cursor.u64()?, cursor.u64()?);
                let (location, len) = if self.bytes[9] & flag::ELSEWHERE != 0 {
                    (Location(cursor.u64()?), u32::try_from(cursor.u64()?).ok()?)
                } else {
                    (Location::segment(segment, offset), u32::try_from(self.bytes.len()).ok()?)
                };
                Op::Enqueue { queue, seq, deadline, location, len, delivery_count: own, priority: self.bytes[10], tx }
            }
            kind::SETTLE => Op::Settle { queue: cursor.u64()?, range: range(&mut cursor)?, tx },
            kind::PURGE => {
                let (queue, below, count) = (cursor.u64()?, cursor.u64()?, cursor.u64()?);
                Op::Purge(Box::new(Purge { queue, below, except: ranges(&mut cursor, count)? }))
            }
            kind::REQUEUE => {
                let (queue, count) = (cursor.u64()?, cursor.u64()?);
                Op::Requeue(Box::new(Requeue { queue, delivery_count: own, ranges: ranges(&mut cursor, count)? }))
            }
            kind::TOPOLOGY => Op::Topology(topology(&mut cursor, own)?),
            kind::TX_END => Op::TxEnd { count: own, checksum: u32::try_from(cursor.u64()?).ok()? },
            _ => Op::CheckpointDone { lsn: cursor.u64()?, clean: own & 1 != 0 },
        })
    }
}

fn range(cursor: &mut Cursor<'_>) -> Option<SeqRange> {
    Some(SeqRange { first: cursor.u64()?, last: cursor.u64()? })
}

fn ranges(cursor: &mut Cursor<'_>, count: u64) -> Option<Vec<SeqRange>> {
    // No capacity from the count: it grows only as far as there are bytes.
    let mut out = Vec::new();
    for _ in 0..count {
        out.push(range(cursor)?);
    }
    Some(out)
}

fn topology(cursor: &mut Cursor<'_>, count: u32) -> Option<Vec<TopologyChange>> {
    let mut out = Vec::new();
    for _ in 0..count {
        out.push(match cursor.u8()? {
            1 => {
                let (key, value) = (cursor.u32()? as usize, cursor.u32()? as usize);
                TopologyChange::Put { key: cursor.bytes(key)?.to_vec(), value: cursor.bytes(value)?.to_vec() }
            }
            2 => {
                let key = cursor.u32()? as usize;
                TopologyChange::Delete { key: cursor.bytes(key)?.to_vec() }
            }
            3 => TopologyChange::DropQueue(cursor.u64()?),
            _ => return None,
        });
    }
    Some(out)
}

#[cfg(test)]
mod tests;
=======
>>>>>>> streview
