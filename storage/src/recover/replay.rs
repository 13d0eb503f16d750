//! Bringing the entries of accepted groups into the index.

use std::path::Path;
use std::sync::Arc;

use crate::error::{OpenError, io_error};
use crate::fs::{File, Fs, OpenMode};
use crate::index::{Index, Position};
use crate::log::group::VERSION;
use crate::log::key::Key;
use crate::log::record::{DecodeError, Op, Verified};
use crate::log::segment;

use super::progress::Progress;
use super::scan::{GroupRef, Walked, read_group, walk};

/// What a replay learned beside the index.
#[derive(Debug, Default)]
pub(crate) struct Replayed {
    /// Entries that were applied.
    pub(crate) entries: u64,
    /// Highest LSN that a CheckpointDone names.
    pub(crate) checkpoint_lsn: u64,
    /// The last entry says that the store was closed.
    pub(crate) clean: bool,
    /// Lines about entries that could not be used.
    pub(crate) damage: Vec<String>,
    /// The segments they are in.
    pub(crate) damaged: Vec<u64>,
}

/// Applies everything above `base_lsn`. `relieve` is called after every group, and may move columns out of memory.
pub(crate) fn replay(
    fs: &dyn Fs,
    log_dir: &Path,
    key: &Key,
    groups: &[GroupRef],
    base_lsn: u64,
    index: &mut Index,
    mut relieve: impl FnMut(&mut Index) -> Result<(), OpenError>,
) -> Result<Replayed, OpenError> {
    let mut progress = Progress::new("groups of the log replayed", groups.len() as u64);
    let mut replay = Replay { base_lsn, index, out: Replayed::default(), tx_sum: 0, tx_count: 0, error: None };
    let mut open: Option<(u64, Arc<dyn File>)> = None;
    for (done, group) in groups.iter().enumerate() {
        progress.at(done as u64);
        let path = segment::path(log_dir, group.segment);
        let file = match open.take() {
            Some((id, file)) if id == group.segment => file,
            _ => fs.open(&path, OpenMode::Read).map_err(io_error("read", &path))?,
        };
        let bytes = read_group(&*file, &path, group.offset, &group.header)?;
        open = Some((group.segment, file));
        walk(&bytes, key, group.segment, group.offset, group.header.count, |at, walked| {
            let lsn = group.header.first_lsn + u64::from(at);
            match walked {
                Walked::Good(entry, offset) => replay.entry(lsn, entry, group.segment, offset, &path),
                Walked::Bad(_) => replay.end_tx(),
            }
        });
        if let Some(error) = replay.error.take() {
            return Err(error);
        }
        let end = Position { segment: group.segment, offset: group.offset + group.header.span(), link: group.sum };
        replay.index.apply_group(std::iter::empty(), group.header.last_lsn(), end);
        relieve(replay.index)?;
    }
    replay.end_tx();
    Ok(replay.out)
}

struct Replay<'a> {
    base_lsn: u64,
    index: &'a mut Index,
    out: Replayed,
    tx_sum: u32,
    tx_count: u32,
    error: Option<OpenError>,
}

impl Replay<'_> {
    fn entry(&mut self, lsn: u64, entry: Verified<'_>, segment: u64, offset: u64, path: &Path) {
        let op = match entry.decode(segment, offset) {
            Ok(op) => op,
            Err(DecodeError::NotUnderstood(kind)) => {
                let what = format!("a log entry of type {kind} that must be understood, at offset {offset}");
                // The entry verifies, so it was written like this: by a newer version that kept the group format.
                let version = VERSION + 1;
                self.error.get_or_insert(OpenError::Format {
                    path: path.to_path_buf(),
                    version,
                    what,
                    supported: VERSION,
                });
                return;
            }
            Err(DecodeError::Malformed) => {
                self.out.damaged.push(segment);
                self.out
                    .damage
                    .push(format!("{}: the log entry at offset {offset} (LSN {lsn}) is malformed", path.display()));
                self.end_tx();
                return;
            }
        };
        self.out.clean = matches!(op, Op::CheckpointDone { clean: true, .. });
        if let Op::CheckpointDone { lsn, .. } = op {
            self.out.checkpoint_lsn = self.out.checkpoint_lsn.max(lsn);
        }
        if lsn <= self.base_lsn {
            return;
        }
        self.out.entries += 1;
        match &op {
            Op::Enqueue { tx: true, .. } | Op::Settle { tx: true, .. } => {
                self.tx_sum = crc32c::crc32c_append(self.tx_sum, &entry.checksum.to_le_bytes());
                self.tx_count += 1;
            }
            Op::TxEnd { count, checksum } => {
                let whole = *count == self.tx_count && *checksum == self.tx_sum;
                (self.tx_sum, self.tx_count) = (0, 0);
                if !whole {
                    self.out
                        .damage
                        .push(format!("the transaction that ends at LSN {lsn} is incomplete and was left out"));
                    self.index.abandon_tx();
                    return;
                }
            }
            _ => (self.tx_sum, self.tx_count) = (0, 0),
        }
        self.index.apply(op);
    }

    /// Parts of a transaction before this point have no end.
    fn end_tx(&mut self) {
        (self.tx_sum, self.tx_count) = (0, 0);
        self.index.abandon_tx();
    }
}
