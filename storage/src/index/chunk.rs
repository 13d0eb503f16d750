//! The index of 1,024 consecutive messages of one queue: a summary that is always in memory, and columns that may be in sled
//! alone.

use crate::types::Seq;

use super::bits::{self, Bits};
use super::columns::{Columns, Overlay};
use super::usage::Held;

/// Messages per chunk.
pub(crate) const CHUNK: u64 = 1024;

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

/// Where the columns of a chunk are.
#[derive(Clone, Debug)]
pub(crate) enum Residence {
    /// In memory. Every live message is counted for exactly.
    Hot(Box<Columns>),
    /// In sled.
    Cold(Box<Cold>),
}

/// What is known of columns that are not in memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cold {
    /// What is counted for the columns in sled. Messages that were settled since are still in it: too much is counted for a
    /// while, never too little.
    pub(crate) held: Held,
    /// What is not in those columns yet.
    pub(crate) overlay: Option<Box<Overlay>>,
}

/// The index of up to [`CHUNK`] messages.
#[derive(Clone, Debug)]
pub(crate) struct Chunk {
    pub(crate) live: Bits,
    pub(crate) redelivered: Option<Box<Bits>>,
    pub(crate) residence: Residence,
    /// Changes with every writing of the columns, and is never the same for two chunks: it tells columns that were just read
    /// from sled from those that sled has now.
    pub(crate) generation: u64,
    /// The deadline with which it stands in the heap of chunks, 0 when it does not.
    pub(crate) armed: u64,
    /// Deadlines up to here are with the messages that are waited for one by one.
    pub(crate) taken_to: u64,
    pub(crate) live_count: u16,
    pub(crate) stored: Stored,
    /// The columns in memory differ from what sled has.
    pub(crate) columns_dirty: bool,
    /// The columns were written to sled by a checkpoint that is not finished.
    pub(crate) unsynced: bool,
    /// The bitmaps differ from what sled has.
    pub(crate) bits_dirty: bool,
    /// It is in the list of what the next checkpoint writes.
    pub(crate) listed: bool,
    /// It is in the list of what may be evicted.
    pub(crate) clocked: bool,
    /// Somebody needed the columns since the hand of the clock passed.
    pub(crate) used: bool,
}

impl Default for Chunk {
    fn default() -> Self {
        Self {
            live: Bits::default(),
            redelivered: None,
            residence: Residence::Hot(Box::default()),
            generation: 0,
            armed: 0,
            taken_to: 0,
            live_count: 0,
            stored: Stored::Nowhere,
            columns_dirty: false,
            unsynced: false,
            bits_dirty: false,
            listed: false,
            clocked: false,
            used: false,
        }
    }
}

/// The number of the chunk a message belongs to, and its slot there.
pub(crate) fn place_of(seq: Seq) -> (u64, usize) {
    (seq / CHUNK, (seq % CHUNK) as usize)
}

impl Chunk {
    /// The columns, when they are in memory.
    pub(crate) fn columns(&self) -> Option<&Columns> {
        match &self.residence {
            Residence::Hot(columns) => Some(columns),
            Residence::Cold(_) => None,
        }
    }

    pub(crate) fn is_cold(&self) -> bool {
        matches!(self.residence, Residence::Cold(_))
    }

    /// What is counted for it differs from what is live, or the columns in sled lack something: both can only be put right
    /// with the columns at hand.
    pub(crate) fn needs_columns(&self) -> bool {
        match &self.residence {
            Residence::Hot(_) => false,
            Residence::Cold(cold) => cold.overlay.is_some() || cold.held.live != self.live_count,
        }
    }

    /// What it counts for.
    pub(crate) fn held(&self) -> Held {
        match &self.residence {
            Residence::Hot(columns) => Held::of(columns, &self.live),
            Residence::Cold(cold) => cold.held.clone(),
        }
    }

    /// Makes a slot live; true when it was not.
    pub(crate) fn set_live(&mut self, slot: usize) -> bool {
        let new = !bits::is_set(&self.live, slot);
        bits::set(&mut self.live, slot);
        self.live_count += u16::from(new);
        if let Some(redelivered) = &mut self.redelivered {
            bits::clear(redelivered, slot);
        }
        self.bits_dirty = true;
        new
    }

    /// Clears a slot that is live.
    pub(crate) fn clear_live(&mut self, slot: usize) {
        bits::clear(&mut self.live, slot);
        if let Some(redelivered) = &mut self.redelivered {
            bits::clear(redelivered, slot);
        }
        self.live_count = self.live_count.saturating_sub(1);
        self.bits_dirty = true;
    }

    pub(crate) fn is_redelivered(&self, slot: usize) -> bool {
        self.redelivered.as_ref().is_some_and(|redelivered| bits::is_set(redelivered, slot))
    }

    pub(crate) fn set_redelivered(&mut self, slot: usize) {
        bits::set(self.redelivered.get_or_insert_default(), slot);
        self.bits_dirty = true;
    }

    /// The first live slot at or after `from`.
    pub(crate) fn next_live(&self, from: usize) -> Option<usize> {
        bits::next(&self.live, from)
    }
}
