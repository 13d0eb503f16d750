//! Replies that come straight to a channel. They need no credit: whoever asks many questions gets many answers, and what
//! they take counts as the memory of outboxes.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Outbox, Push};
use crate::model::message::Message;
use crate::queue::direct_reply::ReplyConsumer;
use crate::queue::item::{OutItem, Reply};

impl Outbox {
    /// Queues a reply; true when the connection must be woken.
    pub(in crate::queue) fn push_reply_to(&self, consumer: &ReplyConsumer, message: &Arc<Message>) -> bool {
        let mut state = self.state.lock();
        if state.closed || consumer.ended.load(Ordering::Relaxed) {
            return false;
        }
        let Some(channel) = state.credits.channels.get_mut(consumer.channel_slot as usize) else {
            return false;
        };
        let item = OutItem::DirectReply(Reply {
            message: Arc::clone(message),
            tag: channel.take_tag(),
            consumer_tag: Arc::clone(&consumer.tag),
            channel: channel.number,
        });
        self.count(&mut state, &item);
        state.items.push_back(item);
        state.schedule() == Push::SentWake
    }

    /// Nothing more comes for this consumer.
    pub(in crate::queue) fn end_replies(&self, consumer: &ReplyConsumer) {
        let _state = self.state.lock();
        consumer.ended.store(true, Ordering::Relaxed);
    }
}
