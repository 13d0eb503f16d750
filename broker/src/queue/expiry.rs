//! Messages whose time is over leave their queue, from wherever in it they are.
//!
//! A queue knows the deadlines of its messages in memory and has a timer for the earliest. The store knows those of the
//! messages on disk and names them when they are due (`stored.rs`). What is delivered and not yet acknowledged is left alone;
//! should it come back, it leaves at once.
//!
//! A policy can ask for what RabbitMQ does: then a message leaves when it is the first of its queue, and only then.

use std::sync::{Arc, Weak};

use storage::Seq;

use super::classic::{Queue, State};
use super::discard::Discarded;
use super::signal::WakeList;
use super::timers::Timed;
use crate::model::death::Reason;

impl Queue {
    /// Lets go of the messages in memory whose time is over, or of those of them that are the first. After that none that may
    /// leave is due for as long as the lock is held.
    pub(super) fn drop_expired(&self, state: &mut State) {
        if state.next_deadline().is_none() {
            return;
        }
        let now_ms = self.services.timers.clock().now_ms();
        let due = if state.settings.expires_at_head {
            let is_due = |state: &mut State| state.next_deadline().is_some_and(|deadline_ms| deadline_ms <= now_ms);
            std::iter::from_fn(|| if is_due(state) { state.ready.pop() } else { None }).collect()
        } else {
            state.ready.take_due(now_ms)
        };
        state.forget_read();
        if due.is_empty() {
            return;
        }
        self.discard(state, Discarded::Held(due), Reason::Expired);
        self.look_at_head(state);
    }

    /// Another message is the first now. If that matters, sees to it that it leaves in time.
    pub(super) fn look_at_head(&self, state: &mut State) {
        if state.settings.expires_at_head
            && let Some(queue) = self.me()
        {
            queue.read_ahead(state);
            queue.arm(state);
        }
    }

    /// Sees to it that the queue is called at its earliest deadline in memory.
    pub(super) fn arm(self: &Arc<Self>, state: &mut State) {
        let Some(deadline_ms) = state.next_deadline() else {
            return;
        };
        let timer = state.timer.get_or_insert_with(|| {
            let queue: Weak<Self> = Arc::downgrade(self);
            self.services.timers.timer(queue)
        });
        timer.arm(deadline_ms);
    }

    /// The store names messages of a level of this queue whose deadline has come; their numbers there ascend. Those in memory
    /// are left to the queue's own timer, and those that have left the queue to whoever has them.
    pub fn expire_stored(self: &Arc<Self>, level: u8, named: &[Seq]) {
        let mut wakes = WakeList::default();
        let mut state = self.lock();
        // At the head each is found out when it comes there.
        if self.is_closed() || self.is_crashed() || state.settings.expires_at_head {
            return;
        }
        // They stay in the store until they are moved, and a read may bring them.
        let reading = state.is_measuring || state.reading.is_some_and(|reading| reading.level == level);
        let readable = reading || state.dead.is_wanted();
        let taken = state.ready.take_stored(level, named, readable);
        state.forget_read();
        if !taken.is_empty() {
            self.discard(&mut state, Discarded::Stored(taken), Reason::Expired);
        }
        self.pump(&mut state, &mut wakes);
    }
}

impl State {
    /// When the next message in memory may leave because its time is over.
    fn next_deadline(&self) -> Option<u64> {
        if self.settings.expires_at_head { self.ready.head_deadline() } else { self.ready.first_deadline() }
    }

    /// What is being read is of no use any more when there is no backlog left.
    pub(super) fn forget_read(&mut self) {
        if self.reading.is_some_and(|reading| !self.ready.has_backlog(reading.level)) {
            self.reading = None;
        }
    }
}

impl Timed for Queue {
    fn fire(self: Arc<Self>, _: u64) {
        let mut wakes = WakeList::default();
        let mut state = self.lock();
        if self.is_closed() || self.is_crashed() {
            return;
        }
        self.drop_expired(&mut state);
        let next = state.next_deadline();
        if let Some(timer) = &mut state.timer {
            timer.set(next);
        }
        // What was taken out may have made room for more of the backlog, or left a get without an answer.
        self.pump(&mut state, &mut wakes);
    }
}
