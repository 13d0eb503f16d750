//! Room for the log: which segments exist, the pool of free files, the reserve for a full disk, and where the next segment
//! comes from.
//!
//! A file gets its new id by a rename that is synced before anything is written to it. So no crash can bring back the old
//! name over new contents, and groups left in the file never parse as current, for they name another segment. Before that
//! it has blocks for its whole length, so that the log itself does not meet a full disk in the middle of a segment.

pub(crate) mod disk;
pub(crate) mod thread;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::fs::{Fs, OpenMode, write_zeroes};
use crate::log::segment::{self, Segment};
use crate::options::Options;
use crate::shortage;

use disk::Disk;

/// Room that new segments leave to checkpoints and snapshots, as long as a segment is not smaller than that.
const ROOM_MAX: u64 = 8 * 1024 * 1024;
/// A short segment, for a mark or for a start on a full disk, is not longer.
const SHORT_MAX: u64 = 64 * 1024;
/// So many segments above the limit, the free space is looked at more often.
const NEAR_SEGMENTS: u64 = 4;

/// The segments, the pool and the reserve.
pub(crate) struct Space {
    fs: Arc<dyn Fs>,
    log_dir: PathBuf,
    segment_bytes: u64,
    pool_segments: usize,
    reserve_segments: usize,
    state: Mutex<State>,
    pub(crate) disk: Disk,
    recycled: AtomicU64,
}

/// The files of the log, as recovery found them.
#[derive(Default)]
pub(crate) struct Stock {
    /// Segments and their sizes.
    pub(crate) segments: BTreeMap<u64, u64>,
    /// Free files, all of the usual size.
    pub(crate) free: Vec<PathBuf>,
    /// The reserve, likewise.
    pub(crate) reserve: Vec<PathBuf>,
    /// Greater than all ids and numbers in their names.
    pub(crate) next_id: u64,
}

#[derive(Default)]
struct State {
    stock: Stock,
    /// A segment that has its name, which is not durable yet.
    unsynced: Option<Segment>,
}

/// How much of what is kept back may be used for the next segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    /// One file of the reserve stays, for checkpoints.
    Usual,
    /// All of the reserve; and when there is none, some of the room that is left to checkpoints, for a short segment.
    Reserve,
    /// All the room that is left to checkpoints too, and a short segment if there is room for no other.
    Last,
}

impl Space {
    /// Takes stock of what recovery found.
    pub(crate) fn new(options: &Options, log_dir: &Path, mut stock: Stock) -> Self {
        // The option may have been greater when they were made.
        let excess = stock.reserve.split_off(stock.reserve.len().min(options.reserve_segments));
        stock.free.extend(excess);
        Self {
            fs: Arc::clone(&options.fs),
            log_dir: log_dir.to_path_buf(),
            segment_bytes: options.segment_bytes,
            pool_segments: options.pool_segments,
            reserve_segments: options.reserve_segments,
            state: Mutex::new(State { stock, unsynced: None }),
            recycled: AtomicU64::new(0),
            disk: Disk::new(Arc::clone(&options.fs), options.data_dir.clone(), options.disk_free_limit),
        }
    }

    /// The next segment, of at least `needed` bytes: from the pool, a new file, or from the reserve. The id is greater than
    /// all before. When it fails, another try is as good as the first.
    pub(crate) fn next(&self, needed: u64, depth: Depth) -> io::Result<Segment> {
        let ready = self.state.lock().unsynced.take().filter(|segment| segment.len >= needed);
        let segment = match ready {
            Some(segment) => segment,
            None => self.named(needed, depth)?,
        };
        if let Err(error) = self.fs.sync_dir(&self.log_dir) {
            self.state.lock().unsynced = Some(segment);
            return Err(error);
        }
        self.state.lock().stock.segments.insert(segment.id, segment.len);
        Ok(segment)
    }

    /// A segment that has its name.
    fn named(&self, needed: u64, depth: Depth) -> io::Result<Segment> {
        let (id, free) = {
            let mut state = self.state.lock();
            let free = if needed <= self.segment_bytes { state.stock.free.pop() } else { None };
            (state.stock.take_id(), free)
        };
        if let Some(free) = free {
            return self.adopt(&free, id).inspect_err(|_| self.state.lock().stock.free.push(free));
        }
        let left = if depth == Depth::Last { 0 } else { self.room() };
        let error = match self.create(id, needed.max(self.segment_bytes), left) {
            Err(error) if shortage::is_full(&error) => error,
            outcome => return outcome,
        };
        let kept = if depth == Depth::Usual { 1 } else { 0 };
        let reserve = {
            let mut state = self.state.lock();
            let usable = needed <= self.segment_bytes && state.stock.reserve.len() > kept;
            if usable { self.take_reserve(&mut state.stock) } else { None }
        };
        if let Some(file) = reserve {
            let segment = self.adopt(&file, id).inspect_err(|_| self.put_reserve(file));
            self.disk.reconsider();
            return segment;
        }
        if depth == Depth::Usual || needed > SHORT_MAX {
            return Err(error);
        }
        let short = needed.max(SHORT_MAX.min(self.segment_bytes / 4));
        self.create(id, short, if depth == Depth::Last { 0 } else { self.least_room() })
    }

    /// Gives a file of the pool or the reserve its id.
    fn adopt(&self, from: &Path, id: u64) -> io::Result<Segment> {
        let file = self.fs.open(from, OpenMode::Write)?;
        // It has its blocks, unless it is from a version that did not see to that.
        file.allocate(self.segment_bytes)?;
        self.fs.rename(from, &segment::path(&self.log_dir, id))?;
        Ok(Segment { id, len: self.segment_bytes, file })
    }

    /// A new file, if so many bytes are left beside it.
    fn create(&self, id: u64, len: u64, left: u64) -> io::Result<Segment> {
        if left > 0 {
            self.disk.ask_room(len.saturating_add(left))?;
        }
        let path = segment::path(&self.log_dir, id);
        let file = self.fs.open(&path, OpenMode::CreateNew)?;
        if let Err(error) = file.allocate(len) {
            // What can't be removed is a segment without a group, and goes after the next start.
            let _ = self.fs.remove_file(&path);
            return Err(error);
        }
        Ok(Segment { id, len, file })
    }

    /// Segment files that were put aside for reuse.
    pub(crate) fn recycled(&self) -> u64 {
        self.recycled.load(Ordering::Relaxed)
    }

    /// Room that is left to checkpoints and snapshots.
    pub(crate) fn room(&self) -> u64 {
        self.segment_bytes.min(ROOM_MAX)
    }

    /// Room that a checkpoint or a snapshot has to find beside its own bytes. Far less than is left to them: if they asked
    /// for more than the log leaves, it would wait for what they set free, and they for what it has.
    pub(crate) fn least_room(&self) -> u64 {
        self.room() / 4
    }

    /// Makes sure that a file waits in the pool, writing it full of zeroes: a file whose blocks were written syncs several
    /// times faster than one that is new. Not if that brings the disk near the limit. Returns the bytes written. `go_on` is
    /// asked between the writes.
    pub(crate) fn prepare(&self, go_on: impl Fn() -> bool) -> io::Result<u64> {
        if self.has_free()
            || !self.disk.has_room(self.segment_bytes.saturating_add(self.room()).saturating_add(self.disk.bar()))
        {
            return Ok(0);
        }
        // A number of its own, so that the name can't meet that of a retired segment.
        let number = self.state.lock().stock.take_id();
        let temporary = self.temporary(number);
        let prepared = self.zeroed(&temporary, go_on).and_then(|bytes| {
            if bytes == self.segment_bytes {
                self.pool(&temporary, number)?;
            }
            Ok(bytes)
        });
        self.clean_up(&temporary)?;
        prepared
    }

    fn zeroed(&self, path: &Path, go_on: impl Fn() -> bool) -> io::Result<u64> {
        let file = self.fs.open(path, OpenMode::CreateNew)?;
        let bytes = write_zeroes(&*file, 0, self.segment_bytes, go_on)?;
        file.sync_data()?;
        Ok(bytes)
    }

    /// Removes a file that was to become a segment, unless it has become one.
    fn clean_up(&self, temporary: &Path) -> io::Result<()> {
        if self.fs.exists(temporary) { self.fs.remove_file(temporary) } else { Ok(()) }
    }

    fn temporary(&self, number: u64) -> PathBuf {
        self.log_dir.join(format!("{number:016x}.tmp"))
    }

    /// Puts the files of dead segments into the reserve, then into the pool, or unlinks them when both are full, when their
    /// size is not the usual one, or when a backup shares them. A low disk gets back what the reserve does not need. What
    /// fails stays a segment and is named again after the next checkpoint.
    pub(crate) fn retire(&self, dead: &[u64]) -> io::Result<()> {
        let mut outcome = Ok(());
        for &id in dead {
            match self.retire_one(id) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => outcome = Err(error),
                // Also when somebody else has taken the file away.
                _ => {
                    self.state.lock().stock.segments.remove(&id);
                }
            }
        }
        outcome
    }

    fn retire_one(&self, id: u64) -> io::Result<()> {
        let (len, reserve, pool) = {
            let State { stock, .. } = &*self.state.lock();
            // It may have been named twice.
            let Some(&len) = stock.segments.get(&id) else {
                return Ok(());
            };
            (len, stock.reserve.len() < self.reserve_segments, stock.free.len() < self.pool_segments)
        };
        let path = segment::path(&self.log_dir, id);
        let pool = pool && !self.disk.is_low();
        if len == self.segment_bytes && (reserve || pool) {
            let file = self.fs.open(&path, OpenMode::Write)?;
            // It has its blocks, unless it is from a version that did not see to that.
            if file.links()? == 1 && file.allocate(len).is_ok() {
                if reserve { self.keep(&path, id) } else { self.pool(&path, id) }?;
                self.recycled.fetch_add(1, Ordering::Relaxed);
                return Ok(());
            }
        }
        self.fs.remove_file(&path)
    }

    fn pool(&self, path: &Path, number: u64) -> io::Result<()> {
        let free = segment::free_path(&self.log_dir, number);
        self.fs.rename(path, &free)?;
        self.state.lock().stock.free.push(free);
        Ok(())
    }

    /// Puts a file into the reserve.
    fn keep(&self, path: &Path, number: u64) -> io::Result<()> {
        let reserve = segment::reserve_path(&self.log_dir, number);
        self.fs.rename(path, &reserve)?;
        self.put_reserve(reserve);
        self.disk.reconsider();
        Ok(())
    }

    fn put_reserve(&self, file: PathBuf) {
        let mut state = self.state.lock();
        state.stock.reserve.push(file);
        self.disk.repay(state.stock.reserve.len() >= self.reserve_segments);
    }

    fn take_reserve(&self, stock: &mut Stock) -> Option<PathBuf> {
        stock.reserve.pop().inspect(|_| self.disk.owe())
    }

    /// Looks how much is free, and does what follows: makes the reserve whole when there is room for it, gives the pool up
    /// when that is what a low disk lacks.
    pub(crate) fn review(&self, go_on: impl Fn() -> bool) {
        let free = self.disk.look();
        if self.disk.is_low() {
            self.give_up_pool(free);
            if free >= self.disk.bar().saturating_add(self.segment_bytes) {
                self.disk.forgive();
            }
        }
        if let Err(error) = self.fill_reserve(go_on) {
            tracing::warn!(%error, "cannot make a segment for the reserve");
        }
        self.disk.look();
        self.disk.wake();
    }

    fn fill_reserve(&self, go_on: impl Fn() -> bool) -> io::Result<()> {
        while go_on() {
            let (number, free) = {
                let mut state = self.state.lock();
                if state.stock.reserve.len() >= self.reserve_segments {
                    return Ok(());
                }
                let low = self.disk.is_low();
                (state.stock.take_id(), if low { state.stock.free.pop() } else { None })
            };
            if let Some(free) = free {
                self.keep(&free, number).inspect_err(|_| self.state.lock().stock.free.push(free))?;
                continue;
            }
            // What is kept in reserve must not itself make the disk low.
            let needed = self.segment_bytes.saturating_add(self.room()).saturating_add(self.disk.bar());
            if !self.disk.has_room(needed) {
                return Ok(());
            }
            let temporary = self.temporary(number);
            let made = self.fs.open(&temporary, OpenMode::CreateNew).and_then(|file| file.allocate(self.segment_bytes));
            if let Err(error) = made.and_then(|()| self.keep(&temporary, number)) {
                self.clean_up(&temporary)?;
                return if shortage::is_full(&error) { Ok(()) } else { Err(error) };
            }
        }
        Ok(())
    }

    /// Unlinks free files: all when somebody waits for room, else as many as bring the disk back above the limit, if they do.
    fn give_up_pool(&self, free: u64) {
        let wanted = self.disk.is_wanted();
        let missing = self.disk.bar().saturating_sub(free).div_ceil(self.segment_bytes);
        let has = self.state.lock().stock.free.len() as u64;
        let count = if wanted { has } else { missing };
        if count <= has {
            for _ in 0..count {
                self.drop_one(|stock| stock.free.pop());
            }
        }
    }

    /// Whether so many bytes are free for a checkpoint or a snapshot. On a full disk these come before the pool and the
    /// reserve, since they are what sets segments free; but nothing is given up if that would not be enough.
    pub(crate) fn make_room(&self, bytes: u64) -> bool {
        let kept = {
            let State { stock, .. } = &*self.state.lock();
            (stock.free.len() + stock.reserve.len()) as u64
        };
        if !self.disk.has_room(bytes.saturating_sub(kept.saturating_mul(self.segment_bytes))) {
            return false;
        }
        while !self.disk.has_room(bytes) {
            if self.drop_one(|stock| stock.free.pop()) {
                continue;
            }
            if !self.drop_one(|stock| self.take_reserve(stock)) {
                return false;
            }
            self.disk.reconsider();
        }
        true
    }

    /// Unlinks one file, if there is one.
    fn drop_one(&self, choose: impl FnOnce(&mut Stock) -> Option<PathBuf>) -> bool {
        let path = choose(&mut self.state.lock().stock);
        let Some(path) = path else {
            return false;
        };
        // What can't be removed is found by the next start.
        if let Err(error) = self.fs.remove_file(&path) {
            tracing::warn!(path = %path.display(), %error, "cannot remove a free segment file");
        }
        true
    }

    /// Whether the free space may soon be at the limit, or has to be watched because it is.
    pub(crate) fn is_near(&self) -> bool {
        let (free, _) = self.disk.figures();
        self.disk.is_low() || free < self.disk.bar().saturating_add(NEAR_SEGMENTS.saturating_mul(self.segment_bytes))
    }

    /// Ids of the segments below `below`.
    pub(crate) fn segments_below(&self, below: u64) -> Vec<u64> {
        self.state.lock().stock.segments.range(..below).map(|(&id, _)| id).collect()
    }

    /// Segments below `below` and the lengths of their files.
    pub(crate) fn lengths_below(&self, below: u64) -> Vec<(u64, u64)> {
        self.state.lock().stock.segments.range(..below).map(|(&id, &len)| (id, len)).collect()
    }

    /// Segments in use, free files, and files of the reserve.
    pub(crate) fn counts(&self) -> (usize, usize, usize) {
        let State { stock, .. } = &*self.state.lock();
        (stock.segments.len(), stock.free.len(), stock.reserve.len())
    }

    pub(crate) fn has_free(&self) -> bool {
        !self.state.lock().stock.free.is_empty()
    }
}

impl Stock {
    /// An id, or a number for a name, that was never used.
    fn take_id(&mut self) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }
}
