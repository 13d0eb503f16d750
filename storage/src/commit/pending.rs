//! The pending buffer: entries that nobody has encoded yet, in the order of their LSNs.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use crate::log::record::Entry;
use crate::types::Lsn;

/// Room for so many entries is kept after a burst.
const KEPT: usize = 64 * 1024;

/// Entries waiting for the encoder. The lock is a leaf: nothing else is ever locked while it is held.
pub(crate) struct Pending {
    state: Mutex<State>,
    appended: AtomicU64,
    taken: AtomicU64,
    durable: AtomicU64,
}

struct State {
    entries: VecDeque<Entry>,
    next_lsn: u64,
    bytes: u64,
    /// When the first of the entries came.
    since: Option<Instant>,
}

/// What the encoder has taken, beside the entries.
pub(crate) struct Taken {
    /// LSN of the first.
    pub(crate) first: u64,
    /// Bytes of them all.
    pub(crate) bytes: u64,
    /// When the first came, if there is one.
    pub(crate) since: Option<Instant>,
}

impl Pending {
    pub(crate) fn new(next_lsn: u64) -> Self {
        let state = Mutex::new(State { entries: VecDeque::new(), next_lsn, bytes: 0, since: None });
        Self { state, appended: AtomicU64::new(0), taken: AtomicU64::new(0), durable: AtomicU64::new(0) }
    }

    /// Appends one entry, which counts `bytes` until it is durable.
    pub(crate) fn append(&self, entry: Entry, bytes: usize) -> Lsn {
        let mut state = self.state.lock();
        let lsn = state.next_lsn;
        state.next_lsn += 1;
        state.since.get_or_insert_with(Instant::now);
        state.entries.push_back(entry);
        state.bytes += bytes as u64;
        // Only ever written under the lock: a store, not an addition.
        self.appended.store(state.bytes, Ordering::Relaxed);
        Lsn(lsn)
    }

    /// Appends entries that must follow each other without any other in between; the LSN is that of the last.
    pub(crate) fn append_all(&self, entries: Vec<Entry>, bytes: usize) -> Lsn {
        let mut state = self.state.lock();
        state.next_lsn += entries.len() as u64;
        state.since.get_or_insert_with(Instant::now);
        state.entries.extend(entries);
        state.bytes += bytes as u64;
        self.appended.store(state.bytes, Ordering::Relaxed);
        Lsn(state.next_lsn - 1)
    }

    /// Swaps the entries out into `into`, which is empty.
    pub(crate) fn take(&self, into: &mut VecDeque<Entry>) -> Taken {
        if into.capacity() > KEPT {
            into.shrink_to(KEPT);
        }
        let mut state = self.state.lock();
        let first = state.next_lsn - state.entries.len() as u64;
        std::mem::swap(&mut state.entries, into);
        let bytes = state.bytes - self.taken.load(Ordering::Relaxed);
        self.taken.store(state.bytes, Ordering::Relaxed);
        Taken { first, bytes, since: state.since.take() }
    }

    /// LSN of the last entry appended.
    pub(crate) fn last(&self) -> Lsn {
        Lsn(self.state.lock().next_lsn - 1)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.state.lock().entries.is_empty()
    }

    /// Bytes the encoder has not taken yet.
    pub(crate) fn untaken(&self) -> u64 {
        self.appended.load(Ordering::Relaxed).saturating_sub(self.taken.load(Ordering::Relaxed))
    }

    /// Notes that so many bytes became durable.
    pub(crate) fn settle_bytes(&self, bytes: u64) {
        self.durable.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes appended and not yet durable.
    pub(crate) fn bytes(&self) -> usize {
        let durable = self.durable.load(Ordering::Relaxed);
        usize::try_from(self.appended.load(Ordering::Relaxed).saturating_sub(durable)).unwrap_or(usize::MAX)
    }
}
