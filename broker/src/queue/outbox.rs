//! What waits to be written to one connection, with the credit that decides whether more may be put in.
//!
//! The outbox is where a queue hands a message to a consumer: credit is taken, the delivery tag is assigned, the delivery is
//! remembered as unacknowledged and put into the FIFO in one critical section, so that tag order is wire order and no credit
//! is ever exceeded. A refusal registers the consumer as waiting in that same section, so that no wake-up is lost.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;
use parking_lot::{Mutex, MutexGuard};
use slab::Slab;
use storage::{Lsn, Seq};

use super::Queue;
use super::consumers::{Consumer, ConsumerId};
use super::ready::Entry;
use super::settle::Requeue;
use super::signal::Signal;
use super::unacked::{Origin, Unacked, UnackedSet};
use crate::model::message::Message;

/// Bookkeeping that every queued delivery costs beside its message.
const ITEM_BYTES: usize = std::mem::size_of::<OutItem>();

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
    /// Everything for this consumer has been written: its slot may be used again.
    ConsumerGone {
        /// Channel of the consumer: the item keeps its place behind the channel's deliveries.
        channel: u16,
        /// Slot of the consumer.
        slot: u32,
    },
}

impl OutItem {
    /// The channel whose order the item belongs to.
    pub fn channel(&self) -> u16 {
        match self {
            Self::Deliver(Delivery { channel, .. })
            | Self::Reply { channel, .. }
            | Self::PendingGet { channel, .. }
            | Self::Return { channel, .. }
            | Self::ConsumerGone { channel, .. } => *channel,
            Self::Got(got) => got.channel,
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

struct ChannelCredit {
    number: u16,
    next_tag: u64,
    /// Shared limit of all consumers (`basic.qos` with global), 0 = none.
    prefetch: u32,
    unacked: UnackedSet,
    /// Gets that wait for a read: their ids, and the tags set aside for them.
    pending_gets: Vec<(u64, u64)>,
}

struct ConsumerCredit {
    id: ConsumerId,
    queue: Arc<Queue>,
    channel_slot: u32,
    /// 0 = none.
    prefetch: u32,
    in_flight: u32,
    no_ack: bool,
    waiting: bool,
    /// Detached from its queue; the slot lives on until its deliveries are written and settled.
    detached: bool,
    written: bool,
}

/// A queue's consumer that was refused and may have credit again.
pub struct Resume {
    /// Queue to visit.
    pub queue: Arc<Queue>,
    /// Consumer that was refused.
    pub consumer: ConsumerId,
}

/// What an outbox holds back when it closes.
#[derive(Default)]
pub struct Undelivered {
    /// Messages to put back into their queues.
    pub requeue: Requeue,
    /// Consumers to detach.
    pub consumers: Vec<Resume>,
}

#[derive(Default)]
struct State {
    items: VecDeque<OutItem>,
    /// Bytes of `items` and of what the writer has taken but not yet encoded.
    bytes: usize,
    channels: Slab<ChannelCredit>,
    consumers: Slab<ConsumerCredit>,
    waiting: Vec<u32>,
    resolved: HashMap<u64, Option<Box<Got>>>,
    next_get: u64,
    server_cancels: Vec<u32>,
    closed: bool,
    /// The connection's task knows that there is something to write.
    scheduled: bool,
}

/// See the module's documentation.
pub struct Outbox {
    state: Mutex<State>,
    signal: Arc<Signal>,
    high_water_bytes: usize,
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
}

impl OutboxGuard<'_> {
    /// Hands one message to a consumer, which empties `entry`, or registers the consumer as waiting.
    pub fn deliver(&mut self, consumer: &Consumer, entry: &mut Option<Entry>) -> Push {
        let state = &mut *self.state;
        if state.closed {
            return Push::Refused;
        }
        let Some(credit) = state.consumers.get_mut(consumer.slot as usize) else {
            return Push::Refused;
        };
        let Some(channel) = state.channels.get_mut(credit.channel_slot as usize) else {
            return Push::Refused;
        };
        if !credit.has_credit(channel) || state.bytes >= self.high_water_bytes {
            if !credit.waiting {
                credit.waiting = true;
                state.waiting.push(consumer.slot);
            }
            return Push::Refused;
        }
        let Some(Entry { seq, message, redelivered }) = entry.take() else {
            return Push::Sent;
        };
        let tag = channel.next_tag;
        channel.next_tag += 1;
        if !credit.no_ack {
            credit.in_flight += 1;
            channel.unacked.push(Unacked {
                tag,
                seq,
                message: Arc::clone(&message),
                origin: Origin::Consumer(consumer.slot),
            });
        }
        state.bytes += ITEM_BYTES + message.resident_bytes();
        state.items.push_back(OutItem::Deliver(Delivery {
            message,
            tag,
            seq,
            slot: consumer.slot,
            channel: channel.number,
            redelivered,
            no_ack: credit.no_ack,
        }));
        state.schedule()
    }
}

impl ConsumerCredit {
    fn has_credit(&self, channel: &ChannelCredit) -> bool {
        self.no_ack
            || ((self.prefetch == 0 || self.in_flight < self.prefetch)
                && (channel.prefetch == 0 || channel.unacked.len() < channel.prefetch as usize))
    }
}

impl State {
    fn schedule(&mut self) -> Push {
        if std::mem::replace(&mut self.scheduled, true) { Push::Sent } else { Push::SentWake }
    }

    /// Takes those waiting consumers out of the list that have credit again.
    fn take_resumable(&mut self, high_water_bytes: usize, out: &mut Vec<Resume>) {
        if self.waiting.is_empty() || self.bytes >= high_water_bytes / 2 {
            return;
        }
        let (consumers, channels) = (&mut self.consumers, &self.channels);
        self.waiting.retain(|slot| {
            let Some(credit) = consumers.get_mut(*slot as usize) else {
                return false;
            };
            if credit.detached {
                return false;
            }
            let Some(channel) = channels.get(credit.channel_slot as usize) else {
                return false;
            };
            if !credit.has_credit(channel) {
                return true;
            }
            credit.waiting = false;
            out.push(Resume { queue: Arc::clone(&credit.queue), consumer: credit.id });
            false
        });
    }

    /// The channel and the tag of a reserved get, which is taken off the list.
    fn pending_get(&mut self, channel_slot: u32, id: u64) -> Option<(&mut ChannelCredit, u64)> {
        if self.closed {
            return None;
        }
        let channel = self.channels.get_mut(channel_slot as usize)?;
        let at = channel.pending_gets.iter().position(|(pending, _)| *pending == id)?;
        let (_, tag) = channel.pending_gets.swap_remove(at);
        Some((channel, tag))
    }

    fn release_credit(&mut self, unacked: &Unacked) -> Option<Arc<Queue>> {
        match &unacked.origin {
            Origin::Get(queue) => Some(Arc::clone(queue)),
            Origin::Consumer(slot) => {
                let credit = self.consumers.get_mut(*slot as usize)?;
                credit.in_flight = credit.in_flight.saturating_sub(1);
                let queue = Arc::clone(&credit.queue);
                self.free_if_done(*slot);
                Some(queue)
            }
        }
    }

    fn free_if_done(&mut self, slot: u32) {
        if self.consumers.get(slot as usize).is_some_and(|c| c.detached && c.written && c.in_flight == 0) {
            self.waiting.retain(|waiting| *waiting != slot);
            self.consumers.remove(slot as usize);
        }
    }
}

impl Outbox {
    /// An empty outbox that takes messages until `high_water_bytes` wait.
    pub fn new(high_water_bytes: usize) -> Self {
        Self { state: Mutex::default(), signal: Arc::default(), high_water_bytes }
    }

    /// How to wake the connection.
    pub fn signal(&self) -> &Arc<Signal> {
        &self.signal
    }

    /// Holds the lock for several deliveries in a row.
    pub fn lock(&self) -> OutboxGuard<'_> {
        OutboxGuard { state: self.state.lock(), high_water_bytes: self.high_water_bytes }
    }

    /// Opens a channel and returns its slot.
    pub fn open_channel(&self, number: u16) -> u32 {
        self.state.lock().channels.insert(ChannelCredit {
            number,
            next_tag: 1,
            prefetch: 0,
            unacked: UnackedSet::default(),
            pending_gets: Vec::new(),
        }) as u32
    }

    /// Ends a channel: its deliveries no longer count, and what was unacknowledged is returned for requeueing. Its
    /// consumers must have been detached from their queues, or be detached right after.
    pub fn close_channel(&self, channel_slot: u32) -> Requeue {
        let mut settled = Requeue::default();
        let mut state = self.state.lock();
        let Some(mut channel) = state.channels.try_remove(channel_slot as usize) else {
            return settled;
        };
        channel.unacked.take_up_to(0, |unacked| {
            if let Some(queue) = state.release_credit(&unacked) {
                settled.add(queue, unacked);
            }
        });
        settled
    }

    /// Sets the limit that all consumers of the channel share; 0 lifts it.
    pub fn set_channel_prefetch(&self, channel_slot: u32, prefetch: u32, resume: &mut Vec<Resume>) {
        let mut state = self.state.lock();
        if let Some(channel) = state.channels.get_mut(channel_slot as usize) {
            channel.prefetch = prefetch;
        }
        state.take_resumable(self.high_water_bytes, resume);
    }

    /// Registers a consumer and returns its slot.
    pub fn add_consumer(
        &self,
        id: ConsumerId,
        queue: Arc<Queue>,
        channel_slot: u32,
        prefetch: u32,
        no_ack: bool,
    ) -> u32 {
        self.state.lock().consumers.insert(ConsumerCredit {
            id,
            queue,
            channel_slot,
            prefetch,
            in_flight: 0,
            no_ack,
            waiting: false,
            detached: false,
            written: false,
        }) as u32
    }

    /// Marks a consumer as detached and queues the marker that frees its slot behind everything already pushed to it.
    pub fn remove_consumer(&self, channel: u16, slot: u32) {
        let mut state = self.state.lock();
        if let Some(consumer) = state.consumers.get_mut(slot as usize) {
            consumer.detached = true;
            state.items.push_back(OutItem::ConsumerGone { channel, slot });
        }
    }

    /// Its queue is gone: the session answers with `basic.cancel` behind what it is writing.
    pub fn cancel_by_server(&self, slot: u32) {
        let wake = {
            let mut state = self.state.lock();
            if state.closed {
                return;
            }
            state.server_cancels.push(slot);
            state.schedule() == Push::SentWake
        };
        if wake {
            self.signal.raise(super::signal::OUTBOX);
        }
    }

    /// All deliveries for the consumer have been written.
    pub fn consumer_written(&self, slot: u32) {
        let mut state = self.state.lock();
        if let Some(consumer) = state.consumers.get_mut(slot as usize) {
            consumer.written = true;
            state.free_if_done(slot);
        }
    }

    /// Puts an item behind everything else; the caller is the connection's own task.
    pub fn push(&self, item: OutItem) {
        let mut state = self.state.lock();
        state.bytes += match &item {
            OutItem::Reply { frames, .. } => ITEM_BYTES + frames.len(),
            OutItem::Return { message, .. } => ITEM_BYTES + message.resident_bytes(),
            _ => 0,
        };
        state.items.push_back(item);
    }

    /// Hands a message to a `basic.get`: tag, unacknowledged entry and answer in one step. Called under the queue's lock.
    pub fn push_got(&self, channel_slot: u32, queue: &Arc<Queue>, entry: Entry, remaining: u32, no_ack: bool) {
        let mut state = self.state.lock();
        let Some(channel) = state.channels.get_mut(channel_slot as usize) else {
            return;
        };
        let tag = channel.next_tag;
        channel.next_tag += 1;
        let got = channel.got(tag, queue, entry, remaining, no_ack);
        state.bytes += got.bytes();
        state.items.push_back(OutItem::Got(got));
    }

    /// Sets a tag and a place in the FIFO aside for a `basic.get` whose message must be read first; returns its id.
    pub fn reserve_get(&self, channel_slot: u32) -> Option<u64> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let channel = state.channels.get_mut(channel_slot as usize)?;
        let id = state.next_get;
        state.next_get += 1;
        channel.pending_gets.push((id, channel.next_tag));
        channel.next_tag += 1;
        state.items.push_back(OutItem::PendingGet { channel: channel.number, id });
        Some(id)
    }

    /// Answers a reserved `basic.get`. Gives the entry back when the channel or connection is gone.
    pub fn resolve_get(
        &self,
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
            let got = channel.got(tag, queue, entry, remaining, no_ack);
            state.bytes += got.bytes();
            state.resolved.insert(id, Some(got));
            state.scheduled = true;
        }
        self.signal.raise(super::signal::OUTBOX);
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
        self.signal.raise(super::signal::OUTBOX);
    }

    /// The answer of a reserved `basic.get`, if it is there: `Some(None)` means that the queue was empty.
    pub fn take_resolved(&self, id: u64) -> Option<Option<Box<Got>>> {
        self.state.lock().resolved.remove(&id)
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
        let Some(mut set) =
            state.channels.get_mut(channel_slot as usize).map(|channel| std::mem::take(&mut channel.unacked))
        else {
            return false;
        };
        let found = if multiple {
            set.take_up_to(tag, |unacked| {
                if let Some(queue) = state.release_credit(&unacked) {
                    each(queue, unacked);
                }
            })
        } else {
            match set.take(tag) {
                Some(unacked) => {
                    if let Some(queue) = state.release_credit(&unacked) {
                        each(queue, unacked);
                    }
                    true
                }
                None => false,
            }
        };
        if let Some(channel) = state.channels.get_mut(channel_slot as usize) {
            channel.unacked = set;
        }
        state.take_resumable(self.high_water_bytes, resume);
        found
    }

    /// Takes deliveries out of the unacknowledged set without returning their credit: acknowledgements inside a
    /// transaction, which count against the prefetch until the commit.
    pub fn take_for_transaction(
        &self,
        channel_slot: u32,
        tag: u64,
        multiple: bool,
        mut each: impl FnMut(Unacked),
    ) -> bool {
        let mut state = self.state.lock();
        let Some(channel) = state.channels.get_mut(channel_slot as usize) else {
            return false;
        };
        if multiple {
            channel.unacked.take_up_to(tag, each)
        } else {
            channel.unacked.take(tag).map(&mut each).is_some()
        }
    }

    /// Commits what [`Outbox::take_for_transaction`] took: credit comes back.
    pub fn release(&self, taken: Vec<Unacked>, resume: &mut Vec<Resume>, mut each: impl FnMut(Arc<Queue>, Unacked)) {
        let mut state = self.state.lock();
        for unacked in taken {
            if let Some(queue) = state.release_credit(&unacked) {
                each(queue, unacked);
            }
        }
        state.take_resumable(self.high_water_bytes, resume);
    }

    /// The queue that a taken delivery belongs to.
    pub fn queue_of(&self, unacked: &Unacked) -> Option<Arc<Queue>> {
        match &unacked.origin {
            Origin::Get(queue) => Some(Arc::clone(queue)),
            Origin::Consumer(slot) => {
                self.state.lock().consumers.get(*slot as usize).map(|credit| Arc::clone(&credit.queue))
            }
        }
    }

    /// Rolls back what [`Outbox::take_for_transaction`] took: the tags are outstanding again.
    pub fn restore(&self, channel_slot: u32, taken: Vec<Unacked>) {
        let mut state = self.state.lock();
        if let Some(channel) = state.channels.get_mut(channel_slot as usize) {
            for unacked in taken {
                channel.unacked.restore(unacked);
            }
        }
    }

    /// Swaps the FIFO with the writer's empty one and takes the consumers that the server cancelled. False when there was
    /// nothing: from then on a push asks for a wake-up again.
    pub fn take_items(&self, into: &mut VecDeque<OutItem>, cancelled: &mut Vec<u32>) -> bool {
        debug_assert!(into.is_empty());
        let mut state = self.state.lock();
        std::mem::swap(&mut state.items, into);
        cancelled.append(&mut state.server_cancels);
        if into.is_empty() && cancelled.is_empty() {
            state.scheduled = false;
            return false;
        }
        state.scheduled = true;
        true
    }

    /// The writer has encoded items of this many bytes; returns whom that gives room.
    pub fn written(&self, bytes: usize, resume: &mut Vec<Resume>) {
        let mut state = self.state.lock();
        state.bytes = state.bytes.saturating_sub(bytes);
        state.take_resumable(self.high_water_bytes, resume);
    }

    /// Bytes that wait to be encoded.
    pub fn bytes(&self) -> usize {
        self.state.lock().bytes
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
                OutItem::Deliver(delivery) if delivery.no_ack => {
                    if let Some(credit) = state.consumers.get(delivery.slot as usize) {
                        result.requeue.add_entry(
                            Arc::clone(&credit.queue),
                            Entry { seq: delivery.seq, message: delivery.message, redelivered: delivery.redelivered },
                        );
                    }
                }
                OutItem::Got(got) if got.no_ack => {
                    result.requeue.add_entry(got.queue, got.entry);
                }
                // Answers to what was done before the end still go out.
                OutItem::Reply { .. } | OutItem::Return { .. } => unwritten.push_back(item),
                _ => {}
            }
        }
        for got in state.resolved.drain().filter_map(|(_, got)| got) {
            if got.no_ack {
                result.requeue.add_entry(got.queue, got.entry);
            }
        }
        let channels = std::mem::take(&mut state.channels);
        for (_, mut channel) in channels {
            channel.unacked.take_up_to(0, |unacked| {
                if let Some(queue) = state.release_credit(&unacked) {
                    result.requeue.add(queue, unacked);
                }
            });
        }
        for (_, consumer) in std::mem::take(&mut state.consumers) {
            if !consumer.detached {
                result.consumers.push(Resume { queue: consumer.queue, consumer: consumer.id });
            }
        }
        state.waiting.clear();
        state.bytes = 0;
        result
    }
}

impl ChannelCredit {
    fn got(&mut self, tag: u64, queue: &Arc<Queue>, entry: Entry, remaining: u32, no_ack: bool) -> Box<Got> {
        if !no_ack {
            // Later deliveries may have overtaken a tag that was set aside.
            self.unacked.restore(Unacked {
                tag,
                seq: entry.seq,
                message: Arc::clone(&entry.message),
                origin: Origin::Get(Arc::clone(queue)),
            });
        }
        Box::new(Got { channel: self.number, tag, queue: Arc::clone(queue), entry, remaining, no_ack })
    }
}

impl Got {
    fn bytes(&self) -> usize {
        ITEM_BYTES + self.entry.message.resident_bytes()
    }
}

/// Bytes that an item was counted with when it was pushed.
pub fn item_bytes(item: &OutItem) -> usize {
    match item {
        OutItem::Deliver(delivery) => ITEM_BYTES + delivery.message.resident_bytes(),
        OutItem::Reply { frames, .. } => ITEM_BYTES + frames.len(),
        OutItem::Return { message, .. } => ITEM_BYTES + message.resident_bytes(),
        OutItem::Got(got) => got.bytes(),
        OutItem::PendingGet { .. } | OutItem::ConsumerGone { .. } => 0,
    }
}
