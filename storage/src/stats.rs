//! What the store counts about itself.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Number of buckets of a [`Histogram`].
pub const BUCKETS: usize = 32;

/// Counts by powers of two: bucket `i` has the values from `2^(i-1)` (0 for the first) up to, not including, `2^i`; the last
/// has everything above.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// The counts.
    pub buckets: [u64; BUCKETS],
    /// Sum of all values.
    pub sum: u64,
}

impl Histogram {
    /// Number of values.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// An upper bound of the value below which a share `q` (0 to 1) of the values lies.
    #[must_use]
    pub fn quantile(&self, q: f64) -> u64 {
        let rank = (self.count() as f64 * q).ceil() as u64;
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return 1u64 << bucket;
            }
        }
        u64::MAX
    }
}

/// Figures of a store since it was opened.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Groups written.
    pub groups: u64,
    /// fdatasync calls on the log (one per group).
    pub fdatasyncs: u64,
    /// Bytes written to the log, padding included.
    pub log_bytes: u64,
    /// Bytes of zeroes written to new segment files ahead of their use.
    pub prepared_bytes: u64,
    /// Bytes written to files of large messages.
    pub large_bytes: u64,
    /// Bytes handed to sled.
    pub sled_bytes: u64,
    /// Bytes written to snapshots.
    pub snapshot_bytes: u64,
    /// Messages that compaction moved out of segments that were mostly dead.
    pub relocated_messages: u64,
    /// Bytes of their log entries.
    pub relocated_bytes: u64,
    /// Checkpoints done.
    pub checkpoints: u64,
    /// Snapshots written.
    pub snapshots: u64,
    /// Segments in use.
    pub segments: usize,
    /// Free segment files kept for reuse.
    pub free_segments: usize,
    /// Segment files kept for a full disk.
    pub reserve_segments: usize,
    /// Bytes appended and not yet durable.
    pub pending_bytes: usize,
    /// Bytes of memory that the part of the index takes which sled may have alone.
    pub index_bytes: usize,
    /// Chunks of about 1,024 messages whose index sled has alone.
    pub cold_chunks: usize,
    /// Entries per group.
    pub group_entries: Histogram,
    /// Bytes per group.
    pub group_bytes: Histogram,
    /// Microseconds from the start of a group's write to the end of its fdatasync.
    pub sync_micros: Histogram,
    /// Microseconds of the fdatasync alone.
    pub fdatasync_micros: Histogram,
    /// Microseconds from the first append of a group until those who wait for it were told.
    pub commit_micros: Histogram,
    /// Segment files that were put aside for reuse.
    pub recycled_segments: u64,
    /// Live messages that the segments hold, those in files of their own not included.
    pub live_messages: u64,
    /// Bytes of their log entries.
    pub live_bytes: u64,
    /// Files of large messages.
    pub large_files: usize,
}

#[derive(Default)]
struct HistogramCells {
    buckets: [AtomicU64; BUCKETS],
    sum: AtomicU64,
}

impl HistogramCells {
    fn add(&self, value: u64) {
        let bucket = (u64::BITS - value.leading_zeros()) as usize;
        self.buckets[bucket.min(BUCKETS - 1)].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    fn read(&self) -> Histogram {
        let mut out = Histogram { sum: self.sum.load(Ordering::Relaxed), ..Histogram::default() };
        for (to, from) in out.buckets.iter_mut().zip(&self.buckets) {
            *to = from.load(Ordering::Relaxed);
        }
        out
    }
}

/// The live counters behind [`Stats`].
#[derive(Default)]
pub(crate) struct Cells {
    groups: AtomicU64,
    log_bytes: AtomicU64,
    prepared_bytes: AtomicU64,
    large_bytes: AtomicU64,
    sled_bytes: AtomicU64,
    snapshot_bytes: AtomicU64,
    relocated_messages: AtomicU64,
    relocated_bytes: AtomicU64,
    checkpoints: AtomicU64,
    snapshots: AtomicU64,
    group_entries: HistogramCells,
    group_bytes: HistogramCells,
    sync_micros: HistogramCells,
    fdatasync_micros: HistogramCells,
    commit_micros: HistogramCells,
}

/// A group that is on the disk.
pub(crate) struct GroupDone {
    pub(crate) bytes: u64,
    pub(crate) entries: u64,
    pub(crate) write: Duration,
    pub(crate) sync: Duration,
}

fn micros(took: Duration) -> u64 {
    u64::try_from(took.as_micros()).unwrap_or(u64::MAX)
}

impl Cells {
    pub(crate) fn group(&self, group: &GroupDone) {
        self.groups.fetch_add(1, Ordering::Relaxed);
        self.log_bytes.fetch_add(group.bytes, Ordering::Relaxed);
        self.group_entries.add(group.entries);
        self.group_bytes.add(group.bytes);
        self.sync_micros.add(micros(group.write + group.sync));
        self.fdatasync_micros.add(micros(group.sync));
    }

    pub(crate) fn commit(&self, took: Duration) {
        self.commit_micros.add(micros(took));
    }

    pub(crate) fn prepared(&self, bytes: u64) {
        self.prepared_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn large(&self, bytes: u64) {
        self.large_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn checkpoint(&self, bytes: u64) {
        self.checkpoints.fetch_add(1, Ordering::Relaxed);
        self.sled_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn snapshot(&self, bytes: u64) {
        self.snapshots.fetch_add(1, Ordering::Relaxed);
        self.snapshot_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn relocated(&self, messages: u64, bytes: u64) {
        self.relocated_messages.fetch_add(messages, Ordering::Relaxed);
        self.relocated_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn log_bytes(&self) -> u64 {
        self.log_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn read(&self) -> Stats {
        let groups = self.groups.load(Ordering::Relaxed);
        Stats {
            groups,
            fdatasyncs: groups,
            log_bytes: self.log_bytes.load(Ordering::Relaxed),
            prepared_bytes: self.prepared_bytes.load(Ordering::Relaxed),
            large_bytes: self.large_bytes.load(Ordering::Relaxed),
            sled_bytes: self.sled_bytes.load(Ordering::Relaxed),
            snapshot_bytes: self.snapshot_bytes.load(Ordering::Relaxed),
            relocated_messages: self.relocated_messages.load(Ordering::Relaxed),
            relocated_bytes: self.relocated_bytes.load(Ordering::Relaxed),
            checkpoints: self.checkpoints.load(Ordering::Relaxed),
            snapshots: self.snapshots.load(Ordering::Relaxed),
            group_entries: self.group_entries.read(),
            group_bytes: self.group_bytes.read(),
            sync_micros: self.sync_micros.read(),
            fdatasync_micros: self.fdatasync_micros.read(),
            commit_micros: self.commit_micros.read(),
            ..Stats::default()
        }
    }
}
