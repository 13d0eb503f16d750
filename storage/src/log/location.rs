//! Where the bytes of a message are, in one word.

/// A place in a segment (id and offset of an entry), or the id of a file of its own.
///
/// Bit 63 tells which. A segment id has 36 bits; offsets are multiples of 8 below 1 GiB and take 27. Zero is nowhere, since
/// segment ids start at one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Location(pub(crate) u64);

const LARGE: u64 = 1 << 63;
const OFFSET_BITS: u32 = 27;
const UNIT: u64 = super::record::ALIGN as u64;

impl Location {
    pub(crate) fn segment(id: u64, offset: u64) -> Self {
        Self((id << OFFSET_BITS) | (offset / UNIT))
    }

    pub(crate) fn large(id: u64) -> Self {
        Self(id | LARGE)
    }

    pub(crate) fn as_large(self) -> Option<u64> {
        (self.0 & LARGE != 0).then_some(self.0 & !LARGE)
    }

    pub(crate) fn as_segment(self) -> Option<(u64, u64)> {
        let id = self.0 >> OFFSET_BITS;
        (self.0 & LARGE == 0 && id != 0).then(|| (id, (self.0 & ((1 << OFFSET_BITS) - 1)) * UNIT))
    }
}
