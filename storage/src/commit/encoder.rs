//! The encoder thread: turns pending entries into groups and paces them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::{Duration, Instant};

use crate::core::{Core, Job};
use crate::index::Position;
use crate::log::group::{self, GroupHeader, HEADER};
use crate::log::location::Location;
use crate::log::record::{Body, ENQUEUE_HEADER, Entry, Op, Target};
use crate::log::segment::Segment;

use super::held::{Gone, Held};
use super::large_writer::{Done, LargeWriter, Task};
use super::pending::Taken;
use super::sleeper::Sleep;
use super::{Group, Spare};

/// Pending bytes that start the next group before its time.
pub(crate) const ENOUGH: u64 = 64 * 1024;
/// A group takes no further entry once it would be bigger than this.
const GROUP_MAX: usize = 1024 * 1024;
/// Time between the starts of two groups that are smaller than [`ENOUGH`]: syncs back to back burn CPU for nothing.
const PACE: Duration = Duration::from_micros(300);
/// A group of fewer entries than this does not wait: nobody is in a hurry then but the one who waits for it.
const FEW: usize = 8;
/// Where an entry comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// It was just taken from the pending buffer.
    Batch,
    /// It has waited for a file.
    Released,
}

/// State of the encoder thread.
pub(crate) struct Encoder {
    core: Arc<Core>,
    groups: SyncSender<Group>,
    spares: Receiver<Spare>,
    segment: Segment,
    /// End of what is written or handed over in the segment.
    offset: u64,
    /// Checksum of the header of the last group.
    link: u32,
    tx_sum: u32,
    /// Entries taken from the pending buffer and not encoded yet.
    batch: VecDeque<Entry>,
    /// So many of them are free to be encoded: one, or the rest of a transaction.
    admitted: usize,
    /// Those that wait for files of large payloads.
    held: Held,
    /// Those that waited, with their places in the order of the appends.
    released: VecDeque<(u64, Entry)>,
    /// Place of the front of the batch in the order of the appends: its LSN, as it was given to whoever appended it.
    next_ticket: u64,
    /// LSN of the next entry in the log. It differs only as long as entries wait: those behind them move up, and when the
    /// last has followed, as many are in the log as were appended.
    next_lsn: u64,
    /// Up to here the sync thread knows what is encoded or waits.
    landed: u64,
    taken: u64,
    /// When the first entry of the batch was appended.
    since: Option<Instant>,
    // The group being built; `buf` is empty when there is none.
    buf: Vec<u8>,
    ops: Vec<Op>,
    entries_sum: u32,
    full: bool,
    last_start: Option<Instant>,
    /// Entries of the last group.
    last_count: usize,
    /// A spare segment was asked for since the last one was opened.
    asked: bool,
}

impl Encoder {
    /// An encoder that goes on at `at` in `segment`.
    pub(crate) fn new(
        core: Arc<Core>,
        groups: SyncSender<Group>,
        spares: Receiver<Spare>,
        segment: Segment,
        at: Position,
    ) -> Self {
        Self {
            core,
            groups,
            spares,
            segment,
            offset: at.offset,
            link: at.link,
            tx_sum: 0,
            batch: VecDeque::new(),
            admitted: 0,
            held: Held::default(),
            released: VecDeque::new(),
            next_ticket: 0,
            next_lsn: 0,
            landed: 0,
            taken: 0,
            since: None,
            buf: Vec::new(),
            ops: Vec::new(),
            entries_sum: 0,
            full: false,
            last_start: None,
            last_count: 0,
            asked: false,
        }
    }

    /// Runs until the store stops.
    pub(crate) fn run(mut self) -> Result<(), String> {
        let core = Arc::clone(&self.core);
        core.encoder.adopt();
        while !core.is_stopping() {
            self.take();
            self.fill()?;
            let told = self.landed + 1 >= self.next_ticket;
            if self.buf.is_empty() && told {
                core.encoder.sleep(Sleep::Idle, None, || {
                    !core.pending.is_empty() || core.large_writer.has_news() || core.is_stopping()
                });
            } else if core.sync_busy.load(Ordering::SeqCst) {
                let state = if self.full { Sleep::Full } else { Sleep::Pacing };
                core.encoder.sleep(state, None, || {
                    !core.sync_busy.load(Ordering::SeqCst)
                        || (state == Sleep::Pacing && core.pending.untaken() >= ENOUGH)
                        || core.is_stopping()
                });
            } else if self.buf.is_empty() {
                // Nothing but messages that wait for files: readers of others need not wait for these.
                self.send(self.offset)?;
            } else if let Some(wait) = self.pace() {
                core.encoder
                    .sleep(Sleep::Pacing, Some(wait), || core.pending.untaken() >= ENOUGH || core.is_stopping());
            } else {
                self.hand_over()?;
            }
        }
        Ok(())
    }

    /// How long the group at hand should still wait, if it should.
    fn pace(&self) -> Option<Duration> {
        let few = self.last_count < FEW && self.ops.len() < FEW;
        if self.full || few || self.buf.len() as u64 >= ENOUGH {
            return None;
        }
        PACE.checked_sub(self.last_start?.elapsed()).filter(|left| !left.is_zero())
    }

    fn take(&mut self) {
        if !self.batch.is_empty() {
            return;
        }
        let Taken { first, bytes, since } = self.core.pending.take(&mut self.batch);
        if !self.batch.is_empty() {
            debug_assert!(self.next_ticket == first || self.next_ticket == 0);
            if self.next_ticket == 0 {
                (self.next_ticket, self.next_lsn) = (first, first);
            }
            self.taken += bytes;
            self.since = since;
        }
    }

    /// Encodes entries until none is left or the group is full.
    fn fill(&mut self) -> Result<(), String> {
        self.collect_files();
        while !self.full {
            let Some(source) = self.choose() else {
                break;
            };
            let Some(entry) = self.front(source) else {
                break;
            };
            let mut body = self.body_of(entry);
            let mut span = entry.span(body);
            let room = usize::try_from(self.segment.len - self.offset).unwrap_or(usize::MAX);
            if self.buf.is_empty() {
                if group::span(span) > room as u64 {
                    if !self.roll(source)? {
                        break;
                    }
                    // What stands in the segment before is out of reach of a reference now.
                    let Some(entry) = self.front(source) else {
                        break;
                    };
                    body = self.body_of(entry);
                    span = entry.span(body);
                    debug_assert!(group::span(span) <= self.segment.len);
                }
                self.begin();
            } else if self.buf.len() + span > GROUP_MAX.min(room) {
                self.full = true;
                break;
            }
            let Some(entry) = self.pop(source) else {
                break;
            };
            self.encode(entry, body)?;
        }
        if self.buf.len() >= GROUP_MAX {
            self.full = true;
        }
        Ok(())
    }

    fn encode(&mut self, entry: Entry, body: Body) -> Result<(), String> {
        let mut target = Target {
            key: &self.core.key,
            segment: self.segment.id,
            group_offset: self.offset,
            buf: &mut self.buf,
            tx_sum: &mut self.tx_sum,
            entries_sum: &mut self.entries_sum,
        };
        let op = target.encode(entry, body).map_err(|_| "a payload is not as long as it said".to_owned())?;
        self.ops.push(op);
        self.next_lsn += 1;
        Ok(())
    }

    /// Where the next entry comes from, if there is one. Those whose files have come go first, but not into the middle of a
    /// transaction.
    fn choose(&mut self) -> Option<Source> {
        while self.admitted == 0 {
            if !self.released.is_empty() {
                return Some(Source::Released);
            }
            self.batch.front()?;
            self.admit();
        }
        Some(Source::Batch)
    }

    fn front(&self, source: Source) -> Option<&Entry> {
        match source {
            Source::Batch => self.batch.front(),
            Source::Released => self.released.front().map(|(_, entry)| entry),
        }
    }

    fn pop(&mut self, source: Source) -> Option<Entry> {
        match source {
            Source::Batch => {
                self.admitted -= 1;
                self.next_ticket += 1;
                self.batch.pop_front()
            }
            Source::Released => self.released.pop_front().map(|(_, entry)| entry),
        }
    }

    /// Lets the front of the batch pass, a transaction as a whole, or puts it aside until its files are there.
    fn admit(&mut self) {
        let Some(entry) = self.batch.front() else {
            return;
        };
        if !entry.is_in_tx() {
            let stopped = !self.held.is_empty() && self.held.stops(entry);
            if self.pin_or_lack(0) || stopped {
                return self.hold(1);
            }
            if !self.held.is_empty() {
                self.pass();
            }
            self.admitted = 1;
            return;
        }
        let end = self.batch.iter().position(|entry| matches!(entry, Entry::TxEnd { .. }));
        let len = end.map_or(self.batch.len(), |end| end + 1);
        let mut lacks = false;
        for at in 0..len {
            lacks |= self.pin_or_lack(at);
        }
        let stopped = !self.held.is_empty() && self.batch.range(..len).any(|entry| self.held.stops(entry));
        if lacks || stopped {
            return self.hold(len);
        }
        self.admitted = len;
    }

    /// Whether the payload of an entry of the batch needs a file that is not there, or no longer. A file that is there is
    /// pinned until the entry is in force.
    fn pin_or_lack(&self, at: usize) -> bool {
        let Some(Entry::Enqueue { payload, .. }) = self.batch.get(at) else {
            return false;
        };
        let file = Location(payload.place().get()).as_large();
        let is_large = payload.encoded_len() >= self.core.options.large_bytes;
        match file {
            Some(file) if self.core.index.lock().usage.pin_large(file) => false,
            _ => is_large,
        }
    }

    /// Puts the first entries of the batch aside and has the files written that they lack.
    fn hold(&mut self, len: usize) {
        let entries: Vec<Entry> = self.batch.drain(..len).collect();
        let first = self.next_ticket;
        self.next_ticket += len as u64;
        let last = self.next_ticket - 1;
        let bytes = entries.iter().map(Entry::pending_bytes).sum::<usize>() as u64;
        self.taken -= bytes;
        let mut tasks = Vec::new();
        {
            let mut index = self.core.index.lock();
            for entry in &entries {
                let Entry::Enqueue { queue, seq, payload, .. } = entry else {
                    continue;
                };
                index.held.add(*queue, *seq, last);
                let file = Location(payload.place().get()).as_large();
                let is_there = file.is_some_and(|file| index.has_large(file));
                let is_large = payload.encoded_len() >= self.core.options.large_bytes;
                if is_large && !is_there && !self.held.is_awaited(payload) {
                    let id = self.core.new_large_id();
                    let given_up = self.held.await_file(id, payload);
                    tasks.push(Task { id, payload: Arc::clone(payload), given_up });
                }
            }
        }
        self.held.push(first, entries, bytes);
        for task in tasks {
            LargeWriter::write(&self.core, task);
        }
    }

    /// The front of the batch passes those that wait.
    fn pass(&mut self) {
        let Some(entry) = self.batch.front() else {
            return;
        };
        let gone = self.held.pass(entry);
        if gone.is_empty() {
            return;
        }
        {
            let mut index = self.core.index.lock();
            for Gone { queue, seq, payload, was_waiting } in gone {
                index.skip(queue, seq);
                if let Some(file) = Location(payload.place().get()).as_large()
                    && !was_waiting
                {
                    index.usage.unpin_large(file);
                }
            }
        }
        // A writer may be waiting for room that it needs no longer.
        self.core.space.disk.wake();
        self.release();
    }

    /// Takes in which files have been written, and lets go on what waited for them.
    fn collect_files(&mut self) {
        let done = self.core.large_writer.take_done();
        if done.is_empty() {
            return;
        }
        for Done { id, is_there } in done {
            let Some((payload, needed)) = self.held.file_done(id) else {
                continue;
            };
            if needed > 0 && is_there {
                self.core.index.lock().usage.large.entry(id).or_default().pins += needed;
                payload.place().set(Location::large(id).0);
            } else if is_there {
                self.core.post(Job::RemoveLarge(vec![id]));
            } else if needed > 0 {
                // It was given up, and then another entry came with the same payload.
                let id = self.core.new_large_id();
                let given_up = self.held.await_file(id, &payload);
                LargeWriter::write(&self.core, Task { id, payload, given_up });
            }
        }
        self.release();
    }

    fn release(&mut self) {
        let Self { held, released, core, taken, .. } = self;
        held.release(|unit| {
            *taken += unit.bytes;
            released.extend((unit.first..).zip(unit.entries));
            for requeue in unit.requeues {
                let entry = Entry::Requeue(Box::new(requeue));
                let bytes = entry.pending_bytes();
                core.pending.append(entry, bytes);
            }
        });
    }

    /// Where the payload of an entry goes. A payload that stands in this very segment is referred to; one in an earlier
    /// segment is written again, so that a message and its bytes always share their segment: what one needs, the other pins,
    /// also when only the log is left.
    fn body_of(&self, entry: &Entry) -> Body {
        let (Entry::Enqueue { payload, .. } | Entry::Relocate { payload, .. }) = entry else {
            return Body::Inline;
        };
        let location = Location(payload.place().get());
        let len = payload.encoded_len();
        if let Some(file) = location.as_large() {
            // It was pinned when the entry was let in, if it was there.
            if len >= self.core.options.large_bytes || self.core.index.lock().has_large(file) {
                return Body::Elsewhere(location, u32::try_from(len).unwrap_or(u32::MAX));
            }
            return Body::Inline;
        }
        match location.as_segment() {
            Some((segment, _)) if segment == self.segment.id => {
                Body::Elsewhere(location, (ENQUEUE_HEADER + len) as u32)
            }
            _ => Body::Inline,
        }
    }

    fn begin(&mut self) {
        if let Ok(spare) = self.spares.try_recv()
            && spare.buf.capacity() <= 2 * GROUP_MAX
        {
            self.buf = spare.buf;
            self.ops = spare.ops;
        }
        self.buf.clear();
        self.buf.resize(HEADER, 0);
        self.ops.clear();
        self.entries_sum = 0;
    }

    /// Goes on in the next segment, which is big enough for the next entry with its body inline. False when the store stops
    /// before there is one.
    fn roll(&mut self, source: Source) -> Result<bool, String> {
        let inline = match self.front(source) {
            Some(Entry::Enqueue { payload, .. }) => {
                ENQUEUE_HEADER + payload.encoded_len().min(self.core.options.large_bytes).max(16)
            }
            Some(entry) => entry.span(Body::Inline),
            None => 0,
        };
        let needed = group::span(inline.next_multiple_of(8));
        let Some(segment) = self.core.next_segment(needed, self.next_ticket)? else {
            return Ok(false);
        };
        self.segment = segment;
        self.offset = 0;
        self.asked = false;
        self.core.schedule.segment_full();
        Ok(true)
    }

    /// Up to here everything that was appended is encoded.
    fn durable(&self) -> u64 {
        let released = self.released.iter().map(|&(ticket, _)| ticket).min();
        [self.held.first(), released].into_iter().flatten().min().unwrap_or(self.next_ticket) - 1
    }

    /// Gives the sync thread what is in the buffer, to be written at `offset`.
    fn send(&mut self, offset: u64) -> Result<(), String> {
        self.landed = self.next_ticket - 1;
        let group = Group {
            buf: std::mem::take(&mut self.buf),
            ops: std::mem::take(&mut self.ops),
            segment: self.segment.clone(),
            offset,
            last_lsn: self.next_lsn - 1,
            durable: self.durable(),
            landed: self.landed,
            since: self.since,
            end: Position { segment: self.segment.id, offset: self.offset, link: self.link },
            // While entries are left over, their bytes stay counted as pending until the group that has the last of them.
            taken: if self.batch.is_empty() && self.released.is_empty() { std::mem::take(&mut self.taken) } else { 0 },
        };
        self.core.sync_busy.store(true, Ordering::SeqCst);
        self.groups.send(group).map_err(|_| "the sync thread is gone".to_owned())
    }

    fn hand_over(&mut self) -> Result<(), String> {
        let count = self.ops.len() as u32;
        let header = GroupHeader {
            segment: self.segment.id,
            first_lsn: self.next_lsn - u64::from(count),
            synced_upto: self.core.synced.load(Ordering::Acquire),
            epoch: self.core.epoch,
            count,
            length: (self.buf.len() - HEADER) as u32,
            previous: self.link,
            entries_sum: self.entries_sum,
        };
        self.link = header.put(&self.core.key, &mut self.buf);
        self.buf.resize(header.span() as usize, 0);
        let offset = self.offset;
        self.offset += header.span();
        self.full = false;
        self.last_start = Some(Instant::now());
        self.last_count = count as usize;
        self.send(offset)?;
        // Once per segment: on a full disk, asking again and again would eat up the space that the log itself still has.
        if !self.asked && self.offset > self.segment.len / 4 {
            self.asked = true;
            if !self.core.space.has_free() {
                self.core.prepare_segment();
            }
        }
        Ok(())
    }
}
