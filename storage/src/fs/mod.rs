//! The seam between the store and the file system. Everything of ours (log, snapshot, large bodies, lock) goes through it, so
//! that a faulty one can stand in; sled does its own I/O.

#[cfg(feature = "faulty")]
pub mod faulty;
mod real;

use std::io;
use std::path::Path;
use std::sync::Arc;

pub use real::RealFs;
pub(crate) use real::write_zeroes;

/// What [`Fs::open`] should do about a file that is there, or is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// It must exist; for reading only.
    Read,
    /// It must exist; for reading and writing.
    Write,
    /// It is created, and must not exist.
    CreateNew,
    /// It is created when missing.
    Create,
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// The name alone. Names that are not UTF-8 are none of ours and are left out.
    pub name: String,
    /// Size of the file.
    pub len: u64,
}

/// The operations on paths.
pub trait Fs: Send + Sync {
    /// Opens a file.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>>;
    /// Creates a directory and those above it.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// The files (not directories) of a directory, in the order of their names.
    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>>;
    /// Renames a file or directory.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Gives a file a second name.
    ///
    /// # Errors
    ///
    /// The default knows no links; whoever wants one copies instead.
    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let _ = (from, to);
        Err(io::ErrorKind::Unsupported.into())
    }
    /// Unlinks a file.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Makes creations, renames and removals in a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Whether the path exists.
    fn exists(&self, path: &Path) -> bool;
    /// Bytes that we may still use of the file system that holds this directory.
    fn free_bytes(&self, path: &Path) -> io::Result<u64>;
}

/// The operations on an open file.
pub trait File: Send + Sync {
    /// Reads up to `buf.len()` bytes; fewer only at the end of the file.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of `buf`.
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()>;
    /// fdatasync.
    fn sync_data(&self) -> io::Result<()>;
    /// Sets the size.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Makes the file at least `len` bytes long, with blocks of its own for all of them: a write below `len` can't fail for
    /// want of space any more. When it fails the file may have grown.
    fn allocate(&self, len: u64) -> io::Result<()>;
    /// The size.
    fn len(&self) -> io::Result<u64>;
    /// Whether it has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// How many names it has; more than one means that a backup shares it.
    fn links(&self) -> io::Result<u64>;
    /// Takes an exclusive lock that lasts as long as the file is open; false when somebody else has it.
    fn try_lock(&self) -> io::Result<bool>;
}
