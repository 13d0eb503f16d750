//! Why a store does not open, and why a close did not end well.

use std::io;
use std::path::PathBuf;

/// Why a data directory could not be opened. Each displays as one clear line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another store, most likely another broker, has it open.
    #[error("data directory {} is in use by another process (its lock file is held)", directory.display())]
    Locked {
        /// The data directory.
        directory: PathBuf,
    },
    /// It was written by a newer version of the store.
    #[error("{path} is in format version {version} ({what}); this build reads up to version {supported}", path = path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The version it names.
        version: u16,
        /// What was not understood.
        what: String,
        /// The newest version this build understands.
        supported: u16,
    },
    /// It is a backup, and not a whole one.
    #[error("{} is a backup that was not finished; it cannot be started on", directory.display())]
    IncompleteBackup {
        /// The directory.
        directory: PathBuf,
    },
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
    /// sled failed twice: as it was found, and again in an empty directory.
    #[error("cannot use the sled database {}: {reason}", path.display())]
    Sled {
        /// Its directory.
        path: PathBuf,
        /// What it said.
        reason: String,
    },
}

/// Why a close did not end with a clean mark. The next start treats the directory as after a crash.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CloseError {
    /// The store had stopped before, or stopped while closing, because of an error.
    #[error("the store had stopped: {0}")]
    Failed(String),
    /// It was closed already.
    #[error("the store is closed already")]
    Closed,
}

/// Names the action and the file of an I/O error.
pub(crate) fn io_error(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.into();
    move |source| OpenError::Io { action, path, source }
}
