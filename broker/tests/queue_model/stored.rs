//! Messages that the store names when their time is over. The store is a made-up one that answers when a test wants it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use broker::queue::stored::{Due, StoredDeadlines, StoredExpiry};
use broker::queue::{Queue, Services};
use parking_lot::Mutex;
use storage::{QueueId, RecoveredQueue, Seq};

use crate::manual_time::ManualTime;
use crate::support::Disk;
use crate::world::{START_MS, message_until, spec, stored};

/// Named in one answer.
const BATCH: usize = 3;

type Done = Box<dyn FnOnce(Due) + Send>;
type Handler = Box<dyn Fn(u64) + Send + Sync>;

#[derive(Default)]
struct Deadlines {
    entries: Mutex<BTreeSet<(u64, QueueId, Seq)>>,
    handler: Mutex<Option<Handler>>,
    questions: Mutex<Vec<(u64, Done)>>,
}

impl StoredDeadlines for Deadlines {
    fn next_deadline(&self) -> Option<u64> {
        self.entries.lock().first().map(|(deadline_ms, ..)| *deadline_ms)
    }

    fn on_deadline(&self, handler: Handler) {
        *self.handler.lock() = Some(handler);
    }

    fn due(&self, now_ms: u64, done: Done) {
        self.questions.lock().push((now_ms, done));
    }
}

impl Deadlines {
    fn add(&self, deadline_ms: u64, queue: QueueId, seq: Seq) {
        let earlier = self.next_deadline().is_none_or(|first_ms| deadline_ms < first_ms);
        self.entries.lock().insert((deadline_ms, queue, seq));
        if let Some(handler) = self.handler.lock().as_ref().filter(|_| earlier) {
            handler(deadline_ms);
        }
    }

    /// Answers what has been asked; returns how many questions that were.
    fn answer(&self) -> usize {
        let mut answered = 0;
        while let Some((now_ms, done)) = { self.questions.lock().pop() } {
            answered += 1;
            let mut due = Due::default();
            let mut messages: BTreeMap<QueueId, Vec<Seq>> = BTreeMap::new();
            let mut entries = self.entries.lock();
            while let Some((deadline_ms, queue, seq)) = entries.first().copied() {
                if deadline_ms > now_ms {
                    due.next_ms = Some(deadline_ms);
                    break;
                }
                if messages.values().map(Vec::len).sum::<usize>() == BATCH {
                    due.more = true;
                    break;
                }
                entries.pop_first();
                messages.entry(queue).or_default().push(seq);
            }
            drop(entries);
            for (queue, mut seqs) in messages {
                seqs.sort_unstable();
                due.messages.push((queue, seqs));
            }
            done(due);
        }
        answered
    }
}

struct House {
    disk: Disk,
    time: Arc<ManualTime>,
    services: Services,
    deadlines: Arc<Deadlines>,
}

impl House {
    fn new() -> Self {
        let (disk, time) = (Disk::new(), ManualTime::at(START_MS));
        let services = Services::new(Arc::clone(&disk.store), time.clock());
        Self { disk, time, services, deadlines: Arc::default() }
    }

    /// A queue with this many messages on disk, which expire one after the other, a millisecond apart.
    fn cold(&self, messages: u64) -> Arc<Queue> {
        let id = self.disk.store.new_queue_id();
        for seq in 1..=messages {
            let message = message_until(seq, true, 8, Some(START_MS + seq));
            self.disk.store.enqueue(id, seq, message.meta(), message);
            self.deadlines.add(START_MS + seq, id, seq);
        }
        self.disk.barrier();
        let found = RecoveredQueue { id, first: 1, next_seq: messages + 1, messages, bytes: 8 * messages };
        Queue::recovered(id, spec(true), self.services.clone(), &[found])
    }

    fn expiry(&self) -> Arc<StoredExpiry> {
        let Services { directory, timers, .. } = &self.services;
        StoredExpiry::start(Arc::clone(&self.deadlines) as _, Arc::clone(directory), Arc::clone(timers))
    }

    /// Time passes; returns how often the store was asked.
    fn pass(&self, ms: u64) -> usize {
        self.time.pass(ms);
        self.services.timers.fire();
        self.deadlines.answer()
    }
}

#[test]
fn what_the_store_names_leaves_its_queue() {
    let house = House::new();
    let queues = [house.cold(10), house.cold(4)];
    let counts = || queues.each_ref().map(|queue| queue.message_count());
    let _expiry = house.expiry();
    assert_eq!(house.pass(0), 0, "nobody asks before the time");
    assert_eq!((house.pass(1), counts()), (1, [9, 3]));
    assert_eq!((house.pass(4), counts()), (3, [5, 0]), "seven messages in three answers");
    house.disk.barrier();
    assert_eq!(stored(&house.disk, &queues[0]), [6, 7, 8, 9, 10]);
    assert!(stored(&house.disk, &queues[1]).is_empty());
    assert_eq!((house.pass(100), counts()), (2, [0, 0]));
    assert_eq!(house.services.timers.fire(), None);
    assert_eq!(house.pass(1_000), 0, "nobody asks when nothing is due");
}

#[test]
fn an_earlier_deadline_is_heard_of() {
    let house = House::new();
    let _expiry = house.expiry();
    assert_eq!(house.services.timers.fire(), None);
    for deadline_ms in [START_MS + 500, START_MS + 100] {
        house.deadlines.add(deadline_ms, 77, 1);
        assert_eq!(house.services.timers.fire(), Some(deadline_ms));
    }
    // Nobody has that queue.
    assert_eq!(house.pass(100), 1);
    assert_eq!(house.services.timers.fire(), Some(START_MS + 500));
}

#[test]
fn what_becomes_due_while_the_store_answers_is_asked_for_again() {
    let house = House::new();
    let queue = house.cold(2);
    let _expiry = house.expiry();
    house.time.pass(1);
    house.services.timers.fire();
    let question = house.deadlines.questions.lock().pop().expect("it asked");
    // The store hears of an earlier one before it has answered, and its time comes.
    house.deadlines.add(START_MS, 77, 1);
    house.time.pass(1);
    house.services.timers.fire();
    assert!(house.deadlines.questions.lock().is_empty(), "one question at a time");
    house.deadlines.questions.lock().push(question);
    assert_eq!(house.deadlines.answer(), 2);
    assert_eq!(queue.message_count(), 0);
}

#[test]
fn nobody_is_kept_alive() {
    let house = House::new();
    let queue = house.cold(2);
    let expiry = house.expiry();
    let (weak_queue, weak_expiry) = (Arc::downgrade(&queue), Arc::downgrade(&expiry));
    house.time.pass(2);
    house.services.timers.fire();
    let id = queue.id();
    assert!(house.services.directory.get(id).is_some());
    drop(queue);
    assert!(house.services.directory.get(id).is_none());
    assert_eq!(weak_queue.strong_count(), 0);
    drop(expiry);
    assert_eq!(weak_expiry.strong_count(), 0, "an unanswered question holds nobody");
    assert_eq!(house.deadlines.answer(), 1);
}
