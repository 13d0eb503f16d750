//! Room for the log: which segments exist, the pool of free files, and where the next segment comes from.
//!
//! A file gets its new id by a rename that is synced before anything is written to it. So no crash can bring back the old
//! name over new contents, and groups left in the file never parse as current, for they name another segment.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::fs::{Fs, OpenMode};

use super::segment::{self, Segment};

static ZEROES: [u8; 256 * 1024] = [0; 256 * 1024];

/// The segments and the pool.
pub(crate) struct Space {
    fs: Arc<dyn Fs>,
    log_dir: PathBuf,
    segment_bytes: u64,
    pool_segments: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    segments: BTreeMap<u64, u64>,
    free: Vec<PathBuf>,
    next_id: u64,
}

impl Space {
    /// Takes stock of what recovery found: the segments with their sizes, and the free files.
    pub(crate) fn new(
        fs: Arc<dyn Fs>,
        log_dir: &Path,
        segment_bytes: u64,
        pool_segments: usize,
        segments: BTreeMap<u64, u64>,
        free: Vec<PathBuf>,
        next_id: u64,
    ) -> Self {
        let state = Mutex::new(State { segments, free, next_id });
        Self { fs, log_dir: log_dir.to_path_buf(), segment_bytes, pool_segments, state }
    }

    /// The next segment, of at least `needed` bytes: from the pool, or a new file. The id is greater than all before.
    pub(crate) fn next(&self, needed: u64) -> io::Result<Segment> {
        let (id, free) = {
            let mut state = self.state.lock();
            let id = state.next_id;
            state.next_id += 1;
            (id, if needed <= self.segment_bytes { state.free.pop() } else { None })
        };
        let path = segment::path(&self.log_dir, id);
        let len = needed.max(self.segment_bytes);
        let file = match free {
            Some(free) => {
                self.fs.rename(&free, &path)?;
                self.fs.open(&path, OpenMode::Write)?
            }
            None => {
                let file = self.fs.open(&path, OpenMode::CreateNew)?;
                file.set_len(len)?;
                file
            }
        };
        self.fs.sync_dir(&self.log_dir)?;
        self.state.lock().segments.insert(id, len);
        Ok(Segment { id, len, file })
    }

    /// Makes sure that a file waits in the pool, writing it full of zeroes: a file whose blocks exist syncs several times
    /// faster than one that grows. Returns the bytes written. `go_on` is asked between the writes.
    pub(crate) fn prepare(&self, go_on: impl Fn() -> bool) -> io::Result<u64> {
        let number = {
            let mut state = self.state.lock();
            if !state.free.is_empty() {
                return Ok(0);
            }
            // An id of its own, so that the name can't meet that of a retired segment.
            let number = state.next_id;
            state.next_id += 1;
            number
        };
        let temporary = self.log_dir.join(format!("{number:016x}.tmp"));
        match self.zero(&temporary, go_on) {
            Ok(bytes) if bytes == self.segment_bytes => {
                let path = segment::free_path(&self.log_dir, number);
                self.fs.rename(&temporary, &path)?;
                self.state.lock().free.push(path);
                Ok(bytes)
            }
            unfinished => {
                self.fs.remove_file(&temporary)?;
                unfinished
            }
        }
    }

    fn zero(&self, path: &Path, go_on: impl Fn() -> bool) -> io::Result<u64> {
        let file = self.fs.open(path, OpenMode::CreateNew)?;
        let mut at = 0;
        while at < self.segment_bytes && go_on() {
            let n = (self.segment_bytes - at).min(ZEROES.len() as u64);
            file.write_all_at(&ZEROES[..n as usize], at)?;
            at += n;
        }
        file.sync_data()?;
        Ok(at)
    }

    /// Puts the files of dead segments into the pool, or unlinks them when it is full, when their size is not the usual one,
    /// or when a backup shares them. What fails stays a segment and is named again after the next checkpoint.
    pub(crate) fn retire(&self, dead: &[u64]) -> io::Result<()> {
        let mut outcome = Ok(());
        for &id in dead {
            match self.retire_one(id) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => outcome = Err(error),
                // Also when somebody else has taken the file away.
                _ => {
                    self.state.lock().segments.remove(&id);
                }
            }
        }
        outcome
    }

    fn retire_one(&self, id: u64) -> io::Result<()> {
        let (len, room) = {
            let state = self.state.lock();
            // It may have been named twice.
            let Some(&len) = state.segments.get(&id) else {
                return Ok(());
            };
            (len, state.free.len() < self.pool_segments)
        };
        let path = segment::path(&self.log_dir, id);
        if room && len == self.segment_bytes && self.fs.open(&path, OpenMode::Read)?.links()? == 1 {
            let free = segment::free_path(&self.log_dir, id);
            self.fs.rename(&path, &free)?;
            self.state.lock().free.push(free);
            return Ok(());
        }
        self.fs.remove_file(&path)
    }

    /// Ids of the segments below `below`.
    pub(crate) fn segments_below(&self, below: u64) -> Vec<u64> {
        self.state.lock().segments.range(..below).map(|(&id, _)| id).collect()
    }

    /// Segments in use and free files.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.segments.len(), state.free.len())
    }

    pub(crate) fn has_free(&self) -> bool {
        !self.state.lock().free.is_empty()
    }
}
