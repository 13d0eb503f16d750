//! What a session keeps of one channel.

use std::sync::Arc;

use hashbrown::HashMap;
use protocol::Assembler;

use super::confirm::Confirms;
use super::publish::RouteCache;
use super::tx::Transaction;
use crate::broker::OpenChannel;
use crate::queue::Queue;
use crate::queue::consumers::ConsumerId;
use crate::queue::direct_reply::ReplyConsumer;

/// A channel that the client opened.
pub(super) struct Channel {
    pub number: u16,
    /// Its slot in the outbox.
    pub slot: u32,
    pub assembler: Assembler,
    /// Octets of an incomplete message, as counted against the connection's and the node's limit.
    pub partial_bytes: usize,
    pub publisher: Publisher,
    pub consumers: HashMap<Arc<str>, ChannelConsumer>,
    /// Name of the queue declared last: what an empty queue name stands for.
    pub last_queue: Option<Arc<str>>,
    /// Prefetch of consumers created from now on; 0 = unlimited.
    pub prefetch: u32,
    /// The broker has closed it and waits for the client's close-ok: everything else is ignored.
    pub closing: bool,
}

/// The publishing side of a channel.
#[derive(Default)]
pub(super) struct Publisher {
    pub routes: RouteCache,
    pub mode: Mode,
    /// What operators see of the channel.
    pub open: Option<Arc<OpenChannel>>,
    /// What was done since they were told.
    pub uncounted: Uncounted,
    /// Who gets the replies to what is published here.
    pub replies: Option<Arc<ReplyConsumer>>,
}

/// What a client does on a channel between two looks at its statistics.
#[derive(Default)]
pub(super) struct Uncounted {
    /// Its number is on the session's list.
    pub listed: bool,
    pub published: u64,
    pub confirmed: u64,
    pub returned: u64,
    pub dropped: u64,
    pub acked: u64,
    pub got_nothing: u64,
}

/// What publishes of a channel answer with.
#[derive(Default)]
pub(super) enum Mode {
    /// Nothing.
    #[default]
    Plain,
    /// basic.ack once a message is safe.
    Confirm(Confirms),
    /// Nothing until tx.commit.
    Transaction(Transaction),
}

/// A consumer as its session knows it.
pub(super) struct ChannelConsumer {
    pub id: ConsumerId,
    pub slot: u32,
    pub queue: Arc<Queue>,
}

impl Channel {
    pub(super) fn new(open: Arc<OpenChannel>, max_message_bytes: u64) -> Self {
        let mut assembler = Assembler::new();
        assembler.keep_bodies_up_to(max_message_bytes);
        Self {
            number: open.number,
            slot: open.slot,
            assembler,
            partial_bytes: 0,
            publisher: Publisher { open: Some(open), ..Publisher::default() },
            consumers: HashMap::new(),
            last_queue: None,
            prefetch: 0,
            closing: false,
        }
    }

    /// Whether a consumer of this channel has the tag.
    pub(super) fn has_consumer(&self, tag: &str) -> bool {
        self.consumers.contains_key(tag) || self.publisher.replies.as_ref().is_some_and(|replies| *replies.tag == *tag)
    }
}
