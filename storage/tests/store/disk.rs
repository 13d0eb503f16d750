//! A disk in memory that forgets, at a power loss, what was not synced: pages of files, lengths, names in directories.
//!
//! sled does its own I/O, on the real file system; what is moved there (directories, to quarantine) goes to the real one too.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use storage::fs::{DirEntry, File, Fs, OpenMode, RealFs};

const PAGE: usize = 4096;

/// A file as it is, and as a power loss would leave it at the least.
#[derive(Clone, Default)]
struct Content {
    live: Vec<u8>,
    durable: Vec<u8>,
    dirty: HashSet<usize>,
}

/// A change of a directory that is not synced yet.
#[derive(Clone)]
enum Change {
    Add(String, usize),
    Remove(String),
    Rename(String, String),
}

#[derive(Clone, Default)]
struct Dir {
    live: BTreeMap<String, usize>,
    durable: BTreeMap<String, usize>,
    changes: Vec<Change>,
}

impl Dir {
    fn change(&mut self, change: Change) {
        apply(&mut self.live, &change);
        self.changes.push(change);
    }
}

fn apply(names: &mut BTreeMap<String, usize>, change: &Change) {
    match change {
        Change::Add(name, file) => drop(names.insert(name.clone(), *file)),
        Change::Remove(name) => drop(names.remove(name)),
        Change::Rename(from, to) => {
            if let Some(file) = names.remove(from) {
                names.insert(to.clone(), file);
            }
        }
    }
}

/// What is on the disk.
#[derive(Clone, Default)]
pub(crate) struct Image {
    files: HashMap<usize, Content>,
    dirs: HashMap<PathBuf, Dir>,
    next: usize,
}

impl Image {
    /// What a power loss leaves: everything that was synced, and of the rest what `random` picks.
    pub(crate) fn after_power_loss(mut self, random: &mut impl FnMut(u64) -> u64) -> Self {
        for dir in self.dirs.values_mut() {
            let reached = random(dir.changes.len() as u64 + 1) as usize;
            for change in dir.changes.drain(..).take(reached) {
                apply(&mut dir.durable, &change);
            }
            dir.live = dir.durable.clone();
        }
        for content in self.files.values_mut() {
            let mut left = std::mem::take(&mut content.durable);
            if random(2) == 0 {
                left.resize(content.live.len(), 0);
            }
            // All, none, or some of the pages that were on their way.
            let chance = random(3);
            for page in content.dirty.drain() {
                if random(2) < chance {
                    let end = (page + PAGE).min(content.live.len()).min(left.len());
                    if page < end {
                        left[page..end].copy_from_slice(&content.live[page..end]);
                    }
                }
            }
            content.live.clone_from(&left);
            content.durable = left;
        }
        self
    }
}

type AtCall = Box<dyn FnMut(&Image) + Send>;

struct State {
    image: Image,
    calls: AtCall,
}

/// The disk.
#[derive(Clone)]
pub(crate) struct Disk(Arc<Mutex<State>>);

impl Disk {
    /// A disk with these contents; `calls` sees it before every call that changes something.
    pub(crate) fn new(image: Image, calls: impl FnMut(&Image) + Send + 'static) -> Self {
        Self(Arc::new(Mutex::new(State { image, calls: Box::new(calls) })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("not poisoned")
    }

    fn change(&self) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        let State { image, calls } = &mut *state;
        calls(image);
        state
    }
}

fn split(path: &Path) -> (PathBuf, String) {
    let name = path.file_name().expect("a name").to_string_lossy().into_owned();
    (path.parent().expect("a directory").to_path_buf(), name)
}

fn absent() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Fs for Disk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let (dir, name) = split(path);
        let mut state = self.change();
        let image = &mut state.image;
        let dir = image.dirs.get_mut(&dir).ok_or_else(absent)?;
        let file = match dir.live.get(&name) {
            Some(_) if mode == OpenMode::CreateNew => return Err(io::ErrorKind::AlreadyExists.into()),
            Some(&file) => file,
            None if matches!(mode, OpenMode::Create | OpenMode::CreateNew) => {
                image.next += 1;
                image.files.insert(image.next, Content::default());
                dir.change(Change::Add(name, image.next));
                image.next
            }
            None => return Err(absent()),
        };
        Ok(Arc::new(DiskFile { disk: self.clone(), file }))
    }
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        RealFs.create_dir_all(path)?;
        self.lock().image.dirs.entry(path.to_path_buf()).or_default();
        Ok(())
    }
    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let state = self.lock();
        let names = state.image.dirs.get(path).ok_or_else(absent)?.live.iter();
        let len = |file| state.image.files.get(file).map_or(0, |content| content.live.len() as u64);
        Ok(names.map(|(name, file)| DirEntry { name: name.clone(), len: len(file) }).collect())
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let ((from_dir, from_name), (to_dir, to_name)) = (split(from), split(to));
        let mut state = self.change();
        let source = state.image.dirs.get_mut(&from_dir).ok_or_else(absent)?;
        let Some(&file) = source.live.get(&from_name) else {
            return RealFs.rename(from, to);
        };
        if from_dir == to_dir {
            source.change(Change::Rename(from_name, to_name));
        } else {
            source.change(Change::Remove(from_name));
            state.image.dirs.entry(to_dir).or_default().change(Change::Add(to_name, file));
        }
        Ok(())
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let (dir, name) = split(path);
        let mut state = self.change();
        let dir = state.image.dirs.get_mut(&dir).ok_or_else(absent)?;
        if !dir.live.contains_key(&name) {
            return Err(absent());
        }
        dir.change(Change::Remove(name));
        Ok(())
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        if let Some(dir) = self.change().image.dirs.get_mut(path) {
            dir.durable = dir.live.clone();
            dir.changes.clear();
        }
        Ok(())
    }
    fn exists(&self, path: &Path) -> bool {
        let (dir, name) = split(path);
        self.lock().image.dirs.get(&dir).is_some_and(|dir| dir.live.contains_key(&name)) || path.exists()
    }
    fn free_bytes(&self, _path: &Path) -> io::Result<u64> {
        Ok(u64::MAX)
    }
}

struct DiskFile {
    disk: Disk,
    file: usize,
}

impl DiskFile {
    fn change<T>(&self, change: impl FnOnce(&mut Content) -> T) -> io::Result<T> {
        self.disk.change().image.files.get_mut(&self.file).map(change).ok_or_else(absent)
    }
}

impl File for DiskFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.disk.lock();
        let content = state.image.files.get(&self.file).ok_or_else(absent)?;
        let rest = content.live.get(offset as usize..).unwrap_or_default();
        let n = rest.len().min(buf.len());
        buf[..n].copy_from_slice(&rest[..n]);
        Ok(n)
    }
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.change(|content| {
            let (start, end) = (offset as usize, offset as usize + buf.len());
            if content.live.len() < end {
                content.live.resize(end, 0);
            }
            content.live[start..end].copy_from_slice(buf);
            content.dirty.extend((start / PAGE * PAGE..end).step_by(PAGE));
        })
    }
    fn sync_data(&self) -> io::Result<()> {
        self.change(|content| {
            content.durable.clone_from(&content.live);
            content.dirty.clear();
        })
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(|content| content.live.resize(len as usize, 0))
    }
    fn allocate(&self, len: u64) -> io::Result<()> {
        self.change(|content| {
            let len = content.live.len().max(len as usize);
            content.live.resize(len, 0);
        })
    }
    fn len(&self) -> io::Result<u64> {
        self.disk.lock().image.files.get(&self.file).map(|content| content.live.len() as u64).ok_or_else(absent)
    }
    fn links(&self) -> io::Result<u64> {
        Ok(1)
    }
    fn try_lock(&self) -> io::Result<bool> {
        Ok(true)
    }
}
