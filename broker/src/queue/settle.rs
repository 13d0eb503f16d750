//! Deliveries on their way back from a channel, grouped by queue so that each queue is visited once.

use std::sync::Arc;

use smallvec::SmallVec;
use storage::{QueueId, SeqRange};

use super::Queue;
use super::delivery_limit::Return;
use super::ready::Entry;
use super::signal::WakeList;
use super::unacked::Unacked;
use crate::model::message::Message;

/// Acknowledged (or rejected without requeue): gone for good.
#[derive(Default)]
pub struct Acked(SmallVec<[AckGroup; 1]>);

struct AckGroup {
    queue: Arc<Queue>,
    ranges: SmallVec<[SeqRange; 4]>,
    messages: usize,
    /// Those of them that a client has acknowledged.
    acked: usize,
    stored: bool,
}

impl Acked {
    /// Adds one settled delivery.
    pub fn add(&mut self, queue: Arc<Queue>, unacked: &Unacked) {
        self.group(&queue).acked += 1;
        self.add_seq(&queue, unacked.seq, &unacked.message);
    }

    /// Adds one message of `queue`.
    pub fn add_seq(&mut self, queue: &Arc<Queue>, seq: u64, message: &Message) {
        let group = self.group(queue);
        group.messages += 1;
        if queue.stores(message) {
            group.stored = true;
            match group.ranges.last_mut() {
                Some(range) if range.last + 1 == seq => range.last = seq,
                _ => group.ranges.push(SeqRange { first: seq, last: seq }),
            }
        }
    }

    fn group(&mut self, queue: &Arc<Queue>) -> &mut AckGroup {
        let at = match self.0.iter().rposition(|group| Arc::ptr_eq(&group.queue, queue)) {
            Some(at) => at,
            None => {
                let queue = Arc::clone(queue);
                self.0.push(AckGroup { queue, ranges: SmallVec::new(), messages: 0, acked: 0, stored: false });
                self.0.len() - 1
            }
        };
        &mut self.0[at]
    }

    /// The messages of persistent deliveries in durable queues as the store calls them, for a transaction.
    pub fn durable_ranges(&self) -> impl Iterator<Item = (QueueId, SeqRange)> {
        self.0
            .iter()
            .filter(|group| group.stored)
            .flat_map(|group| group.ranges.iter().map(|range| group.queue.range_in_store(*range)))
    }

    /// Tells the queues, and the store where it knows the messages. Nobody waits for the disk here: an acknowledgement
    /// that a crash undoes only means that the message is delivered again.
    pub fn commit(&mut self) {
        for group in self.0.drain(..) {
            group.settle();
            if group.stored {
                group.queue.store_settled(&group.ranges);
            }
        }
    }

    /// Like [`Acked::commit`], for deliveries whose settlement is in the log already.
    pub fn forget(&mut self) {
        for group in self.0.drain(..) {
            group.settle();
        }
    }
}

impl AckGroup {
    fn settle(&self) {
        if self.acked > 0 {
            self.queue.count_acked(self.acked);
        }
        self.queue.forget_unacked(self.messages);
    }
}

/// Rejected, and not wanted back in their queues.
#[derive(Default)]
pub struct Rejected(Requeue);

impl Rejected {
    /// Adds a delivery.
    pub fn add(&mut self, queue: Arc<Queue>, unacked: Unacked) {
        self.0.add(queue, unacked, Return::InVain);
    }

    /// Lets the queues give them up, in the order in which they were added.
    pub fn commit(self) {
        for (queue, entries) in self.0.0 {
            queue.reject(entries);
        }
    }
}

/// To be put back into their queues.
#[derive(Default)]
pub struct Requeue(SmallVec<[(Arc<Queue>, Vec<Entry>); 1]>);

impl Requeue {
    /// Adds a delivery that was seen by a client.
    pub fn add(&mut self, queue: Arc<Queue>, unacked: Unacked, how: Return) {
        let Unacked { seq, message, tally, .. } = unacked;
        let tally = if queue.counts_deliveries() { tally.back(how == Return::InVain) } else { tally };
        self.add_entry(queue, Entry { seq, message, redelivered: true, tally });
    }

    /// Adds an entry as it is.
    pub fn add_entry(&mut self, queue: Arc<Queue>, entry: Entry) {
        match self.0.iter_mut().rfind(|(known, _)| Arc::ptr_eq(known, &queue)) {
            Some((_, entries)) => entries.push(entry),
            None => self.0.push((queue, vec![entry])),
        }
    }

    /// Puts them back at their original positions.
    pub fn commit(self, wakes: &mut WakeList) {
        for (queue, mut entries) in self.0 {
            entries.sort_unstable_by_key(|entry| entry.seq);
            queue.requeue(entries, wakes);
        }
    }
}
