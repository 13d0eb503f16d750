//! sled: the index as the last checkpoint left it.
//!
//! sled is fenced in. Its panics are caught, since it may panic on files that a power loss damaged; its flush is followed by
//! a sync of our own, since it only starts the write-back; and nothing relies on it being right, since the log says which
//! checkpoint it must have.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::fs::{File, Fs, OpenMode};
use crate::index::base::Base;
use crate::index::chunk::{CHUNK, Chunk, Stored};
use crate::index::codec::{self, QUARTER_SLOTS};
use crate::index::{Index, Obsolete};

/// Bigger values are split: above a quarter of a segment sled would put them into files that it never syncs.
pub(crate) const VALUE_MAX: usize = 16 * 1024;
/// sled allocates a buffer of this size, and keeps values up to a quarter of it inline.
const SEGMENT_BYTES: usize = 1024 * 1024;
/// How long sled's own lock is waited for.
const LOCK_TRIES: u32 = 500;
const LOCK_PAUSE: Duration = Duration::from_millis(10);
const CHECKPOINT: &[u8] = b"checkpoint";
const DROPPED: &[u8] = b"dropped";
const QUEUE: &[u8] = b"queue/";
const CHUNK_COLUMNS: &[u8] = b"chunk/";
const CHUNK_BITS: &[u8] = b"acks/";
const TOPOLOGY: &[u8] = b"topology/";

/// The open database.
pub(crate) struct State {
    db: sled::Db,
    /// What syncs sled's files; everything else sled does itself.
    fs: Arc<dyn Fs>,
    path: PathBuf,
    file: Arc<dyn File>,
    /// Files of sled beside `db` that were synced; it writes each once, under a new name.
    synced: HashSet<PathBuf>,
}

/// Changes on their way into sled.
#[derive(Default)]
pub(crate) struct Changes {
    batch: sled::Batch,
    pub(crate) bytes: u64,
}

impl State {
    /// Opens the database, creating it when it is new.
    pub(crate) fn open(fs: &Arc<dyn Fs>, path: &Path, cache_bytes: u64) -> Result<Self, String> {
        wait_until_free(&path.join("db"));
        let db = guarded(|| {
            sled::Config::new()
                .path(path)
                .cache_capacity(cache_bytes)
                .segment_size(SEGMENT_BYTES)
                .flush_every_ms(None)
                .open()
        })?;
        let file = fs.open(&path.join("db"), OpenMode::Read).map_err(|error| error.to_string())?;
        Ok(Self { db, fs: Arc::clone(fs), path: path.to_path_buf(), file, synced: HashSet::new() })
    }

    /// Reads the last checkpoint into `index`, which is empty. `None` when there was none yet.
    pub(crate) fn load(&self, index: &mut Index) -> Result<Option<Base>, String> {
        let Some(value) = guarded(|| self.db.get(CHECKPOINT))? else {
            // A first checkpoint that was cut off: what is there stands for no point of the log.
            guarded(|| self.db.clear())?;
            return Ok(None);
        };
        let base = Base::take(&value).ok_or("the checkpoint record cannot be read")?;
        if let Some(value) = guarded(|| self.db.get(DROPPED))? {
            for id in codec::take_ids(&value).ok_or("the list of dropped queues cannot be read")? {
                index.remember_dropped(id);
            }
        }
        self.load_topology(index)?;
        self.each(QUEUE, |key, value| {
            let id = be_u64(key.get(..8)?)?;
            codec::take_queue(value, index.queues.entry(id).or_default())
        })?;
        self.load_chunks(index)?;
        Ok(Some(base))
    }

    fn load_topology(&self, index: &mut Index) -> Result<(), String> {
        let mut current: Option<(u64, Vec<u8>)> = None;
        let mut finish = |record: Option<(u64, Vec<u8>)>| {
            let Some((number, bytes)) = record else {
                return Some(());
            };
            let (key, value) = codec::take_topology(&bytes)?;
            index.topology.load(number, topology_pieces(bytes.len()), key, value);
            Some(())
        };
        self.each(TOPOLOGY, |key, value| {
            let number = be_u64(key.get(..8)?)?;
            match &mut current {
                Some((open, bytes)) if *open == number => bytes.extend_from_slice(value),
                _ => finish(current.replace((number, value.to_vec())))?,
            }
            Some(())
        })?;
        finish(current).ok_or_else(|| "a record of the topology cannot be read".to_owned())
    }

    fn load_chunks(&self, index: &mut Index) -> Result<(), String> {
        let mut current: Option<(u64, u64, Chunk)> = None;
        self.each(CHUNK_COLUMNS, |key, value| {
            let (id, first) = (be_u64(key.get(..8)?)?, be_u64(key.get(8..16)?)?);
            let (number, slot) = (first / CHUNK, (first % CHUNK) as usize);
            if !matches!(&current, Some((q, n, _)) if (*q, *n) == (id, number)) {
                if let Some((id, number, chunk)) = current.take() {
                    self.adopt(index, id, number, chunk)?;
                }
                current = Some((id, number, Chunk::default()));
            }
            let (_, _, chunk) = current.as_mut()?;
            codec::take_columns(value, slot, chunk)
        })?;
        match current {
            Some((id, number, chunk)) => {
                self.adopt(index, id, number, chunk).ok_or_else(|| "the bitmaps of a chunk cannot be read".to_owned())
            }
            None => Ok(()),
        }
    }

    fn adopt(&self, index: &mut Index, id: u64, number: u64, mut chunk: Chunk) -> Option<()> {
        let bits = guarded(|| self.db.get(chunk_key(CHUNK_BITS, id, number * CHUNK))).ok()??;
        codec::take_bits(&bits, &mut chunk)?;
        index.adopt(id, number, chunk);
        Some(())
    }

    /// Calls `each` with every key below a prefix, which is cut off, and its value.
    fn each(&self, prefix: &[u8], mut each: impl FnMut(&[u8], &[u8]) -> Option<()>) -> Result<(), String> {
        let mut entries = self.db.scan_prefix(prefix);
        while let Some((key, value)) = guarded(|| entries.next().transpose())? {
            let rest = key.get(prefix.len()..).unwrap_or_default();
            each(rest, &value)
                .ok_or_else(|| format!("the value of key {:?} cannot be read", key.escape_ascii().to_string()))?;
        }
        Ok(())
    }

    /// Applies changes, all or none.
    pub(crate) fn apply(&self, changes: Changes) -> Result<(), String> {
        guarded(|| self.db.apply_batch(changes.batch))
    }

    /// Makes durable what was applied. sled's own flush does not wait for the disk, so its files are synced here: `db`, which
    /// it rewrites in place, and those that it writes once, with their directory.
    pub(crate) fn sync(&mut self) -> Result<(), String> {
        guarded(|| self.db.flush())?;
        let mut sync = || -> io::Result<()> {
            self.file.sync_data()?;
            let mut present: HashSet<PathBuf> =
                self.fs.list(&self.path)?.into_iter().map(|entry| self.path.join(entry.name)).collect();
            present.remove(&self.path.join("db"));
            if present == self.synced {
                return Ok(());
            }
            for path in present.difference(&self.synced) {
                match self.fs.open(path, OpenMode::Read) {
                    Ok(file) => file.sync_data()?,
                    // It gives its snapshots a final name when they are written.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
            self.fs.sync_dir(&self.path)?;
            self.synced = present;
            Ok(())
        };
        sync().map_err(|error| error.to_string())
    }
}

impl Changes {
    fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.bytes += (key.len() + value.len()) as u64;
        self.batch.insert(key, value);
    }

    pub(crate) fn checkpoint(&mut self, base: &Base) {
        let mut value = Vec::with_capacity(Base::LEN);
        base.put(&mut value);
        self.put(CHECKPOINT.to_vec(), value);
    }

    pub(crate) fn dropped(&mut self, ids: impl ExactSizeIterator<Item = u64>) {
        let mut value = Vec::new();
        codec::put_ids(ids, &mut value);
        self.put(DROPPED.to_vec(), value);
    }

    pub(crate) fn queue(&mut self, id: u64, value: Vec<u8>) {
        self.put([QUEUE, &id.to_be_bytes()].concat(), value);
    }

    pub(crate) fn obsolete(&mut self, obsolete: Obsolete) {
        match obsolete {
            Obsolete::Queue(id) => self.batch.remove([QUEUE, &id.to_be_bytes()].concat()),
            Obsolete::Chunk(id, number, stored) => {
                self.remove_columns(id, number, stored);
                if stored != Stored::Nowhere {
                    self.batch.remove(chunk_key(CHUNK_BITS, id, number * CHUNK));
                }
            }
        }
    }

    fn remove_columns(&mut self, id: u64, number: u64, stored: Stored) {
        let parts = match stored {
            Stored::Nowhere => 0,
            Stored::Whole => 1,
            Stored::Quarters => 4,
        };
        for part in 0..parts {
            self.batch.remove(chunk_key(CHUNK_COLUMNS, id, number * CHUNK + part * QUARTER_SLOTS as u64));
        }
    }

    /// Writes what of a chunk differs from sled, in one value or, when that would be too big, in four.
    pub(crate) fn chunk(&mut self, id: u64, number: u64, chunk: &mut Chunk) {
        if chunk.columns_dirty || chunk.stored == Stored::Nowhere {
            self.remove_columns(id, number, chunk.stored);
            let mut value = Vec::new();
            codec::put_columns(chunk, 0..CHUNK as usize, Stored::Whole, &mut value);
            if value.len() <= VALUE_MAX {
                self.put(chunk_key(CHUNK_COLUMNS, id, number * CHUNK), value);
                chunk.stored = Stored::Whole;
            } else {
                for start in (0..CHUNK as usize).step_by(QUARTER_SLOTS) {
                    let mut value = Vec::new();
                    codec::put_columns(chunk, start..start + QUARTER_SLOTS, Stored::Quarters, &mut value);
                    self.put(chunk_key(CHUNK_COLUMNS, id, number * CHUNK + start as u64), value);
                }
                chunk.stored = Stored::Quarters;
            }
        }
        let mut bits = Vec::new();
        codec::put_bits(chunk, &mut bits);
        self.put(chunk_key(CHUNK_BITS, id, number * CHUNK), bits);
        chunk.columns_dirty = false;
        chunk.bits_dirty = false;
    }

    /// Writes a topology record, in pieces.
    pub(crate) fn topology(&mut self, number: u64, record: &[u8]) {
        for (piece, bytes) in record.chunks(VALUE_MAX).enumerate() {
            self.put(topology_key(number, piece as u32), bytes.to_vec());
        }
    }

    /// Removes the pieces of a topology record from `from` on.
    pub(crate) fn remove_topology(&mut self, number: u64, pieces: std::ops::Range<u32>) {
        for piece in pieces {
            self.batch.remove(topology_key(number, piece));
        }
    }
}

/// Pieces a topology record of this length takes.
pub(crate) fn topology_pieces(len: usize) -> u32 {
    len.div_ceil(VALUE_MAX) as u32
}

fn topology_key(number: u64, piece: u32) -> Vec<u8> {
    [TOPOLOGY, &number.to_be_bytes(), &piece.to_be_bytes()].concat()
}

fn chunk_key(prefix: &[u8], id: u64, first_seq: u64) -> Vec<u8> {
    [prefix, &id.to_be_bytes(), &first_seq.to_be_bytes()].concat()
}

fn be_u64(bytes: &[u8]) -> Option<u64> {
    bytes.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}

/// Waits until nobody has the database locked, or has given up hope. The directory is ours alone, so it can only be what is
/// left of a store that this process has just closed: threads of sled's that hold the file a moment longer.
fn wait_until_free(db: &Path) {
    let Ok(file) = fs::File::open(db) else {
        return;
    };
    for _ in 0..LOCK_TRIES {
        // Closing the file, in either case, is unlocking it.
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => std::thread::sleep(LOCK_PAUSE),
            _ => return,
        }
    }
}

/// Calls into sled; a panic in there becomes an error.
fn guarded<T>(call: impl FnOnce() -> sled::Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(error.to_string()),
        Err(panic) => {
            let text =
                panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(|&s| s.to_owned()));
            Err(format!("sled panicked: {}", text.unwrap_or_default()))
        }
    }
}
