//! The housekeeping thread: brings the index into sled, says so in the log, writes snapshots, and sets segments free.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::core::{Core, Job};
use crate::index::base::Base;
use crate::index::{Index, Obsolete, Position, codec};
use crate::log::record::{Body, Entry};
use crate::recover;
use crate::snapshot;
use crate::state::{Changes, State, topology_pieces};

/// Chunks written under one hold of the index lock.
const SLICE: usize = 32;
/// Changes that go into sled at once.
const BATCH_BYTES: u64 = 1024 * 1024;
/// Dead segments that call for a snapshot even when they are short, as after many restarts.
const DEAD_MAX: usize = 12;

/// When the next checkpoint is due.
#[derive(Default)]
pub(crate) struct Schedule {
    state: Mutex<Due>,
    changed: Condvar,
    said: AtomicBool,
}

#[derive(Default)]
struct Due {
    dirty: bool,
    /// A segment is full: the interval is over.
    urgent: bool,
    closing: bool,
    /// Who waits for a snapshot of their own.
    copies: Vec<SnapshotCopy>,
    stopped: bool,
}

/// A snapshot for a backup: where to, and who is told the position its log begins at and its bytes.
struct SnapshotCopy {
    dir: PathBuf,
    done: SyncSender<io::Result<(Position, u64)>>,
}

impl Schedule {
    /// Says that sled lacks something; costs one swap when it was said before.
    pub(crate) fn dirty(&self) {
        if !self.said.swap(true, Ordering::AcqRel) {
            self.state.lock().dirty = true;
            self.changed.notify_all();
        }
    }

    /// Says that a segment is full. Under heavy load the segments come back to the pool by this, as fast as they are used.
    pub(crate) fn segment_full(&self) {
        self.state.lock().urgent = true;
        self.changed.notify_all();
    }

    /// Asks for the last checkpoint, the one that says that the stop was clean.
    pub(crate) fn close(&self) {
        self.state.lock().closing = true;
        self.changed.notify_all();
    }

    /// Asks for a checkpoint now, and then for a snapshot in `dir`. `done` is dropped when the store stops before that.
    pub(crate) fn snapshot_to(&self, dir: PathBuf, done: SyncSender<io::Result<(Position, u64)>>) {
        let mut state = self.state.lock();
        if !state.stopped {
            state.copies.push(SnapshotCopy { dir, done });
            state.dirty = true;
            state.urgent = true;
            self.changed.notify_all();
        }
    }

    /// Makes the thread see that the store stops, and lets those go who wait for it.
    pub(crate) fn wake(&self) {
        let mut state = self.state.lock();
        state.stopped = true;
        state.copies.clear();
        drop(state);
        self.changed.notify_all();
    }

    /// Waits until a checkpoint is due. `Some(true)` when it is the last, `None` when the store stops.
    fn wait(&self, interval: Duration, stopping: impl Fn() -> bool) -> Option<bool> {
        let mut state = self.state.lock();
        while !state.dirty && !state.closing && !stopping() {
            self.changed.wait(&mut state);
        }
        // The interval runs from the first change: what is idle does nothing, what is busy does it at this rate.
        let until = std::time::Instant::now() + interval;
        while !state.closing && !state.urgent && !stopping() {
            if self.changed.wait_until(&mut state, until).timed_out() {
                break;
            }
        }
        if stopping() {
            return None;
        }
        state.dirty = false;
        state.urgent = false;
        self.said.store(false, Ordering::Release);
        Some(state.closing)
    }
}

/// The states of the index on disk.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mirrors {
    /// The last checkpoint that the log knows of.
    pub(crate) checkpoint: Base,
    /// The last snapshot.
    pub(crate) snapshot: Base,
    /// Bytes of log since the last snapshot that this opening did not write.
    pub(crate) older_log: u64,
}

/// State of the housekeeping thread.
pub(crate) struct Keeper {
    pub(crate) core: Arc<Core>,
    pub(crate) state: Option<State>,
    /// The last checkpoint that the log knows of, the last snapshot, and the log since.
    pub(crate) from: Mirrors,
    /// Bytes of log this opening had written when it wrote its last snapshot.
    log_at_snapshot: u64,
    /// sled failed in the last checkpoint too.
    failed_before: bool,
}

impl Keeper {
    pub(crate) fn new(core: Arc<Core>, state: State, from: Mirrors) -> Self {
        Self { core, state: Some(state), from, log_at_snapshot: 0, failed_before: false }
    }

    /// Runs until the store stops or is closed.
    pub(crate) fn run(mut self) -> Result<(), String> {
        let core = Arc::clone(&self.core);
        self.retire();
        loop {
            let Some(last) = core.schedule.wait(core.options.checkpoint_interval, || core.is_stopping()) else {
                return Ok(());
            };
            if !self.checkpoint(last)? || last {
                return Ok(());
            }
            self.snapshot_copies();
            self.snapshot_if_due();
            self.retire();
        }
    }

    /// One checkpoint; false when the store stopped meanwhile.
    fn checkpoint(&mut self, last: bool) -> Result<bool, String> {
        let base = match self.write() {
            Ok(base) => {
                self.failed_before = false;
                base
            }
            Err(reason) => {
                self.replace_sled(&reason)?;
                self.core.schedule.dirty();
                if !last {
                    return Ok(true);
                }
                self.write().map_err(|reason| format!("sled: {reason}"))?
            }
        };
        let done = Entry::CheckpointDone { lsn: base.lsn, clean: last };
        let bytes = done.span(Body::Inline);
        let lsn = self.core.pending.append(done, bytes);
        if !self.core.wait_durable(lsn) {
            return Ok(false);
        }
        self.from.checkpoint = base;
        if last {
            self.core.clean_mark.store(lsn.0, Ordering::Release);
        }
        Ok(true)
    }

    /// Brings sled up to the index and syncs it.
    fn write(&mut self) -> Result<Base, String> {
        let state = self.state.as_mut().ok_or("it is not open")?;
        let core = &self.core;
        let mut total = 0;
        let mut changes = Changes::default();
        let mut apply = |state: &State, changes: &mut Changes, least: u64| {
            if changes.bytes < least {
                return Ok(());
            }
            let changes = std::mem::take(changes);
            total += changes.bytes;
            state.apply(changes)
        };
        let (base, mut work) = take_work(core);
        for (at, obsolete) in work.obsolete.drain(..).enumerate() {
            changes.obsolete(obsolete);
            if at % 1024 == 1023 {
                apply(state, &mut changes, 0)?;
            }
        }
        for (number, pieces) in work.topology_removed.drain(..) {
            changes.remove_topology(number, 0..pieces);
        }
        for keys in work.topology.chunks(SLICE) {
            write_topology(&mut core.index.lock(), keys, &mut changes);
            apply(state, &mut changes, BATCH_BYTES)?;
        }
        for ids in work.queues.chunks(SLICE) {
            write_queues(&mut core.index.lock(), ids, &mut changes);
            apply(state, &mut changes, BATCH_BYTES)?;
        }
        for chunks in work.chunks.chunks(SLICE) {
            write_chunks(&mut core.index.lock(), chunks, &mut changes);
            apply(state, &mut changes, BATCH_BYTES)?;
        }
        if work.dropped {
            let index = core.index.lock();
            changes.dropped(index.dropped_recent());
        }
        // Only the last batch moves the checkpoint. What a crash leaves of the others is newer than the checkpoint in sled,
        // and replaying the log over it ends in the same state.
        changes.checkpoint(&base);
        apply(state, &mut changes, 0)?;
        state.sync()?;
        core.stats.checkpoint(total);
        Ok(base)
    }

    /// sled failed: it goes to quarantine, and an empty one takes its place that the next checkpoint fills. A second failure
    /// in a row is not sled's own.
    fn replace_sled(&mut self, reason: &str) -> Result<(), String> {
        tracing::error!(reason, "sled failed; it is moved to quarantine and written anew");
        if std::mem::replace(&mut self.failed_before, true) {
            return Err(format!("sled failed twice: {reason}"));
        }
        self.state = None;
        let dirs = recover::Dirs::new(&self.core.options.data_dir);
        recover::quarantine(&*self.core.options.fs, &dirs, &dirs.sled).map_err(|error| error.to_string())?;
        self.state = Some(State::open(&dirs.sled, self.core.options.sled_cache_bytes)?);
        self.core.index.lock().mark_all_dirty();
        Ok(())
    }

    /// Writes the snapshots that backups wait for, unless the checkpoint they begin at has failed: then after the next.
    fn snapshot_copies(&self) {
        if self.failed_before {
            return;
        }
        let copies = std::mem::take(&mut self.core.schedule.state.lock().copies);
        let base = self.from.checkpoint;
        for SnapshotCopy { dir, done } in copies {
            let written = snapshot::write(&*self.core.options.fs, &dir, &base, &self.core.index);
            // Whoever asked may have given up.
            let _ = done.try_send(written.map(|bytes| (base.resume, bytes)));
        }
    }

    fn snapshot_if_due(&mut self) {
        let core = &self.core;
        let written = core.stats.log_bytes().saturating_sub(self.log_at_snapshot).saturating_add(self.from.older_log);
        let dead = self.dead(self.from.checkpoint.resume.segment).len();
        let index_bytes = core.index.lock().estimated_bytes();
        if written <= core.options.snapshot_bytes.max(2 * index_bytes) && dead < DEAD_MAX + core.options.pool_segments {
            return;
        }
        // As of the checkpoint, not of now: the log says that this point is durable.
        let base = self.from.checkpoint;
        let log_bytes = core.stats.log_bytes();
        let fs = &*core.options.fs;
        match snapshot::write(fs, &core.options.data_dir, &base, &core.index) {
            Ok(bytes) => {
                core.stats.snapshot(bytes);
                self.from.snapshot = base;
                self.from.older_log = 0;
                self.log_at_snapshot = log_bytes;
            }
            // The old one stays good; log is kept for longer.
            Err(error) => tracing::error!(%error, "cannot write a snapshot"),
        }
    }

    /// Segments below both the checkpoint and the snapshot that hold nothing any more.
    fn retire(&mut self) {
        let below = self.from.checkpoint.resume.segment.min(self.from.snapshot.resume.segment);
        let dead = self.dead(below);
        let large = {
            let mut index = self.core.index.lock();
            for id in &dead {
                index.segments.remove(id);
            }
            std::mem::take(&mut index.large_dead)
        };
        if !dead.is_empty() {
            self.core.post(Job::Retire(dead));
        }
        if !large.is_empty() {
            self.core.post(Job::RemoveLarge(large));
        }
    }

    fn dead(&self, below: u64) -> Vec<u64> {
        let mut ids = self.core.space.segments_below(below);
        let index = self.core.index.lock();
        ids.retain(|id| index.segments.get(id).is_none_or(|used| used.live == 0 && used.pins == 0));
        ids
    }
}

/// What a checkpoint has to write.
struct Work {
    obsolete: Vec<Obsolete>,
    topology: Vec<Vec<u8>>,
    topology_removed: Vec<(u64, u32)>,
    queues: Vec<u64>,
    chunks: Vec<(u64, u64)>,
    dropped: bool,
}

fn take_work(core: &Core) -> (Base, Work) {
    let mut index = core.index.lock();
    let base = Base { lsn: index.applied, resume: index.resume, epoch: core.epoch, key: core.key.bytes };
    let work = Work {
        obsolete: std::mem::take(&mut index.obsolete),
        topology: std::mem::take(&mut index.topology.dirty),
        topology_removed: std::mem::take(&mut index.topology.removed),
        queues: std::mem::take(&mut index.dirty_queues),
        chunks: std::mem::take(&mut index.dirty_chunks),
        dropped: std::mem::take(&mut index.dropped_dirty),
    };
    (base, work)
}

fn write_topology(index: &mut Index, keys: &[Vec<u8>], changes: &mut Changes) {
    for key in keys {
        if let Some(record) = index.topology.records.get_mut(key) {
            let mut bytes = Vec::new();
            codec::put_topology(key, &record.value, &mut bytes);
            changes.topology(record.number, &bytes);
            let pieces = topology_pieces(bytes.len());
            changes.remove_topology(record.number, pieces..record.pieces);
            record.pieces = pieces;
        }
    }
}

fn write_queues(index: &mut Index, ids: &[u64], changes: &mut Changes) {
    for &id in ids {
        if let Some(queue) = index.queues.get_mut(&id) {
            queue.listed = false;
            queue.header_dirty = false;
            let mut bytes = Vec::new();
            codec::put_queue(queue, &mut bytes);
            changes.queue(id, bytes);
        }
    }
}

fn write_chunks(index: &mut Index, chunks: &[(u64, u64)], changes: &mut Changes) {
    for &(id, number) in chunks {
        let Some(queue) = index.queues.get_mut(&id) else {
            continue;
        };
        let Some(chunk) = queue.chunks.get_mut(&number) else {
            continue;
        };
        chunk.listed = false;
        if chunk.live_count == 0 {
            changes.obsolete(Obsolete::Chunk(id, number, chunk.stored));
            queue.chunks.remove(&number);
        } else {
            changes.chunk(id, number, chunk);
        }
    }
}
