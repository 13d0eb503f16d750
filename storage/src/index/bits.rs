//! One bit per message of a chunk.

use super::chunk::CHUNK;

const WORDS: usize = (CHUNK / 64) as usize;

/// A bitmap over the slots of a chunk.
pub(crate) type Bits = [u64; WORDS];

pub(crate) fn is_set(bits: &Bits, slot: usize) -> bool {
    bits[slot / 64] & (1 << (slot % 64)) != 0
}

pub(crate) fn set(bits: &mut Bits, slot: usize) {
    bits[slot / 64] |= 1 << (slot % 64);
}

pub(crate) fn clear(bits: &mut Bits, slot: usize) {
    bits[slot / 64] &= !(1 << (slot % 64));
}

pub(crate) fn count(bits: &Bits) -> u16 {
    bits.iter().map(|word| word.count_ones() as u16).sum()
}

/// The first slot at or after `from` whose bit is set.
pub(crate) fn next(bits: &Bits, from: usize) -> Option<usize> {
    let mut word = from / 64;
    let mut rest = bits.get(word)? & (u64::MAX << (from % 64));
    while rest == 0 {
        word += 1;
        rest = *bits.get(word)?;
    }
    Some(word * 64 + rest.trailing_zeros() as usize)
}

/// The slots from `from` on whose bits are set, ascending.
pub(crate) fn slots(bits: &Bits, from: usize) -> impl Iterator<Item = usize> + '_ {
    std::iter::successors(next(bits, from), |slot| next(bits, slot + 1))
}
