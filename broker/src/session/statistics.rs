//! What a session counts: in plain numbers while it handles a batch of frames, and for operators to see at the end of it.

use std::sync::Arc;

use super::Session;
use super::channel::{Channel, Mode, Publisher, Uncounted};
use crate::broker::{ChannelState, OpenConsumer};
use crate::model::statistics::{Statistics, churn, messages};
use crate::vhost::Exchange;

/// Publishes in a row to one exchange, not yet counted there.
#[derive(Default)]
pub(super) struct ExchangeRun {
    exchange: Option<Arc<Exchange>>,
    published: u64,
    routed: u64,
}

impl ExchangeRun {
    /// A message was published, and goes to that many queues.
    pub(super) fn count(&mut self, exchange: &Arc<Exchange>, queues: usize, statistics: &Statistics) {
        if self.exchange.as_ref().is_none_or(|last| !Arc::ptr_eq(last, exchange)) {
            self.end(statistics);
            self.exchange = Some(Arc::clone(exchange));
        }
        self.published += 1;
        self.routed += queues as u64;
    }

    /// Lets the exchange know.
    pub(super) fn end(&mut self, statistics: &Statistics) {
        if let Some(exchange) = &self.exchange
            && self.published > 0
        {
            exchange.count(self.published, self.routed, statistics.ticks.now());
            statistics.received.routed(self.routed);
            (self.published, self.routed) = (0, 0);
        }
    }
}

impl Publisher {
    /// Shows operators what was done, in the given second.
    fn tell(&mut self, tick: u32) {
        let Uncounted { published, confirmed, returned, dropped, acked, got_nothing, .. } =
            std::mem::take(&mut self.uncounted);
        let Some(open) = &self.open else { return };
        open.change(|state| {
            let counters = &mut state.counters;
            counters.turn(tick);
            counters.add(messages::PUBLISH, published);
            counters.add(messages::CONFIRM, confirmed);
            counters.add(messages::RETURN_UNROUTABLE, returned);
            counters.add(messages::DROP_UNROUTABLE, dropped);
            counters.add(messages::ACK, acked);
            counters.add(messages::GET_EMPTY, got_nothing);
            match &self.mode {
                Mode::Plain => {}
                Mode::Confirm(confirms) => state.unconfirmed = confirms.unconfirmed(),
                Mode::Transaction(transaction) => {
                    (state.uncommitted, state.uncommitted_acks) = transaction.counts();
                }
            }
        });
    }

    /// Changes what operators see of the channel.
    pub(super) fn show(&self, change: impl FnOnce(&mut ChannelState)) {
        if let Some(open) = &self.open {
            open.change(change);
        }
    }
}

impl Session {
    /// Something is counted on a channel: operators see it at the end of the batch.
    pub(super) fn counting<'p>(&mut self, number: u16, publisher: &'p mut Publisher) -> &'p mut Uncounted {
        if !std::mem::replace(&mut publisher.uncounted.listed, true) {
            self.uncounted.push(number);
        }
        &mut publisher.uncounted
    }

    /// At the end of a batch: operators see what was counted.
    pub(super) fn tell_counts(&mut self) {
        let tick = self.broker.services.statistics.ticks.now();
        self.run.end(&self.broker.services.statistics);
        self.broker.services.statistics.received.take(&mut self.received);
        let mut numbers = std::mem::take(&mut self.uncounted);
        for number in numbers.drain(..) {
            if let Some(channel) = self.channel_mut(number) {
                channel.publisher.tell(tick);
            }
        }
        self.uncounted = numbers;
    }

    /// Operators see a consumer.
    pub(super) fn show_consumer(&self, channel: &Channel, tag: &Arc<str>, consumer: OpenConsumer) {
        channel.publisher.show(|state| {
            state.consumers.insert(Arc::clone(tag), Arc::new(consumer));
        });
    }

    /// The channel ends: what it has counted goes on to count.
    pub(super) fn retire(&mut self, channel: &mut Channel) {
        let statistics = &self.broker.services.statistics;
        self.run.end(statistics);
        channel.publisher.tell(statistics.ticks.now());
        if let (Some(open), Some(vhost)) = (channel.publisher.open.take(), &self.vhost) {
            statistics.count_churn(churn::CHANNEL_CLOSED);
            self.broker.retire_channel(&self.open, vhost, &open);
        }
    }
}
