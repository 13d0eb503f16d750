//! What waits to be written to one connection, with the credit that decides whether more may be put in.
//!
//! The outbox is where a queue hands a message to a consumer: credit is taken, the delivery tag is assigned, the delivery is
//! remembered as unacknowledged and put into the FIFO in one critical section, so that tag order is wire order and no credit
//! is ever exceeded. A refusal registers the consumer as waiting in that same section, so that no wake-up is lost.

mod direct_reply;
mod get;
mod timeout;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hashbrown::HashMap;
use parking_lot::{Mutex, MutexGuard};

use super::Queue;
use super::consumers::{Consumer, ConsumerId};
use super::credit::{ChannelCredit, Credits, Resume, Terms, Touched};
use super::delivery_limit::Return;
use super::item::{Delivery, Got, ITEM_BYTES, OutItem, Written, held_bytes, item_bytes, loose_bytes};
use super::ready::Entry;
use super::settle::Requeue;
use super::signal::Signal;
use super::tally::Tally;
use super::unacked::{Origin, Unacked};
use crate::model::memory::{Memory, Owner, Share};
use crate::model::statistics::{MessageCounters, Statistics, messages};

/// What waits for one connection at most while all of them together take too much memory.
const SHORT_BYTES: usize = 64 * 1024;

/// What an outbox holds back when it closes.
#[derive(Default)]
pub struct Undelivered {
    /// Messages to put back into their queues.
    pub requeue: Requeue,
    /// Consumers to detach.
    pub consumers: Vec<Resume>,
}

struct State {
    items: VecDeque<OutItem>,
    /// Bytes of `items` and of what the writer has taken but not yet encoded.
    bytes: usize,
    /// Those of them that are free once they are written.
    loose_bytes: usize,
    share: Share,
    credits: Credits,
    resolved: HashMap<u64, Option<Box<Got>>>,
    next_get: u64,
    server_cancels: Vec<(u32, ConsumerId)>,
    closed: bool,
    /// The connection's task knows that there is something to write.
    scheduled: bool,
}

/// What operators are told of a channel.
#[derive(Clone, Debug, Default)]
pub struct ChannelFigures {
    /// Deliveries that wait for an acknowledgement.
    pub unacked: usize,
    /// The limit that all consumers of the channel share; 0 is none.
    pub prefetch: u32,
    /// Deliveries and gets.
    pub counters: MessageCounters,
}

/// See the module's documentation.
pub struct Outbox {
    state: Mutex<State>,
    signal: Arc<Signal>,
    high_water_bytes: usize,
    memory: Arc<Memory>,
    statistics: Arc<Statistics>,
    /// Bytes of what the client itself asked for, as opposed to deliveries: replies, returns and gets.
    reply_bytes: AtomicUsize,
}

/// Whether a push was taken.
#[derive(PartialEq, Eq, Debug, Clone, Copy)]
pub enum Push {
    /// Taken; the connection already knows.
    Sent,
    /// Taken, and the connection must be woken.
    SentWake,
    /// No credit: the consumer is registered as waiting.
    Refused,
}

/// The outbox with its lock held, to hand over several messages at once.
pub struct OutboxGuard<'a> {
    state: MutexGuard<'a, State>,
    high_water_bytes: usize,
    statistics: &'a Statistics,
    tick: u32,
}

impl OutboxGuard<'_> {
    /// Hands one message to a consumer, which empties `entry`, or registers the consumer as waiting.
    pub fn deliver(&mut self, consumer: &Consumer, entry: &mut Option<Entry>) -> Push {
        let state = &mut *self.state;
        if state.closed || entry.is_none() {
            return Push::Refused;
        }
        let has_room = state.bytes < self.high_water_bytes;
        let Some((credit, channel)) = state.credits.take(consumer.slot, has_room) else {
            if !has_room {
                // Its consumers are parked now, and not tried again until there is room.
                self.statistics.count_full_outbox();
            }
            return Push::Refused;
        };
        let Some(Entry { seq, message, redelivered, tally }) = entry.take() else {
            return Push::Refused;
        };
        let (tag, number, no_ack) = (channel.take_tag(), channel.number, credit.no_ack);
        channel.count(if no_ack { messages::DELIVER_NO_ACK } else { messages::DELIVER }, redelivered, self.tick);
        let shown = (!tally.is_none()).then(|| tally.shown(&message));
        if !no_ack {
            channel.unacked.push(Unacked {
                tag,
                seq,
                message: Arc::clone(&message),
                origin: Origin::Consumer(consumer.slot),
                tally,
            });
            let timeout_ms = credit.timeout_ms();
            if timeout_ms > 0 {
                let (at, timers) = ((credit.channel_slot, tag), Arc::clone(&credit.queue.services.timers));
                state.credits.timeouts.add(at, timeout_ms, &timers, &consumer.outbox);
            }
        }
        if !no_ack {
            state.credits.unacked_bytes += held_bytes(&message);
        }
        let message = shown.unwrap_or(message);
        state.bytes += ITEM_BYTES + message.resident_bytes();
        if no_ack {
            state.loose_bytes += held_bytes(&message);
        }
        state.account();
        state.items.push_back(OutItem::Deliver(Delivery {
            message,
            tag,
            seq,
            slot: consumer.slot,
            channel: number,
            redelivered,
            no_ack,
        }));
        state.schedule()
    }

    /// Whether this consumer says when it is done with a message.
    pub(super) fn expects_ack(&self, slot: u32) -> bool {
        self.state.credits.consumers.get(slot as usize).is_some_and(|credit| !credit.no_ack)
    }
}

impl State {
    fn new(share: Share) -> Self {
        Self {
            items: VecDeque::new(),
            bytes: 0,
            loose_bytes: 0,
            share,
            credits: Credits::default(),
            resolved: HashMap::new(),
            next_get: 0,
            server_cancels: Vec::new(),
            closed: false,
            scheduled: false,
        }
    }

    /// Tells what is held for the client.
    fn account(&mut self) {
        self.share.set(self.loose_bytes + self.credits.unacked_bytes);
    }

    fn schedule(&mut self) -> Push {
        if std::mem::replace(&mut self.scheduled, true) { Push::Sent } else { Push::SentWake }
    }
}

impl Outbox {
    /// An empty outbox that takes messages until `high_water_bytes` wait, or less while `memory` is short.
    pub fn new(high_water_bytes: usize, memory: Arc<Memory>, statistics: Arc<Statistics>) -> Self {
        Self {
            state: Mutex::new(State::new(Share::new(Arc::clone(&memory), Owner::Outboxes))),
            signal: Arc::default(),
            high_water_bytes,
            memory,
            statistics,
            reply_bytes: AtomicUsize::new(0),
        }
    }

    /// The limit that holds now. It is low while all outboxes together take too much, so that many clients that do not
    /// read cost little each. Whoever is refused then has something to write, and gets its turn when that is written.
    fn high_water_bytes(&self) -> usize {
        if self.memory.outboxes_are_full() { self.high_water_bytes.min(SHORT_BYTES) } else { self.high_water_bytes }
    }

    /// How to wake the connection.
    pub fn signal(&self) -> &Arc<Signal> {
        &self.signal
    }

    /// Bytes of replies, returns and gets that wait to be encoded.
    pub fn reply_bytes(&self) -> usize {
        self.reply_bytes.load(Ordering::Relaxed)
    }

    /// Holds the lock for several deliveries in a row.
    pub fn lock(&self) -> OutboxGuard<'_> {
        let tick = self.statistics.ticks.now();
        OutboxGuard {
            state: self.state.lock(),
            high_water_bytes: self.high_water_bytes(),
            statistics: &self.statistics,
            tick,
        }
    }

    /// Opens a channel and returns its slot.
    pub fn open_channel(&self, number: u16) -> u32 {
        self.state.lock().credits.channels.insert(ChannelCredit::new(number)) as u32
    }

    /// What a channel has outstanding and has got so far.
    pub fn channel_figures(&self, channel_slot: u32) -> ChannelFigures {
        let state = self.state.lock();
        let Some(channel) = state.credits.channels.get(channel_slot as usize) else {
            return ChannelFigures::default();
        };
        ChannelFigures {
            unacked: channel.unacked.len(),
            prefetch: channel.prefetch,
            counters: channel.counters.clone(),
        }
    }

    /// Ends a channel: its deliveries no longer count, and what was unacknowledged is returned for requeueing. Its
    /// consumers must have been detached from their queues.
    pub fn close_channel(&self, channel_slot: u32) -> Requeue {
        let mut requeue = Requeue::default();
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let Some(mut channel) = state.credits.channels.try_remove(channel_slot as usize) else {
            return requeue;
        };
        channel.give_up_gets(&mut state.resolved);
        state.credits.timeouts.remove_channel(channel_slot);
        channel.unacked.take_up_to(0, |unacked| {
            if let Some(queue) = state.credits.release(&unacked, None, &mut Touched::new()) {
                requeue.add(queue, unacked, Return::InVain);
            }
        });
        state.account();
        requeue
    }

    /// Sets the limit that all consumers of the channel share; 0 lifts it.
    pub fn set_channel_prefetch(&self, channel_slot: u32, prefetch: u32, resume: &mut Vec<Resume>) {
        let mut state = self.state.lock();
        if let Some(channel) = state.credits.channels.get_mut(channel_slot as usize) {
            channel.prefetch = prefetch;
        }
        state.credits.resume_all(resume);
    }

    /// The limit that all consumers of the channel share; 0 is none.
    pub fn channel_prefetch(&self, channel_slot: u32) -> u32 {
        self.state.lock().credits.channels.get(channel_slot as usize).map_or(0, |channel| channel.prefetch)
    }

    /// Registers a consumer and returns its slot.
    pub fn add_consumer(&self, id: ConsumerId, queue: Arc<Queue>, channel_slot: u32, terms: Terms) -> u32 {
        self.state.lock().credits.add_consumer(id, queue, channel_slot, terms)
    }

    /// Marks a consumer as detached and queues the marker that frees its slot behind everything already pushed to it.
    pub fn remove_consumer(&self, channel: u16, slot: u32) {
        let mut state = self.state.lock();
        if let Some(consumer) = state.credits.consumers.get_mut(slot as usize) {
            consumer.detached = true;
            state.items.push_back(OutItem::ConsumerGone { channel, slot });
        }
    }

    /// Its queue is gone: the session answers with `basic.cancel` behind what it is writing. The id tells a consumer that
    /// has gone by itself meanwhile from one that has taken its slot.
    pub fn cancel_by_server(&self, slot: u32, id: ConsumerId) {
        let wake = {
            let mut state = self.state.lock();
            if state.closed {
                return;
            }
            state.server_cancels.push((slot, id));
            state.schedule() == Push::SentWake
        };
        if wake {
            self.signal.raise(super::signal::OUTBOX);
        }
    }

    /// All deliveries for the consumer have been written.
    pub fn consumer_written(&self, slot: u32) {
        let mut state = self.state.lock();
        if let Some(consumer) = state.credits.consumers.get_mut(slot as usize) {
            consumer.written = true;
            state.credits.free_if_done(slot);
        }
    }

    /// Puts an item behind everything else; the caller is the connection's own task.
    pub fn push(&self, item: OutItem) {
        let mut state = self.state.lock();
        self.count(&mut state, &item);
        state.items.push_back(item);
    }

    fn count(&self, state: &mut State, item: &OutItem) {
        let bytes = item_bytes(item);
        state.bytes += bytes;
        state.loose_bytes += loose_bytes(item);
        state.account();
        if item.is_reply() {
            self.reply_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// Settles deliveries of a channel. False when the tag is not outstanding.
    pub fn take_unacked(
        &self,
        channel_slot: u32,
        tag: u64,
        multiple: bool,
        resume: &mut Vec<Resume>,
        mut each: impl FnMut(Arc<Queue>, Unacked),
    ) -> bool {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let Some(channel) = state.credits.channels.get_mut(channel_slot as usize) else {
            return false;
        };
        if multiple && tag == 0 {
            channel.give_up_gets(&mut state.resolved);
        }
        let shared = channel.prefetch != 0;
        let lapsed = channel.has_lapsed(tag);
        let mut set = std::mem::take(&mut channel.unacked);
        let mut touched = Touched::new();
        let credits = &mut state.credits;
        let settle = |unacked: Unacked| {
            if let Some(queue) = credits.release(&unacked, Some(channel_slot), &mut touched) {
                each(queue, unacked);
            }
        };
        let found = set.settle(tag, multiple, lapsed, settle);
        if let Some(channel) = state.credits.channels.get_mut(channel_slot as usize) {
            channel.unacked = set;
        }
        state.account();
        let has_room = state.bytes < self.high_water_bytes() / 2;
        state.credits.resume_touched(&touched, shared, has_room, resume);
        found
    }

    /// Before deliveries of a channel go back to their queues: until [`Outbox::let_go`] none of its consumers gets anything.
    /// Otherwise the credit that comes back with them could be used, by another thread, for what stands behind them.
    pub fn hold(&self, channel_slot: u32) {
        if let Some(channel) = self.state.lock().credits.channels.get_mut(channel_slot as usize) {
            channel.held = true;
        }
    }

    /// What went back is in its queues: consumers that have credit go on.
    pub fn let_go(&self, channel_slot: u32, resume: &mut Vec<Resume>) {
        let mut state = self.state.lock();
        if let Some(channel) = state.credits.channels.get_mut(channel_slot as usize) {
            channel.held = false;
            let has_room = state.bytes < self.high_water_bytes() / 2;
            state.credits.resume_touched(&Touched::default(), true, has_room, resume);
        }
    }

    /// Takes deliveries out of the unacknowledged set without returning their credit: acknowledgements inside a
    /// transaction, which count against the prefetch until the commit.
    pub fn take_for_transaction(&self, channel_slot: u32, tag: u64, multiple: bool, each: impl FnMut(Unacked)) -> bool {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let Some(channel) = state.credits.channels.get_mut(channel_slot as usize) else {
            return false;
        };
        if multiple && tag == 0 {
            channel.give_up_gets(&mut state.resolved);
        }
        channel.take(tag, multiple, each)
    }

    /// Commits what [`Outbox::take_for_transaction`] took: credit comes back. `channel_slot` is `None` when the channel
    /// has ended meanwhile.
    pub fn release(
        &self,
        channel_slot: Option<u32>,
        taken: Vec<Unacked>,
        resume: &mut Vec<Resume>,
        mut each: impl FnMut(Arc<Queue>, Unacked),
    ) {
        let mut state = self.state.lock();
        for unacked in taken {
            if let Some(queue) = state.credits.release(&unacked, channel_slot, &mut Touched::new()) {
                each(queue, unacked);
            }
        }
        state.account();
        state.credits.resume_all(resume);
    }

    /// The queue that a taken delivery belongs to.
    pub fn queue_of(&self, unacked: &Unacked) -> Option<Arc<Queue>> {
        match &unacked.origin {
            Origin::Get(queue) => Some(Arc::clone(queue)),
            Origin::Consumer(slot) => {
                let state = self.state.lock();
                state.credits.consumers.get(*slot as usize).map(|credit| Arc::clone(&credit.queue))
            }
        }
    }

    /// Rolls back what [`Outbox::take_for_transaction`] took: the tags are outstanding again.
    pub fn restore(&self, channel_slot: u32, taken: Vec<Unacked>) {
        let mut state = self.state.lock();
        if let Some(channel) = state.credits.channels.get_mut(channel_slot as usize) {
            for unacked in taken {
                channel.unacked.restore(unacked);
            }
        }
    }

    /// Swaps the FIFO with the writer's empty one and takes the consumers that the server cancelled. False when there was
    /// nothing: from then on a push asks for a wake-up again.
    pub fn take_items(&self, into: &mut VecDeque<OutItem>, cancelled: &mut Vec<(u32, ConsumerId)>) -> bool {
        debug_assert!(into.is_empty());
        let mut state = self.state.lock();
        std::mem::swap(&mut state.items, into);
        cancelled.append(&mut state.server_cancels);
        state.scheduled = !into.is_empty() || !cancelled.is_empty();
        state.scheduled
    }

    /// The writer has encoded items; returns whom that gives room.
    pub fn written(&self, written: &Written, resume: &mut Vec<Resume>) {
        if written.reply_bytes > 0 {
            self.reply_bytes.fetch_sub(written.reply_bytes, Ordering::Relaxed);
        }
        let mut state = self.state.lock();
        state.bytes = state.bytes.saturating_sub(written.bytes);
        state.loose_bytes = state.loose_bytes.saturating_sub(written.loose_bytes);
        state.account();
        if state.bytes < self.high_water_bytes() / 2 {
            state.credits.resume_for_room(resume);
        }
    }

    /// Closes it: later deliveries are refused and the queues keep their messages; what had not been settled or written is
    /// returned. `unwritten` is what the writer had taken; replies stay in it.
    pub fn close(&self, unwritten: &mut VecDeque<OutItem>) -> Undelivered {
        let mut result = Undelivered::default();
        let mut guard = self.state.lock();
        let state = &mut *guard;
        state.closed = true;
        unwritten.append(&mut state.items);
        // A delivery with automatic acknowledgement that was never written is not lost: nobody has seen it.
        for item in std::mem::take(unwritten) {
            match item {
                OutItem::Deliver(Delivery { no_ack: true, slot, seq, message, redelivered, .. }) => {
                    if let Some(credit) = state.credits.consumers.get(slot as usize) {
                        // What was counted is in its headers only.
                        let counted = redelivered && credit.queue.counts_deliveries();
                        let tally = if counted { Tally::read(&message) } else { Tally::default() };
                        let entry = Entry { seq, message, redelivered, tally };
                        result.requeue.add_entry(Arc::clone(&credit.queue), entry);
                    }
                }
                OutItem::Got(got) if got.no_ack => result.requeue.add_entry(got.queue, got.entry),
                // Answers to what was done before the end still go out.
                OutItem::Reply { .. } | OutItem::Notice(_) | OutItem::Return { .. } => unwritten.push_back(item),
                _ => {}
            }
        }
        for got in state.resolved.drain().filter_map(|(_, got)| got) {
            if got.no_ack {
                result.requeue.add_entry(got.queue, got.entry);
            }
        }
        for (_, mut channel) in std::mem::take(&mut state.credits.channels) {
            channel.unacked.take_up_to(0, |unacked| {
                if let Some(queue) = state.credits.release(&unacked, None, &mut Touched::new()) {
                    result.requeue.add(queue, unacked, Return::InVain);
                }
            });
        }
        for (_, consumer) in std::mem::take(&mut state.credits).consumers {
            if !consumer.detached {
                result.consumers.push(Resume { queue: consumer.queue, consumer: consumer.id });
            }
        }
        state.bytes = unwritten.iter().map(item_bytes).sum();
        state.loose_bytes = unwritten.iter().map(loose_bytes).sum();
        state.account();
        self.reply_bytes.store(state.bytes, Ordering::Relaxed);
        result
    }
}
