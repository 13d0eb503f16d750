//! The classic queue: messages in order, handed out to competing consumers in turn.
//!
//! Everything happens under the queue's lock and in this order: the sequence number is assigned, the log entry is appended
//! to the store's pending buffer, the message is pushed to a consumer's outbox. So the log's order is the queue's order, and
//! no settlement can precede its message in the log.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicIsize, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::{Mutex, MutexGuard};
use storage::{Lsn, QueueId, RecoveredQueue};

use super::consumers::{Consumer, ConsumerId, Consumers};
use super::dead_letter::Dead;
use super::discard::Discarded;
use super::lanes::Lanes;
use super::moved::Append;
use super::outbox::{Outbox, Push};
use super::outcome::{Attach, Get, NotDeleted, Published};
use super::ready::Entry;
use super::signal::WakeList;
use super::timers::Timer;
use super::window::Window;
use super::{QueueSpec, Services};
use crate::model::death::Reason;
use crate::model::memory::{Owner, Share};
use crate::model::message::Message;
use crate::model::queue_arguments;

/// Messages handed to one consumer under one hold of its outbox's lock.
const PUSH_BATCH: isize = 128;

/// See the module's documentation.
pub struct Queue {
    me: Weak<Self>,
    id: QueueId,
    spec: QueueSpec,
    pub(super) services: Services,
    state: Mutex<State>,
    closed: AtomicBool,
    crashed: AtomicBool,
    /// Time for an acknowledgement, in milliseconds; 0 is for ever.
    ack_timeout_ms: AtomicU64,
    /// The keys of the messages that came lately, where duplicates are not taken.
    pub(super) window: OnceLock<Arc<Window>>,
    /// Signed: a delivery can be settled before the thread that made it has counted it.
    unacked: AtomicIsize,
}

pub(super) struct State {
    pub(super) ready: Lanes,
    pub(super) consumers: Consumers,
    pub(super) getters: VecDeque<Getter>,
    /// A read of the backlog of a level is under way.
    pub(super) reading: Option<Reading>,
    pub(super) reads: u64,
    /// What its messages in memory account for.
    share: Share,
    /// What leaves it unconsumed and goes somewhere else.
    pub(super) dead: Dead,
    /// For the earliest deadline in memory; made when there is one for the first time.
    pub(super) timer: Option<Timer>,
}

/// A read of the backlog.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Reading {
    /// Tells an answer that a purge has made worthless.
    pub(super) number: u64,
    pub(super) level: u8,
}

/// A `basic.get` that waits for the backlog.
pub(super) struct Getter {
    outbox: Arc<Outbox>,
    channel_slot: u32,
    id: u64,
    no_ack: bool,
}

/// The state under its lock. A panic while it is held leaves the queue in an unknown state: it is marked, and nothing more
/// is handed out of it until the broker restarts and rebuilds it from the store.
pub(super) struct Guard<'a> {
    state: MutexGuard<'a, State>,
    crashed: &'a AtomicBool,
}

impl std::ops::Deref for Guard<'_> {
    type Target = State;
    fn deref(&self) -> &State {
        &self.state
    }
}

impl std::ops::DerefMut for Guard<'_> {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.state
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.crashed.store(true, Ordering::Release);
        }
        let held = self.state.ready.accounted_bytes() + self.state.dead.accounted_bytes();
        self.state.share.set(held);
    }
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").field("id", &self.id).field("spec", &self.spec).finish_non_exhaustive()
    }
}

impl Queue {
    /// A new, empty queue.
    pub fn new(id: QueueId, spec: QueueSpec, services: Services) -> Arc<Self> {
        Self::recovered(id, spec, services, &[])
    }

    /// A queue found at start, with its backlog on disk: `found` is what the store has of each of its levels.
    pub fn recovered(id: QueueId, spec: QueueSpec, services: Services, found: &[RecoveredQueue]) -> Arc<Self> {
        let ready = Lanes::recovered(queue_arguments::max_priority(&spec.arguments), found);
        let consumers = Consumers::new(queue_arguments::is_single_active_consumer(&spec.arguments));
        let share = Share::new(Arc::clone(&services.memory), Owner::Queues);
        let queue = Arc::new_cyclic(|me| Self {
            me: Weak::clone(me),
            id,
            spec,
            services,
            state: Mutex::new(State {
                ready,
                consumers,
                getters: VecDeque::new(),
                reading: None,
                reads: 0,
                dead: Dead::default(),
                share,
                timer: None,
            }),
            closed: AtomicBool::new(false),
            crashed: AtomicBool::new(false),
            ack_timeout_ms: AtomicU64::new(0),
            window: OnceLock::new(),
            unacked: AtomicIsize::new(0),
        });
        queue.limit_ack_time(None);
        if queue.spec.durable {
            queue.services.directory.insert(&queue);
        }
        queue
    }

    /// Identity in the store; never reused.
    pub fn id(&self) -> QueueId {
        self.id
    }

    /// Itself, unless it is being dropped.
    pub(super) fn me(&self) -> Option<Arc<Self>> {
        self.me.upgrade()
    }

    pub(super) fn weak(&self) -> Weak<Self> {
        Weak::clone(&self.me)
    }

    /// What it was declared as.
    pub fn spec(&self) -> &QueueSpec {
        &self.spec
    }

    /// Ready messages.
    pub fn message_count(&self) -> u32 {
        let mut state = self.lock();
        self.drop_expired(&mut state);
        u32::try_from(state.ready.len()).unwrap_or(u32::MAX)
    }

    /// Consumers.
    pub fn consumer_count(&self) -> u32 {
        u32::try_from(self.lock().consumers.len()).unwrap_or(u32::MAX)
    }

    /// Deliveries that wait for an acknowledgement.
    pub fn unacked_count(&self) -> usize {
        usize::try_from(self.unacked.load(Ordering::Relaxed)).unwrap_or(0)
    }

    /// Time for an acknowledgement unless the consumer has one of its own, in milliseconds; 0 is for ever.
    pub fn ack_timeout_ms(&self) -> u64 {
        self.ack_timeout_ms.load(Ordering::Relaxed)
    }

    /// Lets deliveries from now on take as long to be acknowledged as a policy says, unless the queue's arguments say
    /// something else.
    pub fn limit_ack_time(&self, policy_ms: Option<u64>) {
        let timeout_ms = queue_arguments::consumer_timeout_ms(&self.spec.arguments).or(policy_ms);
        self.ack_timeout_ms.store(timeout_ms.unwrap_or(0), Ordering::Relaxed);
    }

    /// Whether it has been deleted.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Whether a panic has left it in an unknown state.
    pub(super) fn is_crashed(&self) -> bool {
        self.crashed.load(Ordering::Acquire)
    }

    /// Whether a publish here survives a restart.
    pub fn stores(&self, message: &Message) -> bool {
        self.spec.durable && message.is_persistent()
    }

    /// Takes a message.
    pub fn publish(self: &Arc<Self>, message: &Arc<Message>, wakes: &mut WakeList) -> Published {
        self.take(message, None, wakes)
    }

    /// Takes a message. If it is stored here, `append` puts it into the log, together with what belongs to it.
    pub(super) fn take(
        self: &Arc<Self>,
        message: &Arc<Message>,
        append: Option<Append<'_>>,
        wakes: &mut WakeList,
    ) -> Published {
        let mut state = self.lock();
        if self.is_closed() {
            return Published::Gone;
        }
        if self.is_crashed() {
            return Published::Refused;
        }
        let level = state.ready.level_for(message);
        let seq = state.ready.next_seq(level);
        let stored = self.stores(message);
        let lsn = match append {
            _ if !stored => Lsn(0),
            None => {
                let (id, at) = self.in_store(seq);
                self.services.store.enqueue(id, at, message.meta(), Arc::clone(message) as _)
            }
            Some(append) => append(self.entry_of(seq, message)),
        };
        let entry = Entry { seq, message: Arc::clone(message), redelivered: false };
        self.drop_expired(&mut state);
        let left = if !state.ready.is_empty() || state.consumers.ready() == 0 || !state.getters.is_empty() {
            Some(entry)
        } else {
            self.deliver(&mut state, entry, wakes)
        };
        match left {
            // It asked for a consumer at once (expiration 0), and there is none.
            Some(entry) if entry.message.is_expired(self.services.timers.clock()) => {
                self.discard(&mut state, Discarded::Held(vec![entry]), Reason::Expired);
            }
            Some(entry) => {
                self.keep(&mut state, entry, stored);
                if state.ready.has_levels() && (state.consumers.ready() > 0 || !state.getters.is_empty()) {
                    // Those before it wait for the disk; it may be due before them.
                    self.pump(&mut state, wakes);
                } else {
                    self.arm(&mut state);
                }
            }
            None => {}
        }
        Published::Taken(lsn)
    }

    /// Offers one message to the consumers in turn; gives it back when none has credit.
    fn deliver(&self, state: &mut State, entry: Entry, wakes: &mut WakeList) -> Option<Entry> {
        let mut entry = Some(entry);
        while let Some(consumer) = state.consumers.next() {
            let push = consumer.outbox.lock().deliver(consumer, &mut entry);
            match push {
                Push::Refused => state.consumers.park(),
                sent => {
                    if sent == Push::SentWake {
                        wakes.push(consumer.outbox.signal());
                    }
                    self.unacked.fetch_add(1, Ordering::Relaxed);
                    state.consumers.rotate();
                    return None;
                }
            }
        }
        entry
    }

    /// Hands out what is ready, and reads ahead when memory runs low.
    pub(super) fn pump(self: &Arc<Self>, state: &mut State, wakes: &mut WakeList) {
        if self.is_crashed() {
            Self::answer_empty(state);
            return;
        }
        self.drop_expired(state);
        while state.ready.has_front() && !state.getters.is_empty() {
            self.answer_getter(state);
        }
        while state.ready.has_front()
            && let Some(consumer) = state.consumers.next().cloned()
        {
            let most = if state.consumers.next_is_alone() { PUSH_BATCH } else { 1 };
            match self.push(state, &consumer, most, wakes) {
                Push::Refused => state.consumers.park(),
                _ => state.consumers.rotate(),
            }
        }
        self.read_ahead(state);
        if state.ready.is_empty() {
            Self::answer_empty(state);
        }
        self.arm(state);
    }

    /// Hands up to `most` messages to one consumer under one hold of its outbox.
    fn push(&self, state: &mut State, consumer: &Consumer, most: isize, wakes: &mut WakeList) -> Push {
        let mut outbox = consumer.outbox.lock();
        let mut sent = 0;
        let mut last = Push::Sent;
        while sent < most {
            let mut entry = state.ready.pop();
            if entry.is_none() {
                break;
            }
            last = outbox.deliver(consumer, &mut entry);
            match last {
                Push::Refused => {
                    if let Some(entry) = entry {
                        state.ready.insert(entry);
                    }
                    break;
                }
                Push::SentWake => wakes.push(consumer.outbox.signal()),
                Push::Sent => {}
            }
            sent += 1;
        }
        drop(outbox);
        self.unacked.fetch_add(sent, Ordering::Relaxed);
        last
    }

    fn answer_empty(state: &mut State) {
        for getter in state.getters.drain(..) {
            getter.outbox.resolve_empty(getter.channel_slot, getter.id);
        }
    }

    fn answer_getter(self: &Arc<Self>, state: &mut State) {
        let Some(getter) = state.getters.pop_front() else {
            return;
        };
        let Some(entry) = state.ready.pop() else {
            state.getters.push_front(getter);
            return;
        };
        let remaining = u32::try_from(state.ready.len()).unwrap_or(u32::MAX);
        let refused = getter.outbox.resolve_get(getter.channel_slot, getter.id, self, entry, remaining, getter.no_ack);
        match refused {
            Some(entry) => state.ready.insert(entry),
            None => {
                self.unacked.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Takes the next message for a client that asks for it.
    pub fn get(self: &Arc<Self>, outbox: &Arc<Outbox>, channel_slot: u32, no_ack: bool) -> Get {
        let mut state = self.lock();
        self.drop_expired(&mut state);
        if state.ready.is_empty() || self.is_closed() || self.is_crashed() {
            return Get::Empty;
        }
        if let Some(entry) = state.ready.pop() {
            let remaining = u32::try_from(state.ready.len()).unwrap_or(u32::MAX);
            self.unacked.fetch_add(1, Ordering::Relaxed);
            outbox.push_got(channel_slot, self, entry, remaining, no_ack);
            return Get::Answered;
        }
        let Some(id) = outbox.reserve_get(channel_slot) else {
            return Get::Empty;
        };
        state.getters.push_back(Getter { outbox: Arc::clone(outbox), channel_slot, id, no_ack });
        self.read_ahead(&mut state);
        Get::Answered
    }

    /// Adds a consumer. `announce` is called once it is clear that the consumer is taken and before anything is pushed to
    /// it: consume-ok comes before the first delivery.
    pub fn attach(self: &Arc<Self>, consumer: Consumer, announce: impl FnOnce(), wakes: &mut WakeList) -> Attach {
        let mut state = self.lock();
        if self.is_closed() {
            return Attach::Gone;
        }
        if state.consumers.forbid(consumer.exclusive) {
            return Attach::ExclusiveUse;
        }
        announce();
        state.consumers.add(Arc::new(consumer));
        self.pump(&mut state, wakes);
        Attach::Attached
    }

    /// Removes a consumer; true when it was the last one, which ends an auto-delete queue. If it was the only active one,
    /// no other takes its place before [`Queue::hand_over`]: what the first has to give back comes before.
    pub fn detach(&self, id: ConsumerId) -> bool {
        let mut state = self.lock();
        state.consumers.remove(id).is_some() && state.consumers.is_empty()
    }

    /// Lets another consumer take the place of the active one that was removed, where there can only be one.
    pub fn hand_over(self: &Arc<Self>, gone: ConsumerId, wakes: &mut WakeList) {
        if !queue_arguments::is_single_active_consumer(&self.spec.arguments) {
            return;
        }
        let mut state = self.lock();
        if state.consumers.replace(gone) && !self.is_closed() {
            self.pump(&mut state, wakes);
        }
    }

    /// A consumer that was refused has credit again.
    pub fn resume(self: &Arc<Self>, id: ConsumerId, wakes: &mut WakeList) {
        let mut state = self.lock();
        state.consumers.resume(id);
        self.pump(&mut state, wakes);
    }

    /// A consumer has to wait until all others of its priority had their turn.
    pub fn defer(&self, id: ConsumerId) {
        self.lock().consumers.defer(id);
    }

    /// Puts messages back at their positions; `entries` ascend. All of them under one hold of the lock: a message that went
    /// out in between would overtake those that are still to come.
    pub fn requeue(self: &Arc<Self>, entries: Vec<Entry>, wakes: &mut WakeList) {
        self.forget_unacked(entries.len());
        let mut state = self.lock();
        if self.is_closed() {
            return;
        }
        state.ready.insert_all(entries);
        self.pump(&mut state, wakes);
    }

    /// That many deliveries are settled or on their way back.
    pub fn forget_unacked(&self, messages: usize) {
        self.unacked.fetch_sub(messages as isize, Ordering::Relaxed);
    }

    /// Drops the ready messages; returns how many, and the position at which that is durable.
    pub fn purge(&self) -> (u32, Lsn) {
        let mut state = self.lock();
        state.reading = None;
        let (count, ranges) = state.ready.clear();
        self.forget_spilled(&state);
        let lsn = self.store_settled(&ranges);
        Self::answer_empty(&mut state);
        (u32::try_from(count).unwrap_or(u32::MAX), lsn)
    }

    /// Deletes it unless a condition forbids it: publishes after that are [`Published::Gone`], its messages are dropped and
    /// its consumers are told. Returns the ready messages dropped.
    pub fn close(&self, if_unused: bool, if_empty: bool) -> Result<u32, NotDeleted> {
        let mut state = self.lock();
        if self.is_closed() {
            return Err(NotDeleted::AlreadyClosed);
        }
        self.drop_expired(&mut state);
        if if_empty && !state.ready.is_empty() {
            return Err(NotDeleted::NotEmpty);
        }
        if if_unused && !state.consumers.is_empty() {
            return Err(NotDeleted::InUse);
        }
        self.closed.store(true, Ordering::Release);
        state.reading = None;
        state.timer = None;
        let (count, _) = state.ready.clear();
        self.forget_spilled(&state);
        let consumers = state.consumers.take();
        Self::answer_empty(&mut state);
        drop(state);
        for consumer in consumers {
            consumer.outbox.cancel_by_server(consumer.slot, consumer.id);
        }
        Ok(u32::try_from(count).unwrap_or(u32::MAX))
    }

    pub(super) fn lock(&self) -> Guard<'_> {
        Guard { state: self.state.lock(), crashed: &self.crashed }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        if self.spec.durable {
            self.services.directory.remove(self);
        }
    }
}
