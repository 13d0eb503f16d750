//! The columns of a chunk: where its messages are, and what is kept beside their bytes.

use std::collections::BTreeMap;

use crate::log::location::Location;
use crate::types::Meta;

use super::chunk::CHUNK;

/// Columns with more messages than this get room for all there can be at once, instead of growing further.
const FEW: usize = 128;

/// Bytes that a message takes in them, without what most messages don't need.
pub(super) const ENTRY_BYTES: usize = 8 + 4;

/// Columns that most messages don't need; each is empty until one does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MetaColumns {
    pub(crate) deadlines: Vec<u64>,
    pub(crate) priorities: Vec<u8>,
    pub(crate) delivery_counts: Vec<u32>,
}

/// One value of each per slot. What stands at slots that are not live means nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Columns {
    locations: Vec<Location>,
    lens: Vec<u32>,
    meta: Option<Box<MetaColumns>>,
}

impl Columns {
    /// Sets all of a slot.
    pub(crate) fn set(&mut self, slot: usize, location: Location, len: u32, meta: &Meta) {
        if self.locations.len() <= slot {
            if slot >= FEW && self.locations.capacity() <= slot {
                self.locations.reserve_exact(CHUNK as usize - self.locations.len());
                self.lens.reserve_exact(CHUNK as usize - self.lens.len());
            }
            self.locations.resize(slot + 1, Location::default());
            self.lens.resize(slot + 1, 0);
        }
        self.locations[slot] = location;
        self.lens[slot] = len;
        if *meta != Meta::default() || self.meta.is_some() {
            self.set_meta(slot, meta);
        }
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

    /// The deadline of a slot, 0 when it has none.
    pub(crate) fn deadline(&self, slot: usize) -> u64 {
        self.meta.as_ref().and_then(|meta| meta.deadlines.get(slot).copied()).unwrap_or_default()
    }

    pub(crate) fn set_meta(&mut self, slot: usize, value: &Meta) {
        let meta = self.meta.get_or_insert_default();
        set(&mut meta.deadlines, slot, value.deadline_ms.unwrap_or_default());
        set(&mut meta.priorities, slot, value.priority);
        set(&mut meta.delivery_counts, slot, value.delivery_count);
    }

    /// Sets location and length of a slot that is there.
    pub(crate) fn set_location(&mut self, slot: usize, location: Location, len: u32) {
        if let (Some(at), Some(length)) = (self.locations.get_mut(slot), self.lens.get_mut(slot)) {
            (*at, *length) = (location, len);
        }
    }

    /// A count that is larger already stays.
    pub(crate) fn raise_delivery_count(&mut self, slot: usize, count: u32) {
        let known = self.meta.as_ref().and_then(|meta| meta.delivery_counts.get(slot)).copied().unwrap_or_default();
        if count <= known {
            return;
        }
        set(&mut self.meta.get_or_insert_default().delivery_counts, slot, count);
    }

    pub(crate) fn meta_columns(&self) -> Option<&MetaColumns> {
        self.meta.as_deref()
    }

    /// Bytes of memory they take.
    pub(crate) fn memory(&self) -> usize {
        let meta = self.meta.as_ref().map_or(0, |meta| {
            meta.deadlines.capacity() * 8 + meta.priorities.capacity() + meta.delivery_counts.capacity() * 4 + 72
        });
        self.locations.capacity() * 8 + self.lens.capacity() * 4 + meta
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

/// A message that came to a chunk whose columns are not in memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Late {
    pub(crate) location: Location,
    pub(crate) len: u32,
    pub(crate) meta: Meta,
}

/// What has to be changed in columns once they are in memory again.
#[derive(Clone, Debug, Default)]
pub(crate) struct Overlay {
    /// Whole entries; each is counted for its bytes from the moment it stands here, live or not.
    entries: BTreeMap<u16, Late>,
    /// Other messages that are somewhere else now, with their lengths; counted like the entries.
    moved: BTreeMap<u16, (Location, u32)>,
    /// Delivery counts of other messages.
    delivery_counts: BTreeMap<u16, u32>,
}

impl Overlay {
    /// Sets an entry; returns what was counted for the slot.
    pub(crate) fn put(&mut self, slot: usize, late: Late) -> Option<(Location, u32)> {
        self.delivery_counts.remove(&(slot as u16));
        let moved = self.moved.remove(&(slot as u16));
        self.entries.insert(slot as u16, late).map(|late| (late.location, late.len)).or(moved)
    }

    /// A message is somewhere else now; returns what was counted for the slot.
    pub(crate) fn relocate(&mut self, slot: usize, location: Location, len: u32) -> Option<(Location, u32)> {
        match self.entries.get_mut(&(slot as u16)) {
            Some(late) => {
                Some((std::mem::replace(&mut late.location, location), std::mem::replace(&mut late.len, len)))
            }
            None => self.moved.insert(slot as u16, (location, len)),
        }
    }

    /// Locations and lengths that are counted.
    pub(crate) fn counted(&self) -> impl Iterator<Item = (Location, u32)> + '_ {
        self.entries.values().map(|late| (late.location, late.len)).chain(self.moved.values().copied())
    }

    /// A count that is larger already stays.
    pub(crate) fn raise_delivery_count(&mut self, slot: usize, count: u32) {
        let known = match self.entries.get_mut(&(slot as u16)) {
            Some(late) => &mut late.meta.delivery_count,
            None => self.delivery_counts.entry(slot as u16).or_default(),
        };
        *known = count.max(*known);
    }

    /// Makes the changes.
    pub(crate) fn apply(&self, columns: &mut Columns) {
        for (&slot, late) in &self.entries {
            columns.set(usize::from(slot), late.location, late.len, &late.meta);
        }
        for (&slot, &(location, len)) in &self.moved {
            columns.set_location(usize::from(slot), location, len);
        }
        for (&slot, &count) in &self.delivery_counts {
            columns.raise_delivery_count(usize::from(slot), count);
        }
    }
}
