//! The classic queue: messages in order, handed out to competing consumers in turn.
//!
//! Everything happens under the queue's lock and in this order: the sequence number is assigned, the log entry is appended
//! to the store's pending buffer, the message is pushed to a consumer's outbox. So the log's order is the queue's order, and
//! no settlement can precede its message in the log.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicIsize, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::{Mutex, MutexGuard};
use storage::{Lsn, QueueId, RecoveredQueue};

use super::consumers::{Consumer, ConsumerId, Consumers};
use super::dead_letter::Dead;
use super::delivery_limit::Counting;
use super::discard::Discarded;
use super::dispatch::Getter;
use super::lanes::Lanes;
use super::lifetime::Lifetime;
use super::limits::{self, Reserved};
use super::moved::Append;
use super::outcome::{Attach, NotDeleted, Published};
use super::ready::Entry;
use super::settings::QueueSettings;
use super::signal::WakeList;
use super::timers::Timer;
use super::window::Window;
use super::{QueueSpec, Services};
use crate::model::death::Reason;
use crate::model::memory::{Owner, Share};
use crate::model::message::Message;
use crate::model::queue_arguments;
use crate::model::queue_kind::QueueKind;
use crate::model::statistics::{MessageCounters, messages};

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
    counting: Counting,
    /// The keys of the messages that came lately, where duplicates are not taken.
    pub(super) window: OnceLock<Arc<Window>>,
    /// Signed: a delivery can be settled before the thread that made it has counted it.
    pub(super) unacked: AtomicIsize,
    /// Of the settings, for those who do not hold the lock.
    pub(super) message_ttl_ms: AtomicU64,
    /// Deliveries acknowledged.
    pub(super) acked: AtomicU64,
    /// The second in which the counters were last looked at.
    pub(super) turned: AtomicU32,
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
    /// What holds for it.
    pub(super) settings: QueueSettings,
    pub(super) lifetime: Lifetime,
    /// Messages are being read in order to know how large they are.
    pub(super) is_measuring: bool,
    /// What transactions are about to put into it.
    pub(super) reserved: Reserved,
    /// For the earliest deadline in memory; made when there is one for the first time.
    pub(super) timer: Option<Timer>,
    pub(super) counters: MessageCounters,
}

/// A read of the backlog.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Reading {
    /// Tells an answer that a purge has made worthless.
    pub(super) number: u64,
    pub(super) level: u8,
}

/// The state under its lock. A panic while it is held leaves the queue in an unknown state: it is marked, and nothing more
/// is handed out of it until the broker restarts and rebuilds it from the store.
pub(super) struct Guard<'a> {
    state: MutexGuard<'a, State>,
    crashed: &'a AtomicBool,
    /// Somebody else's panic is being cleared up after: this queue is only told that its consumers are gone.
    was_panicking: bool,
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
        if !self.was_panicking && std::thread::panicking() {
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
        let ready = Lanes::of(&spec.arguments).recovered(found);
        let counting = Counting::new(QueueKind::of(&spec.arguments));
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
                settings: QueueSettings::default(),
                lifetime: Lifetime::default(),
                is_measuring: false,
                reserved: Reserved::default(),
                timer: None,
                counters: MessageCounters::default(),
            }),
            closed: AtomicBool::new(false),
            crashed: AtomicBool::new(false),
            ack_timeout_ms: AtomicU64::new(0),
            counting,
            window: OnceLock::new(),
            unacked: AtomicIsize::new(0),
            message_ttl_ms: AtomicU64::new(limits::NO_TTL),
            acked: AtomicU64::new(0),
            turned: AtomicU32::new(0),
        });
        queue.limit_ack_time(None);
        queue.limit_deliveries(None);
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

    pub(super) fn counting(&self) -> &Counting {
        &self.counting
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

    /// Octets of the bodies of ready messages. Those found at start count once they have been read.
    pub fn body_bytes(&self) -> u64 {
        self.lock().ready.body_bytes()
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
        self.spec.durable && (message.is_persistent() || self.counts_deliveries())
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
        self.drop_expired(&mut state);
        if self.has_no_room(&state, message) {
            let overflow = state.settings.overflow;
            drop(state);
            self.refuse(message, overflow);
            return Published::Refused;
        }
        let own;
        let message = match self.earlier_deadline(message) {
            Some(deadline_ms) => {
                own = Arc::new(Message::expiring(message, deadline_ms));
                &own
            }
            None => message,
        };
        state.counters.add(messages::PUBLISH, 1);
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
        let entry = Entry::new(seq, Arc::clone(message));
        let left = if !state.ready.is_empty() || state.consumers.ready() == 0 || !state.getters.is_empty() {
            Some(entry)
        } else {
            self.deliver(&mut state, entry, wakes)
        };
        match left {
            // It asked for a consumer at once (expiration 0), and there is none.
            Some(entry)
                if entry.message.is_expired(self.services.timers.clock())
                    && (state.ready.is_empty() || !state.settings.expires_at_head) =>
            {
                self.discard(&mut state, Discarded::Held(vec![entry]), Reason::Expired);
            }
            Some(entry) => {
                self.keep(&mut state, entry, stored);
                // Those before it wait for the disk; it may be due before them.
                let may_overtake =
                    state.ready.has_levels() && (state.consumers.ready() > 0 || !state.getters.is_empty());
                if may_overtake || self.is_over_full(&state) {
                    self.pump(&mut state, wakes);
                } else {
                    self.arm(&mut state);
                }
            }
            None => {}
        }
        Published::Taken(lsn)
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
        let was_last = state.consumers.remove(id).is_some() && state.consumers.is_empty();
        if was_last {
            self.used(&mut state);
        }
        was_last
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
        let entries = self.give_up(&mut state, entries);
        state.ready.insert_all(entries);
        // What has no time left takes no room either.
        self.drop_expired(&mut state);
        self.drop_head(&mut state);
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
        state.lifetime.end();
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
        let mut state = self.state.lock();
        self.turn_counters(&mut state);
        Guard { state, crashed: &self.crashed, was_panicking: std::thread::panicking() }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        if self.spec.durable {
            self.services.directory.remove(self);
        }
    }
}
