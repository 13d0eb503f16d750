//! The ready messages of one queue, in order: the front in memory, the rest of a deep backlog on disk.
//!
//! `front` holds entries whose sequence numbers are all below those of `backlog`. Messages are delivered from the front only,
//! so whatever comes back by a requeue is older than the backlog and finds its place in the front. A message whose time is
//! over leaves from wherever it is.

use std::collections::BTreeSet;
use std::sync::Arc;

use storage::{ReadBatch, Seq, SeqRange};

use super::sequence::Sequence;
use crate::model::message::Message;

/// A message at its position in a queue.
pub struct Entry {
    /// Position: assigned at enqueue, kept over requeues.
    pub seq: Seq,
    /// The message.
    pub message: Arc<Message>,
    /// Delivered before.
    pub redelivered: bool,
}

/// See the module's documentation.
#[derive(Default)]
pub struct Ready {
    front: Sequence,
    /// In an allocation of its own: most queues have none.
    backlog: Option<Box<Backlog>>,
    /// Sequence numbers given to transactions that are not durable yet. The store may show them to a reader before the
    /// session has made them visible, so a read skips them.
    reserved: BTreeSet<Seq>,
    /// Deadlines and positions of the messages in memory that have one. The store has those of the messages on disk.
    deadlines: BTreeSet<(u64, Seq)>,
}

/// Messages that the store holds and memory does not.
struct Backlog {
    /// First sequence number not read yet.
    next: Seq,
    /// One past the last.
    end: Seq,
    /// Messages of it on disk.
    on_disk: u64,
    /// Messages of its range that are in memory: transient ones, which exist nowhere else, and those of transactions, which a
    /// read that is under way may miss.
    resident: Sequence,
    /// Residents of transactions that have expired: the store may still read or name them.
    expired_resident: BTreeSet<Seq>,
    /// Messages on disk that have expired during the read that is under way, which may still bring them.
    expired_unread: BTreeSet<Seq>,
}

impl Backlog {
    fn new(next: Seq, end: Seq, on_disk: u64) -> Self {
        Self {
            next,
            end,
            on_disk,
            resident: Sequence::default(),
            expired_resident: BTreeSet::new(),
            expired_unread: BTreeSet::new(),
        }
    }

    fn has_expired(&self, seq: Seq) -> bool {
        self.expired_resident.contains(&seq) || self.expired_unread.contains(&seq)
    }
}

impl Ready {
    /// A backlog found at start.
    pub fn recovered(first: Seq, end: Seq, messages: u64) -> Self {
        Self { backlog: (messages > 0).then(|| Box::new(Backlog::new(first, end, messages))), ..Self::default() }
    }

    /// Ready messages, in memory and on disk.
    pub fn len(&self) -> usize {
        self.front.len() + self.backlog.as_ref().map_or(0, |b| b.on_disk as usize + b.resident.len())
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
        self.front.is_empty() && self.backlog.is_none()
    }

    /// Adds a new message. `stored` says that the store holds it, so that memory need not once `resident_cap` is reached.
    pub fn push(&mut self, entry: Entry, stored: bool, resident_cap: usize) {
        let (seq, end) = (entry.seq, entry.seq + 1);
        if let Some(backlog) = &mut self.backlog {
            backlog.end = end;
            if stored {
                backlog.on_disk += 1;
            } else {
                note_deadline(&mut self.deadlines, seq, &entry.message);
                backlog.resident.push(entry);
            }
        } else if stored && self.front.bytes() >= resident_cap {
            self.backlog = Some(Box::new(Backlog::new(seq, end, 1)));
        } else {
            note_deadline(&mut self.deadlines, seq, &entry.message);
            self.front.push(entry);
        }
    }

    /// Puts a message back at its position. It must have been in the front before, or be one of `reserved`.
    pub fn insert(&mut self, entry: Entry) {
        note_deadline(&mut self.deadlines, entry.seq, &entry.message);
        if let Some(backlog) = &mut self.backlog
            && entry.seq >= backlog.next
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
                if entry.message.is_persistent() {
                    backlog.expired_resident.insert(seq);
                }
                due.push(entry);
            }
        }
        due.sort_unstable_by_key(|entry| entry.seq);
        self.end_backlog();
        due
    }

    /// Takes messages off the disk whose deadline has come, out of those that the store names. Others of these are in memory,
    /// delivered or gone; they are left alone. `reading`: a read is under way that may still bring them. Returns the positions
    /// of those taken, and the caller must disregard that read when there is no backlog any more.
    pub fn take_stored(&mut self, named: &[Seq], reading: bool) -> Vec<Seq> {
        let Some(backlog) = &mut self.backlog else {
            return Vec::new();
        };
        let on_disk = |seq: &Seq| {
            (backlog.next..backlog.end).contains(seq)
                && !self.reserved.contains(seq)
                && !backlog.resident.contains(*seq)
                && !backlog.has_expired(*seq)
        };
        let taken: Vec<Seq> = named.iter().copied().filter(on_disk).collect();
        backlog.on_disk = backlog.on_disk.saturating_sub(taken.len() as u64);
        if reading {
            backlog.expired_unread.extend(&taken);
        }
        self.end_backlog();
        taken
    }

    /// A backlog with nothing on disk is none.
    fn end_backlog(&mut self) {
        if let Some(mut backlog) = self.backlog.take_if(|backlog| backlog.on_disk == 0) {
            self.take_resident(&mut backlog, Seq::MAX);
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

    /// Where to read next, and up to where the backlog reaches now, when the front holds fewer messages and fewer octets
    /// than this.
    pub fn wants(&self, messages: usize, bytes: usize) -> Option<(Seq, Seq)> {
        let backlog = self.backlog.as_ref()?;
        let low = self.front.is_empty() || (self.front.len() < messages && self.front.bytes() < bytes);
        low.then_some((backlog.next, backlog.end))
    }

    /// Takes over what was read from `backlog.next` on, when the backlog reached up to `end` at the time of the request.
    /// Returns how many messages the store could not give back.
    pub fn loaded(&mut self, batch: ReadBatch, end: Seq) -> u64 {
        let Some(mut backlog) = self.backlog.take() else {
            return 0;
        };
        let next = if batch.end { batch.next.max(end) } else { batch.next };
        let mut lost = 0;
        for read in batch.messages {
            if read.seq < backlog.next || self.reserved.contains(&read.seq) || backlog.has_expired(read.seq) {
                continue;
            }
            self.take_resident(&mut backlog, read.seq);
            if backlog.resident.first() == Some(read.seq) {
                continue;
            }
            backlog.on_disk = backlog.on_disk.saturating_sub(1);
            let Some(message) = Message::from_stored(read.payload, read.place, read.meta.deadline_ms) else {
                lost += 1;
                continue;
            };
            note_deadline(&mut self.deadlines, read.seq, &message);
            self.front.push(Entry { seq: read.seq, message: Arc::new(message), redelivered: read.redelivered });
        }
        self.take_resident(&mut backlog, next);
        let damaged = batch.damaged.iter().filter(|seq| !backlog.has_expired(**seq)).count() as u64;
        lost += damaged;
        backlog.on_disk = backlog.on_disk.saturating_sub(damaged);
        backlog.next = next;
        backlog.expired_unread.clear();
        if backlog.next < backlog.end {
            backlog.expired_resident = backlog.expired_resident.split_off(&next);
            self.backlog = Some(backlog);
        } else {
            lost += backlog.on_disk;
            self.take_resident(&mut backlog, Seq::MAX);
        }
        lost
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
        let mut ranges = ranges(front.iter().filter(|(_, message, _)| message.is_persistent()).map(|(seq, ..)| seq));
        self.deadlines.clear();
        if let Some(backlog) = self.backlog.take() {
            self.clear_backlog(&backlog, &mut ranges);
        }
        (count, ranges)
    }

    /// The backlog's range without what transactions have reserved in it.
    fn clear_backlog(&self, backlog: &Backlog, ranges: &mut Vec<SeqRange>) {
        let mut first = backlog.next;
        for seq in self.reserved.range(backlog.next..backlog.end).copied().chain([backlog.end]) {
            if first < seq {
                ranges.push(SeqRange { first, last: seq - 1 });
            }
            first = seq + 1;
        }
    }

    /// Positions of the messages that were delivered before, as far as memory knows them: for a clean stop.
    pub fn redelivered(&self) -> Vec<SeqRange> {
        let redelivered = self.front.iter().filter(|(_, message, redelivered)| *redelivered && message.is_persistent());
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
