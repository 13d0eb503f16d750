//! The entries of the log, in order.

use std::ops::ControlFlow;

use crate::error::io_error;
use crate::fs::{Fs, OpenMode};
use crate::log::location::Location;
use crate::log::record::{DecodeError, ENQUEUE_HEADER, Op, Verified};
use crate::recover::scan::{self, GroupRef, Walked};
use crate::types::{Meta, QueueId, Seq, SeqRange, TopologyChange};

use super::{InspectError, Inspector};

/// Where the bytes of a message are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Payload<'a> {
    /// In the entry.
    Here(&'a [u8]),
    /// In an earlier entry.
    Segment {
        /// Its segment.
        segment: u64,
        /// Its offset there.
        offset: u64,
    },
    /// In a file of its own, with this number.
    File(u64),
}

/// What stands in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Item<'a> {
    /// A group begins.
    Group {
        /// Its entries.
        count: u32,
        /// Its bytes in the segment.
        bytes: u64,
        /// The opening of the store that wrote it.
        epoch: u64,
        /// Everything up to here was synced when it was written.
        synced_upto: u64,
    },
    /// A message enters a queue.
    Enqueue {
        /// The queue.
        queue: QueueId,
        /// Its position there.
        seq: Seq,
        /// What is kept beside the bytes.
        meta: Meta,
        /// Bytes of the payload.
        len: u64,
        /// Where they are.
        payload: Payload<'a>,
        /// Only in force with the end of its transaction.
        tx: bool,
        /// Compaction wrote it again: it only says where a message that is still live is now.
        moved: bool,
    },
    /// Messages leave a queue for good.
    Settle {
        /// The queue.
        queue: QueueId,
        /// The messages.
        range: SeqRange,
        /// Only in force with the end of its transaction.
        tx: bool,
    },
    /// Messages went back to their queue.
    Requeue {
        /// The queue.
        queue: QueueId,
        /// The delivery count they have from now on; 0 leaves it.
        delivery_count: u32,
        /// The messages.
        ranges: Vec<SeqRange>,
    },
    /// A queue is emptied.
    Purge {
        /// The queue.
        queue: QueueId,
        /// Below this message.
        below: Seq,
        /// But for these.
        except: Vec<SeqRange>,
    },
    /// The topology changes.
    Topology(Vec<TopologyChange>),
    /// A transaction of so many entries ends.
    TxEnd(u32),
    /// sled has everything up to an LSN.
    CheckpointDone {
        /// That LSN.
        lsn: u64,
        /// The stop was a clean one.
        clean: bool,
    },
    /// An entry of a type this version does not know, and may ignore or not.
    Unknown,
    /// So many entries from here on don't verify, or say what makes no sense.
    Damaged(u32),
}

/// One thing in the log and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Dumped<'a> {
    /// The segment.
    pub segment: u64,
    /// The offset there.
    pub offset: u64,
    /// The position in the log; for a group that of its first entry.
    pub lsn: u64,
    /// What it is.
    pub item: Item<'a>,
}

impl Inspector {
    /// Calls `each` with everything in the log, or in one segment of it, in order, until it breaks off.
    ///
    /// # Errors
    ///
    /// When a newer version wrote the log, or it cannot be read.
    pub fn dump(
        &self,
        segment: Option<u64>,
        mut each: impl FnMut(Dumped<'_>) -> ControlFlow<()>,
    ) -> Result<(), InspectError> {
        for &id in self.segments.iter().filter(|&&id| segment.is_none_or(|wanted| wanted == id)) {
            for group in self.groups(id)? {
                if self.group(&group, &mut each)?.is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn group(
        &self,
        group: &GroupRef,
        each: &mut impl FnMut(Dumped<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, InspectError> {
        let path = self.segment_path(group.segment);
        let file = self.fs.open(&path, OpenMode::Read).map_err(io_error("read", &path))?;
        let bytes = scan::read_group(&*file, &path, group.offset, &group.header)?;
        let header = &group.header;
        let begin = Item::Group {
            count: header.count,
            bytes: header.span(),
            epoch: header.epoch,
            synced_upto: header.synced_upto,
        };
        let segment = group.segment;
        let mut flow = each(Dumped { segment, offset: group.offset, lsn: header.first_lsn, item: begin });
        scan::walk(&bytes, &self.key, segment, group.offset, header.count, |at, walked| {
            if flow.is_break() {
                return;
            }
            let lsn = header.first_lsn + u64::from(at);
            let (offset, item) = match walked {
                Walked::Good(entry, offset) => (offset, item(entry, segment, offset)),
                Walked::Bad(bad) => (bad.offset, Item::Damaged(bad.count)),
            };
            flow = each(Dumped { segment, offset, lsn, item });
        });
        Ok(flow)
    }
}

fn item(entry: Verified<'_>, segment: u64, offset: u64) -> Item<'_> {
    match entry.decode(segment, offset) {
        Ok(op @ (Op::Enqueue { .. } | Op::Relocate { .. })) => {
            let (queue, seq, deadline, location, len, delivery_count, priority, tx, moved) = match op {
                Op::Enqueue { queue, seq, deadline, location, len, delivery_count, priority, tx } => {
                    (queue, seq, deadline, location, len, delivery_count, priority, tx, false)
                }
                Op::Relocate { queue, seq, deadline, location, len, delivery_count, priority } => {
                    (queue, seq, deadline, location, len, delivery_count, priority, false, true)
                }
                _ => return Item::Unknown,
            };
            let meta = Meta { deadline_ms: (deadline != 0).then_some(deadline), priority, delivery_count };
            let inline = u64::from(len).saturating_sub(ENQUEUE_HEADER as u64);
            let (payload, len) = match (entry.payload(), place(location)) {
                (Some(bytes), _) => (Payload::Here(bytes), bytes.len() as u64),
                (None, file @ Payload::File(_)) => (file, u64::from(len)),
                (None, other) => (other, inline),
            };
            Item::Enqueue { queue, seq, meta, len, payload, tx, moved }
        }
        Ok(Op::Settle { queue, range, tx }) => Item::Settle { queue, range, tx },
        Ok(Op::Requeue(requeue)) => {
            Item::Requeue { queue: requeue.queue, delivery_count: requeue.delivery_count, ranges: requeue.ranges }
        }
        Ok(Op::Purge(purge)) => Item::Purge { queue: purge.queue, below: purge.below, except: purge.except },
        Ok(Op::Topology(changes)) => Item::Topology(changes),
        Ok(Op::TxEnd { count, .. }) => Item::TxEnd(count),
        Ok(Op::CheckpointDone { lsn, clean }) => Item::CheckpointDone { lsn, clean },
        Ok(Op::Skipped) | Err(DecodeError::NotUnderstood(_)) => Item::Unknown,
        Err(DecodeError::Malformed) => Item::Damaged(1),
    }
}

fn place(location: Location) -> Payload<'static> {
    match (location.as_large(), location.as_segment()) {
        (Some(file), _) => Payload::File(file),
        (None, place) => {
            let (segment, offset) = place.unwrap_or_default();
            Payload::Segment { segment, offset }
        }
    }
}
