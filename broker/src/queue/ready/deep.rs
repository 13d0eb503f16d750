//! What of the ready messages is on disk, and how much that is known to be.

use std::collections::{BTreeSet, VecDeque};

use storage::Seq;

use super::measure::Unmeasured;
use crate::queue::sequence::Sequence;

/// Messages that are on disk, and those behind them.
pub(super) struct Backlog {
    /// First sequence number not read from the store yet. Means nothing while the store has no message.
    pub(super) next: Seq,
    /// One past the last.
    pub(super) end: Seq,
    /// Messages of it that only the store has.
    pub(super) on_disk: u64,
    /// Octets of the bodies of messages on disk, but for those not measured. What leaves the disk unread takes the average
    /// with it.
    pub(super) disk_bytes: u64,
    pub(super) unmeasured: Option<Unmeasured>,
    /// Messages that the spill has.
    pub(super) spilled: u64,
    /// No message in the spill lies below this.
    pub(super) spill_next: Seq,
    /// Messages in the spill that have expired: it still has them, and they count for nothing.
    pub(super) expired_spilled: BTreeSet<Seq>,
    /// Messages of its range that are in memory: transient ones, which exist nowhere else; those of transactions, which a
    /// read that is under way may miss; and those read from one place while the other has older ones.
    pub(super) resident: Sequence,
    /// Residents of transactions that have expired: the store may still read or name them.
    pub(super) expired_resident: BTreeSet<Seq>,
    /// Messages on disk that have expired and that a read may still bring: one was under way, or they stay in the store
    /// until they are dead-lettered.
    pub(super) expired_unread: BTreeSet<Seq>,
    /// Messages that the store is known to have from `next` on, and perhaps some below; those that expire leave.
    pub(super) listed: VecDeque<Seq>,
}

impl Backlog {
    pub(super) fn new(next: Seq, end: Seq, on_disk: u64) -> Self {
        Self {
            next,
            end,
            on_disk,
            disk_bytes: 0,
            unmeasured: None,
            spilled: 0,
            spill_next: 0,
            expired_spilled: BTreeSet::new(),
            resident: Sequence::default(),
            expired_resident: BTreeSet::new(),
            expired_unread: BTreeSet::new(),
            listed: VecDeque::new(),
        }
    }

    /// Messages on disk that have not expired.
    pub(super) fn on_disk(&self) -> usize {
        self.on_disk as usize + (self.spilled as usize).saturating_sub(self.expired_spilled.len())
    }

    /// This message is about to leave the disk without having been read.
    pub(super) fn forget_bytes(&mut self, seq: Seq) {
        if self.unmeasured.as_mut().is_some_and(|unmeasured| unmeasured.take(seq)) {
            return;
        }
        let not_counted = self.unmeasured.map_or(0, |unmeasured| unmeasured.messages());
        let counted = (self.on_disk() as u64).saturating_sub(not_counted).max(1);
        self.disk_bytes -= self.disk_bytes / counted;
    }

    /// Messages below this are in memory, all of them.
    pub(super) fn floor(&self) -> Seq {
        match (self.spilled, self.on_disk) {
            (0, _) => self.next,
            (_, 0) => self.spill_next,
            _ => self.next.min(self.spill_next),
        }
    }

    pub(super) fn has_expired(&self, seq: Seq) -> bool {
        self.expired_resident.contains(&seq) || self.expired_unread.contains(&seq)
    }
}
