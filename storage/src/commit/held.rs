//! Entries that wait for the files of their large payloads, while the log goes on without them.
//!
//! What may pass them and what may not: messages of a queue come into the log in their order, so those behind one that waits
//! wait too. Settlements and whatever else does not name a waiting message pass. An entry that takes one away (settled,
//! purged, its queue dropped) passes as well, and the message is left out of the log, since it would be gone again at once. A
//! requeue passes and is repeated behind its message. A transaction waits as a whole, also when it takes a waiting message
//! away, for all of it is in force or nothing.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::log::record::{Entry, Requeue};
use crate::types::{Payload, QueueId, Seq, SeqRange, TopologyChange};

/// The entries that wait, and the files that they wait for.
#[derive(Default)]
pub(super) struct Held {
    units: VecDeque<Unit>,
    /// The messages among them.
    messages: BTreeMap<QueueId, BTreeSet<Seq>>,
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
        for entry in &entries {
            if let Entry::Enqueue { queue, seq, .. } = entry {
                self.messages.entry(*queue).or_default().insert(*seq);
            }
        }
        self.units.push_back(Unit { first, entries, bytes, behind, requeues: Vec::new() });
    }

    /// Whether the file of this payload is being written.
    pub(super) fn is_awaited(&self, payload: &Arc<dyn Payload>) -> bool {
        self.jobs.iter().any(|job| is_same(&job.payload, payload))
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
        let mut queues = HashSet::new();
        let mut at = 0;
        while let Some(unit) = self.units.get(at) {
            let waits = unit.messages().any(|(queue, _, payload)| queues.contains(&queue) || self.is_awaited(payload));
            if waits || (unit.behind && at > 0) {
                queues.extend(unit.messages().map(|(queue, ..)| queue));
                at += 1;
            } else if let Some(unit) = self.units.remove(at) {
                for (queue, seq, _) in unit.messages() {
                    forget(&mut self.messages, queue, seq);
                }
                each(unit);
            }
        }
    }

    /// Whether an entry has to stay behind those that wait.
    pub(super) fn stops(&self, entry: &Entry) -> bool {
        matches!(entry, Entry::Enqueue { queue, .. } if self.messages.contains_key(queue))
            || (entry.is_in_tx() && self.is_named_by(entry))
    }

    /// Whether an entry takes a message away that waits.
    fn is_named_by(&self, entry: &Entry) -> bool {
        let of = |queue: &QueueId| self.messages.get(queue);
        match entry {
            Entry::Settle { queue, range, .. } => of(queue).is_some_and(|seqs| has_any(seqs, *range)),
            Entry::Purge(purge) => of(&purge.queue).is_some_and(|seqs| seqs.range(..purge.below).next().is_some()),
            Entry::Topology(changes) => {
                changes.iter().any(|change| matches!(change, TopologyChange::DropQueue(queue) if of(queue).is_some()))
            }
            _ => false,
        }
    }

    /// Draws the consequences of an entry that passes: what it takes away is replaced by entries that do nothing, and a
    /// requeue is noted.
    pub(super) fn pass(&mut self, entry: &Entry) -> Vec<Gone> {
        if let Entry::Requeue(requeue) = entry
            && let Some(seqs) = self.messages.get(&requeue.queue)
            && requeue.ranges.iter().any(|range| has_any(seqs, *range))
        {
            self.units.iter_mut().for_each(|unit| unit.note(requeue));
        }
        if !self.is_named_by(entry) {
            return Vec::new();
        }
        let mut gone = Vec::new();
        for held in self.units.iter_mut().flat_map(|unit| &mut unit.entries) {
            let Entry::Enqueue { queue, seq, payload, tx, .. } = &*held else {
                continue;
            };
            if takes_away(entry, *queue, *seq) {
                let (queue, seq, payload, tx) = (*queue, *seq, Arc::clone(payload), *tx);
                let was_waiting = self.jobs.iter().any(|job| is_same(&job.payload, &payload));
                *held = Entry::Settle { queue, range: SeqRange { first: 1, last: 0 }, tx };
                forget(&mut self.messages, queue, seq);
                gone.push(Gone { queue, seq, payload, was_waiting });
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

/// Whether two payloads are written as one: they share their place. The payloads themselves may be two, when one message
/// expires in one queue and not in the other.
fn is_same(one: &Arc<dyn Payload>, other: &Arc<dyn Payload>) -> bool {
    std::ptr::eq(one.place(), other.place())
}

fn has_any(seqs: &BTreeSet<Seq>, range: SeqRange) -> bool {
    range.first <= range.last && seqs.range(range.first..=range.last).next().is_some()
}

fn forget(messages: &mut BTreeMap<QueueId, BTreeSet<Seq>>, queue: QueueId, seq: Seq) {
    if let Some(seqs) = messages.get_mut(&queue) {
        seqs.remove(&seq);
        if seqs.is_empty() {
            messages.remove(&queue);
        }
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
        self.payloads().filter(|known| is_same(known, payload)).count() as u32
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

    /// Another payload that is written as the first.
    struct Other(Arc<dyn Payload>);

    impl Payload for Other {
        fn encoded_len(&self) -> usize {
            self.0.encoded_len()
        }
        fn encode(&self, out: &mut Vec<u8>) {
            self.0.encode(out);
        }
        fn place(&self) -> &Place {
            self.0.place()
        }
    }

    #[test]
    fn payloads_that_share_their_place_share_their_file() {
        let mut held = Held::default();
        let payload: Arc<dyn Payload> = Arc::new(Nothing(Place::default()));
        let other: Arc<dyn Payload> = Arc::new(Other(Arc::clone(&payload)));
        let stranger: Arc<dyn Payload> = Arc::new(Nothing(Place::default()));
        held.await_file(1, &payload);
        assert!(held.is_awaited(&other) && !held.is_awaited(&stranger));
        held.push(10, vec![enqueue(1, 5, &payload)], 40);
        held.push(11, vec![enqueue(2, 5, &other)], 40);
        assert!(released(&mut held).is_empty());
        assert_eq!(held.file_done(1).map(|(_, needed)| needed), Some(2));
        assert_eq!(released(&mut held).len(), 2);
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
        assert!(held.is_empty() && held.messages.is_empty() && units.iter().map(|unit| unit.first).eq([10, 11]));
        assert_eq!(units[0].requeues, [Requeue { queue: 1, delivery_count: 3, ranges: vec![SeqRange::one(5)] }]);
        assert!(units[1].requeues.is_empty());
    }

    #[test]
    fn messages_of_a_queue_keep_their_order() {
        let mut held = Held::default();
        let [first, second, small]: [Arc<dyn Payload>; 3] =
            std::array::from_fn(|_| Arc::new(Nothing(Place::default())) as _);
        held.await_file(1, &first);
        held.push(10, vec![enqueue(1, 5, &first)], 40);
        assert!(held.stops(&enqueue(1, 6, &small)) && !held.stops(&enqueue(2, 6, &small)));
        held.push(11, vec![enqueue(1, 6, &small)], 40);
        held.await_file(2, &second);
        held.push(12, vec![enqueue(2, 1, &second)], 40);
        held.push(13, vec![enqueue(1, 7, &small)], 40);
        held.file_done(2);
        assert!(released(&mut held).iter().map(|unit| unit.first).eq([12]));
        held.file_done(1);
        assert!(released(&mut held).iter().map(|unit| unit.first).eq([10, 11, 13]));
        assert!(!held.stops(&enqueue(1, 8, &small)));
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
