//! A disk of so many bytes, and what the store does when they are used up.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, MutexGuard};

use storage::Store;
use storage::fs::{DirEntry, File, Fs, OpenMode, RealFs};

const PAGE: u64 = 4096;

/// The call that is about to be made; it is refused if the answer is an error.
pub(crate) type Hook = dyn FnMut(Kind, &Path) -> io::Result<()> + Send;

/// The calls that a full disk can refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Create,
    Open,
    Write,
    Allocate,
    Rename,
    SyncDir,
    Sync,
}

struct Books {
    capacity: u64,
    used: u64,
    /// The most that was ever used.
    peak: u64,
    files: HashMap<PathBuf, Arc<Mutex<u64>>>,
    hook: Box<Hook>,
}

impl Books {
    /// Gives a file blocks up to `end`; how far it got when there are not enough.
    fn grow(&mut self, blocks: &Mutex<u64>, end: u64) -> Result<(), u64> {
        let mut has = blocks.lock().expect("not poisoned");
        let wanted = end.next_multiple_of(PAGE).saturating_sub(*has);
        let given = wanted.min(self.capacity.saturating_sub(self.used) / PAGE * PAGE);
        *has += given;
        self.used += given;
        self.peak = self.peak.max(self.used);
        if given == wanted { Ok(()) } else { Err(*has) }
    }

    fn release(&mut self, path: &Path) {
        if let Some(blocks) = self.files.remove(path) {
            self.used -= std::mem::take(&mut *blocks.lock().expect("not poisoned"));
        }
    }
}

/// The real file system with a limit to what is written through it. What sled writes is not counted.
#[derive(Clone)]
pub(crate) struct SmallDisk(Arc<Mutex<Books>>);

impl SmallDisk {
    pub(crate) fn new(capacity: u64) -> Self {
        Self::hooked(capacity, |_, _| Ok(()))
    }

    pub(crate) fn hooked(capacity: u64, hook: impl FnMut(Kind, &Path) -> io::Result<()> + Send + 'static) -> Self {
        let books = Books { capacity, used: 0, peak: 0, files: HashMap::new(), hook: Box::new(hook) };
        Self(Arc::new(Mutex::new(books)))
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.0.lock().expect("not poisoned")
    }

    fn ask(&self, kind: Kind, path: &Path) -> io::Result<()> {
        (self.books().hook)(kind, path)
    }

    pub(crate) fn set_capacity(&self, bytes: u64) {
        self.books().capacity = bytes;
    }

    pub(crate) fn used(&self) -> u64 {
        self.books().used
    }

    pub(crate) fn peak(&self) -> u64 {
        self.books().peak
    }
}

pub(crate) fn full() -> io::Error {
    io::ErrorKind::StorageFull.into()
}

impl Fs for SmallDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        self.ask(if mode == OpenMode::CreateNew { Kind::Create } else { Kind::Open }, path)?;
        let file = RealFs.open(path, mode)?;
        let blocks = Arc::clone(self.books().files.entry(path.to_path_buf()).or_default());
        Ok(Arc::new(SmallFile { file, blocks, path: path.to_path_buf(), disk: self.clone() }))
    }
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        RealFs.create_dir_all(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        RealFs.list(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.ask(Kind::Rename, to)?;
        RealFs.rename(from, to)?;
        let mut books = self.books();
        books.release(to);
        if let Some(blocks) = books.files.remove(from) {
            books.files.insert(to.to_path_buf(), blocks);
        }
        Ok(())
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        RealFs.remove_file(path)?;
        self.books().release(path);
        Ok(())
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.ask(Kind::SyncDir, path)
    }
    fn exists(&self, path: &Path) -> bool {
        RealFs.exists(path)
    }
    fn free_bytes(&self, _path: &Path) -> io::Result<u64> {
        let books = self.books();
        Ok(books.capacity.saturating_sub(books.used))
    }
}

struct SmallFile {
    file: Arc<dyn File>,
    blocks: Arc<Mutex<u64>>,
    path: PathBuf,
    disk: SmallDisk,
}

impl File for SmallFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buf, offset)
    }
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let refused = self.disk.ask(Kind::Write, &self.path);
        let grown = self.disk.books().grow(&self.blocks, offset + buf.len() as u64);
        // What there is room for is written before the rest is refused.
        let fits = match (&refused, grown) {
            (Ok(()), Ok(())) => buf.len(),
            (Ok(()), Err(end)) => end.saturating_sub(offset).min(buf.len() as u64) as usize,
            (Err(_), _) => buf.len() / 2,
        };
        self.file.write_all_at(&buf[..fits], offset)?;
        refused?;
        if fits == buf.len() { Ok(()) } else { Err(full()) }
    }
    fn sync_data(&self) -> io::Result<()> {
        self.disk.ask(Kind::Sync, &self.path)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)?;
        let mut books = self.disk.books();
        let mut has = self.blocks.lock().expect("not poisoned");
        let keeps = (*has).min(len.next_multiple_of(PAGE));
        books.used -= *has - keeps;
        *has = keeps;
        Ok(())
    }
    fn allocate(&self, len: u64) -> io::Result<()> {
        self.disk.ask(Kind::Allocate, &self.path)?;
        self.disk.books().grow(&self.blocks, len).map_err(|_| full())?;
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

/// What the store says about the disk, in order.
pub(crate) fn news(store: &Store) -> Receiver<bool> {
    let (sender, receiver) = mpsc::channel();
    let sender = Mutex::new(sender);
    store.on_disk(Box::new(move |low| sender.lock().expect("not poisoned").send(low).unwrap_or_default()));
    receiver
}

/// Waits until the store says that the disk is low, or is not.
pub(crate) fn until(news: &Receiver<bool>, wanted: bool) {
    while news.recv().expect("the store goes on") != wanted {}
}
