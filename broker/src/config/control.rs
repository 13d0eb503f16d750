//! Where the control socket is: what the broker and its command line have to agree on.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// Its name in the data directory.
pub const NAME: &str = "control.sock";
/// A socket's address has room for so many octets of a path, the terminating zero included.
const PATH_OCTETS: usize = 108;

/// A path short enough for a socket's address.
pub struct Reachable {
    /// The path.
    pub path: PathBuf,
    /// It may lead through this handle.
    _directory: Option<File>,
}

/// The path itself, or one through a handle of its directory when it is too long.
///
/// # Errors
///
/// When the directory cannot be opened.
pub fn reachable(path: &Path) -> io::Result<Reachable> {
    if path.as_os_str().len() < PATH_OCTETS {
        return Ok(Reachable { path: path.to_path_buf(), _directory: None });
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let directory = File::open(parent)?;
    let path = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
    Ok(Reachable { path, _directory: Some(directory) })
}
