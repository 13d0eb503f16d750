//! How channels and connections end.

use std::sync::Arc;

use super::channel::{Channel, Mode, Publisher};
use super::{Phase, Session};
use crate::queue::outbox::Undelivered;
use crate::queue::settle::Requeue;

impl Session {
    /// Ends a channel: consumers go, a transaction is rolled back, what was not settled returns to its queues.
    pub(super) fn end_channel(&mut self, channel: &mut Channel) {
        let consumers = std::mem::take(&mut channel.consumers);
        for (tag, consumer) in &consumers {
            self.end_consumer(channel.number, consumer);
            self.consumer_deleted(channel.number, tag, &consumer.queue.spec().name);
        }
        self.end_replies(channel);
        self.forget_partial(channel);
        self.retire(channel);
        if let Mode::Transaction(transaction) = std::mem::take(&mut channel.publisher).mode {
            let taken = transaction.settled.into_iter().map(|settle| settle.unacked).collect();
            self.outbox.restore(channel.slot, taken);
        }
        let number = channel.number;
        self.unconfirmed.retain(|other| *other != number);
        let requeue: Requeue = self.outbox.close_channel(channel.slot);
        requeue.commit(&mut self.wakes);
        for consumer in consumers.values() {
            consumer.queue.hand_over(consumer.id, &mut self.wakes);
        }
        self.channel_changed("channel.closed", number);
        self.release_channels(1);
    }

    fn release_channels(&mut self, count: usize) {
        let count = count.min(self.open_channels);
        if let Some(usage) = &self.usage {
            self.broker.close_channels(usage, count);
        }
        self.open_channels -= count;
    }

    fn forget_partial(&mut self, channel: &mut Channel) {
        let counted = std::mem::take(&mut channel.partial_bytes);
        self.count_partial(counted, 0);
        channel.assembler.reset();
    }

    /// Ends everything that belongs to the connection. Idempotent; when it returns, the connection's exclusive queues are
    /// gone and its unsettled messages are back in their queues.
    pub fn end(&mut self) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        self.apply_commits();
        self.drop_parked();
        let mut channels: Vec<Box<Channel>> = self.channels.drain().map(|(_, channel)| channel).collect();
        channels.extend(self.current.take());
        for channel in &mut channels {
            self.end_replies(channel);
            for (tag, consumer) in std::mem::take(&mut channel.consumers) {
                self.consumer_deleted(channel.number, &tag, &consumer.queue.spec().name);
            }
            self.forget_partial(channel);
            self.retire(channel);
            let Publisher { mode, .. } = std::mem::take(&mut channel.publisher);
            if let Mode::Transaction(transaction) = mode {
                let taken = transaction.settled.into_iter().map(|settle| settle.unacked).collect();
                self.outbox.restore(channel.slot, taken);
            }
        }
        let Undelivered { requeue, consumers } = self.outbox.close(self.writer.unwritten());
        let mut unused = Vec::new();
        for resume in &consumers {
            if resume.queue.detach(resume.consumer) && resume.queue.spec().auto_delete {
                unused.push(Arc::clone(&resume.queue));
            }
        }
        requeue.commit(&mut self.wakes);
        for resume in &consumers {
            resume.queue.hand_over(resume.consumer, &mut self.wakes);
        }
        if self.vhost.is_some() {
            for channel in &channels {
                self.channel_changed("channel.closed", channel.number);
            }
            self.connection_closed();
        }
        if let Some(vhost) = self.vhost.take() {
            for queue in &unused {
                vhost.delete_queue_object(queue, true);
            }
            vhost.delete_exclusive(self.id);
        }
        self.unconfirmed.clear();
        self.release_channels(self.open_channels);
        self.broker.release_connection(self.id);
        self.wakes.wake();
        self.broker.store.kick();
    }

    /// The connection is over: nothing more is read or answered.
    pub(super) fn finish(&mut self) {
        self.end();
        self.phase = Phase::Closed;
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.end();
        self.broker.forget_connection(self.id);
    }
}
