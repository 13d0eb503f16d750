//! The index of 1,024 consecutive messages of one queue.

use crate::log::location::Location;
use crate::types::{Meta, Seq};

/// Messages per chunk.
pub(crate) const CHUNK: u64 = 1024;
const WORDS: usize = (CHUNK / 64) as usize;

/// One bit per message of a chunk.
pub(crate) type Bits = [u64; WORDS];

/// Which keys of sled hold the columns of a chunk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Stored {
    /// None.
    #[default]
    Nowhere,
    /// One, for all of it.
    Whole,
    /// Four, of 256 messages each, because one would have been too big.
    Quarters,
}

/// Columns that most messages don't need; each is empty until one does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MetaColumns {
    pub(crate) deadlines: Vec<u64>,
    pub(crate) priorities: Vec<u8>,
    pub(crate) delivery_counts: Vec<u32>,
}

/// The index of up to [`CHUNK`] messages.
#[derive(Clone, Debug, Default)]
pub(crate) struct Chunk {
    pub(crate) locations: Vec<Location>,
    pub(crate) lens: Vec<u32>,
    pub(crate) live: Bits,
    pub(crate) redelivered: Option<Box<Bits>>,
    pub(crate) meta: Option<Box<MetaColumns>>,
    pub(crate) live_count: u16,
    /// The columns differ from what sled has.
    pub(crate) columns_dirty: bool,
    /// The bitmaps differ from what sled has.
    pub(crate) bits_dirty: bool,
    /// It is in the list of what the next checkpoint writes.
    pub(crate) listed: bool,
    pub(crate) stored: Stored,
}

/// The number of the chunk a message belongs to, and its slot there.
pub(crate) fn place_of(seq: Seq) -> (u64, usize) {
    (seq / CHUNK, (seq % CHUNK) as usize)
}

impl Chunk {
    pub(crate) fn is_live(&self, slot: usize) -> bool {
        self.live[slot / 64] & (1 << (slot % 64)) != 0
    }

    /// Sets a slot; returns what was live there before.
    pub(crate) fn insert(&mut self, slot: usize, location: Location, len: u32, meta: &Meta) -> Option<(Location, u32)> {
        let before = self.remove(slot);
        if self.locations.len() <= slot {
            self.locations.resize(slot + 1, Location::default());
            self.lens.resize(slot + 1, 0);
        }
        self.locations[slot] = location;
        self.lens[slot] = len;
        if *meta != Meta::default() || self.meta.is_some() {
            self.set_meta(slot, meta);
        }
        self.live[slot / 64] |= 1 << (slot % 64);
        self.live_count += 1;
        self.columns_dirty = true;
        self.bits_dirty = true;
        before
    }

    /// Gives a live slot another location; returns what it had.
    pub(crate) fn relocate(&mut self, slot: usize, location: Location, len: u32) -> (Location, u32) {
        let before = self.entry(slot);
        if let (Some(at), Some(length)) = (self.locations.get_mut(slot), self.lens.get_mut(slot)) {
            (*at, *length) = (location, len);
            self.columns_dirty = true;
        }
        before
    }

    /// Clears a slot; returns what was live there.
    pub(crate) fn remove(&mut self, slot: usize) -> Option<(Location, u32)> {
        if !self.is_live(slot) {
            return None;
        }
        self.live[slot / 64] &= !(1 << (slot % 64));
        if let Some(redelivered) = &mut self.redelivered {
            redelivered[slot / 64] &= !(1 << (slot % 64));
        }
        self.live_count -= 1;
        self.bits_dirty = true;
        Some(self.entry(slot))
    }

    /// Gives the memory of the columns back.
    pub(crate) fn release_columns(&mut self) {
        self.locations = Vec::new();
        self.lens = Vec::new();
        self.meta = None;
        self.redelivered = None;
        self.columns_dirty = true;
    }

    /// Location and length of a slot.
    pub(crate) fn entry(&self, slot: usize) -> (Location, u32) {
        (self.locations.get(slot).copied().unwrap_or_default(), self.lens.get(slot).copied().unwrap_or_default())
    }

    pub(crate) fn meta(&self, slot: usize) -> Meta {
        let Some(meta) = &self.meta else {
            return Meta::default();
        };
        let deadline = meta.deadlines.get(slot).copied().unwrap_or_default();
        Meta {
            deadline_ms: (deadline != 0).then_some(deadline),
            priority: meta.priorities.get(slot).copied().unwrap_or_default(),
            delivery_count: meta.delivery_counts.get(slot).copied().unwrap_or_default(),
        }
    }

    pub(crate) fn set_meta(&mut self, slot: usize, value: &Meta) {
        let meta = self.meta.get_or_insert_default();
        set(&mut meta.deadlines, slot, value.deadline_ms.unwrap_or_default());
        set(&mut meta.priorities, slot, value.priority);
        set(&mut meta.delivery_counts, slot, value.delivery_count);
        self.columns_dirty = true;
    }

    pub(crate) fn is_redelivered(&self, slot: usize) -> bool {
        self.redelivered.as_ref().is_some_and(|bits| bits[slot / 64] & (1 << (slot % 64)) != 0)
    }

    pub(crate) fn set_redelivered(&mut self, slot: usize) {
        let bits = self.redelivered.get_or_insert_with(|| Box::new([0; WORDS]));
        bits[slot / 64] |= 1 << (slot % 64);
        self.bits_dirty = true;
    }

    /// The first live slot at or after `from`.
    pub(crate) fn next_live(&self, from: usize) -> Option<usize> {
        let mut word = from / 64;
        let mut bits = self.live.get(word)? & (u64::MAX << (from % 64));
        while bits == 0 {
            word += 1;
            bits = *self.live.get(word)?;
        }
        Some(word * 64 + bits.trailing_zeros() as usize)
    }

    /// The live slots from `from` on, ascending.
    pub(crate) fn live_slots(&self, from: usize) -> impl Iterator<Item = usize> + '_ {
        std::iter::successors(self.next_live(from), |slot| self.next_live(slot + 1))
    }
}

fn set<T: Copy + Default + PartialEq>(column: &mut Vec<T>, slot: usize, value: T) {
    if column.len() <= slot {
        if value == T::default() {
            return;
        }
        column.resize(slot + 1, T::default());
    }
    column[slot] = value;
}
