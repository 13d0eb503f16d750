//! What `basic.get` does with the outbox: its answer has a place among the replies, also when the message is still on disk.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Outbox, State};
use crate::model::statistics::messages;
use crate::queue::Queue;
use crate::queue::credit::ChannelCredit;
use crate::queue::item::{Got, OutItem, held_bytes};
use crate::queue::ready::Entry;
use crate::queue::signal;
use crate::queue::unacked::{Origin, Unacked};

impl State {
    /// The channel and the tag of a reserved get, which is taken off the list.
    fn pending_get(&mut self, channel_slot: u32, id: u64) -> Option<(&mut ChannelCredit, u64)> {
        if self.closed {
            return None;
        }
        let channel = self.credits.channels.get_mut(channel_slot as usize)?;
        let at = channel.pending_gets.iter().position(|(pending, _)| *pending == id)?;
        let (_, tag) = channel.pending_gets.swap_remove(at);
        Some((channel, tag))
    }
}

impl Outbox {
    /// Hands a message to a `basic.get`: tag, unacknowledged entry and answer in one step. Called under the queue's lock.
    pub fn push_got(
        self: &Arc<Self>,
        channel_slot: u32,
        queue: &Arc<Queue>,
        entry: Entry,
        remaining: u32,
        no_ack: bool,
    ) {
        let mut state = self.state.lock();
        let Some(channel) = state.credits.channels.get_mut(channel_slot as usize) else {
            return;
        };
        let tag = channel.take_tag();
        let held = if no_ack { 0 } else { held_bytes(&entry.message) };
        channel.count(counted(no_ack), entry.redelivered, self.statistics.ticks.now());
        let item = OutItem::Got(got(channel, tag, queue, entry, remaining, no_ack));
        state.credits.unacked_bytes += held;
        self.limit_got(&mut state, channel_slot, tag, queue, no_ack);
        self.count(&mut state, &item);
        state.items.push_back(item);
    }

    /// What was got must be acknowledged within the queue's time, if it has one.
    fn limit_got(self: &Arc<Self>, state: &mut State, channel_slot: u32, tag: u64, queue: &Queue, no_ack: bool) {
        let timeout_ms = queue.ack_timeout_ms();
        if timeout_ms > 0 && !no_ack {
            state.credits.timeouts.add((channel_slot, tag), timeout_ms, &queue.services.timers, self);
        }
    }

    /// Sets a tag and a place in the FIFO aside for a `basic.get` whose message must be read first; returns its id.
    pub fn reserve_get(&self, channel_slot: u32) -> Option<u64> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let channel = state.credits.channels.get_mut(channel_slot as usize)?;
        let id = state.next_get;
        state.next_get += 1;
        let tag = channel.take_tag();
        channel.pending_gets.push((id, tag));
        let item = OutItem::PendingGet { channel: channel.number, id };
        self.count(state, &item);
        state.items.push_back(item);
        Some(id)
    }

    /// Answers a reserved `basic.get`. Gives the entry back when the channel or connection is gone.
    pub fn resolve_get(
        self: &Arc<Self>,
        channel_slot: u32,
        id: u64,
        queue: &Arc<Queue>,
        entry: Entry,
        remaining: u32,
        no_ack: bool,
    ) -> Option<Entry> {
        {
            let mut guard = self.state.lock();
            let state = &mut *guard;
            let Some((channel, tag)) = state.pending_get(channel_slot, id) else {
                return Some(entry);
            };
            channel.count(counted(no_ack), entry.redelivered, self.statistics.ticks.now());
            let got = got(channel, tag, queue, entry, remaining, no_ack);
            let bytes = got.bytes();
            state.bytes += bytes;
            let held = held_bytes(&got.entry.message);
            if no_ack {
                state.loose_bytes += held;
            } else {
                state.credits.unacked_bytes += held;
            }
            self.limit_got(state, channel_slot, tag, queue, no_ack);
            state.account();
            self.reply_bytes.fetch_add(bytes, Ordering::Relaxed);
            state.resolved.insert(id, Some(got));
            state.scheduled = true;
        }
        self.signal.raise(signal::OUTBOX);
        None
    }

    /// Answers a reserved `basic.get`: there is no message after all.
    pub fn resolve_empty(&self, channel_slot: u32, id: u64) {
        {
            let mut state = self.state.lock();
            if state.pending_get(channel_slot, id).is_none() {
                return;
            }
            state.resolved.insert(id, None);
            state.scheduled = true;
        }
        self.signal.raise(signal::OUTBOX);
    }

    /// The answer of a reserved `basic.get`, if it is there: `Some(None)` means that the queue was empty.
    pub fn take_resolved(&self, id: u64) -> Option<Option<Box<Got>>> {
        self.state.lock().resolved.remove(&id)
    }
}

fn counted(no_ack: bool) -> usize {
    if no_ack { messages::GET_NO_ACK } else { messages::GET }
}

fn got(
    channel: &mut ChannelCredit,
    tag: u64,
    queue: &Arc<Queue>,
    entry: Entry,
    remaining: u32,
    no_ack: bool,
) -> Box<Got> {
    if !no_ack {
        channel.in_flight += 1;
        // Later deliveries may have overtaken a tag that was set aside.
        channel.unacked.restore(Unacked {
            tag,
            seq: entry.seq,
            message: Arc::clone(&entry.message),
            origin: Origin::Get(Arc::clone(queue)),
            tally: entry.tally,
        });
    }
    let shown = entry.tally.shown(&entry.message);
    Box::new(Got { channel: channel.number, tag, queue: Arc::clone(queue), entry, shown, remaining, no_ack })
}
