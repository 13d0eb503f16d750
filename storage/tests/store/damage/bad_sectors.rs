//! A disk that cannot read a part of one file, whatever name the file has, until that is written over: then it has another
//! place for it, as disks do.

use std::io;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use storage::fs::{DirEntry, File, Fs, OpenMode, RealFs};

const EIO: i32 = 5;

/// The real file system, but for some bytes.
pub(crate) struct BadSectors {
    inode: u64,
    bytes: Range<u64>,
    precious: bool,
    replaced: Arc<AtomicBool>,
}

impl BadSectors {
    /// These bytes of what is a file of this name now. When they are `precious` nobody may write over them or cut them away.
    pub(crate) fn new(path: &Path, bytes: Range<u64>, precious: bool) -> Arc<Self> {
        Arc::new(Self { inode: inode(path).expect("the file is there"), bytes, precious, replaced: Arc::default() })
    }
}

fn inode(path: &Path) -> io::Result<u64> {
    Ok(std::fs::metadata(path)?.ino())
}

impl Fs for BadSectors {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let file = RealFs.open(path, mode)?;
        if inode(path)? != self.inode {
            return Ok(file);
        }
        let replaced = Arc::clone(&self.replaced);
        Ok(Arc::new(BadFile { file, bytes: self.bytes.clone(), precious: self.precious, replaced }))
    }
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        RealFs.create_dir_all(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        RealFs.list(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealFs.rename(from, to)
    }
    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealFs.hard_link(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        RealFs.remove_file(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        RealFs.sync_dir(path)
    }
    fn exists(&self, path: &Path) -> bool {
        RealFs.exists(path)
    }
    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        RealFs.free_bytes(path)
    }
}

struct BadFile {
    file: Arc<dyn File>,
    bytes: Range<u64>,
    precious: bool,
    replaced: Arc<AtomicBool>,
}

impl File for BadFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        // Beyond the end there is nothing to read.
        let end = self.file.len()?.min(offset + buf.len() as u64);
        if offset < self.bytes.end && self.bytes.start < end && !self.replaced.load(Ordering::SeqCst) {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        self.file.read_at(buf, offset)
    }
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let end = offset + buf.len() as u64;
        let apart = offset >= self.bytes.end || self.bytes.start >= end;
        assert!(apart || !self.precious, "what cannot be read is never written over");
        self.file.write_all_at(buf, offset)?;
        if offset <= self.bytes.start && self.bytes.end <= end {
            self.replaced.store(true, Ordering::SeqCst);
        }
        Ok(())
    }
    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        let keeps = len >= self.bytes.end.min(self.file.len()?);
        assert!(keeps || !self.precious, "what cannot be read is never cut away");
        self.file.set_len(len)
    }
    fn allocate(&self, len: u64) -> io::Result<()> {
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
