//! Messages that an exchange keeps back until their time has come.
//!
//! A durable exchange has a queue id of its own in the store. What it keeps back is there, due time included, and nowhere
//! else, so any number of them costs no memory here: the store names those that are due (`queue/stored.rs`), they are read,
//! and go where the exchange sends them then. The message enters its queues and leaves here in one transaction. An exchange
//! that is not durable keeps them in memory.
//!
//! The state's lock is below that of the topology and above the timers and the store's pending buffer. Nothing is published
//! with it held.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;
use storage::{Lsn, QueueId, ReadBatch, ReadMessage, Seq, SeqRange, TxOp};

use super::Vhost;
use super::exchange::Exchange;
use crate::model::memory::{Owner, Share};
use crate::model::message::Message;
use crate::queue::Services;
use crate::queue::directory::Waiting;
use crate::queue::signal::WakeList;
use crate::queue::timers::{Timed, Timer};
use crate::queue::window::Stored;

/// Messages in one read of the store, and octets.
const READ_MESSAGES: u64 = 128;
const READ_BYTES: usize = 1 << 20;

/// How what belongs to a virtual host finds it.
pub(super) type Handle = Arc<OnceLock<Weak<Vhost>>>;

/// See the module's documentation.
pub struct Delay {
    id: QueueId,
    exchange: Arc<str>,
    durable: bool,
    vhost: Handle,
    services: Services,
    state: Mutex<State>,
}

struct State {
    next_seq: Seq,
    /// How many are kept back.
    count: u64,
    closed: bool,
    /// Those below this were purged.
    below: Seq,
    /// Due and not read yet, in the order of their times.
    due: VecDeque<Seq>,
    reading: bool,
    /// Those of an exchange that is not durable, by due time.
    held: BTreeMap<(u64, Seq), Arc<Message>>,
    held_bytes: usize,
    timer: Option<Timer>,
    share: Share,
}

impl State {
    fn account(&mut self, before: usize, after: usize) {
        self.held_bytes = (self.held_bytes + after).saturating_sub(before);
        self.share.set(self.held_bytes);
    }
}

impl Delay {
    /// Keeps messages back for the exchange of this name; `kept` when it is durable.
    pub(super) fn new(exchange: Arc<str>, kept: Option<Stored>, vhost: Handle, services: Services) -> Arc<Self> {
        let share = Share::new(Arc::clone(&services.memory), Owner::Queues);
        let durable = kept.is_some();
        let Stored { id, found } = kept.unwrap_or(Stored { id: 0, found: None });
        let delay = Arc::new(Self {
            id,
            exchange,
            durable,
            vhost,
            services,
            state: Mutex::new(State {
                next_seq: found.map_or(1, |found| found.next_seq.max(1)),
                count: found.map_or(0, |found| found.messages),
                closed: false,
                below: 0,
                due: VecDeque::new(),
                reading: false,
                held: BTreeMap::new(),
                held_bytes: 0,
                timer: None,
                share,
            }),
        });
        if durable {
            let waiting: Weak<Self> = Arc::downgrade(&delay);
            delay.services.directory.insert_waiting(id, waiting);
        }
        delay
    }

    /// What the store knows its messages by; `None` when they are in memory.
    pub fn id(&self) -> Option<QueueId> {
        self.durable.then_some(self.id)
    }

    /// Messages that are kept back.
    pub fn message_count(&self) -> u64 {
        self.state.lock().count
    }

    /// Keeps a message back until its deadline; returns where that is durable.
    pub fn add(self: &Arc<Self>, message: Arc<Message>) -> Lsn {
        let mut state = self.state.lock();
        if state.closed {
            return Lsn(0);
        }
        let seq = state.next_seq;
        state.next_seq += 1;
        state.count += 1;
        if self.durable {
            return self.services.store.enqueue(self.id, seq, message.meta(), message);
        }
        let due_ms = message.deadline_ms().unwrap_or_default();
        state.account(0, message.resident_bytes());
        state.held.insert((due_ms, seq), message);
        self.arm(&mut state);
        Lsn(0)
    }

    /// The part of a transaction that keeps a message back in the store; `None` when [`Delay::add`] is to be called once the
    /// transaction is durable.
    pub fn part_of_transaction(&self, message: &Arc<Message>) -> Option<TxOp> {
        let mut state = self.state.lock();
        if state.closed || !self.durable {
            return None;
        }
        let seq = state.next_seq;
        state.next_seq += 1;
        state.count += 1;
        Some(TxOp::Enqueue { queue: self.id, seq, meta: message.meta(), payload: Arc::clone(message) as _ })
    }

    /// Drops everything that is kept back; returns how many messages that were, and where it is durable.
    pub fn purge(&self) -> (u64, Lsn) {
        let mut state = self.state.lock();
        state.below = state.next_seq;
        let lsn = if self.durable { self.services.store.purge(self.id, state.below, &[]) } else { Lsn(0) };
        (Self::forget(&mut state), lsn)
    }

    /// The exchange is deleted; its messages go with it.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        Self::forget(&mut state);
    }

    fn forget(state: &mut State) -> u64 {
        state.due.clear();
        state.held.clear();
        state.timer = None;
        let held = state.held_bytes;
        state.account(held, 0);
        std::mem::take(&mut state.count)
    }

    fn arm(self: &Arc<Self>, state: &mut State) {
        let Some((due_ms, _)) = state.held.first_key_value().map(|(key, _)| *key) else {
            return;
        };
        let timer = state.timer.get_or_insert_with(|| {
            let delay: Weak<Self> = Arc::downgrade(self);
            self.services.timers.timer(delay)
        });
        timer.arm(due_ms);
    }

    /// Reads the next of those that are due. A run of consecutive messages is one read, so that order is kept and no more is
    /// in memory than that.
    fn read_next(self: &Arc<Self>) {
        let mut state = self.state.lock();
        let Some(first) = state.due.pop_front() else {
            state.reading = false;
            return;
        };
        let mut last = first;
        while last - first + 1 < READ_MESSAGES && state.due.front() == Some(&(last + 1)) {
            state.due.pop_front();
            last += 1;
        }
        drop(state);
        let range = SeqRange { first, last };
        // The store must not keep alive what keeps the store alive.
        let weak = Arc::downgrade(self);
        let done = move |batch| {
            if let Some(delay) = weak.upgrade() {
                delay.read(range, batch);
            }
        };
        let wanted = (last - first + 1) as usize;
        self.services.store.read(self.id, first, wanted, READ_BYTES, Box::new(done));
    }

    /// On the store's reader thread, with nothing held.
    fn read(self: &Arc<Self>, range: SeqRange, batch: ReadBatch) {
        // What did not fit comes with the next read; a read that got nowhere is not repeated.
        if batch.next > range.first && batch.next <= range.last && !batch.end {
            let mut state = self.state.lock();
            for seq in (batch.next..=range.last).rev() {
                state.due.push_front(seq);
            }
        }
        for seq in batch.damaged.iter().filter(|seq| range.contains(**seq)) {
            tracing::error!(exchange = %self.exchange, seq, "a delayed message is damaged and lost");
            self.settle(*seq);
        }
        let mut wakes = WakeList::default();
        for ReadMessage { seq, payload, place, .. } in batch.messages {
            if !range.contains(seq) {
                continue;
            }
            match Message::as_published(payload, place) {
                Some(message) => self.release(message, Some(seq), &mut wakes),
                None => {
                    tracing::error!(exchange = %self.exchange, seq, "a delayed message cannot be read and is lost");
                    self.settle(seq);
                }
            }
        }
        wakes.wake();
        self.services.store.kick();
        self.read_next();
    }

    /// The exchange that this belongs to, and its virtual host, while they are there.
    fn owner(&self) -> Option<(Arc<Vhost>, Arc<Exchange>)> {
        let vhost = self.vhost.get()?.upgrade()?;
        let exchange = vhost.exchange(&self.exchange)?;
        let is_ours = exchange.delay().is_some_and(|delay| std::ptr::eq(&**delay, self));
        is_ours.then_some((vhost, exchange))
    }

    /// Sends a message on its way; `seq` is its place in the store.
    fn release(&self, message: Message, seq: Option<Seq>, wakes: &mut WakeList) {
        {
            let mut state = self.state.lock();
            if state.closed {
                return;
            }
            // Purged since it was read, or while its transaction was on its way.
            if let Some(seq) = seq.filter(|seq| *seq < state.below) {
                self.services.store.settle(self.id, SeqRange::one(seq));
                return;
            }
            state.count = state.count.saturating_sub(1);
        }
        let Some((vhost, exchange)) = self.owner() else {
            return;
        };
        vhost.forward(&exchange, message, seq.map(|seq| (self.id, seq)), wakes);
    }

    fn settle(&self, seq: Seq) {
        let mut state = self.state.lock();
        state.count = state.count.saturating_sub(1);
        self.services.store.settle(self.id, SeqRange::one(seq));
    }
}

impl Waiting for Delay {
    fn due(self: Arc<Self>, seqs: Vec<Seq>) {
        let mut state = self.state.lock();
        if state.closed {
            return;
        }
        state.due.extend(seqs);
        if !std::mem::replace(&mut state.reading, true) {
            drop(state);
            self.read_next();
        }
    }
}

impl Timed for Delay {
    fn fire(self: Arc<Self>, now_ms: u64) {
        let mut due = Vec::new();
        {
            let mut state = self.state.lock();
            while let Some(first) = state.held.first_entry()
                && first.key().0 <= now_ms
            {
                let message = first.remove();
                state.account(message.resident_bytes(), 0);
                due.push(message);
            }
            let next = state.held.first_key_value().map(|((due_ms, _), _)| *due_ms);
            if let Some(timer) = &mut state.timer {
                timer.set(next);
            }
        }
        let mut wakes = WakeList::default();
        for message in due {
            let content = message.content();
            let message = Message::derived(&message, message.traits(), content.address, content.properties);
            self.release(message, None, &mut wakes);
        }
        wakes.wake();
        self.services.store.kick();
    }
}

impl Drop for Delay {
    fn drop(&mut self) {
        if self.durable {
            self.services.directory.remove_waiting(self.id);
        }
    }
}

impl std::fmt::Debug for Delay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Delay").field("id", &self.id).field("exchange", &self.exchange).finish_non_exhaustive()
    }
}
