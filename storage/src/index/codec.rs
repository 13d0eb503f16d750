//! The bytes of the index, the same in sled and in a snapshot. Every value begins with its version.

use crate::bytes_cursor::{Cursor, put_prefixed, put_varint, unzigzag, zigzag};
use crate::log::location::Location;
use crate::types::Meta;

use super::bits::{self, Bits};
use super::chunk::{CHUNK, Chunk, Stored};
use super::columns::{Columns, MetaColumns};
use super::queue::QueueIndex;
use super::usage::{Held, HeldSegment};

const VERSION: u8 = 1;
/// Version of a chunk's bitmaps; the first had nothing else in it.
const BITS_VERSION: u8 = 2;
const WITH_REDELIVERED: u8 = 1;
const IN_QUARTERS: u8 = 2;
const WHOLE: u8 = 0;
const QUARTER: u8 = 1;
const DEADLINES: u8 = 1;
const PRIORITIES: u8 = 2;
const DELIVERY_COUNTS: u8 = 4;

/// Messages in a quarter of a chunk.
pub(crate) const QUARTER_SLOTS: usize = CHUNK as usize / 4;

/// The columns of the live messages in a run of slots: location and length as differences, then what meta columns there are.
pub(crate) fn put_columns(
    columns: &Columns,
    live: &Bits,
    slots: std::ops::Range<usize>,
    part: Stored,
    out: &mut Vec<u8>,
) {
    let live: Vec<usize> = bits::slots(live, slots.start).take_while(|&slot| slot < slots.end).collect();
    out.push(VERSION);
    out.push(if part == Stored::Quarters { QUARTER } else { WHOLE });
    put_varint(out, live.len() as u64);
    let (mut expected_slot, mut expected_location, mut last_len) = (slots.start, 0, 0);
    for &slot in &live {
        let (location, len) = columns.entry(slot);
        put_varint(out, (slot - expected_slot) as u64);
        put_varint(out, zigzag(expected_location, location.0));
        put_varint(out, zigzag(last_len, u64::from(len)));
        expected_slot = slot + 1;
        // The next entry most often begins where this one ends.
        expected_location = location.0.wrapping_add(u64::from(len).div_ceil(8));
        last_len = u64::from(len);
    }
    let empty = MetaColumns::default();
    let meta = columns.meta_columns().unwrap_or(&empty);
    let mut present = 0;
    for (flag, used) in [
        (DEADLINES, !meta.deadlines.is_empty()),
        (PRIORITIES, !meta.priorities.is_empty()),
        (DELIVERY_COUNTS, !meta.delivery_counts.is_empty()),
    ] {
        present |= if used { flag } else { 0 };
    }
    out.push(present);
    let deadline = |slot: usize| meta.deadlines.get(slot).copied().unwrap_or_default();
    if present & DEADLINES != 0 {
        let least = live.iter().map(|&slot| deadline(slot)).filter(|&at| at != 0).min().unwrap_or_default();
        put_varint(out, least);
        for &slot in &live {
            // Zero stays "none"; the others are distances from the least, plus one.
            let at = deadline(slot);
            put_varint(out, if at == 0 { 0 } else { (at - least).saturating_add(1) });
        }
    }
    if present & PRIORITIES != 0 {
        out.extend(live.iter().map(|&slot| meta.priorities.get(slot).copied().unwrap_or_default()));
    }
    if present & DELIVERY_COUNTS != 0 {
        for &slot in &live {
            put_varint(out, u64::from(meta.delivery_counts.get(slot).copied().unwrap_or_default()));
        }
    }
}

/// Of what part of a chunk some columns are.
pub(crate) fn part_of(bytes: &[u8]) -> Option<Stored> {
    match bytes {
        [VERSION, QUARTER, ..] => Some(Stored::Quarters),
        [VERSION, _, ..] => Some(Stored::Whole),
        _ => None,
    }
}

/// Puts columns that begin at slot `start` back, and notes in `known` which slots they have. Says of what part of the chunk
/// they are.
pub(crate) fn take_columns(bytes: &[u8], start: usize, columns: &mut Columns, known: &mut Bits) -> Option<Stored> {
    let mut cursor = Cursor::new(bytes);
    let part = part_of(cursor.bytes(2)?)?;
    let count = cursor.varint()?;
    let mut slots = Vec::new();
    let (mut slot, mut location, mut len) = (start as u64, 0, 0);
    for _ in 0..count {
        slot = slot.checked_add(cursor.varint()?).filter(|&slot| slot < CHUNK)?;
        location = unzigzag(location, cursor.varint()?);
        len = unzigzag(len, cursor.varint()?);
        let stored = u32::try_from(len).ok()?;
        columns.set(slot as usize, Location(location), stored, &Meta::default());
        bits::set(known, slot as usize);
        slots.push(slot as usize);
        slot += 1;
        location = location.wrapping_add(len.div_ceil(8));
    }
    let present = cursor.u8()?;
    if present == 0 {
        return Some(part);
    }
    let mut metas = vec![Meta::default(); slots.len()];
    if present & DEADLINES != 0 {
        let least = cursor.varint()?;
        for meta in &mut metas {
            let coded = cursor.varint()?;
            meta.deadline_ms = (coded != 0).then(|| least.saturating_add(coded - 1));
        }
    }
    if present & PRIORITIES != 0 {
        for meta in &mut metas {
            meta.priority = cursor.u8()?;
        }
    }
    if present & DELIVERY_COUNTS != 0 {
        for meta in &mut metas {
            meta.delivery_count = u32::try_from(cursor.varint()?).ok()?;
        }
    }
    for (slot, meta) in slots.into_iter().zip(&metas) {
        columns.set_meta(slot, meta);
    }
    Some(part)
}

/// The summary of a chunk: which messages are live, which of those were delivered before, and what they count for.
pub(crate) fn put_bits(chunk: &Chunk, out: &mut Vec<u8>) {
    out.push(BITS_VERSION);
    let redelivered = if chunk.redelivered.is_some() { WITH_REDELIVERED } else { 0 };
    out.push(redelivered | if chunk.stored == Stored::Quarters { IN_QUARTERS } else { 0 });
    for word in chunk.live.iter().chain(chunk.redelivered.iter().flat_map(|bits| bits.iter())) {
        out.extend_from_slice(&word.to_le_bytes());
    }
    let held = chunk.held();
    put_varint(out, u64::from(held.live));
    put_varint(out, held.least_deadline);
    put_varint(out, held.payload);
    put_varint(out, held.segments.len() as u64);
    let mut last = 0;
    for part in &held.segments {
        put_varint(out, part.segment.wrapping_sub(last));
        put_varint(out, u64::from(part.live));
        put_varint(out, part.bytes);
        last = part.segment;
    }
    put_varint(out, held.large.len() as u64);
    let mut last = 0;
    for &(file, live) in &held.large {
        put_varint(out, file.wrapping_sub(last));
        put_varint(out, u64::from(live));
        last = file;
    }
}

/// The inverse of [`put_bits`]: a chunk without columns. A value of the first version does not say what the chunk counts for.
pub(crate) fn take_bits(bytes: &[u8]) -> Option<(Chunk, Option<Held>)> {
    let mut cursor = Cursor::new(bytes);
    let version = cursor.u8()?;
    let flags = cursor.u8()?;
    if !(1..=BITS_VERSION).contains(&version) {
        return None;
    }
    let mut chunk = Chunk { live: read_bits(&mut cursor)?, stored: Stored::Whole, ..Chunk::default() };
    chunk.live_count = bits::count(&chunk.live);
    if flags & WITH_REDELIVERED != 0 {
        chunk.redelivered = Some(Box::new(read_bits(&mut cursor)?));
    }
    if version == 1 {
        return Some((chunk, None));
    }
    if flags & IN_QUARTERS != 0 {
        chunk.stored = Stored::Quarters;
    }
    let live = u16::try_from(cursor.varint()?).ok()?;
    let (least_deadline, payload) = (cursor.varint()?, cursor.varint()?);
    let (mut segments, mut last) = (Vec::new(), 0u64);
    for _ in 0..cursor.varint()? {
        last = last.wrapping_add(cursor.varint()?);
        let live = u16::try_from(cursor.varint()?).ok()?;
        segments.push(HeldSegment { segment: last, live, bytes: cursor.varint()? });
    }
    let (mut large, mut last) = (Vec::new(), 0u64);
    for _ in 0..cursor.varint()? {
        last = last.wrapping_add(cursor.varint()?);
        large.push((last, u16::try_from(cursor.varint()?).ok()?));
    }
    let (segments, large) = (segments.into_boxed_slice(), large.into_boxed_slice());
    Some((chunk, Some(Held { live, least_deadline, payload, segments, large })))
}

fn read_bits(cursor: &mut Cursor<'_>) -> Option<Bits> {
    let mut bits = Bits::default();
    for word in &mut bits {
        *word = cursor.u64()?;
    }
    Some(bits)
}

/// What is stored of a queue itself.
pub(crate) fn put_queue(queue: &QueueIndex, out: &mut Vec<u8>) {
    out.push(VERSION);
    put_varint(out, queue.next_seq);
    put_varint(out, queue.redelivered_below);
}

/// The inverse of [`put_queue`].
pub(crate) fn take_queue(bytes: &[u8], queue: &mut QueueIndex) -> Option<()> {
    let mut cursor = Cursor::new(bytes);
    if cursor.u8()? != VERSION {
        return None;
    }
    queue.next_seq = cursor.varint()?;
    queue.redelivered_below = cursor.varint()?;
    Some(())
}

/// One key and value of the topology.
pub(crate) fn put_topology(key: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.push(VERSION);
    put_prefixed(out, key);
    put_prefixed(out, value);
}

/// The inverse of [`put_topology`].
pub(crate) fn take_topology(bytes: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let mut cursor = Cursor::new(bytes);
    if cursor.u8()? != VERSION {
        return None;
    }
    Some((cursor.prefixed()?.to_vec(), cursor.prefixed()?.to_vec()))
}

/// A list of queue ids.
pub(crate) fn put_ids(ids: impl ExactSizeIterator<Item = u64>, out: &mut Vec<u8>) {
    out.push(VERSION);
    put_varint(out, ids.len() as u64);
    for id in ids {
        put_varint(out, id);
    }
}

/// The inverse of [`put_ids`].
pub(crate) fn take_ids(bytes: &[u8]) -> Option<Vec<u64>> {
    let mut cursor = Cursor::new(bytes);
    if cursor.u8()? != VERSION {
        return None;
    }
    let count = cursor.varint()?;
    let mut ids = Vec::new();
    for _ in 0..count {
        ids.push(cursor.varint()?);
    }
    Some(ids)
}
