//! Errors that say that the machine lacks something just now. Nothing is broken, and the same call may do it later.

use std::io::{self, ErrorKind};

use rustix::io::Errno;

/// The disk is full, or our share of it is.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

/// The process, or the machine, has too many files open or too little memory.
pub(crate) fn is_scarce(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM))
}
