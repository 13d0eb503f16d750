//! The vocabulary of the store's public interface.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

/// Identifies a queue for ever: an id is never given out twice, also not after a crash.
pub type QueueId = u64;

/// Position of a message in its queue, given by the queue, ascending.
pub type Seq = u64;

/// Log sequence number: the position of one entry in the log. `Lsn(0)` is before the first entry and so always durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

/// A run of messages of one queue, both ends included. A range with `last < first` is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SeqRange {
    /// The first message of the run.
    pub first: Seq,
    /// The last message of the run.
    pub last: Seq,
}

impl SeqRange {
    /// The range that holds one message.
    #[must_use]
    pub fn one(seq: Seq) -> Self {
        Self { first: seq, last: seq }
    }

    /// Whether `seq` lies inside.
    #[must_use]
    pub fn contains(&self, seq: Seq) -> bool {
        self.first <= seq && seq <= self.last
    }
}

/// What the store keeps about a message beside its bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// When the message expires, in milliseconds of wall time since the Unix epoch. `Some(0)` is stored as `Some(1)`.
    pub deadline_ms: Option<u64>,
    /// Priority as the queue resolved it.
    pub priority: u8,
    /// What is known of its deliveries, by a count of the user's own making: the larger of two values is kept.
    pub delivery_count: u32,
}

/// The bytes of a message as the store writes them. Encoding happens on the store's own thread, off the publisher's path.
pub trait Payload: Send + Sync + 'static {
    /// Exactly how many bytes [`Payload::encode`] appends.
    fn encoded_len(&self) -> usize;
    /// Appends the bytes to `out`.
    fn encode(&self, out: &mut Vec<u8>);
    /// Where the store notes that it has already written this payload.
    fn place(&self) -> &Place;
}

/// Where a payload already is in the log. It lives inside the payload, belongs to one store, and lets a publish to several
/// queues write the body once. `Default` means "nowhere yet".
#[derive(Debug, Default)]
pub struct Place(AtomicU64);

impl Place {
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, location: u64) {
        self.0.store(location, Ordering::Relaxed);
    }

    pub(crate) fn at(location: u64) -> Self {
        Self(AtomicU64::new(location))
    }
}

impl Clone for Place {
    fn clone(&self) -> Self {
        Self::at(self.get())
    }
}

/// One change of the durable topology. Keys and values are opaque.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TopologyChange {
    /// Sets `key` to `value`.
    Put {
        /// The key.
        key: Vec<u8>,
        /// Its new value.
        value: Vec<u8>,
    },
    /// Removes `key`.
    Delete {
        /// The key.
        key: Vec<u8>,
    },
    /// Removes every message of this queue, those appended before and any that might still come. The id is dead from here on.
    DropQueue(QueueId),
}

/// One operation of a transaction.
pub enum TxOp {
    /// As [`crate::Store::enqueue`].
    Enqueue {
        /// The queue.
        queue: QueueId,
        /// The message's position in it.
        seq: Seq,
        /// What is kept beside the bytes.
        meta: Meta,
        /// The bytes.
        payload: Arc<dyn Payload>,
    },
    /// As [`crate::Store::settle`].
    Settle {
        /// The queue.
        queue: QueueId,
        /// The messages that are done with, none that is still to come: a transaction may wait for the file of a large message
        /// while others are enqueued.
        range: SeqRange,
    },
}

/// Somebody who waits for a position of the log to be durable.
pub trait Durable: Send + Sync {
    /// Called once, from the thread that syncs the log: it must be quick and must never block.
    fn durable(&self);
}

/// Messages read back from the store.
#[derive(Debug, Default)]
pub struct ReadBatch {
    /// In ascending order of `seq`.
    pub messages: Vec<ReadMessage>,
    /// Where the next read continues.
    pub next: Seq,
    /// No live message was at or above `next` when the batch was put together.
    pub end: bool,
    /// Messages that should be there and whose bytes on disk are damaged or gone. Those that the file system could not read
    /// at all (an I/O error) are neither here nor in `messages`: they stay in the store, and another read may find them.
    pub damaged: Vec<Seq>,
}

/// Which messages there are.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// Their positions, ascending.
    pub seqs: Vec<Seq>,
    /// Where the next list continues.
    pub next: Seq,
    /// No live message was at or above `next` when the list was made.
    pub end: bool,
}

/// Messages that have expired.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// In ascending order for each queue.
    pub messages: Vec<(QueueId, Vec<Seq>)>,
    /// The deadlines of all of them, in the same order.
    pub deadlines: Vec<u64>,
    /// There are more: ask again at once.
    pub more: bool,
    /// As [`crate::Store::next_deadline`].
    pub next: Option<u64>,
}

/// One message read back from the store.
#[derive(Debug)]
pub struct ReadMessage {
    /// Its position in its queue.
    pub seq: Seq,
    /// What is kept beside the bytes.
    pub meta: Meta,
    /// It was, or may have been, delivered before.
    pub redelivered: bool,
    /// Where the bytes are, to be given to the payload made of them.
    pub place: Place,
    /// The bytes as [`Payload::encode`] gave them, in an allocation of their own.
    pub payload: Bytes,
}

/// What [`crate::Store::open`] found.
#[derive(Debug, Default)]
pub struct Recovered {
    /// Every topology key with its value, in the order of the keys.
    pub topology: Vec<(Vec<u8>, Vec<u8>)>,
    /// Every queue that ever held a message and was not dropped, in the order of the ids.
    pub queues: Vec<RecoveredQueue>,
    /// The store was closed before; delivered flags are exact. Otherwise every message counts as redelivered.
    pub clean: bool,
    /// One line for everything that was lost, quarantined or rebuilt. Empty when all was well (a torn tail is not damage).
    pub damage: Vec<String>,
    /// The messages behind these lines, as far as it is known which queues they were in.
    pub lost: Vec<LostMessages>,
    /// Log entries replayed on top of the state that was read from sled.
    pub replayed_entries: u64,
}

/// Messages of one queue that were lost to damage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostMessages {
    /// The queue.
    pub queue: QueueId,
    /// How many.
    pub messages: u64,
    /// By what, as the end of a sentence.
    pub why: String,
}

/// What is known of one recovered queue without reading a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecoveredQueue {
    /// The queue.
    pub id: QueueId,
    /// Its oldest live message, or `next_seq` when there is none.
    pub first: Seq,
    /// Where its numbering continues: above everything that may have been used.
    pub next_seq: Seq,
    /// Live messages.
    pub messages: u64,
    /// Bytes of their payloads; too many after a crash, when messages not in memory were settled since the last checkpoint.
    pub bytes: u64,
}
