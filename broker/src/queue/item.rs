//! What an outbox holds: deliveries, replies, and markers between them.

use std::sync::Arc;

use storage::{Lsn, Seq};

use super::Queue;
use super::ready::Entry;
use crate::model::message::Message;

/// Bookkeeping that every queued delivery costs beside its message.
pub(super) const ITEM_BYTES: usize = std::mem::size_of::<OutItem>();

/// One entry of the FIFO.
pub enum OutItem {
    /// A message for a consumer.
    Deliver(Delivery),
    /// Encoded frames of one channel, not to be written before `lsn` is durable.
    Reply {
        /// Channel whose later items wait with it.
        channel: u16,
        /// Log position that the reply vouches for.
        lsn: Lsn,
        /// The frames.
        frames: Vec<u8>,
    },
    /// Encoded frames of the connection itself that nothing holds back.
    Notice(Vec<u8>),
    /// The answer to a `basic.get` that found a message.
    Got(Box<Got>),
    /// The place of a `basic.get` whose message is still being read from disk.
    PendingGet {
        /// Channel whose later items wait with it.
        channel: u16,
        /// Names it within the connection.
        id: u64,
    },
    /// A mandatory message that no queue took.
    Return {
        /// Channel it was published on.
        channel: u16,
        /// The message as published.
        message: Arc<Message>,
    },
    /// A reply that came straight to the channel.
    DirectReply(Reply),
    /// Everything for this consumer has been written: its slot may be used again.
    ConsumerGone {
        /// Channel of the consumer: the item keeps its place behind the channel's deliveries.
        channel: u16,
        /// Slot of the consumer.
        slot: u32,
    },
}

impl OutItem {
    /// Whether the client itself asked for it, as opposed to a delivery.
    pub fn is_reply(&self) -> bool {
        !matches!(self, Self::Deliver(_) | Self::DirectReply(_) | Self::ConsumerGone { .. })
    }

    /// The channel whose order the item belongs to.
    pub fn channel(&self) -> u16 {
        match self {
            Self::Deliver(Delivery { channel, .. })
            | Self::Reply { channel, .. }
            | Self::PendingGet { channel, .. }
            | Self::Return { channel, .. }
            | Self::ConsumerGone { channel, .. } => *channel,
            Self::Got(got) => got.channel,
            Self::DirectReply(reply) => reply.channel,
            Self::Notice(_) => 0,
        }
    }
}

/// A message on its way to a consumer.
pub struct Delivery {
    /// The message.
    pub message: Arc<Message>,
    /// Delivery tag.
    pub tag: u64,
    /// Position in its queue.
    pub seq: Seq,
    /// Slot of the consumer.
    pub slot: u32,
    /// Channel number.
    pub channel: u16,
    /// Whether it may have been delivered before.
    pub redelivered: bool,
    /// Automatic acknowledgement: settled once it is on its way.
    pub no_ack: bool,
}

/// A message on its way to a direct reply-to consumer.
pub struct Reply {
    /// The message.
    pub message: Arc<Message>,
    /// Delivery tag.
    pub tag: u64,
    /// What the client calls its consumer.
    pub consumer_tag: Arc<str>,
    /// Channel number.
    pub channel: u16,
}

/// A message on its way to a `basic.get`.
pub struct Got {
    /// Channel number.
    pub channel: u16,
    /// Delivery tag.
    pub tag: u64,
    /// The queue it came from.
    pub queue: Arc<Queue>,
    /// The message with its position.
    pub entry: Entry,
    /// Ready messages left in the queue.
    pub remaining: u32,
    /// Automatic acknowledgement.
    pub no_ack: bool,
}

impl Got {
    pub(super) fn bytes(&self) -> usize {
        ITEM_BYTES + self.entry.message.resident_bytes()
    }
}

/// Bytes of an item that are free once it is written: all but those of deliveries that wait for an acknowledgement then.
pub fn loose_bytes(item: &OutItem) -> usize {
    match item {
        OutItem::Deliver(Delivery { no_ack: false, .. }) => 0,
        OutItem::Deliver(Delivery { message, .. })
        | OutItem::DirectReply(Reply { message, .. })
        | OutItem::Return { message, .. } => held_bytes(message),
        OutItem::Got(got) if got.no_ack => held_bytes(&got.entry.message),
        OutItem::Got(_) => 0,
        other => item_bytes(other),
    }
}

/// What holding a message for a client accounts for.
pub(super) fn held_bytes(message: &Message) -> usize {
    ITEM_BYTES + message.accounted_bytes()
}

/// Bytes that an item counts while it waits.
pub fn item_bytes(item: &OutItem) -> usize {
    match item {
        OutItem::Deliver(delivery) => ITEM_BYTES + delivery.message.resident_bytes(),
        OutItem::Reply { frames, .. } | OutItem::Notice(frames) => ITEM_BYTES + frames.len(),
        OutItem::Return { message, .. } | OutItem::DirectReply(Reply { message, .. }) => {
            ITEM_BYTES + message.resident_bytes()
        }
        OutItem::Got(got) => got.bytes(),
        OutItem::PendingGet { .. } => ITEM_BYTES,
        OutItem::ConsumerGone { .. } => 0,
    }
}

/// Bytes that the writer has encoded, as the outbox counted them.
#[derive(Default)]
pub struct Written {
    /// Of all items.
    pub bytes: usize,
    /// Of what the client itself asked for.
    pub reply_bytes: usize,
    /// Of what is free now.
    pub loose_bytes: usize,
}

impl Written {
    /// Counts an item.
    pub fn add(&mut self, item: &OutItem) {
        let bytes = item_bytes(item);
        self.bytes += bytes;
        self.loose_bytes += loose_bytes(item);
        if item.is_reply() {
            self.reply_bytes += bytes;
        }
    }
}
