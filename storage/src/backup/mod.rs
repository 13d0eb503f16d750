//! Copying the directory of a running store.
//!
//! A backup is a directory that a store opens: keys, a snapshot of its own, the segments and the large files. Sealed segments
//! and large files are never written again, so they are hard linked where that is possible; of the segment that is being
//! written, the part that is durable is copied. sled is left out, since its files change in place: opening builds it from the
//! snapshot and the log.
//!
//! While it runs nothing is removed or recycled. The order makes it consistent: first the snapshot, which stands for a point
//! of the log or for something later; then the end of the log is noted, which is behind all that the snapshot has; then the
//! files are taken that hold what is live there. A start replays the log from the snapshot to that end.

mod copy;
mod hold;
mod manifest;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::core::{Core, Job};
use crate::fs::Fs;
use crate::index::Position;
use crate::large;
use crate::log::key;
use crate::log::segment;
use crate::store::Store;

use copy::Copier;
pub(crate) use copy::cut;
pub(crate) use hold::Hold;
pub use manifest::BackupManifest;
pub(crate) use manifest::{Kind, kind, restored};

/// What a backup holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackupReport {
    /// Everything up to this position of the log is in it.
    pub lsn: u64,
    /// Segments of the log.
    pub segments: usize,
    /// Files of large messages.
    pub large_files: usize,
    /// Bytes of the files that it shares with the store.
    pub linked_bytes: u64,
    /// Bytes that were copied, the snapshot included.
    pub copied_bytes: u64,
}

/// Why there is no backup. What was written of it has been removed, or can't be opened by mistake.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// One at a time.
    #[error("another backup is being made")]
    Busy,
    /// The directory cannot become a backup.
    #[error("{} {reason}", path.display())]
    Destination {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The caller did not want it any more.
    #[error("the backup was cancelled")]
    Cancelled,
    /// The store was closed or failed meanwhile.
    #[error("the store has stopped")]
    Stopped,
    /// The file system refused something.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

fn failed(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> BackupError {
    let path = path.into();
    move |source| BackupError::Io { action, path, source }
}

impl Store {
    /// Makes a copy of the store in `dest`, which must be empty or not exist, while the store goes on. Everything that was
    /// durable when this was called is in it. It blocks for as long as that takes; `go_on` is asked now and then.
    ///
    /// Opening the copy is restoring it: nothing is missing, and every message counts as redelivered.
    ///
    /// # Errors
    ///
    /// See [`BackupError`]; the store is none the worse for it.
    pub fn backup(&self, dest: &Path, go_on: &dyn Fn() -> bool) -> Result<BackupReport, BackupError> {
        let core = &self.core;
        if core.backing_up.swap(true, Ordering::AcqRel) {
            return Err(BackupError::Busy);
        }
        let backup = Backup { core, fs: &*core.options.fs, dest, go_on };
        let outcome = backup.run();
        core.release();
        core.backing_up.store(false, Ordering::Release);
        outcome
    }
}

struct Backup<'a> {
    core: &'a Core,
    fs: &'a dyn Fs,
    dest: &'a Path,
    go_on: &'a dyn Fn() -> bool,
}

/// What has to be taken, as of one point of the log.
struct Contents {
    lsn: u64,
    end: Position,
    segments: Vec<u64>,
    large: Vec<u64>,
}

impl Backup<'_> {
    fn run(&self) -> Result<BackupReport, BackupError> {
        let is_new = self.look()?;
        let outcome = self.fill(is_new);
        if outcome.is_err() {
            self.clear(is_new);
        }
        outcome
    }

    fn check(&self) -> Result<(), BackupError> {
        if self.core.is_stopping() {
            return Err(BackupError::Stopped);
        }
        if (self.go_on)() { Ok(()) } else { Err(BackupError::Cancelled) }
    }

    /// Looks whether the destination can become a backup. Returns whether it is new.
    fn look(&self) -> Result<bool, BackupError> {
        let refuse = |reason| Err(BackupError::Destination { path: self.dest.to_path_buf(), reason });
        let is_new = !self.fs.exists(self.dest);
        let nearest = if is_new { self.parent() } else { self.dest };
        if !self.fs.exists(nearest) {
            return refuse("cannot be created: the directory above it is missing");
        }
        if !is_new && std::fs::read_dir(self.dest).map_err(failed("list", self.dest))?.next().is_some() {
            return refuse("is not empty");
        }
        match (nearest.canonicalize(), self.core.options.data_dir.canonicalize()) {
            (Ok(nearest), Ok(data)) if nearest.starts_with(&data) => refuse("is inside the data directory"),
            _ => Ok(is_new),
        }
    }

    fn parent(&self) -> &Path {
        self.dest.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
    }

    fn fill(&self, is_new: bool) -> Result<BackupReport, BackupError> {
        if is_new {
            self.fs.create_dir_all(self.dest).map_err(failed("create", self.dest))?;
            self.fs.sync_dir(self.parent()).map_err(failed("sync", self.parent()))?;
        }
        manifest::mark_incomplete(self.fs, self.dest).map_err(failed("write to", self.dest))?;
        let (log, large) = (self.dest.join("log"), self.dest.join("large"));
        for dir in [&log, &large] {
            self.fs.create_dir_all(dir).map_err(failed("create", dir))?;
        }
        self.hold()?;
        let (from, snapshot_bytes) = self.snapshot()?;
        let contents = self.contents(from);
        let check = || self.check();
        let mut copier = Copier::new(self.fs, &check);
        for &id in &contents.segments {
            let (from, to) = (segment::path(&self.core.log_dir, id), segment::path(&log, id));
            if id == contents.end.segment {
                copier.copy(&from, &to, contents.end.offset)?;
            } else {
                copier.link(&from, &to)?;
            }
        }
        for &id in &contents.large {
            copier.link(&large::path(&self.core.large_dir, id), &large::path(&large, id))?;
        }
        for dir in [self.dest, &log] {
            key::write(self.fs, dir, self.core.key).map_err(failed("write a key to", dir))?;
        }
        for dir in [&log, &large] {
            self.fs.sync_dir(dir).map_err(failed("sync", dir))?;
        }
        let report = BackupReport {
            lsn: contents.lsn,
            segments: contents.segments.len(),
            large_files: contents.large.len(),
            linked_bytes: copier.linked,
            copied_bytes: copier.copied + snapshot_bytes,
        };
        self.check()?;
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let time_ms = u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX);
        manifest::complete(self.fs, self.dest, &BackupManifest { lsn: report.lsn, time_ms })
            .map_err(failed("write to", self.dest))?;
        Ok(report)
    }

    /// From here on nothing is removed or recycled. What the space thread was told before is done when this returns.
    fn hold(&self) -> Result<(), BackupError> {
        let (sender, receiver) = mpsc::sync_channel(1);
        self.core.hold_space();
        self.core.post(Job::Fence(sender));
        // The sender goes unused when the thread is gone.
        receiver.recv().map_err(|_| BackupError::Stopped)
    }

    /// The checkpoint thread writes the snapshot, behind a checkpoint of its own: no other knows how to. Returns where the log begins
    /// that has to be replayed over it, and its bytes.
    fn snapshot(&self) -> Result<(Position, u64), BackupError> {
        let (sender, receiver) = mpsc::sync_channel(1);
        self.core.schedule.snapshot_to(self.dest.to_path_buf(), sender);
        let written = receiver.recv().map_err(|_| BackupError::Stopped)?;
        self.check()?;
        written.map_err(failed("write a snapshot to", self.dest))
    }

    /// Where the durable log ends now, and what is live there: no more than that is needed, and the log that is replayed.
    fn contents(&self, from: Position) -> Contents {
        let all = self.core.space.segments_below(u64::MAX);
        let index = self.core.index.lock();
        let end = index.end;
        let is_needed = |id: u64| id >= from.segment || index.usage.segments.get(&id).is_some_and(|used| used.live > 0);
        Contents {
            lsn: index.applied,
            end,
            segments: all.into_iter().filter(|&id| id <= end.segment && is_needed(id)).collect(),
            large: index.usage.large.iter().filter(|(_, used)| used.live > 0).map(|(&id, _)| id).collect(),
        }
    }

    /// Takes away what there is of a backup that came to nothing. What can't be removed stays marked as incomplete.
    fn clear(&self, is_new: bool) {
        let remove_files = |dir: &Path| -> io::Result<()> {
            for entry in self.fs.list(dir)? {
                if !(dir == self.dest && entry.name == manifest::INCOMPLETE) {
                    self.fs.remove_file(&dir.join(entry.name))?;
                }
            }
            Ok(())
        };
        let clear = || -> io::Result<()> {
            for dir in [self.dest.join("log"), self.dest.join("large")] {
                if self.fs.exists(&dir) {
                    remove_files(&dir)?;
                    std::fs::remove_dir(&dir)?;
                }
            }
            remove_files(self.dest)?;
            let mark = self.dest.join(manifest::INCOMPLETE);
            if self.fs.exists(&mark) {
                self.fs.remove_file(&mark)?;
            }
            if is_new { std::fs::remove_dir(self.dest) } else { Ok(()) }
        };
        if let Err(error) = clear() {
            tracing::warn!(path = %self.dest.display(), %error, "what there is of a failed backup cannot be removed");
        }
    }
}
