//! Entries that wait for the files of their large payloads, while the log goes on without them.
//!
//! What may pass them and what may not: an entry that names another message has nothing to do with them. One that takes a
//! waiting message away (settled, purged, its queue dropped) passes too, and the message is left out of the log, since it
//! would be gone again at once. A requeue passes and is repeated behind its message. A transaction waits as a whole, also
//! when it takes a waiting message away, for all of it is in force or nothing.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::log::record::{Entry, Requeue};
use crate::types::{Payload, QueueId, Seq, SeqRange, TopologyChange};

/// The entries that wait, and the files that they wait for.
#[derive(Default)]
pub(super) struct Held {
    units: VecDeque<Unit>,
    jobs: Vec<Job>,
}

/// An entry, or a whole transaction.
pub(super) struct Unit {
    /// Position of the first entry in the order of the appends; the others follow.
    pub(super) first: u64,
    pub(super) entries: Vec<Entry>,
    /// What they counted for when they were appended.
    pub(super) bytes: u64,
    /// It takes a message away that waits too, and has to stay behind all that it found waiting.
    behind: bool,
    /// What came for its messages while it waited, to be repeated behind it.
    pub(super) requeues: Vec<Requeue>,
}

/// A file that is being written.
struct Job {
    id: u64,
    payload: Arc<dyn Payload>,
    given_up: Arc<AtomicBool>,
}

/// A message that waits no longer, because it is gone.
pub(super) struct Gone {
    pub(super) queue: QueueId,
    pub(super) seq: Seq,
    pub(super) payload: Arc<dyn Payload>,
    /// Its file is being written, or was to be.
    pub(super) was_waiting: bool,
}

impl Held {
    pub(super) fn is_empty(&self) -> bool {
        self.units.is_empty()
    }

    /// Position of the first entry that waits.
    pub(super) fn first(&self) -> Option<u64> {
        self.units.front().map(|unit| unit.first)
    }

    pub(super) fn push(&mut self, first: u64, entries: Vec<Entry>, bytes: u64) {
        let behind = entries.iter().any(|entry| self.is_named_by(entry));
        self.units.push_back(Unit { first, entries, bytes, behind, requeues: Vec::new() });
    }

    /// Whether the file of this payload is being written.
    pub(super) fn is_awaited(&self, payload: &Arc<dyn Payload>) -> bool {
        self.jobs.iter().any(|job| Arc::ptr_eq(&job.payload, payload))
    }

    /// A file is going to be written. The flag is set when nobody needs it any more.
    pub(super) fn await_file(&mut self, id: u64, payload: &Arc<dyn Payload>) -> Arc<AtomicBool> {
        let given_up = Arc::new(AtomicBool::new(false));
        self.jobs.push(Job { id, payload: Arc::clone(payload), given_up: Arc::clone(&given_up) });
        given_up
    }

    /// A file is there, or was given up. Returns its payload and how many entries need it.
    pub(super) fn file_done(&mut self, id: u64) -> Option<(Arc<dyn Payload>, u32)> {
        let at = self.jobs.iter().position(|job| job.id == id)?;
        let job = self.jobs.swap_remove(at);
        let needed = self.units.iter().map(|unit| unit.count(&job.payload)).sum();
        Some((job.payload, needed))
    }

    /// Takes out what need not wait any longer.
    pub(super) fn release(&mut self, mut each: impl FnMut(Unit)) {
        let mut at = 0;
        while let Some(unit) = self.units.get(at) {
            let waits = unit.payloads().any(|payload| self.is_awaited(payload)) || (unit.behind && at > 0);
            if waits {
                at += 1;
            } else if let Some(unit) = self.units.remove(at) {
                each(unit);
            }
        }
    }

    /// Whether an entry takes a message away that waits.
    pub(super) fn is_named_by(&self, entry: &Entry) -> bool {
        self.units.iter().flat_map(Unit::messages).any(|(queue, seq, _)| takes_away(entry, queue, seq))
    }

    /// Draws the consequences of an entry that passes: what it takes away is replaced by entries that do nothing, and a
    /// requeue is noted.
    pub(super) fn pass(&mut self, entry: &Entry) -> Vec<Gone> {
        let mut gone = Vec::new();
        for unit in &mut self.units {
            if let Entry::Requeue(requeue) = entry {
                unit.note(requeue);
                continue;
            }
            for held in &mut unit.entries {
                let Entry::Enqueue { queue, seq, payload, tx, .. } = &*held else {
                    continue;
                };
                if takes_away(entry, *queue, *seq) {
                    let (queue, seq, payload, tx) = (*queue, *seq, Arc::clone(payload), *tx);
                    let was_waiting = self.jobs.iter().any(|job| Arc::ptr_eq(&job.payload, &payload));
                    *held = Entry::Settle { queue, range: SeqRange { first: 1, last: 0 }, tx };
                    gone.push(Gone { queue, seq, payload, was_waiting });
                }
            }
        }
        for job in &self.jobs {
            if !self.units.iter().any(|unit| unit.count(&job.payload) > 0) {
                job.given_up.store(true, Ordering::Release);
            }
        }
        gone
    }
}

impl Unit {
    fn messages(&self) -> impl Iterator<Item = (QueueId, Seq, &Arc<dyn Payload>)> {
        self.entries.iter().filter_map(|entry| match entry {
            Entry::Enqueue { queue, seq, payload, .. } => Some((*queue, *seq, payload)),
            _ => None,
        })
    }

    fn payloads(&self) -> impl Iterator<Item = &Arc<dyn Payload>> {
        self.messages().map(|(_, _, payload)| payload)
    }

    fn count(&self, payload: &Arc<dyn Payload>) -> u32 {
        self.payloads().filter(|known| Arc::ptr_eq(known, payload)).count() as u32
    }

    fn note(&mut self, requeue: &Requeue) {
        let named: Vec<SeqRange> = self
            .messages()
            .filter(|(queue, seq, _)| {
                *queue == requeue.queue && requeue.ranges.iter().any(|range| range.contains(*seq))
            })
            .map(|(_, seq, _)| SeqRange::one(seq))
            .collect();
        if !named.is_empty() {
            let Requeue { queue, delivery_count, .. } = *requeue;
            self.requeues.push(Requeue { queue, delivery_count, ranges: named });
        }
    }
}

/// Whether an entry takes a message away.
fn takes_away(entry: &Entry, queue: QueueId, seq: Seq) -> bool {
    match entry {
        Entry::Settle { queue: named, range, .. } => *named == queue && range.contains(seq),
        Entry::Purge(purge) => {
            purge.queue == queue && seq < purge.below && !purge.except.iter().any(|range| range.contains(seq))
        }
        Entry::Topology(changes) => {
            changes.iter().any(|change| matches!(change, TopologyChange::DropQueue(named) if *named == queue))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Place;

    struct Nothing(Place);

    impl Payload for Nothing {
        fn encoded_len(&self) -> usize {
            0
        }
        fn encode(&self, _out: &mut Vec<u8>) {}
        fn place(&self) -> &Place {
            &self.0
        }
    }

    fn enqueue(queue: QueueId, seq: Seq, payload: &Arc<dyn Payload>) -> Entry {
        let payload = Arc::clone(payload);
        Entry::Enqueue { queue, seq, deadline: 0, payload, delivery_count: 0, priority: 0, tx: false }
    }

    fn released(held: &mut Held) -> Vec<Unit> {
        let mut units = Vec::new();
        held.release(|unit| units.push(unit));
        units
    }

    #[test]
    fn a_requeue_is_repeated_for_those_that_wait() {
        let mut held = Held::default();
        let payload: Arc<dyn Payload> = Arc::new(Nothing(Place::default()));
        held.await_file(1, &payload);
        held.push(10, vec![enqueue(1, 5, &payload)], 40);
        held.push(11, vec![enqueue(2, 5, &payload)], 40);
        let ranges = vec![SeqRange { first: 1, last: 4 }, SeqRange { first: 5, last: 9 }];
        let requeue = Entry::Requeue(Box::new(Requeue { queue: 1, delivery_count: 3, ranges }));
        assert!(held.pass(&requeue).is_empty());
        assert!(released(&mut held).is_empty(), "the file is not there");
        assert_eq!(held.file_done(1).map(|(_, needed)| needed), Some(2));
        let units = released(&mut held);
        assert!(held.is_empty() && units.iter().map(|unit| unit.first).eq([10, 11]));
        assert_eq!(units[0].requeues, [Requeue { queue: 1, delivery_count: 3, ranges: vec![SeqRange::one(5)] }]);
        assert!(units[1].requeues.is_empty());
    }

    #[test]
    fn a_file_is_given_up_when_the_last_that_needs_it_is_gone() {
        let mut held = Held::default();
        let payload: Arc<dyn Payload> = Arc::new(Nothing(Place::default()));
        let given_up = held.await_file(1, &payload);
        held.push(10, vec![enqueue(1, 5, &payload)], 40);
        held.push(11, vec![enqueue(2, 6, &payload)], 40);
        let settle = |queue, range| Entry::Settle { queue, range, tx: false };
        assert!(held.pass(&settle(1, SeqRange { first: 6, last: 9 })).is_empty());
        let gone = held.pass(&settle(1, SeqRange { first: 0, last: 5 }));
        assert!(gone.len() == 1 && gone[0].was_waiting && (gone[0].queue, gone[0].seq) == (1, 5));
        assert!(!given_up.load(Ordering::SeqCst));
        assert_eq!(released(&mut held).len(), 1);
        let purge = crate::log::record::Purge { queue: 2, below: 7, except: Vec::new() };
        assert_eq!(held.pass(&Entry::Purge(Box::new(purge))).len(), 1);
        assert!(given_up.load(Ordering::SeqCst));
        assert_eq!(released(&mut held).len(), 1);
        assert_eq!(held.file_done(1).map(|(_, needed)| needed), Some(0));
    }
}
