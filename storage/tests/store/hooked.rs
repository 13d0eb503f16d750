//! A file system that asks a test before it does anything.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use storage::fs::{DirEntry, File, Fs, OpenMode, RealFs};

/// What the store is about to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Open(OpenMode),
    Rename,
    Remove,
    SyncDir,
    Read,
    Write,
    Sync,
    Allocate,
    /// The last handle of an [`Fs::open`] is dropped; what the hook says counts for nothing.
    Close,
}

type Hook = dyn Fn(Call, &Path) -> io::Result<()> + Send + Sync;

/// The real file system behind a hook; the path of a rename is the new name.
pub(crate) struct Hooked(Arc<Hook>);

impl Hooked {
    pub(crate) fn new(hook: impl Fn(Call, &Path) -> io::Result<()> + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self(Arc::new(hook)))
    }
}

struct HookedFile {
    file: Arc<dyn File>,
    path: PathBuf,
    hook: Arc<Hook>,
}

impl Fs for Hooked {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        (self.0)(Call::Open(mode), path)?;
        let file = RealFs.open(path, mode)?;
        Ok(Arc::new(HookedFile { file, path: path.to_path_buf(), hook: Arc::clone(&self.0) }))
    }
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        RealFs.create_dir_all(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        RealFs.list(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        (self.0)(Call::Rename, to)?;
        RealFs.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        (self.0)(Call::Remove, path)?;
        RealFs.remove_file(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        (self.0)(Call::SyncDir, path)?;
        RealFs.sync_dir(path)
    }
    fn exists(&self, path: &Path) -> bool {
        RealFs.exists(path)
    }
    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        RealFs.free_bytes(path)
    }
}

impl Drop for HookedFile {
    fn drop(&mut self) {
        let _ = (self.hook)(Call::Close, &self.path);
    }
}

impl File for HookedFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        (self.hook)(Call::Read, &self.path)?;
        self.file.read_at(buf, offset)
    }
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        (self.hook)(Call::Write, &self.path)?;
        self.file.write_all_at(buf, offset)
    }
    fn sync_data(&self) -> io::Result<()> {
        (self.hook)(Call::Sync, &self.path)?;
        self.file.sync_data()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
    fn allocate(&self, len: u64) -> io::Result<()> {
        (self.hook)(Call::Allocate, &self.path)?;
        self.file.allocate(len)
    }
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn links(&self) -> io::Result<u64> {
        self.file.links()
    }
    fn try_lock(&self) -> io::Result<bool> {
        self.file.try_lock()
    }
}
