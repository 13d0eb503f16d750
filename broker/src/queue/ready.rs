//! The ready messages of one queue, in order: the front in memory, the rest of a deep backlog on disk.
//!
//! `front` holds entries whose sequence numbers are all below those of `backlog`. Messages are delivered from the front only,
//! so whatever comes back by a requeue is older than the backlog and finds its place in the front. A message whose time is
//! over leaves from wherever it is.
//!
//! A backlog is in up to three places: the store, the spill, and memory (`resident`). The store and the spill are each read in
//! order; a message comes to the front when neither can have an older one.

mod deep;
mod entry;
mod measure;
mod skip;

use std::collections::BTreeSet;

use storage::{ReadBatch, Seq, SeqRange, SpillBatch};

use super::sequence::Sequence;
use crate::model::message::Message;

use deep::Backlog;
use measure::Unmeasured;

pub use entry::Entry;
pub use skip::Skipped;

/// See the module's documentation.
#[derive(Default)]
pub struct Ready {
    front: Sequence,
    /// It stores every message and counts deliveries.
    counts: bool,
    /// In an allocation of its own: most queues have none.
    backlog: Option<Box<Backlog>>,
    /// Sequence numbers given to transactions that are not durable yet. The store may show them to a reader before the
    /// session has made them visible, so a read skips them.
    reserved: BTreeSet<Seq>,
    /// Deadlines and positions of the messages in memory that have one. The store has those of the messages on disk.
    deadlines: BTreeSet<(u64, Seq)>,
}

/// What to read next.
pub enum Wanted {
    /// Messages of the store.
    Stored {
        /// The first one.
        next: Seq,
        /// One past the last that there is now.
        end: Seq,
    },
    /// Messages of the spill.
    Spilled {
        /// How many it has now.
        messages: u64,
    },
}

impl Ready {
    /// Nothing yet. `counts`: it stores every message and counts deliveries.
    pub fn new(counts: bool) -> Self {
        Self { counts, ..Self::default() }
    }

    /// Has a backlog that was found at start.
    pub fn recover(&mut self, first: Seq, end: Seq, messages: u64) {
        let unmeasured = Some(Unmeasured::new(first, end, messages));
        let backlog = || Box::new(Backlog { unmeasured, ..Backlog::new(first, end, messages) });
        self.backlog = (messages > 0).then(backlog);
    }

    /// Whether the store has this message of it.
    fn stores(&self, message: &Message) -> bool {
        self.counts || message.is_persistent()
    }

    /// Ready messages, in memory and on disk.
    pub fn len(&self) -> usize {
        self.front.len() + self.backlog.as_ref().map_or(0, |b| b.on_disk() + b.resident.len())
    }

    /// Octets of its messages in memory.
    pub fn bytes(&self) -> usize {
        self.front.bytes() + self.backlog.as_ref().map_or(0, |b| b.resident.bytes())
    }

    /// What its messages in memory account for.
    pub fn accounted_bytes(&self) -> usize {
        self.front.accounted_bytes() + self.backlog.as_ref().map_or(0, |b| b.resident.accounted_bytes())
    }

    /// Octets of the bodies of ready messages, but for those not measured.
    pub fn body_bytes(&self) -> u64 {
        let backlog = self.backlog.as_ref().map_or(0, |b| b.disk_bytes + b.resident.body_bytes());
        self.front.body_bytes() + backlog
    }

    /// Whether the next message is in memory.
    pub fn has_front(&self) -> bool {
        !self.front.is_empty()
    }

    /// Whether some messages are on disk only.
    pub fn has_backlog(&self) -> bool {
        self.backlog.is_some()
    }

    /// Whether there is anything at all.
    pub fn is_empty(&self) -> bool {
        let only_expired = |b: &Backlog| b.spilled > 0 && b.on_disk() == 0 && b.resident.is_empty();
        self.front.is_empty() && self.backlog.as_deref().is_none_or(only_expired)
    }

    /// Adds a new message; `stored` says that the store has it. Gives it back for the spill once `resident_max` octets are in
    /// memory and the store does not have it.
    pub fn push(&mut self, entry: Entry, stored: bool, resident_max: usize) -> Option<Entry> {
        let seq = entry.seq;
        let resident = self.backlog.as_ref().map_or(0, |backlog| backlog.resident.bytes());
        let full = self.front.bytes() + resident >= resident_max;
        if !stored {
            // Also when it goes to the spill, which knows nothing of deadlines.
            note_deadline(&mut self.deadlines, seq, &entry.message);
        }
        let Some(backlog) = &mut self.backlog else {
            if !full {
                if stored {
                    note_deadline(&mut self.deadlines, seq, &entry.message);
                }
                self.front.push(entry);
                return None;
            }
            let mut backlog = Backlog::new(seq, seq + 1, u64::from(stored));
            backlog.disk_bytes = entry.message.body_len() as u64;
            backlog.spilled = u64::from(!stored);
            backlog.spill_next = seq;
            self.backlog = Some(Box::new(backlog));
            return (!stored).then_some(entry);
        };
        backlog.end = seq + 1;
        if stored {
            if backlog.on_disk == 0 && backlog.spilled > 0 {
                // The store has had nothing for a while: what it was read up to is long past.
                backlog.next = seq;
            }
            backlog.on_disk += 1;
            backlog.disk_bytes += entry.message.body_len() as u64;
        } else if full {
            if backlog.spilled == 0 {
                backlog.spill_next = seq;
            }
            backlog.spilled += 1;
            backlog.disk_bytes += entry.message.body_len() as u64;
            return Some(entry);
        } else {
            backlog.resident.push(entry);
        }
        None
    }

    /// Puts a message back at its position. It must have been in the front before, or be one of `reserved`.
    pub fn insert(&mut self, entry: Entry) {
        note_deadline(&mut self.deadlines, entry.seq, &entry.message);
        if let Some(backlog) = &mut self.backlog
            && entry.seq >= backlog.floor()
        {
            backlog.end = backlog.end.max(entry.seq + 1);
            backlog.resident.insert(entry);
            return;
        }
        self.front.insert(entry);
    }

    /// Puts messages back that were in the front before; they ascend. Only what lies before the last of them is moved: what
    /// was put back earlier and not handed out since.
    pub fn insert_all(&mut self, entries: Vec<Entry>) {
        for entry in &entries {
            note_deadline(&mut self.deadlines, entry.seq, &entry.message);
        }
        self.front.insert_all(entries);
    }

    /// Takes the next message that is in memory.
    pub fn pop(&mut self) -> Option<Entry> {
        let entry = self.front.pop()?;
        if let Some(deadline_ms) = entry.message.deadline_ms() {
            self.deadlines.remove(&(deadline_ms, entry.seq));
        }
        Some(entry)
    }

    /// The deadline of the first message, if it has one and is in memory.
    pub fn head_deadline(&self) -> Option<u64> {
        self.front.iter().next().and_then(|(_, message, _)| message.deadline_ms())
    }

    /// The earliest deadline of a message in memory.
    pub fn first_deadline(&self) -> Option<u64> {
        self.deadlines.first().map(|(deadline_ms, _)| *deadline_ms)
    }

    /// Takes the messages in memory whose deadline has come, from wherever they are; they ascend.
    pub fn take_due(&mut self, now_ms: u64) -> Vec<Entry> {
        let mut due = Vec::new();
        while self.first_deadline().is_some_and(|deadline_ms| deadline_ms <= now_ms)
            && let Some((_, seq)) = self.deadlines.pop_first()
        {
            if let Some(entry) = self.front.take(seq) {
                due.push(entry);
            } else if let Some(backlog) = &mut self.backlog
                && let Some(entry) = backlog.resident.take(seq)
            {
                if self.counts || entry.message.is_persistent() {
                    backlog.expired_resident.insert(seq);
                }
                due.push(entry);
            } else if let Some(backlog) = &mut self.backlog
                && backlog.spilled > 0
            {
                backlog.forget_bytes(seq);
                backlog.expired_spilled.insert(seq);
            }
        }
        due.sort_unstable_by_key(|entry| entry.seq);
        self.follow_backlog();
        due
    }

    /// Takes messages off the disk whose deadline has come, out of those that the store names. Others of these are in memory,
    /// delivered or gone; they are left alone. `readable`: a read may still bring them. Returns the positions
    /// of those taken, and the caller must disregard that read when there is no backlog any more.
    pub fn take_stored(&mut self, named: &[Seq], readable: bool) -> Vec<Seq> {
        let Some(backlog) = &mut self.backlog else {
            return Vec::new();
        };
        let on_disk = |seq: &Seq| {
            backlog.on_disk > 0
                && (backlog.next..backlog.end).contains(seq)
                && !self.reserved.contains(seq)
                && !backlog.resident.contains(*seq)
                && !backlog.has_expired(*seq)
        };
        let taken: Vec<Seq> = named.iter().copied().filter(on_disk).collect();
        for seq in &taken {
            backlog.forget_bytes(*seq);
            backlog.on_disk = backlog.on_disk.saturating_sub(1);
        }
        if readable {
            backlog.expired_unread.extend(&taken);
        }
        if !taken.is_empty() {
            backlog.listed.retain(|seq| taken.binary_search(seq).is_err());
        }
        self.follow_backlog();
        taken
    }

    /// Goes on with a backlog of which something has left the disk.
    fn follow_backlog(&mut self) {
        if let Some(backlog) = self.backlog.take() {
            self.resume_backlog(backlog);
        }
    }

    /// Whether messages have expired in the spill that it still has.
    pub fn has_expired_spilled(&self) -> bool {
        self.backlog.as_ref().is_some_and(|backlog| !backlog.expired_spilled.is_empty())
    }

    /// Whether a message at this position comes behind all others, so that [`Ready::push`] takes it.
    pub fn is_behind_all(&self, seq: Seq) -> bool {
        match &self.backlog {
            Some(backlog) => seq >= backlog.end && seq >= backlog.next,
            None => self.front.last().is_none_or(|last| last < seq),
        }
    }

    /// Sets a sequence number aside for a transaction.
    pub fn reserve(&mut self, seq: Seq) {
        self.reserved.insert(seq);
    }

    /// The transaction is durable (or gone): the number is an ordinary one again.
    pub fn unreserve(&mut self, seq: Seq) {
        self.reserved.remove(&seq);
    }

    /// What to read next, when the front holds fewer messages and fewer octets than this.
    pub fn wants(&self, messages: usize, bytes: usize) -> Option<Wanted> {
        let backlog = self.backlog.as_ref()?;
        let low = self.front.is_empty() || (self.front.len() < messages && self.front.bytes() < bytes);
        let spilled = backlog.spilled > 0 && (backlog.on_disk == 0 || backlog.spill_next <= backlog.next);
        low.then_some(if spilled {
            Wanted::Spilled { messages: backlog.spilled }
        } else {
            Wanted::Stored { next: backlog.next, end: backlog.end }
        })
    }

    /// Takes over what was read from `backlog.next` on, when the backlog reached up to `end` at the time of the request.
    /// Returns how many messages the store could not give back.
    pub fn loaded(&mut self, batch: ReadBatch, end: Seq) -> u64 {
        let Some(mut backlog) = self.backlog.take() else {
            return 0;
        };
        let next = if batch.end { batch.next.max(end) } else { batch.next };
        let mut lost = 0;
        // What is read may have to wait for what the spill has.
        let mixed = backlog.spilled > 0;
        // What it had when it was asked has expired since.
        let stale = mixed && backlog.on_disk == 0;
        for read in batch.messages {
            if stale || read.seq < backlog.next || self.reserved.contains(&read.seq) || backlog.has_expired(read.seq) {
                continue;
            }
            if !mixed {
                self.take_resident(&mut backlog, read.seq);
            }
            if backlog.resident.contains(read.seq) {
                continue;
            }
            backlog.on_disk = backlog.on_disk.saturating_sub(1);
            let Some(message) = Message::from_stored(read.payload, read.place, read.meta.deadline_ms) else {
                lost += 1;
                continue;
            };
            if !backlog.unmeasured.as_mut().is_some_and(|unmeasured| unmeasured.take(read.seq)) {
                backlog.disk_bytes = backlog.disk_bytes.saturating_sub(message.body_len() as u64);
            }
            note_deadline(&mut self.deadlines, read.seq, &message);
            let entry = Entry::read(read.seq, message, (read.redelivered, read.meta.delivery_count), self.counts);
            if mixed { backlog.resident.insert(entry) } else { self.front.push(entry) }
        }
        let damaged = batch.damaged.iter().filter(|seq| !backlog.has_expired(**seq)).count() as u64;
        lost += damaged;
        backlog.on_disk = backlog.on_disk.saturating_sub(damaged);
        // It may have jumped while the store had nothing.
        backlog.next = backlog.next.max(next);
        backlog.expired_unread = backlog.expired_unread.split_off(&backlog.next);
        if backlog.next >= backlog.end {
            lost += std::mem::take(&mut backlog.on_disk);
        }
        backlog.expired_resident = backlog.expired_resident.split_off(&backlog.next);
        self.resume_backlog(backlog);
        lost
    }

    /// Takes over what the spill gave back, which had `messages` when it was asked. Returns how many are lost.
    /// Those that have expired there go to `expired`.
    pub fn loaded_spilled(&mut self, batch: SpillBatch, messages: u64, expired: &mut Vec<Entry>) -> u64 {
        let Some(mut backlog) = self.backlog.take() else {
            return 0;
        };
        let taken = batch.messages.len() as u64 + batch.lost;
        // When it has nothing left, it should have given back what it had; what was pushed meanwhile is still to come.
        let missing = if batch.next.is_none() { messages.saturating_sub(taken) } else { 0 };
        backlog.spilled = backlog.spilled.saturating_sub(taken + missing);
        let mut lost = batch.lost + missing;
        for read in batch.messages {
            backlog.spill_next = read.seq + 1;
            let has_expired = backlog.expired_spilled.remove(&read.seq);
            let Some(message) = Message::from_spilled(read.payload, read.meta.deadline_ms) else {
                lost += u64::from(!has_expired);
                continue;
            };
            let entry = Entry::read(read.seq, message, (read.redelivered, 0), self.counts);
            if has_expired {
                expired.push(entry);
                continue;
            }
            backlog.disk_bytes = backlog.disk_bytes.saturating_sub(entry.message.body_len() as u64);
            note_deadline(&mut self.deadlines, read.seq, &entry.message);
            backlog.resident.insert(entry);
        }
        if let Some(next) = batch.next {
            backlog.spill_next = backlog.spill_next.max(next);
        }
        // What was lost has taken its deadlines with it.
        backlog.expired_spilled =
            if backlog.spilled == 0 { BTreeSet::new() } else { backlog.expired_spilled.split_off(&backlog.spill_next) };
        self.resume_backlog(backlog);
        lost
    }

    /// Moves to the front what has nothing older on disk. A backlog with nothing on disk is none.
    fn resume_backlog(&mut self, mut backlog: Box<Backlog>) {
        if backlog.on_disk() == 0 {
            backlog.disk_bytes = 0;
        }
        if backlog.on_disk == 0 && backlog.spilled == 0 {
            self.take_resident(&mut backlog, Seq::MAX);
        } else {
            let floor = backlog.floor();
            self.take_resident(&mut backlog, floor);
            self.backlog = Some(backlog);
        }
    }

    /// Moves the resident entries below `seq` to the front.
    fn take_resident(&mut self, backlog: &mut Backlog, seq: Seq) {
        while backlog.resident.first().is_some_and(|first| first < seq) {
            if let Some(entry) = backlog.resident.pop() {
                self.front.push(entry);
            }
        }
    }

    /// Empties it; returns the number of messages and the ranges that the store must forget.
    pub fn clear(&mut self) -> (usize, Vec<SeqRange>) {
        let count = self.len();
        let front = std::mem::take(&mut self.front);
        let mut ranges = self::ranges(front.iter().filter(|(_, message, _)| self.stores(message)).map(|(seq, ..)| seq));
        self.deadlines.clear();
        if let Some(backlog) = self.backlog.take() {
            // Read from the store already, and waiting for what the spill has.
            let is_read = |seq: Seq| backlog.on_disk == 0 || seq < backlog.next;
            let held = backlog.resident.iter();
            let read = held.filter(|(seq, message, _)| self.stores(message) && is_read(*seq));
            ranges.extend(self::ranges(read.map(|(seq, ..)| seq)));
            self.clear_backlog(&backlog, &mut ranges);
        }
        (count, ranges)
    }

    /// The backlog's range in the store without what transactions have reserved in it, and what has left the queue already.
    fn clear_backlog(&self, backlog: &Backlog, ranges: &mut Vec<SeqRange>) {
        if backlog.on_disk == 0 {
            return;
        }
        let mut first = backlog.next;
        // The store may have been read past the end: it shows what transactions have reserved behind it.
        let end = backlog.end.max(first);
        let gone = backlog.expired_unread.range(first..end);
        let mut kept: Vec<Seq> = self.reserved.range(first..end).chain(gone).copied().collect();
        kept.sort_unstable();
        for seq in kept.into_iter().chain([end]) {
            if first < seq {
                ranges.push(SeqRange { first, last: seq - 1 });
            }
            first = seq + 1;
        }
    }

    /// Positions of the messages that were delivered before, as far as memory knows them: for a clean stop.
    pub fn redelivered(&self) -> Vec<SeqRange> {
        let redelivered = self.front.iter().filter(|(_, message, redelivered)| *redelivered && self.stores(message));
        ranges(redelivered.map(|(seq, ..)| seq))
    }
}

/// Only a message that can expire costs anything here.
fn note_deadline(deadlines: &mut BTreeSet<(u64, Seq)>, seq: Seq, message: &Message) {
    if let Some(deadline_ms) = message.deadline_ms() {
        deadlines.insert((deadline_ms, seq));
    }
}

/// Ascending positions as runs.
pub(super) fn ranges(seqs: impl Iterator<Item = Seq>) -> Vec<SeqRange> {
    let mut ranges: Vec<SeqRange> = Vec::new();
    for seq in seqs {
        match ranges.last_mut() {
            Some(range) if range.last + 1 == seq => range.last = seq,
            _ => ranges.push(SeqRange::one(seq)),
        }
    }
    ranges
}

#[cfg(test)]
mod tests;
