//! Messages that expire on disk: the store knows their deadlines and names those that are due, and their queues let go of
//! them. Nothing is kept here per message.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use storage::{QueueId, Seq, Store};

use super::directory::Directory;
use super::lanes::owner_of;
use super::timers::{Timed, Timer, Timers};

/// Stored messages whose deadline has come.
#[derive(Debug, Default)]
pub struct Due {
    /// By queue; positions ascend.
    pub messages: Vec<(QueueId, Vec<Seq>)>,
    /// The deadlines of all of them, in the same order.
    pub deadlines: Vec<u64>,
    /// There are more: ask again at once.
    pub more: bool,
    /// The earliest deadline, in milliseconds since 1970, of those that have not been named.
    pub next_ms: Option<u64>,
}

/// The deadlines of the messages in a store.
pub trait StoredDeadlines: Send + Sync {
    /// The earliest of those not named yet, in milliseconds since 1970, as far as known.
    fn next_deadline(&self) -> Option<u64>;

    /// Lets `handler` be called whenever the earliest has moved to an earlier time than was told last.
    fn on_deadline(&self, handler: Box<dyn Fn(u64) + Send + Sync>);

    /// Names messages whose deadline is at or before `now_ms`, each at most once. `done` is called on any thread, or dropped
    /// when the store stops.
    fn due(&self, now_ms: u64, done: Box<dyn FnOnce(Due) + Send>);
}

impl StoredDeadlines for Store {
    fn next_deadline(&self) -> Option<u64> {
        Self::next_deadline(self)
    }

    fn on_deadline(&self, handler: Box<dyn Fn(u64) + Send + Sync>) {
        Self::on_deadline(self, handler);
    }

    fn due(&self, now_ms: u64, done: Box<dyn FnOnce(Due) + Send>) {
        Self::due(
            self,
            now_ms,
            Box::new(move |due| {
                let storage::Due { messages, deadlines, more, next } = due;
                done(Due { messages, deadlines, more, next_ms: next });
            }),
        );
    }
}

/// Asks a store for the messages that are due whenever some are, and tells their queues.
pub struct StoredExpiry {
    deadlines: Arc<dyn StoredDeadlines>,
    directory: Arc<Directory>,
    timers: Arc<Timers>,
    state: Mutex<State>,
}

struct State {
    timer: Timer,
    /// The store has been asked and has not answered.
    asked: bool,
    /// More has become due since it was asked.
    again: bool,
}

impl StoredExpiry {
    /// It works for as long as the value returned is kept.
    pub fn start(deadlines: Arc<dyn StoredDeadlines>, directory: Arc<Directory>, timers: Arc<Timers>) -> Arc<Self> {
        let expiry = Arc::new_cyclic(|expiry: &Weak<Self>| {
            let timer = timers.timer(Weak::clone(expiry) as Weak<dyn Timed>);
            Self { deadlines, directory, timers, state: Mutex::new(State { timer, asked: false, again: false }) }
        });
        let weak = Arc::downgrade(&expiry);
        expiry.deadlines.on_deadline(Box::new(move |deadline_ms| {
            if let Some(expiry) = weak.upgrade() {
                expiry.state.lock().timer.arm(deadline_ms);
            }
        }));
        if let Some(deadline_ms) = expiry.deadlines.next_deadline() {
            expiry.state.lock().timer.arm(deadline_ms);
        }
        expiry
    }

    fn ask(self: &Arc<Self>) {
        // The store must not keep alive what keeps the store alive.
        let weak = Arc::downgrade(self);
        let done = move |due| {
            if let Some(expiry) = weak.upgrade() {
                expiry.answered(due);
            }
        };
        self.deadlines.due(self.timers.clock().now_ms(), Box::new(done));
    }

    fn answered(self: &Arc<Self>, due: Due) {
        let mut deadlines = due.deadlines.into_iter();
        for (id, seqs) in due.messages {
            let deadlines = deadlines.by_ref().take(seqs.len());
            let (owner, level) = owner_of(id);
            if let Some(queue) = self.directory.get(owner) {
                deadlines.for_each(drop);
                queue.expire_stored(level, &seqs);
                continue;
            }
            let mut in_order: Vec<(u64, Seq)> = deadlines.zip(seqs).collect();
            if let Some(waiting) = self.directory.waiting(id) {
                in_order.sort_unstable();
                waiting.due(in_order.into_iter().map(|(_, seq)| seq).collect());
            }
        }
        let mut state = self.state.lock();
        if std::mem::take(&mut state.again) || due.more {
            drop(state);
            self.ask();
            return;
        }
        state.asked = false;
        if let Some(next_ms) = due.next_ms {
            state.timer.arm(next_ms);
        }
    }
}

impl Timed for StoredExpiry {
    fn fire(self: Arc<Self>, _: u64) {
        let mut state = self.state.lock();
        state.timer.set(None);
        if std::mem::replace(&mut state.asked, true) {
            state.again = true;
            return;
        }
        drop(state);
        self.ask();
    }
}
