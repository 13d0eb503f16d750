//! Who may get more: the prefetch limits of one connection's channels and consumers, and the consumers that were refused.

use std::collections::BTreeSet;
use std::sync::Arc;

use hashbrown::HashMap;
use slab::Slab;
use smallvec::SmallVec;

use super::Queue;
use super::ack_timeouts::AckTimeouts;
use super::consumers::ConsumerId;
use super::item::{Got, held_bytes};
use super::unacked::{Origin, Unacked, UnackedSet};
use crate::model::statistics::{MessageCounters, messages};

/// Consumers whose credit one settlement gave back; beyond this many all that wait are looked at.
const TOUCHED_MAX: usize = 8;

/// Tags of a channel that are remembered after their time was over: a late acknowledgement of one of them is no error.
const LAPSED_MAX: usize = 1024;

/// The delivery side of a channel.
pub(super) struct ChannelCredit {
    pub number: u16,
    pub next_tag: u64,
    /// Shared limit of all consumers (`basic.qos` with global), 0 = none.
    pub prefetch: u32,
    /// Deliveries whose credit has not come back; acknowledgements of an open transaction hold theirs.
    pub in_flight: u32,
    /// Its consumers get nothing: see [`super::outbox::Outbox::hold`].
    pub held: bool,
    pub unacked: UnackedSet,
    /// Gets that wait for a read: their ids, and the tags set aside for them.
    pub pending_gets: Vec<(u64, u64)>,
    /// The last tags whose messages went back because nobody acknowledged them in time.
    lapsed: BTreeSet<u64>,
    /// What was delivered.
    pub counters: MessageCounters,
}

impl ChannelCredit {
    pub(super) fn new(number: u16) -> Self {
        Self {
            number,
            next_tag: 1,
            prefetch: 0,
            in_flight: 0,
            held: false,
            unacked: UnackedSet::default(),
            pending_gets: Vec::new(),
            lapsed: BTreeSet::new(),
            counters: MessageCounters::default(),
        }
    }

    /// The message with this tag went back because nobody acknowledged it in time.
    pub(super) fn note_lapsed(&mut self, tag: u64) {
        self.lapsed.insert(tag);
        if self.lapsed.len() > LAPSED_MAX {
            self.lapsed.pop_first();
        }
    }

    /// Whether this tag stands for a message that went back in this way.
    pub(super) fn has_lapsed(&self, tag: u64) -> bool {
        !self.lapsed.is_empty() && self.lapsed.contains(&tag)
    }

    /// Takes unacknowledged deliveries. False when the tag is not known.
    pub(super) fn take(&mut self, tag: u64, multiple: bool, each: impl FnMut(Unacked)) -> bool {
        let lapsed = self.has_lapsed(tag);
        self.unacked.settle(tag, multiple, lapsed, each)
    }

    /// Answers the gets that wait for a read with "empty": because the channel ends, and what follows on it must not wait for
    /// a message that nobody takes; or because everything outstanding is settled, which would include what they bring.
    pub(super) fn give_up_gets(&mut self, resolved: &mut HashMap<u64, Option<Box<Got>>>) {
        for (id, _) in self.pending_gets.drain(..) {
            resolved.insert(id, None);
        }
    }

    /// A message is handed out.
    pub(super) fn count(&mut self, which: usize, redelivered: bool, tick: u32) {
        self.counters.turn(tick);
        self.counters.add(which, 1);
        if redelivered {
            self.counters.add(messages::REDELIVER, 1);
        }
    }

    pub(super) fn take_tag(&mut self) -> u64 {
        let tag = self.next_tag;
        self.next_tag += 1;
        tag
    }
}

/// The delivery side of a consumer.
pub(super) struct ConsumerCredit {
    pub id: ConsumerId,
    pub queue: Arc<Queue>,
    pub channel_slot: u32,
    /// 0 = none.
    pub prefetch: u32,
    pub in_flight: u32,
    pub no_ack: bool,
    /// Time for an acknowledgement, in milliseconds, where the consumer asked for one itself; 0 is for ever.
    timeout_ms: Option<u64>,
    /// Refused since it last had credit.
    waiting: bool,
    /// In the list of those that wait; stays there until the list is gone through.
    listed: bool,
    /// Detached from its queue; the slot lives on until its deliveries are written and settled.
    pub detached: bool,
    pub written: bool,
}

impl ConsumerCredit {
    /// How long a delivery may take to be acknowledged, in milliseconds; 0 is for ever.
    pub(super) fn timeout_ms(&self) -> u64 {
        self.timeout_ms.unwrap_or_else(|| self.queue.ack_timeout_ms())
    }
}

/// On what terms a consumer gets messages.
#[derive(Clone, Copy, Debug, Default)]
pub struct Terms {
    /// Deliveries that it may have unacknowledged, 0 = any number.
    pub prefetch: u32,
    /// Deliveries are settled as they are written.
    pub no_ack: bool,
    /// Time for an acknowledgement, in milliseconds, in place of the queue's; 0 is for ever.
    pub timeout_ms: Option<u64>,
}

/// A queue's consumer that was refused and may have credit again.
pub struct Resume {
    /// Queue to visit.
    pub queue: Arc<Queue>,
    /// Consumer that was refused.
    pub consumer: ConsumerId,
}

/// The consumers that one settlement gave credit back to.
pub(super) type Touched = SmallVec<[u32; 2]>;

#[derive(Default)]
pub(super) struct Credits {
    pub channels: Slab<ChannelCredit>,
    pub consumers: Slab<ConsumerCredit>,
    waiting: Vec<u32>,
    /// Somebody waits for room in the outbox and not, or not only, for credit.
    needs_room: bool,
    /// What deliveries that are not settled account for, those of open transactions included.
    pub unacked_bytes: usize,
    pub timeouts: AckTimeouts,
}

impl Credits {
    pub(super) fn add_consumer(&mut self, id: ConsumerId, queue: Arc<Queue>, channel_slot: u32, terms: Terms) -> u32 {
        let Terms { prefetch, no_ack, timeout_ms } = terms;
        self.consumers.insert(ConsumerCredit {
            id,
            queue,
            channel_slot,
            prefetch,
            in_flight: 0,
            no_ack,
            timeout_ms,
            waiting: false,
            listed: false,
            detached: false,
            written: false,
        }) as u32
    }

    /// The consumer and its channel when it may get a message; otherwise it is noted as waiting.
    pub(super) fn take(&mut self, slot: u32, has_room: bool) -> Option<(&mut ConsumerCredit, &mut ChannelCredit)> {
        let consumer = self.consumers.get_mut(slot as usize)?;
        let channel = self.channels.get_mut(consumer.channel_slot as usize)?;
        if has_room && has_credit(consumer, channel) {
            if !consumer.no_ack {
                consumer.in_flight += 1;
                channel.in_flight += 1;
            }
            return Some((consumer, channel));
        }
        self.needs_room |= !has_room;
        consumer.waiting = true;
        if !std::mem::replace(&mut consumer.listed, true) {
            self.waiting.push(slot);
        }
        None
    }

    /// Gives back what a delivery had taken; returns its queue. `channel_slot` is `None` when the channel has ended.
    pub(super) fn release(
        &mut self,
        unacked: &Unacked,
        channel_slot: Option<u32>,
        touched: &mut Touched,
    ) -> Option<Arc<Queue>> {
        self.unacked_bytes = self.unacked_bytes.saturating_sub(held_bytes(&unacked.message));
        if let Some(slot) = channel_slot
            && let Some(channel) = self.channels.get_mut(slot as usize)
        {
            channel.in_flight = channel.in_flight.saturating_sub(1);
            self.timeouts.remove((slot, unacked.tag));
        }
        match &unacked.origin {
            Origin::Get(queue) => Some(Arc::clone(queue)),
            Origin::Consumer(slot) => {
                let consumer = self.consumers.get_mut(*slot as usize)?;
                consumer.in_flight = consumer.in_flight.saturating_sub(1);
                if touched.last() != Some(slot) {
                    touched.push(*slot);
                }
                let queue = Arc::clone(&consumer.queue);
                self.free_if_done(*slot);
                Some(queue)
            }
        }
    }

    /// Those of `touched` that were refused and have credit now.
    pub(super) fn resume_touched(&mut self, touched: &Touched, shared: bool, has_room: bool, out: &mut Vec<Resume>) {
        if self.waiting.is_empty() {
            return;
        }
        if !has_room {
            // They get their turn when the writer has made room.
            self.needs_room = true;
            return;
        }
        if shared || touched.len() > TOUCHED_MAX {
            return self.resume_all(out);
        }
        for slot in touched {
            let Some(consumer) = self.consumers.get_mut(*slot as usize) else { continue };
            let Some(channel) = self.channels.get(consumer.channel_slot as usize) else { continue };
            if consumer.waiting && !consumer.detached && has_credit(consumer, channel) {
                consumer.waiting = false;
                out.push(Resume { queue: Arc::clone(&consumer.queue), consumer: consumer.id });
            }
        }
    }

    /// There is room in the outbox: those that waited for it and have credit.
    pub(super) fn resume_for_room(&mut self, out: &mut Vec<Resume>) {
        if std::mem::take(&mut self.needs_room) {
            self.resume_all(out);
        }
    }

    /// Everybody who was refused and has credit now.
    pub(super) fn resume_all(&mut self, out: &mut Vec<Resume>) {
        let (consumers, channels) = (&mut self.consumers, &self.channels);
        self.waiting.retain(|slot| {
            let Some(consumer) = consumers.get_mut(*slot as usize) else { return false };
            let channel = channels.get(consumer.channel_slot as usize);
            let gone = consumer.detached || channel.is_none();
            let ready = !gone && consumer.waiting && channel.is_some_and(|channel| has_credit(consumer, channel));
            if ready {
                out.push(Resume { queue: Arc::clone(&consumer.queue), consumer: consumer.id });
            }
            consumer.waiting &= !(ready || gone);
            consumer.listed = consumer.waiting;
            consumer.listed
        });
    }

    /// Frees the slot of a consumer that is gone once nothing refers to it any more.
    pub(super) fn free_if_done(&mut self, slot: u32) {
        let Some(consumer) = self.consumers.get(slot as usize) else { return };
        if !consumer.detached || !consumer.written || consumer.in_flight > 0 {
            return;
        }
        if consumer.listed {
            self.waiting.retain(|waiting| *waiting != slot);
        }
        self.consumers.remove(slot as usize);
    }
}

fn has_credit(consumer: &ConsumerCredit, channel: &ChannelCredit) -> bool {
    consumer.no_ack
        || (!channel.held
            && (consumer.prefetch == 0 || consumer.in_flight < consumer.prefetch)
            && (channel.prefetch == 0 || channel.in_flight < channel.prefetch))
}
