//! Direct reply-to: a consumer that no queue stands behind. Whoever has its address hands replies straight to the outbox of
//! the channel that asked.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::outbox::Outbox;
use super::signal::WakeList;
use crate::model::message::Message;

/// The reply consumer of one channel.
pub struct ReplyConsumer {
    /// What its client calls it.
    pub tag: Arc<str>,
    /// The address that replies go to.
    pub address: Arc<str>,
    pub(super) outbox: Arc<Outbox>,
    pub(super) channel_slot: u32,
    /// Changed under the outbox's lock only: the slot may belong to another channel afterwards.
    pub(super) ended: AtomicBool,
}

impl ReplyConsumer {
    /// A consumer on a channel of this outbox.
    pub fn new(outbox: Arc<Outbox>, channel_slot: u32, tag: Arc<str>, address: Arc<str>) -> Arc<Self> {
        Arc::new(Self { tag, address, outbox, channel_slot, ended: AtomicBool::new(false) })
    }

    /// Hands over a reply. One that comes too late is dropped.
    pub fn deliver(&self, message: &Arc<Message>, wakes: &mut WakeList) {
        if self.outbox.push_reply_to(self, message) {
            wakes.push(self.outbox.signal());
        }
    }

    /// Takes no more replies from now on. To be called before its channel's slot is given up.
    pub fn end(&self) {
        self.outbox.end_replies(self);
    }
}
