//! What live messages need: the segments and the large files that hold their bytes, counted.

use crate::log::location::Location;

use super::IdMap;
use super::bits::{Bits, slots};
use super::columns::Columns;
use super::queue::payload_len;

/// What lives in one segment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SegmentUse {
    /// Live messages whose bytes are in it.
    pub(crate) live: u64,
    /// Bytes of their entries.
    pub(crate) live_bytes: u64,
    /// Readers that have locations in it.
    pub(crate) pins: u32,
}

/// Who needs one large file.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LargeUse {
    /// Live messages.
    pub(crate) live: u32,
    /// Entries that name it and are not applied yet, and readers.
    pub(crate) pins: u32,
}

/// The part of one segment that the messages of a chunk have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct HeldSegment {
    pub(crate) segment: u64,
    pub(crate) live: u16,
    pub(crate) bytes: u64,
}

/// What the messages of one chunk count for, all together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    /// How many messages are counted.
    pub(crate) live: u16,
    /// The least deadline among them, in milliseconds since the Unix epoch; 0 when none has one.
    pub(crate) least_deadline: u64,
    /// Bytes of their payloads.
    pub(crate) payload: u64,
    /// In the order of the ids.
    pub(crate) segments: Box<[HeldSegment]>,
    /// Large files with the number of messages that name them, in the order of the ids.
    pub(crate) large: Box<[(u64, u16)]>,
}

impl Held {
    /// What the messages named by `live` count for.
    pub(crate) fn of(columns: &Columns, live: &Bits) -> Self {
        let mut held = Self::default();
        let mut segments: Vec<HeldSegment> = Vec::new();
        let mut large: Vec<(u64, u16)> = Vec::new();
        for slot in slots(live, 0) {
            let (location, len) = columns.entry(slot);
            held.live += 1;
            held.payload = held.payload.saturating_add(payload_len(location, len));
            let deadline = columns.deadline(slot);
            if deadline != 0 && (held.least_deadline == 0 || deadline < held.least_deadline) {
                held.least_deadline = deadline;
            }
            if let Some((segment, _)) = location.as_segment() {
                let bytes = u64::from(len);
                match segments.last_mut() {
                    Some(last) if last.segment == segment => {
                        last.live += 1;
                        last.bytes += bytes;
                    }
                    _ => segments.push(HeldSegment { segment, live: 1, bytes }),
                }
            } else if let Some(file) = location.as_large() {
                large.push((file, 1));
            }
        }
        segments.sort_unstable_by_key(|held| held.segment);
        segments.dedup_by(|next, held| {
            let same = next.segment == held.segment;
            if same {
                held.live += next.live;
                held.bytes += next.bytes;
            }
            same
        });
        large.sort_unstable();
        large.dedup_by(|next, held| {
            let same = next.0 == held.0;
            held.1 += if same { next.1 } else { 0 };
            same
        });
        held.segments = segments.into_boxed_slice();
        held.large = large.into_boxed_slice();
        held
    }
}

/// The counts of all segments and large files.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    pub(crate) segments: IdMap<SegmentUse>,
    pub(crate) large: IdMap<LargeUse>,
    /// Large files nobody needs any more, to be removed after the next checkpoint.
    pub(crate) large_dead: Vec<u64>,
}

impl Usage {
    /// Live messages in segments, and their bytes.
    pub(crate) fn live(&self) -> (u64, u64) {
        self.segments.values().fold((0, 0), |(messages, bytes), used| (messages + used.live, bytes + used.live_bytes))
    }

    /// Counts one live message at a location.
    pub(crate) fn hold(&mut self, location: Location, len: u32) {
        if let Some((segment, _)) = location.as_segment() {
            let used = self.segments.entry(segment).or_default();
            used.live += 1;
            used.live_bytes += u64::from(len);
        } else if let Some(file) = location.as_large() {
            self.large.entry(file).or_default().live += 1;
        }
    }

    /// One live message less at a location.
    pub(crate) fn release(&mut self, location: Location, len: u32) {
        if let Some((segment, _)) = location.as_segment() {
            self.release_segment(segment, 1, u64::from(len));
        } else if let Some(file) = location.as_large() {
            self.release_large(file, 1);
        }
    }

    /// Counts what a chunk holds.
    pub(crate) fn hold_all(&mut self, held: &Held) {
        for part in &held.segments {
            let used = self.segments.entry(part.segment).or_default();
            used.live = used.live.saturating_add(u64::from(part.live));
            used.live_bytes = used.live_bytes.saturating_add(part.bytes);
        }
        for &(file, live) in &held.large {
            let used = self.large.entry(file).or_default();
            used.live = used.live.saturating_add(u32::from(live));
        }
    }

    /// The opposite of [`Usage::hold_all`].
    pub(crate) fn release_all(&mut self, held: &Held) {
        for part in &held.segments {
            self.release_segment(part.segment, u64::from(part.live), part.bytes);
        }
        for &(file, live) in &held.large {
            self.release_large(file, u32::from(live));
        }
    }

    fn release_segment(&mut self, segment: u64, live: u64, bytes: u64) {
        if let Some(used) = self.segments.get_mut(&segment) {
            used.live = used.live.saturating_sub(live);
            used.live_bytes = used.live_bytes.saturating_sub(bytes);
        }
    }

    fn release_large(&mut self, file: u64, live: u32) {
        if let Some(used) = self.large.get_mut(&file) {
            used.live = used.live.saturating_sub(live);
            if used.live == 0 && used.pins == 0 {
                self.large.remove(&file);
                self.large_dead.push(file);
            }
        }
    }

    /// Pins a large file, unless nobody needs it any more and it may be gone.
    pub(crate) fn pin_large(&mut self, file: u64) -> bool {
        match self.large.get_mut(&file) {
            Some(used) => {
                used.pins += 1;
                true
            }
            None => false,
        }
    }

    /// Takes a pin of a large file back.
    pub(crate) fn unpin_large(&mut self, file: u64) {
        if let Some(used) = self.large.get_mut(&file) {
            used.pins = used.pins.saturating_sub(1);
            if used.live == 0 && used.pins == 0 {
                self.large.remove(&file);
                self.large_dead.push(file);
            }
        }
    }

    /// An entry that names a large file pins it from its encoding until it is applied.
    pub(crate) fn release_pin(&mut self, location: Location) {
        if let Some(file) = location.as_large() {
            self.unpin_large(file);
        }
    }

    /// Pins what holds the bytes of a message for a reader.
    pub(crate) fn pin(&mut self, location: Location) {
        if let Some((segment, _)) = location.as_segment() {
            self.segments.entry(segment).or_default().pins += 1;
        } else if let Some(file) = location.as_large() {
            self.pin_large(file);
        }
    }

    /// Takes a pin of a reader back; true when that leaves a segment without any use.
    pub(crate) fn unpin(&mut self, location: Location) -> bool {
        if let Some((segment, _)) = location.as_segment() {
            if let Some(used) = self.segments.get_mut(&segment) {
                used.pins = used.pins.saturating_sub(1);
                return used.pins == 0 && used.live == 0;
            }
        } else if let Some(file) = location.as_large() {
            self.unpin_large(file);
        }
        false
    }
}
