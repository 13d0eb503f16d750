//! The header of a group: what one pwrite and one fdatasync cover.

use super::key::Key;

/// Version of the on-disk format, in every group header and file header.
pub(crate) const VERSION: u16 = 1;
/// Groups begin at multiples of this, so a sync never rewrites a page of an earlier group.
pub(crate) const ALIGN: usize = 4096;
/// Size of the header as this version writes it.
pub(crate) const HEADER: usize = 72;

const MAGIC: &[u8; 8] = b"WARRNGRP";

/// Header of a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct GroupHeader {
    /// The segment it belongs to; groups left by an earlier life of a recycled file name another one.
    pub(crate) segment: u64,
    /// LSN of the first entry; the others follow without gaps.
    pub(crate) first_lsn: u64,
    /// Everything up to here was known to be synced when the group was written.
    pub(crate) synced_upto: u64,
    /// Which opening of the store wrote it.
    pub(crate) epoch: u64,
    /// Number of entries.
    pub(crate) count: u32,
    /// Bytes of the entries, each padded to its alignment; the padding to the next group is not counted.
    pub(crate) length: u32,
    /// Checksum of the header of the group before, whichever segment that is in.
    pub(crate) previous: u32,
    /// Checksum over the entries' checksums.
    pub(crate) entries_sum: u32,
}

/// What stands where a group header may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// A group of this segment, with the checksum of its header.
    Group(GroupHeader, u32),
    /// A group of this segment, written by a newer format version.
    Newer(u16),
    /// Anything else.
    Nothing,
}

impl GroupHeader {
    /// LSN of the last entry.
    pub(crate) fn last_lsn(&self) -> u64 {
        self.first_lsn + u64::from(self.count).saturating_sub(1)
    }

    /// Bytes the group takes in the segment.
    pub(crate) fn span(&self) -> u64 {
        span(self.length as usize)
    }

    /// Writes the header into the first [`HEADER`] bytes of `out`; returns its checksum.
    pub(crate) fn put(&self, key: &Key, out: &mut [u8]) -> u32 {
        let mut header = Vec::with_capacity(HEADER);
        header.extend_from_slice(MAGIC);
        header.extend_from_slice(&VERSION.to_le_bytes());
        header.extend_from_slice(&(HEADER as u16).to_le_bytes());
        header.extend_from_slice(&[0; 4]);
        for word in [self.segment, self.first_lsn, self.synced_upto, self.epoch] {
            header.extend_from_slice(&word.to_le_bytes());
        }
        for half in [self.count, self.length, self.previous, self.entries_sum] {
            header.extend_from_slice(&half.to_le_bytes());
        }
        header.extend_from_slice(&[0; 8]);
        let sum = crc32c::crc32c_append(key.group_seed(), &header);
        header[12..16].copy_from_slice(&sum.to_le_bytes());
        out[..HEADER].copy_from_slice(&header);
        sum
    }

    /// Reads what stands at the start of `buf`, which is a place of `segment`.
    pub(crate) fn parse(buf: &[u8], key: &Key, segment: u64) -> Found {
        let Some(header) = buf.first_chunk::<HEADER>() else {
            return Found::Nothing;
        };
        if !header.starts_with(MAGIC) {
            return Found::Nothing;
        }
        let version = u16::from_le_bytes([header[8], header[9]]);
        let len = usize::from(u16::from_le_bytes([header[10], header[11]]));
        let Some(whole) = buf.get(..len).filter(|_| len >= HEADER) else {
            return Found::Nothing;
        };
        let mut cleared = whole.to_vec();
        cleared[12..16].fill(0);
        let sum = u32_at(header, 12);
        if crc32c::crc32c_append(key.group_seed(), &cleared) != sum || u64_at(header, 16) != segment {
            return Found::Nothing;
        }
        if version > VERSION || len != HEADER {
            return Found::Newer(version);
        }
        let parsed = Self {
            segment,
            first_lsn: u64_at(header, 24),
            synced_upto: u64_at(header, 32),
            epoch: u64_at(header, 40),
            count: u32_at(header, 48),
            length: u32_at(header, 52),
            previous: u32_at(header, 56),
            entries_sum: u32_at(header, 60),
        };
        Found::Group(parsed, sum)
    }
}

/// Bytes a group with `length` bytes of entries takes in a segment.
pub(crate) fn span(length: usize) -> u64 {
    (HEADER + length).next_multiple_of(ALIGN) as u64
}

fn u32_at(header: &[u8; HEADER], at: usize) -> u32 {
    u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
}

fn u64_at(header: &[u8; HEADER], at: usize) -> u64 {
    u64::from(u32_at(header, at)) | (u64::from(u32_at(header, at + 4)) << 32)
}
