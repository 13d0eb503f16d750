//! What a queue counts.

use std::sync::atomic::Ordering;

use super::classic::{Queue, State};
use super::consumers::ConsumerId;
use crate::model::counters::Counted;
use crate::model::statistics::messages;

/// What was handed out, by how it is settled.
#[derive(Clone, Copy)]
pub(super) enum Out {
    Delivered { no_ack: bool },
    Got { no_ack: bool },
}

impl Queue {
    /// What was counted, and how many messages there are.
    pub fn statistics(&self) -> Counted<{ messages::LEN }> {
        let mut state = self.lock();
        self.drop_expired(&mut state);
        self.set_gauges(&mut state);
        state.counters.read(&self.services.statistics.ticks)
    }

    /// Whether a consumer may get something; see [`super::consumers::Consumers::is_active`].
    pub fn is_active(&self, id: ConsumerId) -> bool {
        self.lock().consumers.is_active(id)
    }

    /// Whether some consumer would take a message at once.
    pub fn has_ready_consumer(&self) -> bool {
        self.lock().consumers.ready() > 0
    }

    /// What its messages in memory account for, in octets.
    pub fn memory_bytes(&self) -> usize {
        let state = self.lock();
        state.ready.accounted_bytes() + state.dead.accounted_bytes()
    }

    /// At the first hold of the lock in a second.
    pub(super) fn turn_counters(&self, state: &mut State) {
        let tick = self.services.statistics.ticks.now();
        if state.counters.is_due(tick) {
            self.set_gauges(state);
            state.counters.turn(tick);
            self.turned.store(tick, Ordering::Relaxed);
        }
    }

    fn set_gauges(&self, state: &mut State) {
        state.counters.set(messages::READY, state.ready.len() as u64);
        state.counters.set(messages::UNACKED, self.unacked_count() as u64);
        state.counters.set(messages::ACK, self.acked.load(Ordering::Relaxed));
    }

    /// That many deliveries were acknowledged; done without the lock, but for the first time in a second.
    pub(super) fn count_acked(&self, messages: usize) {
        if self.turned.load(Ordering::Relaxed) != self.services.statistics.ticks.now() {
            drop(self.lock());
        }
        self.acked.fetch_add(messages as u64, Ordering::Relaxed);
    }
}

impl State {
    /// One more message has been handed out.
    pub(super) fn count_out(&mut self, out: Out, redelivered: bool) {
        let which = match out {
            Out::Delivered { no_ack: false } => messages::DELIVER,
            Out::Delivered { no_ack: true } => messages::DELIVER_NO_ACK,
            Out::Got { no_ack: false } => messages::GET,
            Out::Got { no_ack: true } => messages::GET_NO_ACK,
        };
        self.counters.add(which, 1);
        if redelivered {
            self.counters.add(messages::REDELIVER, 1);
        }
    }
}
