//! What can be chosen when a store is opened.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::fs::{Fs, RealFs};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// Settings of a store. [`Options::new`] gives the defaults; change the fields that should differ.
#[derive(Clone)]
#[non_exhaustive]
pub struct Options {
    /// Directory that holds everything; created when missing.
    pub data_dir: PathBuf,
    /// Size of a log segment, 64 KiB to 1 GiB, a multiple of 4 KiB (rounded up to one).
    pub segment_bytes: u64,
    /// Free segments kept for reuse; what comes above is unlinked.
    pub pool_segments: usize,
    /// Segment files kept for a full disk: what must go on then (settlements, checkpoints, what was already appended) is
    /// written into these. Made in the background as far as there is room.
    pub reserve_segments: usize,
    /// The disk counts as low when fewer bytes than this are free.
    pub disk_free_limit: u64,
    /// How long after the first change the state goes into sled.
    pub checkpoint_interval: Duration,
    /// Log written since the last snapshot that calls for another (or twice the index, whichever is more).
    pub snapshot_bytes: u64,
    /// How long nothing may have been settled in a segment that is mostly dead before its live messages are moved, unless
    /// there is more dead space than live messages and pool together.
    pub compaction_delay: Duration,
    /// Bytes per second that are moved at most.
    pub compaction_rate: u64,
    /// Cache of sled.
    pub sled_cache_bytes: u64,
    /// Memory for columns of the index, 12 bytes per message; what was not needed lately is read from sled. Changes that take
    /// more call for a checkpoint, and what comes during it comes on top.
    pub index_cache_bytes: u64,
    /// Payloads of this size and more get a file of their own; at most a quarter of a segment.
    pub large_bytes: usize,
    /// A commit, an fdatasync or a checkpoint that takes this long is worth a warning; zero for never.
    pub slow: Duration,
    /// The file system.
    pub fs: Arc<dyn Fs>,
}

impl Options {
    /// The defaults for a data directory.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            segment_bytes: 64 * MIB,
            // A snapshot frees about `snapshot_bytes` of log at once; a pool of that size takes it all, so a steady load
            // never unlinks and never zeroes.
            pool_segments: 6,
            reserve_segments: 4,
            disk_free_limit: 50_000_000,
            checkpoint_interval: Duration::from_millis(500),
            snapshot_bytes: 256 * MIB,
            compaction_delay: Duration::from_secs(10),
            compaction_rate: 16 * MIB,
            sled_cache_bytes: 2 * MIB,
            index_cache_bytes: 4 * MIB,
            large_bytes: MIB as usize,
            slow: Duration::from_secs(1),
            fs: Arc::new(RealFs),
        }
    }

    /// The options with every figure inside the limits the format has.
    pub(crate) fn normalized(mut self) -> Self {
        self.segment_bytes = self.segment_bytes.clamp(64 * KIB, 1024 * MIB).next_multiple_of(4 * KIB);
        let most = usize::try_from(self.segment_bytes / 4).unwrap_or(usize::MAX);
        self.large_bytes = self.large_bytes.clamp(KIB as usize, most);
        self
    }
}
