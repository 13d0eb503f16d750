//! Messages on their way out of a queue that dead-letters them.
//!
//! They are handed over under the queue's lock and moved on with nothing locked: never two queues at once. Each queue has one
//! line of them, and whoever moves them has taken the queue off the list of those that wait ([`DeadLetters`]), so that
//! nobody overtakes anybody. What the store has stays in the store until it is moved, and only its position is kept here
//! once much is waiting.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use storage::{ReadBatch, Seq, SeqRange};
use tokio::sync::Notify;

use super::classic::{Queue, State};
use super::discard::Discarded;
use super::lanes;
use super::ready::ranges;
use super::timers::{Timed, Timer};
use crate::model::death::Reason;
use crate::model::message::Message;

/// Octets of messages that one line keeps in memory although the store has them.
const RESIDENT_MAX_BYTES: usize = 1 << 20;
/// One read of messages that are on disk.
const READ_MESSAGES: u64 = 512;
const READ_BYTES: usize = 1 << 20;
/// A message that must not be lost and that nobody takes is tried again after this time.
const RETRY_MS: u64 = 5_000;

/// Where a queue's dead letters go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetterTo {
    /// The exchange.
    pub exchange: Arc<str>,
    /// The key they get instead of their own.
    pub routing_key: Option<Arc<str>>,
    /// They stay until somebody takes them.
    pub at_least_once: bool,
}

/// A message that is dead-lettered.
pub struct DeadMessage {
    /// Its position, if the store has it.
    pub stored: Option<Seq>,
    /// The message.
    pub message: Arc<Message>,
    /// Why it goes.
    pub reason: Reason,
}

enum Item {
    Held(DeadMessage),
    Stored(SeqRange, Reason),
}

/// The line of one queue.
#[derive(Default)]
pub(super) struct Dead {
    to: Option<Arc<DeadLetterTo>>,
    /// In an allocation of its own: most queues have none.
    line: Option<Box<Line>>,
}

#[derive(Default)]
struct Line {
    items: VecDeque<Item>,
    /// What nobody took, until its next try.
    refused: Vec<Item>,
    /// Octets of messages in memory.
    bytes: usize,
    /// It is on the list, or somebody is at it.
    busy: bool,
    retry: Option<(Arc<Retry>, Timer)>,
}

/// What is next in a line.
pub enum Taken {
    /// These messages. The line waits for [`Queue::moved_dead`].
    Messages(Vec<DeadMessage>),
    /// Messages are being read; the queue lists itself again.
    Reading,
    /// Nothing more.
    Nothing,
}

impl Dead {
    /// Whether messages that die here go somewhere.
    pub(super) fn is_wanted(&self) -> bool {
        self.to.is_some()
    }

    /// What its messages in memory account for.
    pub(super) fn accounted_bytes(&self) -> usize {
        self.line.as_ref().map_or(0, |line| line.bytes)
    }
}

impl Line {
    /// Adds a message; one that the store has is not kept in memory when there are too many.
    fn add(&mut self, dead: DeadMessage) {
        match dead.stored {
            Some(seq) if self.bytes >= RESIDENT_MAX_BYTES => {
                push_stored(&mut self.items, SeqRange::one(seq), dead.reason)
            }
            _ => {
                self.bytes += dead.message.accounted_bytes();
                self.items.push_back(Item::Held(dead));
            }
        }
    }
}

fn push_stored(items: &mut VecDeque<Item>, range: SeqRange, reason: Reason) {
    match items.back_mut() {
        Some(Item::Stored(last, for_reason)) if last.last + 1 == range.first && *for_reason == reason => {
            last.last = range.last;
        }
        _ => items.push_back(Item::Stored(range, reason)),
    }
}

impl Queue {
    /// Where its dead letters go from now on.
    pub fn set_dead_letter_to(&self, to: Option<Arc<DeadLetterTo>>) {
        self.lock().dead.to = to;
    }

    /// Where its dead letters go.
    pub fn dead_letter_to(&self) -> Option<Arc<DeadLetterTo>> {
        self.lock().dead.to.clone()
    }

    /// Puts messages into the line.
    pub(super) fn line_up(&self, state: &mut State, discarded: Discarded, reason: Reason) {
        let line = state.dead.line.get_or_insert_default();
        match discarded {
            Discarded::Held(entries) => {
                for entry in entries {
                    let stored = self.stores(&entry.message).then_some(entry.seq);
                    line.add(DeadMessage { stored, message: entry.message, reason });
                }
            }
            Discarded::Stored(seqs) => {
                for range in ranges(seqs.into_iter()) {
                    push_stored(&mut line.items, range, reason);
                }
            }
        }
        self.list_dead(line);
    }

    /// Dead-letters a message that the queue did not even take.
    pub fn dead_letter_refused(&self, message: &Arc<Message>, reason: Reason) {
        let mut state = self.lock();
        if state.dead.is_wanted() {
            let line = state.dead.line.get_or_insert_default();
            line.add(DeadMessage { stored: None, message: Arc::clone(message), reason });
            self.list_dead(line);
        }
    }

    fn list_dead(&self, line: &mut Line) {
        if !line.items.is_empty()
            && !line.busy
            && let Some(queue) = self.me()
        {
            line.busy = true;
            self.services.dead_letters.push(queue);
        }
    }

    /// Takes the next messages out of the line, `most` at a time. For whoever has taken the queue off the list.
    pub fn take_dead(self: &Arc<Self>, most: usize) -> Taken {
        let mut state = self.lock();
        let Some(line) = &mut state.dead.line else {
            return Taken::Nothing;
        };
        let mut taken = Vec::new();
        while taken.len() < most
            && let Some(Item::Held(_)) = line.items.front()
            && let Some(Item::Held(dead)) = line.items.pop_front()
        {
            line.bytes = line.bytes.saturating_sub(dead.message.accounted_bytes());
            taken.push(dead);
        }
        if !taken.is_empty() {
            return Taken::Messages(taken);
        }
        let Some(Item::Stored(range, reason)) = line.items.pop_front() else {
            line.busy = false;
            return Taken::Nothing;
        };
        let now = SeqRange { first: range.first, last: range.last.min(range.first + READ_MESSAGES - 1) };
        if now.last < range.last {
            line.items.push_front(Item::Stored(SeqRange { first: now.last + 1, ..range }, reason));
        }
        let queue = Arc::clone(self);
        let messages = (now.last - now.first + 1) as usize;
        let (id, first) = self.in_store(now.first);
        let done = move |batch| queue.read_dead(batch, now, reason);
        self.services.store.read(id, first, messages, READ_BYTES, Box::new(done));
        Taken::Reading
    }

    /// The answer of the store, on a thread of it.
    fn read_dead(&self, mut batch: ReadBatch, range: SeqRange, reason: Reason) {
        lanes::as_positions(range.first, &mut batch);
        let mut state = self.lock();
        let Some(line) = &mut state.dead.line else {
            return;
        };
        if !batch.end && batch.next > range.first && batch.next <= range.last {
            line.items.push_front(Item::Stored(SeqRange { first: batch.next, ..range }, reason));
        }
        let lost: Vec<Seq> = batch.damaged.iter().copied().filter(|seq| range.contains(*seq)).collect();
        for read in batch.messages.into_iter().rev().filter(|read| range.contains(read.seq)) {
            if let Some(message) = Message::from_stored(read.payload, read.place, read.meta.deadline_ms) {
                line.bytes += message.accounted_bytes();
                let dead = DeadMessage { stored: Some(read.seq), message: Arc::new(message), reason };
                line.items.push_front(Item::Held(dead));
            }
        }
        // Whoever takes it off the list finds that there is nothing, if so.
        if let Some(queue) = self.me() {
            self.services.dead_letters.push(queue);
        }
        drop(state);
        if !lost.is_empty() {
            tracing::error!(
                queue = %self.spec().name, vhost = %self.spec().vhost, messages = lost.len(),
                "dead letters could not be read from disk and are lost"
            );
            self.store_settled(&ranges(lost.into_iter()));
        }
    }

    /// The messages taken have been moved, but for those that nobody took and that must not be lost.
    pub fn moved_dead(&self, refused: Vec<DeadMessage>) {
        let mut state = self.lock();
        let retries_at_ms = self.services.timers.clock().now_ms().saturating_add(RETRY_MS);
        let Some(line) = &mut state.dead.line else {
            return;
        };
        if !refused.is_empty() {
            for dead in refused {
                line.refused.push(match dead.stored {
                    Some(seq) => Item::Stored(SeqRange::one(seq), dead.reason),
                    None => {
                        line.bytes += dead.message.accounted_bytes();
                        Item::Held(dead)
                    }
                });
            }
            let (_, timer) = line.retry.get_or_insert_with(|| {
                let retry = Arc::new(Retry(self.weak()));
                let weak = Arc::downgrade(&retry);
                let timer = self.services.timers.timer(weak);
                (retry, timer)
            });
            timer.arm(retries_at_ms);
        }
        line.busy = false;
        self.list_dead(line);
    }
}

/// Calls a queue when it is time to try again what nobody took.
struct Retry(Weak<Queue>);

impl Timed for Retry {
    fn fire(self: Arc<Self>, _: u64) {
        let Some(queue) = self.0.upgrade() else {
            return;
        };
        let mut state = queue.lock();
        if let Some(line) = &mut state.dead.line {
            if let Some((_, timer)) = &mut line.retry {
                timer.set(None);
            }
            for item in std::mem::take(&mut line.refused) {
                match item {
                    Item::Stored(range, reason) => push_stored(&mut line.items, range, reason),
                    Item::Held(_) => line.items.push_back(item),
                }
            }
            queue.list_dead(line);
        }
    }
}

/// The queues of a node that have dead letters to be moved.
#[derive(Default)]
pub struct DeadLetters {
    queues: Mutex<VecDeque<Arc<Queue>>>,
    waiting: AtomicUsize,
    came: Notify,
}

impl DeadLetters {
    fn push(&self, queue: Arc<Queue>) {
        {
            let mut queues = self.queues.lock();
            queues.push_back(queue);
            self.waiting.store(queues.len(), Ordering::Release);
        }
        self.came.notify_one();
    }

    /// The next queue, which nobody else works at until [`Queue::moved_dead`].
    pub fn pop(&self) -> Option<Arc<Queue>> {
        let mut queues = self.queues.lock();
        let queue = queues.pop_front();
        self.waiting.store(queues.len(), Ordering::Release);
        queue
    }

    /// Whether a queue waits.
    pub fn is_waiting(&self) -> bool {
        self.waiting.load(Ordering::Acquire) > 0
    }

    /// Waits until a queue comes.
    pub async fn came(&self) {
        self.came.notified().await;
    }
}
