//! Reading entries back: first whether they are what was written, then what they say.

use crate::bytes_cursor::Cursor;
use crate::types::{SeqRange, TopologyChange};

use super::super::key::Key;
use super::super::location::Location;
use super::entry::{Op, Purge, Requeue};
use super::{ALIGN, ENQUEUE_HEADER, PREFIX, checksum, flag, kind};

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

/// Queue and number of the message that an entry at the start of `buf` seems to have enqueued or moved. The entry does not
/// verify, so this is a guess, for people to read.
pub(crate) fn likely_message(buf: &[u8]) -> Option<(u64, u64)> {
    let kind = match *buf.get(8)? {
        kind::TX_PART => *buf.get(11)?,
        kind => kind,
    };
    let mut cursor = Cursor::new(buf.get(PREFIX..)?);
    let message = (cursor.u64()?, cursor.u64()?);
    matches!(kind, kind::ENQUEUE | kind::RELOCATE).then_some(message)
}

impl<'a> Verified<'a> {
    /// Bytes of the entry, padding not counted.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes up to the next entry.
    pub(crate) fn span(&self) -> usize {
        self.bytes.len().next_multiple_of(ALIGN)
    }

    pub(crate) fn is_tx_part(&self) -> bool {
        self.bytes[8] == kind::TX_PART
    }

    /// The payload, when this is an Enqueue or Relocate that holds one.
    pub(crate) fn payload(&self) -> Option<&'a [u8]> {
        let kind = if self.is_tx_part() { self.bytes[11] } else { self.bytes[8] };
        if !matches!(kind, kind::ENQUEUE | kind::RELOCATE) || self.bytes[9] & flag::ELSEWHERE != 0 {
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
            kind::RELOCATE => flags & !flag::KNOWN == 0 && !tx,
            kind::SETTLE => flags == 0,
            kind::PURGE | kind::TOPOLOGY | kind::REQUEUE | kind::TX_END | kind::CHECKPOINT_DONE => flags == 0 && !tx,
            kind::BODY | kind::OFFSET | kind::MOVE => false,
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
            kind::ENQUEUE | kind::RELOCATE => {
                let (queue, seq, deadline) = (cursor.u64()?, cursor.u64()?, cursor.u64()?);
                let (location, len) = if self.bytes[9] & flag::ELSEWHERE != 0 {
                    (Location(cursor.u64()?), u32::try_from(cursor.u64()?).ok()?)
                } else {
                    (Location::segment(segment, offset), u32::try_from(self.bytes.len()).ok()?)
                };
                let (delivery_count, priority) = (own, self.bytes[10]);
                match kind {
                    kind::ENQUEUE => Op::Enqueue { queue, seq, deadline, location, len, delivery_count, priority, tx },
                    _ => Op::Relocate { queue, seq, deadline, location, len, delivery_count, priority },
                }
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
