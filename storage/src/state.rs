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
use crate::index::bits;
use crate::index::chunk::{CHUNK, Chunk, Stored};
use crate::index::codec::{self, QUARTER_SLOTS};
use crate::index::usage::Held;
use crate::index::{Index, Obsolete};
use crate::shelf;

/// Bigger values are split: a page of sled has 16 of them, 20 until it is split or after two were merged, and one that is larger
/// than a quarter of a segment goes into a file of its own, which costs two more syncs.
pub(crate) const VALUE_MAX: usize = 6 * 1024;
/// sled allocates a buffer of this size for every piece that it writes.
const SEGMENT_BYTES: usize = 512 * 1024;
/// What it was once; sled cannot change it where it has been used.
const FORMER_SEGMENT_BYTES: usize = 1024 * 1024;
/// Changes that go into sled at once, in bytes and in number. sled copies a whole page for every change of it and frees none
/// of those copies before the end of the batch.
const BATCH_BYTES: u64 = 256 * 1024;
const BATCH_OPS: usize = 64;
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
    ops: usize,
}

impl State {
    /// Opens the database, creating it when it is new.
    pub(crate) fn open(fs: &Arc<dyn Fs>, path: &Path, cache_bytes: u64) -> Result<Self, String> {
        wait_until_free(&path.join("db"));
        let open = |segment_bytes| {
            let config = sled::Config::new().path(path).cache_capacity(cache_bytes).flush_every_ms(None);
            config.segment_size(segment_bytes).open()
        };
        let db = guarded(|| match open(SEGMENT_BYTES) {
            Err(sled::Error::Unsupported(_)) => open(FORMER_SEGMENT_BYTES),
            outcome => outcome,
        })?;
        let file = fs.open(&path.join("db"), OpenMode::Read).map_err(|error| error.to_string())?;
        Ok(Self { db, fs: Arc::clone(fs), path: path.to_path_buf(), file, synced: HashSet::new() })
    }

    /// The database, for others who only read.
    pub(crate) fn handle(&self) -> sled::Db {
        self.db.clone()
    }

    /// The last checkpoint.
    pub(crate) fn base(&self) -> Result<Option<Base>, String> {
        match guarded(|| self.db.get(CHECKPOINT))? {
            Some(value) => {
                Base::take(&value).map(Some).ok_or_else(|| "the checkpoint record cannot be read".to_owned())
            }
            None => Ok(None),
        }
    }

    /// Takes out everything.
    pub(crate) fn clear(&self) -> Result<(), String> {
        guarded(|| self.db.clear())
    }

    /// Reads the last checkpoint into `index`, which is empty: of the chunks only the summaries. `None` when there was none
    /// yet.
    pub(crate) fn load(&self, index: &mut Index) -> Result<Option<Base>, String> {
        let Some(base) = self.base()? else {
            // A first checkpoint that was cut off: what is there stands for no point of the log.
            self.clear()?;
            return Ok(None);
        };
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
        let mut problem = None;
        let loaded = self.each(CHUNK_BITS, |key, value| {
            let (id, first) = (be_u64(key.get(..8)?)?, be_u64(key.get(8..16)?)?);
            let number = first / CHUNK;
            let (mut chunk, held) = codec::take_bits(value)?;
            let held = match held {
                Some(held) => held,
                None => self.first_version(id, number, &mut chunk).map_err(|reason| problem = Some(reason)).ok()?,
            };
            index.adopt_cold(id, number, chunk, held);
            Some(())
        });
        problem.map_or(loaded, Err)
    }

    /// Completes a chunk whose bitmaps are of the first version, which does not say what it counts for. The next checkpoint
    /// writes it anew.
    fn first_version(&self, id: u64, number: u64, chunk: &mut Chunk) -> Result<Held, String> {
        let (columns, known, stored) = shelf::decode(&shelf::values(&self.db, id, number)?)?;
        for (word, known) in chunk.live.iter_mut().zip(known) {
            *word &= known;
        }
        chunk.live_count = bits::count(&chunk.live);
        chunk.stored = stored;
        chunk.bits_dirty = true;
        Ok(Held::of(&columns, &chunk.live))
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
            let blobs = self.path.join("blobs");
            let mut present: HashSet<PathBuf> = HashSet::new();
            for dir in [&self.path, &blobs] {
                match self.fs.list(dir) {
                    Ok(entries) => present.extend(entries.into_iter().map(|entry| dir.join(entry.name))),
                    Err(error) if error.kind() == io::ErrorKind::NotFound && *dir == blobs => {}
                    Err(error) => return Err(error),
                }
            }
            present.remove(&self.path.join("db"));
            if present == self.synced {
                return Ok(());
            }
            let mut has_blobs = false;
            for path in present.difference(&self.synced) {
                has_blobs |= path.starts_with(&blobs);
                match self.fs.open(path, OpenMode::Read) {
                    Ok(file) => file.sync_data()?,
                    // It gives its snapshots a final name when they are written.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
            // sled takes a page whose file is missing for one that was never written, and says nothing.
            if has_blobs {
                self.fs.sync_dir(&blobs)?;
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
        self.ops += 1;
        self.batch.insert(key, value);
    }

    fn remove(&mut self, key: Vec<u8>) {
        self.ops += 1;
        self.batch.remove(key);
    }

    /// There are enough of them to be applied.
    pub(crate) fn are_enough(&self) -> bool {
        self.bytes >= BATCH_BYTES || self.ops >= BATCH_OPS
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
            Obsolete::Queue(id) => self.remove([QUEUE, &id.to_be_bytes()].concat()),
            Obsolete::Chunk(id, number, stored) => {
                self.remove_columns(id, number, stored);
                if stored != Stored::Nowhere {
                    self.remove(chunk_key(CHUNK_BITS, id, number * CHUNK));
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
            self.remove(columns_key(id, number * CHUNK + part * QUARTER_SLOTS as u64));
        }
    }

    /// Writes what of a chunk differs from sled: its columns in one value or, when that would be too big, in four. Columns
    /// that are not in memory are in sled. `generation` names the columns that are written.
    pub(crate) fn chunk(&mut self, id: u64, number: u64, chunk: &mut Chunk, generation: u64) {
        if let Some(columns) = chunk.columns()
            && (chunk.columns_dirty || chunk.stored == Stored::Nowhere)
        {
            let (all, live) = (0..CHUNK as usize, &chunk.live);
            self.remove_columns(id, number, chunk.stored);
            let mut value = Vec::new();
            codec::put_columns(columns, live, all.clone(), Stored::Whole, &mut value);
            let stored = if value.len() <= VALUE_MAX {
                self.put(columns_key(id, number * CHUNK), value);
                Stored::Whole
            } else {
                for start in all.step_by(QUARTER_SLOTS) {
                    let mut value = Vec::new();
                    codec::put_columns(columns, live, start..start + QUARTER_SLOTS, Stored::Quarters, &mut value);
                    self.put(columns_key(id, number * CHUNK + start as u64), value);
                }
                Stored::Quarters
            };
            chunk.stored = stored;
            chunk.generation = generation;
            chunk.unsynced = true;
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
            self.remove(topology_key(number, piece));
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

/// The key of columns that begin at this sequence number.
pub(crate) fn columns_key(id: u64, first_seq: u64) -> Vec<u8> {
    chunk_key(CHUNK_COLUMNS, id, first_seq)
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
pub(crate) fn guarded<T>(call: impl FnOnce() -> sled::Result<T>) -> Result<T, String> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::RealFs;
    use crate::index::columns::Columns;
    use crate::log::location::Location;
    use crate::types::Meta;

    /// Version 1 had nothing but the bitmaps, and a live bit could only count where there were columns.
    #[test]
    fn bitmaps_of_the_first_version_are_completed() {
        let dir = tempfile::tempdir().expect("a directory");
        let state =
            State::open(&(Arc::new(RealFs) as Arc<dyn Fs>), &dir.path().join("sled"), 1024 * 1024).expect("it opens");
        let mut columns = Columns::default();
        let mut written = bits::Bits::default();
        for slot in 0..1000usize {
            let meta = Meta { deadline_ms: (slot % 2 == 0).then_some(5000 - slot as u64), ..Meta::default() };
            columns.set(slot, Location::segment(1 + slot as u64 / 600, slot as u64 * 8), 100, &meta);
            bits::set(&mut written, slot);
        }
        let mut changes = Changes::default();
        changes.checkpoint(&Base { lsn: 1, ..Base::default() });
        let mut value = Vec::new();
        codec::put_columns(&columns, &written, 0..CHUNK as usize, Stored::Whole, &mut value);
        changes.put(columns_key(7, 0), value);
        for start in (0..CHUNK as usize).step_by(QUARTER_SLOTS) {
            let mut value = Vec::new();
            codec::put_columns(&columns, &written, start..start + QUARTER_SLOTS, Stored::Quarters, &mut value);
            changes.put(columns_key(8, start as u64), value);
        }
        let mut first_version = vec![1, 0];
        // All but the first 64, and 24 that have no columns.
        for word in 0..CHUNK / 64 {
            first_version.extend_from_slice(&(if word == 0 { 0 } else { u64::MAX }).to_le_bytes());
        }
        for queue in [7, 8] {
            changes.put(chunk_key(CHUNK_BITS, queue, 0), first_version.clone());
        }
        state.apply(changes).expect("it is applied");
        let mut index = Index::default();
        state.load(&mut index).expect("it is read").expect("there is a checkpoint");
        for (queue, stored) in [(7, Stored::Whole), (8, Stored::Quarters)] {
            let chunk = &index.queues[&queue].chunks[&0];
            assert!(chunk.is_cold() && chunk.listed && !chunk.needs_columns());
            assert_eq!((chunk.live_count, chunk.stored), (936, stored));
            let held = chunk.held();
            assert_eq!((held.live, held.least_deadline), (936, 5000 - 998));
            // And it is the same in the new version.
            let mut value = Vec::new();
            codec::put_bits(chunk, &mut value);
            let (again, summary) = codec::take_bits(&value).expect("it is read");
            assert_eq!((again.live, again.stored, summary), (chunk.live, stored, Some(held)));
        }
        assert_eq!((index.usage.segments[&1].live, index.usage.segments[&2].live_bytes), (2 * 536, 2 * 40_000));
        assert_eq!((index.dirty_chunks.len(), index.cache.cold), (2, 2));
    }

    /// Pages that are as full as they can be before they are split, and after they were merged.
    #[test]
    fn the_largest_values_are_in_no_files_of_their_own() {
        let dir = tempfile::tempdir().expect("a directory");
        let fs: Arc<dyn Fs> = Arc::new(crate::fs::RealFs);
        let mut state = State::open(&fs, dir.path(), 1024 * 1024).expect("it opens");
        let key = |number: u64| chunk_key(CHUNK_COLUMNS, number, 0);
        let mut random = 1u64;
        for round in 0..8 {
            for number in 0..400 {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let mut changes = Changes::default();
                match (random >> 60) % 4 {
                    0 | 1 if round % 2 == 1 => changes.remove(key(number)),
                    _ => changes.put(key(number), vec![number as u8; VALUE_MAX]),
                }
                state.apply(changes).expect("it is applied");
            }
            state.sync().expect("it is synced");
        }
        let blobs = fs::read_dir(dir.path().join("blobs")).expect("it is there").count();
        assert_eq!(blobs, 0);
    }
}
