//! How a queue hands out what is ready: to consumers in turn, and to clients that ask for one message.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::classic::{Queue, State};
use super::consumers::Consumer;
use super::delivery_limit::Told;
use super::outbox::{Outbox, Push};
use super::outcome::Get;
use super::ready::Entry;
use super::signal::WakeList;
use super::statistics::Out;
use crate::model::statistics::messages;

/// Messages handed to one consumer under one hold of its outbox's lock.
const PUSH_BATCH: isize = 128;

/// A `basic.get` that waits for the backlog.
pub(super) struct Getter {
    outbox: Arc<Outbox>,
    channel_slot: u32,
    id: u64,
    no_ack: bool,
}

impl Queue {
    /// Offers one message to the consumers in turn; gives it back when none has credit.
    pub(super) fn deliver(&self, state: &mut State, entry: Entry, wakes: &mut WakeList) -> Option<Entry> {
        let (seq, tally, redelivered) = (entry.seq, entry.tally, entry.redelivered);
        let mut entry = Some(entry);
        while let Some(consumer) = state.consumers.next() {
            let (push, counts) = {
                let mut outbox = consumer.outbox.lock();
                let counts = self.counts_deliveries() && outbox.expects_ack(consumer.slot);
                (outbox.deliver(consumer, &mut entry), counts)
            };
            match push {
                Push::Refused => state.consumers.park(),
                sent => {
                    if counts {
                        self.log_out(seq, tally);
                    }
                    if sent == Push::SentWake {
                        wakes.push(consumer.outbox.signal());
                    }
                    self.unacked.fetch_add(1, Ordering::Relaxed);
                    let out = Out::Delivered { no_ack: consumer.no_ack };
                    state.count_out(out, redelivered);
                    state.consumers.rotate();
                    return None;
                }
            }
        }
        entry
    }

    /// Hands out what is ready, and reads ahead when memory runs low.
    pub(super) fn pump(self: &Arc<Self>, state: &mut State, wakes: &mut WakeList) {
        if self.is_crashed() {
            Self::answer_empty(state);
            return;
        }
        self.drop_expired(state);
        // Then each message may be over that becomes the first.
        let at_head = state.settings.expires_at_head;
        while state.ready.has_front() && !state.getters.is_empty() {
            self.answer_getter(state);
            if at_head {
                self.drop_expired(state);
            }
        }
        let mut told = Told::default();
        while state.ready.has_front()
            && let Some(consumer) = state.consumers.next().cloned()
        {
            let most = if state.consumers.next_is_alone() && !at_head { PUSH_BATCH } else { 1 };
            match self.push(state, &consumer, most, &mut told, wakes) {
                Push::Refused => state.consumers.park(),
                _ => state.consumers.rotate(),
            }
            if at_head {
                self.drop_expired(state);
            }
        }
        self.log_told(told);
        self.drop_head(state);
        self.read_ahead(state);
        if state.ready.is_empty() {
            Self::answer_empty(state);
        }
        self.arm(state);
    }

    /// Hands up to `most` messages to one consumer under one hold of its outbox.
    fn push(&self, state: &mut State, consumer: &Consumer, most: isize, told: &mut Told, wakes: &mut WakeList) -> Push {
        let mut outbox = consumer.outbox.lock();
        let counts = self.counts_deliveries() && outbox.expects_ack(consumer.slot);
        let mut sent = 0;
        let mut last = Push::Sent;
        while sent < most {
            let mut entry = state.ready.pop();
            let Some((seq, tally, redelivered)) =
                entry.as_ref().map(|entry| (entry.seq, entry.tally, entry.redelivered))
            else {
                break;
            };
            last = outbox.deliver(consumer, &mut entry);
            if counts && entry.is_none() {
                self.tell_out(told, seq, tally);
            }
            match last {
                Push::Refused => {
                    if let Some(entry) = entry {
                        state.ready.insert(entry);
                    }
                    break;
                }
                Push::SentWake => wakes.push(consumer.outbox.signal()),
                Push::Sent => {}
            }
            state.count_out(Out::Delivered { no_ack: consumer.no_ack }, redelivered);
            sent += 1;
        }
        drop(outbox);
        self.unacked.fetch_add(sent, Ordering::Relaxed);
        last
    }

    pub(super) fn answer_empty(state: &mut State) {
        for getter in state.getters.drain(..) {
            getter.outbox.resolve_empty(getter.channel_slot, getter.id);
        }
    }

    fn answer_getter(self: &Arc<Self>, state: &mut State) {
        let Some(getter) = state.getters.pop_front() else {
            return;
        };
        let Some(entry) = state.ready.pop() else {
            state.getters.push_front(getter);
            return;
        };
        let remaining = u32::try_from(state.ready.len()).unwrap_or(u32::MAX);
        let (seq, tally, redelivered) = (entry.seq, entry.tally, entry.redelivered);
        let refused = getter.outbox.resolve_get(getter.channel_slot, getter.id, self, entry, remaining, getter.no_ack);
        match refused {
            Some(entry) => state.ready.insert(entry),
            None => {
                self.unacked.fetch_add(1, Ordering::Relaxed);
                state.count_out(Out::Got { no_ack: getter.no_ack }, redelivered);
                self.log_got(seq, tally, getter.no_ack);
            }
        }
    }

    /// Takes the next message for a client that asks for it.
    pub fn get(self: &Arc<Self>, outbox: &Arc<Outbox>, channel_slot: u32, no_ack: bool) -> Get {
        let mut state = self.lock();
        self.used(&mut state);
        self.drop_expired(&mut state);
        if state.ready.is_empty() || self.is_closed() || self.is_crashed() {
            state.counters.add(messages::GET_EMPTY, 1);
            return Get::Empty;
        }
        if let Some(entry) = state.ready.pop() {
            let remaining = u32::try_from(state.ready.len()).unwrap_or(u32::MAX);
            self.unacked.fetch_add(1, Ordering::Relaxed);
            let (seq, tally) = (entry.seq, entry.tally);
            state.count_out(Out::Got { no_ack }, entry.redelivered);
            outbox.push_got(channel_slot, self, entry, remaining, no_ack);
            self.log_got(seq, tally, no_ack);
            self.look_at_head(&mut state);
            return Get::Answered;
        }
        let Some(id) = outbox.reserve_get(channel_slot) else {
            return Get::Empty;
        };
        state.getters.push_back(Getter { outbox: Arc::clone(outbox), channel_slot, id, no_ack });
        self.read_ahead(&mut state);
        Get::Answered
    }
}
