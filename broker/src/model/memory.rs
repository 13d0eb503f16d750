//! Who holds how much memory: a counter for each kind of owner, and a way to keep it that costs nothing per message.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::Notify;

/// An owner tells the node about itself when it has changed by this much: one atomic operation for many messages.
const STEP_BYTES: usize = 16 * 1024;

/// What memory is held for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owner {
    /// Ready messages of queues.
    Queues,
    /// What waits to be written to clients, and deliveries that they have not settled.
    Outboxes,
    /// Bodies that have not come whole.
    Partial,
    /// Frames of publishers that are held.
    Parked,
    /// Publishes of open transactions.
    Transactions,
}

const OWNERS: usize = 5;

/// Memory of one node by owner, in octets, and what follows from it.
pub struct Memory {
    held: [AtomicUsize; OWNERS],
    /// Octets held in all that call for attention.
    limit: AtomicUsize,
    /// More than the limit is held: somebody has been told.
    over: AtomicBool,
    /// Something was published since this was last looked at.
    active: AtomicBool,
    /// Rung when something is published for the first time since somebody looked.
    pub published: Notify,
    /// Rung when more is held than the limit.
    pub crossed: Notify,
}

impl Default for Memory {
    fn default() -> Self {
        Self::new(usize::MAX)
    }
}

impl Memory {
    /// Nothing is held yet; `limit` octets may be.
    pub fn new(limit: usize) -> Self {
        Self {
            held: Default::default(),
            limit: AtomicUsize::new(limit),
            over: AtomicBool::new(false),
            active: AtomicBool::new(false),
            published: Notify::new(),
            crossed: Notify::new(),
        }
    }

    /// Lets this many octets be held.
    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// Octets that may be held.
    pub fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    /// Octets that an owner holds, but for what has changed since it last told.
    pub fn held(&self, owner: Owner) -> usize {
        self.held[owner as usize].load(Ordering::Relaxed)
    }

    /// The same for all owners together.
    pub fn total(&self) -> usize {
        self.held.iter().map(|held| held.load(Ordering::Relaxed)).sum()
    }

    /// An owner holds `now` octets instead of `before`.
    pub fn change(&self, owner: Owner, before: usize, now: usize) {
        let held = &self.held[owner as usize];
        if now <= before {
            held.fetch_sub(before - now, Ordering::Relaxed);
            return;
        }
        held.fetch_add(now - before, Ordering::Relaxed);
        if self.total() >= self.limit() && !self.over.swap(true, Ordering::Relaxed) {
            self.crossed.notify_one();
        }
    }

    /// Ready messages take half of all that may be held: from here on every queue keeps little.
    pub fn queues_are_full(&self) -> bool {
        self.held(Owner::Queues) > self.limit() / 2
    }

    /// What waits for consumers takes a quarter of all that may be held: from here on every connection gets little.
    pub fn outboxes_are_full(&self) -> bool {
        self.held(Owner::Outboxes) > self.limit() / 4
    }

    /// Open transactions take a quarter of all that may be held.
    pub fn transactions_are_full(&self) -> bool {
        self.held(Owner::Transactions) > self.limit() / 4
    }

    /// Frames of held publishers take a sixteenth of all that may be held.
    pub fn parked_is_full(&self) -> bool {
        self.held(Owner::Parked) > self.limit() / 16
    }

    /// Something is published. Once per batch.
    pub fn touch(&self) {
        if !self.active.load(Ordering::Relaxed) && !self.active.swap(true, Ordering::Relaxed) {
            self.published.notify_one();
        }
    }

    /// Whether something was published since the last call. With an alarm nobody is told of the limit being crossed.
    pub fn look(&self, alarm: bool) -> bool {
        self.over.store(alarm, Ordering::Relaxed);
        self.active.swap(false, Ordering::Relaxed)
    }
}

/// One owner's share of the account. It tells of changes in steps, and takes back what it told when it is dropped.
pub struct Share {
    memory: Arc<Memory>,
    owner: Owner,
    told: usize,
}

impl Share {
    /// A share that holds nothing.
    pub fn new(memory: Arc<Memory>, owner: Owner) -> Self {
        Self { memory, owner, told: 0 }
    }

    /// The account that it is part of.
    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// It holds this many octets now.
    pub fn set(&mut self, now: usize) {
        if now.abs_diff(self.told) >= STEP_BYTES || (now == 0 && self.told != 0) {
            self.memory.change(self.owner, self.told, now);
            self.told = now;
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.memory.change(self.owner, self.told, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_tell_in_steps_and_take_back_what_they_told() {
        let memory = Arc::new(Memory::default());
        let mut queue = Share::new(Arc::clone(&memory), Owner::Queues);
        let mut outbox = Share::new(Arc::clone(&memory), Owner::Outboxes);
        queue.set(STEP_BYTES - 1);
        assert_eq!(memory.total(), 0, "too little to tell");
        queue.set(3 * STEP_BYTES);
        outbox.set(STEP_BYTES);
        assert_eq!((memory.held(Owner::Queues), memory.held(Owner::Outboxes)), (3 * STEP_BYTES, STEP_BYTES));
        queue.set(2 * STEP_BYTES + 1);
        assert_eq!(memory.held(Owner::Queues), 3 * STEP_BYTES);
        queue.set(0);
        assert_eq!(memory.held(Owner::Queues), 0, "nothing is told at once");
        drop(outbox);
        assert_eq!(memory.total(), 0);
    }

    #[test]
    fn budgets_are_parts_of_the_limit() {
        let memory = Memory::new(1 << 20);
        memory.change(Owner::Outboxes, 0, 1 << 18);
        memory.change(Owner::Transactions, 0, 1 << 18);
        memory.change(Owner::Parked, 0, 1 << 16);
        assert!(!memory.outboxes_are_full() && !memory.transactions_are_full() && !memory.parked_is_full());
        memory.change(Owner::Outboxes, 0, 1);
        memory.change(Owner::Transactions, 0, 1);
        memory.change(Owner::Parked, 0, 1);
        assert!(memory.outboxes_are_full() && memory.transactions_are_full() && memory.parked_is_full());
    }

    #[test]
    fn crossing_the_limit_is_told_once_per_look() {
        let memory = Memory::new(1000);
        let told = || {
            let mut notified = std::pin::pin!(memory.crossed.notified());
            notified.as_mut().enable()
        };
        memory.change(Owner::Queues, 0, 999);
        assert!(!told());
        memory.change(Owner::Queues, 999, 1000);
        assert!(told());
        memory.change(Owner::Queues, 1000, 2000);
        assert!(!told());
        memory.look(true);
        memory.change(Owner::Queues, 2000, 2001);
        assert!(!told(), "there is an alarm");
        memory.look(false);
        memory.change(Owner::Queues, 2001, 2002);
        assert!(told());
    }

    #[test]
    fn publishing_is_noted_once_per_look() {
        let memory = Memory::default();
        assert!(!memory.look(false));
        memory.touch();
        memory.touch();
        assert!(memory.look(false));
        assert!(!memory.look(false));
    }
}
