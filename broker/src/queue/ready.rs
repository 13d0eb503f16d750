//! The ready messages of one queue, in order: the front in memory, the rest of a deep backlog on disk.
//!
//! `front` holds entries whose sequence numbers are all below those of `backlog`. Messages leave from the front only, so
//! whatever comes back by a requeue is older than the backlog and finds its place in the front.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use storage::{ReadBatch, Seq, SeqRange};

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
    front: VecDeque<Entry>,
    front_bytes: usize,
    backlog: Option<Backlog>,
    /// Sequence numbers given to transactions that are not durable yet. The store may show them to a reader before the
    /// session has made them visible, so a read skips them.
    reserved: BTreeSet<Seq>,
}

/// Messages that the store holds and memory does not.
struct Backlog {
    /// First sequence number not read yet.
    next: Seq,
    /// One past the last.
    end: Seq,
    /// Messages of it on disk.
    on_disk: u64,
    /// Messages of its range that are in memory, in order: transient ones, which exist nowhere else, and those of
    /// transactions, which a read that is under way may miss.
    resident: VecDeque<Entry>,
}

impl Ready {
    /// A backlog found at start.
    pub fn recovered(first: Seq, end: Seq, messages: u64) -> Self {
        Self {
            backlog: (messages > 0).then_some(Backlog {
                next: first,
                end,
                on_disk: messages,
                resident: VecDeque::new(),
            }),
            ..Self::default()
        }
    }

    /// Ready messages, in memory and on disk.
    pub fn len(&self) -> usize {
        self.front.len() + self.backlog.as_ref().map_or(0, |b| b.on_disk as usize + b.resident.len())
    }

    /// Whether the next message is in memory.
    pub fn has_front(&self) -> bool {
        !self.front.is_empty()
    }

    /// Whether there is anything at all.
    pub fn is_empty(&self) -> bool {
        self.front.is_empty() && self.backlog.is_none()
    }

    /// Adds a new message. `stored` says that the store holds it, so that memory need not once `resident_cap` is reached.
    pub fn push(&mut self, entry: Entry, stored: bool, resident_cap: usize) {
        let end = entry.seq + 1;
        if let Some(backlog) = &mut self.backlog {
            backlog.end = end;
            if stored {
                backlog.on_disk += 1;
            } else {
                backlog.resident.push_back(entry);
            }
        } else if stored && self.front_bytes >= resident_cap {
            self.backlog = Some(Backlog { next: entry.seq, end, on_disk: 1, resident: VecDeque::new() });
        } else {
            self.front_bytes += entry.message.resident_bytes();
            self.front.push_back(entry);
        }
    }

    /// Puts a message back at its position. It must have been in the front before, or be one of `reserved`.
    pub fn insert(&mut self, entry: Entry) {
        if let Some(backlog) = &mut self.backlog
            && entry.seq >= backlog.next
        {
            backlog.end = backlog.end.max(entry.seq + 1);
            let at = backlog.resident.partition_point(|other| other.seq < entry.seq);
            backlog.resident.insert(at, entry);
            return;
        }
        self.front_bytes += entry.message.resident_bytes();
        if self.front.front().is_none_or(|first| first.seq > entry.seq) {
            self.front.push_front(entry);
        } else {
            let at = self.front.partition_point(|other| other.seq < entry.seq);
            self.front.insert(at, entry);
        }
    }

    /// Puts messages back that were in the front before; they ascend. Only what lies before the last of them is moved: what
    /// was put back earlier and not handed out since.
    pub fn insert_all(&mut self, mut entries: Vec<Entry>) {
        let Some(last) = entries.last().map(|entry| entry.seq) else { return };
        self.front_bytes += entries.iter().map(|entry| entry.message.resident_bytes()).sum::<usize>();
        let before = self.front.partition_point(|entry| entry.seq < last);
        let mut lower: Vec<Entry> = self.front.drain(..before).collect();
        while let Some(entry) = entries.pop() {
            while let Some(above) = lower.pop_if(|other| other.seq > entry.seq) {
                self.front.push_front(above);
            }
            self.front.push_front(entry);
        }
        for entry in lower.into_iter().rev() {
            self.front.push_front(entry);
        }
    }

    /// Takes the next message that is in memory.
    pub fn pop(&mut self) -> Option<Entry> {
        let entry = self.front.pop_front()?;
        self.front_bytes = self.front_bytes.saturating_sub(entry.message.resident_bytes());
        Some(entry)
    }

    /// Whether the next message is in memory and its time is over.
    pub fn front_is_expired(&self) -> bool {
        self.front.front().is_some_and(|entry| entry.message.is_expired())
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
        let low = self.front.is_empty() || (self.front.len() < messages && self.front_bytes < bytes);
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
            if read.seq < backlog.next || self.reserved.contains(&read.seq) {
                continue;
            }
            self.take_resident(&mut backlog, read.seq);
            if backlog.resident.front().is_some_and(|resident| resident.seq == read.seq) {
                continue;
            }
            backlog.on_disk = backlog.on_disk.saturating_sub(1);
            let Some(message) = Message::from_stored(read.payload, read.place, read.meta.deadline_ms) else {
                lost += 1;
                continue;
            };
            self.front_bytes += message.resident_bytes();
            self.front.push_back(Entry { seq: read.seq, message: Arc::new(message), redelivered: read.redelivered });
        }
        self.take_resident(&mut backlog, next);
        lost += batch.damaged.len() as u64;
        backlog.on_disk = backlog.on_disk.saturating_sub(batch.damaged.len() as u64);
        backlog.next = next;
        if backlog.next < backlog.end {
            self.backlog = Some(backlog);
        } else {
            lost += backlog.on_disk;
            self.take_resident(&mut backlog, Seq::MAX);
        }
        lost
    }

    /// Moves the resident entries below `seq` to the front.
    fn take_resident(&mut self, backlog: &mut Backlog, seq: Seq) {
        while backlog.resident.front().is_some_and(|entry| entry.seq < seq) {
            if let Some(entry) = backlog.resident.pop_front() {
                self.front_bytes += entry.message.resident_bytes();
                self.front.push_back(entry);
            }
        }
    }

    /// Empties it; returns the number of messages and the ranges that the store must forget.
    pub fn clear(&mut self) -> (usize, Vec<SeqRange>) {
        let count = self.len();
        let mut ranges: Vec<SeqRange> = Vec::new();
        for entry in self.front.drain(..).filter(|entry| entry.message.is_persistent()) {
            match ranges.last_mut() {
                Some(range) if range.last + 1 == entry.seq => range.last = entry.seq,
                _ => ranges.push(SeqRange { first: entry.seq, last: entry.seq }),
            }
        }
        self.front_bytes = 0;
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
        let mut ranges: Vec<SeqRange> = Vec::new();
        for entry in self.front.iter().filter(|e| e.redelivered && e.message.is_persistent()) {
            match ranges.last_mut() {
                Some(range) if range.last + 1 == entry.seq => range.last = entry.seq,
                _ => ranges.push(SeqRange { first: entry.seq, last: entry.seq }),
            }
        }
        ranges
    }
}
