//! Writing entries into the buffer of a group.

use crate::types::{Payload, SeqRange, TopologyChange};

use super::super::key::Key;
use super::super::location::Location;
use super::entry::{Body, Entry, Op};
use super::{ALIGN, ENQUEUE_HEADER, PREFIX, checksum, flag, kind};

/// The payload gave another number of bytes than it had announced.
#[derive(Debug)]
pub(crate) struct WrongLength;

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
                (seal.priority, seal.own) = (priority, delivery_count);
                let (location, len) = self.message(&mut seal, [queue, seq, deadline], &*payload, body, start)?;
                Op::Enqueue { queue, seq, deadline, location, len, delivery_count, priority, tx }
            }
            Entry::Relocate { queue, seq, deadline, payload, delivery_count, priority } => {
                seal.kind = kind::RELOCATE;
                (seal.priority, seal.own) = (priority, delivery_count);
                let (location, len) = self.message(&mut seal, [queue, seq, deadline], &*payload, body, start)?;
                Op::Relocate { queue, seq, deadline, location, len, delivery_count, priority }
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

    /// Writes a message, which begins at `start`; says where its bytes are and what the index keeps as their length.
    fn message(
        &mut self,
        seal: &mut Seal,
        words: [u64; 3],
        payload: &dyn Payload,
        body: Body,
        start: usize,
    ) -> Result<(Location, u32), WrongLength> {
        let [_, _, deadline] = words;
        if deadline != 0 {
            seal.flags |= flag::DEADLINE;
        }
        self.words(&words);
        match body {
            Body::Inline => {
                let announced = payload.encoded_len();
                payload.encode(self.buf);
                if self.buf.len() - start != ENQUEUE_HEADER + announced {
                    return Err(WrongLength);
                }
                let location = Location::segment(self.segment, self.group_offset + start as u64);
                payload.place().set(location.0);
                Ok((location, (ENQUEUE_HEADER + announced) as u32))
            }
            Body::Elsewhere(location, len) => {
                seal.flags |= flag::ELSEWHERE;
                self.words(&[location.0, u64::from(len)]);
                Ok((location, len))
            }
        }
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
}
