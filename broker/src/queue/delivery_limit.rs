//! Queues that count how often a message is handed out, and give up one that comes back in vain too often.
//!
//! The store is told both, that a message is out and that it is back: so a broker that ended with a message out counts it as
//! come back in vain when it starts again ([`Tally::recovered`]).

use std::sync::atomic::{AtomicU32, Ordering};

use smallvec::SmallVec;
use storage::{QueueId, ReadBatch, Seq, SeqRange};

use super::classic::{Queue, State};
use super::discard::Discarded;
use super::ready::Entry;
use super::tally::Tally;
use crate::model::death::Reason;
use crate::model::delivery_arguments::delivery_limit;
use crate::model::queue_kind::QueueKind;

/// How a delivery comes back to its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Return {
    /// Its consumer gave it back, or had it for too long.
    Unharmed,
    /// It was rejected, or its channel or connection ended.
    InVain,
}

/// Whether a queue counts, and what it does with the count.
#[derive(Debug)]
pub(super) struct Counting {
    kind: QueueKind,
    /// How often a message may come back in vain.
    limit: AtomicU32,
}

impl Counting {
    pub(super) fn new(kind: QueueKind) -> Self {
        Self { kind, limit: AtomicU32::new(u32::MAX) }
    }
}

/// Tallies that the store is to be told, by runs of the same one.
#[derive(Default)]
pub(super) struct Told(SmallVec<[Run; 2]>);

struct Run {
    tally: u32,
    queue: QueueId,
    ranges: SmallVec<[SeqRange; 2]>,
}

impl Queue {
    /// The kind it was declared as.
    pub fn kind(&self) -> QueueKind {
        self.counting().kind
    }

    /// Whether it counts how often a message is handed out.
    pub fn counts_deliveries(&self) -> bool {
        self.kind() == QueueKind::Quorum
    }

    /// How often a message may come back in vain; `None` is any number of times, also for a limit that no count reaches.
    pub fn delivery_limit(&self) -> Option<u32> {
        Some(self.counting().limit.load(Ordering::Relaxed)).filter(|limit| *limit < Tally::FAILED_MAX)
    }

    /// From now on messages may come back in vain as often as the arguments and this limit of the policies say.
    pub fn limit_deliveries(&self, policy: Option<i64>) {
        let limit = delivery_limit(&self.spec().arguments, policy).and_then(|limit| u32::try_from(limit).ok());
        self.counting().limit.store(limit.unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    fn is_over_limit(&self, tally: Tally) -> bool {
        self.delivery_limit().is_some_and(|limit| tally.failed() > limit)
    }

    /// A message with this tally is out.
    pub(super) fn tell_out(&self, told: &mut Told, seq: Seq, tally: Tally) {
        self.tell(told, seq, tally.out());
    }

    fn tell(&self, told: &mut Told, seq: Seq, tally: u32) {
        let (queue, seq) = self.in_store(seq);
        let ranges = match told.0.last_mut() {
            Some(run) if (run.tally, run.queue) == (tally, queue) => &mut run.ranges,
            _ => {
                told.0.push(Run { tally, queue, ranges: SmallVec::from_elem(SeqRange::one(seq), 1) });
                return;
            }
        };
        match ranges.last_mut() {
            Some(range) if range.last + 1 == seq => range.last = seq,
            _ => ranges.push(SeqRange::one(seq)),
        }
    }

    /// Hands what has been gathered to the store. Called under the queue's lock and with no outbox locked.
    pub(super) fn log_told(&self, told: Told) {
        for Run { tally, queue, ranges } in told.0 {
            self.services.store.requeue(queue, &ranges, tally);
        }
    }

    /// Notes a message that somebody asked for and has got.
    pub(super) fn log_got(&self, seq: Seq, tally: Tally, no_ack: bool) {
        if self.counts_deliveries() && !no_ack {
            self.log_out(seq, tally);
        }
    }

    /// Notes one message that is out.
    pub(super) fn log_out(&self, seq: Seq, tally: Tally) {
        let mut told = Told::default();
        self.tell_out(&mut told, seq, tally);
        self.log_told(told);
    }

    /// Gives up those of the messages that came back too often; the others may be handed out again.
    pub(super) fn give_up(&self, state: &mut State, entries: Vec<Entry>) -> Vec<Entry> {
        if !self.counts_deliveries() {
            return entries;
        }
        let (gone, back): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| self.is_over_limit(entry.tally));
        let mut told = Told::default();
        for entry in back.iter().filter(|entry| !entry.tally.is_none()) {
            self.tell(&mut told, entry.seq, entry.tally.to_stored());
        }
        self.log_told(told);
        if !gone.is_empty() {
            self.discard(state, Discarded::Held(gone), Reason::DeliveryLimit);
        }
        back
    }

    /// Gives up those messages of a read that were out too often when the broker ended.
    pub(super) fn give_up_read(&self, state: &mut State, level: u8, batch: &ReadBatch) {
        if !self.counts_deliveries() {
            return;
        }
        let is_over = |count| self.is_over_limit(Tally::recovered(count));
        let over = batch.messages.iter().filter(|read| is_over(read.meta.delivery_count));
        let named: Vec<Seq> = over.map(|read| read.seq).collect();
        if !named.is_empty() {
            let taken = state.ready.take_stored(level, &named, true);
            self.discard(state, Discarded::Stored(taken), Reason::DeliveryLimit);
        }
    }
}
