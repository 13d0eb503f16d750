//! The encoder thread: turns pending entries into groups and paces them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::{Duration, Instant};

use crate::core::Core;
use crate::index::Position;
use crate::large;
use crate::log::group::{self, GroupHeader, HEADER};
use crate::log::location::Location;
use crate::log::record::{Body, ENQUEUE_HEADER, Entry, Op, Target};
use crate::log::segment::Segment;
use crate::types::Payload;

use super::sleeper::Sleep;
use super::{Group, Spare};

/// Pending bytes that start the next group before its time.
pub(crate) const ENOUGH: u64 = 64 * 1024;
/// A group takes no further entry once it would be bigger than this.
const GROUP_MAX: usize = 1024 * 1024;
/// Time between the starts of two groups that are smaller than [`ENOUGH`]: syncs back to back burn CPU for nothing.
const PACE: Duration = Duration::from_micros(300);
/// Large payloads written at the same time.
const LARGE_BATCH: usize = 16;

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
    next_lsn: u64,
    taken: u64,
    // The group being built; `buf` is empty when there is none.
    buf: Vec<u8>,
    ops: Vec<Op>,
    entries_sum: u32,
    full: bool,
    last_start: Option<Instant>,
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
            next_lsn: 0,
            taken: 0,
            buf: Vec::new(),
            ops: Vec::new(),
            entries_sum: 0,
            full: false,
            last_start: None,
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
            if self.buf.is_empty() {
                core.encoder.sleep(Sleep::Idle, None, || !core.pending.is_empty() || core.is_stopping());
            } else if core.sync_busy.load(Ordering::SeqCst) {
                let state = if self.full { Sleep::Full } else { Sleep::Pacing };
                core.encoder.sleep(state, None, || {
                    !core.sync_busy.load(Ordering::SeqCst)
                        || (state == Sleep::Pacing && core.pending.untaken() >= ENOUGH)
                        || core.is_stopping()
                });
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
        if self.full || self.buf.len() as u64 >= ENOUGH {
            return None;
        }
        PACE.checked_sub(self.last_start?.elapsed()).filter(|left| !left.is_zero())
    }

    fn take(&mut self) {
        if !self.batch.is_empty() {
            return;
        }
        let (first, taken) = self.core.pending.take(&mut self.batch);
        if !self.batch.is_empty() {
            self.next_lsn = first;
            self.taken += taken;
        }
    }

    /// Encodes entries until none is left or the group is full.
    fn fill(&mut self) -> Result<(), String> {
        while !self.full && !self.batch.is_empty() {
            if self.batch.front().is_some_and(|entry| self.is_large(entry)) {
                self.write_large()?;
            }
            let Some(entry) = self.batch.front() else {
                break;
            };
            let mut body = self.body_of(entry);
            let mut span = entry.span(body);
            let room = usize::try_from(self.segment.len - self.offset).unwrap_or(usize::MAX);
            if self.buf.is_empty() {
                if group::span(span) > room as u64 {
                    self.roll(span)?;
                    // What stands in the segment before is out of reach of a reference now.
                    let Some(entry) = self.batch.front() else {
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
            let Some(entry) = self.batch.pop_front() else {
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
        if let Body::Elsewhere(location, _) = body
            && let Some(file) = location.as_large()
            && !self.core.index.lock().usage.pin_large(file)
        {
            // It went between `body_of` and here: the entry takes another turn and gets a new file.
            self.batch.push_front(entry);
            return Ok(());
        }
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

    /// Where the payload of an entry goes. A payload that stands in this very segment is referred to; one in an earlier
    /// segment is written again, so that a message and its bytes always share their segment: what one needs, the other pins,
    /// also when only the log is left.
    fn body_of(&self, entry: &Entry) -> Body {
        let Entry::Enqueue { payload, .. } = entry else {
            return Body::Inline;
        };
        let location = Location(payload.place().get());
        let len = payload.encoded_len();
        if let Some(file) = location.as_large() {
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

    /// Whether a payload needs a file of its own that is not there, or no longer.
    fn is_large(&self, entry: &Entry) -> bool {
        let Entry::Enqueue { payload, .. } = entry else {
            return false;
        };
        if payload.encoded_len() < self.core.options.large_bytes {
            return false;
        }
        match Location(payload.place().get()).as_large() {
            Some(file) => !self.core.index.lock().has_large(file),
            None => true,
        }
    }

    /// Gives the large payloads among the next entries their files, several at a time. The group waits for them: the entry
    /// that names a file must not be durable before the file is.
    fn write_large(&mut self) -> Result<(), String> {
        let mut payloads: Vec<Arc<dyn Payload>> = Vec::new();
        for entry in &self.batch {
            if let Entry::Enqueue { payload, .. } = entry
                && self.is_large(entry)
                && !payloads.iter().any(|known| Arc::ptr_eq(known, payload))
            {
                payloads.push(Arc::clone(payload));
                if payloads.len() == LARGE_BATCH {
                    break;
                }
            }
        }
        let ids: Vec<u64> = payloads.iter().map(|_| self.core.new_large_id()).collect();
        let written = large::write_all(&*self.core.options.fs, &self.core.large_dir, &payloads, &ids)
            .map_err(|error| format!("writing a large message: {error}"))?;
        self.core.stats.large(written);
        let mut index = self.core.index.lock();
        for (payload, id) in payloads.iter().zip(ids) {
            index.usage.large.entry(id).or_default();
            payload.place().set(Location::large(id).0);
        }
        Ok(())
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

    /// Goes on in the next segment, which is big enough for an entry of `span` bytes with its body inline.
    fn roll(&mut self, span: usize) -> Result<(), String> {
        let inline = self.batch.front().map_or(span, |entry| match entry {
            Entry::Enqueue { payload, .. } => {
                span.max(ENQUEUE_HEADER + payload.encoded_len().min(self.core.options.large_bytes))
            }
            _ => span,
        });
        let needed = group::span(inline.next_multiple_of(8));
        self.segment =
            self.core.space.next(needed).map_err(|error| format!("opening the next segment of the log: {error}"))?;
        self.offset = 0;
        self.asked = false;
        self.core.schedule.segment_full();
        Ok(())
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
        let group = Group {
            buf: std::mem::take(&mut self.buf),
            ops: std::mem::take(&mut self.ops),
            segment: self.segment.clone(),
            offset,
            last_lsn: self.next_lsn - 1,
            end: Position { segment: self.segment.id, offset: self.offset, link: self.link },
            // While entries are left over, their bytes stay counted as pending until the group that has the last of them.
            taken: if self.batch.is_empty() { std::mem::take(&mut self.taken) } else { 0 },
        };
        self.full = false;
        self.last_start = Some(Instant::now());
        self.core.sync_busy.store(true, Ordering::SeqCst);
        if self.groups.send(group).is_err() {
            return Err("the sync thread is gone".to_owned());
        }
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
