//! The ready messages of one queue by priority: a lane for each level, which is a [`Ready`] of its own.
//!
//! A position says which lane it is in: its uppermost octet is the level, the rest numbers the messages of that lane. The
//! store and the spill know every lane as a queue of its own, whose id has the level in its uppermost octet too. So each
//! lane lies on disk in its own order with its own counts and deadlines, and the highest priority is read first however deep
//! it sits. A lane is made when its level is used for the first time.
//!
//! A queue without priorities has the lane of level 0 alone: there a position is the number in the store, and an id the id.

use storage::{Listed, QueueId, ReadBatch, RecoveredQueue, Seq, SeqRange, SpillBatch};

use super::ready::{Entry, Ready, Skipped, Wanted};
use crate::model::arguments::Arguments;
use crate::model::message::Message;
use crate::model::queue_arguments::max_priority;
use crate::model::queue_kind::QueueKind;

/// The level is above these bits of a position. The store makes ids out of the number of its opening and a counter, and a
/// queue counts its messages: neither comes near.
const LEVEL_SHIFT: u32 = 56;
const BELOW_LEVEL: u64 = (1 << LEVEL_SHIFT) - 1;

/// The level of messages without a priority in a quorum queue.
const QUORUM_PRIORITY: u8 = 4;

/// A queue with so many levels may hold this much more than its share of memory: every level has room for something.
const LEVELS_MAX: usize = 256;

/// The level of a position.
pub(super) fn level_of(seq: Seq) -> u8 {
    (seq >> LEVEL_SHIFT) as u8
}

/// The queue that an id of the store belongs to, and the level that it stands for.
pub fn owner_of(id: QueueId) -> (QueueId, u8) {
    (id & BELOW_LEVEL, (id >> LEVEL_SHIFT) as u8)
}

/// The id by which the store knows a level of a queue.
pub fn id_of(queue: QueueId, level: u8) -> QueueId {
    at_level(queue, level)
}

/// What the store calls a position of a queue.
pub(super) fn in_store(queue: QueueId, seq: Seq) -> (QueueId, Seq) {
    (queue | (seq & !BELOW_LEVEL), seq & BELOW_LEVEL)
}

/// Gives what was read from the store the positions of the queue, at the level of the position that the read began at.
pub(super) fn as_positions(first: Seq, batch: &mut ReadBatch) {
    let level = level_of(first);
    batch.next = at_level(batch.next, level);
    batch.damaged.iter_mut().for_each(|seq| *seq = at_level(*seq, level));
    batch.messages.iter_mut().for_each(|read| read.seq = at_level(read.seq, level));
}

fn at_level(number: u64, level: u8) -> u64 {
    number | u64::from(level) << LEVEL_SHIFT
}

fn range_at_level(range: SeqRange, level: u8) -> SeqRange {
    SeqRange { first: at_level(range.first, level), last: at_level(range.last, level) }
}

/// See the module's documentation.
#[derive(Default)]
pub(super) struct Lanes {
    lowest: Lane,
    /// In an allocation of its own: most queues have no priorities.
    higher: Option<Box<Higher>>,
}

struct Lane {
    next_seq: Seq,
    ready: Ready,
}

impl Default for Lane {
    fn default() -> Self {
        Self::new(false)
    }
}

impl Lane {
    fn new(counts: bool) -> Self {
        Self { next_seq: 1, ready: Ready::new(counts) }
    }
}

/// The levels above 0, and what is known of all levels together.
struct Higher {
    /// The highest level.
    max: u8,
    /// That of a message that does not say.
    middle: u8,
    /// As [`Ready::new`] has it.
    counts: bool,
    /// Level 1 and up.
    lanes: Vec<Option<Box<Lane>>>,
    /// Levels with ready messages.
    busy: Levels,
    /// Levels of which something is on disk only.
    cold: Levels,
    total: Weight,
    /// No message in memory has an earlier deadline.
    first_deadline: Option<u64>,
}

/// What a lane holds.
#[derive(Clone, Copy, Default)]
struct Weight {
    messages: usize,
    /// In memory.
    bytes: usize,
    accounted_bytes: usize,
    /// Of bodies, also on disk.
    body_bytes: u64,
}

impl Weight {
    fn of(ready: &Ready) -> Self {
        Self {
            messages: ready.len(),
            bytes: ready.bytes(),
            accounted_bytes: ready.accounted_bytes(),
            body_bytes: ready.body_bytes(),
        }
    }

    fn change(&mut self, before: Self, after: Self) {
        self.messages = self.messages.saturating_sub(before.messages) + after.messages;
        self.bytes = self.bytes.saturating_sub(before.bytes) + after.bytes;
        self.accounted_bytes = self.accounted_bytes.saturating_sub(before.accounted_bytes) + after.accounted_bytes;
        self.body_bytes = self.body_bytes.saturating_sub(before.body_bytes) + after.body_bytes;
    }
}

impl Higher {
    fn lane(&mut self, level: u8) -> &mut Lane {
        let at = usize::from(level).saturating_sub(1);
        if self.lanes.len() <= at {
            self.lanes.resize_with(at + 1, || None);
        }
        let counts = self.counts;
        self.lanes[at].get_or_insert_with(|| Box::new(Lane::new(counts)))
    }

    fn get(&self, level: u8) -> Option<&Lane> {
        self.lanes.get(usize::from(level).checked_sub(1)?)?.as_deref()
    }
}

/// A set of levels.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Levels([u64; 4]);

impl Levels {
    fn set(&mut self, level: u8, is_in: bool) {
        let (word, bit) = (usize::from(level >> 6), 1 << (level & 63));
        if is_in { self.0[word] |= bit } else { self.0[word] &= !bit }
    }

    fn is_empty(self) -> bool {
        self.0 == [0; 4]
    }

    /// The highest one below `below`.
    fn highest(self, below: u16) -> Option<u8> {
        (0..self.0.len()).rev().find_map(|word| {
            let first = word as u16 * 64;
            let count = below.saturating_sub(first).min(64);
            let wanted = if count == 64 { u64::MAX } else { (1 << count) - 1 };
            let found = self.0[word] & wanted;
            (found != 0).then(|| first as u8 + (63 - found.leading_zeros()) as u8)
        })
    }
}

impl Lanes {
    /// Empty lanes for levels up to `max`.
    pub(super) fn new(max: u8) -> Self {
        let higher = || {
            Box::new(Higher {
                max,
                middle: 0,
                counts: false,
                lanes: Vec::new(),
                busy: Levels::default(),
                cold: Levels::default(),
                total: Weight::default(),
                first_deadline: None,
            })
        };
        Self { lowest: Lane::default(), higher: (max > 0).then(higher) }
    }

    /// The lanes of a queue with these arguments.
    pub(super) fn of(arguments: &Arguments) -> Self {
        let mut lanes = Self::new(max_priority(arguments));
        if QueueKind::of(arguments) == QueueKind::Quorum
            && let Some(higher) = &mut lanes.higher
        {
            lanes.lowest = Lane::new(true);
            (higher.middle, higher.counts) = (QUORUM_PRIORITY, true);
        }
        lanes
    }

    /// With what was found at start: its backlog is on disk.
    pub(super) fn recovered(mut self, found: &[RecoveredQueue]) -> Self {
        let lanes = &mut self;
        let max = lanes.higher.as_ref().map_or(0, |higher| higher.max);
        for found in found {
            let (_, level) = owner_of(found.id);
            if level > max {
                continue;
            }
            lanes.lane(level).next_seq = found.next_seq.max(1);
            lanes.change(level, |ready| ready.recover(found.first, found.next_seq, found.messages));
        }
        self
    }

    /// Whether messages have a priority here.
    pub(super) fn has_levels(&self) -> bool {
        self.higher.is_some()
    }

    /// Where a message belongs by its priority property.
    pub(super) fn level_for(&self, message: &Message) -> u8 {
        self.higher
            .as_ref()
            .map_or(0, |higher| message.priority().map_or(higher.middle, |priority| priority.min(higher.max)))
    }

    /// Gives out the next position of a level.
    pub(super) fn next_seq(&mut self, level: u8) -> Seq {
        let lane = self.lane(level);
        let seq = lane.next_seq;
        lane.next_seq += 1;
        at_level(seq, level)
    }

    /// The levels that were used so far.
    pub(super) fn levels(&self) -> impl Iterator<Item = u8> {
        let lanes = self.higher.iter().flat_map(|higher| higher.lanes.iter().zip(1..=u8::MAX));
        std::iter::once(0).chain(lanes.filter_map(|(lane, level)| lane.as_ref().map(|_| level)))
    }

    fn lane(&mut self, level: u8) -> &mut Lane {
        match &mut self.higher {
            Some(higher) if level > 0 => higher.lane(level),
            _ => &mut self.lowest,
        }
    }

    fn get(&self, level: u8) -> Option<&Ready> {
        if level == 0 {
            return Some(&self.lowest.ready);
        }
        self.higher.as_ref()?.get(level).map(|lane| &lane.ready)
    }

    /// Changes one lane, and what is known of all.
    fn change<R>(&mut self, level: u8, change: impl FnOnce(&mut Ready) -> R) -> R {
        let Some(higher) = &mut self.higher else {
            return change(&mut self.lowest.ready);
        };
        let ready = match level {
            0 => &mut self.lowest.ready,
            _ => &mut higher.lane(level).ready,
        };
        let before = Weight::of(ready);
        let result = change(ready);
        let (after, deadline) = (Weight::of(ready), ready.first_deadline());
        let (busy, cold) = (!ready.is_empty(), ready.has_backlog());
        higher.total.change(before, after);
        higher.busy.set(level, busy);
        higher.cold.set(level, cold);
        higher.first_deadline = [higher.first_deadline, deadline].into_iter().flatten().min();
        result
    }

    /// The lane whose turn it is.
    fn top(&self) -> u8 {
        self.higher.as_ref().and_then(|higher| higher.busy.highest(LEVELS_MAX as u16)).unwrap_or(0)
    }

    /// As [`Ready::len`].
    pub(super) fn len(&self) -> usize {
        self.higher.as_ref().map_or_else(|| self.lowest.ready.len(), |higher| higher.total.messages)
    }

    /// As [`Ready::is_empty`].
    pub(super) fn is_empty(&self) -> bool {
        self.higher.as_ref().map_or_else(|| self.lowest.ready.is_empty(), |higher| higher.busy.is_empty())
    }

    /// As [`Ready::accounted_bytes`].
    pub(super) fn accounted_bytes(&self) -> usize {
        self.higher.as_ref().map_or_else(|| self.lowest.ready.accounted_bytes(), |higher| higher.total.accounted_bytes)
    }

    /// As [`Ready::body_bytes`].
    pub(super) fn body_bytes(&self) -> u64 {
        self.higher.as_ref().map_or_else(|| self.lowest.ready.body_bytes(), |higher| higher.total.body_bytes)
    }

    /// Whether the next message is in memory.
    pub(super) fn has_front(&self) -> bool {
        self.get(self.top()).is_some_and(Ready::has_front)
    }

    /// Whether some messages of a level are on disk only.
    pub(super) fn has_backlog(&self, level: u8) -> bool {
        self.get(level).is_some_and(Ready::has_backlog)
    }

    /// As [`Ready::push`]. Every level may have a small part of `resident_max` for itself: what is urgent need not go to disk
    /// because what is not fills the memory.
    pub(super) fn push(&mut self, entry: Entry, stored: bool, resident_max: usize) -> Option<Entry> {
        let Some(higher) = &self.higher else {
            return self.lowest.ready.push(entry, stored, resident_max);
        };
        let level = level_of(entry.seq);
        let others = higher.total.bytes.saturating_sub(self.get(level).map_or(0, Ready::bytes));
        let max = resident_max.saturating_sub(others).max(resident_max / LEVELS_MAX);
        let left = self.change(level, |ready| ready.push(in_lane(entry), stored, max));
        left.map(|entry| in_queue(entry, level))
    }

    /// As [`Ready::insert`].
    pub(super) fn insert(&mut self, entry: Entry) {
        let level = level_of(entry.seq);
        self.change(level, |ready| ready.insert(in_lane(entry)));
    }

    /// As [`Ready::insert_all`]; the positions ascend.
    pub(super) fn insert_all(&mut self, entries: Vec<Entry>) {
        if self.higher.is_none() {
            return self.lowest.ready.insert_all(entries);
        }
        let mut entries = entries.into_iter().peekable();
        while let Some(first) = entries.next() {
            let level = level_of(first.seq);
            let mut same = vec![in_lane(first)];
            while let Some(entry) = entries.next_if(|entry| level_of(entry.seq) == level) {
                same.push(in_lane(entry));
            }
            self.change(level, |ready| ready.insert_all(same));
        }
    }

    /// Takes the next message, unless it is on disk.
    pub(super) fn pop(&mut self) -> Option<Entry> {
        if self.higher.is_none() {
            return self.lowest.ready.pop();
        }
        let level = self.top();
        self.change(level, Ready::pop).map(|entry| in_queue(entry, level))
    }

    /// A level with messages that are not measured, and where: see [`Ready::unmeasured`].
    pub(super) fn unmeasured(&self) -> Option<(u8, Seq)> {
        self.levels().find_map(|level| Some((level, self.get(level)?.unmeasured()?)))
    }

    /// As [`Ready::measured`], for one level.
    pub(super) fn measured(&mut self, level: u8, from: Seq, batch: ReadBatch) {
        self.change(level, |ready| ready.measured(from, batch));
    }

    /// As [`Ready::skip`].
    pub(super) fn skip(&mut self) -> Skipped {
        let level = self.top();
        match self.change(level, Ready::skip) {
            Skipped::Stored(seq) => Skipped::Stored(at_level(seq, level)),
            other => other,
        }
    }

    /// The earliest deadline of a message in memory, or some time before it.
    pub(super) fn first_deadline(&self) -> Option<u64> {
        match &self.higher {
            None => self.lowest.ready.first_deadline(),
            Some(higher) => higher.first_deadline,
        }
    }

    /// The deadline of the message that is handed out next, if it has one and is in memory.
    pub(super) fn head_deadline(&self) -> Option<u64> {
        self.get(self.top())?.head_deadline()
    }

    /// As [`Ready::take_due`].
    pub(super) fn take_due(&mut self, now_ms: u64) -> Vec<Entry> {
        if self.higher.is_none() {
            return self.lowest.ready.take_due(now_ms);
        }
        if self.first_deadline().is_none_or(|deadline_ms| deadline_ms > now_ms) {
            return Vec::new();
        }
        let mut due = Vec::new();
        let levels: Vec<u8> = self.levels().collect();
        for &level in &levels {
            let taken = self.change(level, |ready| ready.take_due(now_ms));
            due.extend(taken.into_iter().map(|entry| in_queue(entry, level)));
        }
        let first = levels.iter().filter_map(|level| self.get(*level)?.first_deadline()).min();
        if let Some(higher) = &mut self.higher {
            higher.first_deadline = first;
        }
        due
    }

    /// As [`Ready::take_stored`], for one level and the numbers that the store knows its messages by; gives positions.
    pub(super) fn take_stored(&mut self, level: u8, named: &[Seq], reading: bool) -> Vec<Seq> {
        if self.get(level).is_none() {
            return Vec::new();
        }
        let mut taken = self.change(level, |ready| ready.take_stored(named, reading));
        taken.iter_mut().for_each(|seq| *seq = at_level(*seq, level));
        taken
    }

    /// As [`Ready::reserve`].
    pub(super) fn reserve(&mut self, seq: Seq) {
        self.lane(level_of(seq)).ready.reserve(seq & BELOW_LEVEL);
    }

    /// As [`Ready::unreserve`].
    pub(super) fn unreserve(&mut self, seq: Seq) {
        self.lane(level_of(seq)).ready.unreserve(seq & BELOW_LEVEL);
    }

    /// The level to read from next and what, when those whose turn comes before hold less than this in memory.
    pub(super) fn wants(&self, messages: usize, bytes: usize) -> Option<(u8, Wanted)> {
        let Some(higher) = &self.higher else {
            return self.lowest.ready.wants(messages, bytes).map(|wanted| (0, wanted));
        };
        if higher.cold.is_empty() {
            return None;
        }
        let (mut messages, mut bytes) = (messages, bytes);
        let mut below = LEVELS_MAX as u16;
        while let Some(level) = higher.busy.highest(below)
            && let Some(ready) = self.get(level)
        {
            if let Some(wanted) = ready.wants(messages, bytes) {
                return Some((level, wanted));
            }
            messages = messages.saturating_sub(ready.len());
            bytes = bytes.saturating_sub(ready.bytes());
            if messages == 0 || bytes == 0 {
                break;
            }
            below = u16::from(level);
        }
        None
    }

    /// Octets of messages in memory.
    pub(super) fn bytes(&self) -> usize {
        self.higher.as_ref().map_or_else(|| self.lowest.ready.bytes(), |higher| higher.total.bytes)
    }

    /// As [`Ready::loaded`], for one level.
    pub(super) fn loaded(&mut self, level: u8, batch: ReadBatch, end: Seq) -> u64 {
        self.change(level, |ready| ready.loaded(batch, end))
    }

    /// As [`Ready::listed`], for one level.
    pub(super) fn listed(&mut self, level: u8, listed: Listed, end: Seq) -> u64 {
        self.change(level, |ready| ready.listed(listed, end))
    }

    /// As [`Ready::loaded_spilled`], for one level.
    pub(super) fn loaded_spilled(
        &mut self,
        level: u8,
        batch: SpillBatch,
        messages: u64,
        expired: &mut Vec<Entry>,
    ) -> u64 {
        let before = expired.len();
        let lost = self.change(level, |ready| ready.loaded_spilled(batch, messages, expired));
        expired.iter_mut().skip(before).for_each(|entry| entry.seq = at_level(entry.seq, level));
        lost
    }

    /// As [`Ready::has_expired_spilled`].
    pub(super) fn has_expired_spilled(&self) -> bool {
        self.levels().any(|level| self.get(level).is_some_and(Ready::has_expired_spilled))
    }

    /// As [`Ready::is_behind_all`], for the messages of the same level.
    pub(super) fn is_behind_all(&self, seq: Seq) -> bool {
        self.get(level_of(seq)).is_none_or(|ready| ready.is_behind_all(seq & BELOW_LEVEL))
    }

    /// Empties all lanes; gives the number of messages and the positions that the store must forget.
    pub(super) fn clear(&mut self) -> (usize, Vec<SeqRange>) {
        let (mut count, mut ranges) = (0, Vec::new());
        let levels: Vec<u8> = self.levels().collect();
        for level in levels {
            let (messages, cleared) = self.change(level, Ready::clear);
            count += messages;
            ranges.extend(cleared.into_iter().map(|range| range_at_level(range, level)));
        }
        if let Some(higher) = &mut self.higher {
            higher.first_deadline = None;
        }
        (count, ranges)
    }

    /// As [`Ready::redelivered`], by the ids of the store.
    pub(super) fn redelivered(&self, queue: QueueId) -> Vec<(QueueId, Vec<SeqRange>)> {
        let found = self.levels().map(|level| (id_of(queue, level), self.get(level).map(Ready::redelivered)));
        found.filter_map(|(id, ranges)| ranges.filter(|ranges| !ranges.is_empty()).map(|ranges| (id, ranges))).collect()
    }
}

/// The entry as its lane numbers it.
fn in_lane(entry: Entry) -> Entry {
    Entry { seq: entry.seq & BELOW_LEVEL, ..entry }
}

/// The entry as its queue numbers it.
fn in_queue(entry: Entry, level: u8) -> Entry {
    Entry { seq: at_level(entry.seq, level), ..entry }
}

#[cfg(test)]
mod tests;
