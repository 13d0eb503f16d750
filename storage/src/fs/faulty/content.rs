//! The contents of one file: as the processes see them, and as the platter has them.

use std::collections::{BTreeMap, BTreeSet};

use rand::Rng;
use rand::rngs::StdRng;

/// What reaches the disk at once, if it is not torn.
pub(super) const PAGE: usize = 4096;
/// What reaches it at once in any case.
const SECTOR: usize = 512;
/// Older contents of a page that are remembered until the next sync.
const VERSIONS_MAX: usize = 4;
/// One page in so many that are on their way is torn.
const TORN: u32 = 8;

/// A file.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    live: Vec<u8>,
    synced: Vec<u8>,
    /// Pages that were written since the last sync, with what they held in between, oldest first.
    dirty: BTreeMap<usize, Vec<Vec<u8>>>,
    /// Pages that take up room.
    blocks: BTreeSet<usize>,
}

impl Content {
    pub(super) fn len(&self) -> usize {
        self.live.len()
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.live
    }

    /// Bytes of the disk it takes up.
    pub(super) fn room(&self) -> u64 {
        (self.blocks.len() * PAGE) as u64
    }

    /// Bytes a write would take up beyond that.
    pub(super) fn more_room(&self, offset: usize, len: usize) -> u64 {
        (pages(offset, offset + len).filter(|page| !self.blocks.contains(page)).count() * PAGE) as u64
    }

    pub(super) fn write(&mut self, buf: &[u8], offset: usize) {
        let end = offset + buf.len();
        if self.live.len() < end {
            self.live.resize(end, 0);
        }
        for page in pages(offset, end) {
            self.soil(page);
            self.blocks.insert(page);
        }
        self.live[offset..end].copy_from_slice(buf);
    }

    /// Takes up room for everything up to `len`.
    pub(super) fn allocate(&mut self, len: usize) {
        self.blocks.extend(pages(0, len));
        self.live.resize(self.live.len().max(len), 0);
    }

    /// Notes that a page is about to change.
    fn soil(&mut self, page: usize) {
        match self.dirty.get_mut(&page) {
            Some(versions) if versions.len() < VERSIONS_MAX => versions.push(page_of(&self.live, page).to_vec()),
            Some(_) => {}
            None => drop(self.dirty.insert(page, Vec::new())),
        }
    }

    pub(super) fn set_len(&mut self, len: usize) {
        if len < self.live.len() {
            for page in pages(len, self.live.len()) {
                self.soil(page);
            }
            self.blocks.retain(|page| page * PAGE < len);
        }
        self.live.resize(len, 0);
    }

    pub(super) fn sync(&mut self) {
        self.synced.resize(self.live.len(), 0);
        for page in std::mem::take(&mut self.dirty).into_keys() {
            put_page(&mut self.synced, page, page_of(&self.live, page));
        }
    }

    /// A sync failed. Some pages reached the disk; the others count as clean all the same and are never written unless they
    /// change again. The cache still has them, or they are read again as they were before.
    pub(super) fn fail_sync(&mut self, rng: &mut StdRng) {
        if rng.random() {
            self.synced.resize(self.live.len(), 0);
        }
        for page in std::mem::take(&mut self.dirty).into_keys() {
            match rng.random_range(0..3) {
                0 => put_page(&mut self.synced, page, page_of(&self.live, page)),
                1 => {
                    let mut old = page_of(&self.synced, page).to_vec();
                    old.resize(PAGE, 0);
                    put_page(&mut self.live, page, &old);
                }
                _ => {}
            }
        }
    }

    /// The power fails: the size is the old one, the new one or one between, and of the pages that were on their way any may
    /// have arrived, as they were last, as they were before, or in part.
    pub(super) fn lose_power(&mut self, rng: &mut StdRng) {
        let mut left = std::mem::take(&mut self.synced);
        let (short, long) = (left.len().min(self.live.len()), left.len().max(self.live.len()));
        let len = match rng.random_range(0..4) {
            0 => left.len(),
            1 => rng.random_range(short..=long),
            _ => self.live.len(),
        };
        left.resize(len, 0);
        // None, few, some, most or all of the pages that were on their way.
        let chance = [0.0, 0.1, 0.5, 0.9, 1.0][rng.random_range(0..5)];
        for (page, versions) in std::mem::take(&mut self.dirty) {
            if !rng.random_bool(chance) {
                continue;
            }
            let version = rng.random_range(0..=versions.len() * 2);
            let mut new = versions.get(version).map_or_else(|| page_of(&self.live, page), Vec::as_slice).to_vec();
            if rng.random_ratio(1, TORN) {
                tear(page_of(&left, page), &mut new, rng);
            }
            put_page(&mut left, page, &new);
        }
        self.live.clone_from(&left);
        self.blocks.retain(|page| page * PAGE < left.len());
        self.synced = left;
    }
}

/// A write of `new` over `old` is cut off at a sector, from the front or from the back.
pub(super) fn tear(old: &[u8], new: &mut Vec<u8>, rng: &mut StdRng) {
    let cut = rng.random_range(0..=PAGE / SECTOR) * SECTOR;
    let torn = if rng.random() { cut..PAGE } else { 0..cut };
    new.resize(PAGE, 0);
    for at in torn {
        new[at] = old.get(at).copied().unwrap_or_default();
    }
}

/// The pages that a range of bytes touches.
fn pages(from: usize, to: usize) -> impl Iterator<Item = usize> {
    from / PAGE..to.div_ceil(PAGE)
}

/// A page, shorter at the end of the file and empty behind it.
pub(super) fn page_of(bytes: &[u8], page: usize) -> &[u8] {
    let start = (page * PAGE).min(bytes.len());
    &bytes[start..(start + PAGE).min(bytes.len())]
}

/// Puts a page where it belongs, as far as the file goes.
pub(super) fn put_page(bytes: &mut [u8], page: usize, new: &[u8]) {
    let start = (page * PAGE).min(bytes.len());
    let end = (start + new.len()).min(bytes.len());
    bytes[start..end].copy_from_slice(&new[..end - start]);
}
