//! Reading a data directory that no store has open, without writing a byte into it.
//!
//! - `verify`: is everything as it was written, and what is lost if not.
//! - `dump`: the entries of the log, one after the other.
//! - `state`: the index as a start would build it, from a private copy of sled.

mod dump;
mod state;
mod verify;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{OpenError, io_error};
use crate::fs::{File, Fs, OpenMode, RealFs};
use crate::index::Position;
use crate::log::key::{self, Key};
use crate::log::segment::{self, LogName};
use crate::recover::Dirs;
use crate::recover::scan::{self, GroupRef};

pub use dump::{Dumped, Item, Payload};
pub use verify::{Counts, Finding, Report};

/// Why a directory cannot be looked at.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InspectError {
    /// A broker runs on it: what is read while it writes looks damaged.
    #[error("data directory {} is in use by a running broker", directory.display())]
    InUse {
        /// The data directory.
        directory: PathBuf,
    },
    /// It has no log.
    #[error("{} is no data directory: it has no log", directory.display())]
    NoStore {
        /// The directory.
        directory: PathBuf,
    },
    /// Without the key nothing of the log can be told from garbage.
    #[error("both copies of the key in {} are lost or damaged: the log cannot be read", directory.display())]
    NoKey {
        /// The data directory.
        directory: PathBuf,
    },
    /// A newer version wrote it, or the file system refused something.
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// A data directory that is looked at. No store can open it meanwhile.
pub struct Inspector {
    fs: RealFs,
    dirs: Dirs,
    key: Key,
    segments: Vec<u64>,
    /// Lines about the key files.
    key_damage: Vec<String>,
    _lock: Option<Arc<dyn File>>,
}

impl Inspector {
    /// Looks at a data directory. `force`: also at one that a broker runs on, whose newest parts then may look damaged.
    ///
    /// # Errors
    ///
    /// See [`InspectError`].
    pub fn open(directory: &Path, force: bool) -> Result<Self, InspectError> {
        let fs = RealFs;
        let dirs = Dirs::new(directory);
        let lock = lock(&fs, directory)?;
        if lock.is_none() && !force {
            return Err(InspectError::InUse { directory: directory.to_path_buf() });
        }
        let entries = match fs.list(&dirs.log) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(InspectError::NoStore { directory: directory.to_path_buf() });
            }
            Err(error) => return Err(io_error("list", &dirs.log)(error).into()),
        };
        let segments = entries.iter().filter_map(|entry| match segment::classify(&entry.name) {
            LogName::Segment(id) => Some(id),
            LogName::Free(_) | LogName::Reserve(_) | LogName::Other => None,
        });
        let segments = segments.collect();
        let mut key_damage = Vec::new();
        let Some(key) = key::find(&fs, directory, &mut key_damage)?.key else {
            return Err(InspectError::NoKey { directory: directory.to_path_buf() });
        };
        Ok(Self { fs, dirs, key, segments, key_damage, _lock: lock.flatten() })
    }

    /// The groups of one segment.
    fn groups(&self, id: u64) -> Result<Vec<GroupRef>, OpenError> {
        let from = Position { segment: id, ..Position::default() };
        scan::scan(&self.fs, &self.dirs.log, &self.key, std::iter::once(id), from)
    }

    fn segment_path(&self, id: u64) -> PathBuf {
        segment::path(&self.dirs.log, id)
    }
}

/// Keeps stores away; `None` when one is there. A copy of a directory may have no lock file.
fn lock(fs: &dyn Fs, directory: &Path) -> Result<Option<Option<Arc<dyn File>>>, OpenError> {
    let path = directory.join("lock");
    let file = match fs.open(&path, OpenMode::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Some(None)),
        Err(error) => return Err(io_error("open", &path)(error)),
    };
    let is_ours = file.try_lock().map_err(io_error("lock", &path))?;
    Ok(is_ours.then_some(Some(file)))
}
