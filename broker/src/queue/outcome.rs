//! What queues answer to those who ask something of them.

use storage::Lsn;

/// What became of a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    /// Taken; durable at this position (0 when there is nothing to wait for).
    Taken(Lsn),
    /// The queue has no room, or has crashed and takes nothing: the publisher gets a nack.
    Refused,
    /// The queue was deleted: its share counts as confirmed.
    Gone,
}

/// What became of a consumer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attach {
    /// It gets messages.
    Attached,
    /// One side wants to be the only consumer.
    ExclusiveUse,
    /// The queue was deleted.
    Gone,
}

/// What became of a `basic.get`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Get {
    /// Answered through the outbox, now or as soon as the message has been read.
    Answered,
    /// There is no message.
    Empty,
}

/// Why a conditional delete did not happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotDeleted {
    /// `if-empty`, and there are ready messages.
    NotEmpty,
    /// `if-unused`, and there are consumers.
    InUse,
    /// Somebody else deleted it first.
    AlreadyClosed,
}

/// Why a queue has set no position aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotReserved {
    /// It has been deleted.
    Gone,
    /// It has no room.
    NoRoom,
}
