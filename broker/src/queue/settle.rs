//! Deliveries on their way back from a channel, grouped by queue so that each queue is visited once.

use std::sync::Arc;

use smallvec::SmallVec;
use storage::{QueueId, SeqRange};

use super::Queue;
use super::ready::Entry;
use super::signal::WakeList;
use super::unacked::Unacked;

/// Acknowledged (or rejected without requeue): gone for good.
#[derive(Default)]
pub struct Acked(SmallVec<[AckGroup; 1]>);

struct AckGroup {
    queue: Arc<Queue>,
    ranges: SmallVec<[SeqRange; 4]>,
    messages: usize,
    persistent: bool,
}

impl Acked {
    /// Adds one settled delivery.
    pub fn add(&mut self, queue: Arc<Queue>, unacked: &Unacked) {
        self.add_seq(&queue, unacked.seq, unacked.message.is_persistent());
    }

    /// Adds one message of `queue`.
    pub fn add_seq(&mut self, queue: &Arc<Queue>, seq: u64, persistent: bool) {
        let at = match self.0.iter().rposition(|group| Arc::ptr_eq(&group.queue, queue)) {
            Some(at) => at,
            None => {
                self.0.push(AckGroup {
                    queue: Arc::clone(queue),
                    ranges: SmallVec::new(),
                    messages: 0,
                    persistent: false,
                });
                self.0.len() - 1
            }
        };
        let group = &mut self.0[at];
        group.messages += 1;
        if persistent {
            group.persistent = true;
            match group.ranges.last_mut() {
                Some(range) if range.last + 1 == seq => range.last = seq,
                _ => group.ranges.push(SeqRange { first: seq, last: seq }),
            }
        }
    }

    /// The messages of persistent deliveries in durable queues as the store calls them, for a transaction.
    pub fn durable_ranges(&self) -> impl Iterator<Item = (QueueId, SeqRange)> {
        self.0
            .iter()
            .filter(|group| group.queue.spec().durable)
            .flat_map(|group| group.ranges.iter().map(|range| group.queue.range_in_store(*range)))
    }

    /// Tells the queues, and the store where it knows the messages. Nobody waits for the disk here: an acknowledgement
    /// that a crash undoes only means that the message is delivered again.
    pub fn commit(&mut self) {
        for group in self.0.drain(..) {
            group.queue.forget_unacked(group.messages);
            if group.persistent {
                group.queue.store_settled(&group.ranges);
            }
        }
    }

    /// Like [`Acked::commit`], for deliveries whose settlement is in the log already.
    pub fn forget(&mut self) {
        for group in self.0.drain(..) {
            group.queue.forget_unacked(group.messages);
        }
    }
}

/// Rejected, and not wanted back in their queues.
#[derive(Default)]
pub struct Rejected(Requeue);

impl Rejected {
    /// Adds a delivery.
    pub fn add(&mut self, queue: Arc<Queue>, unacked: Unacked) {
        self.0.add(queue, unacked);
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
    pub fn add(&mut self, queue: Arc<Queue>, unacked: Unacked) {
        self.add_entry(queue, Entry { seq: unacked.seq, message: unacked.message, redelivered: true });
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
