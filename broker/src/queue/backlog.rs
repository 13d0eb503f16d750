//! The backlog of a queue: what memory has no room for goes to disk and comes back ahead of its turn.
//!
//! There are two places for it. The store has the messages that survive; they are there in any case. The spill has the others,
//! only while memory has no room. `ready.rs` keeps the two in order.

use std::sync::Arc;

use storage::{Listed, QueueId, ReadBatch, Seq, SeqRange, SpillBatch};

use super::classic::{Queue, Reading, State};
use super::discard::Discarded;
use super::lanes;
use super::ready::{Entry, Wanted};
use super::signal::WakeList;
use crate::model::death::Reason;

/// When fewer messages than this are in memory, the next batch of the backlog is read.
const READ_AHEAD_MESSAGES: usize = 1024;
/// One read of the backlog. The list of so many takes less than 64 KiB, above which the allocator is generous with pages.
const READ_MESSAGES: usize = 768;
const READ_BYTES: usize = 2 << 20;
/// One read of the spill, which is far more than it writes at once: a consumer that has fallen behind catches up, and then the
/// disk is needed no longer.
const SPILLED_MESSAGES: usize = 4096;
/// Positions of the backlog that are asked for at once.
const LIST_MESSAGES: usize = 8192;
/// What a queue keeps in memory while all queues together take too much.
const SHORT_BYTES: usize = 64 * 1024;

impl Queue {
    /// Keeps a message that no consumer has taken, in memory or on disk. `stored`: the store has it.
    pub(super) fn keep(&self, state: &mut State, entry: Entry, stored: bool) {
        let services = &self.services;
        // What may have to go from the head, or at its time, goes without a delay only if it is in memory.
        let stays = entry.message.deadline_ms().is_none() && !state.settings.is_limited();
        let most = if services.memory.queues_are_full() {
            SHORT_BYTES
        } else if stored && stays && state.consumers.is_empty() {
            services.unwatched_max_bytes
        } else {
            services.resident_max_bytes
        };
        let max = most.min(services.resident_max_bytes);
        if let Some(Entry { seq, message, redelivered, .. }) = state.ready.push(entry, stored, max) {
            let (id, at) = self.in_store(seq);
            services.store.spill().push(id, at, message.meta(), redelivered, message);
        }
    }

    /// Starts a read of the backlog when somebody wants messages, or the oldest have to go, and few are left in memory.
    pub(super) fn read_ahead(self: &Arc<Self>, state: &mut State) {
        let wanted = !state.consumers.is_empty() || !state.getters.is_empty();
        // What has expired in the spill comes out of it in its turn only.
        let has_dead = state.dead.is_wanted() && state.ready.has_expired_spilled();
        // Nor is it known of the first message whether its time is over.
        let has_hidden_head = state.settings.expires_at_head && !state.ready.has_front();
        if state.reading.is_some() || !(wanted || has_dead || has_hidden_head || self.is_over_full(state)) {
            return;
        }
        let resident_max_bytes = self.services.resident_max_bytes;
        let Some((level, wanted)) = state.ready.wants(READ_AHEAD_MESSAGES, resident_max_bytes / 2) else {
            return;
        };
        // Messages of other levels may fill the memory, and stay there until it is their turn.
        let max_bytes = if state.ready.bytes() < resident_max_bytes { READ_BYTES } else { SHORT_BYTES };
        state.reads += 1;
        let reading = Reading { number: state.reads, level };
        state.reading = Some(reading);
        let id = lanes::id_of(self.id(), level);
        let queue = Arc::clone(self);
        let store = &self.services.store;
        match wanted {
            Wanted::Stored { next, end } if self.drops_unread(state) => {
                let done = move |listed| queue.listed(reading, listed, end);
                store.list(id, next, LIST_MESSAGES, Box::new(done));
            }
            Wanted::Stored { next, end } => {
                let done = move |batch| queue.loaded(id, reading, batch, end);
                store.read(id, next, READ_MESSAGES, max_bytes, Box::new(done));
            }
            Wanted::Spilled { messages } => {
                let done = move |batch| queue.loaded_spilled(reading, batch, messages);
                store.spill().take(id, SPILLED_MESSAGES, max_bytes, Box::new(done));
            }
        }
    }

    /// Reads messages found at start in order to know how large they are, when that matters and nobody is at it.
    pub(super) fn measure(self: &Arc<Self>, state: &mut State) {
        if state.is_measuring || state.settings.max_length_bytes.is_none() {
            return;
        }
        let Some((level, from)) = state.ready.unmeasured() else {
            return;
        };
        state.is_measuring = true;
        let queue = Arc::clone(self);
        let done = move |batch| queue.measured(level, from, batch);
        self.services.store.read(lanes::id_of(self.id(), level), from, READ_MESSAGES, READ_BYTES, Box::new(done));
    }

    /// The answer of the store, on a thread of it.
    fn measured(self: &Arc<Self>, level: u8, from: Seq, batch: ReadBatch) {
        let mut wakes = WakeList::default();
        let mut state = self.lock();
        state.is_measuring = false;
        if !self.is_closed() {
            state.ready.measured(level, from, batch);
            self.measure(&mut state);
            self.pump(&mut state, &mut wakes);
        }
    }

    /// The answer of the store, on a thread of it.
    fn loaded(self: &Arc<Self>, id: QueueId, reading: Reading, batch: ReadBatch, end: Seq) {
        let damaged = batch.damaged.clone();
        let lost = self.take_over(reading, |state| {
            self.give_up_read(state, reading.level, &batch);
            state.ready.loaded(reading.level, batch, end)
        });
        if lost > 0 {
            for seq in damaged {
                self.services.store.settle(id, SeqRange::one(seq));
            }
        }
    }

    /// The answer of the store about messages that are to be dropped, on a thread of it.
    fn listed(self: &Arc<Self>, reading: Reading, listed: Listed, end: Seq) {
        self.take_over(reading, |state| state.ready.listed(reading.level, listed, end));
    }

    /// The answer of the spill, on its thread, which had at least `messages` when it was asked.
    fn loaded_spilled(self: &Arc<Self>, reading: Reading, batch: SpillBatch, messages: u64) {
        self.take_over(reading, |state| {
            let mut expired = Vec::new();
            let lost = state.ready.loaded_spilled(reading.level, batch, messages, &mut expired);
            if state.dead.is_wanted() && !expired.is_empty() {
                self.discard(state, Discarded::Held(expired), Reason::Expired);
            }
            lost
        });
    }

    /// Takes over what was read, unless a purge has made it worthless; returns the messages that are lost.
    fn take_over(self: &Arc<Self>, reading: Reading, take: impl FnOnce(&mut State) -> u64) -> u64 {
        let mut wakes = WakeList::default();
        let mut state = self.lock();
        if state.reading != Some(reading) {
            return 0;
        }
        state.reading = None;
        if self.is_closed() {
            return 0;
        }
        let lost = take(&mut state);
        self.pump(&mut state, &mut wakes);
        drop(state);
        if lost > 0 {
            tracing::error!(
                queue = %self.spec().name, vhost = %self.spec().vhost, messages = lost,
                "messages of the backlog could not be read from disk and are skipped"
            );
        }
        lost
    }
}
