//! Entries in memory: as they wait to be written, and as the index takes them.

use std::sync::Arc;

use crate::types::{Payload, QueueId, Seq, SeqRange, TopologyChange};

use super::super::location::Location;
use super::{ALIGN, ENQUEUE_HEADER, PREFIX};

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
    /// A message is written again by compaction.
    Relocate {
        queue: QueueId,
        seq: Seq,
        deadline: u64,
        payload: Arc<dyn Payload>,
        delivery_count: u32,
        priority: u8,
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

/// Messages went back to their queue. `delivery_count` is the value to store, unless a larger one is there: a value, not an
/// increment, so that replaying an entry twice changes nothing. Those that wait for a large file are written again behind it,
/// so they may come out of order.
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
    /// A message that is live has its bytes here now. The rest counts only where the message is not known.
    Relocate {
        queue: QueueId,
        seq: Seq,
        deadline: u64,
        location: Location,
        len: u32,
        delivery_count: u32,
        priority: u8,
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

/// How the payload of an Enqueue or Relocate is written.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Body {
    /// In the entry.
    Inline,
    /// It already is at this location; the length is what the index keeps.
    Elsewhere(Location, u32),
}

impl Entry {
    /// Whether it is part of a transaction, or ends one.
    pub(crate) fn is_in_tx(&self) -> bool {
        matches!(self, Self::Enqueue { tx: true, .. } | Self::Settle { tx: true, .. } | Self::TxEnd { .. })
    }

    /// Bytes that it counts for until it is durable.
    pub(crate) fn pending_bytes(&self) -> usize {
        self.span(Body::Inline)
    }

    /// Bytes the entry takes in a group when its payload, if any, is written as `body`; padding included.
    pub(crate) fn span(&self, body: Body) -> usize {
        let len = match (self, body) {
            (Self::Enqueue { payload, .. } | Self::Relocate { payload, .. }, Body::Inline) => {
                ENQUEUE_HEADER + payload.encoded_len()
            }
            (Self::Enqueue { .. } | Self::Relocate { .. }, Body::Elsewhere(..)) => ENQUEUE_HEADER + 16,
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
